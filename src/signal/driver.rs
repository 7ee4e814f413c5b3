//! Owns the [`Hub`] and carries out its effects.
//!
//! One lock guards the hub and the connections' outboxes together: effects reach the outboxes in
//! the order in which the hub gave them, which is what makes a session's frames arrive in order.
//! Nothing is awaited under it. Sessions parse before they take it and write after it.

use super::dialect::{Closing, Outgoing};
use super::hub::{ConnId, Effect, Hub, Input, Now, Settings};
use super::outbox::{Outbox, Pushed, Shares};
use super::reports::Reports;
use crate::auth::credential::{IceIssuer, http_user};
use crate::clock;
use crate::network::{NetworkCounts, network_of};
use crate::protocol::{DialectKind, FrameType};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};

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
}

/// The shared handle to signaling.
pub struct Driver {
    state: Mutex<State>,
    rearm: Notify,
    live: watch::Sender<usize>,
    on_revoke: OnRevoke,
    stats: Stats,
}

/// What the shell counts; the hub counts messages.
#[derive(Debug)]
pub struct Stats {
    /// Seconds from a connection's upgrade to its first `joined` or `registered`.
    pub join_latency: Histogram,
    /// Connections refused before their upgrade.
    pub refused: Counter,
    /// Connections closed because they did not read.
    pub slow_consumers: Counter,
    /// The most bytes that ever waited for one connection.
    pub outbox_high_water: Gauge,
    /// What clients told of their connections to each other.
    pub reports: Reports,
    dialects: [DialectStats; DialectKind::ALL.len()],
}

/// What is counted of each dialect.
#[derive(Debug, Default)]
pub struct DialectStats {
    /// Open connections.
    pub connections: Gauge,
    /// Messages of clients; the native ones are counted by type alone.
    pub received: Counter,
    /// Events for clients, likewise.
    pub sent: Counter,
}

impl Stats {
    /// What is counted of one dialect.
    pub fn of(&self, dialect: DialectKind) -> &DialectStats {
        &self.dialects[dialect as usize]
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            // From half a millisecond to a minute: the shortest is a box on loopback.
            join_latency: Histogram::new(exponential_buckets(0.000_5, 3.0, 11)),
            refused: Counter::default(),
            slow_consumers: Counter::default(),
            outbox_high_water: Gauge::default(),
            reports: Reports::default(),
            dialects: Default::default(),
        }
    }
}

struct State {
    hub: Hub,
    limits: ConnectionLimits,
    outboxes: HashMap<ConnId, Arc<Outbox>>,
    networks: NetworkCounts,
    /// Bytes that wait for the connections of each network that has some.
    waiting_of: HashMap<IpAddr, Arc<AtomicUsize>>,
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
}

impl Driver {
    /// Starts without rooms or connections.
    pub fn new(
        settings: Settings,
        ice: IceIssuer,
        limits: ConnectionLimits,
        on_revoke: OnRevoke,
    ) -> Self {
        let state = State {
            hub: Hub::new(settings, ice, rand::random()),
            limits,
            outboxes: HashMap::new(),
            networks: NetworkCounts::default(),
            waiting_of: HashMap::new(),
            waiting: Arc::default(),
            effects: vec![],
            sent: SentByType::default(),
            next_conn: 0,
            inputs: 0,
            armed: None,
            draining: false,
        };
        let live = watch::Sender::new(0);
        Self {
            state: Mutex::new(state),
            rearm: Notify::new(),
            live,
            on_revoke,
            stats: Stats::default(),
        }
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
        if state.draining {
            return Err(ConnectError::Draining);
        }
        let total: u32 = state.outboxes.len().try_into().unwrap_or(u32::MAX);
        if total >= state.limits.total {
            return Err(ConnectError::Total);
        }
        let per_ip = state.limits.per_ip;
        if !state.networks.take(client, per_ip) {
            return Err(ConnectError::PerIp);
        }
        let conn = ConnId(state.next_conn);
        state.next_conn += 1;
        let shares = Shares {
            network: Arc::clone(state.waiting_of.entry(network_of(client)).or_default()),
            total: Arc::clone(&state.waiting),
        };
        let outbox = Arc::new(Outbox::new(state.limits.outbox, shares));
        state.outboxes.insert(conn, Arc::clone(&outbox));
        self.live.send_replace(state.outboxes.len());
        self.stats.of(dialect).connections.inc();
        Ok(Admission {
            conn,
            dialect,
            client,
            lobby: None,
            outbox,
            driver: Arc::clone(self),
        })
    }

    /// Takes new limits and settings; connections that exceed a new limit live on.
    pub fn reconfigure(&self, settings: Settings, ice: IceIssuer, limits: ConnectionLimits) {
        let mut state = self.lock();
        state.limits = limits;
        state.hub.reconfigure(settings, ice);
    }

