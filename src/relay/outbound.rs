//! What a batch wants sent, grouped by socket, destination and size, so that a group leaves as
//! one message of many datagrams (UDP_SEGMENT).
//!
//! Within a flow (same socket, same destination) the order is kept; flows may overtake each other.
//! What goes to clients is copied behind its heads, for one slice costs the kernel less than two a
//! datagram. What goes to peers is borrowed for the life of the receive batch.

use super::engine::{FiveTuple, Run};
use super::listener::Listener;
use super::stats::IoStats;
use super::udp::{MAX_PAYLOAD, Message, RelaySocket, Sender};
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
pub(super) struct Queue<'a> {
    entries: Vec<Entry<'a>>,
    groups: Vec<Group>,
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
    Borrowed(Run<'a>),
}

struct Group {
    flow: Flow,
    exit: Exit,
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

enum Exit {
    Listener(usize),
    Relay(Rc<RelaySocket>),
}

impl<'a> Queue<'a> {
    /// Makes an empty queue; `merge` tells whether several datagrams may leave as one message.
    pub(super) fn new(merge: bool) -> Self {
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
    pub(super) fn recycle<'b>(self) -> Queue<'b> {
        Queue {
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

    /// Tells whether it is time to flush.
    pub(super) fn is_full(&self) -> bool {
        self.datagrams >= FULL || self.copied.len() >= FULL_BYTES
    }

    /// Queues `payloads`, each between `head` and `padding` zeroes, for a client of a listener,
    /// which comes with its index.
    pub(super) fn push_for_client(
        &mut self,
        (index, listener): (usize, &Listener),
        to: &FiveTuple,
        head: &[u8],
        payloads: Run<'a>,
        padding: usize,
    ) {
        let flow = Flow {
            fd: listener.as_fd().as_raw_fd(),
            to: to.client,
            source: listener.source(to.server),
            dont_fragment: false,
        };
        let length = head.len() + payloads.length() + padding;
        let copy = |copied: &mut Vec<u8>, payloads: Run<'a>| {
            let start = copied.len();
            for payload in payloads.payloads() {
                copied.extend_from_slice(head);
                copied.extend_from_slice(payload);
                copied.extend_from_slice(&ZEROES[..padding]);
            }
            Part::Copied(start..copied.len())
        };
        self.push(flow, length, payloads, || Exit::Listener(index), copy);
    }

    /// Queues `payloads` for a peer.
    pub(super) fn push_for_peer(
        &mut self,
        socket: &Rc<RelaySocket>,
        to: SocketAddr,
        payloads: Run<'a>,
        dont_fragment: bool,
    ) {
        let flow = Flow {
            fd: socket.as_fd().as_raw_fd(),
            to,
            source: None,
            dont_fragment,
        };
        let exit = || Exit::Relay(Rc::clone(socket));
        let borrow = |_: &mut Vec<u8>, payloads| Part::Borrowed(payloads);
        self.push(flow, payloads.length(), payloads, exit, borrow);
    }

    /// Queues datagrams of `length` bytes, in as many groups as they take.
    fn push(
        &mut self,
        flow: Flow,
        length: usize,
        payloads: Run<'a>,
        exit: impl Fn() -> Exit,
        part: impl Fn(&mut Vec<u8>, Run<'a>) -> Part<'a>,
    ) {
        let slot = flow.slot();
        let mut rest = Some(payloads);
        while let Some(run) = rest {
            let entry = self.entries.len() as u32;
            // A slot that another flow has taken since hides a group.
            let latest = self.groups.get_mut(self.latest[slot] as usize);
            let (group, room) = match latest.filter(|group| group.flow == flow) {
                Some(group) if group.room(length) > 0 => {
                    self.entries[group.last as usize].next = entry;
                    let room = group.room(length);
                    (group, room)
                }
                _ => {
                    self.latest[slot] = self.groups.len() as u32;
                    self.groups.push(Group::new(flow, exit(), length, entry));
                    let group = self.groups.last_mut().expect("just pushed");
                    let room = if self.merge { group.room(length) } else { 1 };
                    // What is too long for any message is the kernel's to refuse.
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
    pub(super) fn flush(
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
            let socket = match &groups[run[0] as usize].exit {
                Exit::Listener(index) => listeners[*index].as_fd(),
                Exit::Relay(socket) => {
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

impl Group {
    fn new(flow: Flow, exit: Exit, segment: usize, entry: u32) -> Self {
        Self {
            flow,
            exit,
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
    group: &Group,
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
mod tests {
    use super::*;
    use crate::relay::engine::Transport;
    use crate::relay::listener::group;
    use crate::relay::udp::Offload;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::UdpSocket;

    /// Everything that reached `receivers`, by receiver and sender, in order of arrival.
    type Seen = HashMap<(usize, SocketAddr), Vec<Vec<u8>>>;

    #[derive(Debug, Clone)]
    struct Step {
        receiver: usize,
        relay: Option<usize>,
        head: usize,
        length: usize,
        padding: usize,
    }

    fn step() -> impl Strategy<Value = Step> {
        (
            0_usize..3,
            prop::option::of(0_usize..2),
            prop_oneof![Just(4_usize), Just(40)],
            prop_oneof![Just(0_usize), Just(700), Just(701), 0_usize..900],
            0_usize..4,
        )
            .prop_map(|(receiver, relay, head, length, padding)| Step {
                receiver,
                relay,
                head,
                length,
                padding,
            })
    }

    struct World {
        listeners: Vec<Listener>,
        relays: Vec<Rc<RelaySocket>>,
        receivers: Vec<UdpSocket>,
    }

    impl World {
        fn new() -> Self {
            let local = || UdpSocket::bind("127.0.0.1:0").unwrap();
            let offload = Offload::probe();
            let relay = || RelaySocket::bind("127.0.0.1:0".parse().unwrap(), offload).unwrap();
            Self {
                listeners: group(vec![local()], 1, offload).unwrap().remove(0),
                relays: (0..2).map(|_| Rc::new(relay())).collect(),
                receivers: (0..3).map(|_| local()).collect(),
            }
        }

        fn send(&self, steps: &[Step], bytes: &[u8], merge: bool) -> (Seen, IoStats) {
            let offload = Offload {
                gro: false,
                gso: merge,
            };
            let mut stats = IoStats::default();
            let mut sender = Sender::new(offload);
            let mut queue = Queue::new(merge);
            for (index, step) in steps.iter().enumerate() {
                let to = self.receivers[step.receiver].local_addr().unwrap();
                let payload = Run::from(&bytes[index..index + step.length]);
                match step.relay {
                    Some(relay) => {
                        queue.push_for_peer(&self.relays[relay], to, payload, step.padding == 0);
                    }
                    None => {
                        let five_tuple = FiveTuple {
                            transport: Transport::Udp,
                            client: to,
                            server: self.listeners[0].asked(None),
                        };
                        let head = vec![index as u8; step.head];
                        let listener = (0, &self.listeners[0]);
                        queue.push_for_client(listener, &five_tuple, &head, payload, step.padding);
                    }
                }
            }
            queue.flush(&self.listeners, &mut sender, &mut stats);
            (self.receive(), stats)
        }

        fn receive(&self) -> Seen {
            let mut seen = Seen::new();
            let mut buffer = [0; 2000];
            for (index, receiver) in self.receivers.iter().enumerate() {
                receiver.set_nonblocking(true).unwrap();
                while let Ok((length, from)) = receiver.recv_from(&mut buffer) {
                    let datagrams = seen.entry((index, from)).or_default();
                    datagrams.push(buffer[..length].to_vec());
                }
            }
            seen
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn grouping_changes_neither_datagrams_nor_the_order_within_a_flow(
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let bytes: Vec<u8> = (0..2000).map(|i| (i * 7) as u8).collect();
            let world = World::new();
            let (one_by_one, plain) = world.send(&steps, &bytes, false);
            let (grouped, merged) = world.send(&steps, &bytes, true);
            prop_assert_eq!(one_by_one, grouped);
            prop_assert_eq!((plain.sent, plain.gso_sends), (steps.len() as u64, 0));
            prop_assert_eq!((merged.sent, merged.gso_refused), (steps.len() as u64, 0));
        }
    }

    #[test]
    fn a_batch_inherits_the_memory_of_the_one_before() {
        let entries: Vec<Entry<'static>> = Vec::with_capacity(100);
        let memory = entries.as_ptr() as usize;
        let recycled = recycle(entries);
        assert_eq!(
            (recycled.as_ptr() as usize, recycled.capacity()),
            (memory, 100)
        );
        assert_eq!(recycle_slices(Vec::with_capacity(7)).capacity(), 7);
    }

    #[test]
    fn a_frame_of_equal_datagrams_and_a_shorter_one_is_one_message() {
        let world = World::new();
        let step = |length| Step {
            receiver: 0,
            relay: None,
            head: 4,
            length,
            padding: 0,
        };
        let mut steps = vec![step(700); 8];
        steps.push(step(300));
        let (_, stats) = world.send(&steps, &[1; 2000], true);
        assert_eq!((stats.sent, stats.gso_sends), (9, 1));
        // What follows the shorter one is of the next frame.
        steps.extend(vec![step(700); 3]);
        let (_, stats) = world.send(&steps, &[1; 2000], true);
        assert_eq!((stats.sent, stats.gso_sends), (12, 2));
    }
}
