//! A pool of ports as data. What is lent is not listed: it is what no list has.

use super::{Bag, Place, Pool};
use crate::restoring::{age, left, reseed};
use crate::text;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The ports of one family.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::shared) struct PoolSnapshot {
    #[serde(with = "text")]
    seed: Vec<u8>,
    /// Free ports and pairs in the order in which chance finds them.
    free_even: Vec<u16>,
    free_odd: Vec<u16>,
    free_pairs: Vec<u16>,
    /// Ports in quarantine, and for how many nanoseconds they have been.
    #[serde(rename = "resting")]
    quarantined: Vec<(u16, u64)>,
    /// Ports of other programs, and nanoseconds until they are tried again.
    held: Vec<(u16, u64)>,
}

impl PoolSnapshot {
    pub(in crate::shared) fn seed(&self) -> &[u8] {
        &self.seed
    }
}

impl Pool {
    pub(in crate::shared) fn snapshot(&mut self, now: Instant) -> PoolSnapshot {
        let quarantined = self.quarantined.iter();
        let held = self.held.iter();
        PoolSnapshot {
            seed: reseed(&mut self.rng),
            free_even: self.free_even.ports.clone(),
            free_odd: self.free_odd.ports.clone(),
            free_pairs: self.free_pairs.ports.clone(),
            quarantined: quarantined
                .map(|&(since, port)| (port, age(since, now)))
                .collect(),
            held: held
                .map(|&(until, port)| (port, left(until, now)))
                .collect(),
        }
    }

    /// The pool that `snapshot` describes, and the ports that were lent: nobody else gets those.
    pub(in crate::shared) fn restore(
        ports: RangeInclusive<u16>,
        snapshot: PoolSnapshot,
        rng: StdRng,
        taken: Instant,
    ) -> (Self, Vec<u16>) {
        let mut pool = Self::empty(&ports, rng);
        let free = snapshot.free_even.iter().chain(&snapshot.free_odd);
        for &port in free {
            if pool.place(port) == Some(Place::Away) {
                pool.put(port, Place::Free);
            }
        }
        pool.arrange_pairs(&snapshot.free_pairs);
        for (port, since) in snapshot.quarantined {
            if pool.place(port) == Some(Place::Away) {
                let since = taken.checked_sub(Duration::from_nanos(since));
                pool.put(port, Place::Quarantined(since.unwrap_or(taken)));
            }
        }
        let mut lent: Vec<u16> = ports
            .filter(|port| pool.place(*port) == Some(Place::Away))
            .collect();
        for (port, left) in snapshot.held {
            // Once each: what is lent or listed twice is not held.
            if let Ok(at) = lent.binary_search(&port) {
                lent.remove(at);
                pool.held
                    .push_back((taken + Duration::from_nanos(left), port));
            }
        }
        (pool, lent)
    }

    /// Brings the free pairs into the order of `pairs`.
    fn arrange_pairs(&mut self, pairs: &[u16]) {
        let mut arranged = Bag::new(self.first, self.places.len());
        let mut rest = std::mem::replace(&mut self.free_pairs, Bag::new(self.first, 0)).ports;
        for &pair in pairs {
            if self.pair(pair & !1) == Place::Free && pair & 1 == 0 && !arranged.has(pair) {
                arranged.insert(pair);
            }
        }
        rest.retain(|pair| !arranged.has(*pair));
        rest.into_iter().for_each(|pair| arranged.insert(pair));
        self.free_pairs = arranged;
    }
}
