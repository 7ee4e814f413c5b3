//! What a batch wants sent, grouped by socket, destination and size, so that a group leaves as
//! one message of many datagrams (UDP_SEGMENT).
//!
//! Within a flow (same socket, same destination) the order is kept; flows may overtake each other.
//! What goes to clients is copied behind its heads, for one slice costs the kernel less than two a
//! datagram. What goes to peers is borrowed for the life of the receive batch.

use super::listener::Listener;
use super::udp::{MAX_PAYLOAD, Message, RelaySocket, Sender};
use crate::relay::engine::{FiveTuple, PayloadRun};
use crate::relay::stats::IoStats;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

/// Datagrams in one message: UDP_MAX_SEGMENTS of Linux before 6.9 (128 since).
const MAX_SEGMENTS: usize = 64;
/// Datagrams after which a queue is flushed before its batch ends: as many as a few full
/// super-datagrams hold.
const FULL: usize = 1024;
/// Bytes of copies after which a queue is flushed: what a second-level cache holds with room to
/// spare.
const FULL_BYTES: usize = 256 << 10;
/// Slots of the table that finds the latest group of a flow. A collision costs a merge, nothing
/// else.
const FLOWS: usize = 256;
const NONE: u32 = u32::MAX;
const ZEROES: [u8; 4] = [0; 4];

/// Datagrams that wait for the end of their batch.
pub(in crate::relay) struct SendQueue<'a> {
    entries: Vec<Entry<'a>>,
    groups: Vec<GsoGroup>,
    copied: Vec<u8>,
    datagrams: usize,
    latest: Box<[u32; FLOWS]>,
    order: Vec<u32>,
    messages: Vec<Message>,
    slices: Vec<IoSlice<'static>>,
    /// Whether groups of more than one datagram may be built.
    merge: bool,
}

/// Datagrams of one length, and where their group goes on.
struct Entry<'a> {
    part: Part<'a>,
    next: u32,
}

enum Part<'a> {
    /// Where in `copied` they lie back to back.
    Copied(Range<usize>),
    Borrowed(PayloadRun<'a>),
}

struct GsoGroup {
    flow: Flow,
    destination: Destination,
    segment: usize,
    bytes: usize,
    datagrams: usize,
    first: u32,
    last: u32,
    /// A shorter datagram has ended it.
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    /// Unique as long as a group holds its socket.
    fd: RawFd,
    to: SocketAddr,
    source: Option<IpAddr>,
    dont_fragment: bool,
}

enum Destination {
    Listener(usize),
    Relay(Rc<RelaySocket>),
}

impl<'a> SendQueue<'a> {
    /// Makes an empty queue; `merge`: whether several datagrams may leave as one message.
    pub(in crate::relay) fn new(merge: bool) -> Self {
        Self {
            entries: vec![],
            groups: vec![],
            copied: vec![],
            datagrams: 0,
            latest: Box::new([NONE; FLOWS]),
            order: vec![],
            messages: vec![],
            slices: vec![],
            merge,
        }
    }

    /// Turns an empty queue into one for another batch, keeping its memory.
    pub(in crate::relay) fn recycle<'b>(self) -> SendQueue<'b> {
        SendQueue {
            entries: recycle(self.entries),
            groups: self.groups,
            copied: self.copied,
            datagrams: self.datagrams,
            latest: self.latest,
            order: self.order,
            messages: self.messages,
            slices: self.slices,
            merge: self.merge,
        }
    }

    /// Whether it is time to flush.
    pub(in crate::relay) fn is_full(&self) -> bool {
        self.datagrams >= FULL || self.copied.len() >= FULL_BYTES
    }

