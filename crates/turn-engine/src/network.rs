//! Who counts as one client where limits are counted. Pure, and known by everybody.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// IPv6 prefixes that are counted, each with how many times the limit of a /64 it may hold. A
/// subscriber is given a /64 at least and a /56 or /48 often: whoever has many /64 must not have
/// the limit many times.
const IPV6_PREFIXES: [(u8, u32); 3] = [(64, 1), (56, 8), (48, 64)];

/// The network that limits count by: one IPv4 address, or one IPv6 /64, which is what one
/// subscriber has at least.
pub fn network_of(client: IpAddr) -> IpAddr {
    prefix_of(client.to_canonical(), 64)
}

/// The first `bits` of an IPv6 address; an IPv4 address is a network of its own.
fn prefix_of(client: IpAddr, bits: u8) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - u32::from(bits));
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// Every network of `client` that is counted, with how many times the limit it may hold.
fn networks_of(client: IpAddr) -> impl Iterator<Item = ((IpAddr, u8), u32)> {
    let client = client.to_canonical();
    let counted = match client {
        IpAddr::V4(_) => &IPV6_PREFIXES[..1],
        IpAddr::V6(_) => &IPV6_PREFIXES[..],
    };
    counted
        .iter()
        .map(move |&(bits, times)| ((prefix_of(client, bits), bits), times))
}

/// What is held by network: an IPv4 address, or an IPv6 /64 with the /56 and the /48 around it.
/// It has entries only for networks that hold something.
#[derive(Debug, Clone, Default)]
pub struct NetworkCounts(HashMap<(IpAddr, u8), u32>);

impl NetworkCounts {
    /// Counts one more of `client`, unless a network of the client holds `limit` (a /56 eight
    /// times `limit`, a /48 sixty-four times) already. Returns whether it is counted.
    #[must_use]
    pub fn take(&mut self, client: IpAddr, limit: u32) -> bool {
        if self.is_full(client, limit) {
            return false;
        }
        for (network, _) in networks_of(client) {
            *self.0.entry(network).or_default() += 1;
        }
        true
    }

    /// Tells whether [`take`](Self::take) would refuse.
    pub fn is_full(&self, client: IpAddr, limit: u32) -> bool {
        networks_of(client).any(|(network, times)| {
            let held = self.0.get(&network).copied().unwrap_or_default();
            held >= limit.saturating_mul(times)
        })
    }

    /// Forgets one that [`take`](Self::take) counted for `client`.
    pub fn give_back(&mut self, client: IpAddr) {
        for (network, _) in networks_of(client) {
            if let Some(held) = self.0.get_mut(&network) {
                *held -= 1;
                if *held == 0 {
                    self.0.remove(&network);
                }
            }
        }
    }

    /// What the network of `client` ([`network_of`]) holds.
    pub fn held(&self, client: IpAddr) -> u32 {
        let network = (network_of(client), IPV6_PREFIXES[0].0);
        self.0.get(&network).copied().unwrap_or_default()
    }

    /// Tells whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_are_single_ipv4_addresses_and_ipv6_64s() {
        let net = |s: &str| network_of(s.parse().unwrap()).to_string();
        assert_eq!(net("192.0.2.7"), "192.0.2.7");
        assert_eq!(net("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(net("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn a_wider_network_holds_less_than_all_of_its_parts() {
        let held = |client: &dyn Fn(u128) -> u128| {
            let mut counts = NetworkCounts::default();
            let clients = (0..1000).map(|n| Ipv6Addr::from_bits(client(n)).into());
            clients
                .filter(|client: &IpAddr| counts.take(*client, 3))
                .count()
        };
        let base = u128::from_be_bytes([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(held(&|n| base + n), 3, "one /64");
        assert_eq!(held(&|n| base + ((n % 256) << 64)), 24, "all /64 of a /56");
        assert_eq!(
            held(&|n| base + ((n % 256) << 72)),
            192,
            "one /64 of each /56"
        );
        assert_eq!(held(&|n| base + (n << 80)), 1000, "one of each /48");
    }

    proptest! {
        #[test]
        fn what_is_given_back_leaves_nothing(clients: Vec<u128>, limit in 1..4_u32) {
            let mut counts = NetworkCounts::default();
            let mut taken = vec![];
            for bits in clients {
                // Few networks, so that they fill.
                let client = IpAddr::from(Ipv6Addr::from_bits(bits & (7 << 62 | 1 << 75 | 3)));
                if counts.take(client, limit) {
                    taken.push(client);
                }
                prop_assert!(counts.held(client) <= limit);
            }
            for client in taken {
                counts.give_back(client);
            }
            prop_assert!(counts.is_empty());
        }
    }
}
