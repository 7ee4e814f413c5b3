//! How a worker is reached from other threads: payload from other workers' relays by a lock-free
//! queue, orders of the handle by a locked slip of paper, and one bell for both.

use super::engine::{AllocationView, RelayKey, Run, Settings};
use super::stats::RelayStats;
use super::stream::NewStream;
use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Parcels that wait for a worker. Full: the parcel is dropped and counted, as by a full socket
/// buffer.
const PARCELS: usize = 1024;
/// Bytes that wait for a worker: as a socket buffer of a listener, doubled as the kernel does.
const PARCEL_BYTES: usize = 8 << 20;
/// Empty parcels kept for reuse.
const SPARE_PARCELS: usize = 64;
/// Bytes of memory that a spare parcel may hold on to: a full one, grown by doubling.
const SPARE_BYTES: usize = 256 << 10;
/// Connections that wait to be taken over. Full: the newcomer is closed.
const NEW_STREAMS: usize = 1024;
/// Questions that wait for an answer. Full: the asker gets none.
const QUERIES: usize = 64;

/// Payloads for relays of one worker, in the order in which another one sent them.
#[derive(Default)]
pub(super) struct Parcel {
    letters: Vec<Letter>,
    payloads: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Letter {
    relay: RelayKey,
    from: SocketAddr,
    /// Bytes of all its payloads, which lie back to back.
    bytes: usize,
    payloads: usize,
}

impl Parcel {
    pub(super) fn add(&mut self, relay: RelayKey, from: SocketAddr, payloads: &Run<'_>) {
        self.letters.push(Letter {
            relay,
            from,
            bytes: payloads.count() * payloads.length(),
            payloads: payloads.count(),
        });
        self.payloads += payloads.count();
        for payload in payloads.payloads() {
            self.bytes.extend_from_slice(payload);
        }
    }

    /// Receiver, sender and payloads of each letter.
    pub(super) fn letters(&self) -> impl Iterator<Item = (RelayKey, SocketAddr, Run<'_>)> {
        let mut rest = self.bytes.as_slice();
        self.letters.iter().map(move |letter| {
            let (payloads, others) = rest.split_at(letter.bytes);
            rest = others;
            let run = Run::back_to_back(payloads, letter.payloads);
            (letter.relay, letter.from, run)
        })
    }

