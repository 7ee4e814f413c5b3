//! Which sessions bear a name.

use crate::network::networks_of;
use crate::protocol::PeerId;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// The widest network of a client that limits count: an IPv4 address, or an IPv6 /48.
pub(super) fn site(network: IpAddr) -> IpAddr {
    networks_of(network)
        .last()
        .map_or(network, |((site, _), _)| site)
}

/// A name, from where its bearer comes, and the bearer.
type Entry = (Arc<str>, IpAddr, PeerId);

/// Entries in one ordered set: a name borne by everyone ("guest") costs its bearers no more than a
/// name of their own.
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: BTreeSet<Entry>,
    distinct: usize,
}

impl Names {
    /// `network` is that of the bearer's session.
    pub(super) fn insert(&mut self, name: Arc<str>, network: IpAddr, peer: PeerId) {
        let is_new = self.bearers(&name).next().is_none();
        self.distinct += usize::from(is_new);
        self.entries.insert((name, site(network), peer));
    }

    pub(super) fn remove(&mut self, name: &Arc<str>, network: IpAddr, peer: PeerId) {
        if self.entries.remove(&(name.clone(), site(network), peer)) {
            let was_last = self.bearers(name).next().is_none();
            self.distinct -= usize::from(was_last);
        }
    }

    pub(super) fn bearers(&self, name: &str) -> impl Iterator<Item = PeerId> {
        let name: Arc<str> = name.into();
        let entries = self.entries.range(first(&name)..);
        let own = entries.take_while(move |(other, ..)| *other == name);
        own.map(|(_, _, peer)| *peer)
    }

    /// The same, one of each network by turns: however many namesakes somebody makes up in one
    /// network, the bearers from elsewhere are not behind them.
    pub(super) fn bearers_by_turns(&self, name: &str) -> impl Iterator<Item = PeerId> {
        let name: Arc<str> = name.into();
        let mut turns: VecDeque<(IpAddr, PeerId)> = VecDeque::new();
        let mut next_site = Some(Included(first(&name)));
        std::iter::from_fn(move || {
            if let Some(from) = next_site.take()
                && let Some((_, site, peer)) = self.following(&name, from)
            {
                let last = PeerId::from_bits(u128::MAX);
                next_site = Some(Excluded((name.clone(), *site, last)));
                turns.push_back((*site, *peer));
                return Some(*peer);
            }
            while let Some((site, peer)) = turns.pop_front() {
                let behind = Excluded((name.clone(), site, peer));
                if let Some((_, _, next)) = self
                    .following(&name, behind)
                    .filter(|(_, other, _)| *other == site)
                {
                    turns.push_back((site, *next));
                    return Some(*next);
                }
            }
            None
        })
    }

    fn following(&self, name: &Arc<str>, from: std::ops::Bound<Entry>) -> Option<&Entry> {
        let next = self.entries.range((from, Unbounded)).next();
        next.filter(|(other, ..)| other == name)
    }

    /// How many different names there are.
    pub(super) fn distinct(&self) -> usize {
        self.distinct
    }
}

/// Before all bearers of a name.
fn first(name: &Arc<str>) -> Entry {
    let lowest = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    (name.clone(), lowest, PeerId::from_bits(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn names_are_shared_and_counted_once() {
        let mut names = Names::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "ab".into());
        for (name, bits) in [(&a, 1), (&a, u128::MAX), (&b, 2), (&a, 1)] {
            names.insert(name.clone(), network(1), PeerId::from_bits(bits));
        }
        assert_eq!(names.distinct(), 2);
        assert_eq!(names.bearers("a").count(), 2);
        assert_eq!(names.bearers("aa").count(), 0);
        names.remove(&a, network(1), PeerId::from_bits(1));
        names.remove(&a, network(1), PeerId::from_bits(1));
        assert_eq!((names.distinct(), names.bearers("a").count()), (2, 1));
        names.remove(&a, network(1), PeerId::from_bits(u128::MAX));
        assert_eq!(names.distinct(), 1);
    }

    #[test]
    fn bearers_come_one_of_each_network_by_turns() {
        let mut names = Names::default();
        let insert = |names: &mut Names, name: &str, network, bits| {
            names.insert(name.into(), network, PeerId::from_bits(bits));
        };
        (0..100).for_each(|bits| insert(&mut names, "ben", network(1), bits));
        let v6 = |host: u16| IpAddr::from([0x2001, 0xdb8, 7, host, 0, 0, 0, 1]);
        (200..300).for_each(|bits| insert(&mut names, "ben", v6(bits as u16), bits));
        insert(&mut names, "ben", network(9), 150);
        insert(&mut names, "benn", network(9), 151);
        insert(&mut names, "be", network(9), 152);
        let turns: Vec<_> = names.bearers_by_turns("ben").collect();
        let bits = [0, 150, 200, 1, 201, 2, 202].map(PeerId::from_bits);
        assert_eq!(turns[..7], bits);
        let (turns, all): (BTreeSet<_>, BTreeSet<_>) =
            (turns.into_iter().collect(), names.bearers("ben").collect());
        assert_eq!((turns.len(), turns), (201, all));
        assert_eq!(names.bearers_by_turns("bennn").count(), 0);
    }
}
