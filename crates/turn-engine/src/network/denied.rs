//! Client networks that are refused, looked up in logarithmic time.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A set of networks. IPv4-mapped addresses are judged as IPv4.
#[derive(Debug, Clone, Default)]
pub struct DeniedClients {
    /// First and last addresses, in order, none of which overlap.
    v4: Arc<[(Ipv4Addr, Ipv4Addr)]>,
    v6: Arc<[(Ipv6Addr, Ipv6Addr)]>,
}

impl DeniedClients {
    /// Collects networks, which may overlap.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (vec![], vec![]);
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push((network.network(), network.broadcast())),
                IpNet::V6(network) => v6.push((network.network(), network.broadcast())),
            }
        }
        Self {
            v4: merged(v4).into(),
            v6: merged(v6).into(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether a client is in one of them.
    pub fn covers(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(ip) => covers(&self.v4, ip),
            IpAddr::V6(ip) => covers(&self.v6, ip),
        }
    }
}

fn covers<T: Ord + Copy>(ranges: &[(T, T)], ip: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= ip);
    after > 0 && ip <= ranges[after - 1].1
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = vec![];
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(list: &[&str]) -> DeniedClients {
        DeniedClients::new(list.iter().map(|network| network.parse().unwrap()))
    }

    #[test]
    fn networks_cover_their_addresses_in_every_form() {
        let denied = networks(&["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32"]);
        let covers = |ip: &str| denied.covers(ip.parse().unwrap());
        for inside in [
            "192.0.2.0",
            "192.0.2.255",
            "::ffff:192.0.2.9",
            "2001:db8::1",
        ] {
            assert!(covers(inside), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "2001:db9::", "::1"] {
            assert!(!covers(outside), "{outside}");
        }
        assert!(DeniedClients::default().is_empty() && !denied.is_empty());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_look_at_each_network(
            nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..12),
            ip in any::<u32>(),
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(ip, length)| IpNet::new(IpAddr::V4(ip.into()), length).unwrap())
                .collect();
            let ip = IpAddr::V4(ip.into());
            let expected = nets.iter().any(|net| net.contains(&ip));
            prop_assert_eq!(DeniedClients::new(nets).covers(ip), expected);
        }
    }
}
