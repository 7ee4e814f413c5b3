//! Users whose credentials no longer make allocations, each up to an expiry.
//!
//! Each revocation is charged to the network of the client that it came from. Where the table is
//! full, the network that has most gives one up: a client that comes and goes a million times pushes
//! out revocations of its own, and nobody else's.

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

/// Revocations kept at a time: with an hour of `turn.ttl`, 270 peers leaving every second.
const MAX: usize = 1_000_000;

/// Entries that have passed and are forgotten with each one that comes: the locks of the hub and of the
/// shared state are held meanwhile.
const MAX_FORGOTTEN: usize = 8;
/// Revocations that wait to be written down. More of them are written by a copy of the whole.
const MAX_FRESH: usize = 65_536;

/// What an operator revokes is charged to nobody.
const OPERATOR: u64 = 0;

/// One revocation, as it is written down. Names are keyed hashes: a million of them would be too
/// much memory, and nobody who does not know the key can aim a collision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The hash of the user.
    pub user: u64,
    /// The hash of the network that it is charged to; 0 for an operator's.
    pub network: u64,
    /// The highest expiry that is refused, Unix seconds.
    pub until: u64,
}

#[derive(Debug)]
pub(super) struct Revocations {
    seed: u64,
    hasher: FixedState,
    by_user: HashMap<u64, (u64, u64)>,
    /// `(until, user)`: the order in which they pass.
    order: BTreeSet<(u64, u64)>,
    by_network: HashMap<u64, BTreeSet<(u64, u64)>>,
    /// How many each network has, operators aside.
    sizes: BTreeSet<(usize, u64)>,
    /// What was not written down yet.
    fresh: Vec<Revocation>,
    /// More came than `fresh` has room for.
    is_overrun: bool,
    max: usize,
}

