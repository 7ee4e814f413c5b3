//! From what was observed to the likeliest cause and its fix. Pure: these sentences are what the
//! doctor is for.

mod ice;

use super::fault::{Fault, TlsFault};
use super::report::Diagnosis;
use std::net::{IpAddr, SocketAddr};

/// What the other checks saw: one failure alone rarely tells its cause.
#[derive(Debug, Clone, Default)]
pub(super) struct Observations {
    /// Something of the box answered over TCP.
    pub(super) tcp: bool,
    /// Something of the box answered over UDP.
    pub(super) udp: bool,
    /// The ports that answered over IPv4, each with its protocol.
    pub(super) ipv4: Vec<(&'static str, u16)>,
    /// Where the box's HTTP answered.
    pub(super) web: Option<IpAddr>,
    /// Seconds by which the box's clock is ahead of this machine's.
    pub(super) ahead: i64,
    /// A token was sent along.
    pub(super) token: bool,
    /// `turn.relay_ports` of the configuration, or its default.
    pub(super) relay_ports: String,
}

/// More seconds of difference than any network delay explains; tokens with `nbf` or a short `exp`
/// fail from about there.
pub(super) const MAX_SKEW: i64 = 30;

/// The finding where a token is asked for and none was given.
pub(super) const TOKEN_NEEDED: &str = "token-needed";

/// The codes of errors that are about a token.
const REFUSALS: [&str; 3] = ["unauthorized", "token-expired", "forbidden"];

impl Observations {
    pub(super) fn skewed(&self) -> bool {
        self.ahead.abs() > MAX_SKEW
    }

    /// Why the box's HTTP cannot be asked.
    pub(super) fn web(&self, fault: &Fault, at: SocketAddr, host: &str) -> Diagnosis {
        match fault {
            Fault::Refused => because(
                "box-down",
                format!("nothing listens on {at}: the box is not running, or listens elsewhere"),
                "start it (`systemctl status callbox` says how it ended) and compare http.listen \
                 and tls.listen with this URL",
            ),
            Fault::Silent => because(
                "tcp-blocked",
                format!(
                    "nothing comes back from {at}: a firewall drops {}/tcp",
                    at.port()
                ),
                format!(
                    "open {}/tcp at the cloud's firewall first, then at the host's; see that the \
                     address is the box's",
                    at.port()
                ),
            ),
            Fault::Foreign => because(
                "port-taken",
                format!(
                    "what answers on {at} does not speak as a box does: another program has \
                         the port, or http:// and https:// are mixed up"
                ),
                format!(
                    "`ss -ltnp sport = {}` on the box names the program",
                    at.port()
                ),
            ),
            Fault::Http(503, line) => because(
                "not-ready",
                format!("the box takes no newcomers: {line}"),
                "wait until it is ready; while it drains, a restart is under way; its log says what \
                 it lacks otherwise",
            ),
            Fault::Http(status, _) => because(
                "not-callbox",
                format!(
                    "HTTP {status} comes from something that is not a callbox: a proxy in front, or \
                         another program"
                ),
                "see that the proxy passes every path on to http.listen",
            ),
            other => self.any(other, host, at),
        }
    }

    /// Why no session could be had.
    pub(super) fn signaling(&self, fault: &Fault, at: SocketAddr, host: &str) -> Diagnosis {
        match fault {
            Fault::Signaling(code, _) if code == "token-expired" && self.skewed() => self.skew(),
            Fault::Signaling(code, message) if REFUSALS.contains(&code.as_str()) => {
                self.token_refusal(code, message)
            }
            Fault::Signaling(code, message) => because(
                "signaling",
                format!("the box answers {code}: {message}"),
                "its log has the same moment in more detail",
            ),
            Fault::Http(403, line) => because(
                "host-refused",
                format!("the box refuses the request: {line}"),
                "ask by the name in public.host",
            ),
            Fault::Http(429 | 503, line) => because(
                "not-ready",
                format!("the box takes no connection: {line}"),
                "wait, or raise signal.connections_per_ip and signal.max_connections",
            ),
            Fault::Http(status, _) => because(
                "websocket-blocked",
                format!(
                    "HTTP {status} in place of a WebSocket: a proxy in front does not pass \
                         the upgrade on"
                ),
                "nginx: proxy_http_version 1.1, and the headers Upgrade and Connection; see \
                 docs/deploy.md",
            ),
            other => self.web(other, at, host),
        }
    }

