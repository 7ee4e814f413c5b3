//! Ports kept for a second allocation (EVEN-PORT with the R bit, RFC 8656 section 7.2).

use super::{PortLease, QuotaLease, SharedState};
use crate::engine::Family;
use crate::network::NetworkCounts;
use crate::restoring::{left, reseed};
use crate::text;
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What RFC 8656 section 7.2 asks for at least.
const KEPT: Duration = Duration::from_secs(30);

/// Reservations at a time, box-wide: each holds a port that nobody uses, and no browser asks.
const MAX: usize = 1_000;
/// Those of one network ([`NetworkCounts`]), as its clients may use up none of what others need.
const MAX_OF_NETWORK: u32 = 128;

/// The value of RESERVATION-TOKEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReservationToken(pub(crate) [u8; 8]);

#[derive(Debug)]
pub(super) struct Reservations {
    kept: HashMap<ReservationToken, Kept>,
    /// In the order of their deadlines; redeemed ones stay until then.
    deadlines: VecDeque<Deadline>,
    networks: NetworkCounts,
    rng: StdRng,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    token: ReservationToken,
    /// Whom the reservation counts for. One that was redeemed before a hand-over counts for nobody.
    client: Option<IpAddr>,
}

/// A reserved port, and the place in its user's quota that it takes meanwhile.
pub(super) type Kept = (PortLease, QuotaLease);

impl Reservations {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            kept: HashMap::new(),
            deadlines: VecDeque::new(),
            networks: NetworkCounts::default(),
            rng,
        }
    }

    /// # Errors
    /// The leases themselves, if too many are kept, in all or for the network of the client: they must
    /// be dropped outside of the lock.
    pub(super) fn keep(&mut self, kept: Kept, now: Instant) -> Result<ReservationToken, Kept> {
        // Redeemed tokens count until their deadline, which bounds the queue as well.
        let client = kept.1.ip();
        let has_room =
            self.deadlines.len() < MAX && (self.networks).take(client, MAX_OF_NETWORK, MAX as u32);
        if !has_room {
            return Err(kept);
        }
        let mut token = ReservationToken([0; 8]);
        self.rng.fill_bytes(&mut token.0);
        self.kept.insert(token, kept);
        self.deadlines.push_back(Deadline {
            at: now + KEPT,
            token,
            client: Some(client),
        });
        Ok(token)
    }

    /// The reservations in the order of their deadlines, and the seed of further tokens.
    pub(super) fn snapshot(&mut self, now: Instant) -> (Vec<u8>, Vec<ReservationSnapshot>) {
        let each = self.deadlines.iter().map(|deadline| {
            let kept = self
                .kept
                .get(&deadline.token)
                .map(|(port, place)| KeptSnapshot {
                    is_v6: port.family() == Family::V6,
                    port: port.port(),
                    user: place.user().to_owned(),
                    expiry: 0,
                    ip: place.ip(),
                });
            ReservationSnapshot {
                token: deadline.token.0.to_vec(),
                left: left(deadline.at, now),
                kept,
            }
        });
        let each = each.collect();
        (reseed(&mut self.rng), each)
    }

    /// Puts back a reservation that a snapshot has; those with earlier deadlines come before.
    pub(super) fn put_back(
        &mut self,
        snapshot: &ReservationSnapshot,
        kept: Option<Kept>,
        taken: Instant,
    ) {
        let Ok(token) = snapshot.token.as_slice().try_into() else {
            return;
        };
        if self.deadlines.len() >= MAX {
            return;
        }
        let token = ReservationToken(token);
        let deadline = taken + Duration::from_nanos(snapshot.left).min(KEPT);
        let client = kept.as_ref().map(|(_, place)| place.ip());
        if let Some(client) = client {
            self.networks.add(client, 1);
        }
        self.deadlines.push_back(Deadline {
            at: deadline,
            token,
            client,
        });
        if let Some(kept) = kept {
            self.kept.insert(token, kept);
        }
    }

    pub(super) fn redeem(&mut self, token: ReservationToken) -> Option<Kept> {
        self.kept.remove(&token)
    }

    /// What nobody came for, to be dropped outside of the lock.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Kept> {
        let mut expired = Vec::new();
        while let Some(&Deadline { at, token, client }) = self.deadlines.front() {
            if at > now {
                break;
            }
            self.deadlines.pop_front();
            expired.extend(self.kept.remove(&token));
            if let Some(client) = client {
                self.networks.give_back(client);
            }
        }
        expired
    }
}

/// One reservation as data; without anything kept, its token has been redeemed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ReservationSnapshot {
    #[serde(with = "text")]
    token: Vec<u8>,
    /// Nanoseconds until the port goes back.
    left: u64,
    kept: Option<KeptSnapshot>,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptSnapshot {
    is_v6: bool,
    port: u16,
    user: String,
    /// The highest expiry of the user's credentials, Unix seconds.
    expiry: u64,
    ip: IpAddr,
}

impl ReservationSnapshot {
    /// The same with the expiry that `of` knows of its user.
    pub(super) fn with_expiry(mut self, of: impl Fn(&str) -> u64) -> Self {
        if let Some(kept) = &mut self.kept {
            kept.expiry = of(&kept.user);
        }
        self
    }

    /// The port and the place in the quota, claimed again.
    pub(super) fn kept(&self, shared: &Arc<SharedState>) -> Option<Kept> {
        let kept = self.kept.as_ref()?;
        let family = if kept.is_v6 { Family::V6 } else { Family::V4 };
        let port = shared.claim_port(family, kept.port)?;
        let user = Arc::from(kept.user.as_str());
        let place = shared.retake_quota(&user, kept.expiry, kept.ip);
        Some((port, place))
    }
}