impl Revocations {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            hasher: FixedState::with_seed(seed),
            by_user: HashMap::new(),
            order: BTreeSet::new(),
            by_network: HashMap::new(),
            sizes: BTreeSet::new(),
            fresh: vec![],
            is_overrun: false,
            max: MAX,
        }
    }

    pub(super) fn revoke(
        &mut self,
        user: &str,
        until: u64,
        network: Option<IpAddr>,
        unix_now: u64,
    ) {
        let revocation = Revocation {
            user: self.hasher.hash_one(user),
            network: network.map_or(OPERATOR, |ip| self.network(ip)),
            until,
        };
        if !self.put(revocation, unix_now) {
            return;
        }
        if self.fresh.len() < MAX_FRESH {
            self.fresh.push(revocation);
        } else {
            self.is_overrun = true;
        }
    }

    pub(super) fn revoked_until(&self, user: &str) -> Option<u64> {
        let user = self.hasher.hash_one(user);
        self.by_user.get(&user).map(|&(until, _)| until)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn all(&self) -> Vec<Revocation> {
        let all = self.by_user.iter();
        all.map(|(&user, &(until, network))| Revocation {
            user,
            network,
            until,
        })
        .collect()
    }

    /// What came since the last time; `None` where only [`all`](Self::all) has all of it.
    pub(super) fn take_fresh(&mut self) -> Option<Vec<Revocation>> {
        let fresh = std::mem::take(&mut self.fresh);
        (!std::mem::take(&mut self.is_overrun)).then_some(fresh)
    }

    /// Takes over what an earlier process wrote down, and the seed of its hashes. To be called
    /// before anything is revoked.
    pub(super) fn restore(
        &mut self,
        seed: u64,
        revocations: impl IntoIterator<Item = Revocation>,
        unix_now: u64,
    ) {
        let max = self.max;
        *self = Self {
            max,
            ..Self::new(seed)
        };
        for revocation in revocations {
            self.put(revocation, unix_now);
        }
    }

    /// Returns whether anything is refused by it that was not before.
    fn put(&mut self, revocation: Revocation, unix_now: u64) -> bool {
        let Revocation {
            user,
            network,
            until,
        } = revocation;
        // One that has passed refuses only what has expired anyway.
        for _ in 0..MAX_FORGOTTEN {
            match self.order.first() {
                Some(&(passed, user)) if passed < unix_now => self.forget(user),
                _ => break,
            }
        }
        if until < unix_now
            || self
                .by_user
                .get(&user)
                .is_some_and(|&(old, _)| old >= until)
        {
            return false;
        }
        self.forget(user);
        if self.by_user.len() >= self.max {
            self.evict();
        }
        self.by_user.insert(user, (until, network));
        self.order.insert((until, user));
        self.resize(network, |of_network| of_network.insert((until, user)));
        true
    }

    /// Makes the network that has most give up the one that passes first.
    fn evict(&mut self) {
        let largest = self.sizes.last().map_or(OPERATOR, |&(_, network)| network);
        let of_network = self.by_network.get(&largest);
        let first = of_network.and_then(|of_network| of_network.first().copied());
        if let Some((_, user)) = first {
            self.forget(user);
        }
    }

    fn forget(&mut self, user: u64) {
        if let Some((until, network)) = self.by_user.remove(&user) {
            self.order.remove(&(until, user));
            self.resize(network, |of_network| of_network.remove(&(until, user)));
        }
    }

    fn resize(&mut self, network: u64, change: impl FnOnce(&mut BTreeSet<(u64, u64)>) -> bool) {
        let of_network = self.by_network.entry(network).or_default();
        let before = of_network.len();
        change(of_network);
        let after = of_network.len();
        if after == 0 {
            self.by_network.remove(&network);
        }
        if network != OPERATOR {
            self.sizes.remove(&(before, network));
            if after > 0 {
                self.sizes.insert((after, network));
            }
        }
    }

    /// An IPv4 address, or an IPv6 /48: a client with more networks than one usually has a whole /48.
    fn network(&self, client: IpAddr) -> u64 {
        let network = match client.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into(),
            ipv4 => ipv4,
        };
        self.hasher.hash_one(network).max(OPERATOR + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> Option<IpAddr> {
        Some(s.parse().unwrap())
    }

    #[test]
    fn what_has_passed_is_forgotten_little_by_little() {
        let mut revocations = Revocations::new(7);
        for n in 0..100 {
            revocations.revoke(&format!("user {n}"), 50, None, 10);
        }
        revocations.revoke("late", 90, None, 60);
        assert_eq!(revocations.all().len(), 101 - MAX_FORGOTTEN);
        for _ in 0..100 {
            revocations.revoke("late", 90, None, 60);
        }
        assert_eq!(revocations.all().len(), 1);
    }

    #[test]
    fn a_revocation_only_rises_and_is_dropped_once_it_has_passed() {
        let mut revocations = Revocations::new(7);
        revocations.revoke("a", 100, None, 50);
        revocations.revoke("a", 90, None, 50);
        assert_eq!(revocations.revoked_until("a"), Some(100));
        revocations.revoke("a", 120, None, 50);
        assert_eq!(revocations.revoked_until("a"), Some(120));
        assert_eq!(revocations.revoked_until("b"), None);
        revocations.revoke("b", 130, None, 120);
        assert_eq!(
            revocations.revoked_until("a"),
            Some(120),
            "an expiry of 120 is good until 120"
        );
        revocations.revoke("c", 140, None, 121);
        assert_eq!(revocations.revoked_until("a"), None);
        assert_eq!((revocations.by_user.len(), revocations.order.len()), (2, 2));
    }

    #[test]
    fn the_table_is_bounded_and_a_network_pushes_out_its_own() {
        let mut revocations = Revocations::new(7);
        revocations.max = 100;
        revocations.revoke("kicked", 1_000, ip("198.51.100.7"), 0);
        revocations.revoke("by the operator", 1_000, None, 0);
        for i in 0..1_000_u64 {
            // A host of one /48, that has many /64.
            let address = format!("2001:db8:1:{:x}::{i:x}", i % 500);
            revocations.revoke(&format!("stranger{i}"), 2_000 + i, ip(&address), 0);
            revocations.revoke(&format!("v4 {i}"), 2_000 + i, ip("203.0.113.9"), 0);
        }
        assert_eq!(revocations.by_user.len(), 100);
        assert_eq!(revocations.order.len(), 100);
        assert_eq!(revocations.sizes.len(), 3);
        assert_eq!(revocations.revoked_until("kicked"), Some(1_000));
        assert_eq!(revocations.revoked_until("by the operator"), Some(1_000));
        assert_eq!(revocations.revoked_until("stranger1"), None);
        assert_eq!(revocations.revoked_until("stranger999"), Some(2_999));
        // And all passes.
        for _ in 0..20 {
            revocations.revoke("last", 9_000, None, 8_000);
        }
        assert_eq!(revocations.by_user.len(), 1);
        assert!(revocations.sizes.is_empty() && revocations.by_network.len() == 1);
    }

    #[test]
    fn what_was_written_down_is_refused_by_the_next_process() {
        let mut before = Revocations::new(7);
        before.revoke("a", 1_000, ip("198.51.100.7"), 0);
        before.revoke("b", 100, None, 0);
        let written = before.take_fresh().unwrap();
        assert_eq!(written.len(), 2);
        assert_eq!(before.take_fresh(), Some(vec![]));
        let mut after = Revocations::new(8);
        after.restore(before.seed(), written, 500);
        assert_eq!(after.revoked_until("a"), Some(1_000));
        assert_eq!(after.revoked_until("b"), None, "it has passed");
        assert_eq!(after.all().len(), 1);
        assert_eq!(
            after.take_fresh(),
            Some(vec![]),
            "it is written down already"
        );
        for i in 0..=MAX_FRESH {
            after.revoke(&format!("{i}"), 1_000, None, 500);
        }
        assert_eq!(after.take_fresh(), None, "too many to be named one by one");
        assert_eq!(after.all().len(), MAX_FRESH + 2);
    }
}
