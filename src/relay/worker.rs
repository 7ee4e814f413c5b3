//! One thread: its engine, its sockets, its turn of the event loop. No lock on the packet path.
//!
//! A turn waits for events, reads the clock, lets the engine see everything that has come in,
//! and sends what the engine wants sent. Other threads reach a worker through its [`Inbox`] only.

pub(super) mod allocation_log;
mod coalesce;
mod commands;
pub(super) mod give_up;
pub(super) mod handover;
pub(super) mod inbox;
mod sockets;

use super::engine::{Engine, FiveTuple, Now, RelayedKey, Settings, Transport, WorkerId};
use super::framing::Deframer;
use super::io::egress::{Egress, EgressBatch};
use super::io::listener::Listener;
use super::io::poller::{self, Poller};
use super::io::stream::{Input, NewStream, ReadBuffers, ReadState, StreamKey, Streams};
use super::io::token::Token;
use super::io::udp::{BATCH, Offload, RecvBuffers, RecvRound};
use super::shared::SharedState;
use super::worker::coalesce::Coalescing;
use super::worker::give_up::GiveUp;
use super::worker::handover::Inheritance;
use super::worker::inbox::Inbox;
use super::worker::sockets::{EpollRelaySockets, InheritedSockets};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::thread::set_current_timer_slack;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Streams read in one turn, so that they do not starve the datagrams.
const READS_A_TURN: usize = 128;
/// ICMP errors read in one turn from one relayed address.
const ICMP_A_TURN: usize = 16;

/// What a worker is made of.
pub(super) struct WorkerConfig {
    pub(super) id: WorkerId,
    pub(super) settings: Arc<Settings>,
    pub(super) shared: Arc<SharedState>,
    pub(super) listeners: Vec<Listener>,
    /// By worker.
    pub(super) inboxes: Arc<[Inbox]>,
    pub(super) offload: Offload,
    /// The longest pause in which datagrams come together.
    pub(super) coalesce: Duration,
    pub(super) seed: [u8; 32],
    /// Notified when the worker ends, however it does.
    pub(super) ended: Arc<Notify>,
    /// What an earlier process left to this worker.
    pub(super) inherits: Option<Inheritance>,
}

/// Starts a worker on a thread of its own.
///
/// # Errors
/// The system refuses an epoll instance or a thread.
pub(super) fn start(config: WorkerConfig) -> io::Result<JoinHandle<()>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let wakeup = config.inboxes[usize::from(config.id.0)].wakeup();
    watch(
        &epoll,
        wakeup,
        Token::Wakeup,
        EventFlags::IN | EventFlags::ET,
    )?;
    thread::Builder::new()
        .name(format!("relay-{}", config.id.0))
        .spawn(move || {
            let _end = ExitGuard {
                inboxes: Arc::clone(&config.inboxes),
                id: config.id,
                ended: Arc::clone(&config.ended),
            };
            if let Some(worker) = Worker::new(config, Rc::new(epoll)) {
                worker.run();
            }
        })
}

/// Closes a worker's inbox and tells of its end, however the worker ends.
struct ExitGuard {
    inboxes: Arc<[Inbox]>,
    id: WorkerId,
    ended: Arc<Notify>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("relay worker {} ends by a panic", self.id.0);
        }
        self.inboxes[usize::from(self.id.0)].close();
        self.ended.notify_one();
    }
}

fn stream_token(key: StreamKey) -> u64 {
    Token::Stream(key).to_bits()
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
    let data = EventData::new_u64(token.to_bits());
    Ok(epoll::add(epoll, fd, data, flags)?)
}

struct Worker {
    id: WorkerId,
    epoll: Rc<OwnedFd>,
    engine: Engine<EpollRelaySockets>,
    egress: Egress,
    recv_buffers: RecvBuffers,
    buffers: ReadBuffers,
    inboxes: Arc<[Inbox]>,
    offload: Offload,
    coalescing: Coalescing,
    /// Counts turns of the loop.
    turn: u32,
    /// Messages and reads of streams in this turn.
    received: u32,
    /// Whether something is known to wait at the end of this turn.
    more: bool,
    /// When the last turn or pause ended.
    done: Instant,
    /// The pause that is due, unless something has come meanwhile.
    pause: Option<Duration>,
    /// Whether this turn follows a pause, in which datagrams have come together.
    paused: bool,
    /// The order to leave everything to a successor.
    give_up: Option<GiveUp>,
}

