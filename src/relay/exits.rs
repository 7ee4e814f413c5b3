//! Everything through which a worker's engine reaches the world: listeners, relay sockets,
//! streams, other workers, the log.

use super::engine::{Event, FiveTuple, Now, Output, RelayKey, Run, WorkerId};
use super::journal::Journal;
use super::listener::Listener;
use super::mailbox::{Mailbox, Parcel};
use super::outbound::Queue;
use super::stats::IoStats;
use super::stream::Streams;
use super::udp::{Offload, RelaySocket, Sender};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes in one parcel for another worker; a fuller one leaves before its batch ends.
const PARCEL_BYTES: usize = 64 << 10;

/// The exits of one worker.
pub(super) struct Exits {
    pub(super) listeners: Rc<[Listener]>,
    pub(super) streams: Streams,
    pub(super) journal: Journal,
    pub(super) stats: IoStats,
    pub(super) sender: Sender,
    /// What has passed through the listeners, in and out: trains count once.
    pub(super) passed: u64,
    /// Away while a batch is open.
    queue: Option<Queue<'static>>,
    /// By worker; the own one's stays empty.
    mailboxes: Arc<[Mailbox]>,
    parcels: Vec<Parcel>,
}

impl Exits {
    pub(super) fn new(
        listeners: Vec<Listener>,
        streams: Streams,
        mailboxes: Arc<[Mailbox]>,
        offload: Offload,
    ) -> Self {
        Self {
            listeners: listeners.into(),
            streams,
            journal: Journal::default(),
            stats: IoStats::default(),
            sender: Sender::new(offload),
            passed: 0,
            queue: None,
            parcels: mailboxes.iter().map(|_| Parcel::default()).collect(),
            mailboxes,
        }
    }

    /// Opens the exits for one batch, whose payloads live for `'a`.
    pub(super) fn open<'a>(&mut self, now: Now) -> Out<'_, 'a> {
        let queue = self.queue.take();
        Out {
            queue: queue
                .unwrap_or_else(|| Queue::new(self.sender.gso()))
                .recycle(),
            exits: self,
            now,
        }
    }

    /// Hands over what is meant for other workers.
    pub(super) fn post(&mut self) {
        for (worker, parcel) in self.parcels.iter_mut().enumerate() {
            if parcel.len() > 0 {
                deliver(&self.mailboxes[worker], parcel, &mut self.stats);
            }
        }
    }
}

/// The exits during one batch.
pub(super) struct Out<'w, 'a> {
    queue: Queue<'a>,
    pub(super) exits: &'w mut Exits,
    now: Now,
}

impl Out<'_, '_> {
    /// Sends all datagrams that are queued.
    pub(super) fn flush(&mut self) {
        let exits = &mut *self.exits;
        self.queue
            .flush(&exits.listeners, &mut exits.sender, &mut exits.stats);
    }

    /// Sends all datagrams that are queued, and keeps the queue's memory.
    pub(super) fn finish(mut self) {
        self.flush();
        self.exits.queue = Some(self.queue.recycle());
    }

    fn flush_if_full(&mut self) {
        if self.queue.is_full() {
            self.flush();
        }
    }
}

impl<'a> Out<'_, 'a> {
    fn queue_datagrams(&mut self, to: &FiveTuple, head: &[u8], payloads: Run<'a>, padding: usize) {
        let listeners = &self.exits.listeners;
        let Some(listener) = listeners.iter().position(|l| l.serves(to.server)) else {
            return;
        };
        self.exits.passed += 1;
        let exit = (listener, &listeners[listener]);
        self.queue
            .push_for_client(exit, to, head, payloads, padding);
        self.flush_if_full();
    }

    fn queue_message(
        &mut self,
        to: &FiveTuple,
        head: &[u8],
        payload: &[u8],
        padding: usize,
        is_reply: bool,
    ) {
        let taken = self
            .exits
            .streams
            .push(to, head, payload, padding, is_reply);
        self.exits.stats.slow_reader += u64::from(!taken);
    }
}

impl<'a> Output<'a, Rc<RelaySocket>> for Out<'_, 'a> {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        if to.transport.is_stream() {
            self.queue_message(to, message, &[], 0, true);
        } else {
            let nothing: &[u8] = &[];
            self.queue_datagrams(to, message, nothing.into(), 0);
        }
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: Run<'a>, padding: usize) {
        if to.transport.is_stream() {
            for payload in payloads.payloads() {
                self.queue_message(to, head, payload, padding, false);
            }
        } else {
            self.queue_datagrams(to, head, payloads, padding);
        }
    }

    fn to_peer(
        &mut self,
        from: &Rc<RelaySocket>,
        to: SocketAddr,
        payloads: Run<'a>,
        dont_fragment: bool,
    ) {
        self.queue.push_for_peer(from, to, payloads, dont_fragment);
        self.flush_if_full();
    }

    fn to_worker(
        &mut self,
        worker: WorkerId,
        relay: RelayKey,
        from: SocketAddr,
        payloads: Run<'a>,
    ) {
        let worker = usize::from(worker.0);
        let Some(parcel) = self.exits.parcels.get_mut(worker) else {
            return;
        };
        parcel.add(relay, from, &payloads);
        if parcel.bytes() >= PARCEL_BYTES {
            deliver(&self.exits.mailboxes[worker], parcel, &mut self.exits.stats);
        }
    }

    fn event(&mut self, event: Event) {
        match &event {
            Event::Opened { five_tuple, .. } if five_tuple.transport.is_stream() => {
                let streams = &mut self.exits.streams;
                streams.set_allocation(five_tuple, true, self.now.instant);
            }
            Event::Closed { five_tuple, .. } if five_tuple.transport.is_stream() => {
                let streams = &mut self.exits.streams;
                streams.set_allocation(five_tuple, false, self.now.instant);
            }
            _ => {}
        }
        self.exits.journal.note(&event, self.now.instant);
    }
}

fn deliver(mailbox: &Mailbox, parcel: &mut Parcel, stats: &mut IoStats) {
    let payloads = parcel.len();
    let dropped = mailbox.deliver(parcel);
    stats.handed_over += (payloads - dropped) as u64;
    stats.hand_over_full += dropped as u64;
}
