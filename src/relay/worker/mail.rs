//! What other threads want of a worker: payloads for its relays, orders, answers.

use super::Worker;
use crate::relay::engine::Now;
use crate::relay::mailbox::{Orders, Query};
use crate::relay::stats::{RelayStats, WorkerLoad};
use crate::relay::udp::Offload;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;

/// Parcels of other workers that are opened in one turn, so that they do not starve the sockets.
const PARCELS_A_TURN: usize = 64;

impl Worker {
    /// Returns whether to go on.
    pub(super) fn mail(&mut self, now: Now) -> bool {
        let mailboxes = Arc::clone(&self.mailboxes);
        let mailbox = &mailboxes[usize::from(self.id.0)];
        mailbox.answer_bell();
        for _ in 0..PARCELS_A_TURN {
            let Some(parcel) = mailbox.next_parcel() else {
                break;
            };
            let mut out = self.exits.open(now);
            for (relay, from, payloads) in parcel.letters() {
                self.engine
                    .from_worker(now, relay, from, payloads, &mut out);
            }
            out.finish();
            mailbox.reuse(parcel);
        }
        self.more |= mailbox.ring_unless_empty();
        mailbox
            .take_orders()
            .is_none_or(|orders| self.obey(now, orders))
    }

    fn obey(&mut self, now: Now, orders: Orders) -> bool {
        if let Some(settings) = orders.settings {
            self.engine.reconfigure(settings);
        }
        if orders.drain {
            self.engine.drain();
        }
        let mut out = self.exits.open(now);
        for user in &orders.revoked {
            self.engine.revoke(user, now, &mut out);
        }
        if orders.stop {
            self.engine.stop(now, &mut out);
        }
        out.finish();
        for new in orders.streams {
            self.take_stream(now, new);
        }
        for query in orders.queries {
            // Whoever asked may have gone.
            match query {
                Query::Allocations(answer) => {
                    let _ = answer.send(self.engine.allocations(now.instant).collect());
                }
                Query::Stats(answer) => {
                    let _ = answer.send(self.stats());
                }
                #[cfg(test)]
                Query::Run(body) => body(),
            }
        }
        !orders.stop
    }

    fn stats(&self) -> RelayStats {
        RelayStats {
            engine: self.engine.stats().clone(),
            io: self.exits.stats,
            streams: self.exits.streams.len(),
            offload: Offload {
                gso: self.exits.sender.gso(),
                ..self.offload
            },
            workers: vec![WorkerLoad {
                id: self.id,
                cpu: Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default(),
            }],
        }
    }
}
