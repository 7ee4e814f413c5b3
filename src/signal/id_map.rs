//! Tables by ids that the box made itself: hashing such an id costs a multiplication.
//!
//! Only for keys that no client chooses: a counter, or random bits of ours. What clients name is in
//! ordinary tables, whose hashes nobody can foresee.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by ids of the box.
pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Hashes one id.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IdHasher(u64);

/// Odd, with its bits well mixed: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The table takes its place from the low bits and its tag from the high ones: both halves of
        // the product depend on the whole id.
        let product = u128::from(self.0 ^ id) * u128::from(FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_u128(&mut self, id: u128) {
        self.write_u64(id as u64);
        self.write_u64((id >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PeerId;
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, Hash};

    fn hash(id: impl Hash) -> u64 {
        BuildHasherDefault::<IdHasher>::default().hash_one(id)
    }

    /// How many of 1,024 places, and of 128 tags, so many hashes are spread over.
    fn spread(hashes: impl Iterator<Item = u64>) -> (usize, usize) {
        let (places, tags): (BTreeSet<_>, BTreeSet<_>) =
            hashes.map(|hash| (hash % 1024, hash >> 57)).unzip();
        (places.len(), tags.len())
    }

    #[test]
    fn ids_in_a_row_and_ids_that_differ_anywhere_are_spread() {
        // By chance some 647 of 1,024 places are taken.
        let (places, tags) = spread((0..1024_u64).map(hash));
        assert!(places > 600 && tags > 120, "{places} {tags}");
        let (places, tags) = spread((0..1024_u64).map(|id| hash(id << 40)));
        assert!(places > 600 && tags > 120, "{places} {tags}");
        for shift in [0, 50, 64, 110] {
            let ids = (0..1024_u128).map(|id| hash(PeerId::from_bits(id << shift)));
            let (places, tags) = spread(ids);
            assert!(places > 600 && tags > 120, "{shift}: {places} {tags}");
        }
    }

    #[test]
    fn what_is_put_in_is_found() {
        let mut map = IdMap::default();
        for id in 0..10_000_u64 {
            map.insert(id, id * 2);
        }
        assert!((0..10_000).all(|id| map.get(&id) == Some(&(id * 2))));
        assert_eq!(map.get(&10_000), None);
    }
}
