//! The TCP ports: where their certificates come from, and whom each connection is handed to.

use crate::config::{CertificateSource, Config, Tls};
use crate::http::{self, Context, Guard, Version};
use crate::net::{self, Accepted, AcmeOrders, CertStore, Front, PemFiles, Protocol, Wire};
use anyhow::{Result, anyhow};
use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Takes a connection that speaks TURN; must not block.
pub(super) type TakeTurn = Arc<dyn Fn(Accepted) + Send + Sync>;

/// Bound listeners.
pub(super) struct Ports {
    plain: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    metrics: Option<TcpListener>,
    /// Where plain HTTP is served.
    pub(super) http: Vec<SocketAddr>,
    /// Where TLS is.
    pub(super) https: Vec<SocketAddr>,
}

impl Ports {
    /// Binds `http.listen`, `tls.listen` and `metrics.listen`.
    pub(super) fn bind(config: &Config) -> Result<Self> {
        let (plain, http) = bind(&config.http.listen, "http.listen")?;
        let (tls, https) = bind(&config.tls.listen, "tls.listen")?;
        Ok(Self {
            plain,
            tls,
            metrics: bind(config.metrics.as_slice(), "metrics.listen")?.0.pop(),
            http,
            https,
        })
    }

    /// Serves each port until `stop` turns true.
    pub(super) fn serve(
        self,
        config: &Config,
        context: &Arc<Context>,
        certificates: Option<&Arc<CertStore>>,
        turn: Option<&TakeTurn>,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        let proxies = &config.http.trusted_proxies;
        for (listener, address) in self.plain.into_iter().zip(self.http) {
            let hand_over = hand_over(router(config, context, address), None);
            tasks.spawn(Front::default().serve(listener, stop.clone(), hand_over));
        }
        for (listener, address) in self.tls.into_iter().zip(self.https) {
            let front = Front {
                tls: certificates.cloned(),
                proxies: config
                    .tls
                    .proxy_protocol
                    .then(|| proxies.clone())
                    .unwrap_or_default(),
            };
            let hand_over = hand_over(router(config, context, address), turn.cloned());
            tasks.spawn(front.serve(listener, stop.clone(), hand_over));
        }
        if let Some(listener) = self.metrics {
            let hand_over = hand_over(http::metrics_router(Arc::clone(context)), None);
            tasks.spawn(Front::default().serve(listener, stop.clone(), hand_over));
        }
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
        tasks.spawn(async move { store.watch_expiry(http::unix_now).await });
        self.store
    }
}

fn bind(addresses: &[SocketAddr], key: &str) -> Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let mut listeners = vec![];
    for address in addresses {
        listeners.push(TcpListener::from_std(net::tcp(*address, key)?)?);
    }
    let bound: Result<Vec<_>, _> = listeners.iter().map(TcpListener::local_addr).collect();
    Ok((listeners, bound?))
}

/// What the HTTP port at `address` serves.
fn router(config: &Config, context: &Arc<Context>, address: SocketAddr) -> Router {
    let guard = Guard {
        public_host: config.public.host.clone(),
        allowed_origins: config.http.allowed_origins.clone(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        loopback: address.ip().is_loopback(),
    };
    http::router(Arc::clone(context), guard)
}

/// What becomes of the connections of a port.
fn hand_over(router: Router, turn: Option<TakeTurn>) -> impl Fn(Accepted) + Send + Sync + 'static {
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
        let (client, router) = (accepted.client, router.clone());
        match accepted.wire {
            Wire::Plain(stream) => tokio::spawn(http::serve(stream, client, version, router)),
            Wire::Tls(stream) => tokio::spawn(http::serve(stream, client, version, router)),
        };
    }
}
