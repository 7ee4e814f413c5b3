//! A port that carries several protocols: PROXY header, TLS, and then HTTP and TURN told apart by
//! what the client says first.
//!
//! Owns a connection until it has said what it is; then it is handed over, and this module knows
//! it no more. What has not spoken is bounded in time and number.

mod proxy;
mod sniff;

pub use sniff::Protocol;

use super::certs::{ACME_ALPN, CertStore};
use crate::network::network_of;
use ipnet::IpNet;
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take from `accept` to its first byte, PROXY header and TLS handshake
/// included.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one port that have not spoken yet: a TLS handshake holds some 40 KiB.
const MAX_SILENT: usize = 1024;
/// How long written bytes may wait for a client that takes none (tcp(7), TCP_USER_TIMEOUT): what
/// reads nothing for so long is gone or means harm.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that may wait in the kernel, unsent, for a client of HTTP or WebSocket (tcp(7),
/// TCP_NOTSENT_LOWAT): by itself it holds megabytes for one that does not read, and a session's own
/// bound on what waits would come into play behind them. A full socket has room again once half of it
/// is gone, which is what a slow client has to manage within `signal.timeout`.
const MAX_NOT_SENT: u32 = 32 * 1024;
/// Pause after a failed `accept`: out of file descriptors, for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes looked at before a connection is handed over. Small, as it stays beneath HTTP; reads that
/// are larger pass it by.
const PEEK: usize = 16;

/// A stream of either kind, with what was looked at still in its buffer.
pub enum Wire {
    /// Bare TCP.
    Plain(BufReader<TcpStream>),
    /// TLS, its handshake done.
    Tls(Box<BufReader<TlsStream<TcpStream>>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream.get_ref(),
            Self::Tls(stream) => stream.get_ref().get_ref().0,
        }
    }
}

/// A connection that has said what it is.
pub struct Accepted {
    /// The connection itself.
    pub wire: Wire,
    /// What it carries.
    pub protocol: Protocol,
    /// The client: the socket's other end, or whom a trusted proxy names.
    pub client: SocketAddr,
    /// The address that the client asked.
    pub local: SocketAddr,
}

/// How one port greets its clients.
#[derive(Default)]
pub struct Front {
    /// Certificates, where the port speaks TLS.
    pub tls: Option<Arc<CertStore>>,
    /// Whose connections begin with a PROXY header.
    pub proxies: Vec<IpNet>,
}

impl Front {
    /// Accepts until `stop` turns true, and hands over every connection that says in time what it
    /// is; `hand_over` must not block.
    pub async fn serve(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        hand_over: impl Fn(Accepted) + Send + Sync + 'static,
    ) {
        let greeter = Arc::new(Greeter {
            tls: self
                .tls
                .map(|store| TlsAcceptor::from(Arc::new(store.server_config(&sniff::ALPN)))),
            proxies: self.proxies,
            hand_over,
        });
        let places = Arc::new(Semaphore::new(MAX_SILENT));
        let mut silent = Silent::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if places.available_permits() == 0 {
                silent.drop_one();
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let greeter = Arc::clone(&greeter);
            let greeting = tokio::spawn(async move {
                greeter.meet(stream, client).await;
                drop(place);
            });
            silent.push(client.ip(), greeting.abort_handle());
        }
    }
}

/// Connections that have not spoken, oldest first, among some that have since.
#[derive(Default)]
struct Silent(VecDeque<(IpAddr, AbortHandle)>);

impl Silent {
    fn push(&mut self, client: IpAddr, task: AbortHandle) {
        if self.0.len() >= 2 * MAX_SILENT {
            self.0.retain(|(_, task)| !task.is_finished());
        }
        self.0.push_back((network_of(client), task));
    }

    /// The network that has most of them makes room, so that whoever opens many loses its own; the
    /// one that has been silent longest goes, as a client that means to speak does so within
    /// fractions of a second.
    fn drop_one(&mut self) {
        self.0.retain(|(_, task)| !task.is_finished());
        let mut shares = HashMap::new();
        for (network, _) in &self.0 {
            *shares.entry(*network).or_insert(0) += 1;
        }
        let shares: &HashMap<IpAddr, u32> = &shares;
        // Of equal ones the first found, which is the oldest.
        let greedy = self
            .0
            .iter()
            .rev()
            .max_by_key(|(network, _)| shares[network]);
        let Some(&(greedy, _)) = greedy else { return };
        let oldest = self.0.iter().position(|(network, _)| *network == greedy);
        if let Some((_, task)) = oldest.and_then(|oldest| self.0.remove(oldest)) {
            task.abort();
        }
    }
}

struct Greeter<H> {
    tls: Option<TlsAcceptor>,
    proxies: Vec<IpNet>,
    hand_over: H,
}

impl<H: Fn(Accepted)> Greeter<H> {
    async fn meet(&self, stream: TcpStream, client: SocketAddr) {
        match timeout(GREETING_TIMEOUT, self.greet(stream, client)).await {
            Ok(Ok(Some(accepted))) => (self.hand_over)(accepted),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%client, "connection failed: {error}"),
            Err(_) => tracing::debug!(%client, "said nothing in time"),
        }
    }

    /// `None`: the client speaks no protocol of this port, or was an authority that has seen what
    /// it asked for.
    async fn greet(
        &self,
        mut stream: TcpStream,
        mut client: SocketAddr,
    ) -> io::Result<Option<Accepted>> {
        // Signaling frames are small and wait for nothing.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT))?;
        let mut local = stream.local_addr()?;
        if self.is_proxy(client.ip())
            && let Some(proxied) = proxy::read(&mut stream).await?
        {
            (client, local) = (proxied.source, proxied.destination);
        }
        let (wire, alpn, first) = match &self.tls {
            None => {
                let mut stream = BufReader::with_capacity(PEEK, stream);
                let first = first_byte(&mut stream).await?;
                (Wire::Plain(stream), None, first)
            }
            Some(acceptor) => {
                let stream = acceptor.accept(stream).await?;
                let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                if alpn.as_deref() == Some(ACME_ALPN) {
                    return Ok(None);
                }
                let mut stream = Box::new(BufReader::with_capacity(PEEK, stream));
                let first = first_byte(&mut stream).await?;
                (Wire::Tls(stream), alpn, first)
            }
        };
        let Some(protocol) = Protocol::of(alpn.as_deref(), first) else {
            let alpn = alpn.as_deref().map(String::from_utf8_lossy);
            tracing::debug!(%client, ?alpn, first, "speaks nothing that this port carries");
            return Ok(None);
        };
        if protocol != Protocol::Turn {
            SockRef::from(wire.tcp()).set_tcp_notsent_lowat(MAX_NOT_SENT)?;
        }
        Ok(Some(Accepted {
            wire,
            protocol,
            client,
            local,
        }))
    }

    fn is_proxy(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.proxies.iter().any(|net| net.contains(&client))
    }
}

async fn first_byte(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<u8> {
    let seen = stream.fill_buf().await?;
    seen.first()
        .copied()
        .ok_or(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests;
