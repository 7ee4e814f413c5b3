//! From configuration to a running relay: sockets, addresses, settings, and what an operator sees.

use super::handover::RelayPart;
use crate::address::shown_socket;
use crate::clock::unix_now;
use crate::config::{Config, Listen};
use crate::http::{RelayAdmin, RelayRow};
use crate::net::{self, Accepted, Announced, BindError, Connections, Wire};
use crate::relay::engine::{AllocationView, PeerPolicy, Quotas, Settings};
use crate::relay::shared::RelayAddress;
use crate::relay::{Admit, ClientStream, Listeners, RelayConfig, RelayHandle, Restored, Takeover};
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A running relay, and where it is served.
#[derive(Default)]
pub(super) struct Started {
    pub(super) relay: Option<Arc<RelayHandle>>,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<SocketAddr>,
    /// What it has taken over from an earlier process.
    pub(super) restored: Option<Restored>,
}

/// Starts the relay that `config` asks for, on what an earlier process has left if it has; TCP
/// clients count among `connections`.
pub(super) fn start(
    config: &Config,
    announced: &[Announced],
    connections: &Arc<Connections>,
    part: Option<RelayPart>,
) -> Result<Started> {
    if !config.turn.enabled {
        return Ok(Started::default());
    }
    if let Some(part) = part {
        // What was left may be anything: a fault in reading it is not the end of the box.
        let take_over = || {
            #[cfg(test)]
            crate::signal::panics::come_by("relay");
            take_over(config, announced, connections, part)
        };
        match catch_unwind(AssertUnwindSafe(take_over)) {
            Ok(Ok(started)) => return Ok(started),
            Ok(Err(error)) => tracing::error!(
                "the relay of the earlier process cannot be taken over: {error}; it starts anew, \
                 and clients have to allocate again"
            ),
            Err(_) => tracing::error!(
                "the relay of the earlier process cannot be taken over: reading it panicked; it \
                 starts anew, and clients have to allocate again"
            ),
        }
    }
    let udp = each(&config.turn.udp, |address| net::udp(address, "turn.udp"))?;
    let tcp = each(&own_tcp(config), |address| net::tcp(address, "turn.tcp"))?;
    let mut started = Started {
        udp: udp
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<io::Result<_>>()?,
        tcp: tcp_addresses(config, &tcp).context("relay")?,
        ..Started::default()
    };
    let listeners = Listeners {
        udp,
        tcp,
        admit: Some(admission(connections)),
    };
    let relay = RelayHandle::start(relay_config(config, announced), listeners);
    started.relay = Some(Arc::new(relay.context("relay")?));
    Ok(started)
}

/// Goes on with the relay of an earlier process.
fn take_over(
    config: &Config,
    announced: &[Announced],
    connections: &Arc<Connections>,
    part: RelayPart,
) -> Result<Started, String> {
    let RelayPart { mut state, mut tcp } = part;
    for waits in waiting(config, state.workers.len(), &state.shared.ports()) {
        tracing::warn!("{waits}: it applies from `systemctl stop` and `systemctl start` on");
    }
    let mut keep = vec![false; state.udp.len()];
    let mut missing = vec![];
    for wanted in &config.turn.udp.addresses {
        let mut known = state.udp.iter().zip(&mut keep);
        match known.find(|(bound, kept)| !**kept && names(*wanted, **bound)) {
            Some((_, kept)) => *kept = true,
            None => missing.push(*wanted),
        }
    }
    // What is not served any more may be in the way of what is from now on.
    state.close_listeners(&mut keep);
    let bind_udp =
        |address| bind_or_say(config.turn.udp.explicit, || net::udp(address, "turn.udp"));
    let fresh: Vec<_> = missing.into_iter().filter_map(bind_udp).collect();
    let listen = own_tcp(config);
    let (mut listening, mut missing) = (vec![], vec![]);
    for wanted in &listen.addresses {
        match tcp.iter().position(|(bound, _)| names(*wanted, *bound)) {
            Some(index) => listening.push(tcp.remove(index).1),
            None => missing.push(*wanted),
        }
    }
    drop(tcp);
    let bind_tcp = |address| bind_or_say(listen.explicit, || net::tcp(address, "turn.tcp"));
    listening.extend(missing.into_iter().filter_map(bind_tcp));
    let words = |error: io::Error| error.to_string();
    let addresses = tcp_addresses(config, &listening).map_err(words)?;
    let kept = state.udp.iter().zip(&keep).filter(|(_, kept)| **kept);
    let mut udp: Vec<_> = kept.map(|(address, _)| *address).collect();
    for socket in &fresh {
        udp.push(UdpSocket::local_addr(socket).map_err(words)?);
    }
    let listeners = Listeners {
        udp: fresh,
        tcp: listening,
        admit: Some(admission(connections)),
    };
    let takeover = Takeover { state, keep };
    let (relay, restored) =
        RelayHandle::restore(relay_config(config, announced), listeners, takeover)?;
    Ok(Started {
        relay: Some(Arc::new(relay)),
        udp,
        tcp: addresses,
        restored: Some(restored),
    })
}