    /// Why the token, or the lack of one, was refused.
    fn token_refusal(&self, code: &str, message: &str) -> Diagnosis {
        if !self.token {
            return because(
                TOKEN_NEEDED,
                "the box asks for a token, and none was given: that is right for a box with \
                 auth.mode \"jwt\", and nothing behind it could be asked",
                "give --token (`callbox token --identity doctor --room '*'` makes one), \
                 or --config with the box's own file",
            );
        }
        if code == "token-expired" {
            return because(
                "token-expired",
                format!("the box takes the token no longer: {message}"),
                "make another one (`callbox token --identity doctor --room '*'`)",
            );
        }
        if message.contains("not a JWT") {
            return because(
                "token-malformed",
                format!("what was given as the token cannot be one: {message}"),
                "give the whole token: three parts with a dot between each, as `callbox token` \
                 prints it",
            );
        }
        because(
            "token-refused",
            format!("the box refuses the token: {message}"),
            "sign it with the key that auth.secret, auth.public_key or auth.jwks of the running \
             box names, and its aud and iss as configured",
        )
    }

    /// The clocks differ.
    pub(super) fn skew(&self) -> Diagnosis {
        let (by, direction) = (
            self.ahead.unsigned_abs(),
            if self.ahead > 0 { "ahead of" } else { "behind" },
        );
        because(
            "clock-skew",
            format!(
                "the box's clock is {by} s {direction} this machine's: tokens and credentials \
                     of other programs expire early or late"
            ),
            "set both by NTP (`timedatectl set-ntp true`); auth.leeway bridges a few seconds",
        )
    }

    fn any(&self, fault: &Fault, host: &str, at: SocketAddr) -> Diagnosis {
        match fault {
            Fault::Unresolved(reason) => unresolved(host, reason),
            Fault::Tls(tls) => certificate(tls, host),
            Fault::NoRoute => because(
                "no-ipv6",
                format!("this machine has no route to {}", at.ip()),
                "ask from a network that has the address's family",
            ),
            other => self.other(other),
        }
    }

    fn other(&self, fault: &Fault) -> Diagnosis {
        let text = match fault {
            Fault::Other(text) => text.clone(),
            other => format!("{other:?}"),
        };
        because("other", text, "the box's log may say more")
    }
}

/// A name that leads nowhere.
pub(super) fn unresolved(host: &str, reason: &str) -> Diagnosis {
    because(
        "name-unresolved",
        format!("{host} has no address: {reason}"),
        format!(
            "make an A record (and AAAA) for {host} that points at the box, or correct \
                 public.host"
        ),
    )
}

/// The box gives no relayed IPv6 address.
pub(super) fn no_ipv6_relay() -> Diagnosis {
    because(
        "no-ipv6",
        "the box has no public IPv6 address to relay on: peers that have IPv6 only are reached by \
         no relay",
        "give the machine an IPv6 address, or name it in public.address",
    )
}

fn certificate(fault: &TlsFault, host: &str) -> Diagnosis {
    match fault {
        TlsFault::Name(presented) => because(
            "certificate-name",
            format!(
                "the certificate is for {}, and not for {host}",
                match presented.as_slice() {
                    [] => "other names".to_owned(),
                    names => names.join(", "),
                }
            ),
            format!(
                "ask for one that names {host} (tls.acme does by itself), or reach the box by \
                     a name that the certificate has"
            ),
        ),
        TlsFault::Expired => because(
            "certificate-expired",
            "the certificate has expired",
            "renew it; the box takes the new files of tls.cert and tls.key up by itself",
        ),
        TlsFault::NotYet => because(
            "certificate-not-yet-valid",
            "the certificate is not valid yet: it is new, or this machine's clock is behind",
            "compare `date` here and on the box",
        ),
        TlsFault::Issuer => because(
            "certificate-issuer",
            "nobody whom this machine trusts signed the certificate: it is self-signed, or the \
             file lacks the intermediate certificates",
            "give tls.cert the full chain (fullchain.pem), or trust your own authority: \
             SSL_CERT_FILE names a store",
        ),
        TlsFault::Other(text) => because(
            "tls",
            format!("the TLS handshake fails: {text}"),
            "see that the port speaks TLS (tls.listen) and nothing on the way ends it",
        ),
    }
}

fn because(finding: &'static str, cause: impl Into<String>, fix: impl Into<String>) -> Diagnosis {
    Diagnosis {
        finding,
        cause: cause.into(),
        fix: fix.into(),
    }
}

#[cfg(test)]
mod tests;
