//! What other threads ask of a worker: payloads for its relays, commands, queries.

use super::Worker;
use crate::relay::engine::Now;
use crate::relay::io::udp::Offload;
use crate::relay::stats::{RelayStats, WorkerLoad};
use crate::relay::worker::inbox::{Commands, Query};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;

/// Batches of other workers that are opened in one turn, so that they do not starve the sockets.
const BATCHES_A_TURN: usize = 64;

impl Worker {
    /// Returns whether to go on.
    pub(super) fn drain_inbox(&mut self, now: Now) -> bool {
        let inboxes = Arc::clone(&self.inboxes);
        let inbox = &inboxes[usize::from(self.id.0)];
        inbox.clear_wakeup();
        for _ in 0..BATCHES_A_TURN {
            let Some(batch) = inbox.next_batch() else {
                break;
            };
            let mut out = self.egress.open(now);
            for (relay, from, payloads) in batch.entries() {
                self.engine
                    .from_worker(now, relay, from, payloads, &mut out);
            }
            out.finish();
            inbox.reuse(batch);
        }
        self.more |= inbox.wake_unless_empty();
        inbox
            .take_commands()
            .is_none_or(|commands| self.apply_commands(now, commands))
    }

    /// Takes over what other workers and the handle have sent until now, whatever it is.
    pub(super) fn empty_inbox(&mut self, now: Now) {
        let inboxes = Arc::clone(&self.inboxes);
        let inbox = &inboxes[usize::from(self.id.0)];
        while let Some(batch) = inbox.next_batch() {
            let mut out = self.egress.open(now);
            for (relay, from, payloads) in batch.entries() {
                self.engine
                    .from_worker(now, relay, from, payloads, &mut out);
            }
            out.finish();
        }
        if let Some(commands) = inbox.take_commands() {
            self.apply_commands(now, commands);
        }
    }

    fn apply_commands(&mut self, now: Now, commands: Commands) -> bool {
        let dropped = match commands.settings {
            Some(settings) => {
                let mut out = self.egress.open(now);
                let dropped = self.engine.reconfigure(settings, &mut out);
                out.finish();
                dropped
            }
            None => vec![],
        };
        if let Some(observer) = commands.observer {
            self.egress.allocation_log.observer = Some(observer);
        }
        if commands.drain {
            self.engine.drain();
        }
        if let Some(spent) = commands.spent {
            self.engine.spend(spent);
        }
        if let Some(denied) = &commands.denied {
            self.egress.denied = denied.clone();
        }
        let mut out = self.egress.open(now);
        if let Some(denied) = commands.denied.filter(|denied| !denied.is_empty()) {
            self.engine
                .drop_clients(|ip| denied.covers(ip), now, &mut out);
        }
        for user in dropped {
            self.engine.drop_user(&user, now, &mut out);
        }
        for user in &commands.revoked {
            self.engine.revoke(user, now, &mut out);
        }
        if commands.stop {
            self.engine.stop(now, &mut out);
        }
        out.finish();
        for new in commands.streams {
            self.take_stream(now, new);
        }
        for query in commands.queries {
            // The task that asked may have ended.
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
        let goes_on = !commands.stop && commands.give_up.is_none();
        if let Some(order) = commands.give_up {
            self.give_up = Some(order);
        }
        goes_on
    }

    fn stats(&self) -> RelayStats {
        RelayStats {
            engine: self.engine.stats().clone(),
            io: self.egress.stats,
            streams: self.egress.streams.len(),
            offload: Offload {
                gso: self.egress.sender.gso(),
                ..self.offload
            },
            workers: vec![WorkerLoad {
                id: self.id,
                cpu: self.cpu(),
            }],
        }
    }

    /// What the worker has taken of a core, in earlier processes too.
    pub(super) fn cpu(&self) -> Duration {
        let here = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        here.saturating_add(Duration::from_nanos(self.egress.stats.cpu_before))
    }
}
