//! How many TCP connections there are, in all and by network, whatever they carry; and which of
//! them have not spoken yet, so that one of those makes room where there is none.

mod budget;
mod counted;

use crate::network::{DeniedClients, NetworkCounts, network_of};
use budget::Budget;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// Connections of one network past its limit that still get an answer, each a 429.
const TURNED_AWAY: u32 = 16;
/// Bytes of request bodies that are read at once, of one network and in all. A larger one counts as all
/// of a network's.
const MAX_BODIES: (u64, u64) = (8 << 20, 64 << 20);
/// Files that are open for clients at once, of one network and in all.
const MAX_FILES: (u64, u64) = (32, FILES as u64);
/// Descriptors that files take at most.
pub(super) const FILES: u32 = 256;
/// How long a connection may be silent before it makes room for another: round trips of a slow
/// network and a handshake on a busy machine take less.
const MIN_SILENCE: Duration = Duration::from_secs(2);
/// How many networks are looked at for a connection that makes room.
const NETWORKS_LOOKED_AT: usize = 8;

/// How many TCP connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCaps {
    /// Of one IPv4 address or IPv6 /64.
    pub per_network: u32,
    /// In all.
    pub total: u32,
}

/// Which bound keeps a connection out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The client's network holds as many as it may.
    #[error("too many connections from this network")]
    Network,
    /// The box does.
    #[error("the box holds as many connections as it may")]
    Total,
    /// The operator refuses the client.
    #[error("this network is refused")]
    Denied,
}

/// The count of all TCP connections of the box.
#[derive(Debug)]
pub struct Connections {
    counts: Mutex<Counts>,
    refused: [AtomicU64; 3],
    made_room: AtomicU64,
}

#[derive(Debug)]
struct Counts {
    caps: ConnectionCaps,
    denied: DeniedClients,
    total: u32,
    networks: NetworkCounts,
    turned_away: NetworkCounts,
    silent: Silent,
    /// Bytes of request bodies that are being read.
    bodies: Budget,
    /// Files that are open for clients.
    files: Budget,
}

