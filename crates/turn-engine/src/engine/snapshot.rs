//! The state of an engine as plain data, for a process that goes on where another one ends.
//!
//! Times are nanoseconds that are left, or that have passed, when the snapshot was taken. Relay
//! sockets do not come along in here: the shell brings them, under the same [`RelayedKey`]s.

use super::allocation::{Allocation, NewAllocation, RelayedAddress};
use super::auth::Key;
use super::control;
use super::event::{Flow, Stats};
use super::five_tuple::FiveTuple;
use super::ids::{Family, RelayedKey, WorkerId};
use super::settings::Settings;
use super::table::MAX_SLOTS;
use super::{Engine, RelaySockets};
use crate::credential::{SecretId, Username};
use crate::rate::Bucket;
use crate::restoring::{RestoreError, age, array, left, reseed, seeded};
use crate::shared::{PortLease, QuotaLease, SharedState};
use crate::text;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that one engine knows, as data. It holds keys of users: it is kept out of logs.
#[derive(Clone, Serialize, Deserialize)]
pub struct EngineSnapshot {
    #[serde(with = "text")]
    seed: Vec<u8>,
    draining: bool,
    stats: Stats,
    slots: Vec<SlotSnapshot>,
    /// The slots without an allocation, in the order in which they are taken, from the last one.
    vacant: Vec<u32>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SlotSnapshot {
    generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allocation: Option<AllocationSnapshot>,
}

#[derive(Clone, Serialize, Deserialize)]
struct AllocationSnapshot {
    five_tuple: FiveTuple,
    username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretId>,
    /// The highest expiry of the credentials of its user's allocations, Unix seconds.
    expiry: u64,
    /// 16 bytes by MD5, 32 by SHA-256.
    #[serde(with = "text")]
    key: Vec<u8>,
    #[serde(with = "text")]
    transaction: Vec<u8>,
    #[serde(with = "text")]
    answer: Vec<u8>,
    age: u64,
    session_left: u64,
    relays: Vec<RelaySnapshot>,
    permissions: Vec<(IpAddr, u64)>,
    channels: Vec<(u16, SocketAddr, u64)>,
    sent: Flow,
    received: Flow,
    /// How far ahead of its rate the allocation is.
    rate: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct RelaySnapshot {
    announced: SocketAddr,
    left: u64,
}

impl EngineSnapshot {
    /// The relayed addresses in the order of the table, each with the key of its socket.
    pub fn relays(&self) -> impl Iterator<Item = (RelayedKey, SocketAddr)> {
        self.slots.iter().zip(0..).flat_map(|(slot, index)| {
            let relays = slot.allocation.iter().flat_map(|a| &a.relays);
            relays.map(move |relay| {
                let family = Family::of(relay.announced.ip());
                let key = RelayedKey::new(index, family, slot.generation);
                (key, relay.announced)
            })
        })
    }

    /// How many allocations there are.
    pub fn allocations(&self) -> usize {
        let allocations = self.slots.iter().filter(|slot| slot.allocation.is_some());
        allocations.count()
    }
}

/// What is left of an engine that ends: its relay sockets, and what its allocations have leased,
/// which is to be kept until [`SharedState::snapshot`] is taken.
pub struct Remains<S> {
    /// The sockets of relayed addresses, each with its key, in the order of
    /// [`EngineSnapshot::relays`].
    pub sockets: Vec<(RelayedKey, S)>,
    /// Ports and places in quotas.
    pub leases: Leases,
}

/// Ports and places in quotas that an engine has leased; they go back when this is dropped.
#[derive(Default)]
pub struct Leases {
    _ports: Vec<PortLease>,
    _quotas: Vec<QuotaLease>,
}

impl<R: RelaySockets> Engine<R> {
    /// The state as data. Randomness goes on from a seed that is in the snapshot too, so that an
    /// engine restored from it does what this one would.
    pub fn snapshot(&mut self, now: Instant) -> EngineSnapshot {
        let seed = reseed(&mut self.rng);
        let paid = now.saturating_duration_since(self.started).as_nanos() as u64;
        let slots = self.table.all_slots().map(|(generation, allocation)| {
            let allocation = allocation.map(|allocation| {
                let expiry = self.shared.highest_expiry(&allocation.user);
                snapshot(allocation, expiry, paid, now)
            });
            SlotSnapshot {
                generation,
                allocation,
            }
        });
        EngineSnapshot {
            slots: slots.collect(),
            seed,
            draining: self.draining,
            stats: self.stats.clone(),
            vacant: self.table.vacant().to_vec(),
        }
    }

    /// Takes the engine apart.
    pub fn dismantle(self) -> Remains<R::Socket> {
        let mut remains = Remains {
            sockets: vec![],
            leases: Leases::default(),
        };
        for (slot, generation, allocation) in self.table.into_allocations() {
            let (relays, quota) = allocation.dismantle();
            remains.leases._quotas.push(quota);
            for relay in relays.into_iter().flatten() {
                let key = RelayedKey::new(slot, relay.lease.family(), generation);
                remains.sockets.push((key, relay.socket));
                remains.leases._ports.push(relay.lease);
            }
        }
        remains
    }