impl Worker {
    /// Makes a worker; `None` where what an earlier process left cannot be restored, which the one
    /// who starts the worker learns.
    fn new(mut config: WorkerConfig, epoll: Rc<OwnedFd>) -> Option<Self> {
        let now = Instant::now();
        let inherits = config.inherits.take();
        let servers = config.listeners.iter().map(Listener::address).collect();
        let mut egress = Egress::new(
            config.listeners,
            Streams::new(Rc::clone(&epoll), stream_token),
            Arc::clone(&config.inboxes),
            config.offload,
        );
        let mut relays = EpollRelaySockets {
            epoll: Rc::clone(&epoll),
            offload: config.offload,
            inherited: InheritedSockets::default(),
        };
        let (settings, shared) = (config.settings, config.shared);
        let mut engine = match inherits {
            None => Engine::new(config.id, settings, shared, relays, config.seed, now),
            Some(inheritance) => inheritance.restore(
                |inherited, snapshot, taken| {
                    relays.inherited = inherited;
                    Engine::restore(config.id, settings, shared, relays, snapshot, taken)
                },
                &mut egress,
            )?,
        };
        engine.set_stun_servers(servers);
        Some(Self {
            id: config.id,
            engine,
            egress,
            epoll,
            recv_buffers: RecvBuffers::new(),
            buffers: ReadBuffers::new(),
            inboxes: config.inboxes,
            offload: config.offload,
            coalescing: Coalescing::new(config.coalesce, now),
            turn: 0,
            received: 0,
            more: false,
            done: now,
            pause: None,
            paused: false,
            give_up: None,
        })
    }

    fn run(mut self) {
        // The kernel delays timers by 50 µs to join them; a pause has to end in time.
        let _ = set_current_timer_slack(NonZero::new(1));
        let epoll = Rc::clone(&self.epoll);
        let listeners = Rc::clone(&self.egress.listeners);
        let mut poller = Poller::new(&epoll, &listeners);
        while self.step(&mut poller) {}
        if let Some(order) = self.give_up.take() {
            self.hand_over(order);
        }
    }