/// What of the configuration a relay that goes on does not take up.
fn waiting(config: &Config, workers: usize, ports: &RangeInclusive<u16>) -> Vec<String> {
    let mut waiting = vec![];
    if workers != config.turn.workers {
        let wanted = config.turn.workers;
        waiting.push(format!("turn.workers stays {workers} and not {wanted}"));
    }
    let wanted = &config.turn.relay_ports.0;
    if ports != wanted {
        waiting.push(format!(
            "turn.relay_ports stays {}-{} and not {}-{}",
            ports.start(),
            ports.end(),
            wanted.start(),
            wanted.end()
        ));
    }
    waiting
}

/// Whether the configuration means the listener that is bound to `bound`.
fn names(wanted: SocketAddr, bound: SocketAddr) -> bool {
    wanted == bound || wanted.port() == 0 && wanted.ip() == bound.ip()
}

/// A listener that the earlier process had not. There is no way back to that process: what cannot
/// be bound is passed over aloud.
fn bind_or_say<T>(explicit: bool, bind: impl FnOnce() -> Result<T, BindError>) -> Option<T> {
    match bind() {
        Ok(socket) => Some(socket),
        Err(error) => {
            if explicit {
                tracing::error!("{error}; the rest is served");
            }
            None
        }
    }
}

/// The addresses of `turn.tcp` that are no others' too.
fn own_tcp(config: &Config) -> Listen {
    let addresses = config.turn.tcp.addresses.iter().copied();
    Listen {
        addresses: addresses.filter(|a| !config.shares_port(*a)).collect(),
        ..config.turn.tcp
    }
}

/// Where TURN is served over TCP: by the relay's own listeners, and on shared ports.
fn tcp_addresses(config: &Config, own: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<_> = own
        .iter()
        .map(TcpListener::local_addr)
        .collect::<io::Result<_>>()?;
    let all = config.turn.tcp.addresses.iter().copied();
    addresses.extend(all.filter(|address| config.shares_port(*address)));
    Ok(addresses)
}

pub(super) fn admission(connections: &Arc<Connections>) -> Admit {
    let connections = Arc::clone(connections);
    Arc::new(move |client| {
        let place = connections.enter(Some(client), Instant::now());
        let place = place.ok().filter(|place| !place.is_turned_away())?;
        Some(Box::new(place))
    })
}

fn relay_config(config: &Config, announced: &[Announced]) -> RelayConfig {
    let own = announced.iter().flat_map(|a| [a.address, a.local]);
    RelayConfig {
        settings: settings(config, own),
        addresses: announced.iter().map(address).collect(),
        ports: config.turn.relay_ports.0.clone(),
        workers: config.turn.workers,
        coalesce: config.turn.coalesce,
    }
}

/// Where relays live that are announced so.
pub(super) fn address(announced: &Announced) -> RelayAddress {
    RelayAddress {
        bind: announced.local,
        announced: announced.address,
    }
}

/// The addresses of this machine's interfaces: what listens there is out of every relay's reach.
pub(super) fn interfaces() -> BTreeSet<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(|interface| interface.ip()).collect()
}

/// The part of the configuration that a running relay can take anew; `own` are the addresses on
/// which relays live.
pub(super) fn settings(config: &Config, own: impl IntoIterator<Item = IpAddr>) -> Settings {
    let turn = &config.turn;
    let own = own.into_iter().chain(interfaces()).collect();
    Settings {
        realm: turn.realm.clone(),
        secrets: turn.secrets.clone(),
        users: turn.users.clone(),
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
        reports_icmp: turn.icmp,
    }
}

/// Hands a connection that speaks TURN to a worker.
pub(super) fn serve_turn_stream(relay: &RelayHandle, accepted: Accepted) {
    let (client, local) = (accepted.client, accepted.local);
    let (prefix, stream) = match accepted.wire {
        Wire::Plain(stream) => (
            stream.buffer().to_vec(),
            ClientStream::tcp(stream.into_inner()),
        ),
        Wire::Tls(stream) => (
            stream.buffer().to_vec(),
            ClientStream::tls(stream.into_inner()),
        ),
    };
    match stream {
        Ok(stream) => {
            let stream = stream.holding(Box::new(accepted.place));
            relay.serve_stream(stream, client, local, &prefix);
        }
        Err(error) => tracing::debug!(
            client = shown_socket(client),
            "cannot hand a stream to the relay: {error}"
        ),
    }
}

/// What an operator may do; on a box without a relay there is nothing to list. `longest_ttl` is the
/// longest life, in seconds, of what this box has minted.
pub(super) fn admin(relay: Option<Arc<RelayHandle>>, longest_ttl: Arc<AtomicU64>) -> RelayAdmin {
    let (listed, asked) = (relay.clone(), relay.clone());
    RelayAdmin {
        revoked_until: Box::new(move |user| asked.as_ref()?.shared().revoked_until(user)),
        list: Box::new(move || {
            let relay = listed.clone();
            Box::pin(async move {
                match relay {
                    Some(relay) => relay.allocations().await.into_iter().map(row).collect(),
                    None => vec![],
                }
            })
        }),
        revoke: Box::new(move |user| {
            if let Some(relay) = &relay {
                revoke_all(relay, user, &longest_ttl, None);
            }
        }),
    }
}

