//! What all workers of a box share: relay ports, quotas, reservations, revocations, the total
//! rate, and the index of relayed addresses.
//!
//! Touched when allocations come and go, under short locks; packets read at most one atomic word.
//! Whatever is lent is a lease that comes back when it is dropped.

mod family_pool;
mod ports;
mod quota;
mod relayed_index;
mod reservations;
mod revocations;
mod snapshot;

pub(crate) use ports::{Parity, PortLease};
pub(crate) use quota::QuotaLease;
pub(crate) use reservations::ReservationToken;

pub use revocations::Revocation;
pub use snapshot::SharedSnapshot;

use crate::engine::{DenyReason, Family, Quotas, RelayedKey, WorkerId};
use crate::rate::Bucket;
use family_pool::FamilyPool;
use quota::QuotaCounts;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reservations::Reservations;
use revocations::Revocations;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Where relayed addresses of one family live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAddress {
    /// What relay sockets are bound to.
    pub bind: IpAddr,
    /// What clients and peers are told; differs behind 1:1 NAT.
    pub announced: IpAddr,
}

/// What all workers count and share.
#[derive(Debug)]
pub struct SharedState {
    started: Instant,
    /// The latest time any worker came with, in nanoseconds since `started`: what a lease that
    /// comes back by `Drop` is dated with.
    clock: AtomicU64,
    /// By family; empty until there is an address of the family.
    relays: [OnceLock<FamilyPool>; 2],
    ports: RangeInclusive<u16>,
    port_seeds: [[u8; 32]; 2],
    quotas: Mutex<QuotaCounts>,
    reservations: Mutex<Reservations>,
    revocations: Mutex<Revocations>,
    total_rate: AtomicU64,
    nonce_key: [u8; 32],
    /// Ports that the snapshot of an earlier process has as lent, until an engine claims them.
    unclaimed: Mutex<HashSet<(Family, u16)>>,
}

impl SharedState {
    /// Nothing is lent yet. Of `relays` the first of each family counts; without one of a family,
    /// that family is not served. `seed` makes ports, tokens and nonces unpredictable.
    pub fn new(
        relays: Vec<RelayAddress>,
        ports: RangeInclusive<u16>,
        seed: [u8; 32],
        now: Instant,
    ) -> Arc<Self> {
        let mut rng = StdRng::from_seed(seed);
        let mut key = || {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            key
        };
        let (port_seeds, nonce_key) = ([key(), key()], key());
        let shared = Self {
            started: now,
            clock: AtomicU64::new(0),
            relays: [OnceLock::new(), OnceLock::new()],
            ports,
            port_seeds,
            quotas: Mutex::default(),
            reservations: Mutex::new(Reservations::new(StdRng::from_rng(&mut rng))),
            revocations: Mutex::new(Revocations::new(rng.next_u64())),
            total_rate: AtomicU64::new(0),
            nonce_key,
            unclaimed: Mutex::default(),
        };
        for family in Family::ALL {
            let mut of_family = relays.iter().filter(|r| Family::of(r.announced) == family);
            if let Some(address) = of_family.next() {
                shared.move_to(*address);
            }
        }
        Arc::new(shared)
    }

    /// Has new allocations of a family live on `address` from here on, and the family served if it
    /// was not. Living allocations stay where they are.
    pub fn move_to(&self, address: RelayAddress) {
        let family = Family::of(address.announced) as usize;
        let seed = self.port_seeds[family];
        self.relays[family]
            .get_or_init(|| FamilyPool::new(address, &self.ports, StdRng::from_seed(seed)))
            .move_to(address);
    }

