//! Owns the [`Hub`] and carries out its effects.
//!
//! One lock guards the hub and the connections' outboxes together: effects reach the outboxes in
//! the order in which the hub gave them, which is what makes a session's frames arrive in order.
//! Nothing is awaited under it. Sessions parse before they take it and write after it.

mod admission;
mod congestion;
mod hand_over;
mod nodes;
mod parking;
mod stats;
mod wall_clock;

use super::dialect::{Closing, Outgoing};
use super::hub::{ConnId, Effect, Hub, Input, Notice, Now, Settings};
use super::id_map::IdMap;
use super::nodes::{NodeId, Nodes, Word};
use super::outbox::{NetworkShare, Outbox, Shares};
use crate::auth::credential::{IceIssuer, http_user};
use crate::clock;
use crate::network::{NetworkCounts, networks_of};
use crate::protocol::{DialectKind, FrameType};
pub use admission::Admission;
use congestion::Congestion;
use hand_over::HandedOver;
pub use hand_over::SignalSnapshot;
use nodes::Links;
pub use nodes::Remote;
pub use parking::LeftBehind;
use parking::Parking;
pub use stats::{DialectStats, Stats};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use wall_clock::WallClock;

/// How many connections there may be, and how much may wait for one.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// From one IPv4 address or IPv6 /64, and more of the networks around the latter
    /// ([`NetworkCounts`]).
    pub per_ip: u32,
    /// In all.
    pub total: u32,
    /// Bytes of frames waiting to be written to one connection.
    pub outbox: usize,
}

/// Frames handed to connections since the start, by type.
#[derive(Debug, Clone, Default)]
pub struct SentByType([u64; FrameType::ALL.len()]);

impl SentByType {
    /// Every type with its count.
    pub fn iter(&self) -> impl Iterator<Item = (FrameType, u64)> {
        FrameType::ALL.iter().copied().zip(self.0)
    }
}

/// Called with a user whose relays must end and the highest expiry minted for it; `None` where that
/// is not known here.
pub type OnRevoke = Box<dyn Fn(&str, Option<u64>, IpAddr) + Send + Sync>;

/// Called under the lock of the hub with each notice.
pub type OnNotice = Box<dyn Fn(Notice) + Send + Sync>;

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// `signal.connections_per_ip`.
    #[error("too many connections from this address")]
    PerIp,
    /// `signal.max_connections`.
    #[error("the box holds as many connections as it may")]
    Total,
    /// The box is shutting down.
    #[error("the box is shutting down")]
    Draining,
    /// `cluster.isolated` is `stop`, and Redis does not answer.
    #[error("this node is without the others: try again")]
    Isolated,
}

/// The shared handle to signaling.
pub struct Driver {
    state: Mutex<State>,
    rearm: Notify,
    parking: Parking,
    live: watch::Sender<usize>,
    on_revoke: OnRevoke,
    on_notice: OnceLock<OnNotice>,
    stats: Stats,
    /// What carries words to other nodes, where there are some.
    nodes: OnceLock<Arc<dyn Nodes>>,
}

struct State {
    hub: Hub,
    limits: ConnectionLimits,
    outboxes: IdMap<ConnId, Arc<Outbox>>,
    networks: NetworkCounts,
    /// What waits for the connections of each network that has some.
    waiting_of: HashMap<(IpAddr, u8), Arc<NetworkShare>>,
    /// Bytes that wait for all connections.
    waiting: Arc<AtomicUsize>,
    /// Kept between calls for its capacity.
    effects: Vec<Effect>,
    sent: SentByType,
    next_conn: u64,
    /// Calls of the hub so far.
    inputs: u64,
    /// When [`Driver::run_timers`] will wake by itself.
    armed: Option<Instant>,
    draining: bool,
    /// Set while a successor may have the hub already.
    handed_over: Option<HandedOver>,
    congestion: Congestion,
    wall_clock: WallClock,
    /// Connections between this node and others.
    links: Option<Box<Links>>,
}

impl State {
    /// The share of the client's network, which knows those of the networks around it.
    fn share_of(&mut self, client: IpAddr) -> Arc<NetworkShare> {
        let mut around: Vec<_> = networks_of(client).collect();
        let mut share = None;
        while let Some((network, times)) = around.pop() {
            let new = || Arc::new(NetworkShare::new(times, share.take()));
            share = Some(Arc::clone(
                self.waiting_of.entry(network).or_insert_with(new),
            ));
        }
        share.unwrap_or_else(|| Arc::new(NetworkShare::new(1, None)))
    }

    /// Forgets the shares that nobody has beside an outbox of `client` that ends.
    fn forget_share_of(&mut self, client: IpAddr) {
        for (network, _) in networks_of(client) {
            // The table has one, and the outbox or the share of the narrower network another.
            let share = self.waiting_of.get(&network);
            if share.is_some_and(|share| Arc::strong_count(share) > 2) {
                return;
            }
            self.waiting_of.remove(&network);
        }
    }
}

