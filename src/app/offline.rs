//! What a box would hand out that runs by a configuration, without one that runs.

use super::addresses::announced;
use super::ice_urls::{IceUrlBuilder, issuer};
use super::listeners::Certificates;
use crate::auth::credential::IceIssuer;
use crate::config::Config;
use crate::net::Names;
use std::net::SocketAddr;

/// The issuer of a box that runs by `config`, without binding a port: one of port 0 is left out.
pub async fn ice_issuer(config: &Config) -> IceIssuer {
    let fixed = |addresses: &[SocketAddr]| -> Vec<SocketAddr> {
        let fixed = addresses.iter().filter(|address| address.port() != 0);
        fixed.copied().collect()
    };
    let (udp, tcp) = (
        fixed(&config.turn.udp.addresses),
        fixed(&config.turn.tcp.addresses),
    );
    let tls = fixed(&config.tls.listen);
    let announced = announced(config, &mut Names::new(&config.public.addresses)).await;
    let served = IceUrlBuilder::new(config, &announced, &udp, &tcp, &tls);
    let certificates = Certificates::open(&config.tls).ok().flatten();
    let shown = certificates.and_then(|certs| certs.store.current());
    issuer(config, served.urls(shown.as_deref()))
}
