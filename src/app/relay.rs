//! From configuration to a running relay: sockets, addresses, settings.

use super::ice_urls::{self, IceUrls, Served};
use crate::config::{Config, Listen};
use crate::net::{self, Announced, BindError, Identity};
use crate::relay::engine::{PeerPolicy, Quotas, Settings};
use crate::relay::ledger::RelayAddress;
use crate::relay::{Listeners, RelayConfig, RelayHandle};
use anyhow::Result;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// Everything that TURN is served on, bound and not yet served.
#[derive(Default)]
pub(super) struct Bound {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    identity: Option<Identity>,
}

/// Binds what the configuration names; nothing where TURN is off.
pub(super) fn bind(config: &Config) -> Result<Bound> {
    if !config.turn.enabled {
        return Ok(Bound::default());
    }
    let mut bound = Bound {
        udp: each(&config.turn.udp, |address| net::udp(address, "turn.udp"))?,
        tcp: each(&config.turn.tcp, |address| net::tcp(address, "turn.tcp"))?,
        ..Bound::default()
    };
    if let Some(tls) = &config.tls {
        bound.identity = Some(Identity::load(&tls.cert, &tls.key)?);
        for address in &tls.listen {
            bound.tls.push(net::tcp(*address, "tls.listen")?);
        }
    }
    Ok(bound)
}

impl Bound {
    pub(super) fn ice_urls(&self, config: &Config, announced: &[Announced]) -> IceUrls {
        let served = Served {
            udp: &addresses(&self.udp, UdpSocket::local_addr),
            tcp: &addresses(&self.tcp, TcpListener::local_addr),
            tls: &addresses(&self.tls, TcpListener::local_addr),
        };
        let certified = |host: &str| self.identity.as_ref().is_some_and(|i| i.names(host));
        ice_urls::of(&config.public, announced, &served, certified)
    }

    pub(super) fn start(self, config: &Config, announced: &[Announced]) -> io::Result<RelayHandle> {
        let listeners = Listeners {
            udp: self.udp,
            tcp: self.tcp,
            tls: self.identity.map(|identity| (self.tls, identity.config)),
        };
        let relay_address = |a: &Announced| RelayAddress {
            bind: a.local,
            announced: a.address,
        };
        let relay_config = RelayConfig {
            settings: settings(config, announced),
            addresses: announced.iter().map(relay_address).collect(),
            ports: config.turn.relay_ports.0.clone(),
            workers: config.turn.workers,
        };
        RelayHandle::start(relay_config, listeners)
    }
}

/// The part of the configuration that a running relay can take anew.
fn settings(config: &Config, announced: &[Announced]) -> Settings {
    let turn = &config.turn;
    let mut own: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(|i| i.ip())
        .collect();
    own.extend(announced.iter().map(|a| a.address));
    Settings {
        realm: turn.realm.clone(),
        secrets: turn.secrets.clone(),
        policy: PeerPolicy::new(turn.allowed_peers.clone(), turn.denied_peers.clone(), own),
        quotas: Quotas {
            user: turn.user_quota,
            ip: turn.ip_quota,
            total: turn.total_quota,
        },
        max_session: turn.max_session,
        max_rate: turn.max_rate.map(|rate| rate.0 / 8),
        total_rate: turn.total_rate.map(|rate| rate.0 / 8),
        alternates: turn.alternate.clone(),
    }
}

/// Binds each address; one that nobody wrote down and the machine lacks is passed over.
fn each<T>(
    listen: &Listen,
    bind: impl Fn(SocketAddr) -> Result<T, BindError>,
) -> Result<Vec<T>, BindError> {
    let mut sockets = vec![];
    for address in &listen.addresses {
        match bind(*address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if !listen.explicit && error.is_absent_address() => {
                tracing::debug!("passed over {address}: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

fn addresses<T>(sockets: &[T], address: impl Fn(&T) -> io::Result<SocketAddr>) -> Vec<SocketAddr> {
    sockets.iter().filter_map(|s| address(s).ok()).collect()
}
