//! Payloads through a relay: between two allocations, and from this machine to one.
//!
//! The far end of a pair over UDP and IPv4 is the `turn` crate's client, so that the box is seen
//! to agree with an implementation that is not its own.

use super::fault::{Fault, Leg};
use super::turn::{Allocated, Credential, TurnClient};
use super::url::{IceUrl, Transport};
use super::wire::{Wire, socket_for};
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig as CrateConfig};
use webrtc_util::Conn;

/// A payload may be lost on the way to the server or back: it is sent this often …
const SENDINGS: usize = 4;
/// … and waited for this long each time.
const ROUND_TRIP: Duration = Duration::from_millis(500);

/// One server of one URL, and who asks it.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: IceUrl,
    pub(super) address: SocketAddr,
    pub(super) credential: Credential,
    pub(super) trust: Arc<ClientConfig>,
}

/// How a payload from outside fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    Arrived(SocketAddr),
    /// This machine is the box, whose own addresses are not reached over the network.
    SameHost,
    /// The box refuses this machine's address as a peer: a private one.
    Refused,
    /// This machine was seen over the other family.
    OtherFamily,
}

impl Server {
    async fn wire(&self) -> Result<Wire, Fault> {
        Wire::open(
            self.address,
            &self.url.host,
            self.url.transport,
            &self.trust,
        )
        .await
    }

    async fn client(&self) -> Result<TurnClient, Fault> {
        Ok(TurnClient::new(self.wire().await?, self.credential.clone()))
    }

    /// Asks for a reflexive address.
    pub(super) async fn binding(&self) -> Result<SocketAddr, Fault> {
        super::turn::binding(&mut self.wire().await?).await
    }

    /// Only allocates, and gives back.
    pub(super) async fn allocate(&self, ipv6: bool) -> Result<Allocated, Fault> {
        let mut client = self.client().await?;
        let allocated = client.allocate(ipv6).await?;
        client.release().await;
        Ok(allocated)
    }

    /// Sends a payload from one allocation to another and back.
    pub(super) async fn between_relays(&self) -> Result<Allocated, Fault> {
        let mut near = self.client().await?;
        let here = near.allocate(false).await?;
        let mut far = FarEnd::open(self).await?;
        let outcome = exchange(&mut near, here.relayed, &mut far).await;
        near.release().await;
        far.release().await;
        outcome.map(|()| here)
    }

    /// Sends a payload from a socket of this machine to an allocation, as a peer elsewhere does.
    pub(super) async fn probe_from_outside(&self) -> Result<Outside, Fault> {
        let mut client = self.client().await?;
        let allocated = client.allocate(false).await?;
        let outcome = self.receive_from_outside(&mut client, allocated).await;
        client.release().await;
        outcome
    }

    async fn receive_from_outside(
        &self,
        client: &mut TurnClient,
        Allocated { relayed, mapped }: Allocated,
    ) -> Result<Outside, Fault> {
        if mapped.is_ipv4() != relayed.is_ipv4() {
            return Ok(Outside::OtherFamily);
        }
        if super::is_public(self.address.ip()) && !super::is_public(relayed.ip()) {
            return Err(Fault::PrivateRelay(relayed.ip()));
        }
        if mapped.ip() == self.address.ip() {
            return Ok(Outside::SameHost);
        }
        match client.permit(mapped).await {
            Err(Fault::Stun(403, ..)) => return Ok(Outside::Refused),
            other => other?,
        }
        let socket = socket_for(relayed).await?;
        let payload = payload();
        for _ in 0..SENDINGS {
            socket.send_to(&payload, relayed).await?;
            if client.await_payload(&payload, ROUND_TRIP).await.is_some() {
                return Ok(Outside::Arrived(relayed));
            }
        }
        let other_host =
            self.address.is_ipv4() == relayed.is_ipv4() && self.address.ip() != relayed.ip();
        Err(Fault::Lost(Leg::FromOutside {
            elsewhere: other_host.then(|| relayed.ip()),
        }))
    }
}

