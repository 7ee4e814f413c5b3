//! The relay as the rest of the program sees it: started, told things, asked things, ended.

use super::accept;
use super::engine::{AllocationView, Settings, Spent, WorkerId};
use super::intake::{Admit, ClientStream, Intake};
use super::io::listener::{self, Listener};
use super::io::udp::{Offload, kernel_shortcomings};
use super::shared::{RelayAddress, SharedState};
use super::stats::RelayStats;
use super::worker::allocation_log::OnAllocation;
use super::worker::handover::Inheritance;
use super::worker::inbox::{Inbox, Query};
use super::worker::{self, WorkerConfig};
use crate::clock::unix_now;
use crate::network::DeniedClients;
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
    accepting: Mutex<JoinSet<()>>,
    /// Where UDP clients are served.
    udp: Vec<SocketAddr>,
    /// The TCP listeners once more, for a successor.
    tcp: Mutex<Vec<TcpListener>>,
}

/// What a relay is started with.
pub(super) struct Launch {
    pub(super) settings: Settings,
    pub(super) shared: Arc<SharedState>,
    /// The listeners of each worker, and what it inherits.
    pub(super) workers: Vec<(Vec<Listener>, Option<Inheritance>)>,
    /// Where the listeners are bound.
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<TcpListener>,
    pub(super) admit: Option<Admit>,
    pub(super) offload: Offload,
    pub(super) coalesce: Duration,
}

impl RelayHandle {
    /// Starts the workers and serves; called inside the runtime that is to accept streams.
    ///
    /// # Errors
    /// A socket cannot be prepared, or the system refuses a thread.
    pub fn start(config: RelayConfig, listeners: Listeners) -> io::Result<Self> {
        let workers = config.workers.clamp(1, MAX_WORKERS);
        let offload = Offload::probe();
        let udp = listeners.udp.iter().map(UdpSocket::local_addr);
        let udp = udp.collect::<io::Result<_>>()?;
        let groups = listener::group(listeners.udp, workers, offload)?;
        let shared = SharedState::new(config.addresses, config.ports, seed(), Instant::now());
        Self::launch(Launch {
            settings: config.settings,
            shared,
            workers: groups.into_iter().map(|group| (group, None)).collect(),
            udp,
            tcp: listeners.tcp,
            admit: listeners.admit,
            offload,
            coalesce: config.coalesce,
        })
    }

    pub(super) fn launch(launch: Launch) -> io::Result<Self> {
        let inboxes = launch
            .workers
            .iter()
            .map(|_| Inbox::new())
            .collect::<io::Result<_>>()?;
        let shared = launch.shared;
        let intake = Arc::new(Intake::new(inboxes));
        let mut accepting = JoinSet::new();
        let admit = launch
            .admit
            .unwrap_or_else(|| Arc::new(|_| Some(Box::new(()))));
        let mut tcp = vec![];
        for listener in launch.tcp {
            tcp.push(listener.try_clone()?);
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
            accepting: Mutex::new(accepting),
            udp: launch.udp,
            tcp: Mutex::new(tcp),
        };
        let settings = Arc::new(launch.settings);
        for (index, (listeners, inherits)) in launch.workers.into_iter().enumerate() {
            let thread = worker::start(WorkerConfig {
                id: WorkerId(index as u8),
                settings: Arc::clone(&settings),
                shared: Arc::clone(&shared),
                listeners,
                inboxes: Arc::clone(&intake.inboxes),
                offload: launch.offload,
                coalesce: launch.coalesce,
                seed: seed(),
                ended: Arc::clone(&handle.ended),
                inherits,
            })?;
            handle.threads().push(thread);
        }
        for shortcoming in kernel_shortcomings() {
            tracing::info!("{shortcoming}");
        }
        Ok(handle)
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Where UDP clients are served.
    pub(super) fn udp(&self) -> &[SocketAddr] {
        &self.udp
    }

    pub(super) fn tcp(&self) -> &Mutex<Vec<TcpListener>> {
        &self.tcp
    }

    /// Leaves newcomers of TCP in the queues of the listeners.
    pub(super) fn stop_accepting(&self) {
        let accepting = self.accepting.lock();
        accepting
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
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

    /// Refuses new allocations of these users until it is called again.
    pub fn spend(&self, spent: Spent) {
        let spent = Arc::new(spent);
        self.intake
            .command_all(|commands| commands.spent = Some(Arc::clone(&spent)));
    }

    /// Drops what these clients send from here on, and ends their allocations.
    pub fn deny(&self, denied: DeniedClients) {
        self.intake
            .command_all(|commands| commands.denied = Some(denied.clone()));
    }

    /// Calls `observer` on the workers' threads with what becomes of allocations from here on.
    pub fn observe(&self, observer: OnAllocation) {
        self.intake
            .command_all(|commands| commands.observer = Some(Arc::clone(&observer)));
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

    /// What all workers count and share, for gauges.
    pub fn shared(&self) -> &SharedState {
        &self.shared
    }

    /// Returns once a worker has ended without [`close`](Self::close): nobody serves its clients then.
    pub async fn failed(&self) {
        self.ended.notified().await;
    }

    /// Ends every allocation and every thread.
    pub fn close(&self) {
        self.intake.command_all(|commands| commands.stop = true);
        self.join();
    }

    /// Waits until every worker has ended.
    pub(super) fn join(&self) {
        for thread in self.threads().drain(..) {
            // A thread that panicked has logged it.
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