impl Connections {
    /// Starts at none.
    pub fn new(caps: ConnectionCaps) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                caps,
                denied: DeniedClients::default(),
                total: 0,
                networks: NetworkCounts::default(),
                turned_away: NetworkCounts::default(),
                silent: Silent::default(),
                bodies: Budget::default(),
                files: Budget::default(),
            }),
            refused: [const { AtomicU64::new(0) }; 3],
            made_room: AtomicU64::new(0),
        })
    }

    /// Takes new bounds; connections that exceed them live on.
    pub fn set_caps(&self, caps: ConnectionCaps) {
        self.lock().caps = caps;
    }

    /// Refuses these clients from here on.
    pub fn deny(&self, denied: DeniedClients) {
        self.lock().denied = denied;
    }

    /// Connections that there are.
    pub fn total(&self) -> u32 {
        self.lock().total
    }

    /// Connections that were closed at once, by the bound that kept them out.
    pub fn refused(&self, by: Full) -> u64 {
        self.refused[by as usize].load(Ordering::Relaxed)
    }

    /// Silent connections that were closed to make room for others.
    pub fn made_room(&self) -> u64 {
        self.made_room.load(Ordering::Relaxed)
    }

    /// Counts a connection of `client` in; `None` is a client that a trusted proxy has yet to
    /// name, and counts in all only. Where there is no room, a connection that has been silent for
    /// long enough makes some.
    ///
    /// # Errors
    /// Which bound keeps it out.
    pub fn enter(self: &Arc<Self>, client: Option<IpAddr>, now: Instant) -> Result<Place, Full> {
        let mut counts = self.lock();
        let entered = self.count(&mut counts, client, now);
        drop(counts);
        match entered {
            Ok(charge) => Ok(Place {
                connections: Arc::clone(self),
                charge: Mutex::new(charge),
            }),
            Err(full) => {
                self.refused[full as usize].fetch_add(1, Ordering::Relaxed);
                Err(full)
            }
        }
    }

    fn count(
        self: &Arc<Self>,
        counts: &mut Counts,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Result<Option<Charge>, Full> {
        if client.is_some_and(|client| counts.denied.covers(client)) {
            return Err(Full::Denied);
        }
        if counts.total >= counts.caps.total {
            self.evict(counts, None, now).ok_or(Full::Total)?;
        }
        let charge = match client {
            None => None,
            Some(client) => Some(self.charge_in(counts, client).or_else(|full| {
                // One of its own that is silent makes room; else it is told, if it is one of few.
                match self.evict(counts, Some(client), now) {
                    Some(()) => Ok(self.excess(counts, client)),
                    None => self.turn_away(counts, client).ok_or(full),
                }
            })?),
        };
        counts.total += 1;
        Ok(charge)
    }

    fn charge_in(self: &Arc<Self>, counts: &mut Counts, client: IpAddr) -> Result<Charge, Full> {
        match counts
            .networks
            .take(client, counts.caps.per_network, counts.caps.total)
        {
            true => Ok(self.charged(client, Standing::Counted)),
            false => Err(Full::Network),
        }
    }

    /// The place of a connection that is being closed is not free yet.
    fn excess(self: &Arc<Self>, counts: &mut Counts, client: IpAddr) -> Charge {
        counts.networks.add(client, 1);
        self.charged(client, Standing::Counted)
    }

    fn turn_away(self: &Arc<Self>, counts: &mut Counts, client: IpAddr) -> Option<Charge> {
        let taken = (counts.turned_away).take(client, TURNED_AWAY, u32::MAX);
        taken.then(|| self.charged(client, Standing::TurnedAway))
    }

    fn charged(self: &Arc<Self>, client: IpAddr, standing: Standing) -> Charge {
        Charge {
            connections: Arc::clone(self),
            client,
            standing,
        }
    }

    /// Ends the connection that has been silent longest, of the network of `of` or of whichever
    /// has most of them.
    fn evict(&self, counts: &mut Counts, of: Option<IpAddr>, now: Instant) -> Option<()> {
        let task = counts.silent.longest(of, now)?;
        task.abort();
        self.made_room.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    /// Counts what `client` asks through a trusted proxy against its network, until the charge is
    /// dropped.
    ///
    /// # Errors
    /// The network holds as many as it may.
    pub fn charge(self: &Arc<Self>, client: IpAddr) -> Result<Charge, Full> {
        let mut counts = self.lock();
        if counts.denied.covers(client) {
            self.refused[Full::Denied as usize].fetch_add(1, Ordering::Relaxed);
            return Err(Full::Denied);
        }
        self.charge_in(&mut counts, client)
    }

    /// Notes that a connection of `client` has not spoken, until the note is dropped.
    pub(super) fn note_silent(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        now: Instant,
    ) -> SilentNote {
        SilentNote {
            key: self.lock().silent.insert(client, now),
            connections: Arc::clone(self),
        }
    }

    /// Names the task that waits for the connection of a note: it is aborted if the connection has
    /// to make room.
    pub(super) fn may_abort(&self, key: Key, task: AbortHandle) {
        self.lock().silent.may_abort(key, task);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection in every count; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    charge: Mutex<Option<Charge>>,
}

impl Place {
    /// Charges the connection to the client that a trusted proxy has named for all of it.
    ///
    /// # Errors
    /// The client's network holds as many as it may.
    pub(super) fn belongs_to(&self, client: IpAddr) -> Result<(), Full> {
        let charge = self.connections.charge(client).or_else(|full| {
            if full == Full::Denied {
                return Err(full);
            }
            let mut counts = self.connections.lock();
            self.connections.turn_away(&mut counts, client).ok_or(full)
        })?;
        *self.lock() = Some(charge);
        Ok(())
    }

    /// Counts a request that a trusted proxy passes on against the network of its client.
    ///
    /// # Errors
    /// The network holds as many as it may.
    pub fn charge(&self, client: IpAddr) -> Result<Charge, Full> {
        self.connections.charge(client)
    }

    /// Counts a request body of so many bytes, until the lease is dropped; `None` where too many
    /// bytes are being read for its network or in all.
    pub fn lease_body(&self, bytes: u64) -> Option<BodyLease> {
        let client = self.client();
        let bytes = bytes.min(MAX_BODIES.0);
        let taken = (self.connections.lock().bodies).take(client, bytes, MAX_BODIES);
        taken.then(|| BodyLease {
            connections: Arc::clone(&self.connections),
            client,
            bytes,
        })
    }

    /// Counts a file that is opened for the client, until the charge is dropped; `None` where too many
    /// are open for its network or in all.
    pub fn open_file(&self) -> Option<FileCharge> {
        let client = self.client();
        let taken = (self.connections.lock().files).take(client, 1, MAX_FILES);
        taken.then(|| FileCharge {
            connections: Arc::clone(&self.connections),
            client,
        })
    }

    /// The client that is counted, if it is known for all of the connection.
    fn client(&self) -> Option<IpAddr> {
        self.lock().as_ref().map(|charge| charge.client)
    }

    /// Whether the connection is one too many of its network, and is there only to be told
    /// so. It asks again, as others may have gone.
    pub fn is_turned_away(&self) -> bool {
        let mut mine = self.lock();
        let Some(client) = mine
            .as_ref()
            .filter(|charge| charge.standing == Standing::TurnedAway)
            .map(|charge| charge.client)
        else {
            return false;
        };
        match self.connections.charge(client) {
            Ok(charge) => {
                *mine = Some(charge);
                false
            }
            Err(_) => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Charge>> {
        self.charge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().total -= 1;
    }
}

/// The bytes of a request body; dropping it gives them back.
#[derive(Debug)]
pub struct BodyLease {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
    bytes: u64,
}

impl Drop for BodyLease {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        counts.bodies.give_back(self.client, self.bytes);
    }
}

/// The place of an open file; dropping it gives the place back.
#[derive(Debug)]
pub struct FileCharge {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
}

impl Drop for FileCharge {
    fn drop(&mut self) {
        self.connections.lock().files.give_back(self.client, 1);
    }
}

/// One that is counted against its client's network; dropping it gives it back.
#[derive(Debug)]
pub struct Charge {
    connections: Arc<Connections>,
    client: IpAddr,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Counted,
    TurnedAway,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        match self.standing {
            Standing::Counted => counts.networks.give_back(self.client),
            Standing::TurnedAway => counts.turned_away.give_back(self.client),
        }
    }
}

/// A connection that has not spoken. Dropping it says that the connection has, or is gone.
#[derive(Debug)]
pub(super) struct SilentNote {
    connections: Arc<Connections>,
    key: Key,
}

impl SilentNote {
    pub(super) fn key(&self) -> Key {
        self.key
    }
}

impl Drop for SilentNote {
    fn drop(&mut self) {
        self.connections.lock().silent.remove(self.key);
    }
}

/// Names a silent connection: its network, if it is known, and its turn.
pub(super) type Key = (Option<IpAddr>, u64);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    task: Option<AbortHandle>,
}

/// Connections that have not spoken, by network and oldest first.
#[derive(Debug, Default)]
struct Silent {
    next: u64,
    networks: HashMap<Option<IpAddr>, BTreeMap<u64, Waiting>>,
    /// Networks by how many they have. What is behind trusted proxies is many clients, and stands
    /// here as having one.
    by_size: BTreeSet<(usize, Option<IpAddr>)>,
}

impl Silent {
    fn insert(&mut self, client: Option<IpAddr>, since: Instant) -> Key {
        let (network, turn) = (client.map(network_of), self.next);
        self.next += 1;
        let waiting = Waiting { since, task: None };
        self.change(network, |entries| {
            entries.insert(turn, waiting);
        });
        (network, turn)
    }

    fn may_abort(&mut self, (network, turn): Key, task: AbortHandle) {
        let entries = self.networks.get_mut(&network);
        if let Some(waiting) = entries.and_then(|entries| entries.get_mut(&turn)) {
            waiting.task = Some(task);
        }
    }

    fn remove(&mut self, (network, turn): Key) -> Option<Waiting> {
        let mut waiting = None;
        if self.networks.contains_key(&network) {
            self.change(network, |entries| waiting = entries.remove(&turn));
        }
        waiting
    }

    fn change(
        &mut self,
        network: Option<IpAddr>,
        change: impl FnOnce(&mut BTreeMap<u64, Waiting>),
    ) {
        let size = |entries: &BTreeMap<_, _>| match network {
            None => entries.len().min(1),
            Some(_) => entries.len(),
        };
        let entries = self.networks.entry(network).or_default();
        self.by_size.remove(&(size(entries), network));
        change(entries);
        match size(entries) {
            0 => {
                self.networks.remove(&network);
            }
            size => {
                self.by_size.insert((size, network));
            }
        }
    }

    /// Takes out the one that has been silent longest, and long enough.
    fn longest(&mut self, of: Option<IpAddr>, now: Instant) -> Option<AbortHandle> {
        let oldest = |network: &Option<IpAddr>| {
            let (turn, waiting) = self.networks.get(network)?.first_key_value()?;
            let is_due = now.saturating_duration_since(waiting.since) >= MIN_SILENCE;
            is_due.then_some((*network, *turn))
        };
        let key = match of {
            Some(client) => oldest(&Some(network_of(client))),
            None => {
                let largest = self.by_size.iter().rev().take(NETWORKS_LOOKED_AT);
                largest.map(|(_, network)| network).find_map(oldest)
            }
        }?;
        self.remove(key)?.task
    }
}

#[cfg(test)]
mod tests;
