//! A whole relay given to a successor: the state of every worker, the shared state, the sockets.

use super::handle::Launch;
use super::intake::Admit;
use super::io::listener::{self, Listener};
use super::io::udp::Offload;
use super::shared::{SharedSnapshot, SharedState};
use super::worker::give_up::{GiveUp, Rendezvous, WorkerState};
use super::worker::handover::{Inheritance, Restored};
use super::{Listeners, RelayConfig, RelayHandle};
use crate::clock;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a worker may take to end or to restore: ten thousand allocations take a tenth of a
/// second on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a relay leaves to its successor.
pub struct RelayState {
    /// When the workers stopped, by [`clock::monotonic`].
    pub stopped: u64,
    /// When the shared state was written down.
    pub taken: u64,
    /// What all workers share.
    pub shared: SharedSnapshot,
    /// The addresses of UDP listeners, in the order of each worker's first sockets.
    pub udp: Vec<SocketAddr>,
    /// By worker.
    pub workers: Vec<WorkerState>,
}

impl RelayState {
    /// Closes the listeners of UDP that `keep` does not name, and shortens `keep` to the others.
    pub fn close_listeners(&mut self, keep: &mut Vec<bool>) {
        let is_kept = |index: usize| keep.get(index).copied().unwrap_or(false);
        let count = self.udp.len();
        for worker in &mut self.workers {
            let fds = std::mem::take(&mut worker.fds).into_iter().enumerate();
            let kept = fds.filter(|(index, _)| *index >= count || is_kept(*index));
            worker.fds = kept.map(|(_, fd)| fd).collect();
        }
        let mut index = 0..;
        self.udp.retain(|_| index.next().is_some_and(is_kept));
        *keep = vec![true; self.udp.len()];
    }
}

/// What is taken over, and what of it goes on.
pub struct Takeover {
    /// What the earlier process left.
    pub state: RelayState,
    /// By address of `state.udp`, whether it is served on.
    pub keep: Vec<bool>,
}

impl RelayHandle {
    /// Ends every worker and returns what a successor needs to go on; no allocation ends, and what
    /// comes in the meantime waits in the sockets. TLS clients are disconnected.
    ///
    /// # Errors
    /// A worker does not answer, or a descriptor cannot be had.
    pub fn give_up(&self) -> Result<RelayState, String> {
        self.stop_accepting();
        let stopped = clock::monotonic();
        let (answer, answers) = mpsc::channel();
        let workers = self.intake().inboxes.len();
        let order = GiveUp {
            meets: Arc::new(Rendezvous::of(workers)),
            answer,
        };
        self.intake()
            .command_all(|commands| commands.give_up = Some(order.clone()));
        drop(order);
        let deadline = Instant::now() + TIMEOUT;
        let mut states: Vec<Option<WorkerState>> = (0..workers).map(|_| None).collect();
        let mut leases = vec![];
        for _ in 0..workers {
            let left = deadline.saturating_duration_since(Instant::now());
            let given = answers.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => "a relay worker does not end".to_owned(),
                RecvTimeoutError::Disconnected => "a relay worker has ended before".to_owned(),
            })?;
            states[given.worker] = Some(given.state?);
            leases.push(given.leases);
        }
        let taken = clock::monotonic();
        let shared = self.shared().snapshot(clock::instant_at(taken));
        drop(leases);
        self.join();
        Ok(RelayState {
            stopped,
            taken,
            shared,
            udp: self.udp().to_vec(),
            workers: states.into_iter().flatten().collect(),
        })
    }

    /// Goes on where an earlier process has stopped. `listeners` are those that it had not; the
    /// number of workers and the relay ports are those that it had. Returns once everything is
    /// served again.
    ///
    /// # Errors
    /// What it left cannot be restored: nothing is served then.
    pub fn restore(
        config: RelayConfig,
        listeners: Listeners,
        takeover: Takeover,
    ) -> Result<(Self, Restored), String> {
        let Takeover { state, keep } = takeover;
        let refused = |error: io::Error| error.to_string();
        let offload = Offload::probe();
        let taken = clock::instant_at(state.taken);
        let shared = SharedState::restore(state.shared, taken, clock::unix_now())
            .map_err(|error| error.to_string())?;
        let admit = listeners.admit.clone();
        let fresh: Vec<SocketAddr> = addresses(&listeners).map_err(refused)?;
        let mut groups =
            listener::group(listeners.udp, state.workers.len(), offload).map_err(refused)?;
        let (restored, counts) = mpsc::channel();
        let mut workers = vec![];
        for (group, worker) in groups.iter_mut().zip(state.workers) {
            let mut fds = worker.fds.into_iter();
            let inherited = fds.by_ref().take(state.udp.len());
            let served = inherited.zip(&state.udp).zip(&keep);
            let served = served.filter(|(_, keep)| **keep);
            let mut all: Vec<Listener> = served
                .map(|((fd, address), _)| Listener::adopt(fd, *address))
                .collect();
            all.append(group);
            let inheritance = Inheritance {
                data: worker.data,
                fds: fds.collect(),
                readmit: readmission(admit.clone()),
                restored: restored.clone(),
            };
            workers.push((all, Some(inheritance)));
        }
        drop(restored);
        let kept = state.udp.iter().zip(&keep).filter(|(_, keep)| **keep);
        let udp = kept.map(|(address, _)| *address).chain(fresh).collect();
        let expected = workers.len();
        let handle = Self::launch(Launch {
            settings: config.settings,
            shared,
            workers,
            udp,
            tcp: listeners.tcp,
            admit,
            offload,
            coalesce: config.coalesce,
        })
        .map_err(refused)?;
        let mut sum = Restored::default();
        for _ in 0..expected {
            // A worker that panics drops its sender.
            let counted = counts.recv_timeout(TIMEOUT);
            sum += counted.map_err(|_| "a relay worker did not come up".to_owned())??;
        }
        handle.shared().release_unclaimed(Instant::now());
        Ok((handle, sum))
    }

    /// Descriptors of the TCP listeners, for a successor.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn tcp_listeners(&self) -> io::Result<Vec<TcpListener>> {
        let listeners = self.tcp().lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(TcpListener::try_clone).collect()
    }
}

fn addresses(listeners: &Listeners) -> io::Result<Vec<SocketAddr>> {
    listeners.udp.iter().map(|udp| udp.local_addr()).collect()
}

fn readmission(admit: Option<Admit>) -> super::worker::handover::Readmit {
    Arc::new(move |client| admit.as_ref().and_then(|admit| admit(client)))
}
