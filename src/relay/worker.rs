//! One thread: its engine, its sockets, its turn of the event loop. No lock on the packet path.
//!
//! A turn waits for events, reads the clock, lets the engine see everything that has come in,
//! and sends what the engine wants sent. Other threads reach a worker through its [`Mailbox`] only.

mod mail;

use super::coalesce::Coalescing;
use super::engine::{
    Engine, FiveTuple, Now, OpenError, RelayKey, RelaySockets, Settings, Transport, WorkerId,
};
use super::exits::{Exits, Out};
use super::framing::Deframer;
use super::ledger::Ledger;
use super::listener::Listener;
use super::mailbox::Mailbox;
use super::readiness::{self, Readiness};
use super::source::Source;
use super::stream::{Input, NewStream, ReadBuffers, Rest, StreamKey, Streams};
use super::udp::{Arena, BATCH, Offload, RelaySocket, Round};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::thread::set_current_timer_slack;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::net::SocketAddr;
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
pub(super) struct Plan {
    pub(super) id: WorkerId,
    pub(super) settings: Arc<Settings>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) listeners: Vec<Listener>,
    /// By worker.
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) offload: Offload,
    /// The longest pause in which datagrams come together.
    pub(super) coalesce: Duration,
    pub(super) seed: [u8; 32],
    /// Told when the worker ends, however it does.
    pub(super) ended: Arc<Notify>,
}

/// Starts a worker on a thread of its own.
///
/// # Errors
/// The system refuses an epoll instance or a thread.
pub(super) fn start(plan: Plan) -> io::Result<JoinHandle<()>> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let bell = plan.mailboxes[usize::from(plan.id.0)].bell();
    watch(&epoll, bell, Source::Bell, EventFlags::IN | EventFlags::ET)?;
    thread::Builder::new()
        .name(format!("relay-{}", plan.id.0))
        .spawn(move || {
            let _end = End {
                mailboxes: Arc::clone(&plan.mailboxes),
                id: plan.id,
                ended: Arc::clone(&plan.ended),
            };
            Worker::new(plan, Rc::new(epoll)).run();
        })
}

/// Closes a worker's mailbox and tells of its end, however the worker ends.
struct End {
    mailboxes: Arc<[Mailbox]>,
    id: WorkerId,
    ended: Arc<Notify>,
}

impl Drop for End {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("relay worker {} ends by a panic", self.id.0);
        }
        self.mailboxes[usize::from(self.id.0)].close();
        self.ended.notify_one();
    }
}

fn stream_token(key: StreamKey) -> u64 {
    Source::Stream(key).to_token()
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, source: Source, flags: EventFlags) -> io::Result<()> {
    let data = EventData::new_u64(source.to_token());
    Ok(epoll::add(epoll, fd, data, flags)?)
}

/// Opens relay sockets that are waited for together with everything else.
struct Relays {
    epoll: Rc<OwnedFd>,
    offload: Offload,
}

impl RelaySockets for Relays {
    type Socket = Rc<RelaySocket>;

    fn open(&mut self, address: SocketAddr, key: RelayKey) -> Result<Rc<RelaySocket>, OpenError> {
        let socket = RelaySocket::bind(address, self.offload).map_err(open_error)?;
        watch(&self.epoll, &socket, Source::Relay(key), EventFlags::IN).map_err(open_error)?;
        Ok(Rc::new(socket))
    }
}

fn open_error(error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => OpenError::PortHeld,
        Some(libc::EMFILE | libc::ENFILE) => OpenError::NoDescriptor,
        _ => OpenError::Other(error),
    }
}

struct Worker {
    id: WorkerId,
    epoll: Rc<OwnedFd>,
    engine: Engine<Relays>,
    exits: Exits,
    arena: Arena,
    buffers: ReadBuffers,
    mailboxes: Arc<[Mailbox]>,
    offload: Offload,
    coalescing: Coalescing,
    /// Counts turns of the loop.
    turn: u32,
    /// Messages and reads of streams in this turn.
    heard: u32,
    /// Whether something is known to wait at the end of this turn.
    more: bool,
    /// Whether this turn follows a pause, in which datagrams have come together.
    paused: bool,
}

