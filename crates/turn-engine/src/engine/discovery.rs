//! NAT behaviour discovery (RFC 5780): from which other address and port of the box a Binding
//! response can come.
//!
//! Two ports on one address tell whether a NAT maps and filters by port. Whether it does so by
//! address as well takes a second address, and all four combinations.

use super::Family;
use std::net::SocketAddr;

/// CHANGE-REQUEST: "change IP" and "change port" (RFC 5780 section 7.2).
pub(super) const CHANGE_IP: u8 = 0x04;
pub(super) const CHANGE_PORT: u8 = 0x02;

/// Where Binding requests are answered over UDP.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// The addresses of the listeners; a wildcard stands for every address of its family.
    servers: Vec<SocketAddr>,
    has_second_port: bool,
    has_second_address: bool,
}

impl Discovery {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        let mut discovery = Self {
            servers,
            has_second_port: false,
            has_second_address: false,
        };
        let servers = discovery.servers.clone();
        discovery.has_second_port = servers
            .iter()
            .any(|server| discovery.second_port(*server).is_some());
        discovery.has_second_address = servers
            .iter()
            .any(|server| discovery.find_other(*server).is_some());
        discovery
    }

    /// Whether CHANGE-REQUEST means anything here.
    pub(super) fn has_second_port(&self) -> bool {
        self.has_second_port
    }

    /// The address and port that both differ from `server` (OTHER-ADDRESS).
    pub(super) fn other(&self, server: SocketAddr) -> Option<SocketAddr> {
        // Asked for every Binding request.
        self.has_second_address
            .then(|| self.find_other(server))
            .flatten()
    }

    /// Where a response comes from that changes what `flags` say of `server`.
    pub(super) fn change(&self, server: SocketAddr, flags: u8) -> Option<SocketAddr> {
        let other = self.other(server);
        match (flags & CHANGE_IP != 0, flags & CHANGE_PORT != 0) {
            (false, false) => Some(server),
            (false, true) => match other {
                Some(other) => Some(SocketAddr::new(server.ip(), other.port())),
                None => self.second_port(server),
            },
            (true, false) => other.map(|other| SocketAddr::new(other.ip(), server.port())),
            (true, true) => other,
        }
    }

    fn second_port(&self, server: SocketAddr) -> Option<SocketAddr> {
        let ports = self.servers.iter().map(SocketAddr::port);
        let mut others = ports.filter(|port| *port != server.port());
        let at = |port| SocketAddr::new(server.ip(), port);
        others.find(|port| self.serves(at(*port))).map(at)
    }

    fn find_other(&self, server: SocketAddr) -> Option<SocketAddr> {
        let mut others = self.servers.iter().copied();
        others.find(|other| {
            !other.ip().is_unspecified()
                && Family::of(other.ip()) == Family::of(server.ip())
                && other.ip() != server.ip()
                && other.port() != server.port()
                && self.serves(SocketAddr::new(server.ip(), other.port()))
                && self.serves(SocketAddr::new(other.ip(), server.port()))
        })
    }

    fn serves(&self, address: SocketAddr) -> bool {
        self.servers.iter().any(|server| {
            server.port() == address.port()
                && (server.ip() == address.ip()
                    || server.ip().is_unspecified()
                        && Family::of(server.ip()) == Family::of(address.ip()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(servers: &[&str]) -> Discovery {
        Discovery::new(servers.iter().map(|s| s.parse().unwrap()).collect())
    }

    fn change(discovery: &Discovery, server: &str, flags: u8) -> Option<String> {
        let changed = discovery.change(server.parse().unwrap(), flags);
        changed.map(|address| address.to_string())
    }

    #[test]
    fn two_addresses_with_two_ports_change_both() {
        let all = ["192.0.2.1", "192.0.2.2"].map(|ip| [3478, 3479].map(|p| format!("{ip}:{p}")));
        let all: Vec<&str> = all.iter().flatten().map(String::as_str).collect();
        let discovery = discovery(&all);
        let from = "192.0.2.1:3478";
        for (flags, to) in [
            (0, "192.0.2.1:3478"),
            (CHANGE_PORT, "192.0.2.1:3479"),
            (CHANGE_IP, "192.0.2.2:3478"),
            (CHANGE_IP | CHANGE_PORT, "192.0.2.2:3479"),
        ] {
            assert_eq!(change(&discovery, from, flags).as_deref(), Some(to));
        }
        let other = discovery.other("192.0.2.2:3479".parse().unwrap());
        assert_eq!(other, Some("192.0.2.1:3478".parse().unwrap()));
    }

    #[test]
    fn one_address_changes_its_port_and_no_more() {
        for servers in [
            ["192.0.2.1:3478", "192.0.2.1:3479"],
            ["0.0.0.0:3478", "0.0.0.0:3479"],
        ] {
            let discovery = discovery(&servers);
            assert!(discovery.has_second_port());
            let from = "192.0.2.1:3479";
            let to = change(&discovery, from, CHANGE_PORT);
            assert_eq!(to.as_deref(), Some("192.0.2.1:3478"));
            assert_eq!(change(&discovery, from, CHANGE_IP), None);
            assert_eq!(change(&discovery, from, CHANGE_IP | CHANGE_PORT), None);
        }
        let single = discovery(&["0.0.0.0:3478", "[::]:3479"]);
        assert!(!single.has_second_port());
        assert_eq!(change(&single, "192.0.2.1:3478", CHANGE_PORT), None);
    }

    #[test]
    fn a_grid_with_a_hole_has_no_other_address() {
        let holed = discovery(&["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3479"]);
        assert_eq!(holed.other("192.0.2.1:3478".parse().unwrap()), None);
        let to = change(&holed, "192.0.2.1:3478", CHANGE_PORT);
        assert_eq!(to.as_deref(), Some("192.0.2.1:3479"));
    }
}
