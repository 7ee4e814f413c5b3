//! The TCP ports: where their certificates come from, and whom each connection is handed to.

use super::handover::HeldListener;
use crate::clock;
use crate::config::{CertificateSource, Config, Tls};
use crate::http::{self, AppState, Caller, Guard, Version};
use crate::net::{
    Accepted, AcmeOrders, CertStore, Connections, Front, Inherited, Listener, PemFiles, Protocol,
    Wire,
};
use anyhow::{Result, anyhow};
use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// `FileDescriptorName=` of socket units, each with the key that names the same addresses.
const SOCKET_NAMES: [(&str, &str); 3] = [
    ("http", "http.listen"),
    ("tls", "tls.listen"),
    ("metrics", "metrics.listen"),
];

/// Takes a connection that speaks TURN; must not block.
pub(super) type TurnHandler = Arc<dyn Fn(Accepted) + Send + Sync>;

/// What stands behind every port.
pub(super) struct Behind {
    pub(super) context: Arc<AppState>,
    /// What TLS ports show.
    pub(super) certificates: Option<Arc<CertStore>>,
    pub(super) turn: Option<TurnHandler>,
    /// Where connections of every port are counted.
    pub(super) connections: Arc<Connections>,
}

/// Bound listeners.
pub(super) struct TcpListeners {
    plain: Vec<Listener>,
    tls: Vec<Listener>,
    metrics: Option<Listener>,
    /// Where plain HTTP is served.
    pub(super) http: Vec<SocketAddr>,
    /// Where TLS is.
    pub(super) https: Vec<SocketAddr>,
    /// All of them once more, for a successor.
    pub(super) held: Vec<HeldListener>,
}

/// Closes what an earlier process has left and `config` does not name any more, before anything is
/// bound.
pub(super) fn close_unnamed(config: &Config, inherited: &mut Inherited) {
    let wanted = [
        &config.http.listen[..],
        &config.tls.listen,
        config.metrics.as_slice(),
    ];
    for (name, addresses) in SOCKET_NAMES.iter().map(|(name, _)| *name).zip(wanted) {
        inherited.close_unnamed(name, addresses);
    }
}

impl TcpListeners {
    /// Binds `http.listen`, `tls.listen` and `metrics.listen`, but for what systemd bound
    /// beforehand.
    pub(super) fn bind(config: &Config, mut inherited: Inherited) -> Result<Self> {
        let [http, tls, metrics] = SOCKET_NAMES;
        let (plain, http) = bind(&config.http.listen, http, &mut inherited)?;
        let (tls, https) = bind(&config.tls.listen, tls, &mut inherited)?;
        let (mut metrics, _) = bind(config.metrics.as_slice(), metrics, &mut inherited)?;
        inherited.finish(&SOCKET_NAMES)?;
        let all = SOCKET_NAMES.iter().zip([&plain, &tls, &metrics]);
        let held = all.flat_map(|((kind, _), listeners)| {
            let held = listeners.iter();
            held.filter_map(|listener| HeldListener::of(kind, listener))
        });
        Ok(Self {
            held: held.collect(),
            plain,
            tls,
            metrics: metrics.pop(),
            http,
            https,
        })
    }

    /// Serves each port until its end comes.
    pub(super) fn serve(
        self,
        config: &Config,
        behind: &Behind,
        ends: &StopSignals,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let front = || Front {
            trusted: config.http.trusted_proxies.clone(),
            ..Front::plain(Arc::clone(&behind.connections))
        };
        for (listener, address) in self.plain.into_iter().zip(self.http) {
            let turn = behind.turn.clone().filter(|_| config.shares_port(address));
            let hand_over = hand_over(router(config, &behind.context, address, false), turn);
            let (listener, end) = ends.of(listener)?;
            tasks.spawn(front().serve(listener, end, hand_over));
        }
        for (listener, address) in self.tls.into_iter().zip(self.https) {
            let front = Front {
                tls: behind.certificates.clone(),
                proxy_protocol: config.tls.proxy_protocol,
                ..front()
            };
            let hand_over = hand_over(
                router(config, &behind.context, address, true),
                behind.turn.clone(),
            );
            let (listener, end) = ends.of(listener)?;
            tasks.spawn(front.serve(listener, end, hand_over));
        }
        if let Some(listener) = self.metrics {
            let guard = guard(config, listener.socket.local_addr()?, false);
            let metrics = http::metrics_router(Arc::clone(&behind.context), guard);
            let hand_over = hand_over(metrics, None);
            let (listener, end) = ends.of(listener)?;
            tasks.spawn(
                Front::plain(Arc::clone(&behind.connections)).serve(listener, end, hand_over),
            );
        }
        Ok(())
    }
}

