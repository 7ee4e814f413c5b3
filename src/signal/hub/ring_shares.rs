//! What the rings of one network hold together. Beyond its share, its sessions give up frames of their
//! own, so that no network takes the resume of others.

use crate::network::networks_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One network may hold one part in so many of what all rings may, for each [`SESSIONS`] that it may
/// have; a wider one has a multiple of that, up to half.
const PARTS: usize = 8;
/// Sessions of one network by default.
const SESSIONS: u32 = 1_000;

/// The bytes of one network. Written under the hub's lock alone.
#[derive(Debug)]
pub(super) struct RingShare {
    bytes: AtomicUsize,
    times: u32,
    /// That of the network around it.
    wider: Option<Arc<RingShare>>,
}

impl RingShare {
    /// Itself and those around it.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |share| share.wider.as_deref())
    }

    pub(super) fn add(&self, bytes: usize) {
        for share in self.all() {
            let held = share.bytes.load(Ordering::Relaxed);
            share.bytes.store(held + bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        for share in self.all() {
            let held = share.bytes.load(Ordering::Relaxed);
            share.bytes.store(held - bytes, Ordering::Relaxed);
        }
    }

    /// Whether a network holds more than it may where all hold `total` at most.
    pub(super) fn is_exceeded(&self, total: usize) -> bool {
        self.all().any(|share| {
            let most = (total / PARTS).saturating_mul(share.times as usize);
            share.bytes.load(Ordering::Relaxed) > most.min(total / 2)
        })
    }
}

/// The shares of all networks that have sessions.
#[derive(Debug)]
pub(super) struct RingShares {
    networks: HashMap<(IpAddr, u8), Arc<RingShare>>,
    scale: u32,
}

impl RingShares {
    /// Where a network may have that many sessions; `None`: where they are so many that it may hold
    /// everything.
    pub(super) fn new(sessions_per_network: u32) -> Option<Self> {
        let scale = (sessions_per_network / SESSIONS).max(1);
        ((scale as usize) < PARTS).then(|| Self {
            networks: HashMap::new(),
            scale,
        })
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.networks.clear();
    }

    /// What the sessions of a network's clients are charged to.
    pub(super) fn of(&mut self, network: IpAddr) -> Arc<RingShare> {
        let mut chain: Vec<_> = networks_of(network).collect();
        let mut share: Option<Arc<RingShare>> = None;
        while let Some((key, times)) = chain.pop() {
            let wider = share.take();
            let times = times.saturating_mul(self.scale);
            let own = self.networks.entry(key).or_insert_with(|| {
                Arc::new(RingShare {
                    bytes: AtomicUsize::new(0),
                    times,
                    wider,
                })
            });
            share = Some(Arc::clone(own));
        }
        share.expect("every address is in a network")
    }

    /// Forgets the shares of a network that nobody holds any more.
    pub(super) fn forget(&mut self, network: IpAddr) {
        for (key, _) in networks_of(network) {
            match self.networks.get(&key) {
                Some(share) if Arc::strong_count(share) == 1 => self.networks.remove(&key),
                _ => return,
            };
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.networks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_an_eighth_a_wider_one_half_and_nothing_is_left_behind() {
        const TOTAL: usize = 8_000;
        let mut shares = RingShares::new(1_999).unwrap();
        let network = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 1]);
        let held: Vec<_> = (0..4).map(|n| shares.of(network(n))).collect();
        held[0].add(1_000);
        assert!(!held[0].is_exceeded(TOTAL));
        held[0].add(1);
        assert!(held[0].is_exceeded(TOTAL) && !held[1].is_exceeded(TOTAL));
        held[0].give_back(1);
        held[1..].iter().for_each(|share| share.add(1_000));
        let last = shares.of(network(4));
        assert!(!last.is_exceeded(TOTAL));
        last.add(1);
        assert!(last.is_exceeded(TOTAL), "half for the /56");
        let other = shares.of(IpAddr::from([192, 0, 2, 1]));
        other.add(1_000);
        assert!(!other.is_exceeded(TOTAL));
        assert_eq!(shares.len(), 8);
        drop((held, last, other));
        (0..5).for_each(|n| shares.forget(network(n)));
        shares.forget(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(shares.len(), 0);
        assert!(RingShares::new(8_000).is_none());
        let more = RingShares::new(2_000).unwrap().of(network(0));
        more.add(2_000);
        assert!(!more.is_exceeded(TOTAL));
    }
}
