//! Who counts as one client where limits are counted. Pure, and known by everybody.

mod denied;

pub use denied::DeniedClients;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// IPv6 prefixes that are counted, each with how many times the limit of a /64 it may hold. A
/// subscriber is given a /64 at least and a /56 or /48 often: a client with many /64 must not have
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

/// Every network of `client` that is counted, by its address and length, with how many times the
/// limit of the narrowest it may hold. The narrowest comes first; an IPv4 address has no other.
pub fn networks_of(client: IpAddr) -> impl Iterator<Item = ((IpAddr, u8), u32)> {
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
pub struct NetworkCounts(HashMap<(IpAddr, u8), u64>);

impl NetworkCounts {
    /// Counts one more of `client`, unless a network of the client holds `limit` (a /56 eight
    /// times `limit`, a /48 sixty-four times, and neither more than half of `total`) already. Returns
    /// whether it is counted.
    #[must_use]
    pub fn take(&mut self, client: IpAddr, limit: u32, total: u32) -> bool {
        self.take_many(client, 1, limit.into(), half(total))
    }

    /// As [`take`](Self::take), for an amount: of bytes, for instance. A network that is wider than
    /// the narrowest may not hold more than `ceiling`, however wide it is, but as much as the narrowest.
    #[must_use]
    pub fn take_many(&mut self, client: IpAddr, amount: u64, limit: u64, ceiling: u64) -> bool {
        let has_room = self.has_room(client, amount, limit, ceiling);
        if has_room {
            self.add(client, amount);
        }
        has_room
    }

    /// Counts an amount, whatever is held already.
    pub fn add(&mut self, client: IpAddr, amount: u64) {
        for (network, _) in networks_of(client) {
            *self.0.entry(network).or_default() += amount;
        }
    }

    /// Whether [`take`](Self::take) would refuse.
    pub fn is_full(&self, client: IpAddr, limit: u32, total: u32) -> bool {
        !self.has_room(client, 1, limit.into(), half(total))
    }

    fn has_room(&self, client: IpAddr, amount: u64, limit: u64, ceiling: u64) -> bool {
        networks_of(client).all(|(network, times)| {
            let held = self.0.get(&network).copied().unwrap_or_default();
            let most = limit.saturating_mul(times.into()).min(ceiling.max(limit));
            held.saturating_add(amount) <= most
        })
    }

    /// Forgets one that [`take`](Self::take) counted for `client`.
    pub fn give_back(&mut self, client: IpAddr) {
        self.give_back_many(client, 1);
    }

    /// Forgets an amount that was counted for `client`.
    pub fn give_back_many(&mut self, client: IpAddr, amount: u64) {
        for (network, _) in networks_of(client) {
            if let Some(held) = self.0.get_mut(&network) {
                *held -= amount;
                if *held == 0 {
                    self.0.remove(&network);
                }
            }
        }
    }

    /// What the network of `client` ([`network_of`]) holds.
    pub fn held(&self, client: IpAddr) -> u64 {
        let network = (network_of(client), IPV6_PREFIXES[0].0);
        self.0.get(&network).copied().unwrap_or_default()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a wide network may hold of `total`.
fn half(total: u32) -> u64 {
    u64::from(total / 2)
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
                .filter(|client: &IpAddr| counts.take(*client, 3, u32::MAX))
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

    #[test]
    fn a_wide_network_leaves_half_of_all_to_others() {
        let client = |n: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1));
        let mut counts = NetworkCounts::default();
        let taken = |counts: &mut NetworkCounts, limit, total| {
            let clients = (0..1000).map(client);
            clients.filter(|c| counts.take(*c, limit, total)).count()
        };
        assert_eq!(taken(&mut counts, 10, 100), 50);
        assert!(counts.is_full(client(1001), 10, 100));
        let other = "2001:db8:1::1".parse().unwrap();
        assert!(!counts.is_full(other, 10, 100) && counts.take(other, 10, 100));
        // What the operator lets one address have, it has.
        let mut counts = NetworkCounts::default();
        let one = (0..200).filter(|_| counts.take(client(0), 90, 100));
        assert_eq!(one.count(), 90);
    }

    #[test]
    fn an_amount_fits_whole_or_not_at_all() {
        let mut counts = NetworkCounts::default();
        let client = |n: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1));
        let mut take = |n, amount| counts.take_many(client(n), amount, 100, 500);
        assert!(!take(0, 101));
        assert!(take(0, 60) && !take(0, 41) && take(0, 40));
        assert!((1..5).all(|n| take(n, 100)));
        assert!(!take(5, 1), "no network holds more than the ceiling");
        assert!(!take(0x100, 1), "the /48 neither");
        counts.add(client(0), 600);
        assert_eq!(counts.held(client(0)), 700);
        counts.give_back_many(client(0), 700);
        (1..5).for_each(|n| counts.give_back_many(client(n), 100));
        assert!(counts.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_given_back_leaves_nothing(clients: Vec<u128>, limit in 1..4_u32) {
            let mut counts = NetworkCounts::default();
            let mut taken = vec![];
            for bits in clients {
                // Few networks, so that they fill.
                let client = IpAddr::from(Ipv6Addr::from_bits(bits & (7 << 62 | 1 << 75 | 3)));
                if counts.take(client, limit, u32::MAX) {
                    taken.push(client);
                }
                prop_assert!(counts.held(client) <= u64::from(limit));
            }
            for client in taken {
                counts.give_back(client);
            }
            prop_assert!(counts.is_empty());
        }
    }
}
