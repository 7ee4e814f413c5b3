//! Reaching a host: names, TCP, TLS, each step with its deadline.
//!
//! The box's own HTTPS client is not used here: it reports one failure for all steps, and the doctor
//! has to tell them apart. The root store is the same.

use super::fault::Fault;
use crate::net::https;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection or an answer may take: twice the first retransmission of a lost SYN
/// (RFC 6298 section 2: 1 s, then 2 s) with room for a slow handshake.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A byte stream to the box, whatever is under it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connected [`Stream`].
pub(super) type BoxedStream = Box<dyn Stream>;

/// At most one address a family, IPv4 first: what differs between two of one family is none of
/// the doctor's business.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => timeout(TIMEOUT, lookup_host((host, port)))
            .await
            .map_err(|_| Fault::Unresolved("the name servers do not answer".into()))?
            .map_err(|error| Fault::Unresolved(error.to_string()))?
            .collect(),
    };
    let first = |ipv4| {
        found
            .iter()
            .find(|a: &&SocketAddr| a.is_ipv4() == ipv4)
            .copied()
    };
    Ok(first(true).into_iter().chain(first(false)).collect())
}

/// Connects over TCP, and TLS where `tls` gives the name that the certificate has to bear.
pub(super) async fn connect(
    address: SocketAddr,
    tls: Option<(&Arc<ClientConfig>, &str)>,
) -> Result<BoxedStream, Fault> {
    let stream = timeout(TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| Fault::Silent)??;
    // Requests here are single small writes.
    let _ = stream.set_nodelay(true);
    let Some((config, host)) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Fault::Unresolved(format!("{host:?} is not a valid host name")))?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    match timeout(TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(error.into()),
        // It took the connection and never answered the greeting.
        Err(_) => Err(Fault::Foreign),
    }
}

/// Trusts what this machine trusts (`SSL_CERT_FILE` names another store).
pub(super) fn trust() -> Arc<ClientConfig> {
    // A machine without authorities can still ask a box over plain HTTP.
    let config = https::system_trust().unwrap_or_else(|_| https::trust(RootCertStore::empty()));
    Arc::new(config)
}
