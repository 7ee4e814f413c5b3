//! The relay ports of one family: which are free, which are in quarantine, which other programs hold, and the
//! lease on one.
//!
//! Every operation costs the logarithm of the range at most: a request of a stranger must not make
//! a worker look at each port.

mod snapshot;

pub(super) use snapshot::PoolSnapshot;

use super::{SharedState, lock};
use crate::engine::{Family, RelayedKey, WorkerId};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nobody gets a released port, so that a peer's late datagrams do not reach the next client;
/// half of the two minutes that RFC 8656 section 6 would like would exhaust a busy range.
const QUARANTINE: Duration = Duration::from_secs(30);

/// How long a port that another program held is left alone: programs that take a port of this range
/// by chance (outgoing traffic of the system does) hold it for seconds or for good.
const HELD: Duration = Duration::from_secs(60);

/// Ports whose quarantine has ended that are set free by one request: one request takes two at most, so
/// that more than two keep up with any number of them.
const RELEASED_A_TAKE: usize = 8;

/// What a client asks of its port (EVEN-PORT, RFC 8656 section 18.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parity {
    Any,
    Even,
    EvenPair,
}

/// Where a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    /// In quarantine, since when.
    Quarantined(Instant),
    /// Lent, or held by another program.
    Away,
}

/// The ports of one family.
#[derive(Debug)]
pub(super) struct Pool {
    first: u16,
    /// By `port - first`.
    places: Box<[Place]>,
    free_even: Bag,
    free_odd: Bag,
    /// The even ports of pairs of which both are free.
    free_pairs: Bag,
    quarantined: BTreeSet<(Instant, u16)>,
    quarantined_even: BTreeSet<(Instant, u16)>,
    /// The even ports of pairs of which both are free or in quarantine, by the time at which the later one
    /// was put there; pairs of which both are free are not among them.
    quarantined_pairs: BTreeSet<(Instant, u16)>,
    /// In the order in which they are tried again.
    held: VecDeque<(Instant, u16)>,
    rng: StdRng,
}

impl Pool {
    pub(super) fn new(ports: RangeInclusive<u16>, rng: StdRng) -> Self {
        let mut pool = Self::empty(&ports, rng);
        for port in ports {
            pool.put(port, Place::Free);
        }
        pool
    }

    /// A pool of which every port is lent.
    fn empty(ports: &RangeInclusive<u16>, rng: StdRng) -> Self {
        let (first, size) = (*ports.start(), ports.len());
        Self {
            first,
            places: vec![Place::Away; size].into(),
            free_even: Bag::new(first, size),
            free_odd: Bag::new(first, size),
            free_pairs: Bag::new(first, size),
            quarantined: BTreeSet::new(),
            quarantined_even: BTreeSet::new(),
            quarantined_pairs: BTreeSet::new(),
            held: VecDeque::new(),
            rng,
        }
    }

    pub(super) fn available(&self) -> usize {
        self.free_even.len() + self.free_odd.len() + self.quarantined.len()
    }

