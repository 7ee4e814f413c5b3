//! Addresses as people write them, and as much of a client's address as the operator wants to keep.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// A host as it stands in a URL: IPv6 addresses in brackets.
pub fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

/// What of client addresses reaches logs, the admin API and the backend: `log.addresses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Detail {
    /// All of it.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Network,
    /// Nothing.
    Nothing,
}

/// Applies to the whole process, as its log does.
static DETAIL: AtomicU8 = AtomicU8::new(Detail::Full as u8);

/// Shows client addresses so from here on.
pub fn show(detail: Detail) {
    DETAIL.store(detail as u8, Ordering::Relaxed);
}

fn detail() -> Detail {
    match DETAIL.load(Ordering::Relaxed) {
        1 => Detail::Network,
        2 => Detail::Nothing,
        _ => Detail::Full,
    }
}

/// What is kept of a client's address; `None`: nothing.
pub fn kept(client: IpAddr) -> Option<IpAddr> {
    reduced(detail(), client)
}

/// A client's address for people to read.
pub fn shown(client: IpAddr) -> String {
    text(detail(), client, None)
}

/// A client's address and port for people to read.
pub fn shown_socket(client: SocketAddr) -> String {
    text(detail(), client.ip(), Some(client))
}

fn reduced(detail: Detail, client: IpAddr) -> Option<IpAddr> {
    match (detail, client.to_canonical()) {
        (Detail::Full, _) => Some(client),
        (Detail::Nothing, _) => None,
        (Detail::Network, IpAddr::V4(ip)) => {
            Some(Ipv4Addr::from(u32::from(ip) & 0xffff_ff00).into())
        }
        (Detail::Network, IpAddr::V6(ip)) => {
            Some(Ipv6Addr::from(u128::from(ip) & (u128::MAX << 80)).into())
        }
    }
}

fn text(detail: Detail, client: IpAddr, socket: Option<SocketAddr>) -> String {
    match (reduced(detail, client), socket) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(socket)) if detail == Detail::Full => socket.to_string(),
        (Some(ip), _) if detail == Detail::Full => ip.to_string(),
        (Some(ip), _) => format!("{ip}/{}", if ip.is_ipv4() { 24 } else { 48 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ipv6_addresses_stand_in_brackets() {
        assert_eq!(bracketed("2001:db8::1"), "[2001:db8::1]");
        assert_eq!(bracketed("192.0.2.1"), "192.0.2.1");
        assert_eq!(bracketed("call.example.org"), "call.example.org");
    }

    #[test]
    fn of_an_address_as_much_is_kept_as_the_operator_wants() {
        let socket: SocketAddr = "[2001:db8:1:2::3]:4000".parse().unwrap();
        let all = |detail, socket: SocketAddr| text(detail, socket.ip(), Some(socket));
        assert_eq!(all(Detail::Full, socket), "[2001:db8:1:2::3]:4000");
        assert_eq!(all(Detail::Network, socket), "2001:db8:1::/48");
        assert_eq!(all(Detail::Nothing, socket), "-");
        let v4 = "::ffff:192.0.2.77".parse().unwrap();
        assert_eq!(text(Detail::Network, v4, None), "192.0.2.0/24");
        assert_eq!(reduced(Detail::Nothing, v4), None);
    }
}
