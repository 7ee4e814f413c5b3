//! The STUN/TURN server as a state machine: a five-tuple, bytes, a clock reading in; datagrams,
//! relay sockets, events and a next timeout out (RFC 8489, RFC 8656).
//!
//! One engine belongs to one worker. What all workers share is in the
//! [`Ledger`], touched when allocations come and go, never for a packet (one atomic read for a
//! packet between two relays aside). No clock, no socket, no randomness of its own.

mod addr;
mod event;
mod policy;
mod settings;

pub use addr::{Family, FiveTuple, Now, RelayKey, Transport, WorkerId};
pub use event::{AllocationView, CloseReason, Dropped, Event, Flow, Refusal, RefusedByCode, Stats};
pub use policy::{Denial, PeerPolicy, Range, Verdict};
pub use settings::{Quotas, Settings};

use super::ledger::Ledger;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Binds the sockets of leased relay ports.
pub trait RelaySockets {
    /// Whatever the shell sends and receives with; dropping it closes the socket.
    type Socket;

    /// Opens a UDP socket on `address`, whose datagrams come back under `key`.
    ///
    /// # Errors
    /// Where the port is taken (`AddrInUse`: the engine tries another one) or a system limit is
    /// reached.
    fn open(&mut self, address: SocketAddr, key: RelayKey) -> io::Result<Self::Socket>;
}

/// Where the engine's datagrams go. `'a` is the life of the receive batch, so that payloads need
/// no copy.
pub trait Output<'a, S> {
    /// A whole message of the server: a control reply or a Binding response.
    fn reply(&mut self, to: &FiveTuple, message: &[u8]);

    /// Payload for a client: `head` (a ChannelData header or the front of a Data indication),
    /// `payload`, then `padding` (0 to 3) zero bytes. A UDP ChannelData message has none.
    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payload: &'a [u8], padding: usize);

    /// Payload for a peer through the socket of a relayed address.
    fn to_peer(&mut self, from: &S, to: SocketAddr, payload: &'a [u8], dont_fragment: bool);

    /// Payload for a relayed address of another worker, which hands it to its engine with
    /// [`Engine::from_worker`]. `from` is the sender's announced relayed address.
    fn to_worker(&mut self, worker: WorkerId, relay: RelayKey, from: SocketAddr, payload: &'a [u8]);

    /// Something for logs and dashboards.
    fn event(&mut self, event: Event);
}

/// The STUN/TURN server of one worker.
pub struct Engine<R: RelaySockets> {
    id: WorkerId,
    settings: Arc<Settings>,
    ledger: Arc<Ledger>,
    sockets: R,
    stats: Stats,
}

impl<R: RelaySockets> Engine<R> {
    /// Makes an engine without allocations. `seed` feeds everything unpredictable.
    pub fn new(
        id: WorkerId,
        settings: Arc<Settings>,
        ledger: Arc<Ledger>,
        sockets: R,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let _ = (seed, now);
        Self {
            id,
            settings,
            ledger,
            sockets,
            stats: Stats::default(),
        }
    }

    /// Takes one datagram, or one deframed message of a stream, from a client.
    pub fn from_client<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        datagram: &'a [u8],
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let _ = (
            now,
            five_tuple,
            datagram,
            out,
            &self.ledger,
            &mut self.sockets,
            self.id,
        );
    }

    /// Takes one datagram that arrived on the socket of a relayed address.
    pub fn from_peer<'a>(
        &mut self,
        now: Now,
        relay: RelayKey,
        peer: SocketAddr,
        datagram: &'a [u8],
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let _ = (now, relay, peer, datagram, out);
    }

    /// Takes one payload handed over by another worker's [`Output::to_worker`].
    pub fn from_worker<'a>(
        &mut self,
        now: Now,
        relay: RelayKey,
        from: SocketAddr,
        payload: &'a [u8],
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let _ = (now, relay, from, payload, out);
    }

    /// Takes an ICMP error for a datagram that `relay` sent to `peer`. `error_data` is the
    /// next-hop MTU where the error carries one.
    #[allow(clippy::too_many_arguments)]
    pub fn peer_unreachable<'a>(
        &mut self,
        now: Now,
        relay: RelayKey,
        peer: SocketAddr,
        icmp_type: u8,
        icmp_code: u8,
        error_data: u32,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let _ = (now, relay, peer, icmp_type, icmp_code, error_data, out);
    }

    /// Ends the allocation of a stream that closed.
    pub fn client_closed<'a>(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        out: &mut impl Output<'a, R::Socket>,
    ) {
        let _ = (now, five_tuple, out);
    }

    /// The socket behind a live relayed address.
    pub fn socket(&self, relay: RelayKey) -> Option<&R::Socket> {
        let _ = relay;
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Ends what has run out.
    pub fn handle_timeout<'a>(&mut self, now: Now, out: &mut impl Output<'a, R::Socket>) {
        let _ = (now, out);
    }

    /// Ends every allocation of `user` on this worker. New ones are refused by the floor that
    /// [`Ledger::revoke`] sets.
    pub fn revoke<'a>(&mut self, user: &str, now: Now, out: &mut impl Output<'a, R::Socket>) {
        let _ = (user, now, out);
    }

    /// Refuses new allocations from here on; living ones go on.
    pub fn drain(&mut self) {}

    /// Takes a new configuration. Living allocations keep their keys and session ends; their
    /// permissions are judged anew.
    pub fn reconfigure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// The living allocations, in no order.
    pub fn allocations(&self, now: Instant) -> impl Iterator<Item = AllocationView> {
        let _ = now;
        std::iter::empty()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
