//! Which worker and relay owns a relayed port: one atomic word a port, written by leases, read
//! for packets between two relays of the box.

use crate::engine::{RelayedKey, WorkerId};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

/// Worker (8 bits), relay index (24 bits), generation (32 bits). Generations start at 1, so that
/// 0 says that no relay lives there.
#[derive(Debug)]
pub(super) struct RelayedAddressIndex {
    first: u16,
    entries: Box<[AtomicU64]>,
}

const GENERATION_BITS: u32 = 32;

impl RelayedAddressIndex {
    pub(super) fn new(ports: &RangeInclusive<u16>) -> Self {
        Self {
            first: *ports.start(),
            entries: ports.clone().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How many ports there are.
    pub(super) fn size(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, port: u16) -> Option<(WorkerId, RelayedKey)> {
        let word = self.entry(port)?.load(Ordering::Relaxed);
        let index = (word >> GENERATION_BITS) as u32 & ((1 << RelayedKey::INDEX_BITS) - 1);
        let worker = WorkerId((word >> (GENERATION_BITS + RelayedKey::INDEX_BITS)) as u8);
        let generation = word as u32;
        (generation != 0).then_some((worker, RelayedKey { index, generation }))
    }

    pub(super) fn publish(&self, port: u16, worker: WorkerId, key: RelayedKey) {
        debug_assert!(key.index < 1 << RelayedKey::INDEX_BITS && key.generation != 0);
        let word = u64::from(worker.0) << (GENERATION_BITS + RelayedKey::INDEX_BITS)
            | u64::from(key.index) << GENERATION_BITS
            | u64::from(key.generation);
        if let Some(entry) = self.entry(port) {
            entry.store(word, Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self, port: u16) {
        if let Some(entry) = self.entry(port) {
            entry.store(0, Ordering::Relaxed);
        }
    }

    fn entry(&self, port: u16) -> Option<&AtomicU64> {
        self.entries.get(usize::from(port.checked_sub(self.first)?))
    }
}
