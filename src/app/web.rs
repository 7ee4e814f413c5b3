//! The TCP ports: where their certificates come from, and whom each connection is handed to.

use crate::config::{CertificateSource, Config, Tls};
use crate::http::{self, Context, Guard, Version};
use crate::net::{
    Accepted, CertStore, Front, Identity, Inherited, Listener, PemFiles, Protocol, Wire,
};
use anyhow::{Result, anyhow};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// `FileDescriptorName=` of socket units, each with the key that names the same addresses.
const SOCKET_NAMES: [(&str, &str); 2] = [("http", "http.listen"), ("tls", "tls.listen")];

/// Takes a connection that speaks TURN; must not block.
pub(super) type TakeTurn = Arc<dyn Fn(Accepted) + Send + Sync>;

/// Bound listeners.
pub(super) struct Ports {
    plain: Vec<Listener>,
    tls: Vec<Listener>,
    /// Where plain HTTP is served.
    pub(super) http: Vec<SocketAddr>,
    /// Where TLS is.
    pub(super) https: Vec<SocketAddr>,
}

impl Ports {
    /// Binds `http.listen` and `tls.listen`, but for what systemd bound beforehand.
    pub(super) fn bind(config: &Config, mut inherited: Inherited) -> Result<Self> {
        let [http, tls] = SOCKET_NAMES;
        let (plain, http) = bind(&config.http.listen, http, &mut inherited)?;
        let (tls, https) = bind(&config.tls.listen, tls, &mut inherited)?;
        inherited.finish(&SOCKET_NAMES)?;
        Ok(Self {
            plain,
            tls,
            http,
            https,
        })
    }

    /// Serves each port until its end comes.
    pub(super) fn serve(
        self,
        config: &Config,
        context: &Arc<Context>,
        certificates: Option<&Arc<CertStore>>,
        turn: Option<&TakeTurn>,
        ends: &Ends,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let proxies = &config.http.trusted_proxies;
        for (listener, address) in self.plain.into_iter().zip(self.http) {
            let hand_over = hand_over(config, context, address, None);
            let (listener, end) = ends.of(listener)?;
            tasks.spawn(Front::default().serve(listener, end, hand_over));
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
            let hand_over = hand_over(config, context, address, turn.cloned());
            let (listener, end) = ends.of(listener)?;
            tasks.spawn(front.serve(listener, end, hand_over));
        }
        Ok(())
    }
}

/// When listeners stop accepting.
pub(super) struct Ends {
    /// The process ends: until then newcomers are told that the box drains.
    pub(super) stop: watch::Receiver<bool>,
    /// The drain begins: who comes to a listener that systemd holds too waits in its queue for
    /// the next process.
    pub(super) drain: watch::Receiver<bool>,
}

impl Ends {
    fn of(&self, listener: Listener) -> Result<(TcpListener, watch::Receiver<bool>)> {
        let end = match listener.inherited {
            true => self.drain.clone(),
            false => self.stop.clone(),
        };
        Ok((TcpListener::from_std(listener.socket)?, end))
    }
}

/// Opens the source of certificates and keeps it fresh; `None` where TLS is not served.
/// `reload` makes files be looked at at once.
pub(super) fn certificates(
    tls: &Tls,
    reload: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Arc<CertStore>>> {
    let Some(source) = &tls.certificates else {
        return Ok(None);
    };
    let store = Arc::new(CertStore::default());
    let kept = Arc::clone(&store);
    match source {
        CertificateSource::Files { cert, key } => {
            let files =
                PemFiles::open(cert, key, &store).map_err(|error| anyhow!("tls: {error}"))?;
            let reload = Arc::clone(reload);
            tasks.spawn(async move { files.watch(&kept, &reload).await });
        }
        CertificateSource::Acme(_) => {}
    }
    let watched = Arc::clone(&store);
    tasks.spawn(async move { watched.watch_expiry(http::unix_now).await });
    Ok(Some(store))
}

/// The certificate that a box would show first, as far as its files tell.
pub(super) fn certificate(tls: &Tls) -> Option<Arc<Identity>> {
    let Some(CertificateSource::Files { cert, key }) = &tls.certificates else {
        return None;
    };
    let store = CertStore::default();
    PemFiles::open(cert, key, &store).ok()?;
    store.current()
}

fn bind(
    addresses: &[SocketAddr],
    (name, key): (&str, &str),
    inherited: &mut Inherited,
) -> Result<(Vec<Listener>, Vec<SocketAddr>)> {
    let mut listeners = vec![];
    for address in addresses {
        listeners.push(inherited.tcp(name, *address, key)?);
    }
    let bound: Result<Vec<_>, _> = listeners.iter().map(|l| l.socket.local_addr()).collect();
    Ok((listeners, bound?))
}

/// What becomes of the connections of the port at `address`.
fn hand_over(
    config: &Config,
    context: &Arc<Context>,
    address: SocketAddr,
    turn: Option<TakeTurn>,
) -> impl Fn(Accepted) + Send + Sync + 'static {
    let guard = Guard {
        public_host: config.public.host.clone(),
        allowed_origins: config.http.allowed_origins.clone(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        loopback: address.ip().is_loopback(),
    };
    let router = http::router(Arc::clone(context), guard);
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
