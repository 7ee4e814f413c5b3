//! The STUN/TURN server as a state machine: a five-tuple, bytes, a clock reading in; datagrams,
//! relay sockets, events and a next timeout out (RFC 8489, RFC 8656).
//!
//! One engine belongs to one worker. What all workers share is in the
//! [`SharedState`], touched when allocations come and go, never for a packet (one atomic read for a
//! packet between two relays aside). No clock, no socket, no randomness of its own.

mod allocate;
mod allocation;
mod auth;
mod codec;
mod control;
mod data;
mod discovery;
mod event;
mod five_tuple;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gro;
mod ids;
mod message;
mod nonce;
mod policy;
mod reply;
mod requests;
mod settings;
mod snapshot;
mod table;
mod watch;

pub use crate::restoring::RestoreError;
pub use event::{
    AllocationView, CloseReason, DenyReason, Dropped, Event, Flow, RefusedByCode, Stats,
};
pub use five_tuple::{FiveTuple, Transport};
pub use gro::{GroBatch, PayloadRun};
pub use ids::{Family, Now, RelayedKey, WorkerId};
pub use policy::{Denial, PeerPolicy, Range, Verdict, is_public};
pub use settings::{Quotas, Settings, Spent};
pub use snapshot::{EngineSnapshot, Leases, Remains};

use crate::shared::SharedState;
use codec::{
    CLASS_INDICATION, CLASS_REQUEST, METHOD_ALLOCATE, METHOD_BINDING, METHOD_CHANNEL_BIND,
    METHOD_CREATE_PERMISSION, METHOD_REFRESH, METHOD_SEND,
};
use data::Arrival;
use discovery::Discovery;
use message::{ClassicBinding, Message};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use table::Table;
use watch::Watch;

/// Binds the sockets of leased relay ports.
pub trait RelaySockets {
    /// Whatever the shell sends and receives with; dropping it closes the socket.
    type Socket;

    /// Opens a UDP socket on `address`, whose datagrams come back under `key`.
    ///
    /// # Errors
    /// Why not: of a port that another program holds, the engine tries another one.
    fn open(&mut self, address: SocketAddr, key: RelayedKey) -> Result<Self::Socket, OpenError>;

    /// Takes over the socket that an earlier process opened under `key` and announced as
    /// `announced`; `None` if it did not come along.
    fn adopt(&mut self, key: RelayedKey, announced: SocketAddr) -> Option<Self::Socket> {
        let _ = (key, announced);
        None
    }
}

/// Why the socket of a relayed address was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another program holds the port.
    PortHeld,
    /// The process, or the system, has no file descriptor left.
    NoDescriptor,
    /// Anything else.
    Other(io::Error),
}

/// Where the engine's datagrams go. `'a` is the life of the receive batch, so that payloads need
/// no copy. Each payload of a [`PayloadRun`] becomes a datagram of its own.
pub trait Output<'a, S> {
    /// A whole message of the server: a control reply or a Binding response.
    fn reply(&mut self, to: &FiveTuple, message: &[u8]);

    /// Payloads for a client, each behind `head` (a ChannelData header or the front of a Data
    /// indication) and followed by `padding` (0 to 3) zero bytes. A UDP ChannelData message has
    /// none.
    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize);

    /// Payloads for a peer through the socket of a relayed address.
    fn to_peer(&mut self, from: &S, to: SocketAddr, payloads: PayloadRun<'a>, dont_fragment: bool);

    /// Payloads for a relayed address of another worker, which hands them to its engine with
    /// [`Engine::from_worker`]. `from` is the sender's announced relayed address.
    fn to_worker(
        &mut self,
        worker: WorkerId,
        relay: RelayedKey,
        from: SocketAddr,
        payloads: PayloadRun<'a>,
    );

    /// Something for logs and dashboards.
    fn event(&mut self, event: Event);
}

/// The STUN/TURN server of one worker.
pub struct Engine<R: RelaySockets> {
    id: WorkerId,
    settings: Arc<Settings>,
    shared: Arc<SharedState>,
    sockets: R,
    table: Table<R::Socket>,
    watch: Watch,
    discovery: Discovery,
    rng: StdRng,
    /// Where messages are written before the shell copies them.
    scratch: Vec<u8>,
    started: Instant,
    draining: bool,
    spent: Arc<Spent>,
    stats: Stats,
}

impl<R: RelaySockets> Engine<R> {
    /// Makes an engine without allocations. `seed` feeds everything unpredictable.
    pub fn new(
        id: WorkerId,
        settings: Arc<Settings>,
        shared: Arc<SharedState>,
        sockets: R,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut rng = StdRng::from_seed(seed);
        Self {
            id,
            settings,
            shared,
            sockets,
            table: Table::new(rng.next_u64()),
            watch: Watch::default(),
            discovery: Discovery::default(),
            rng,
            scratch: Vec::new(),
            started: now,
            draining: false,
            spent: Arc::default(),
            stats: Stats::default(),
        }
    }

