//! ICE URLs (RFC 7064, RFC 7065) and the box's own URL, taken apart.

use crate::address::bracketed;
use std::fmt;

/// How a STUN or TURN server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// The protocol that a firewall has to let through.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp | Self::Tls => "tcp",
        }
    }
}

/// One URL of `iceServers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IceUrl {
    /// As it was handed out.
    pub(super) text: String,
    /// `turn:` or `turns:`, not `stun:`.
    pub(super) relays: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) transport: Transport,
}

impl IceUrl {
    /// Reads one URL; `None` where it is none that a browser would take.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (relays, default, port) = match scheme {
            "stun" => (false, Transport::Udp, 3478),
            "turn" => (true, Transport::Udp, 3478),
            "turns" => (true, Transport::Tls, 5349),
            _ => return None,
        };
        let transport = match (scheme, query) {
            (_, "") => default,
            ("turn", "transport=udp") => Transport::Udp,
            ("turn", "transport=tcp") => Transport::Tcp,
            ("turns", "transport=tcp") => Transport::Tls,
            _ => return None,
        };
        let (host, port) = host_and_port(authority, port)?;
        Some(Self {
            text: text.into(),
            relays,
            host,
            port,
            transport,
        })
    }
}

/// Where the box's HTTP is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl BaseUrl {
    /// Reads `http://HOST:PORT` or `https://HOST`; a path behind it is passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is not a valid URL of a box; write e.g. https://call.example.org");
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(bad()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = host_and_port(authority, if tls { 443 } else { 80 }).ok_or_else(bad)?;
        Ok(Self { tls, host, port })
    }

    /// The `Host` header.
    pub(super) fn authority(&self) -> String {
        let host = bracketed(&self.host);
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(default), |port| port.parse().ok().filter(|p| *p != 0))?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ice_urls_are_read_with_their_defaults() {
        let parse = |text| IceUrl::parse(text).map(|u| (u.relays, u.host, u.port, u.transport));
        assert_eq!(
            parse("stun:h"),
            Some((false, "h".into(), 3478, Transport::Udp))
        );
        assert_eq!(
            parse("turn:[2001:db8::7]:3479?transport=tcp"),
            Some((true, "2001:db8::7".into(), 3479, Transport::Tcp))
        );
        assert_eq!(
            parse("turns:h?transport=tcp"),
            Some((true, "h".into(), 5349, Transport::Tls))
        );
        for bad in [
            "",
            "h:3478",
            "http:h",
            "turn:",
            "turn:h:0",
            "turn:h:x",
            "turn:[h]:1",
            "turn:h?transport=sctp",
            "turns:h?transport=udp",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_boxs_url_keeps_its_port_unless_it_is_the_usual_one() {
        let read = |text| BaseUrl::parse(text).map(|url| url.to_string());
        assert_eq!(read("https://h:443/check"), Ok("https://h".into()));
        assert_eq!(read("ws://[::1]:8080/ws"), Ok("http://[::1]:8080".into()));
        assert!(read("h:8080").is_err());
        assert!(read("https://").is_err());
    }
}
