//! Ports kept for a second allocation (EVEN-PORT with the R bit, RFC 8656 section 7.2).

use super::{PortLease, QuotaLease};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// What RFC 8656 section 7.2 asks for at least.
const KEPT: Duration = Duration::from_secs(30);

/// Reservations at a time, box-wide: each holds a port that nobody uses, and no browser asks.
const MAX: usize = 1_000;

/// The value of RESERVATION-TOKEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReservationToken(pub(crate) [u8; 8]);

#[derive(Debug)]
pub(super) struct Reservations {
    kept: HashMap<ReservationToken, Kept>,
    /// In the order of their deadlines; redeemed ones stay until then.
    deadlines: VecDeque<(Instant, ReservationToken)>,
    rng: StdRng,
}

/// A reserved port, and the place in its user's quota that it takes meanwhile.
pub(super) type Kept = (PortLease, QuotaLease);

impl Reservations {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            kept: HashMap::new(),
            deadlines: VecDeque::new(),
            rng,
        }
    }

    /// # Errors
    /// The leases themselves, if too many are kept: they must be dropped outside of the lock.
    pub(super) fn keep(&mut self, kept: Kept, now: Instant) -> Result<ReservationToken, Kept> {
        // Redeemed tokens count until their deadline, which bounds the queue as well.
        if self.deadlines.len() >= MAX {
            return Err(kept);
        }
        let mut token = ReservationToken([0; 8]);
        self.rng.fill_bytes(&mut token.0);
        self.kept.insert(token, kept);
        self.deadlines.push_back((now + KEPT, token));
        Ok(token)
    }

    pub(super) fn redeem(&mut self, token: ReservationToken) -> Option<Kept> {
        self.kept.remove(&token)
    }

    /// What nobody came for, to be dropped outside of the lock.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Kept> {
        let mut expired = Vec::new();
        while let Some(&(deadline, token)) = self.deadlines.front() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_front();
            expired.extend(self.kept.remove(&token));
        }
        expired
    }
}
