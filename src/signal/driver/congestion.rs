//! Senders that wait for whom they send to, where more waits than its link takes.

use super::{Driver, State};
use crate::signal::dialect::Outgoing;
use crate::signal::hub::{Congested, ConnId, Now};
use crate::signal::outbox::{Outbox, Pushed};
use std::sync::atomic::Ordering;

/// For whom much waits after the frame of one client.
#[derive(Debug, Default)]
pub(super) struct Congestion {
    /// Whose frame is being carried out.
    sender: Option<ConnId>,
    /// Who has more than half of an outbox waiting; no more entries than frames that the sender's led to.
    receivers: Vec<Congested>,
}

impl Congestion {
    /// What follows comes from a frame of `sender`.
    pub(super) fn begin(&mut self, sender: ConnId) {
        self.sender = Some(sender);
    }

    /// `sent` more bytes wait for `receiver`, and so many in all.
    pub(super) fn note(&mut self, receiver: ConnId, sent: usize, waits: usize, capacity: usize) {
        if waits <= capacity / 2 || self.sender.is_none() {
            return;
        }
        match self.receivers.last_mut() {
            Some(last) if last.receiver == receiver => {
                (last.waits, last.sent) = (waits, last.sent + sent);
            }
            _ => self.receivers.push(Congested {
                receiver,
                waits,
                sent,
            }),
        }
    }
}

impl State {
    /// Has the sender of what was carried out wait for those for whom much waits.
    pub(super) fn relieve(&mut self, now: Now) {
        let Some(sender) = self.congestion.sender.take() else {
            return;
        };
        if self.congestion.receivers.is_empty() {
            return;
        }
        let receivers = std::mem::take(&mut self.congestion.receivers);
        let until = (self.hub).congested(now, sender, &receivers, self.limits.outbox);
        if let (Some(until), Some(outbox)) = (until, self.outboxes.get(&sender))
            && outbox.held_until().is_none_or(|held| held < until)
        {
            outbox.hold(until);
        }
    }
}

impl Driver {
    /// Returns how many bytes wait.
    pub(super) fn push(&self, input: u64, outbox: &Outbox, frame: Outgoing) -> usize {
        if frame.seq == Some(1)
            && let Some(waited) = outbox.first_entry()
        {
            self.stats.join_latency.observe(waited.as_secs_f64());
        }
        match outbox.push(input, frame) {
            Pushed::Waits(waits) => {
                let bytes = waits.try_into().unwrap_or(i64::MAX);
                let high_water = self.stats.outbox_high_water.inner();
                if bytes > high_water.load(Ordering::Relaxed) {
                    high_water.fetch_max(bytes, Ordering::Relaxed);
                }
                return waits;
            }
            Pushed::Overflowed => {
                self.stats.slow_consumers.inc();
            }
            Pushed::Closed => {}
        }
        0
    }
}
