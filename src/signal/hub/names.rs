//! Which sessions bear a name.

use crate::protocol::PeerId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Pairs in one ordered set: a name borne by everyone ("guest") costs its bearers no more than a
/// name of their own.
#[derive(Debug, Default)]
pub(super) struct Names {
    pairs: BTreeSet<(Arc<str>, PeerId)>,
    distinct: usize,
}

impl Names {
    pub(super) fn insert(&mut self, name: Arc<str>, peer: PeerId) {
        let is_new = self.bearers(&name).next().is_none();
        self.distinct += usize::from(is_new);
        self.pairs.insert((name, peer));
    }

    pub(super) fn remove(&mut self, name: &Arc<str>, peer: PeerId) {
        if self.pairs.remove(&(name.clone(), peer)) {
            let was_last = self.bearers(name).next().is_none();
            self.distinct -= usize::from(was_last);
        }
    }

    pub(super) fn bearers(&self, name: &str) -> impl Iterator<Item = PeerId> {
        let first: (Arc<str>, _) = (name.into(), PeerId::from_bits(0));
        let last = (first.0.clone(), PeerId::from_bits(u128::MAX));
        self.pairs.range(first..=last).map(|(_, peer)| *peer)
    }

    /// How many different names there are.
    pub(super) fn distinct(&self) -> usize {
        self.distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shared_and_counted_once() {
        let mut names = Names::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "ab".into());
        for (name, bits) in [(&a, 1), (&a, u128::MAX), (&b, 2), (&a, 1)] {
            names.insert(name.clone(), PeerId::from_bits(bits));
        }
        assert_eq!(names.distinct(), 2);
        assert_eq!(names.bearers("a").count(), 2);
        assert_eq!(names.bearers("aa").count(), 0);
        names.remove(&a, PeerId::from_bits(1));
        names.remove(&a, PeerId::from_bits(1));
        assert_eq!((names.distinct(), names.bearers("a").count()), (2, 1));
        names.remove(&a, PeerId::from_bits(u128::MAX));
        assert_eq!(names.distinct(), 1);
    }
}
