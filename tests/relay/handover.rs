//! A relay that gives everything up, and another one that goes on from there.

use crate::client;
use crate::relay::{Relay, echo, settings};
use callbox::relay::{Listeners, RelayConfig, RelayHandle, RelayState, Takeover};
use std::net::UdpSocket;
use std::time::Duration;

fn config(relay: &Relay) -> RelayConfig {
    RelayConfig {
        settings: settings(&relay.secrets),
        addresses: vec![],
        // Those of the earlier relay stay.
        ports: 40_000..=40_001,
        workers: 1,
        coalesce: Duration::ZERO,
    }
}

fn takeover(state: RelayState) -> Takeover {
    Takeover {
        keep: vec![true; state.udp.len()],
        state,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_udp_and_tcp_go_on_and_what_came_meanwhile_is_not_lost() {
    let relay = Relay::start(3);
    let peer = echo("127.0.0.1");
    let mut by_udp = client::udp(relay.udp, relay.credential("alice"));
    let mut by_tcp = client::tcp(relay.tcp, relay.credential("bob"));
    let relayed = [by_udp.allocate().unwrap(), by_tcp.allocate().unwrap()];
    by_udp.bind(0x4000, peer).unwrap();
    by_tcp.bind(0x4000, peer).unwrap();
    let listeners = relay.handle.tcp_listeners().unwrap();
    let state = relay.handle.give_up().unwrap();
    assert_eq!(state.workers.len(), 3);
    for number in 0..50_u8 {
        by_udp.send_channel(0x4000, &[number]);
        by_tcp.send_channel(0x4000, &[number, 0, 0, 0]);
    }
    let listeners = Listeners {
        tcp: listeners,
        ..Listeners::default()
    };
    let (after, restored) =
        RelayHandle::restore(config(&relay), listeners, takeover(state)).unwrap();
    assert_eq!(
        (restored.allocations, restored.streams, restored.lost),
        (2, 1, 0)
    );
    for number in 0..50_u8 {
        assert_eq!(by_udp.receive_channel(), (0x4000, vec![number]));
        let (_, payload) = by_tcp.receive_channel();
        assert_eq!(payload, [number, 0, 0, 0]);
    }
    // The shared state has come along too: a newcomer gets another port, and the port of an allocation that
    // ends is given back.
    assert_eq!(after.shared().allocations(), 2);
    let mut late = client::tcp(relay.tcp, relay.credential("carol"));
    assert!(!relayed.contains(&late.allocate().unwrap()));
    let stats = after.stats().await.unwrap();
    assert_eq!(stats.engine.allocations_opened, 3, "counters go on");
    after.close();
    for address in relayed {
        assert!(UdpSocket::bind(address).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_refused_and_leaves_no_socket_open() {
    let relay = Relay::start(2);
    let mut client = client::udp(relay.udp, relay.credential("alice"));
    let relayed = client.allocate().unwrap();
    let mut state = relay.handle.give_up().unwrap();
    let data = &mut state.workers[1].data;
    data.truncate(data.len() / 2);
    let refused = RelayHandle::restore(config(&relay), Listeners::default(), takeover(state));
    assert!(refused.is_err());
    drop(refused);
    for address in [relayed, relay.udp, relay.udp_v6] {
        assert!(UdpSocket::bind(address).is_ok(), "{address}");
    }
}
