//! The relay ports of one family: which are free, which cool down, and the lease on one.

use super::{Ledger, lock};
use crate::relay::engine::{Family, RelayKey, WorkerId};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a released port rests, so that a peer's late datagrams do not reach the next client;
/// half of the two minutes that RFC 8656 section 6 would like would exhaust a busy range.
const COOLING: Duration = Duration::from_secs(30);

/// Random tries for an even port before every free port is looked at. With half of the ports
/// free, a pair is missed once in 10^8 requests.
const TRIES: usize = 64;

/// What a client asks of its port (EVEN-PORT, RFC 8656 section 18.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Parity {
    Any,
    Even,
    EvenPair,
}

/// Free ports in a random-access bag, released ones in a queue by age.
#[derive(Debug)]
pub(super) struct Pool {
    first: u16,
    free: Vec<u16>,
    /// Where in `free` a port is, by `port - first`; [`TAKEN`] where it is not.
    places: Box<[u32]>,
    cooling: VecDeque<(Instant, u16)>,
    rng: StdRng,
}

const TAKEN: u32 = u32::MAX;

impl Pool {
    pub(super) fn new(ports: RangeInclusive<u16>, rng: StdRng) -> Self {
        let places = (0..ports.len() as u32).collect();
        let first = *ports.start();
        Self {
            first,
            free: ports.collect(),
            places,
            cooling: VecDeque::new(),
            rng,
        }
    }

    pub(super) fn available(&self) -> usize {
        self.free.len() + self.cooling.len()
    }

    /// Takes a port, or a pair of which the even one is returned.
    pub(super) fn take(&mut self, parity: Parity, now: Instant) -> Option<u16> {
        while self
            .cooling
            .front()
            .is_some_and(|(since, _)| now >= *since + COOLING)
        {
            self.thaw();
        }
        loop {
            if let Some(port) = self.pick(parity) {
                self.remove(port);
                if parity == Parity::EvenPair {
                    self.remove(port + 1);
                }
                return Some(port);
            }
            // The range has run out: the port that has rested longest has to do.
            self.thaw()?;
        }
    }

    pub(super) fn release(&mut self, port: u16, now: Instant) {
        self.cooling.push_back((now, port));
    }

    fn pick(&mut self, parity: Parity) -> Option<u16> {
        if self.free.is_empty() {
            return None;
        }
        let start = self.rng.random_range(0..self.free.len());
        if parity == Parity::Any {
            return Some(self.free[start]);
        }
        for _ in 0..TRIES {
            let port = self.free[self.rng.random_range(0..self.free.len())];
            if self.fits(port, parity) {
                return Some(port);
            }
        }
        let (before, after) = self.free.split_at(start);
        after
            .iter()
            .chain(before)
            .copied()
            .find(|&port| self.fits(port, parity))
    }

    fn fits(&self, port: u16, parity: Parity) -> bool {
        let even = port.is_multiple_of(2);
        match parity {
            Parity::Any => true,
            Parity::Even => even,
            Parity::EvenPair => even && self.place(port + 1).is_some_and(|place| place != TAKEN),
        }
    }

    fn place(&self, port: u16) -> Option<u32> {
        self.places.get(usize::from(port - self.first)).copied()
    }

    fn remove(&mut self, port: u16) {
        let place = std::mem::replace(&mut self.places[usize::from(port - self.first)], TAKEN);
        self.free.swap_remove(place as usize);
        if let Some(&moved) = self.free.get(place as usize) {
            self.places[usize::from(moved - self.first)] = place;
        }
    }

    fn thaw(&mut self) -> Option<()> {
        let (_, port) = self.cooling.pop_front()?;
        self.places[usize::from(port - self.first)] = self.free.len() as u32;
        self.free.push(port);
        Some(())
    }
}

/// One relay port, and its entry in the directory once published. Dropping it gives both back.
#[derive(Debug)]
pub(in crate::relay) struct PortLease {
    ledger: Arc<Ledger>,
    family: Family,
    port: u16,
}

impl PortLease {
    pub(super) fn new(ledger: &Arc<Ledger>, family: Family, port: u16) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            family,
            port,
        }
    }

    pub(in crate::relay) fn family(&self) -> Family {
        self.family
    }

    pub(in crate::relay) fn port(&self) -> u16 {
        self.port
    }

    /// Lets other relays of the box find the relay that holds this lease.
    pub(in crate::relay) fn publish(&self, worker: WorkerId, key: RelayKey) {
        self.ledger
            .relays(self.family)
            .directory
            .publish(self.port, worker, key);
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let relays = self.ledger.relays(self.family);
        relays.directory.clear(self.port);
        lock(&relays.pool).release(self.port, self.ledger.latest());
    }
}
