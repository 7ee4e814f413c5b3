//! Relay to relay inside the box, and nothing else of the box.

use super::harness::*;
use crate::engine::*;
use crate::shared::RelayAddress;
use std::net::SocketAddr;
use std::time::Duration;

/// Two clients that permit each other's relayed addresses, on these workers.
fn pair(boxed: &mut TestBox, workers: [usize; 2]) -> [(Client, SocketAddr); 2] {
    let [mut a, mut b] = [("198.51.100.7:5000", 0), ("198.51.100.8:5000", 1)].map(|(at, i)| {
        let mut client = Client::new(at, "a");
        client.worker = workers[i];
        client.challenge(boxed);
        let relayed = client.allocate(boxed);
        (client, relayed)
    });
    a.0.permit(boxed, &b.1.to_string()).success();
    b.0.permit(boxed, &a.1.to_string()).success();
    [a, b]
}

fn two_workers() -> TestBox {
    TestBox::with(Options {
        workers: 2,
        ..Options::default()
    })
}

#[test]
fn two_relayed_clients_meet_inside_the_process() {
    for workers in [[0, 0], [0, 1], [1, 0]] {
        let mut boxed = two_workers();
        let [(mut a, at), (mut b, bt)] = pair(&mut boxed, workers);
        let outs = a.send(&mut boxed, &bt.to_string(), b"to b");
        assert_eq!(
            received(&outs, &b.five_tuple),
            Received::Data(at, b"to b".to_vec())
        );
        b.bind(&mut boxed, 0x4000, &at.to_string()).success();
        a.bind(&mut boxed, 0x4001, &bt.to_string()).success();
        let outs = a.channel(&mut boxed, 0x4001, b"to b");
        assert_eq!(
            received(&outs, &b.five_tuple),
            Received::Channel(0x4000, b"to b".to_vec())
        );
        let outs = b.channel(&mut boxed, 0x4000, b"to a");
        assert_eq!(
            received(&outs, &a.five_tuple),
            Received::Channel(0x4001, b"to a".to_vec())
        );
        let hairpinned = boxed
            .engines
            .iter()
            .map(|e| e.stats().hairpinned.packets)
            .sum::<u64>();
        assert_eq!(hairpinned, 3);
        assert!(
            boxed
                .engines
                .iter()
                .all(|e| e.stats().to_peers.packets == 0)
        );
    }
}

#[test]
fn both_sides_must_permit_each_other() {
    let mut boxed = two_workers();
    let (mut a, at) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
    let mut b = Client::new("198.51.100.8:5000", "b");
    b.worker = 1;
    b.challenge(&mut boxed);
    let bt = b.allocate(&mut boxed);
    let to_b = bt.to_string();
    assert_eq!(a.send(&mut boxed, &to_b, b"x"), []);
    // Relays of one box share an address: permitting one of them permits all that live there.
    a.permit(&mut boxed, &to_b).success();
    assert_eq!(a.send(&mut boxed, &to_b, b"x"), []);
    b.permit(&mut boxed, &at.to_string()).success();
    assert_eq!(a.send(&mut boxed, &to_b, b"x").len(), 1);
    boxed.advance(Duration::from_secs(300));
    a.permit(&mut boxed, &to_b).success();
    assert_eq!(
        a.send(&mut boxed, &to_b, b"x"),
        [],
        "b's permission has expired"
    );
}

#[test]
fn ports_where_no_relay_lives_are_never_reached() {
    let mut boxed = TestBox::new();
    let (mut a, at) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
    let free = (49_152..=65_535).find(|p| *p != at.port()).unwrap();
    for port in [22, 3_478, 8_080, free] {
        let peer = format!("{V4}:{port}");
        a.permit(&mut boxed, &peer).success();
        assert_eq!(a.send(&mut boxed, &peer, b"x"), []);
        // Nor does a service of the box reach the client through its relay.
        assert_eq!(boxed.peer_sends(at, addr(&peer), b"x"), []);
    }
    assert_eq!(boxed.stats().dropped.own_address, 8);
    assert_eq!(boxed.stats().to_peers.packets, 0);
}