    /// Waits, and does what has come; or pauses, where nothing has come since the last turn. Returns
    /// whether to go on.
    fn step(&mut self, poller: &mut Poller<'_>) -> bool {
        let pause = self.pause.take();
        let timeout = match pause {
            // What came during the last turn is not to wait for the end of a pause.
            Some(_) => Some(poller::AT_ONCE),
            None => self.timeout(),
        };
        let ready = match poller.wait(self.egress.listener_datagrams, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!("relay worker {} ends: epoll: {error}", self.id.0);
                return false;
            }
        };
        if let Some(pause) = pause
            && ready.is_empty()
        {
            self.paused = true;
            self.egress.stats.pauses += 1;
            thread::sleep(pause);
            self.done = Instant::now();
            return true;
        }
        let now = read_clocks();
        self.received = 0;
        self.more = ready.len() >= poller::EVENTS;
        if !self.turn(now, ready) {
            return false;
        }
        self.done = Instant::now();
        self.paused = false;
        let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        let pause = self
            .coalescing
            .after(now.instant, self.done, self.received, cpu);
        // Datagrams that are known to wait have waited already: no pause for them.
        self.pause = pause.filter(|_| !self.more);
        true
    }

    /// The time until a timer is due.
    fn timeout(&self) -> Option<Timespec> {
        let now = self.done;
        let due = [
            self.engine.next_timeout(),
            self.egress.streams.next_deadline(),
            self.egress.allocation_log.next_report(),
        ];
        let due = due.into_iter().flatten().min();
        // epoll may not report again what is known to wait.
        let due = if self.more { Some(now) } else { due }?;
        Timespec::try_from(due.saturating_duration_since(now)).ok()
    }

    /// Returns whether to go on.
    fn turn(&mut self, now: Now, ready: &[(Token, EventFlags)]) -> bool {
        self.turn = self.turn.wrapping_add(1);
        self.timers(now);
        self.datagrams(now, ready);
        let mut signalled = false;
        for &(token, flags) in ready {
            match token {
                Token::Stream(key) => self.stream(key, flags),
                Token::Wakeup => signalled = true,
                Token::Listener(_) | Token::Relay(_) => {}
            }
        }
        for _ in 0..self.egress.streams.to_read().min(READS_A_TURN) {
            if let Some(key) = self.egress.streams.next_to_read() {
                self.read_stream(now, key);
            }
        }
        let go_on = !signalled || self.drain_inbox(now);
        while let Some(key) = self.egress.streams.flush(&mut self.egress.stats) {
            self.end_stream(now, key);
        }
        self.more |= self.egress.streams.to_read() > 0;
        self.egress.post();
        go_on
    }

    fn timers(&mut self, now: Now) {
        if self
            .engine
            .next_timeout()
            .is_some_and(|due| due <= now.instant)
        {
            let mut out = self.egress.open(now);
            self.engine.handle_timeout(now, &mut out);
            out.finish();
        }
        while let Some(key) = self.egress.streams.overdue(now.instant) {
            self.egress.stats.streams_refused += 1;
            self.end_stream(now, key);
        }
        if self
            .egress
            .allocation_log
            .next_report()
            .is_some_and(|due| due <= now.instant)
        {
            self.egress.allocation_log.report(now.instant);
        }
    }

    /// Lets the engine see all datagrams that wait, a receive arena at a time.
    fn datagrams(&mut self, now: Now, ready: &[(Token, EventFlags)]) {
        let mut ready = ready
            .iter()
            .copied()
            .filter(|(token, _)| matches!(token, Token::Listener(_) | Token::Relay(_)))
            .peekable();
        while ready.peek().is_some() {
            let mut round = self.recv_buffers.round();
            let mut out = self.egress.open(now);
            while round.room() > 0
                && let Some((token, flags)) = ready.next()
            {
                match token {
                    Token::Relay(key) => {
                        let ready = (key, flags, (!self.paused).then_some(self.turn));
                        self.more |= from_relay(&mut self.engine, now, ready, &mut round, &mut out);
                    }
                    Token::Listener(index) => {
                        let index = index as usize;
                        self.more |=
                            from_listener(&mut self.engine, now, index, &mut round, &mut out);
                    }
                    Token::Wakeup | Token::Stream(_) => {}
                }
            }
            out.finish();
            self.received += round.used();
        }
    }

    fn stream(&mut self, key: StreamKey, flags: EventFlags) {
        let streams = &mut self.egress.streams;
        if flags.contains(EventFlags::OUT) {
            streams.writable(key);
        }
        // A broken connection has hung up as well.
        let hung_up = EventFlags::RDHUP | EventFlags::HUP;
        if flags.intersects(hung_up) {
            streams.hung_up(key);
        }
        if flags.intersects(EventFlags::IN | EventFlags::ERR | hung_up) {
            streams.readable(key);
        }
    }

    fn read_stream(&mut self, now: Now, key: StreamKey) {
        let Some((five_tuple, limit)) = self.egress.streams.peer(key) else {
            return;
        };
        if self.egress.denied.covers(five_tuple.client.ip()) {
            return self.end_stream(now, key);
        }
        self.received += 1;
        let Input { bytes, mut rest } = self.egress.streams.read(key, &mut self.buffers);
        let mut out = self.egress.open(now);
        let mut deframer = Deframer::new(bytes, limit);
        loop {
            match deframer.next_message() {
                Ok(Some(message)) => {
                    self.engine
                        .from_client(now, &five_tuple, message.into(), &mut out);
                }
                Ok(None) => break,
                Err(_) => {
                    out.egress.stats.streams_refused += 1;
                    rest = ReadState::Eof;
                    break;
                }
            }
        }
        out.egress.streams.keep(key, deframer.rest());
        out.finish();
        match rest {
            ReadState::Blocked => {}
            ReadState::MoreAvailable => self.egress.streams.readable(key),
            ReadState::Eof => self.end_stream(now, key),
        }
    }

    fn end_stream(&mut self, now: Now, key: StreamKey) {
        if let Some(five_tuple) = self.egress.streams.remove(key) {
            self.egress.stats.streams_closed += 1;
            let mut out = self.egress.open(now);
            self.engine.client_closed(now, &five_tuple, &mut out);
            out.finish();
        }
    }

    fn take_stream(&mut self, now: Now, new: NewStream) {
        // Its old socket is dead, or the client could not have come again.
        if let Some(old) = self.egress.streams.find(&new.five_tuple) {
            self.end_stream(now, old);
        }
        if let Some(oldest) = self.egress.streams.surplus(new.five_tuple.client.ip()) {
            self.egress.stats.streams_refused += 1;
            self.end_stream(now, oldest);
        }
        match self.egress.streams.insert(new, now.instant) {
            Ok(key) => {
                self.egress.stats.streams_opened += 1;
                // What was read before it came here is not waited for.
                self.egress.streams.readable(key);
            }
            Err(error) => tracing::warn!("cannot take over a relay connection: {error}"),
        }
    }
}

