//! The relay as the rest of the program sees it, on `turn::server` 0.17.2.
//!
//! Owns the listeners and the choice of relay ports. `turn::server` takes one key a username, so
//! only the first secret verifies, and its known faults are left as they are.

use super::conn::{ClientConn, Directory, RelayConn};
use super::engine::PeerPolicy;
use crate::auth::credential::{TurnSecrets, Username};
use async_trait::async_trait;
use rand::RngExt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::RelayAddressGenerator;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::Conn;

/// RFC 8656 section 12: a channel binding lasts 10 minutes.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// Ports tried before an allocation is refused.
const PORT_TRIES: usize = 16;

/// What relayed sockets bind to, and what clients are told in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// A local address.
    pub local: IpAddr,
    /// The address that peers reach.
    pub announced: IpAddr,
}

/// What the relay runs by.
pub struct RelayConfig {
    /// REALM of the long-term credential mechanism.
    pub realm: String,
    /// What verifies credentials.
    pub secrets: TurnSecrets,
    /// Whom the relay may reach.
    pub policy: PeerPolicy,
    /// At most one a family.
    pub addresses: Vec<RelayAddress>,
    /// Where relayed addresses take their ports.
    pub ports: RangeInclusive<u16>,
}

/// A running relay; dropping it ends every allocation.
pub struct RelayHandle {
    server: Server,
}

impl RelayHandle {
    /// Serves STUN and TURN on bound, non-blocking sockets.
    ///
    /// # Errors
    /// A socket cannot be registered with the runtime, or the server refuses the configuration.
    pub async fn start(
        config: RelayConfig,
        listeners: Vec<std::net::UdpSocket>,
    ) -> Result<Self, turn::Error> {
        let shared = Arc::new(Shared {
            policy: config.policy,
            addresses: config.addresses,
            ports: config.ports,
            directory: Directory::default(),
        });
        let mut conn_configs = vec![];
        for listener in listeners {
            conn_configs.push(ConnConfig {
                conn: Arc::new(ClientConn(UdpSocket::from_std(listener)?)),
                relay_addr_generator: Box::new(RelayPorts(Arc::clone(&shared))),
            });
        }
        let server = Server::new(ServerConfig {
            conn_configs,
            realm: config.realm,
            auth_handler: Arc::new(RestAuth(config.secrets)),
            channel_bind_timeout: CHANNEL_LIFETIME,
            alloc_close_notify: None,
        })
        .await?;
        Ok(Self { server })
    }

    /// Ends every allocation and closes the listeners.
    pub async fn close(&self) {
        if let Err(error) = self.server.close().await {
            tracing::debug!("relay did not close cleanly: {error}");
        }
    }
}

pub(super) struct Shared {
    pub(super) policy: PeerPolicy,
    addresses: Vec<RelayAddress>,
    ports: RangeInclusive<u16>,
    pub(super) directory: Directory,
}

struct RelayPorts(Arc<Shared>);

#[async_trait]
impl RelayAddressGenerator for RelayPorts {
    fn validate(&self) -> Result<(), turn::Error> {
        Ok(())
    }

    async fn allocate_conn(
        &self,
        ipv4: bool,
        requested_port: u16,
    ) -> Result<(Arc<dyn Conn + Send + Sync>, SocketAddr), turn::Error> {
        let address = self
            .0
            .addresses
            .iter()
            .find(|a| a.announced.is_ipv4() == ipv4)
            .ok_or(turn::Error::ErrListeningAddressInvalid)?;
        for _ in 0..PORT_TRIES {
            let port = match requested_port {
                0 => rand::rng().random_range(self.0.ports.clone()),
                port => port,
            };
            if let Ok(socket) = UdpSocket::bind((address.local, port)).await {
                let announced = SocketAddr::new(address.announced, port);
                return Ok((RelayConn::open(socket, announced, &self.0), announced));
            }
        }
        Err(turn::Error::ErrMaxRetriesExceeded)
    }
}

struct RestAuth(TurnSecrets);

impl AuthHandler for RestAuth {
    fn auth_handle(
        &self,
        username: &str,
        realm: &str,
        _client: SocketAddr,
    ) -> Result<Vec<u8>, turn::Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Username::parse(username)
            .filter(|parsed| parsed.expiry > now)
            .and_then(|_| self.0.passwords(username).next())
            .map(|password| generate_auth_key(username, realm, &password))
            .ok_or(turn::Error::ErrNoSuchUser)
    }
}
