//! Ports kept for a second allocation (EVEN-PORT with the R bit, RFC 8656 section 7.2).

use super::PortLease;
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
pub(in crate::relay) struct ReservationToken(pub(in crate::relay) [u8; 8]);

#[derive(Debug)]
pub(super) struct Reservations {
    kept: HashMap<ReservationToken, PortLease>,
    /// In the order of their deadlines; redeemed ones stay until then.
    deadlines: VecDeque<(Instant, ReservationToken)>,
    rng: StdRng,
}

impl Reservations {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            kept: HashMap::new(),
            deadlines: VecDeque::new(),
            rng,
        }
    }

    /// # Errors
    /// The lease itself, if too many are kept: it must be dropped outside of the lock.
    pub(super) fn keep(
        &mut self,
        lease: PortLease,
        now: Instant,
    ) -> Result<ReservationToken, PortLease> {
        // Redeemed tokens count until their deadline, which bounds the queue as well.
        if self.deadlines.len() >= MAX {
            return Err(lease);
        }
        let mut token = ReservationToken([0; 8]);
        self.rng.fill_bytes(&mut token.0);
        self.kept.insert(token, lease);
        self.deadlines.push_back((now + KEPT, token));
        Ok(token)
    }

    pub(super) fn redeem(&mut self, token: ReservationToken) -> Option<PortLease> {
        self.kept.remove(&token)
    }

    /// What nobody came for, to be dropped outside of the lock.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PortLease> {
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
