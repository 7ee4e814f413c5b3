//! The baseline: `turn::server` 0.17.2 as its own example sets it up, for what the crate the
//! project started from costs.

use super::turn::Credential;
use anyhow::Result;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

/// RFC 8656 section 12: a channel binding lasts 10 minutes.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Relays for the one user that the generator is, until the process is ended.
pub(crate) fn serve(listen: SocketAddrV4, realm: &str, credential: Credential) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::new(ServerConfig {
            conn_configs: vec![ConnConfig {
                conn: Arc::new(tokio::net::UdpSocket::bind(listen).await?),
                relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
                    relay_address: (*listen.ip()).into(),
                    address: listen.ip().to_string(),
                    net: Arc::new(Net::new(None)),
                }),
            }],
            realm: realm.to_owned(),
            auth_handler: Arc::new(OneUser(credential)),
            channel_bind_timeout: CHANNEL_LIFETIME,
            alloc_close_notify: None,
        })
        .await?;
        std::future::pending::<()>().await;
        Ok(server.close().await?)
    })
}

struct OneUser(Credential);

impl AuthHandler for OneUser {
    fn auth_handle(
        &self,
        username: &str,
        realm: &str,
        _source: SocketAddr,
    ) -> Result<Vec<u8>, turn::Error> {
        if username != self.0.username {
            return Err(turn::Error::ErrFakeErr);
        }
        Ok(generate_auth_key(username, realm, &self.0.password))
    }
}