    /// Names the addresses on which the shell takes Binding requests over UDP, a wildcard for every
    /// address of its family: where there are several, clients can have their NAT's behaviour
    /// discovered (RFC 5780). The shell must be able to reply from each of them.
    pub fn set_stun_servers(&mut self, servers: Vec<SocketAddr>) {
        self.discovery = Discovery::new(servers);
    }

    /// Has [`Output::event`] called for permissions and channels too: now for those that live, later
    /// for each that is installed or gone. So what was installed and is not gone is at each time what
    /// [`AllocationView`] counts, once [`handle_timeout`](Self::handle_timeout) has run. A watched
    /// engine has a timer for the first permission or channel of an allocation that runs out.
    pub fn watch<'a>(&mut self, now: Now, out: &mut impl Output<'a, R::Socket>) {
        if self.watch.is_on() {
            return;
        }
        for allocation in self.table.iter_mut() {
            allocation.sweep(now.instant, &mut self.watch);
        }
        self.watch.start();
        self.table.watch();
        for allocation in self.table.iter() {
            allocation.introduce(&mut self.watch);
            for event in self.watch.take() {
                out.event(event);
            }
        }
    }

    /// Takes datagrams, or one deframed message of a stream, from a client.
    pub fn from_client<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        mut datagrams: GroBatch<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let runs = self.takes_runs();
        let alike = |one: &[u8], other: &[u8]| runs && message::same_channel(one, other);
        while let Some(run) = datagrams.next_run(alike) {
            let datagram = run.first();
            // The first byte tells the protocols apart (RFC 7983).
            match datagram.first() {
                Some(0x40..=0x7f) => self.channel_data(now, five_tuple, run, out),
                Some(0..=3) => match Message::parse(datagram) {
                    Some(message) => self.stun(now, five_tuple, &message, out),
                    None => match ClassicBinding::parse(datagram) {
                        Some(request) => self.classic_binding(five_tuple, &request, out),
                        None => self.stats.dropped.malformed += 1,
                    },
                },
                _ => self.stats.dropped.malformed += 1,
            }
        }
    }

    /// Takes datagrams that arrived on the socket of a relayed address.
    pub fn from_peer<'a>(
        &mut self,
        now: Now,
        relay: RelayedKey,
        peer: SocketAddr,
        mut datagrams: GroBatch<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let peer = without_scope(peer);
        let runs = self.takes_runs();
        while let Some(run) = datagrams.next_run(|_, _| runs) {
            self.relay_in(now, relay, peer, run, Arrival::Socket, out);
        }
    }

    /// Takes payloads handed over by another worker's [`Output::to_worker`].
    pub fn from_worker<'a>(
        &mut self,
        now: Now,
        relay: RelayedKey,
        from: SocketAddr,
        payloads: PayloadRun<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let from = without_scope(from);
        if self.takes_runs() {
            self.relay_in(now, relay, from, payloads, Arrival::Hairpin, out);
        } else {
            for payload in payloads.singles() {
                self.relay_in(now, relay, from, payload, Arrival::Hairpin, out);
            }
        }
    }

    /// Takes an ICMP error for a datagram that `relay` sent to `peer`: type, code, and the
    /// next-hop MTU where the error carries one.
    pub fn peer_unreachable<'a>(
        &mut self,
        now: Now,
        relay: RelayedKey,
        peer: SocketAddr,
        icmp: (u8, u8),
        error_data: u32,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        self.icmp(now, relay, without_scope(peer), icmp, error_data, out);
    }

    /// Ends the allocation of a stream that closed.
    pub fn client_closed<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        if let Some(slot) = self.table.slot_of(five_tuple) {
            self.end(slot, None, CloseReason::Disconnected, now, out);
        }
    }

    /// The socket behind a live relayed address.
    pub fn socket(&self, relay: RelayedKey) -> Option<&R::Socket> {
        let slot = self.table.slot_of_relay(relay)?;
        let relay = self.table.get(slot).relays[relay.family() as usize].as_ref();
        relay.map(|relay| &relay.socket)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    /// Ends what has run out.
    pub fn handle_timeout<'a>(&mut self, now: Now, out: &mut impl Output<'a, R::Socket>) {
        while let Some(slot) = self.table.due(now.instant) {
            let allocation = self.table.get_mut(slot);
            if self.watch.is_on() && allocation.deadline() > now.instant {
                allocation.sweep(now.instant, &mut self.watch);
                self.table.rearm(slot);
                self.report(out);
                continue;
            }
            let expired = allocation
                .relays
                .iter()
                .flatten()
                .find(|r| r.expires <= now.instant);
            let family = expired.map(|relay| relay.lease.family());
            let reason = if allocation.session_end <= now.instant {
                CloseReason::SessionEnd
            } else {
                CloseReason::Expired
            };
            self.end(slot, family, reason, now, out);
        }
    }

    /// Ends every allocation of `user` on this worker. New ones are refused because
    /// of [`SharedState::revoke`], which must come first.
    pub fn revoke<'a>(&mut self, user: &str, now: Now, out: &mut impl Output<'a, R::Socket>) {
        for slot in self.table.of_user(user) {
            self.end(slot, None, CloseReason::Revoked, now, out);
        }
    }

    /// Ends every allocation.
    pub fn stop<'a>(&mut self, now: Now, out: &mut impl Output<'a, R::Socket>) {
        for slot in self.table.slots() {
            self.end(slot, None, CloseReason::Stopped, now, out);
        }
    }

    /// Refuses new allocations of these users and secrets from here on; living ones go on.
    pub fn spend(&mut self, spent: Arc<Spent>) {
        self.spent = spent;
    }

    /// Refuses new allocations from here on; living ones go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes a new configuration. Living allocations keep their keys and session ends; their
    /// permissions are judged anew. Returns the users with a fixed password that `settings` has not,
    /// or not with this password: [`Self::drop_user`] ends what they have.
    pub fn reconfigure<'a>(
        &mut self,
        settings: Arc<Settings>,
        out: &mut impl Output<'a, R::Socket>,
    ) -> Vec<Arc<str>> {
        let before = std::mem::replace(&mut self.settings, settings);
        let dropped = before.users.dropped(&self.settings.users);
        let dropped = dropped.map(Arc::clone).collect();
        for allocation in self.table.iter_mut() {
            let judge = |ip| control::route(&self.settings.policy, &self.shared, ip).ok();
            allocation.reapply_policy(judge, &mut self.watch);
            for event in self.watch.take() {
                out.event(event);
            }
        }
        dropped
    }

    /// Ends the allocations of clients that `is_denied`.
    pub fn drop_clients<'a>(
        &mut self,
        is_denied: impl Fn(IpAddr) -> bool,
        now: Now,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        for slot in self.table.slots() {
            if is_denied(self.table.get(slot).five_tuple.client.ip()) {
                self.end(slot, None, CloseReason::Revoked, now, out);
            }
        }
    }

    /// Ends the allocations that were made with the fixed password of `user`, and not those with a
    /// REST credential for the same user.
    pub fn drop_user<'a>(&mut self, user: &str, now: Now, out: &mut impl Output<'a, R::Socket>) {
        for slot in self.table.of_user(user) {
            if *self.table.get(slot).username == *user {
                self.end(slot, None, CloseReason::Revoked, now, out);
            }
        }
    }

    /// The living allocations, in no order.
    pub fn allocations(&self, now: Instant) -> impl Iterator<Item = AllocationView> {
        self.table
            .iter()
            .map(move |allocation| allocation.view(now))
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn stun<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'a>,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        match (message.class(), message.method()) {
            (CLASS_INDICATION, METHOD_SEND) => self.send(now, five_tuple, message, out),
            // A keep-alive.
            (CLASS_INDICATION, METHOD_BINDING) => {}
            (CLASS_REQUEST, METHOD_BINDING) => self.binding(five_tuple, message, out),
            (
                CLASS_REQUEST,
                METHOD_ALLOCATE | METHOD_REFRESH | METHOD_CREATE_PERMISSION | METHOD_CHANNEL_BIND,
            ) => {
                // What has run out must not answer, however late the timer is.
                self.handle_timeout(now, out);
                self.request(now, five_tuple, message, out);
            }
            _ => self.stats.dropped.unexpected += 1,
        }
    }

    /// Ends one family of an allocation, or all of it; without any family left, it is gone.
    fn end<'a>(
        &mut self,
        slot: u32,
        family: Option<Family>,
        reason: CloseReason,
        now: Now,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        self.shared.observe(now.instant);
        if let Some(family) = family {
            let allocation = self.table.get_mut(slot);
            if allocation.relayed().count() > 1 {
                allocation.relays[family as usize] = None;
                allocation.forget_family(family, &mut self.watch);
                self.table.rearm(slot);
                return self.report(out);
            }
        }
        let mut allocation = self.table.remove(slot);
        allocation.forget_peers(&mut self.watch);
        self.report(out);
        self.stats.allocations_closed += 1;
        out.event(Event::Closed {
            user: Arc::clone(&allocation.user),
            secret: allocation.secret,
            five_tuple: allocation.five_tuple,
            relayed: allocation.relayed().collect(),
            sent: allocation.sent,
            received: allocation.received,
            lived: now.instant.saturating_duration_since(allocation.opened),
            reason,
        });
    }

    /// Gives the shell the events of permissions and channels that were kept.
    fn report<'a>(&mut self, out: &mut impl Output<'a, R::Socket>) {
        for event in self.watch.take() {
            out.event(event);
        }
    }

    /// Whether payloads that are alike are judged together. Not where a rate has to be shared
    /// out: the way out of one relay would use up what the way into the next one needs.
    fn takes_runs(&self) -> bool {
        self.settings.max_rate.is_none() && self.settings.total_rate.is_none()
    }

    fn nanos(&self, now: Now) -> u64 {
        now.instant
            .saturating_duration_since(self.started)
            .as_nanos() as u64
    }
}

/// An address without IPv6 flow and scope, which sockets report and clients do not know.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests;
