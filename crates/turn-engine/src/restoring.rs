//! What the snapshots of engines and of the shared state have in common: seeds, times, faults.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Instant;

/// Why a snapshot is not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A part has not the form that a snapshot gives it.
    #[error("the snapshot is malformed: {0}")]
    Malformed(&'static str),
}

/// A seed of `rng` from which it goes on as well.
pub(crate) fn reseed(rng: &mut StdRng) -> Vec<u8> {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    *rng = StdRng::from_seed(seed);
    seed.to_vec()
}

/// The generator that [`reseed`] named.
pub(crate) fn seeded(seed: &[u8]) -> Result<StdRng, RestoreError> {
    array(seed, "a seed").map(StdRng::from_seed)
}

/// Bytes of a known number.
pub(crate) fn array<const N: usize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<[u8; N], RestoreError> {
    bytes.try_into().map_err(|_| RestoreError::Malformed(what))
}

/// How long something that ends at `until` still lasts, in nanoseconds.
pub(crate) fn left(until: Instant, now: Instant) -> u64 {
    nanos(until, now)
}

/// How long something that began at `since` has lasted, in nanoseconds.
pub(crate) fn age(since: Instant, now: Instant) -> u64 {
    nanos(now, since)
}

fn nanos(later: Instant, earlier: Instant) -> u64 {
    let between = later.saturating_duration_since(earlier).as_nanos();
    between.try_into().unwrap_or(u64::MAX)
}
