//! The shared state as plain data, for a process that goes on where another one ends.
//!
//! Times are nanoseconds that are left, or that have passed, when the snapshot was taken. Ports and
//! places in quotas that allocations hold are not in here: engines claim them by name.

use super::family_pool::FamilyPool;
use super::ports::PoolSnapshot;
use super::reservations::{ReservationSnapshot, Reservations};
use super::revocations::Revocations;
use super::{Family, RelayAddress, Revocation, SharedState, lock};
use crate::rate::Bucket;
use crate::restoring::{RestoreError, array, seeded};
use crate::text;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// What all workers share, as data. It holds the key of the nonces: it is kept out of logs.
#[derive(Clone, Serialize, Deserialize)]
pub struct SharedSnapshot {
    ports: (u16, u16),
    #[serde(with = "text")]
    port_seeds: Vec<u8>,
    #[serde(with = "text")]
    nonce_key: Vec<u8>,
    /// How far ahead of its rate the box is, nanoseconds.
    total_rate: u64,
    families: Vec<FamilySnapshot>,
    #[serde(with = "text")]
    reservation_seed: Vec<u8>,
    reservations: Vec<ReservationSnapshot>,
    revocation_seed: u64,
    revocations: Vec<Revocation>,
}

/// The relayed addresses of one family.
#[derive(Clone, Serialize, Deserialize)]
struct FamilySnapshot {
    /// The current one first.
    addresses: Vec<RelayAddress>,
    pool: PoolSnapshot,
}

impl SharedSnapshot {
    /// Where relayed ports are.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.0..=self.ports.1
    }
}

impl SharedState {
    /// The state as data. To be called once no engine runs any more; randomness goes on from seeds
    /// that are in the snapshot too.
    pub fn snapshot(&self, now: Instant) -> SharedSnapshot {
        self.observe(now);
        let families = self.served().map(|family| FamilySnapshot {
            addresses: family.relay_addresses(),
            pool: lock(&family.pool).snapshot(now),
        });
        let families = families.collect();
        let (reservation_seed, reservations) = lock(&self.reservations).snapshot(now);
        let reservations = reservations
            .into_iter()
            .map(|reservation| reservation.with_expiry(|user| self.highest_expiry(user)))
            .collect();
        let (revocation_seed, revocations) = self.revocations();
        SharedSnapshot {
            ports: (*self.ports.start(), *self.ports.end()),
            port_seeds: self.port_seeds.concat(),
            nonce_key: self.nonce_key.to_vec(),
            total_rate: u64::from(Bucket::from(self.total_rate.load(Ordering::Relaxed)))
                .saturating_sub(self.nanos(now)),
            families,
            reservation_seed,
            reservations,
            revocation_seed,
            revocations,
        }
    }

    /// Goes on from `snapshot`, which was taken at `taken`. Ports that were lent wait to be claimed
    /// by [`Engine::restore`](crate::Engine::restore), and for
    /// [`release_unclaimed`](Self::release_unclaimed) after that.
    ///
    /// # Errors
    /// The snapshot is not one that [`snapshot`](Self::snapshot) takes.
    pub fn restore(
        snapshot: SharedSnapshot,
        taken: Instant,
        unix_now: u64,
    ) -> Result<Arc<Self>, RestoreError> {
        let ports = snapshot.ports.0..=snapshot.ports.1;
        if ports.is_empty() {
            return Err(RestoreError::Malformed("the relay ports"));
        }
        let (seeds, rest) = snapshot.port_seeds.as_chunks::<32>();
        let port_seeds = <[[u8; 32]; 2]>::try_from(seeds);
        let (Ok(port_seeds), []) = (port_seeds, rest) else {
            return Err(RestoreError::Malformed("the seeds of ports"));
        };
        let mut revocations = Revocations::new(snapshot.revocation_seed);
        revocations.restore(snapshot.revocation_seed, snapshot.revocations, unix_now);
        let shared = Self {
            started: taken,
            clock: AtomicU64::new(0),
            relays: [OnceLock::new(), OnceLock::new()],
            ports: ports.clone(),
            port_seeds,
            quotas: Mutex::default(),
            reservations: Mutex::new(Reservations::new(seeded(&snapshot.reservation_seed)?)),
            revocations: Mutex::new(revocations),
            total_rate: AtomicU64::new(snapshot.total_rate),
            nonce_key: array(&snapshot.nonce_key, "the key of nonces")?,
            unclaimed: Mutex::default(),
        };
        let mut unclaimed = HashSet::new();
        for FamilySnapshot { addresses, pool } in snapshot.families {
            let current = addresses
                .first()
                .ok_or(RestoreError::Malformed("the relayed addresses"))?;
            let family = Family::of(current.announced);
            let is_of_family = |a: &RelayAddress| Family::of(a.announced) == family;
            if !addresses.iter().all(is_of_family) {
                return Err(RestoreError::Malformed("the relayed addresses"));
            }
            let rng = seeded(pool.seed())?;
            let (family_pool, lent) = FamilyPool::restore(addresses, &ports, pool, rng, taken);
            unclaimed.extend(lent.into_iter().map(|port| (family, port)));
            if shared.relays[family as usize].set(family_pool).is_err() {
                return Err(RestoreError::Malformed("the relayed addresses"));
            }
        }
        *lock(&shared.unclaimed) = unclaimed;
        let shared = Arc::new(shared);
        for reservation in snapshot.reservations {
            let kept = reservation.kept(&shared);
            lock(&shared.reservations).put_back(&reservation, kept, taken);
        }
        Ok(shared)
    }

    /// Takes back the ports that nobody has claimed after a [`restore`](Self::restore); returns how
    /// many they were.
    pub fn release_unclaimed(&self, now: Instant) -> usize {
        let unclaimed = std::mem::take(&mut *lock(&self.unclaimed));
        for &(family, port) in &unclaimed {
            lock(&self.relays(family).pool).release(port, now);
        }
        unclaimed.len()
    }
}
