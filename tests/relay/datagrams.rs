//! UDP clients.

use crate::client;
use crate::relay::{Relay, SOON, echo};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

async fn crate_client(relay: &Relay, password: Option<&str>) -> Client {
    let credential = relay.credential("alice");
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = relay.udp.to_string();
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.clone(),
        turn_serv_addr: server,
        username: credential.username,
        password: password.map_or(credential.password, str::to_owned),
        realm: "callbox".into(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(socket),
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_webrtc_rs_relays_to_a_peer_and_back() {
    let relay = Relay::start(2);
    let client = crate_client(&relay, None).await;
    let mapped = client.send_binding_request().await.unwrap();
    assert!(mapped.ip().is_loopback());
    let relayed = client.allocate().await.unwrap();
    let peer = echo("127.0.0.1");
    let mut buffer = vec![0; 2000];
    // The first ones go as indications, later ones over the channel that it binds meanwhile.
    for length in [0, 1, 160, 1200, 1400, 1200, 3] {
        let payload = vec![length as u8; length];
        relayed.send_to(&payload, peer).await.unwrap();
        let (received, from) = relayed.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..received], from), (payload.as_slice(), peer));
    }
    relayed.close().await.unwrap();
    let stats = relay
        .eventually(|stats| stats.engine.allocations_closed == 1)
        .await;
    assert_eq!(stats.engine.to_peers.packets, 7);
    assert_eq!(stats.engine.to_clients.packets, 7);
    assert!(relay.handle.allocations().await.is_empty());
    client.close().await.unwrap();
}