    /// Goes on from `snapshot`, which was taken at `taken`, with the sockets that `sockets` adopts.
    /// `shared` is restored from the snapshot of the same moment. Returns the engine, and how many
    /// relayed addresses are lost because nobody brought their socket or their port.
    ///
    /// # Errors
    /// The snapshot is not one that [`snapshot`](Self::snapshot) takes.
    pub fn restore(
        id: WorkerId,
        settings: Arc<Settings>,
        shared: Arc<SharedState>,
        sockets: R,
        snapshot: EngineSnapshot,
        taken: Instant,
    ) -> Result<(Self, usize), RestoreError> {
        if snapshot.slots.len() > MAX_SLOTS {
            return Err(RestoreError::Malformed("too many slots"));
        }
        let seed = array(&snapshot.seed, "a seed")?;
        let mut engine = Self::new(id, settings, shared, sockets, seed, taken);
        engine.rng = seeded(&snapshot.seed)?;
        engine.draining = snapshot.draining;
        engine.stats = snapshot.stats;
        let mut lost = 0;
        for slot in snapshot.slots {
            let generation = slot.generation.max(1);
            let index = engine.table.add_slot(generation);
            let Some(old) = slot.allocation else {
                continue;
            };
            let relays = old.relays.len();
            let allocation = engine.adopt(index, generation, old, taken)?;
            let adopted = allocation.as_ref().map_or(0, |a| a.relayed().count());
            lost += relays.saturating_sub(adopted);
            if let Some(allocation) = allocation {
                for relay in allocation.relays.iter().flatten() {
                    let key = RelayedKey::new(index, relay.lease.family(), generation);
                    relay.lease.publish(id, key);
                }
                engine.table.put(index, Box::new(allocation));
            }
        }
        engine.table.set_vacant(&snapshot.vacant);
        Ok((engine, lost))
    }

    /// Whether `key` is that of a user with a fixed password, by the password that it has now.
    fn is_fixed(&self, username: &str, key: &Key) -> bool {
        let (password, exists) = self.settings.users.password(username);
        exists && key.is_of(username, &self.settings.realm, password)
    }

    /// The allocation of a snapshot, if any of its relayed addresses came along.
    fn adopt(
        &mut self,
        slot: u32,
        generation: u32,
        old: AllocationSnapshot,
        taken: Instant,
    ) -> Result<Option<Allocation<R::Socket>>, RestoreError> {
        let key = match old.key.len() {
            16 => Key::Md5(array(&old.key, "a key")?),
            _ => Key::Sha256(array(&old.key, "a key")?),
        };
        let transaction = array(&old.transaction, "a transaction id")?;
        // A fixed user is counted under its own name: that name has no expiry before a colon.
        let user = match Username::parse(&old.username) {
            Some(user) => user.user,
            None if self.is_fixed(&old.username, &key) => &*old.username,
            None => return Ok(None),
        };
        let user: Arc<str> = user.into();
        if self.table.slot_of(&old.five_tuple).is_some() {
            return Ok(None);
        }
        let until = |left| taken + Duration::from_nanos(left);
        let mut relays = [None, None];
        for relay in &old.relays {
            let family = Family::of(relay.announced.ip());
            let key = RelayedKey::new(slot, family, generation);
            let Some(lease) = self.shared.claim_port(family, relay.announced.port()) else {
                continue;
            };
            let Some(socket) = self.sockets.adopt(key, relay.announced) else {
                continue;
            };
            relays[family as usize] = Some(RelayedAddress {
                socket,
                lease,
                announced: relay.announced,
                expires: until(relay.left),
            });
        }
        if relays.iter().all(Option::is_none) {
            return Ok(None);
        }
        let client = old.five_tuple.client.ip();
        let quota = self.shared.retake_quota(&user, old.expiry, client);
        let opened = taken.checked_sub(Duration::from_nanos(old.age));
        let mut allocation = Allocation::new(NewAllocation {
            five_tuple: old.five_tuple,
            username: old.username.into(),
            user,
            secret: old.secret,
            key,
            transaction,
            opened: opened.unwrap_or(taken),
            session_end: until(old.session_left),
            relays,
            quota,
        });
        allocation.answer = old.answer.into();
        (allocation.sent, allocation.received) = (old.sent, old.received);
        allocation.bucket = Bucket::from(old.rate);
        let permissions = old.permissions.into_iter().filter_map(|(ip, left)| {
            let route = control::route(&self.settings.policy, &self.shared, ip).ok()?;
            Some((ip, until(left), route))
        });
        let channels = old.channels.into_iter();
        let channels = channels.map(|(number, peer, left)| (number, peer, until(left)));
        allocation.take_over(permissions, channels);
        for family in Family::ALL {
            if allocation.relays[family as usize].is_none() {
                allocation.forget_family(family, &mut self.watch);
            }
        }
        Ok(Some(allocation))
    }
}

fn snapshot<S>(
    allocation: &Allocation<S>,
    expiry: u64,
    paid: u64,
    now: Instant,
) -> AllocationSnapshot {
    let relays = allocation.relays.iter().flatten();
    let permissions = allocation.permissions();
    let channels = allocation.channels();
    AllocationSnapshot {
        five_tuple: allocation.five_tuple,
        username: allocation.username.to_string(),
        secret: allocation.secret,
        expiry,
        key: allocation.key.bytes().to_vec(),
        transaction: allocation.transaction.to_vec(),
        answer: allocation.answer.to_vec(),
        age: age(allocation.opened, now),
        session_left: left(allocation.session_end, now),
        relays: relays
            .map(|relay| RelaySnapshot {
                announced: relay.announced,
                left: left(relay.expires, now),
            })
            .collect(),
        permissions: permissions
            .map(|(ip, until)| (ip, left(until, now)))
            .collect(),
        channels: channels
            .map(|(number, peer, until)| (number, peer, left(until, now)))
            .collect(),
        sent: allocation.sent,
        received: allocation.received,
        rate: u64::from(allocation.bucket).saturating_sub(paid),
    }
}