/// Closes the relays of a user and refuses all that this box has minted for it so far.
/// `longest_ttl` is the longest life, in seconds, of any such credential.
pub(super) fn revoke_all(
    relay: &RelayHandle,
    user: &str,
    longest_ttl: &AtomicU64,
    client: Option<IpAddr>,
) {
    // After a revocation, credentials expire one second past `revoked_until` at the earliest.
    let past = relay
        .shared()
        .revoked_until(user)
        .map_or(0, |revoked_until| revoked_until + 1);
    let longest = unix_now() + longest_ttl.load(Ordering::Relaxed);
    relay.revoke_client(user, past.max(longest), client);
}

fn row(view: AllocationView) -> RelayRow {
    RelayRow {
        user: view.user.to_string(),
        identity: None,
        room_id: None,
        transport: view.five_tuple.transport.as_str(),
        client: shown_socket(view.five_tuple.client),
        relayed: view.relayed.iter().map(ToString::to_string).collect(),
        bytes_sent: view.sent.bytes,
        bytes_received: view.received.bytes,
        age: view.age.as_secs(),
        expires_in: view.expires_in.as_secs(),
    }
}

/// Binds each address. Of those that nobody wrote down, one that the machine lacks is passed over,
/// and a second port that is taken costs nothing but the discovery of NATs.
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
            Err(error) if error.is_half_of_pair(*address, &listen.addresses) => {
                tracing::warn!("{error}; the rest is served");
            }
            Err(error) if !listen.explicit && error.is_taken() && is_second(listen, *address) => {
                tracing::warn!("no second STUN port, so that no NAT is told by it: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Whether another port of the same address comes before this one.
fn is_second(listen: &Listen, address: SocketAddr) -> bool {
    let first = listen.addresses.iter().find(|a| a.ip() == address.ip());
    first != Some(&address)
}

#[cfg(test)]
mod tests {
    use super::{Listen, each, waiting};
    use crate::app::App;
    use crate::config::Config;
    use crate::net;
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::net::{Shutdown, TcpStream};
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn what_waits_for_a_cold_start_is_named_with_both_values() {
        let config = Config::load(None, std::iter::empty()).unwrap();
        let (workers, ports) = (config.turn.workers, config.turn.relay_ports.0.clone());
        assert!(waiting(&config, workers, &ports).is_empty());
        let said = waiting(&config, workers + 1, &(20_000..=20_063));
        let stays = format!("turn.workers stays {} and not {workers}", workers + 1);
        assert_eq!(said[0], stays);
        assert!(said[1].starts_with("turn.relay_ports stays 20000-20063 and not "));
    }

    #[test]
    fn a_second_stun_port_that_is_taken_is_passed_over_and_a_first_one_is_not() {
        let taken = net::udp("127.0.0.1:0".parse().unwrap(), "turn.udp").unwrap();
        let (free, held) = ("127.0.0.1:0".parse().unwrap(), taken.local_addr().unwrap());
        let bind = |addresses: &[SocketAddr], explicit| {
            let addresses = addresses.to_vec();
            let listen = Listen {
                addresses,
                explicit,
            };
            each(&listen, |address| net::udp(address, "turn.udp")).map(|sockets| sockets.len())
        };
        assert_eq!(bind(&[free, held], false).unwrap(), 1);
        assert!(bind(&[free, held], true).is_err(), "it was written down");
        assert!(
            bind(&[held, free], false).is_err(),
            "clients are sent there"
        );
    }

    #[tokio::test]
    async fn the_end_of_a_stream_is_heard_however_much_was_said_before() {
        let app = App::on_free_ports().await;
        let (server, relay) = (app.tcp[0], app.relay.clone().unwrap());
        let request = b"\0\x01\0\0\x21\x12\xa4\x42last words..";
        // For a channel that there is not: it is dropped.
        let chatter = [&[0x40, 0, 0x03, 0xe8][..], &[0; 1000]].concat();
        let story = move |chatters: usize| {
            let mut client = TcpStream::connect(server).unwrap();
            // Sooner than a connection without an allocation is ended anyway.
            let patience = Some(Duration::from_secs(8));
            client.set_read_timeout(patience).unwrap();
            let mut reply = [0; 64];
            client.write_all(request).unwrap();
            let length = client.read(&mut reply).unwrap();

            // Words and end wait for the worker together.
            let (stands, stood) = mpsc::channel();
            let (go_on, waits) = mpsc::channel::<()>();
            relay.run_on_worker(move || {
                stands.send(()).unwrap();
                let _ = waits.recv();
            });
            stood.recv().unwrap();
            client.write_all(&chatter.repeat(chatters)).unwrap();
            client.write_all(request).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            drop(go_on);
            let mut rest = vec![];
            client.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, reply[..length], "behind {chatters} kB");
        };
        // What one read takes, and more.
        let stories = move || [0, 40].map(story);
        tokio::task::spawn_blocking(stories).await.unwrap();
    }
}
