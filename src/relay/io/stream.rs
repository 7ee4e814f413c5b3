//! TCP and TLS clients of one worker: reading, framing, bounded output, deadlines.
//!
//! Moves bytes and knows when a connection has to go; what messages say is the engine's. A client
//! that reads too slowly loses datagrams, and delays nobody. Memory is borrowed while there is
//! something to read or write; an idle connection holds none.

mod handover;
mod input;
mod outbox;
mod waiting;

pub(in crate::relay) use handover::StreamSnapshot;
pub(in crate::relay) use input::{Input, ReadBuffers, ReadState};

use crate::relay::engine::{FiveTuple, Transport};
use crate::relay::framing::MAX_MESSAGE;
use crate::relay::stats::IoStats;
use outbox::{Outbox, Pool, Written};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustls::ServerConnection;
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use waiting::Waiting;

/// How long a connection may live without an allocation: an honest client has one after a few
/// round trips.
const ALLOCATION_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a message before there is an allocation, when only requests make sense.
const MAX_EARLY_MESSAGE: usize = 4096;
/// Unsent bytes in the kernel after which a socket counts as full: old media is worth nothing.
const UNSENT: u32 = 128 << 10;

/// The events that epoll reports, each once (edge-triggered): epoll need not check again whether they were
/// handled.
const WATCHED: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// What a connection holds for as long as it lives.
pub type Place = Box<dyn Send>;

/// A connection on its way to a worker.
pub(in crate::relay) struct NewStream {
    pub(in crate::relay) five_tuple: FiveTuple,
    pub(in crate::relay) socket: TcpStream,
    pub(in crate::relay) tls: Option<Box<ServerConnection>>,
    /// What the connection holds for as long as it lives.
    pub(in crate::relay) place: Option<Place>,
    /// Bytes that were read from it already.
    pub(in crate::relay) prefix: Vec<u8>,
}

/// Names a connection in events by its slot and by a generation, which differs between successive
/// connections of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::relay) struct StreamKey {
    pub(in crate::relay) slot: u32,
    /// 24 bits, as many as an event has room for.
    pub(in crate::relay) generation: u32,
}

/// The connections of one worker.
pub(in crate::relay) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_five_tuple: HashMap<FiveTuple, u32, foldhash::fast::RandomState>,
    /// Connections without an allocation.
    waiting: Waiting,
    /// Connections with something to write, or to end.
    dirty: Vec<u32>,
    /// Connections with something to read: epoll reports it once.
    readable: VecDeque<StreamKey>,
    pool: Pool,
    epoll: Rc<OwnedFd>,
    /// Names a connection to epoll.
    token: fn(StreamKey) -> u64,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    stream: Option<Stream>,
}

struct Stream {
    five_tuple: FiveTuple,
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    _place: Option<Place>,
    /// The front of a message whose rest is still to come.
    partial: Vec<u8>,
    outbox: Outbox,
    deadline: Option<Instant>,
    /// The client has closed its side, or the connection is broken. Both are handled after everything that
    /// was read before.
    hung_up: bool,
    /// The socket was full: epoll reports when it has room.
    has_been_full: bool,
    waits_for_room: bool,
    dirty: bool,
    readable: bool,
}

impl Streams {
    pub(in crate::relay) fn new(epoll: Rc<OwnedFd>, token: fn(StreamKey) -> u64) -> Self {
        Self {
            slots: vec![],
            free: vec![],
            by_five_tuple: HashMap::default(),
            waiting: Waiting::default(),
            dirty: vec![],
            readable: VecDeque::new(),
            pool: Pool::default(),
            epoll,
            token,
        }
    }

    pub(in crate::relay) fn len(&self) -> usize {
        self.by_five_tuple.len()
    }

    /// The connection between `five_tuple`, if there is one.
    pub(in crate::relay) fn find(&self, five_tuple: &FiveTuple) -> Option<StreamKey> {
        let slot = *self.by_five_tuple.get(five_tuple)?;
        let generation = self.slots[slot as usize].generation;
        Some(StreamKey { slot, generation })
    }

    /// The connection without an allocation that has to go where one more of `client` would be too
    /// many.
    pub(in crate::relay) fn surplus(&self, client: IpAddr) -> Option<StreamKey> {
        let slot = self.waiting.surplus(client)?;
        let generation = self.slots[slot as usize].generation;
        Some(StreamKey { slot, generation })
    }