impl Driver {
    /// Starts without rooms or connections.
    pub fn new(
        settings: Settings,
        ice: IceIssuer,
        limits: ConnectionLimits,
        on_revoke: OnRevoke,
    ) -> Self {
        let hub = Hub::new(settings, ice, rand::random());
        Self::with(hub, limits, on_revoke)
    }

    fn with(hub: Hub, limits: ConnectionLimits, on_revoke: OnRevoke) -> Self {
        let state = State {
            hub,
            limits,
            outboxes: IdMap::default(),
            networks: NetworkCounts::default(),
            waiting_of: HashMap::new(),
            waiting: Arc::default(),
            effects: vec![],
            sent: SentByType::default(),
            next_conn: 0,
            inputs: 0,
            armed: None,
            draining: false,
            handed_over: None,
            congestion: Congestion::default(),
            wall_clock: WallClock::default(),
            links: None,
        };
        let live = watch::Sender::new(0);
        Self {
            state: Mutex::new(state),
            rearm: Notify::new(),
            parking: Parking::default(),
            live,
            on_revoke,
            on_notice: OnceLock::new(),
            stats: Stats::default(),
            nodes: OnceLock::new(),
        }
    }

    /// Hands every notice to `on_notice` from here on, and to nobody else.
    pub fn notify(&self, on_notice: OnNotice) {
        let _ = self.on_notice.set(on_notice);
    }

