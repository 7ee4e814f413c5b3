//! Everything through which a worker's engine reaches the world: listeners, relay sockets,
//! streams, other workers, the log.

use super::listener::Listener;
use super::send_queue::SendQueue;
use super::stream::Streams;
use super::udp::{Offload, RelaySocket, Sender};
use crate::network::DeniedClients;
use crate::relay::engine::{Event, FiveTuple, Now, Output, PayloadRun, RelayedKey, WorkerId};
use crate::relay::stats::IoStats;
use crate::relay::worker::allocation_log::AllocationLog;
use crate::relay::worker::inbox::{HandoffBatch, Inbox};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes in one batch for another worker; a fuller one leaves before its batch ends.
const HANDOFF_BYTES: usize = 64 << 10;

/// Everything that one worker can send to.
pub(in crate::relay) struct Egress {
    pub(in crate::relay) listeners: Rc<[Listener]>,
    pub(in crate::relay) streams: Streams,
    pub(in crate::relay) allocation_log: AllocationLog,
    /// Clients whose datagrams are dropped unread.
    pub(in crate::relay) denied: DeniedClients,
    pub(in crate::relay) stats: IoStats,
    pub(in crate::relay) sender: Sender,
    /// Datagrams that passed through the listeners, in and out: those joined by GRO or GSO count once.
    pub(in crate::relay) listener_datagrams: u64,
    /// Taken out while a batch is open.
    queue: Option<SendQueue<'static>>,
    /// By worker; the own one's stays empty.
    inboxes: Arc<[Inbox]>,
    batches: Vec<HandoffBatch>,
}

impl Egress {
    pub(in crate::relay) fn new(
        listeners: Vec<Listener>,
        streams: Streams,
        inboxes: Arc<[Inbox]>,
        offload: Offload,
    ) -> Self {
        Self {
            listeners: listeners.into(),
            streams,
            allocation_log: AllocationLog::default(),
            denied: DeniedClients::default(),
            stats: IoStats::default(),
            sender: Sender::new(offload),
            listener_datagrams: 0,
            queue: None,
            batches: inboxes.iter().map(|_| HandoffBatch::default()).collect(),
            inboxes,
        }
    }

    /// Begins one batch, whose payloads live for `'a`.
    pub(in crate::relay) fn open<'a>(&mut self, now: Now) -> EgressBatch<'_, 'a> {
        let queue = self.queue.take();
        EgressBatch {
            queue: queue
                .unwrap_or_else(|| SendQueue::new(self.sender.gso()))
                .recycle(),
            egress: self,
            now,
        }
    }

    /// Hands over what is meant for other workers.
    pub(in crate::relay) fn post(&mut self) {
        for (worker, batch) in self.batches.iter_mut().enumerate() {
            if batch.len() > 0 {
                deliver(&self.inboxes[worker], batch, &mut self.stats);
            }
        }
    }
}

/// What one batch sends.
pub(in crate::relay) struct EgressBatch<'w, 'a> {
    queue: SendQueue<'a>,
    pub(in crate::relay) egress: &'w mut Egress,
    now: Now,
}

impl EgressBatch<'_, '_> {
    /// Sends all datagrams that are queued.
    pub(in crate::relay) fn flush(&mut self) {
        let egress = &mut *self.egress;
        self.queue
            .flush(&egress.listeners, &mut egress.sender, &mut egress.stats);
    }

    /// Sends all datagrams that are queued, and keeps the queue's memory.
    pub(in crate::relay) fn finish(mut self) {
        self.flush();
        self.egress.queue = Some(self.queue.recycle());
    }

    fn flush_if_full(&mut self) {
        if self.queue.is_full() {
            self.flush();
        }
    }
}

impl<'a> EgressBatch<'_, 'a> {
    fn queue_datagrams(
        &mut self,
        to: &FiveTuple,
        head: &[u8],
        payloads: PayloadRun<'a>,
        padding: usize,
    ) {
        let listeners = &self.egress.listeners;
        let Some(listener) = listeners.iter().position(|l| l.serves(to.server)) else {
            return;
        };
        self.egress.listener_datagrams += 1;
        let destination = (listener, &listeners[listener]);
        self.queue
            .push_for_client(destination, to, head, payloads, padding);
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
            .egress
            .streams
            .push(to, head, payload, padding, is_reply);
        self.egress.stats.slow_reader += u64::from(!taken);
    }
}

impl<'a> Output<'a, Rc<RelaySocket>> for EgressBatch<'_, 'a> {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        if to.transport.is_stream() {
            self.queue_message(to, message, &[], 0, true);
        } else {
            let nothing: &[u8] = &[];
            self.queue_datagrams(to, message, nothing.into(), 0);
        }
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize) {
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
        payloads: PayloadRun<'a>,
        dont_fragment: bool,
    ) {
        self.queue.push_for_peer(from, to, payloads, dont_fragment);
        self.flush_if_full();
    }

    fn to_worker(
        &mut self,
        worker: WorkerId,
        relay: RelayedKey,
        from: SocketAddr,
        payloads: PayloadRun<'a>,
    ) {
        let worker = usize::from(worker.0);
        let Some(batch) = self.egress.batches.get_mut(worker) else {
            return;
        };
        batch.add(relay, from, &payloads);
        if batch.bytes() >= HANDOFF_BYTES {
            deliver(&self.egress.inboxes[worker], batch, &mut self.egress.stats);
        }
    }

    fn event(&mut self, event: Event) {
        match &event {
            Event::Opened { five_tuple, .. } if five_tuple.transport.is_stream() => {
                let streams = &mut self.egress.streams;
                streams.set_allocation(five_tuple, true, self.now.instant);
            }
            Event::Closed { five_tuple, .. } if five_tuple.transport.is_stream() => {
                let streams = &mut self.egress.streams;
                streams.set_allocation(five_tuple, false, self.now.instant);
            }
            _ => {}
        }
        self.egress.allocation_log.record(&event, self.now.instant);
    }
}

fn deliver(inbox: &Inbox, batch: &mut HandoffBatch, stats: &mut IoStats) {
    let payloads = batch.len();
    let dropped = inbox.deliver(batch);
    stats.handed_over += (payloads - dropped) as u64;
    stats.hand_over_full += dropped as u64;
}