    /// Takes a connection over; its five-tuple has none.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(in crate::relay) fn insert(
        &mut self,
        new: NewStream,
        now: Instant,
    ) -> io::Result<StreamKey> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let generation = self.slots[slot as usize].generation;
        let key = StreamKey { slot, generation };
        // Both only make it better.
        let _ = new.socket.set_nodelay(true);
        let _ = SockRef::from(&new.socket).set_tcp_notsent_lowat(UNSENT);
        let data = EventData::new_u64((self.token)(key));
        if let Err(error) = epoll::add(&*self.epoll, &new.socket, data, WATCHED) {
            self.free.push(slot);
            return Err(error.into());
        }
        let deadline = now + ALLOCATION_DEADLINE;
        self.by_five_tuple.insert(new.five_tuple, slot);
        self.waiting
            .insert(new.five_tuple.client.ip(), deadline, slot);
        self.slots[slot as usize].stream = Some(Stream {
            five_tuple: new.five_tuple,
            socket: new.socket,
            tls: new.tls,
            _place: new.place,
            partial: new.prefix,
            outbox: Outbox::default(),
            deadline: Some(deadline),
            hung_up: false,
            has_been_full: false,
            waits_for_room: false,
            dirty: false,
            readable: false,
        });
        Ok(key)
    }

    /// Forgets a connection and closes it.
    pub(in crate::relay) fn remove(&mut self, key: StreamKey) -> Option<FiveTuple> {
        self.get_mut(key)?;
        let slot = &mut self.slots[key.slot as usize];
        slot.generation = (slot.generation + 1) & 0x00ff_ffff;
        let mut stream = slot.stream.take()?;
        stream.say_goodbye(&mut self.pool);
        self.pool.put(stream.outbox);
        let five_tuple = stream.five_tuple;
        if let Some(deadline) = stream.deadline {
            self.waiting
                .remove(five_tuple.client.ip(), deadline, key.slot);
        }
        self.free.push(key.slot);
        self.by_five_tuple.remove(&five_tuple);
        Some(five_tuple)
    }

    /// Whose connection it is, and the longest message that it may send.
    pub(in crate::relay) fn peer(&mut self, key: StreamKey) -> Option<(FiveTuple, usize)> {
        let stream = self.get_mut(key)?;
        let limit = match stream.deadline {
            Some(_) => MAX_EARLY_MESSAGE,
            None => MAX_MESSAGE,
        };
        Some((stream.five_tuple, limit))
    }

    /// Reads what waits, behind what an earlier read left over.
    pub(in crate::relay) fn read<'b>(
        &mut self,
        key: StreamKey,
        buffers: &'b mut ReadBuffers,
    ) -> Input<'b> {
        let Some(stream) = self.get_mut(key) else {
            return Input {
                bytes: &[],
                rest: ReadState::Eof,
            };
        };
        let mut input = buffers.read(
            &stream.partial,
            &mut stream.socket,
            stream.tls.as_deref_mut(),
        );
        if input.rest == ReadState::Blocked && stream.hung_up {
            input.rest = ReadState::MoreAvailable;
        }
        let answers = stream.tls.as_ref().is_some_and(|tls| tls.wants_write());
        if answers && !stream.waits_for_room {
            self.mark(key.slot);
        }
        input
    }

    /// Notes that there is something to read of a connection, or more than was read.
    pub(in crate::relay) fn readable(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key)
            && !std::mem::replace(&mut stream.readable, true)
        {
            self.readable.push_back(key);
        }
    }

    /// Notes that there is an end behind what is still to be read of a connection.
    pub(in crate::relay) fn hung_up(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            stream.hung_up = true;
        }
    }

    /// How many connections are to be read.
    pub(in crate::relay) fn to_read(&self) -> usize {
        self.readable.len()
    }

    /// The connection to read next.
    pub(in crate::relay) fn next_to_read(&mut self) -> Option<StreamKey> {
        let key = self.readable.pop_front()?;
        if let Some(stream) = self.get_mut(key) {
            stream.readable = false;
        }
        Some(key)
    }

    /// Keeps the front of a message until its rest arrives.
    pub(in crate::relay) fn keep(&mut self, key: StreamKey, rest: &[u8]) {
        if let Some(stream) = self.get_mut(key) {
            // A new vector rather than a kept one: most reads end where a message ends, and an
            // idle connection holds no memory.
            stream.partial = rest.to_vec();
        }
    }

    /// Queues one message of the engine. Returns whether it was taken.
    pub(in crate::relay) fn push(
        &mut self,
        to: &FiveTuple,
        head: &[u8],
        payload: &[u8],
        padding: usize,
        is_reply: bool,
    ) -> bool {
        let Some(&slot) = self.by_five_tuple.get(to) else {
            return false;
        };
        let Some(stream) = &mut self.slots[slot as usize].stream else {
            return false;
        };
        let taken = stream
            .outbox
            .push(&mut self.pool, [head, payload], padding, is_reply);
        if !stream.waits_for_room || stream.outbox.is_overrun() {
            self.mark(slot);
        }
        taken
    }

    /// Notes that the client of a connection has an allocation, or has none any more.
    pub(in crate::relay) fn set_allocation(
        &mut self,
        five_tuple: &FiveTuple,
        lives: bool,
        now: Instant,
    ) {
        let Some(key) = self.find(five_tuple) else {
            return;
        };
        let Some(stream) = self.slots[key.slot as usize].stream.as_mut() else {
            return;
        };
        let deadline = (!lives).then_some(now + ALLOCATION_DEADLINE);
        let client = five_tuple.client.ip();
        if let Some(old) = std::mem::replace(&mut stream.deadline, deadline) {
            self.waiting.remove(client, old, key.slot);
        }
        if let Some(deadline) = deadline {
            self.waiting.insert(client, deadline, key.slot);
        }
    }

    /// When the next connection has waited too long for an allocation.
    pub(in crate::relay) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first().map(|(deadline, _)| deadline)
    }

    /// A connection that has waited too long.
    pub(in crate::relay) fn overdue(&self, now: Instant) -> Option<StreamKey> {
        let (deadline, slot) = self.waiting.first()?;
        let generation = self.slots[slot as usize].generation;
        (deadline <= now).then_some(StreamKey { slot, generation })
    }

    /// The socket of `key` has room.
    pub(in crate::relay) fn writable(&mut self, key: StreamKey) {
        if self
            .get_mut(key)
            .is_some_and(|stream| stream.waits_for_room)
        {
            self.mark(key.slot);
        }
    }

    /// Writes what is queued, as far as sockets take it. Returns a connection that has to end, as
    /// long as there is one.
    pub(in crate::relay) fn flush(&mut self, stats: &mut IoStats) -> Option<StreamKey> {
        while let Some(slot) = self.dirty.pop() {
            let generation = self.slots[slot as usize].generation;
            let Some(stream) = &mut self.slots[slot as usize].stream else {
                continue;
            };
            stream.dirty = false;
            let key = StreamKey { slot, generation };
            let overrun = stream.outbox.is_overrun();
            let written = match overrun {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => stream.write(&mut self.pool),
            };
            match written {
                Ok(written) => stream.waits_for_room = written == Written::Part,
                Err(_) => {
                    stats.streams_refused += u64::from(overrun);
                    return Some(key);
                }
            }
            if !stream.waits_for_room {
                self.pool.put(std::mem::take(&mut stream.outbox));
            } else if !std::mem::replace(&mut stream.has_been_full, true) {
                // Told of room from the beginning, epoll would report it whenever something has
                // come and been read between two of its reports.
                let data = EventData::new_u64((self.token)(key));
                let told = WATCHED | EventFlags::OUT;
                if epoll::modify(&*self.epoll, &stream.socket, data, told).is_err() {
                    return Some(key);
                }
            }
        }
        None
    }

    fn mark(&mut self, slot: u32) {
        if let Some(stream) = &mut self.slots[slot as usize].stream
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.stream
            .as_mut()
            .filter(|_| slot.generation == key.generation)
    }
}

impl Stream {
    /// Writes what is queued, as far as the socket takes it.
    fn write(&mut self, pool: &mut Pool) -> io::Result<Written> {
        let waiting = self.outbox.waiting();
        let written = match &mut self.tls {
            None => self.outbox.write(&mut self.socket),
            Some(tls) => self.outbox.write_tls(tls, &mut self.socket),
        };
        pool.written(waiting - self.outbox.waiting());
        written
    }

    /// Gives the last replies, and ends TLS properly, if that takes no waiting.
    fn say_goodbye(&mut self, pool: &mut Pool) {
        if self.outbox.is_overrun() {
            return;
        }
        let written = self.write(pool);
        if let (Some(tls), Ok(Written::All)) = (&mut self.tls, written) {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
    }
}

impl NewStream {
    /// The five-tuple of a connection, IPv4-mapped IPv6 unwrapped.
    pub(in crate::relay) fn five_tuple(
        tls: bool,
        client: SocketAddr,
        server: SocketAddr,
    ) -> FiveTuple {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        FiveTuple {
            transport: if tls { Transport::Tls } else { Transport::Tcp },
            client: plain(client),
            server: plain(server),
        }
    }
}

#[cfg(test)]
mod tests;
