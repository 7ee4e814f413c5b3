//! How other threads reach a worker: a lock-free queue for payloads of other workers' relays, a
//! locked list for the commands of the handle, and one eventfd that wakes the worker for both.

use super::allocation_log::OnAllocation;
use super::give_up::GiveUp;
use crate::network::DeniedClients;
use crate::relay::engine::{AllocationView, PayloadRun, RelayedKey, Settings, Spent};
use crate::relay::io::stream::NewStream;
use crate::relay::stats::RelayStats;
use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Batches that wait for a worker. Full: the batch is dropped and counted, as by a full socket
/// buffer.
const HANDOFF_BATCHES: usize = 1024;
/// Bytes that wait for a worker: as a socket buffer of a listener, doubled as the kernel does.
const HANDOFF_BYTES: usize = 8 << 20;
/// Empty batches kept for reuse.
const SPARE_BATCHES: usize = 64;
/// Bytes of memory that a spare batch may hold on to: a full one, grown by doubling.
const SPARE_BYTES: usize = 256 << 10;
/// Connections that wait to be taken over. Full: the newcomer is closed.
const NEW_STREAMS: usize = 1024;
/// Questions that wait for an answer. Full: the asker gets none.
const QUERIES: usize = 64;

/// Payloads for relays of one worker, in the order in which another one sent them.
#[derive(Default)]
pub(in crate::relay) struct HandoffBatch {
    entries: Vec<HandoffEntry>,
    payloads: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct HandoffEntry {
    relay: RelayedKey,
    from: SocketAddr,
    /// Bytes of all its payloads, which lie back to back.
    bytes: usize,
    payloads: usize,
}

impl HandoffBatch {
    pub(in crate::relay) fn add(
        &mut self,
        relay: RelayedKey,
        from: SocketAddr,
        payloads: &PayloadRun<'_>,
    ) {
        self.entries.push(HandoffEntry {
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

    /// Receiver, sender and payloads of each entry.
    pub(in crate::relay) fn entries(
        &self,
    ) -> impl Iterator<Item = (RelayedKey, SocketAddr, PayloadRun<'_>)> {
        let mut rest = self.bytes.as_slice();
        self.entries.iter().map(move |entry| {
            let (payloads, others) = rest.split_at(entry.bytes);
            rest = others;
            let run = PayloadRun::back_to_back(payloads, entry.payloads);
            (entry.relay, entry.from, run)
        })
    }

    /// Payloads in all entries.
    pub(in crate::relay) fn len(&self) -> usize {
        self.payloads
    }

    pub(in crate::relay) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.payloads = 0;
        self.bytes.clear();
    }
}

/// What the handle wants done. Each part is bounded or merges with what waits already, so that
/// nothing that matters is lost and nobody waits for room.
#[derive(Default)]
pub(in crate::relay) struct Commands {
    /// Users whose allocations end: a set, so it grows by distinct users between two turns of
    /// the worker only, which are a batch apart.
    pub(in crate::relay) revoked: HashSet<Arc<str>>,
    pub(in crate::relay) settings: Option<Arc<Settings>>,
    pub(in crate::relay) observer: Option<OnAllocation>,
    pub(in crate::relay) spent: Option<Arc<Spent>>,
    pub(in crate::relay) denied: Option<DeniedClients>,
    pub(in crate::relay) drain: bool,
    pub(in crate::relay) streams: Vec<NewStream>,
    pub(in crate::relay) queries: Vec<Query>,
    pub(in crate::relay) stop: bool,
    /// The worker ends and leaves its allocations to a successor.
    pub(in crate::relay) give_up: Option<GiveUp>,
    closed: bool,
}

/// A question with the way for its answer.
pub(in crate::relay) enum Query {
    Allocations(oneshot::Sender<Vec<AllocationView>>),
    Stats(oneshot::Sender<RelayStats>),
    /// Whatever a test wants to happen on the worker's thread.
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
}

/// One worker's inbox.
pub(in crate::relay) struct Inbox {
    batches: ArrayQueue<HandoffBatch>,
    waiting_bytes: AtomicUsize,
    spare: ArrayQueue<HandoffBatch>,
    commands: Mutex<Commands>,
    has_commands: AtomicBool,
    signalled: AtomicBool,
    wakeup: OwnedFd,
}

impl Inbox {
    pub(in crate::relay) fn new() -> io::Result<Self> {
        Ok(Self {
            batches: ArrayQueue::new(HANDOFF_BATCHES),
            waiting_bytes: AtomicUsize::new(0),
            spare: ArrayQueue::new(SPARE_BATCHES),
            commands: Mutex::default(),
            has_commands: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            wakeup: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// What the worker waits on, edge-triggered.
    pub(in crate::relay) fn wakeup(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    /// Hands `batch` over and leaves an empty one in its place. Tells how many payloads were
    /// dropped because too much waits already.
    pub(in crate::relay) fn deliver(&self, batch: &mut HandoffBatch) -> usize {
        let bytes = batch.bytes();
        let payloads = batch.len();
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > HANDOFF_BYTES {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            batch.clear();
            return payloads;
        }
        let full = std::mem::replace(batch, self.spare.pop().unwrap_or_default());
        let dropped = self.batches.push(full).is_err();
        if dropped {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.wake();
        if dropped { payloads } else { 0 }
    }

    /// Changes the commands and wakes the worker.
    pub(in crate::relay) fn command(&self, change: impl FnOnce(&mut Commands)) {
        let mut commands = self.commands();
        if commands.closed {
            return;
        }
        change(&mut commands);
        drop(commands);
        self.has_commands.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Asks the worker to take over a connection; returns whether there was room.
    pub(in crate::relay) fn offer(&self, stream: NewStream) -> bool {
        let mut taken = false;
        self.command(|commands| {
            taken = commands.streams.len() < NEW_STREAMS;
            if taken {
                commands.streams.push(stream);
            }
        });
        taken
    }

    /// Asks; where too many questions wait, the answer's sender is dropped.
    pub(in crate::relay) fn ask(&self, query: Query) {
        self.command(|commands| {
            if commands.queries.len() < QUERIES {
                commands.queries.push(query);
            }
        });
    }

    /// Called by the worker when the eventfd has woken it, before it empties the inbox.
    pub(in crate::relay) fn clear_wakeup(&self) {
        self.signalled.store(false, Ordering::SeqCst);
    }

    /// Wakes the worker again for what is left in the inbox. Returns whether there was anything.
    pub(in crate::relay) fn wake_unless_empty(&self) -> bool {
        let left = !self.batches.is_empty();
        if left {
            self.wake();
        }
        left
    }

    /// The batch that waits longest.
    pub(in crate::relay) fn next_batch(&self) -> Option<HandoffBatch> {
        let batch = self.batches.pop()?;
        self.waiting_bytes
            .fetch_sub(batch.bytes(), Ordering::Relaxed);
        Some(batch)
    }

    /// Keeps an emptied batch's memory for another one.
    pub(in crate::relay) fn reuse(&self, mut batch: HandoffBatch) {
        if batch.bytes.capacity() <= SPARE_BYTES {
            batch.clear();
            // Enough of them are kept already.
            let _ = self.spare.push(batch);
        }
    }

    pub(in crate::relay) fn take_commands(&self) -> Option<Commands> {
        self.has_commands
            .swap(false, Ordering::SeqCst)
            .then(|| std::mem::take(&mut *self.commands()))
    }

    /// Takes no more commands; a caller that waits for an answer gets none.
    pub(in crate::relay) fn close(&self) {
        *self.commands() = Commands {
            closed: true,
            ..Commands::default()
        };
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // Only an overflow at 2^64 could fail, and the worker would be awake then.
            let _ = rustix::io::write(&self.wakeup, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::engine::GroBatch;

    fn relay() -> RelayedKey {
        RelayedKey::from_bits(7 << 24 | 2)
    }

    fn batch(payload: &[u8]) -> HandoffBatch {
        let mut batch = HandoffBatch::default();
        batch.add(relay(), "192.0.2.1:5".parse().unwrap(), &payload.into());
        batch
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let inbox = Inbox::new().unwrap();
        for payload in [b"one".as_slice(), b"", b"three"] {
            assert_eq!(inbox.deliver(&mut batch(payload)), 0);
        }
        let mut seen = vec![];
        while let Some(batch) = inbox.next_batch() {
            for (_, _, payloads) in batch.entries() {
                seen.extend(payloads.payloads().map(<[u8]>::to_vec));
            }
            inbox.reuse(batch);
        }
        assert_eq!(seen, [b"one".as_slice(), b"", b"three"]);
    }

    #[test]
    fn an_entry_holds_all_payloads_of_a_run_empty_ones_too() {
        let bytes: Vec<u8> = (0..12).collect();
        let mut batch = batch(b"before");
        let from = "192.0.2.1:6".parse().unwrap();
        for (start, length) in [(0, 4), (1, 2), (4, 0)] {
            let mut gro_batch = GroBatch::new(&bytes, 4);
            let run = gro_batch.next_run(|_, _| true).unwrap();
            batch.add(relay(), from, &run.narrow(start, length));
        }
        assert_eq!(batch.len(), 10);
        let entries: Vec<Vec<&[u8]>> = batch
            .entries()
            .map(|(_, _, payloads)| payloads.payloads().collect())
            .collect();
        let expected: [&[&[u8]]; 4] = [
            &[b"before"],
            &[&[0, 1, 2, 3], &[4, 5, 6, 7], &[8, 9, 10, 11]],
            &[&[1, 2], &[5, 6], &[9, 10]],
            &[&[], &[], &[]],
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_worker_that_does_not_read_costs_entries_and_bounded_memory() {
        let inbox = Inbox::new().unwrap();
        let dropped: usize = (0..HANDOFF_BATCHES + 5)
            .map(|_| inbox.deliver(&mut batch(b"small")))
            .sum();
        assert_eq!(dropped, 5);
        while inbox.next_batch().is_some() {}
        let large = vec![0; 60_000];
        let dropped: usize = (0..HANDOFF_BATCHES)
            .map(|_| inbox.deliver(&mut batch(&large)))
            .sum();
        assert_eq!(HANDOFF_BATCHES - dropped, HANDOFF_BYTES / large.len());
        while inbox.next_batch().is_some() {}
        assert_eq!(inbox.deliver(&mut batch(&large)), 0);
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_leaves_nobody_waiting() {
        let inbox = Inbox::new().unwrap();
        let (before, answer_before) = oneshot::channel();
        inbox.ask(Query::Allocations(before));
        inbox.close();
        let (after, answer_after) = oneshot::channel();
        inbox.ask(Query::Allocations(after));
        assert!(answer_before.await.is_err() && answer_after.await.is_err());
    }

    #[test]
    fn the_eventfd_is_signalled_once_until_it_is_cleared() {
        let inbox = Inbox::new().unwrap();
        let wakes = || {
            let mut count = [0; 8];
            rustix::io::read(&inbox.wakeup, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
        };
        inbox.command(|commands| commands.drain = true);
        inbox.command(|commands| commands.stop = true);
        assert_eq!(wakes(), 1);
        inbox.clear_wakeup();
        let commands = inbox.take_commands().unwrap();
        assert!(commands.drain && commands.stop);
        assert!(inbox.take_commands().is_none());
        inbox.command(|commands| {
            commands.revoked.insert("a".into());
        });
        assert_eq!(wakes(), 1);
    }
}