/// Returns whether more may wait.
fn from_listener<'a>(
    engine: &mut Engine<EpollRelaySockets>,
    now: Now,
    index: usize,
    round: &mut RecvRound<'a>,
    out: &mut EgressBatch<'_, 'a>,
) -> bool {
    let room = round.room();
    let batch = round.receive(&out.egress.listeners[index], BATCH);
    let Ok(batch) = batch.inspect_err(|error| out.egress.stats.not_received(error)) else {
        return false;
    };
    let more = batch.len() == room;
    out.egress.listener_datagrams += batch.len() as u64;
    let is_denied = !out.egress.denied.is_empty();
    for received in batch {
        if is_denied && out.egress.denied.covers(received.from.ip()) {
            continue;
        }
        let five_tuple = FiveTuple {
            transport: Transport::Udp,
            client: received.from,
            server: out.egress.listeners[index].asked(received.local),
        };
        out.egress.stats.received += received.datagrams.count() as u64;
        engine.from_client(now, &five_tuple, received.datagrams, out);
    }
    more
}

/// As [`from_listener`]. Without the number of the turn, a batch is asked for.
fn from_relay<'a>(
    engine: &mut Engine<EpollRelaySockets>,
    now: Now,
    (key, flags, turn): (RelayedKey, EventFlags, Option<u32>),
    round: &mut RecvRound<'a>,
    out: &mut EgressBatch<'_, 'a>,
) -> bool {
    // Gone since the event was reported: nobody waits for what it has received.
    let Some(socket) = engine.socket(key).map(Rc::clone) else {
        return false;
    };
    if flags.contains(EventFlags::ERR) {
        for error in std::iter::from_fn(|| socket.take_icmp_error()).take(ICMP_A_TURN) {
            out.egress.stats.icmp_errors += 1;
            let icmp = (error.kind, error.code);
            engine.peer_unreachable(now, key, error.peer, icmp, error.data, out);
        }
    }
    if !flags.contains(EventFlags::IN) {
        return false;
    }
    let room = round.room();
    let limit = turn.map_or(BATCH, |turn| socket.recv_limit(turn));
    let batch = round.receive(&*socket, limit);
    let Ok(batch) = batch.inspect_err(|error| out.egress.stats.not_received(error)) else {
        return false;
    };
    let more = batch.len() == room;
    for received in batch {
        out.egress.stats.received += received.datagrams.count() as u64;
        engine.from_peer(now, key, received.from, received.datagrams, out);
    }
    more
}

fn read_clocks() -> Now {
    // Seconds are all that is wanted of it.
    let unix = clock_gettime(ClockId::RealtimeCoarse);
    Now {
        instant: Instant::now(),
        unix: unix.tv_sec.try_into().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
