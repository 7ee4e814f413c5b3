//! CreatePermission (RFC 8656 sections 9 and 10) and the peer policy behind it.

use super::harness::*;
use crate::engine::*;
use std::time::Duration;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";

#[test]
fn a_permission_is_by_address_for_every_port_both_ways() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    assert_eq!(client.send(&mut boxed, PEER, b"early"), []);
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"early"), []);
    client.permit(&mut boxed, "8.8.8.8:0").success();
    for peer in ["8.8.8.8:1", "8.8.8.8:65535"] {
        let out = client.send(&mut boxed, peer, b"out");
        assert_eq!(sent(&out), (relayed, addr(peer), b"out".to_vec()));
        let back = boxed.peer_sends(relayed, addr(peer), b"in");
        assert_eq!(
            received(&back, &client.five_tuple),
            Received::Data(addr(peer), b"in".to_vec())
        );
    }
    assert_eq!(client.send(&mut boxed, "8.8.8.9:1", b"other"), []);
    assert_eq!(boxed.peer_sends(relayed, addr("8.8.8.9:1"), b"other"), []);
    assert_eq!(boxed.stats().dropped.no_permission, 4);
}

#[test]
fn a_permission_lasts_five_minutes_and_traffic_does_not_prolong_it() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.refresh(&mut boxed, 3_600).success();
    client.permit(&mut boxed, PEER).success();
    boxed.advance(Duration::from_millis(299_999));
    assert_eq!(client.send(&mut boxed, PEER, b"last").len(), 1);
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"last").len(), 1);
    boxed.advance(Duration::from_millis(1));
    assert_eq!(client.send(&mut boxed, PEER, b"late"), []);
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"late"), []);
    client.permit(&mut boxed, PEER).success();
    boxed.advance(Duration::from_secs(200));
    client.permit(&mut boxed, PEER).success();
    boxed.advance(Duration::from_secs(299));
    assert_eq!(client.send(&mut boxed, PEER, b"refreshed").len(), 1);
}

#[test]
fn all_peers_are_permitted_or_none() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    for (bad, code) in [("10.0.0.1:1", 403), (PEER6, 443)] {
        for bad_first in [true, false] {
            let request = client.request(METHOD_CREATE_PERMISSION);
            let request = match bad_first {
                true => request.peer(bad).peer(PEER),
                false => request.peer(PEER).peer(bad),
            };
            assert_eq!(client.ask(&mut boxed, request).code(), code);
            assert_eq!(client.send(&mut boxed, PEER, b"x"), []);
        }
    }
    let request = client
        .request(METHOD_CREATE_PERMISSION)
        .peer(PEER)
        .peer("1.1.1.1:1");
    client.ask(&mut boxed, request).success();
    for peer in [PEER, "1.1.1.1:9"] {
        assert_eq!(client.send(&mut boxed, peer, b"x").len(), 1);
    }
}

#[test]
fn missing_and_malformed_peers_are_a_400() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_CREATE_PERMISSION);
    assert_eq!(client.ask(&mut boxed, request).code(), 400);
    for value in [
        &[][..],
        &[0, 1, 0, 0, 1, 2, 3],
        &[0, 1, 0, 0, 1, 2, 3, 4, 5],
        &[0, 2, 0, 0, 1, 2, 3, 4],
        &[0, 3, 0, 0, 1, 2, 3, 4],
        &[0, 1, 0],
    ] {
        let request = client
            .request(METHOD_CREATE_PERMISSION)
            .attr(ATTR_XOR_PEER_ADDRESS, value);
        assert_eq!(client.ask(&mut boxed, request).code(), 400, "{value:?}");
    }
}

#[test]
fn families_do_not_mix() {
    let mut boxed = TestBox::new();
    let (mut v4, _) = Client::allocated(&mut boxed, CLIENT, "a");
    assert_eq!(v4.permit(&mut boxed, PEER6).code(), 443);
    // A mapped address is an IPv6 address on the wire.
    assert_eq!(v4.permit(&mut boxed, "[::ffff:8.8.8.8]:1").code(), 443);
    assert_eq!(v4.send(&mut boxed, PEER6, b"x"), []);
    let mut v6 = Client::challenged(&mut boxed, "198.51.100.7:5001", "a");
    let request = v6.request(METHOD_ALLOCATE).udp().family(2);
    v6.ask(&mut boxed, request).success();
    assert_eq!(v6.permit(&mut boxed, PEER).code(), 443);
    v6.permit(&mut boxed, PEER6).success();
}

#[test]
fn the_policy_holds_for_permissions_channels_and_sends() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().additional(2);
    client.ask(&mut boxed, request).success();
    let peers = [
        "10.0.0.1:53",
        "127.0.0.1:80",
        "127.0.0.2:80",
        "169.254.169.254:80",
        "0.0.0.0:1",
        "255.255.255.255:1",
        "[::1]:80",
        "[::ffff:10.0.0.1]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:a9fe:a9fe::1]:80",
        "[fd00:ec2::254]:80",
        "[::ffff:192.0.2.10]:80",
    ];
    for peer in peers {
        assert_eq!(client.permit(&mut boxed, peer).code(), 403, "{peer}");
        assert_eq!(client.bind(&mut boxed, 0x4000, peer).code(), 403, "{peer}");
        assert_eq!(client.send(&mut boxed, peer, b"x"), [], "{peer}");
        assert_eq!(client.channel(&mut boxed, 0x4000, b"x"), [], "{peer}");
    }
    assert_eq!(boxed.stats().policy_denials, 2 * peers.len() as u64);
}

#[test]
fn a_tightened_policy_cuts_off_what_lives() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.permit(&mut boxed, "1.1.1.1:1").success();
    let denied = vec!["8.8.0.0/16".parse().unwrap()];
    let policy = PeerPolicy::new(vec![], denied, vec![]);
    boxed.reload(Settings {
        policy,
        ..settings()
    });
    assert_eq!(client.channel(&mut boxed, 0x4000, b"x"), []);
    assert_eq!(client.send(&mut boxed, PEER, b"x"), []);
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"x"), []);
    assert_eq!(client.send(&mut boxed, "1.1.1.1:1", b"x").len(), 1);
    assert_eq!(client.permit(&mut boxed, PEER).code(), 403);
}

#[test]
fn the_sixty_fifth_peer_is_a_508_and_expired_ones_make_room() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    for i in 0..64 {
        client.permit(&mut boxed, &format!("9.9.9.{i}:1")).success();
    }
    assert_eq!(client.permit(&mut boxed, "9.9.9.64:1").code(), 508);
    assert_eq!(client.bind(&mut boxed, 0x4000, "9.9.9.64:1").code(), 508);
    client.permit(&mut boxed, "9.9.9.63:1").success();
    let request = client
        .request(METHOD_CREATE_PERMISSION)
        .peer("9.9.9.1:1")
        .peer("9.9.9.64:1");
    assert_eq!(client.ask(&mut boxed, request).code(), 508);
    boxed.advance(Duration::from_secs(300));
    client.permit(&mut boxed, "9.9.9.64:1").success();
}
