//! The order to leave everything to a successor, and its answer.

use crate::relay::engine::Leases;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long workers wait for each other: a turn of a busy one takes a few milliseconds. Payload
/// between relays of a worker that comes later is lost.
const RENDEZVOUS: Duration = Duration::from_millis(200);

/// What one worker leaves to its successor.
pub struct WorkerState {
    /// Its engine, counters and streams, as text.
    pub data: Vec<u8>,
    /// Its sockets: listeners, relayed addresses in the order of the engine's table, streams.
    pub fds: Vec<OwnedFd>,
}

/// What a worker that gives up answers.
pub(in crate::relay) struct Given {
    pub(in crate::relay) worker: usize,
    pub(in crate::relay) state: Result<WorkerState, String>,
    /// To be kept until the shared state was written down.
    pub(in crate::relay) leases: Leases,
}

/// The order to give up.
#[derive(Clone)]
pub(in crate::relay) struct GiveUp {
    pub(in crate::relay) meets: Arc<Rendezvous>,
    pub(in crate::relay) answer: Sender<Given>,
}

/// Where workers wait until none of them reads its sockets any more: what one has sent to relays of
/// another is then in its inbox.
#[derive(Default)]
pub(in crate::relay) struct Rendezvous {
    arrived: Mutex<usize>,
    all: Condvar,
    workers: usize,
}

impl Rendezvous {
    pub(in crate::relay) fn of(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    pub(super) fn wait(&self) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived += 1;
        self.all.notify_all();
        // A worker that is missing after that long is not waited for.
        let _ = self
            .all
            .wait_timeout_while(arrived, RENDEZVOUS, |arrived| *arrived < self.workers);
    }
}