    /// Ports that other programs held when they were tried last.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub(super) fn is_all_free(&self) -> bool {
        self.free_even.len() + self.free_odd.len() == 0 && !self.quarantined.is_empty()
    }

    /// Takes a port, or a pair of which the even one is returned. Where none is free, the one that
    /// has been in quarantine longest has to do.
    pub(super) fn take(&mut self, parity: Parity, now: Instant) -> Option<u16> {
        self.release_from_quarantine(now);
        let port = match parity {
            Parity::Any => self.any_free().or_else(|| first(&self.quarantined)),
            Parity::Even => {
                let free = self.free_even.pick(&mut self.rng);
                free.or_else(|| first(&self.quarantined_even))
            }
            Parity::EvenPair => {
                let free = self.free_pairs.pick(&mut self.rng);
                free.or_else(|| first(&self.quarantined_pairs))
            }
        }?;
        self.put(port, Place::Away);
        if parity == Parity::EvenPair {
            self.put(port + 1, Place::Away);
        }
        Some(port)
    }

    /// Takes exactly this port, unless it is lent or held by another program.
    #[cfg(test)]
    pub(super) fn claim(&mut self, port: u16) -> Option<()> {
        (self.place(port)? != Place::Away).then(|| self.put(port, Place::Away))
    }

    /// Takes back a port that was lent.
    pub(super) fn release(&mut self, port: u16, now: Instant) {
        self.put(port, Place::Quarantined(now));
    }

    /// Takes back a port that turned out to be held by another program.
    pub(super) fn set_aside(&mut self, port: u16, now: Instant) {
        self.held.push_back((now + HELD, port));
    }

    fn release_from_quarantine(&mut self, now: Instant) {
        for _ in 0..RELEASED_A_TAKE {
            match self.quarantined.first() {
                Some(&(since, port)) if now >= since + QUARANTINE => self.put(port, Place::Free),
                _ => break,
            }
        }
        for _ in 0..RELEASED_A_TAKE {
            match self.held.front() {
                Some(&(until, port)) if now >= until => {
                    self.held.pop_front();
                    self.put(port, Place::Free);
                }
                _ => break,
            }
        }
    }

    fn any_free(&mut self) -> Option<u16> {
        let (even, odd) = (self.free_even.len(), self.free_odd.len());
        let all = even + odd;
        if all == 0 {
            return None;
        }
        let bag = if self.rng.random_range(0..all) < even {
            &self.free_even
        } else {
            &self.free_odd
        };
        bag.pick(&mut self.rng)
    }

    fn place(&self, port: u16) -> Option<Place> {
        let index = usize::from(port.checked_sub(self.first)?);
        self.places.get(index).copied()
    }

    /// Moves a port of the range, and brings every index up to date.
    fn put(&mut self, port: u16, place: Place) {
        let even = port & !1;
        let (pair_before, before) = (self.pair(even), self.place(port));
        if let Some(slot) = self.places.get_mut(usize::from(port - self.first)) {
            *slot = place;
        }
        let bag = if port == even {
            &mut self.free_even
        } else {
            &mut self.free_odd
        };
        match before {
            Some(Place::Free) => bag.remove(port),
            Some(Place::Quarantined(since)) => {
                self.quarantined.remove(&(since, port));
                self.quarantined_even.remove(&(since, port));
            }
            _ => {}
        }
        match place {
            Place::Free => bag.insert(port),
            Place::Quarantined(since) => {
                self.quarantined.insert((since, port));
                if port == even {
                    self.quarantined_even.insert((since, port));
                }
            }
            Place::Away => {}
        }
        match pair_before {
            Place::Free => self.free_pairs.remove(even),
            Place::Quarantined(since) => {
                self.quarantined_pairs.remove(&(since, even));
            }
            Place::Away => {}
        }
        match self.pair(even) {
            Place::Free => self.free_pairs.insert(even),
            Place::Quarantined(since) => {
                self.quarantined_pairs.insert((since, even));
            }
            Place::Away => {}
        }
    }

    /// Where the pair is that begins at `even`.
    fn pair(&self, even: u16) -> Place {
        let away = Place::Away;
        let high = even.checked_add(1).and_then(|odd| self.place(odd));
        match (self.place(even).unwrap_or(away), high.unwrap_or(away)) {
            (Place::Away, _) | (_, Place::Away) => away,
            (Place::Free, other) | (other, Place::Free) => other,
            (Place::Quarantined(low), Place::Quarantined(high)) => {
                Place::Quarantined(low.max(high))
            }
        }
    }
}

fn first(quarantined: &BTreeSet<(Instant, u16)>) -> Option<u16> {
    quarantined.first().map(|&(_, port)| port)
}

/// Ports of a range from which one can be taken at random.
#[derive(Debug)]
struct Bag {
    first: u16,
    ports: Vec<u16>,
    /// Where in `ports` a port is, by `port - first`.
    places: Box<[u16]>,
}

impl Bag {
    fn new(first: u16, size: usize) -> Self {
        // An even port just below the range begins a pair, which is never in a bag.
        Self {
            first,
            ports: vec![],
            places: vec![0; size].into(),
        }
    }

    fn len(&self) -> usize {
        self.ports.len()
    }

    fn pick(&self, rng: &mut StdRng) -> Option<u16> {
        (!self.ports.is_empty()).then(|| self.ports[rng.random_range(0..self.ports.len())])
    }

    fn has(&self, port: u16) -> bool {
        let place = port.checked_sub(self.first).map(usize::from);
        let place = place.and_then(|place| self.places.get(place));
        place.is_some_and(|place| self.ports.get(usize::from(*place)) == Some(&port))
    }

    fn insert(&mut self, port: u16) {
        self.places[usize::from(port - self.first)] = self.ports.len() as u16;
        self.ports.push(port);
    }

    /// Removes a port that is in the bag.
    fn remove(&mut self, port: u16) {
        let place = self.places[usize::from(port - self.first)];
        self.ports.swap_remove(usize::from(place));
        if let Some(&moved) = self.ports.get(usize::from(place)) {
            self.places[usize::from(moved - self.first)] = place;
        }
    }
}

/// One relay port, and its entry in the directory once published. Dropping it gives both back.
#[derive(Debug)]
pub(crate) struct PortLease {
    shared: Arc<SharedState>,
    family: Family,
    port: u16,
    /// Whether another program turned out to hold the port.
    is_held: bool,
}

impl PortLease {
    pub(super) fn new(shared: &Arc<SharedState>, family: Family, port: u16) -> Self {
        Self {
            shared: Arc::clone(shared),
            family,
            port,
            is_held: false,
        }
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets other relays of the box find the relay that holds this lease.
    pub(crate) fn publish(&self, worker: WorkerId, key: RelayedKey) {
        self.shared
            .relays(self.family)
            .relayed_index
            .publish(self.port, worker, key);
    }

    /// Gives back a port that another program holds: nobody gets it for a while.
    pub(crate) fn set_aside(mut self) {
        self.is_held = true;
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let relays = self.shared.relays(self.family);
        relays.relayed_index.clear(self.port);
        let (mut pool, now) = (lock(&relays.pool), self.shared.latest());
        if self.is_held {
            pool.set_aside(self.port, now);
        } else {
            pool.release(self.port, now);
        }
    }
}

#[cfg(test)]
mod tests;