/// When listeners stop accepting.
pub(super) struct StopSignals {
    /// The process ends: until then newcomers are told that the box drains.
    pub(super) stop: watch::Receiver<bool>,
    /// The drain begins: who comes to a listener that systemd holds too waits in its queue for
    /// the next process.
    pub(super) drain: watch::Receiver<bool>,
}

impl StopSignals {
    fn of(&self, listener: Listener) -> Result<(TcpListener, watch::Receiver<bool>)> {
        let end = match listener.inherited {
            true => self.drain.clone(),
            false => self.stop.clone(),
        };
        Ok((TcpListener::from_std(listener.socket)?, end))
    }
}

/// The certificates of the TLS port, and who keeps them fresh.
pub(super) struct Certificates {
    pub(super) store: Arc<CertStore>,
    keeper: Keeper,
}

enum Keeper {
    Files(PemFiles),
    Acme(AcmeOrders),
}

impl Certificates {
    /// Opens their source; `None` where TLS is not served.
    pub(super) fn open(tls: &Tls) -> Result<Option<Self>> {
        let Some(source) = &tls.certificates else {
            return Ok(None);
        };
        let store = Arc::new(CertStore::default());
        let keeper = match source {
            CertificateSource::Files { cert, key } => {
                let files = PemFiles::open(cert, key, &store);
                Keeper::Files(files.map_err(|error| anyhow!("tls.cert: {error}"))?)
            }
            CertificateSource::Acme(acme) => {
                let orders = AcmeOrders::open(acme, &store);
                Keeper::Acme(orders.map_err(|error| anyhow!("tls.acme: {error}"))?)
            }
        };
        Ok(Some(Self { store, keeper }))
    }

    /// Keeps them fresh from here on; `reload` makes files be looked at at once.
    pub(super) fn keep(self, reload: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Arc<CertStore> {
        let (store, reload) = (Arc::clone(&self.store), Arc::clone(reload));
        tasks.spawn(async move {
            match self.keeper {
                Keeper::Files(files) => files.watch(&store, &reload).await,
                Keeper::Acme(orders) => orders.run(&store).await,
            }
        });
        let store = Arc::clone(&self.store);
        tasks.spawn(async move { store.watch_expiry(clock::unix_now).await });
        self.store
    }
}

fn bind(
    addresses: &[SocketAddr],
    (name, key): (&str, &str),
    inherited: &mut Inherited,
) -> Result<(Vec<Listener>, Vec<SocketAddr>)> {
    let mut listeners = vec![];
    for address in addresses {
        match inherited.tcp(name, *address, key) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.is_half_of_pair(*address, addresses) => {
                tracing::warn!("{error}; the rest is served");
            }
            // The process that was here before is gone: what can be served is served.
            Err(error) if inherited.is_successor() => {
                tracing::error!("{error}; the rest is served")
            }
            Err(error) => return Err(error.into()),
        }
    }
    let bound: Result<Vec<_>, _> = listeners.iter().map(|l| l.socket.local_addr()).collect();
    Ok((listeners, bound?))
}

/// What the HTTP port at `address` serves.
fn router(config: &Config, context: &Arc<AppState>, address: SocketAddr, tls: bool) -> Router {
    http::router(Arc::clone(context), guard(config, address, tls))
}

/// Whom the HTTP port at `address` answers.
fn guard(config: &Config, address: SocketAddr, tls: bool) -> Guard {
    let origins = config.http.allowed_origins.iter();
    Guard {
        public_host: config.public.host.clone(),
        allowed_origins: origins.filter_map(|origin| origin.parse().ok()).collect(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        loopback: address.ip().is_loopback(),
        tls,
    }
}

/// What becomes of the connections of a port.
fn hand_over(
    router: Router,
    turn: Option<TurnHandler>,
) -> impl Fn(Accepted) + Send + Sync + 'static {
    move |accepted| {
        let version = match accepted.protocol {
            Protocol::Http1 => Version::Http1,
            Protocol::Http2 => Version::Http2,
            Protocol::Turn => {
                if let Some(take) = &turn {
                    take(accepted);
                }
                return;
            }
        };
        let router = router.clone();
        let caller = Caller {
            client: accepted.client,
            local: accepted.local,
            place: Arc::new(accepted.place),
        };
        match accepted.wire {
            Wire::Plain(stream) => tokio::spawn(http::serve(stream, caller, version, router)),
            Wire::Tls(stream) => tokio::spawn(http::serve(stream, caller, version, router)),
        };
    }
}
