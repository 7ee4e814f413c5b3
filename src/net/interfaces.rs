//! The addresses of this machine, and which of them are announced to clients.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a box says that has no address which clients reach.
pub const NO_ADDRESS: &str = "no interface has an address that clients reach: relays are refused \
    until one comes (a lease by DHCP, a tunnel, a floating address), or public.address names one";

/// An address that clients reach, and the local one behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// What is announced to clients.
    pub address: IpAddr,
    /// What sockets bind to: differs behind 1:1 NAT.
    pub local: IpAddr,
    /// How it was found, in words for the banner.
    pub how: String,
}

/// What a box without IPv4 means, for the log, the banner and `check`.
pub const NO_IPV4: &str = "no IPv4: clients and peers that have IPv4 only are out of reach, and \
                           relayed addresses are IPv6; give the machine an IPv4 address, or name \
                           it in public.address";

/// Whether this machine has an IPv4 address besides loopback.
pub fn has_ipv4() -> bool {
    let mut interfaces = interfaces().into_iter();
    interfaces.any(|ip| ip.is_ipv4() && !ip.is_loopback())
}

/// Whether an interface of this machine has `address`.
pub fn is_here(address: IpAddr) -> bool {
    interfaces().contains(&address)
}

/// `address` with the local one behind it, if this machine has any of the family.
pub(super) fn announce(address: IpAddr, how: String) -> Option<Announced> {
    // All of 127.0.0.0/8 is this machine, though its interface has but one address.
    let local = match address.is_loopback() || interfaces().contains(&address) {
        true => address,
        false => outbound(address.is_ipv4())?,
    };
    Some(Announced {
        address,
        local,
        how,
    })
}

/// The addresses of this machine's interfaces.
pub(super) fn interfaces() -> BTreeSet<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(|i| i.ip()).collect()
}

/// The local address that packets to the Internet would leave from. Connecting a UDP socket
/// sends nothing.
pub(super) fn outbound(ipv4: bool) -> Option<IpAddr> {
    let (any, somewhere): (SocketAddr, SocketAddr) = if ipv4 {
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        )
    } else {
        let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into())
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(somewhere).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}
