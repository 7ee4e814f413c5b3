//! The relay as a peer reaches it: over sockets, or in a virtual network.

use callbox::cli::nat::{self, Datagrams};
use callbox::cli::reach::{RelayUrl, Stream, Via};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use webrtc_util::Conn;
use webrtc_util::vnet::net::Net;

/// One URL of `iceServers` with its credential.
#[derive(Clone)]
pub enum Relay {
    /// Over sockets.
    Real(RelayUrl),
    /// In a virtual network.
    Virtual(VirtualRelay),
}

/// A relay of a virtual network.
#[derive(Clone)]
pub struct VirtualRelay {
    /// The transport.
    pub via: Via,
    /// Where it listens.
    pub address: SocketAddr,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Opens a stream, unless the network's firewall refuses it: virtual networks have no TCP.
    pub dial: Dial,
}

/// Opens a stream.
pub type Dial = Arc<dyn Fn() -> Result<Box<dyn Stream>, String> + Send + Sync>;

/// A socket of a virtual network.
pub struct VirtualSocket(pub Arc<dyn Conn + Send + Sync>);

impl Datagrams for VirtualSocket {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.0.send_to(bytes, to).await.map_err(io::Error::other)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer).await.map_err(io::Error::other)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map_err(io::Error::other)
    }
}

impl Relay {
    /// The transport.
    #[must_use]
    pub fn via(&self) -> Via {
        match self {
            Self::Real(url) => url.via(),
            Self::Virtual(relay) => relay.via,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Real(url) => url.address(),
            Self::Virtual(relay) => relay.address,
        }
    }

    /// User name and password.
    #[must_use]
    pub fn credential(&self) -> (&str, &str) {
        match self {
            Self::Real(url) => url.credential(),
            Self::Virtual(relay) => (&relay.username, &relay.password),
        }
    }

    /// Whether it is reached: over sockets, an allocation is made and given back; in a virtual network,
    /// a Binding request is answered, or a stream opens.
    pub async fn works(&self, net: &Net) -> bool {
        match self {
            Self::Real(url) => url.try_out().await.is_ok(),
            Self::Virtual(relay) if relay.via != Via::Udp => (relay.dial)().is_ok(),
            Self::Virtual(relay) => {
                let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
                match net.bind(any).await {
                    Ok(socket) => {
                        let socket = VirtualSocket(socket);
                        let answers = nat::is_answered(&socket, relay.address).await;
                        let _ = socket.0.close().await;
                        answers
                    }
                    Err(_) => false,
                }
            }
        }
    }

    /// A stream to it.
    ///
    /// # Errors
    /// A phrase that says what failed.
    pub async fn stream(&self) -> Result<Box<dyn Stream>, String> {
        match self {
            Self::Real(url) => url.stream().await,
            Self::Virtual(relay) => (relay.dial)(),
        }
    }
}