    /// Queues `payloads`, each between `head` and `padding` zeroes, for a client of a listener,
    /// which comes with its index.
    pub(in crate::relay) fn push_for_client(
        &mut self,
        (index, listener): (usize, &Listener),
        to: &FiveTuple,
        head: &[u8],
        payloads: PayloadRun<'a>,
        padding: usize,
    ) {
        let flow = Flow {
            fd: listener.as_fd().as_raw_fd(),
            to: to.client,
            source: listener.source(to.server),
            dont_fragment: false,
        };
        let length = head.len() + payloads.length() + padding;
        let copy = |copied: &mut Vec<u8>, payloads: PayloadRun<'a>| {
            let start = copied.len();
            for payload in payloads.payloads() {
                copied.extend_from_slice(head);
                copied.extend_from_slice(payload);
                copied.extend_from_slice(&ZEROES[..padding]);
            }
            Part::Copied(start..copied.len())
        };
        self.push(
            flow,
            length,
            payloads,
            || Destination::Listener(index),
            copy,
        );
    }

    /// Queues `payloads` for a peer.
    pub(in crate::relay) fn push_for_peer(
        &mut self,
        socket: &Rc<RelaySocket>,
        to: SocketAddr,
        payloads: PayloadRun<'a>,
        dont_fragment: bool,
    ) {
        let flow = Flow {
            fd: socket.as_fd().as_raw_fd(),
            to,
            source: None,
            dont_fragment,
        };
        let destination = || Destination::Relay(Rc::clone(socket));
        let borrow = |_: &mut Vec<u8>, payloads| Part::Borrowed(payloads);
        self.push(flow, payloads.length(), payloads, destination, borrow);
    }

    /// Queues datagrams of `length` bytes, in as many groups as they take.
    fn push(
        &mut self,
        flow: Flow,
        length: usize,
        payloads: PayloadRun<'a>,
        destination: impl Fn() -> Destination,
        part: impl Fn(&mut Vec<u8>, PayloadRun<'a>) -> Part<'a>,
    ) {
        let slot = flow.slot();
        let mut rest = Some(payloads);
        while let Some(run) = rest {
            let entry = self.entries.len() as u32;
            // Another flow may have taken the slot since: then the group is not found.
            let latest = self.groups.get_mut(self.latest[slot] as usize);
            let (group, room) = match latest.filter(|group| group.flow == flow) {
                Some(group) if group.room(length) > 0 => {
                    self.entries[group.last as usize].next = entry;
                    let room = group.room(length);
                    (group, room)
                }
                _ => {
                    self.latest[slot] = self.groups.len() as u32;
                    self.groups
                        .push(GsoGroup::new(flow, destination(), length, entry));
                    let group = self.groups.last_mut().expect("just pushed");
                    let room = if self.merge { group.room(length) } else { 1 };
                    // The kernel refuses a payload that is too long for any message.
                    (group, room.max(1))
                }
            };
            let (chunk, others) = run.split_at(room);
            rest = others;
            let Some(chunk) = chunk else { return };
            group.last = entry;
            group.datagrams += chunk.count();
            group.bytes += chunk.count() * length;
            group.ended = !self.merge || length < group.segment;
            self.datagrams += chunk.count();
            self.entries.push(Entry {
                part: part(&mut self.copied, chunk),
                next: NONE,
            });
        }
    }

    /// Sends everything and forgets it.
    pub(in crate::relay) fn flush(
        &mut self,
        listeners: &[Listener],
        sender: &mut Sender,
        stats: &mut IoStats,
    ) {
        if self.entries.is_empty() {
            return;
        }
        let groups = &self.groups;
        self.order.clear();
        self.order.extend(0..groups.len() as u32);
        if groups.len() > 1 {
            let key = |index: &u32| (groups[*index as usize].flow.fd, *index);
            self.order.sort_unstable_by_key(key);
        }
        let way = |index: &u32| {
            let flow = &groups[*index as usize].flow;
            (flow.fd, flow.dont_fragment)
        };
        let mut slices = recycle_slices(std::mem::take(&mut self.slices));
        for run in self.order.chunk_by(|a, b| way(a) == way(b)) {
            self.messages.clear();
            slices.clear();
            for index in run {
                let group = &groups[*index as usize];
                let first = slices.len();
                lay_out(group, &self.entries, &self.copied, &mut slices);
                self.messages.push(Message {
                    to: group.flow.to,
                    source: group.flow.source,
                    datagrams: group.datagrams,
                    segment: group.segment as u16,
                    slices: first..slices.len(),
                });
            }
            let socket = match &groups[run[0] as usize].destination {
                Destination::Listener(index) => listeners[*index].as_fd(),
                Destination::Relay(socket) => {
                    socket.set_dont_fragment(way(&run[0]).1);
                    socket.as_fd()
                }
            };
            sender.send(socket, &self.messages, &slices, stats);
        }
        self.slices = recycle_slices(slices);
        self.merge = sender.gso();
        self.entries.clear();
        self.groups.clear();
        self.copied.clear();
        self.datagrams = 0;
        self.latest.fill(NONE);
    }
}

impl GsoGroup {
    fn new(flow: Flow, destination: Destination, segment: usize, entry: u32) -> Self {
        Self {
            flow,
            destination,
            segment,
            bytes: 0,
            datagrams: 0,
            first: entry,
            last: entry,
            ended: false,
        }
    }

    /// How many more datagrams of `length` bytes it takes. A shorter one is its last.
    fn room(&self, length: usize) -> usize {
        if self.ended || !(1..=self.segment).contains(&length) {
            return 0;
        }
        let bytes = MAX_PAYLOAD.saturating_sub(self.bytes);
        let most = if length < self.segment {
            1
        } else {
            MAX_SEGMENTS
        };
        (MAX_SEGMENTS - self.datagrams)
            .min(bytes / length)
            .min(most)
    }
}

impl Flow {
    fn slot(&self) -> usize {
        let ip = match self.to.ip() {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(ip) => ip.to_bits() as u32,
        };
        // Fibonacci hashing: the golden ratio's multiples spread neighbours evenly.
        let mixed = (ip ^ u32::from(self.to.port()).rotate_left(16) ^ self.fd as u32)
            .wrapping_mul(0x9e37_79b9);
        mixed as usize >> 24 & (FLOWS - 1)
    }
}

/// Appends the bytes of a group to `slices`, as few as they fit in.
fn lay_out<'s>(
    group: &GsoGroup,
    entries: &[Entry<'s>],
    copied: &'s [u8],
    slices: &mut Vec<IoSlice<'s>>,
) {
    let mut whole = 0..0;
    let mut next = group.first;
    while let Some(entry) = entries.get(next as usize) {
        match &entry.part {
            Part::Copied(range) if range.start == whole.end => whole.end = range.end,
            Part::Copied(range) => {
                let before = std::mem::replace(&mut whole, range.clone());
                slices.extend((!before.is_empty()).then(|| IoSlice::new(&copied[before])));
            }
            Part::Borrowed(payloads) => slices.extend(payloads.payloads().map(IoSlice::new)),
        }
        next = entry.next;
    }
    slices.extend((!whole.is_empty()).then(|| IoSlice::new(&copied[whole])));
}

/// An empty vector of another lifetime in the same memory: collecting in place keeps it.
fn recycle<'b>(mut entries: Vec<Entry<'_>>) -> Vec<Entry<'b>> {
    entries.clear();
    let empty = entries.into_iter().map(|_| unreachable!("it was cleared"));
    empty.collect()
}

/// As [`recycle`].
fn recycle_slices<'b>(mut slices: Vec<IoSlice<'_>>) -> Vec<IoSlice<'b>> {
    slices.clear();
    let empty = slices.into_iter().map(|_| unreachable!("it was cleared"));
    empty.collect()
}

#[cfg(test)]
mod tests;
