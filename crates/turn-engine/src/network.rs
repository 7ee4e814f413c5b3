//! Who counts as one client where limits are counted. Pure, and known by everybody.

use std::net::{IpAddr, Ipv6Addr};

/// The network that limits count by: one IPv4 address, or one IPv6 /64, which is what one
/// subscriber has at least.
pub fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_single_ipv4_addresses_and_ipv6_64s() {
        let net = |s: &str| network_of(s.parse().unwrap()).to_string();
        assert_eq!(net("192.0.2.7"), "192.0.2.7");
        assert_eq!(net("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(net("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
