//! The sockets under `turn::server`: errors of one datagram never end a listener, peers are judged
//! on the way out and in, and two relays of this box meet inside the process.

use super::engine::Verdict;
use super::server::Shared;
use async_trait::async_trait;
use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use webrtc_util::Conn;

/// Datagrams waiting in one relay for its reader; further ones are dropped, as a full socket
/// buffer would.
const HAIRPIN_QUEUE: usize = 256;

type Datagram = (Vec<u8>, SocketAddr);
type Result<T> = std::result::Result<T, webrtc_util::Error>;

/// The living relayed addresses of this box.
#[derive(Default)]
pub(super) struct Directory(Mutex<HashMap<SocketAddr, mpsc::Sender<Datagram>>>);

impl Directory {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<SocketAddr, mpsc::Sender<Datagram>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A listener that outlives every receive error.
pub(super) struct ClientConn(pub(super) UdpSocket);

#[async_trait]
impl Conn for ClientConn {
    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        loop {
            match self.0.recv_from(buffer).await {
                Ok(received) => return Ok(received),
                Err(error) => tracing::debug!("receive from a client: {error}"),
            }
        }
    }

    async fn send_to(&self, datagram: &[u8], client: SocketAddr) -> Result<usize> {
        if let Err(error) = self.0.send_to(datagram, client).await {
            tracing::debug!("send to a client: {error}");
        }
        Ok(datagram.len())
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    async fn connect(&self, _: SocketAddr) -> Result<()> {
        Err(unconnected())
    }

    async fn recv(&self, _: &mut [u8]) -> Result<usize> {
        Err(unconnected())
    }

    async fn send(&self, _: &[u8]) -> Result<usize> {
        Err(unconnected())
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

/// One relayed address.
pub(super) struct RelayConn {
    socket: UdpSocket,
    announced: SocketAddr,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Datagram>>,
    shared: Arc<Shared>,
}

impl RelayConn {
    pub(super) fn open(
        socket: UdpSocket,
        announced: SocketAddr,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        let (sender, inbox) = mpsc::channel(HAIRPIN_QUEUE);
        shared
            .directory
            .with(|relays| relays.insert(announced, sender));
        let inbox = tokio::sync::Mutex::new(inbox);
        Arc::new(Self {
            socket,
            announced,
            inbox,
            shared: Arc::clone(shared),
        })
    }

    /// Tells whether a datagram from `peer` may have come over the network: the box's own
    /// addresses are heard inside the process only.
    fn hears(&self, peer: SocketAddr) -> bool {
        matches!(
            self.shared.policy.judge(peer.ip()),
            Verdict::Allow | Verdict::Own { listed: true }
        )
    }
}

impl Drop for RelayConn {
    fn drop(&mut self) {
        self.shared
            .directory
            .with(|relays| relays.remove(&self.announced));
    }
}

#[async_trait]
impl Conn for RelayConn {
    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        let mut inbox = self.inbox.lock().await;
        loop {
            tokio::select! {
                received = self.socket.recv_from(buffer) => match received {
                    Ok((length, peer)) if self.hears(peer) => return Ok((length, peer)),
                    Ok(_) => {}
                    Err(error) => tracing::debug!("receive from a peer: {error}"),
                },
                Some((datagram, from)) = inbox.recv() => {
                    let length = datagram.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&datagram[..length]);
                    return Ok((length, from));
                }
            }
        }
    }

    async fn send_to(&self, datagram: &[u8], peer: SocketAddr) -> Result<usize> {
        let verdict = self.shared.policy.judge(peer.ip());
        let relay = match verdict {
            Verdict::Own { .. } => self
                .shared
                .directory
                .with(|relays| relays.get(&peer).cloned()),
            _ => None,
        };
        match (verdict, relay) {
            (_, Some(relay)) => {
                // Full: dropped, as a socket buffer would.
                let _ = relay.try_send((datagram.to_vec(), self.announced));
            }
            (Verdict::Allow | Verdict::Own { listed: true }, None) => {
                if let Err(error) = self.socket.send_to(datagram, peer).await {
                    tracing::debug!("send to a peer: {error}");
                }
            }
            _ => tracing::debug!(%peer, "peer refused by policy"),
        }
        Ok(datagram.len())
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.announced)
    }

    async fn connect(&self, _: SocketAddr) -> Result<()> {
        Err(unconnected())
    }

    async fn recv(&self, _: &mut [u8]) -> Result<usize> {
        Err(unconnected())
    }

    async fn send(&self, _: &[u8]) -> Result<usize> {
        Err(unconnected())
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Result<()> {
        self.shared
            .directory
            .with(|relays| relays.remove(&self.announced));
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

fn unconnected() -> webrtc_util::Error {
    webrtc_util::Error::Other("the socket is not connected".into())
}