    /// Payloads in all letters.
    pub(super) fn len(&self) -> usize {
        self.payloads
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.letters.clear();
        self.payloads = 0;
        self.bytes.clear();
    }
}

/// What the handle wants done. Each part is bounded or merges with what waits already, so that
/// nothing that matters is lost and nobody waits for room.
#[derive(Default)]
pub(super) struct Orders {
    /// Users whose allocations end: a set, so it grows by distinct users between two turns of
    /// the worker only, which are a batch apart.
    pub(super) revoked: HashSet<Arc<str>>,
    pub(super) settings: Option<Arc<Settings>>,
    pub(super) drain: bool,
    pub(super) streams: Vec<NewStream>,
    pub(super) queries: Vec<Query>,
    pub(super) stop: bool,
    closed: bool,
}

/// A question with the way for its answer.
pub(super) enum Query {
    Allocations(oneshot::Sender<Vec<AllocationView>>),
    Stats(oneshot::Sender<RelayStats>),
    /// Whatever a test wants to happen on the worker's thread.
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
}

/// One worker's mailbox.
pub(super) struct Mailbox {
    parcels: ArrayQueue<Parcel>,
    waiting_bytes: AtomicUsize,
    spare: ArrayQueue<Parcel>,
    orders: Mutex<Orders>,
    has_orders: AtomicBool,
    rung: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            parcels: ArrayQueue::new(PARCELS),
            waiting_bytes: AtomicUsize::new(0),
            spare: ArrayQueue::new(SPARE_PARCELS),
            orders: Mutex::default(),
            has_orders: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// What the worker waits on, edge-triggered.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Hands `parcel` over and leaves an empty one in its place. Tells how many payloads were
    /// dropped because too much waits already.
    pub(super) fn deliver(&self, parcel: &mut Parcel) -> usize {
        let bytes = parcel.bytes();
        let payloads = parcel.len();
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > PARCEL_BYTES {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            parcel.clear();
            return payloads;
        }
        let full = std::mem::replace(parcel, self.spare.pop().unwrap_or_default());
        let dropped = self.parcels.push(full).is_err();
        if dropped {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.ring();
        if dropped { payloads } else { 0 }
    }

    /// Changes the orders and wakes the worker.
    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders();
        if orders.closed {
            return;
        }
        change(&mut orders);
        drop(orders);
        self.has_orders.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Asks the worker to take over a connection; tells whether there was room.
    pub(super) fn offer(&self, stream: NewStream) -> bool {
        let mut taken = false;
        self.order(|orders| {
            taken = orders.streams.len() < NEW_STREAMS;
            if taken {
                orders.streams.push(stream);
            }
        });
        taken
    }

    /// Asks; where too many questions wait, the answer's sender is dropped.
    pub(super) fn ask(&self, query: Query) {
        self.order(|orders| {
            if orders.queries.len() < QUERIES {
                orders.queries.push(query);
            }
        });
    }

    /// Called by the worker when the bell has rung, before it empties the mailbox.
    pub(super) fn answer_bell(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Rings for what was left in the mailbox; tells whether there was anything.
    pub(super) fn ring_unless_empty(&self) -> bool {
        let left = !self.parcels.is_empty();
        if left {
            self.ring();
        }
        left
    }

    /// The parcel that waits longest.
    pub(super) fn next_parcel(&self) -> Option<Parcel> {
        let parcel = self.parcels.pop()?;
        self.waiting_bytes
            .fetch_sub(parcel.bytes(), Ordering::Relaxed);
        Some(parcel)
    }

    /// Keeps an emptied parcel's memory for another one.
    pub(super) fn reuse(&self, mut parcel: Parcel) {
        if parcel.bytes.capacity() <= SPARE_BYTES {
            parcel.clear();
            // Enough of them are kept already.
            let _ = self.spare.push(parcel);
        }
    }

    pub(super) fn take_orders(&self) -> Option<Orders> {
        self.has_orders
            .swap(false, Ordering::SeqCst)
            .then(|| std::mem::take(&mut *self.orders()))
    }

    /// Takes no more orders; who waits for an answer learns that there is none.
    pub(super) fn close(&self) {
        *self.orders() = Orders {
            closed: true,
            ..Orders::default()
        };
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Only an overflow at 2^64 could fail, and the worker would be awake then.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::engine::Train;

    const RELAY: RelayKey = RelayKey {
        index: 2,
        generation: 7,
    };

    fn parcel(payload: &[u8]) -> Parcel {
        let mut parcel = Parcel::default();
        parcel.add(RELAY, "192.0.2.1:5".parse().unwrap(), &payload.into());
        parcel
    }

    #[test]
    fn letters_come_out_as_they_went_in() {
        let mailbox = Mailbox::new().unwrap();
        for payload in [b"one".as_slice(), b"", b"three"] {
            assert_eq!(mailbox.deliver(&mut parcel(payload)), 0);
        }
        let mut seen = vec![];
        while let Some(parcel) = mailbox.next_parcel() {
            for (_, _, payloads) in parcel.letters() {
                seen.extend(payloads.payloads().map(<[u8]>::to_vec));
            }
            mailbox.reuse(parcel);
        }
        assert_eq!(seen, [b"one".as_slice(), b"", b"three"]);
    }

    #[test]
    fn a_letter_holds_all_payloads_of_a_run_empty_ones_too() {
        let bytes: Vec<u8> = (0..12).collect();
        let mut parcel = parcel(b"before");
        let from = "192.0.2.1:6".parse().unwrap();
        for (start, length) in [(0, 4), (1, 2), (4, 0)] {
            let mut train = Train::new(&bytes, 4);
            let run = train.next_run(|_, _| true).unwrap();
            parcel.add(RELAY, from, &run.narrow(start, length));
        }
        assert_eq!(parcel.len(), 10);
        let letters: Vec<Vec<&[u8]>> = parcel
            .letters()
            .map(|(_, _, payloads)| payloads.payloads().collect())
            .collect();
        let expected: [&[&[u8]]; 4] = [
            &[b"before"],
            &[&[0, 1, 2, 3], &[4, 5, 6, 7], &[8, 9, 10, 11]],
            &[&[1, 2], &[5, 6], &[9, 10]],
            &[&[], &[], &[]],
        ];
        assert_eq!(letters, expected);
    }

    #[test]
    fn a_worker_that_does_not_read_costs_letters_and_bounded_memory() {
        let mailbox = Mailbox::new().unwrap();
        let dropped: usize = (0..PARCELS + 5)
            .map(|_| mailbox.deliver(&mut parcel(b"small")))
            .sum();
        assert_eq!(dropped, 5);
        while mailbox.next_parcel().is_some() {}
        let large = vec![0; 60_000];
        let dropped: usize = (0..PARCELS)
            .map(|_| mailbox.deliver(&mut parcel(&large)))
            .sum();
        assert_eq!(PARCELS - dropped, PARCEL_BYTES / large.len());
        while mailbox.next_parcel().is_some() {}
        assert_eq!(mailbox.deliver(&mut parcel(&large)), 0);
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_leaves_nobody_waiting() {
        let mailbox = Mailbox::new().unwrap();
        let (before, answer_before) = oneshot::channel();
        mailbox.ask(Query::Allocations(before));
        mailbox.close();
        let (after, answer_after) = oneshot::channel();
        mailbox.ask(Query::Allocations(after));
        assert!(answer_before.await.is_err() && answer_after.await.is_err());
    }

    #[test]
    fn the_bell_rings_once_until_it_is_answered() {
        let mailbox = Mailbox::new().unwrap();
        let rings = || {
            let mut count = [0; 8];
            rustix::io::read(&mailbox.bell, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
        };
        mailbox.order(|orders| orders.drain = true);
        mailbox.order(|orders| orders.stop = true);
        assert_eq!(rings(), 1);
        mailbox.answer_bell();
        let orders = mailbox.take_orders().unwrap();
        assert!(orders.drain && orders.stop);
        assert!(mailbox.take_orders().is_none());
        mailbox.order(|orders| {
            orders.revoked.insert("a".into());
        });
        assert_eq!(rings(), 1);
    }
}