    /// Hands one input to the hub and its effects to the outboxes.
    pub fn input(&self, input: Input) {
        self.with_hub(|hub, now, effects| hub.handle(now, input, effects));
    }

    /// Calls the hub's timers when they are due; ends with the runtime.
    pub async fn run_timers(&self) {
        loop {
            let next = {
                let mut state = self.lock();
                state.armed = state.hub.next_timeout();
                state.armed
            };
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.with_hub(|hub, now, effects| hub.handle_timeout(now, effects)),
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
        let mut state = self.lock();
        state.inputs += 1;
        let input = state.inputs;
        let mut effects = std::mem::take(&mut state.effects);
        let result = call(&mut state.hub, now(), &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send {
                    conn,
                    peer,
                    seq,
                    event,
                } => {
                    state.sent.0[event.kind() as usize] += 1;
                    if let Some(outbox) = state.outboxes.get(&conn) {
                        self.push(input, outbox, Outgoing { peer, seq, event });
                    }
                }
                Effect::Report(report) => self.stats.reports.count(&report),
                Effect::Hold { conn, until } => {
                    if let Some(outbox) = state.outboxes.get(&conn) {
                        outbox.hold(until);
                    }
                }
                Effect::Close { conn, code, reason } => {
                    if let Some(outbox) = state.outboxes.get(&conn) {
                        outbox.close(Closing { code, reason });
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

    fn push(&self, input: u64, outbox: &Outbox, frame: Outgoing) {
        if frame.seq == Some(1)
            && let Some(waited) = outbox.first_entry()
        {
            self.stats.join_latency.observe(waited.as_secs_f64());
        }
        match outbox.push(input, frame) {
            Pushed::Waits(bytes) => {
                let bytes = bytes.try_into().unwrap_or(i64::MAX);
                let high_water = self.stats.outbox_high_water.inner();
                high_water.fetch_max(bytes, Ordering::Relaxed);
            }
            Pushed::Overflowed => {
                self.stats.slow_consumers.inc();
            }
            Pushed::Closed => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection in every count; dropping it gives the place back.
pub struct Admission {
    pub(super) conn: ConnId,
    pub(super) dialect: DialectKind,
    pub(super) client: IpAddr,
    pub(super) lobby: Option<Arc<str>>,
    pub(super) outbox: Arc<Outbox>,
    driver: Arc<Driver>,
}

impl Admission {
    /// Lets the connection wait in a lobby.
    pub fn in_lobby(mut self, lobby: Option<Arc<str>>) -> Self {
        self.lobby = lobby;
        self
    }

    pub(super) fn driver(&self) -> &Driver {
        &self.driver
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.driver.lock();
        state.outboxes.remove(&self.conn);
        state.networks.give_back(self.client);
        let network = network_of(self.client);
        // The table and this outbox hold the count of a network that has no other connection.
        if (state.waiting_of.get(&network)).is_some_and(|count| Arc::strong_count(count) <= 2) {
            state.waiting_of.remove(&network);
        }
        self.driver.live.send_replace(state.outboxes.len());
        self.driver.stats.of(self.dialect).connections.dec();
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
mod tests {
    use super::*;
    use crate::auth::credential::TurnSecrets;
    use std::time::Duration;

    fn driver(per_ip: u32, total: u32) -> Arc<Driver> {
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
            ttl: Duration::from_secs(60),
        };
        let limits = ConnectionLimits {
            per_ip,
            total,
            outbox: 1 << 16,
        };
        Arc::new(Driver::new(
            Settings::default(),
            ice,
            limits,
            Box::new(|_, _, _| {}),
        ))
    }

    #[test]
    fn connections_are_counted_by_source_and_given_back() {
        let driver = driver(2, 3);
        let admit = |ip: &str| driver.admit(ip.parse().unwrap(), DialectKind::Native);
        let first = admit("2001:db8::1").unwrap();
        let _second = admit("2001:db8::ffff").unwrap();
        assert_eq!(admit("2001:db8::2").err(), Some(ConnectError::PerIp));
        let _other = admit("2001:db8:0:1::1").unwrap();
        assert_eq!(admit("192.0.2.1").err(), Some(ConnectError::Total));
        drop(first);
        assert!(admit("2001:db8::2").is_ok());
        drop((_second, _other));
        assert!(driver.lock().waiting_of.is_empty());
        assert!(
            driver.lock().networks.is_empty(),
            "nothing is left of clients that are gone"
        );
    }

    #[test]
    fn a_draining_box_admits_nobody() {
        let driver = driver(2, 3);
        driver.drain(Instant::now(), false);
        let refused = driver
            .admit(IpAddr::from([192, 0, 2, 1]), DialectKind::Native)
            .err();
        assert_eq!(refused, Some(ConnectError::Draining));
    }
}