    /// Counts a connection in, before its WebSocket exists.
    ///
    /// # Errors
    /// A limit is reached, or the box is shutting down.
    pub fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        dialect: DialectKind,
    ) -> Result<Admission, ConnectError> {
        self.register_connection(client, dialect).inspect_err(|_| {
            self.stats.refused.inc();
        })
    }

    fn register_connection(
        self: &Arc<Self>,
        client: IpAddr,
        dialect: DialectKind,
    ) -> Result<Admission, ConnectError> {
        let mut state = self.lock();
        if state.draining || state.handed_over.is_some() {
            return Err(ConnectError::Draining);
        }
        if self.nodes.get().is_some_and(|nodes| nodes.has_stopped()) {
            return Err(ConnectError::Isolated);
        }
        let total: u32 = state.outboxes.len().try_into().unwrap_or(u32::MAX);
        if total >= state.limits.total {
            return Err(ConnectError::Total);
        }
        let (per_ip, total) = (state.limits.per_ip, state.limits.total);
        if !state.networks.take(client, per_ip, total) {
            return Err(ConnectError::PerIp);
        }
        let conn = ConnId(state.next_conn);
        state.next_conn += 1;
        Ok(self.enter(&mut state, conn, client, dialect))
    }

    /// Gives a connection its outbox; its network is charged already.
    fn enter(
        self: &Arc<Self>,
        state: &mut State,
        conn: ConnId,
        client: IpAddr,
        dialect: DialectKind,
    ) -> Admission {
        let shares = Shares {
            network: state.share_of(client),
            total: Arc::clone(&state.waiting),
        };
        let outbox = Arc::new(Outbox::new(state.limits.outbox, shares));
        state.outboxes.insert(conn, Arc::clone(&outbox));
        self.live.send_replace(state.outboxes.len());
        self.stats.of(dialect).connections.inc();
        Admission {
            conn,
            dialect,
            client,
            lobby: None,
            outbox,
            driver: Arc::clone(self),
        }
    }

    /// Takes new limits and settings; connections that exceed a new limit live on.
    pub fn reconfigure(&self, settings: Settings, ice: IceIssuer, limits: ConnectionLimits) {
        let mut state = self.lock();
        state.limits = limits;
        state.hub.reconfigure(settings, ice);
    }

    /// Hands one input to the hub and its effects to the outboxes.
    pub fn input(&self, input: Input) {
        let mut state = self.lock();
        if let Some(handed_over) = &mut state.handed_over {
            return handed_over.miss(&input);
        }
        let Some(input) = self.route(&mut state, input) else {
            return;
        };
        if let Input::Frame { conn, .. } = &input {
            state.congestion.begin(*conn);
            if let Some(links) = &mut state.links {
                links.sender = Some(*conn);
            }
        }
        self.run(state, |hub, now, effects| hub.handle(now, input, effects));
    }

    /// Calls the hub's timers when they are due; ends with the runtime.
    pub async fn run_timers(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                let is_ours = state.handed_over.is_none() && self.is_open();
                state.armed = state.hub.next_timeout().filter(|_| is_ours);
                state.armed
            };
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {
                    let state = self.lock();
                    if state.handed_over.is_none() && self.is_open() {
                        self.run(state, |hub, now, effects| hub.handle_timeout(now, effects));
                    }
                }
                () = self.rearm.notified() => {}
            }
        }
    }

    /// Refuses newcomers and tells everybody; `grace_ends` is when the rest is closed.
    pub fn drain(&self, grace_ends: Instant, alternate: bool) {
        self.lock().draining = true;
        self.input(Input::Drain {
            grace_ends,
            alternate,
        });
    }

    /// Refuses newcomers, and leaves everybody who is here alone.
    pub fn admit_nobody(&self) {
        self.lock().draining = true;
    }

    /// Closes every connection, each with its goodbye.
    pub fn end(&self) {
        self.lock().draining = true;
        self.with_hub(|hub, now, effects| hub.end_all(now, effects));
    }

    /// Waits until the last connection is gone.
    pub async fn empty(&self) {
        // The sender lives in `self`, so the channel is open.
        let _ = self.live.subscribe().wait_for(|live| *live == 0).await;
    }

    /// Calls the hub with the time and an effect list, and carries out what it asks for.
    pub fn with_hub<T>(&self, call: impl FnOnce(&mut Hub, Now, &mut Vec<Effect>) -> T) -> T {
        self.run(self.lock(), call)
    }

    fn run<T>(
        &self,
        state: MutexGuard<'_, State>,
        call: impl FnOnce(&mut Hub, Now, &mut Vec<Effect>) -> T,
    ) -> T {
        self.run_saying(state, |hub, now, effects| (call(hub, now, effects), None))
    }

    /// As [`Self::run`]; what `call` says to another node goes before what its effects say.
    fn run_saying<T>(
        &self,
        mut state: MutexGuard<'_, State>,
        call: impl FnOnce(&mut Hub, Now, &mut Vec<Effect>) -> (T, Option<(NodeId, Word)>),
    ) -> T {
        state.inputs += 1;
        let input = state.inputs;
        let mut effects = std::mem::take(&mut state.effects);
        let instant = tokio::time::Instant::now().into_std();
        let at = state.wall_clock.at(instant, clock::since_epoch);
        let (result, word) = call(&mut state.hub, at, &mut effects);
        if let (Some(links), Some((node, word))) = (&state.links, word) {
            links.say(node, word);
        }
        let has_handed = self.nodes.get().is_some_and(|nodes| nodes.has_handed());
        for effect in effects.drain(..) {
            match effect {
                // The image has the number for another frame.
                Effect::Send { seq: Some(_), .. } if has_handed => {}
                Effect::Send {
                    conn,
                    peer,
                    seq,
                    event,
                } => {
                    state.sent.0[event.kind() as usize] += 1;
                    let frame = Outgoing { peer, seq, event };
                    if let Some(outbox) = state.outboxes.get(&conn) {
                        let sent = frame.event.cost();
                        let waits = self.push(input, outbox, frame);
                        let capacity = state.limits.outbox;
                        state.congestion.note(conn, sent, waits, capacity);
                    } else if let Some(links) = &mut state.links {
                        links.send(conn, &frame);
                    }
                }
                Effect::Report(report) => self.stats.reports.count(&report),
                Effect::Notice(notice) => {
                    if let Some(on_notice) = self.on_notice.get() {
                        on_notice(*notice);
                    }
                }
                Effect::NoTopic { dialect } => tracing::warn!(
                    dialect = dialect.as_str(),
                    "a subscription found no place: its topic has as many subscribers as rooms.max_peers \
                     allows (200 at least), or its client or network has too many topics"
                ),
                Effect::Hold { conn, until } => {
                    if let Some(outbox) = state.outboxes.get(&conn) {
                        outbox.hold(until);
                    } else if let Some(links) = &mut state.links {
                        links.hold(conn, until.saturating_duration_since(at.instant));
                    }
                }
                Effect::Close { conn, code, reason } => {
                    if let Some(outbox) = state.outboxes.get(&conn) {
                        outbox.close(Closing { code, reason });
                    }
                    if let Some(links) = &mut state.links {
                        links.closed(conn, code, reason);
                    }
                }
                Effect::Revoke {
                    user,
                    revoked_until,
                    network,
                } => {
                    (self.on_revoke)(&user.to_string(), Some(revoked_until), network);
                }
                Effect::RevokeIdentity { identity, network } => {
                    (self.on_revoke)(&http_user(&identity), None, network);
                }
            }
        }
        state.effects = effects;
        state.relieve(at);
        state.flush_links(at.instant);
        let next = state.hub.next_timeout();
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            state.armed = next;
            self.rearm.notify_one();
        }
        result
    }

    /// What the shell counts.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Frames sent, by type.
    pub fn sent(&self) -> SentByType {
        self.lock().sent.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Now {
    Now {
        // The runtime's clock, which a test may hold still or move.
        instant: tokio::time::Instant::now().into_std(),
        unix_ms: clock::unix_now_ms(),
    }
}

#[cfg(test)]
pub(in crate::signal) mod tests;
