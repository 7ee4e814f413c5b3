//! The connections without an allocation: when each has to end, and how many come from where.

use crate::network::networks_of;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

/// Connections on one worker; one more ends the oldest.
const MAX: usize = 1024;
/// Of them from one IPv4 address or IPv6 /64; one more ends the oldest of these, so that a source
/// that connects and says nothing ends its own connections and not everybody's. A wider IPv6 network
/// may have a multiple, up to half of all.
pub(super) const MAX_OF_SOURCE: usize = MAX / 8;

/// By deadline, which all have set at the same distance: the first is the oldest.
type Queue = BTreeSet<(Instant, u32)>;

#[derive(Default)]
pub(super) struct Waiting {
    all: Queue,
    /// A source without connections has no entry.
    by_source: HashMap<(IpAddr, u8), Queue, foldhash::fast::RandomState>,
}

impl Waiting {
    pub(super) fn insert(&mut self, client: IpAddr, deadline: Instant, slot: u32) {
        self.all.insert((deadline, slot));
        for (source, _) in networks_of(client) {
            let of_source = self.by_source.entry(source).or_default();
            of_source.insert((deadline, slot));
        }
    }

    pub(super) fn remove(&mut self, client: IpAddr, deadline: Instant, slot: u32) {
        self.all.remove(&(deadline, slot));
        for (source, _) in networks_of(client) {
            if let Some(of_source) = self.by_source.get_mut(&source) {
                of_source.remove(&(deadline, slot));
                if of_source.is_empty() {
                    self.by_source.remove(&source);
                }
            }
        }
    }

    /// The connection that has to go first.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.all.first().copied()
    }

    /// The connection that has to go where one more of `client` would be too many.
    pub(super) fn surplus(&self, client: IpAddr) -> Option<u32> {
        let full = |(source, times): ((IpAddr, u8), u32)| {
            let most = (MAX_OF_SOURCE * times as usize).min(MAX / 2);
            let of_source = self.by_source.get(&source)?;
            (of_source.len() >= most).then_some(of_source)
        };
        let mut sources = networks_of(client);
        let full = sources
            .find_map(full)
            .or_else(|| Some(&self.all).filter(|all| all.len() >= MAX))?;
        full.first().map(|(_, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_source_ends_its_own_connections_and_only_a_full_worker_the_oldest_of_all() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let at = |slot: usize| start + Duration::from_millis(slot as u64);
        let honest: IpAddr = "192.0.2.1".parse().unwrap();
        waiting.insert(honest, at(0), 0);
        // Addresses of one /64 are one source.
        let flood = |n: usize| format!("2001:db8::{n:x}").parse().unwrap();
        for slot in 1..=MAX_OF_SOURCE {
            assert_eq!(waiting.surplus(flood(slot)), None);
            waiting.insert(flood(slot), at(slot), slot as u32);
        }
        assert_eq!(waiting.surplus(flood(0)), Some(1));
        assert_eq!(waiting.surplus(honest), None);

        let other = |slot: usize| IpAddr::from([10, 0, (slot >> 8) as u8, slot as u8]);
        for slot in MAX_OF_SOURCE + 1..MAX {
            waiting.insert(other(slot), at(slot), slot as u32);
        }
        assert_eq!(waiting.surplus(flood(0)), Some(1), "its own first");
        assert_eq!(waiting.surplus(other(0)), Some(0));
        assert_eq!(waiting.first(), Some((at(0), 0)));

        waiting.remove(honest, at(0), 0);
        assert_eq!(waiting.surplus(other(0)), None);
        for slot in 1..=MAX_OF_SOURCE {
            waiting.remove(flood(slot), at(slot), slot as u32);
        }
        for slot in MAX_OF_SOURCE + 1..MAX {
            waiting.remove(other(slot), at(slot), slot as u32);
        }
        assert!(waiting.all.is_empty() && waiting.by_source.is_empty());
    }

    #[test]
    fn the_networks_of_one_site_leave_half_of_the_places_to_others() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let honest: IpAddr = "192.0.2.1".parse().unwrap();
        waiting.insert(honest, start, 0);
        let flood = |n: usize| IpAddr::from([0x2001, 0xdb8, 0, n as u16, 0, 0, 0, 1]);
        for slot in 1..=MAX / 2 {
            assert_eq!(waiting.surplus(flood(slot)), None);
            waiting.insert(
                flood(slot),
                start + Duration::from_millis(slot as u64),
                slot as u32,
            );
        }
        assert_eq!(waiting.surplus(flood(0)), Some(1), "its own first");
        assert_eq!(waiting.surplus(honest), None);
    }
}