impl Worker {
    fn new(plan: Plan, epoll: Rc<OwnedFd>) -> Self {
        let now = Instant::now();
        let relays = Relays {
            epoll: Rc::clone(&epoll),
            offload: plan.offload,
        };
        Self {
            id: plan.id,
            engine: Engine::new(plan.id, plan.settings, plan.ledger, relays, plan.seed, now),
            exits: Exits::new(
                plan.listeners,
                Streams::new(Rc::clone(&epoll), stream_token),
                Arc::clone(&plan.mailboxes),
                plan.offload,
            ),
            epoll,
            arena: Arena::new(),
            buffers: ReadBuffers::new(),
            mailboxes: plan.mailboxes,
            offload: plan.offload,
            coalescing: Coalescing::new(plan.coalesce, now),
            turn: 0,
            heard: 0,
            more: false,
            paused: false,
        }
    }

    fn run(mut self) {
        // A pause is over when it is over, not up to 50 µs later.
        let _ = set_current_timer_slack(NonZero::new(1));
        let epoll = Rc::clone(&self.epoll);
        let listeners = Rc::clone(&self.exits.listeners);
        let mut readiness = Readiness::new(&epoll, &listeners);
        let mut done = Instant::now();
        loop {
            let timeout = self.timeout(done);
            let ready = match readiness.wait(self.exits.passed, timeout.as_ref()) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!("relay worker {} ends: epoll: {error}", self.id.0);
                    return;
                }
            };
            let now = read_clocks();
            self.heard = 0;
            self.more = ready.len() >= readiness::EVENTS;
            if !self.turn(now, ready) {
                return;
            }
            done = Instant::now();
            let pause = self.coalescing.after(now.instant, done, self.heard);
            // What is known to wait has waited already.
            let pause = pause.filter(|_| !self.more);
            self.paused = pause.is_some();
            if let Some(pause) = pause {
                self.exits.stats.pauses += 1;
                thread::sleep(pause);
                done = Instant::now();
            }
        }
    }

    /// How long nothing is due.
    fn timeout(&self, now: Instant) -> Option<Timespec> {
        let due = [
            self.engine.next_timeout(),
            self.exits.streams.next_deadline(),
            self.exits.journal.next_report(),
        ];
        let due = due.into_iter().flatten().min();
        // What is known to wait may not be told of again.
        let due = if self.more { Some(now) } else { due }?;
        Timespec::try_from(due.saturating_duration_since(now)).ok()
    }

    /// Returns whether to go on.
    fn turn(&mut self, now: Now, ready: &[(Source, EventFlags)]) -> bool {
        self.turn = self.turn.wrapping_add(1);
        self.timers(now);
        self.datagrams(now, ready);
        let mut rung = false;
        for &(source, flags) in ready {
            match source {
                Source::Stream(key) => self.stream(key, flags),
                Source::Bell => rung = true,
                Source::Listener(_) | Source::Relay(_) => {}
            }
        }
        for _ in 0..self.exits.streams.to_read().min(READS_A_TURN) {
            if let Some(key) = self.exits.streams.next_to_read() {
                self.read_stream(now, key);
            }
        }
        let go_on = !rung || self.mail(now);
        while let Some(key) = self.exits.streams.flush(&mut self.exits.stats) {
            self.end_stream(now, key);
        }
        self.more |= self.exits.streams.to_read() > 0;
        self.exits.post();
        go_on
    }

    fn timers(&mut self, now: Now) {
        if self
            .engine
            .next_timeout()
            .is_some_and(|due| due <= now.instant)
        {
            let mut out = self.exits.open(now);
            self.engine.handle_timeout(now, &mut out);
            out.finish();
        }
        while let Some(key) = self.exits.streams.overdue(now.instant) {
            self.exits.stats.streams_refused += 1;
            self.end_stream(now, key);
        }
        if self
            .exits
            .journal
            .next_report()
            .is_some_and(|due| due <= now.instant)
        {
            self.exits.journal.report(now.instant);
        }
    }

    /// Lets the engine see all datagrams that wait, a receive arena at a time.
    fn datagrams(&mut self, now: Now, ready: &[(Source, EventFlags)]) {
        let mut ready = ready
            .iter()
            .copied()
            .filter(|(source, _)| matches!(source, Source::Listener(_) | Source::Relay(_)))
            .peekable();
        while ready.peek().is_some() {
            let mut round = self.arena.round();
            let mut out = self.exits.open(now);
            while round.room() > 0
                && let Some((source, flags)) = ready.next()
            {
                match source {
                    Source::Relay(key) => {
                        let ready = (key, flags, (!self.paused).then_some(self.turn));
                        self.more |= from_relay(&mut self.engine, now, ready, &mut round, &mut out);
                    }
                    Source::Listener(index) => {
                        let index = index as usize;
                        self.more |=
                            from_listener(&mut self.engine, now, index, &mut round, &mut out);
                    }
                    Source::Bell | Source::Stream(_) => {}
                }
            }
            out.finish();
            self.heard += round.used();
        }
    }

    fn stream(&mut self, key: StreamKey, flags: EventFlags) {
        let streams = &mut self.exits.streams;
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
        let Some((five_tuple, limit)) = self.exits.streams.peer(key) else {
            return;
        };
        self.heard += 1;
        let Input { bytes, mut rest } = self.exits.streams.read(key, &mut self.buffers);
        let mut out = self.exits.open(now);
        let mut deframer = Deframer::new(bytes, limit);
        loop {
            match deframer.next_message() {
                Ok(Some(message)) => {
                    self.engine
                        .from_client(now, &five_tuple, message.into(), &mut out);
                }
                Ok(None) => break,
                Err(_) => {
                    out.exits.stats.streams_refused += 1;
                    rest = Rest::Never;
                    break;
                }
            }
        }
        out.exits.streams.keep(key, deframer.rest());
        out.finish();
        match rest {
            Rest::Later => {}
            Rest::Now => self.exits.streams.readable(key),
            Rest::Never => self.end_stream(now, key),
        }
    }

    fn end_stream(&mut self, now: Now, key: StreamKey) {
        if let Some(five_tuple) = self.exits.streams.remove(key) {
            self.exits.stats.streams_closed += 1;
            let mut out = self.exits.open(now);
            self.engine.client_closed(now, &five_tuple, &mut out);
            out.finish();
        }
    }

    fn take_stream(&mut self, now: Now, new: NewStream) {
        // Its old socket is dead, or the client could not have come again.
        if let Some(old) = self.exits.streams.find(&new.five_tuple) {
            self.end_stream(now, old);
        }
        if let Some(oldest) = self.exits.streams.surplus(new.five_tuple.client.ip()) {
            self.exits.stats.streams_refused += 1;
            self.end_stream(now, oldest);
        }
        match self.exits.streams.insert(new, now.instant) {
            Ok(key) => {
                self.exits.stats.streams_opened += 1;
                // What was read before it came here is not waited for.
                self.exits.streams.readable(key);
            }
            Err(error) => tracing::warn!("cannot take over a relay connection: {error}"),
        }
    }
}

