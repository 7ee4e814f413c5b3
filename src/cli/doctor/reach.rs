//! What the doctor reaches a box with, for the other program of the package: the box's WebSocket,
//! and its relay over each transport.

use super::dial;
use super::fault::Fault;
use super::relay::Server;
use super::turn::Credential;
use super::url::{BaseUrl, IceUrl, Transport};
use rustls::ClientConfig;
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// A byte stream to the box, whatever is under it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A WebSocket over whatever the box's URL says.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// How a relay is spoken to; the order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// Where the box's HTTP is, and whose certificates are believed.
#[derive(Clone)]
pub struct BoxUrl {
    base: BaseUrl,
    trust: Arc<ClientConfig>,
}

/// One URL of `iceServers` at one address, with its credential.
#[derive(Clone)]
pub struct RelayUrl {
    server: Server,
}

impl BoxUrl {
    /// Reads a URL; without `trust`, what this machine trusts is believed.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn parse(url: &str, trust: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        Ok(Self {
            base: BaseUrl::parse(url)?,
            trust: trust.unwrap_or_else(dial::trust),
        })
    }

    /// Whether it begins with `https:`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.base.tls
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.base.port
    }

    /// The IPv4 address of the box, or the only one it has.
    ///
    /// # Errors
    /// A sentence: the name has no address.
    pub async fn resolve(&self) -> Result<SocketAddr, String> {
        let found = dial::resolve(&self.base.host, self.base.port).await;
        let found = found.map_err(|fault| format!("{}: {}", self.base.host, said(&fault)))?;
        let first = found.first().copied();
        first.ok_or_else(|| format!("{} has no address", self.base.host))
    }

    /// Opens the box's WebSocket at `address`, which [`Self::resolve`] gave.
    ///
    /// # Errors
    /// A phrase that says what failed.
    pub async fn websocket(&self, address: SocketAddr) -> Result<Socket, String> {
        let open = async {
            let tls = self
                .base
                .tls
                .then_some((&self.trust, self.base.host.as_str()));
            let stream = dial::connect(address, tls).await?;
            let scheme = if self.base.tls { "wss" } else { "ws" };
            let request = format!("{scheme}://{}/ws", self.base.authority())
                .into_client_request()
                .map_err(|error| Fault::Other(error.to_string()))?;
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok::<_, Fault>(client_async(request, stream).await?.0)
        };
        open.await.map_err(|fault| said(&fault))
    }

    /// The relays of an `iceServers` value, each at its IPv4 address if it has one.
    pub async fn relays(&self, ice_servers: &serde_json::Value) -> Vec<RelayUrl> {
        let mut found = vec![];
        for entry in ice_servers.as_array().into_iter().flatten() {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let credential = Credential {
                username: text("username"),
                password: text("credential"),
            };
            for url in urls_of(entry).filter_map(IceUrl::parse) {
                let addresses = dial::resolve(&url.host, url.port).await;
                let address = addresses.ok().and_then(|found| found.first().copied());
                if let Some(address) = address.filter(|_| url.relays) {
                    let trust = Arc::clone(&self.trust);
                    let credential = credential.clone();
                    found.push(RelayUrl {
                        server: Server {
                            url,
                            address,
                            credential,
                            trust,
                        },
                    });
                }
            }
        }
        found
    }
}

/// The URLs of one entry of `iceServers`.
pub fn urls_of(entry: &serde_json::Value) -> impl Iterator<Item = &str> {
    entry["urls"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
}

impl RelayUrl {
    /// The transport that its URL names.
    #[must_use]
    pub fn via(&self) -> Via {
        match self.server.url.transport {
            Transport::Udp => Via::Udp,
            Transport::Tcp => Via::Tcp,
            Transport::Tls => Via::Tls,
        }
    }

    /// Where the relay listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// User name and password.
    #[must_use]
    pub fn credential(&self) -> (&str, &str) {
        let Credential { username, password } = &self.server.credential;
        (username, password)
    }

    /// Makes an allocation and gives it back; returns the relayed address.
    ///
    /// # Errors
    /// A phrase that says what failed.
    pub async fn try_out(&self) -> Result<SocketAddr, String> {
        let allocated = self.server.allocate(false).await;
        allocated
            .map(|allocated| allocated.relayed)
            .map_err(|fault| said(&fault))
    }

    /// A stream to it, where its transport is one.
    ///
    /// # Errors
    /// A phrase that says what failed.
    pub async fn stream(&self) -> Result<Box<dyn Stream>, String> {
        let Server {
            url,
            address,
            trust,
            ..
        } = &self.server;
        let tls = (self.via() == Via::Tls).then_some((trust, url.host.as_str()));
        let stream = dial::connect(*address, tls).await;
        let stream = stream.map_err(|fault| said(&fault))?;
        Ok(Box::new(stream))
    }
}

impl fmt::Display for BoxUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// A fault in few words; why it is one depends on the network, which the caller knows.
fn said(fault: &Fault) -> String {
    match fault {
        Fault::Unresolved(reason) => format!("the name has no address ({reason})"),
        Fault::Refused => "the port is closed".into(),
        Fault::NoRoute => "there is no route".into(),
        Fault::Silent => "nothing came back".into(),
        Fault::Tls(tls) => format!("TLS failed ({tls:?})"),
        Fault::Foreign => "the connection was cut, or another protocol answered".into(),
        Fault::Http(status, line) => format!("HTTP {status} ({line})"),
        Fault::Signaling(code, text) => format!("{code}: {text}"),
        Fault::Stun(code, reason, _) => format!("the relay answered {code} ({reason})"),
        Fault::Lost(_) => "a payload was lost".into(),
        Fault::PrivateRelay(ip) => format!("the relayed address {ip} is private"),
        Fault::Other(text) => text.clone(),
    }
}