#[test]
fn own_addresses_without_relays_are_refused() {
    let mut boxed = TestBox::new();
    let (mut a, _) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
    assert_eq!(a.permit(&mut boxed, "127.0.0.1:22").code(), 403);
}

#[test]
fn a_listed_own_address_is_reached_by_socket_where_no_relay_lives() {
    let own = vec![ip(V4), ip("127.0.0.1")];
    let allowed = vec![
        format!("{V4}/32").parse().unwrap(),
        "127.0.0.0/8".parse().unwrap(),
    ];
    let policy = PeerPolicy::new(allowed, vec![], own);
    let mut boxed = TestBox::with_settings(Settings {
        policy,
        ..settings()
    });
    let [(mut a, at), (b, bt)] = pair(&mut boxed, [0, 0]);
    let service = format!("{V4}:9000");
    assert_eq!(sent(&a.send(&mut boxed, &service, b"x")).1, addr(&service));
    let back = boxed.peer_sends(at, addr(&service), b"y");
    assert!(matches!(received(&back, &a.five_tuple), Received::Data(..)));
    let outs = a.send(&mut boxed, &bt.to_string(), b"x");
    assert!(matches!(received(&outs, &b.five_tuple), Received::Data(..)));
    a.permit(&mut boxed, "127.0.0.1:1").success();
    assert_eq!(
        sent(&a.send(&mut boxed, "127.0.0.1:9", b"x")).1,
        addr("127.0.0.1:9")
    );
}

#[test]
fn a_loopback_box_relays_between_its_clients() {
    let policy = PeerPolicy::new(vec![], vec![], vec![ip("127.0.0.1")]);
    let mut boxed = TestBox::with(Options {
        settings: Settings {
            policy,
            ..settings()
        },
        relays: vec![same("127.0.0.1")],
        ..Options::default()
    });
    let [(mut a, _), (b, bt)] = pair(&mut boxed, [0, 0]);
    let outs = a.send(&mut boxed, &bt.to_string(), b"x");
    assert!(matches!(received(&outs, &b.five_tuple), Received::Data(..)));
    assert_eq!(a.send(&mut boxed, "127.0.0.1:22", b"x"), []);
}

#[test]
fn behind_nat_relays_meet_by_their_announced_addresses() {
    let nat = RelayAddress {
        bind: ip("10.0.0.5"),
        announced: ip("198.51.100.5"),
    };
    let policy = PeerPolicy::new(vec![], vec![], vec![nat.bind, nat.announced]);
    let mut boxed = TestBox::with(Options {
        settings: Settings {
            policy,
            ..settings()
        },
        relays: vec![nat],
        ..Options::default()
    });
    let [(mut a, at), (b, bt)] = pair(&mut boxed, [0, 0]);
    let outs = a.send(&mut boxed, &bt.to_string(), b"x");
    assert_eq!(
        received(&outs, &b.five_tuple),
        Received::Data(at, b"x".to_vec())
    );
}

#[test]
fn a_relay_that_is_gone_is_not_found_and_its_key_is_harmless() {
    let mut boxed = two_workers();
    let [(mut a, _), (mut b, bt)] = pair(&mut boxed, [0, 1]);
    let (worker, stale) = boxed.shared.find(bt).unwrap();
    assert_eq!(worker, WorkerId(1));
    assert_eq!(boxed.engines[1].socket(stale).unwrap().key, stale);
    b.refresh(&mut boxed, 0).success();
    assert_eq!(boxed.shared.find(bt), None);
    assert!(boxed.engines[1].socket(stale).is_none());
    assert_eq!(a.send(&mut boxed, &bt.to_string(), b"x"), []);
    // The next allocation takes the slot; the old key must not name it.
    let again = b.allocate(&mut boxed);
    b.permit(&mut boxed, PEER).success();
    assert_ne!(boxed.shared.find(again).unwrap().1, stale);
    assert!(boxed.engines[1].socket(stale).is_none());
}

#[test]
fn a_client_may_send_to_its_own_relay() {
    let mut boxed = TestBox::new();
    let (mut a, at) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
    a.permit(&mut boxed, &at.to_string()).success();
    let outs = a.send(&mut boxed, &at.to_string(), b"me");
    assert_eq!(
        received(&outs, &a.five_tuple),
        Received::Data(at, b"me".to_vec())
    );
}