    /// Every address on which relays live, or have lived of late.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.served().flat_map(FamilyPool::addresses).collect()
    }

    /// Refuses every credential of `user` whose expiry is at most `revoked_until` (Unix seconds), from
    /// here on until that time itself has passed. What the user's living allocations were made
    /// with is refused as well: another program may have minted it for longer.
    pub fn revoke(&self, user: &str, revoked_until: u64, unix_now: u64) {
        self.revoke_client(user, revoked_until, None, unix_now);
    }

    /// As [`revoke`](Self::revoke), of a client that is gone, at the expense of its network: where
    /// too many are revoked, the network that has most gives one up.
    pub fn revoke_client(
        &self,
        user: &str,
        revoked_until: u64,
        client: Option<IpAddr>,
        unix_now: u64,
    ) {
        let used = lock(&self.quotas).highest_expiry(user);
        let until = revoked_until.max(used);
        lock(&self.revocations).revoke(user, until, client, unix_now);
    }

    /// Every revocation that has not passed, and the seed of their hashes: what a process writes
    /// down for the next one.
    pub fn revocations(&self) -> (u64, Vec<Revocation>) {
        let revocations = lock(&self.revocations);
        (revocations.seed(), revocations.all())
    }

    /// What was revoked since the last time; `None` where it is more than is kept one by one.
    pub fn fresh_revocations(&self) -> Option<Vec<Revocation>> {
        lock(&self.revocations).take_fresh()
    }

    /// Takes over what an earlier process wrote down. To be called before anything is revoked.
    pub fn restore_revocations(
        &self,
        seed: u64,
        revocations: impl IntoIterator<Item = Revocation>,
        unix_now: u64,
    ) {
        lock(&self.revocations).restore(seed, revocations, unix_now);
    }

    /// The highest expiry that is refused for `user`, if it was ever revoked.
    pub fn revoked_until(&self, user: &str) -> Option<u64> {
        lock(&self.revocations).revoked_until(user)
    }

    /// Whether a credential of `user` that expires at `expiry` was revoked.
    pub fn is_revoked(&self, user: &str, expiry: u64) -> bool {
        self.revoked_until(user)
            .is_some_and(|revoked_until| expiry <= revoked_until)
    }

    /// Allocations of the whole box, and reserved ports: one that nobody came for counts until
    /// somebody allocates.
    pub fn allocations(&self) -> u32 {
        lock(&self.quotas).total()
    }

    /// Relay ports that no allocation or reservation holds, over both families.
    pub fn free_ports(&self) -> usize {
        self.served().map(FamilyPool::free_ports).sum()
    }

    /// Relay ports that other programs held when they were tried last, over both families.
    pub fn held_ports(&self) -> usize {
        self.served().map(FamilyPool::held_ports).sum()
    }

    /// Relay ports that there are, over both families.
    pub fn ports(&self) -> usize {
        self.served()
            .map(|relays| relays.relayed_index.size())
            .sum()
    }

    /// Where relays of `family` live, if it is served.
    pub(crate) fn relay_address(&self, family: Family) -> Option<RelayAddress> {
        self.relays[family as usize].get().map(FamilyPool::address)
    }

    /// Whether relayed addresses live on `ip`.
    pub(crate) fn hosts(&self, ip: IpAddr) -> bool {
        self.relays[Family::of(ip) as usize]
            .get()
            .is_some_and(|relays| relays.are_on(ip))
    }

    /// The live relay at exactly `address`. Lock-free: this is asked for packets.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<(WorkerId, RelayedKey)> {
        let relays = self.relays[Family::of(address.ip()) as usize].get()?;
        if !relays.are_on(address.ip()) {
            return None;
        }
        relays.relayed_index.get(address.port())
    }

    /// Dates what comes back from here on; to be called before allocations end.
    pub(crate) fn observe(&self, now: Instant) {
        self.clock.fetch_max(self.nanos(now), Ordering::Relaxed);
    }

    /// Takes back the ports that nobody came for, and their places in the quotas.
    pub(crate) fn expire_reservations(&self, now: Instant) {
        self.observe(now);
        let expired = lock(&self.reservations).expire(now);
        drop(expired);
    }

    /// Lends one allocation to `user`, whose credential expires at `expiry` (Unix seconds), at the
    /// client address `ip`.
    ///
    /// # Errors
    /// Which of the quotas is used up.
    pub(crate) fn lease_quota(
        self: &Arc<Self>,
        user: &Arc<str>,
        expiry: u64,
        ip: IpAddr,
        quotas: Quotas,
    ) -> Result<QuotaLease, DenyReason> {
        QuotaLease::take(self, user, expiry, ip, quotas)
    }

    /// Lends a relay port of `family`, and with [`Parity::EvenPair`] the one above it as well.
    pub(crate) fn lease_port(
        self: &Arc<Self>,
        family: Family,
        parity: Parity,
        now: Instant,
    ) -> Option<(PortLease, Option<PortLease>)> {
        self.expire_reservations(now);
        let pool = &self.relays[family as usize].get()?.pool;
        let port = lock(pool).take(parity, now)?;
        let lease = |port| PortLease::new(self, family, port);
        Some((
            lease(port),
            (parity == Parity::EvenPair).then(|| lease(port + 1)),
        ))
    }

    /// Lends the port that an earlier process had lent; `None` if it had not, or if it is claimed
    /// already.
    pub(crate) fn claim_port(self: &Arc<Self>, family: Family, port: u16) -> Option<PortLease> {
        let is_unclaimed = lock(&self.unclaimed).remove(&(family, port));
        is_unclaimed.then(|| PortLease::new(self, family, port))
    }

    /// The highest expiry of the credentials that the living allocations of `user` were made with.
    pub(crate) fn highest_expiry(&self, user: &str) -> u64 {
        lock(&self.quotas).highest_expiry(user)
    }

    /// Counts an allocation that an earlier process had let in, whatever the quotas say now.
    pub(crate) fn retake_quota(
        self: &Arc<Self>,
        user: &Arc<str>,
        expiry: u64,
        ip: IpAddr,
    ) -> QuotaLease {
        QuotaLease::retake(self, user, expiry, ip)
    }

    /// Keeps `lease` for the client that comes with the token, at the expense of `quota`; `None` if too
    /// many are kept.
    pub(crate) fn reserve(
        &self,
        lease: PortLease,
        quota: QuotaLease,
        now: Instant,
    ) -> Option<ReservationToken> {
        self.expire_reservations(now);
        let kept = lock(&self.reservations).keep((lease, quota), now);
        // Refused leases come back only here, outside of the lock.
        kept.ok()
    }

    /// Hands out what was kept under `token`, and takes back its place in the quotas.
    pub(crate) fn redeem(&self, token: ReservationToken, now: Instant) -> Option<PortLease> {
        self.expire_reservations(now);
        let (lease, _quota) = lock(&self.reservations).redeem(token)?;
        Some(lease)
    }

    /// Takes `bytes` out of the total rate of `rate` bytes per second.
    pub(crate) fn draw(&self, bytes: u64, rate: u64, now: Instant) -> bool {
        let now = self.nanos(now);
        let admit = |level| Bucket::from(level).admit(bytes, rate, now).map(u64::from);
        self.total_rate
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_ok()
    }

    /// Keys the nonces of every worker alike, so that a client may change workers.
    pub(crate) fn nonce_key(&self) -> &[u8; 32] {
        &self.nonce_key
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }

    fn latest(&self) -> Instant {
        self.started + Duration::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    fn served(&self) -> impl Iterator<Item = &FamilyPool> {
        self.relays.iter().filter_map(OnceLock::get)
    }

    fn relays(&self, family: Family) -> &FamilyPool {
        self.relays[family as usize]
            .get()
            .expect("a lease is of a family that is served")
    }
}

/// The state stays usable after a panic elsewhere: each change to them is complete or not begun.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