async fn exchange(near: &mut TurnClient, here: SocketAddr, far: &mut FarEnd) -> Result<(), Fault> {
    let there = far.relayed();
    near.permit(there).await?;
    far.permit(here).await?;
    let lost = || Fault::Lost(Leg::BetweenRelays);
    let (to_near, to_far) = (payload(), payload());
    let mut arrived = false;
    for _ in 0..SENDINGS {
        far.send(&to_near, here).await?;
        arrived = near.await_payload(&to_near, ROUND_TRIP).await == Some(there);
        if arrived {
            break;
        }
    }
    if !arrived {
        return Err(lost());
    }
    for _ in 0..SENDINGS {
        near.send(&to_far, there).await?;
        if far.await_payload(&to_far).await == Some(here) {
            return Ok(());
        }
    }
    Err(lost())
}

/// The second allocation of a pair.
enum FarEnd {
    Own(Box<TurnClient>, SocketAddr),
    Crate(Client, Box<dyn Conn + Send + Sync>),
}

impl FarEnd {
    async fn open(server: &Server) -> Result<Self, Fault> {
        if server.url.transport != Transport::Udp || server.address.is_ipv6() {
            let mut client = server.client().await?;
            let relayed = client.allocate(false).await?.relayed;
            return Ok(Self::Own(Box::new(client), relayed));
        }
        let foreign = |error: turn::Error| Fault::Other(error.to_string());
        let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
        let address = server.address.to_string();
        let client = Client::new(CrateConfig {
            stun_serv_addr: address.clone(),
            turn_serv_addr: address,
            username: server.credential.username.clone(),
            password: server.credential.password.clone(),
            realm: String::new(),
            software: String::new(),
            rto_in_ms: 0,
            conn: Arc::new(socket),
            vnet: None,
        })
        .await
        .map_err(foreign)?;
        client.listen().await.map_err(foreign)?;
        let conn = client.allocate().await.map_err(foreign)?;
        Ok(Self::Crate(client, Box::new(conn)))
    }

    fn relayed(&self) -> SocketAddr {
        match self {
            Self::Own(_, relayed) => *relayed,
            Self::Crate(_, conn) => conn.local_addr().expect("a relay knows its own address"),
        }
    }

    /// The crate's client asks for permission when it sends.
    async fn permit(&mut self, peer: SocketAddr) -> Result<(), Fault> {
        match self {
            Self::Own(client, _) => client.permit(peer).await,
            Self::Crate(..) => Ok(()),
        }
    }

    async fn send(&mut self, payload: &[u8], peer: SocketAddr) -> Result<(), Fault> {
        match self {
            Self::Own(client, _) => client.send(payload, peer).await,
            Self::Crate(_, conn) => match conn.send_to(payload, peer).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Fault::Other(error.to_string())),
            },
        }
    }

    async fn await_payload(&mut self, payload: &[u8]) -> Option<SocketAddr> {
        match self {
            Self::Own(client, _) => client.await_payload(payload, ROUND_TRIP).await,
            Self::Crate(_, conn) => {
                let mut buffer = [0; 1500];
                let wanted = async {
                    loop {
                        let (length, from) = conn.recv_from(&mut buffer).await.ok()?;
                        if &buffer[..length] == payload {
                            return Some(from);
                        }
                    }
                };
                timeout(ROUND_TRIP, wanted).await.ok().flatten()
            }
        }
    }

    async fn release(self) {
        match self {
            Self::Own(client, _) => client.release().await,
            Self::Crate(client, conn) => {
                let _ = conn.close().await;
                let _ = client.close().await;
            }
        }
    }
}

/// Nothing that a stray datagram could be.
fn payload() -> Vec<u8> {
    rand::random::<[u8; 32]>().to_vec()
}
