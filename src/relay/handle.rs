//! The relay as the rest of the program sees it: started, told things, asked things, ended.

use super::accept;
use super::engine::{AllocationView, Settings, WorkerId};
use super::intake::{Admit, ClientStream, Intake};
use super::io::listener;
use super::io::udp::{Offload, kernel_shortcomings};
use super::shared::{RelayAddress, SharedState};
use super::stats::RelayStats;
use super::worker::inbox::{Inbox, Query};
use super::worker::{self, WorkerConfig};
use crate::clock::unix_now;
use rand::Rng;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

/// The most workers there can be: what [`WorkerId`] counts.
const MAX_WORKERS: usize = 256;

/// What the relay runs by.
pub struct RelayConfig {
    /// The part that [`RelayHandle::reconfigure`] can change.
    pub settings: Settings,
    /// Where relayed addresses live, at most one a family.
    pub addresses: Vec<RelayAddress>,
    /// Where relayed addresses take their ports.
    pub ports: RangeInclusive<u16>,
    /// Threads; at least one is started.
    pub workers: usize,
    /// The longest that a worker with time to spare lets datagrams come together before it looks
    /// again; zero means never.
    pub coalesce: Duration,
}

/// Bound sockets to serve clients on.
#[derive(Default)]
pub struct Listeners {
    /// Bound without SO_REUSEPORT, so that a port that somebody holds was an error.
    pub udp: Vec<UdpSocket>,
    /// Non-blocking.
    pub tcp: Vec<TcpListener>,
    /// Who counts connections of `tcp`; without one, nobody does.
    pub admit: Option<Admit>,
}

/// A running relay. Dropping it ends every allocation and every thread.
pub struct RelayHandle {
    intake: Arc<Intake>,
    shared: Arc<SharedState>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Told by a worker that ends.
    ended: Arc<Notify>,
    /// Told of each revocation.
    revoked: Notify,
    /// Accepting ends with the set.
    _accepting: JoinSet<()>,
}

impl RelayHandle {
    /// Starts the workers and serves; called inside the runtime that is to accept streams.
    ///
    /// # Errors
    /// A socket cannot be prepared, or the system refuses a thread.
    pub fn start(config: RelayConfig, listeners: Listeners) -> io::Result<Self> {
        let workers = config.workers.clamp(1, MAX_WORKERS);
        let offload = Offload::probe();
        let groups = listener::group(listeners.udp, workers, offload)?;
        let inboxes = (0..workers)
            .map(|_| Inbox::new())
            .collect::<io::Result<_>>()?;
        let shared = SharedState::new(config.addresses, config.ports, seed(), Instant::now());
        let intake = Arc::new(Intake::new(inboxes));
        let mut accepting = JoinSet::new();
        let admit = listeners
            .admit
            .unwrap_or_else(|| Arc::new(|_| Some(Box::new(()))));
        for listener in listeners.tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.spawn(accept::accept_turn_tcp(
                listener,
                Arc::clone(&intake),
                Arc::clone(&admit),
            ));
        }
        let handle = Self {
            intake: Arc::clone(&intake),
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
            ended: Arc::default(),
            revoked: Notify::new(),
            _accepting: accepting,
        };
        let settings = Arc::new(config.settings);
        for (index, listeners) in groups.into_iter().enumerate() {
            let thread = worker::start(WorkerConfig {
                id: WorkerId(index as u8),
                settings: Arc::clone(&settings),
                shared: Arc::clone(&shared),
                listeners,
                inboxes: Arc::clone(&intake.inboxes),
                offload,
                coalesce: config.coalesce,
                seed: seed(),
                ended: Arc::clone(&handle.ended),
            })?;
            handle.threads().push(thread);
        }
        for shortcoming in kernel_shortcomings() {
            tracing::info!("{shortcoming}");
        }
        Ok(handle)
    }

    /// Takes over an accepted connection of `peer` to `local`, of which `prefix` (deciphered, if
    /// it is TLS) was read already. Where too many wait, it is closed.
    pub fn serve_stream(
        &self,
        stream: ClientStream,
        peer: SocketAddr,
        local: SocketAddr,
        prefix: &[u8],
    ) {
        self.intake.serve_stream(stream, peer, local, prefix);
    }

    /// Refuses credentials of `user` that expire at `revoked_until` (Unix seconds) or before, and ends the
    /// user's allocations on every worker's next turn. Never blocks on a worker.
    pub fn revoke(&self, user: &str, revoked_until: u64) {
        self.revoke_client(user, revoked_until, None);
    }

    /// As [`revoke`](Self::revoke), at the expense of the network of a client that is gone.
    pub fn revoke_client(&self, user: &str, revoked_until: u64, client: Option<IpAddr>) {
        self.shared
            .revoke_client(user, revoked_until, client, unix_now());
        self.revoked.notify_one();
        let user: Arc<str> = user.into();
        self.intake.command_all(|commands| {
            commands.revoked.insert(Arc::clone(&user));
        });
    }

    /// Comes back once something was revoked since the last time.
    pub async fn revoked(&self) {
        self.revoked.notified().await;
    }

    /// Refuses new allocations from here on; living ones go on.
    pub fn drain(&self) {
        self.intake.command_all(|commands| commands.drain = true);
    }

    /// Takes a new configuration; living allocations go on under it.
    pub fn reconfigure(&self, settings: Settings) {
        let settings = Arc::new(settings);
        self.intake
            .command_all(|commands| commands.settings = Some(Arc::clone(&settings)));
    }

    /// The living allocations of the whole box.
    pub async fn allocations(&self) -> Vec<AllocationView> {
        self.ask(Query::Allocations)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// The counters of the whole box; `None` once it is closed.
    pub async fn stats(&self) -> Option<RelayStats> {
        let mut shares = self.ask(Query::Stats).await.into_iter();
        let mut sum = shares.next()?;
        shares.for_each(|share| sum += share);
        Some(sum)
    }

    /// Has a worker do what a test wants.
    #[cfg(test)]
    pub(crate) fn run_on_worker(&self, body: impl FnOnce() + Send + 'static) {
        self.intake.inboxes[0].ask(Query::Run(Box::new(body)));
    }

    /// The box-wide books, for gauges.
    pub fn shared(&self) -> &SharedState {
        &self.shared
    }

    /// Comes back once a worker has ended without [`close`](Self::close): what it served is served
    /// no more.
    pub async fn failed(&self) {
        self.ended.notified().await;
    }

    /// Ends every allocation and every thread.
    pub fn close(&self) {
        self.intake.command_all(|commands| commands.stop = true);
        for thread in self.threads().drain(..) {
            // Whoever panicked has said so.
            let _ = thread.join();
        }
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answers of all workers that live.
    async fn ask<T>(&self, query: impl Fn(oneshot::Sender<T>) -> Query) -> Vec<T> {
        let asked: Vec<_> = self
            .intake
            .inboxes
            .iter()
            .map(|inbox| {
                let (answer, answered) = oneshot::channel();
                inbox.ask(query(answer));
                answered
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answered in asked {
            answers.extend(answered.await);
        }
        answers
    }
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        self.close();
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}