/// A report without DATA (RFC 8656 section 11.5) would end what reads for this client, and for pion's.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_there_does_not_silence_the_client_of_webrtc_rs() {
    let relay = Relay::start(1);
    let client = crate_client(&relay, None).await;
    let relayed = client.allocate().await.unwrap();
    let dead = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    relayed.send_to(b"anyone?", dead).await.unwrap();
    relay.eventually(|stats| stats.io.icmp_errors > 0).await;
    let peer = echo("127.0.0.1");
    relayed.send_to(b"hello", peer).await.unwrap();
    let mut buffer = [0; 16];
    let answer = tokio::time::timeout(SOON, relayed.recv_from(&mut buffer)).await;
    assert_eq!(answer.unwrap().unwrap(), (5, peer));
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_gets_no_allocation() {
    let relay = Relay::start(1);
    let client = crate_client(&relay, Some("south")).await;
    assert!(client.allocate().await.is_err());
    assert_eq!(relay.stats().await.engine.allocations_opened, 0);

    let mut credential = relay.credential("alice");
    credential.password = "south".into();
    assert_eq!(client::udp(relay.udp, credential).allocate(), Err(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_carry_whatever_fits_over_both_families() {
    let relay = Relay::start(2);
    for server in [relay.udp, relay.udp_v6] {
        let mut client = client::udp(server, relay.credential("alice"));
        let relayed = client.allocate().unwrap();
        assert!(relayed.ip().is_loopback());
        let peer = echo(if relayed.is_ipv4() {
            "127.0.0.1"
        } else {
            "::1"
        });
        client.bind(0x4000, peer).unwrap();
        for length in [0, 1, 2, 3, 4, 1200, 65_000] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            client.send_channel(0x4000, &payload);
            assert_eq!(client.receive_channel(), (0x4000, payload));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_different_workers_meet_inside_the_box() {
    let relay = Relay::start(4);
    let mut clients: Vec<_> = (0..12)
        .map(|index| {
            let mut client = client::udp(relay.udp, relay.credential(&format!("user{index}")));
            let relayed = client.allocate().unwrap();
            (client, relayed)
        })
        .collect();
    let relayed: Vec<SocketAddr> = clients.iter().map(|(_, relayed)| *relayed).collect();
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        for (other, peer) in relayed.iter().enumerate().filter(|(o, _)| *o != index) {
            client.bind(0x4000 + other as u16, *peer).unwrap();
        }
    }
    let pairs = 12 * 11;
    for from in 0..12_u16 {
        for to in (0..12_u16).filter(|to| *to != from) {
            // A flow's datagrams keep their order, whichever workers they pass.
            for count in 0..10 {
                let (client, _) = &mut clients[usize::from(from)];
                client.send_channel(0x4000 + to, &[count; 99]);
            }
            for count in 0..10 {
                let (client, _) = &mut clients[usize::from(to)];
                let received = client.receive_channel();
                assert_eq!(received, (0x4000 + from, vec![count; 99]), "{from} to {to}");
            }
        }
    }
    let stats = relay.stats().await;
    assert_eq!(stats.engine.hairpinned.packets, pairs * 10);
    assert_eq!(stats.io.hand_over_full, 0);
    // The kernel spreads clients by a hash of their ports; twelve on one of four workers would
    // happen once in four million runs.
    assert!(stats.io.handed_over > 0 && stats.io.handed_over <= pairs * 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_arrives_whole_and_in_order() {
    let relay = Relay::start(1);
    let mut client = client::udp(relay.udp, relay.credential("alice"));
    client.allocate().unwrap();
    let peer = echo("127.0.0.1");
    client.bind(0x4001, peer).unwrap();
    for burst in 0..50_u8 {
        for index in 0..20 {
            let length = if index == 19 { 333 } else { 1100 };
            client.send_channel(0x4001, &vec![burst ^ index; length]);
        }
        for index in 0..20 {
            let length = if index == 19 { 333 } else { 1100 };
            let expected = (0x4001, vec![burst ^ index; length]);
            assert_eq!(client.receive_channel(), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_there_costs_nothing_but_its_datagrams() {
    let relay = Relay::start(1);
    let mut client = client::udp(relay.udp, relay.credential("alice"));
    client.allocate().unwrap();
    let dead = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let peer = echo("127.0.0.1");
    client.bind(0x4001, dead).unwrap();
    client.bind(0x4002, peer).unwrap();
    for count in 0..50 {
        client.send_channel(0x4001, b"anyone?");
        client.send_channel(0x4002, &[count; 50]);
        assert_eq!(client.receive_channel(), (0x4002, vec![count; 50]));
    }
    let stats = relay.eventually(|stats| stats.io.icmp_errors > 0).await;
    assert_eq!(stats.io.send_errors, 0);
}

/// Sends 100 Binding requests, one a millisecond, and returns how many pauses the worker has made
/// meanwhile.
async fn pauses_of_a_hundred(relay: &Relay) -> u64 {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let before = relay.stats().await.io.pauses;
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..100 {
        pace.tick().await;
        let request = client::binding_request();
        socket.send_to(&request.raw, relay.udp).await.unwrap();
    }
    relay.stats().await.io.pauses - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_time_to_spare_lets_datagrams_come_together_unless_told_not_to() {
    let relay = Relay::coalescing(1, Duration::from_millis(5));
    let deadline = Instant::now() + SOON;
    let pauses = loop {
        // A machine that is busy with other things may not let it judge the rate at once.
        match pauses_of_a_hundred(&relay).await {
            0 => assert!(Instant::now() < deadline, "it does not pause"),
            pauses => break pauses,
        }
    };
    // Several come in each of them.
    assert!(pauses < 50, "{pauses}");
    let relay = Relay::coalescing(1, Duration::ZERO);
    assert_eq!(pauses_of_a_hundred(&relay).await, 0);
}

/// RFC 5780: from another port of the box, a client learns how its NAT filters.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_response_comes_from_the_port_that_was_asked_for() {
    let relay = Relay::start(2);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let ask = |attributes: &[u8]| {
        let header = [0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        let request = [&header[..], &[7; 12], attributes].concat();
        client.send_to(&request, relay.udp).unwrap();
        let mut response = [0; 200];
        let (length, from) = client.recv_from(&mut response).unwrap();
        (response[..length].to_vec(), from)
    };
    let (plain, from) = ask(&[]);
    assert_eq!((&plain[..2], from), (&[1, 1][..], relay.udp));
    let (changed, from) = ask(&[0, 3, 0, 4, 0, 0, 0, 2]);
    assert_eq!((&changed[..2], from), (&[1, 1][..], relay.udp_second));
}
