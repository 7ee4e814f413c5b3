//! What the handle does to living allocations.

use crate::client;
use crate::relay::{Relay, SOON, echo, settings, unix_now};
use callbox::auth::credential::TurnSecrets;
use callbox::relay::engine::PeerPolicy;
use secrecy::SecretString;
use std::net::UdpSocket;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_a_users_relays_at_once() {
    let relay = Relay::start(4);
    let credential = relay.credential("eve");
    let mut eves: Vec<_> = (0..8)
        .map(|_| {
            let mut client = client::udp(relay.udp, credential.clone());
            client.allocate().unwrap();
            client
        })
        .collect();
    let mut eve_by_tcp = client::tcp(relay.tcp, credential.clone());
    eve_by_tcp.allocate().unwrap();
    let mut alice = client::udp(relay.udp, relay.credential("alice"));
    alice.allocate().unwrap();
    assert_eq!(relay.handle.allocations().await.len(), 10);

    let revoked_at = Instant::now();
    relay.handle.revoke("eve", unix_now() + 3600);
    loop {
        let living = relay.handle.allocations().await;
        if living.len() == 1 {
            assert_eq!(&*living[0].user, "alice");
            break;
        }
        assert!(revoked_at.elapsed() < SOON);
    }
    assert_eq!(eves[0].allocate(), Err(401));
    let later = relay.secrets.mint("eve", unix_now() + 3601);
    assert!(client::udp(relay.udp, later).allocate().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_revocation_is_lost_among_thousands() {
    let relay = Relay::start(2);
    let mut clients: Vec<_> = (0..50)
        .map(|index| {
            let user = format!("user{index}");
            let mut client = client::udp(relay.udp, relay.credential(&user));
            client.allocate().unwrap();
            client
        })
        .collect();
    let revoked_until = unix_now() + 3600;
    for index in 0..20_000 {
        relay.handle.revoke(&format!("user{index}"), revoked_until);
    }
    relay
        .eventually(|stats| stats.engine.allocations_closed == 50)
        .await;
    assert_eq!(clients[49].allocate(), Err(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_relay_refuses_newcomers_and_serves_on() {
    let relay = Relay::start(2);
    let mut early = client::udp(relay.udp, relay.credential("early"));
    early.allocate().unwrap();
    relay.handle.drain();
    // An answer to a question comes after what was ordered before.
    relay.stats().await;
    let mut late = client::udp(relay.udp, relay.credential("late"));
    assert!(late.allocate().is_err());
    let peer = echo("127.0.0.1");
    early.bind(0x4000, peer).unwrap();
    early.send_channel(0x4000, b"still here");
    assert_eq!(early.receive_channel(), (0x4000, b"still here".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_applies_to_every_worker() {
    let relay = Relay::start(3);
    let south = TurnSecrets::new(vec![SecretString::from("south")]).unwrap();
    let mut changed = settings(&south);
    changed.policy = PeerPolicy::default();
    relay.handle.reconfigure(changed);
    relay.stats().await;
    for _ in 0..12 {
        let old = relay.credential("alice");
        assert_eq!(client::udp(relay.udp, old).allocate(), Err(401));
        let mut new = client::udp(relay.udp, south.mint("alice", unix_now() + 60));
        new.allocate().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(new.permit(peer.local_addr().unwrap()), Err(403));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_frees_every_port() {
    let relay = Relay::start(2);
    let mut client = client::udp(relay.udp, relay.credential("alice"));
    let relayed = client.allocate().unwrap();
    let addresses = [relay.udp, relay.udp_v6];
    relay.handle.close();
    for address in addresses.into_iter().chain([relayed]) {
        UdpSocket::bind(address).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_relay_answers_no_questions() {
    let relay = Relay::start(2);
    relay.handle.close();
    assert_eq!(relay.handle.stats().await, None);
    assert!(relay.handle.allocations().await.is_empty());
    relay.handle.revoke("anyone", unix_now());
}
