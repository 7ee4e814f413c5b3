//! A port that carries several protocols: PROXY header, TLS, and then HTTP and TURN told apart by
//! what the client says first.
//!
//! Owns a connection until it has said what it is; then it is handed over, and this module knows
//! it no more. What has not spoken is bounded in time and number.

mod proxy;
mod sniff;

pub use sniff::Protocol;

use super::certs::{ACME_ALPN, CertStore};
use super::connections::{Connections, Place, SilentNote};
use crate::address::shown_socket;
use ipnet::IpNet;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take from `accept` to its first byte, or to the end of its PROXY header.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take from there: a TLS handshake, and the first byte inside. Thousands that come
/// back at once wait for each other's handshakes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
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
    /// Its place in the count of connections: to be kept as long as the connection is.
    pub place: Place,
}

/// How one port greets its clients.
pub struct Front {
    /// Certificates, where the port speaks TLS.
    pub tls: Option<Arc<CertStore>>,
    /// Whose connections are charged to the client that they name.
    pub trusted: Vec<IpNet>,
    /// Whether connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// The count of the whole box.
    pub connections: Arc<Connections>,
}

impl Front {
    /// A plain port that trusts no proxy.
    pub fn plain(connections: Arc<Connections>) -> Self {
        Self {
            tls: None,
            trusted: vec![],
            proxy_protocol: false,
            connections,
        }
    }

    /// Accepts until `stop` turns true, and hands over every connection that says in time what it
    /// is; `hand_over` must not block.
    pub async fn serve(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        hand_over: impl Fn(Accepted) + Send + Sync + 'static,
    ) {
        let connections = self.connections;
        let greeter = Arc::new(Greeter {
            tls: self
                .tls
                .map(|store| TlsAcceptor::from(Arc::new(store.server_config(&sniff::ALPN)))),
            trusted: self.trusted,
            proxy_protocol: self.proxy_protocol,
            hand_over,
        });
        loop {
            // Who comes once it is to stop waits for the next process, however late this one gets there.
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let charged = (!greeter.is_trusted(client.ip())).then_some(client.ip());
            let now = Instant::now();
            let place = match connections.enter(charged, now) {
                Ok(place) => place,
                Err(full) => {
                    tracing::debug!(
                        client = shown_socket(client),
                        "connection closed at once: {full}"
                    );
                    continue;
                }
            };
            let silent = connections.note_silent(charged, now);
            let key = silent.key();
            let greeter = Arc::clone(&greeter);
            let greeting = tokio::spawn(async move {
                greeter.meet(stream, client, place, silent).await;
            });
            connections.may_abort(key, greeting.abort_handle());
        }
    }
}

struct Greeter<H> {
    tls: Option<TlsAcceptor>,
    trusted: Vec<IpNet>,
    proxy_protocol: bool,
    hand_over: H,
}

impl<H: Fn(Accepted)> Greeter<H> {
    async fn meet(&self, stream: TcpStream, client: SocketAddr, place: Place, silent: SilentNote) {
        match self.greet(stream, client, place).await {
            Ok(Some(accepted)) => (self.hand_over)(accepted),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::debug!(client = shown_socket(client), "said nothing in time");
            }
            Err(error) => {
                tracing::debug!(client = shown_socket(client), "connection failed: {error}")
            }
        }
        drop(silent);
    }

    /// `None`: the client speaks no protocol of this port, or was an authority that has seen what
    /// it asked for.
    async fn greet(
        &self,
        mut stream: TcpStream,
        mut client: SocketAddr,
        place: Place,
    ) -> io::Result<Option<Accepted>> {
        // Signaling frames are small and wait for nothing.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT))?;
        let mut local = stream.local_addr()?;
        if self.proxy_protocol && self.is_trusted(client.ip()) {
            let header = timeout(GREETING_TIMEOUT, proxy::read(&mut stream)).await??;
            if let Some(proxied) = header {
                (client, local) = (proxied.source, proxied.destination);
                let charged = place.belongs_to(client.ip());
                charged.map_err(io::Error::other)?;
            }
        }
        // Until it has spoken, a client costs a socket: TLS would hold buffers for it.
        timeout(GREETING_TIMEOUT, stream.peek(&mut [0])).await??;
        let spoken = timeout(HANDSHAKE_TIMEOUT, self.recognize(stream, client)).await??;
        Ok(spoken.map(|(wire, protocol)| Accepted {
            wire,
            protocol,
            client,
            local,
            place,
        }))
    }

    /// Shakes hands where the port speaks TLS, and looks at the first byte.
    async fn recognize(
        &self,
        stream: TcpStream,
        client: SocketAddr,
    ) -> io::Result<Option<(Wire, Protocol)>> {
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
            tracing::debug!(
                client = shown_socket(client),
                ?alpn,
                first,
                "speaks nothing that this port carries"
            );
            return Ok(None);
        };
        if protocol != Protocol::Turn {
            SockRef::from(wire.tcp()).set_tcp_notsent_lowat(MAX_NOT_SENT)?;
        }
        Ok(Some((wire, protocol)))
    }

    fn is_trusted(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted.iter().any(|net| net.contains(&client))
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