/// Returns whether more may wait.
fn from_listener<'a>(
    engine: &mut Engine<Relays>,
    now: Now,
    index: usize,
    round: &mut Round<'a>,
    out: &mut Out<'_, 'a>,
) -> bool {
    let room = round.room();
    let batch = round.receive(&out.exits.listeners[index], BATCH);
    let Ok(batch) = batch.inspect_err(|error| out.exits.stats.not_received(error)) else {
        return false;
    };
    let more = batch.len() == room;
    out.exits.passed += batch.len() as u64;
    for received in batch {
        let five_tuple = FiveTuple {
            transport: Transport::Udp,
            client: received.from,
            server: out.exits.listeners[index].asked(received.local),
        };
        out.exits.stats.received += received.datagrams.count() as u64;
        engine.from_client(now, &five_tuple, received.datagrams, out);
    }
    more
}

/// As [`from_listener`]. Without the number of the turn, a batch is asked for.
fn from_relay<'a>(
    engine: &mut Engine<Relays>,
    now: Now,
    (key, flags, turn): (RelayKey, EventFlags, Option<u32>),
    round: &mut Round<'a>,
    out: &mut Out<'_, 'a>,
) -> bool {
    // Gone since the event was reported: nobody waits for what it has received.
    let Some(socket) = engine.socket(key).map(Rc::clone) else {
        return false;
    };
    if flags.contains(EventFlags::ERR) {
        for error in std::iter::from_fn(|| socket.take_icmp_error()).take(ICMP_A_TURN) {
            out.exits.stats.icmp_errors += 1;
            let icmp = (error.kind, error.code);
            engine.peer_unreachable(now, key, error.peer, icmp, error.data, out);
        }
    }
    if !flags.contains(EventFlags::IN) {
        return false;
    }
    let room = round.room();
    let limit = turn.map_or(BATCH, |turn| socket.appetite(turn));
    let batch = round.receive(&*socket, limit);
    let Ok(batch) = batch.inspect_err(|error| out.exits.stats.not_received(error)) else {
        return false;
    };
    let more = batch.len() == room;
    for received in batch {
        out.exits.stats.received += received.datagrams.count() as u64;
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
