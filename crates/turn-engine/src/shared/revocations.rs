//! Users whose credentials no longer make allocations, each up to a floor.

use foldhash::quality::FixedState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

/// Floors kept at a time: with an hour of `turn.ttl`, 270 peers leaving every second. Past it,
/// the floor that would pass first is forgotten.
const MAX: usize = 1_000_000;

/// Users are kept as keyed 64-bit hashes: a million names would be too much memory, and nobody
/// who does not know the key can aim a collision.
#[derive(Debug)]
pub(super) struct Revocations {
    hasher: FixedState,
    by_user: HashMap<u64, u64>,
    /// `(revoked_until, user)`: the order in which they pass.
    order: BTreeSet<(u64, u64)>,
    max: usize,
}

impl Revocations {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            by_user: HashMap::new(),
            order: BTreeSet::new(),
            max: MAX,
        }
    }

    pub(super) fn revoke(&mut self, user: &str, revoked_until: u64, unix_now: u64) {
        // A floor that has passed refuses only what has expired anyway.
        while self
            .order
            .first()
            .is_some_and(|&(passed, _)| passed < unix_now)
        {
            self.forget_first();
        }
        if revoked_until < unix_now {
            return;
        }
        let user = self.hasher.hash_one(user);
        let old = self.by_user.get(&user).copied();
        if old.is_some_and(|old| old >= revoked_until) {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, user));
        } else if self.by_user.len() >= self.max {
            self.forget_first();
        }
        self.by_user.insert(user, revoked_until);
        self.order.insert((revoked_until, user));
    }

    pub(super) fn revoked_until(&self, user: &str) -> Option<u64> {
        self.by_user.get(&self.hasher.hash_one(user)).copied()
    }

    fn forget_first(&mut self) {
        if let Some((_, user)) = self.order.pop_first() {
            self.by_user.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_only_rises_and_is_dropped_once_it_has_passed() {
        let mut revocations = Revocations::new(7);
        revocations.revoke("a", 100, 50);
        revocations.revoke("a", 90, 50);
        assert_eq!(revocations.revoked_until("a"), Some(100));
        revocations.revoke("a", 120, 50);
        assert_eq!(revocations.revoked_until("a"), Some(120));
        assert_eq!(revocations.revoked_until("b"), None);
        revocations.revoke("b", 130, 120);
        assert_eq!(
            revocations.revoked_until("a"),
            Some(120),
            "an expiry of 120 is good until 120"
        );
        revocations.revoke("c", 140, 121);
        assert_eq!(revocations.revoked_until("a"), None);
        assert_eq!((revocations.by_user.len(), revocations.order.len()), (2, 2));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_passes_first() {
        let mut revocations = Revocations::new(7);
        revocations.max = 10;
        for i in 0..100u64 {
            revocations.revoke(&format!("u{i}"), 1_000 + i, 0);
        }
        assert_eq!(
            (revocations.by_user.len(), revocations.order.len()),
            (10, 10)
        );
        assert_eq!(revocations.revoked_until("u89"), None);
        assert_eq!(revocations.revoked_until("u99"), Some(1_099));
    }
}
