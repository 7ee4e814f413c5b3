//! Channels (RFC 8656 section 12).

use super::harness::*;
use crate::engine::*;
use std::time::Duration;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";

#[test]
fn a_channel_carries_data_both_ways_and_permits_its_peer() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    let out = client.channel(&mut boxed, 0x4000, b"out");
    assert_eq!(sent(&out), (relayed, addr(PEER), b"out".to_vec()));
    let back = boxed.peer_sends(relayed, addr(PEER), b"in");
    assert_eq!(
        received(&back, &client.five_tuple),
        Received::Channel(0x4000, b"in".to_vec())
    );
    // Another port of the peer is permitted, but has no channel.
    let other = addr("8.8.8.8:4001");
    let back = boxed.peer_sends(relayed, other, b"in");
    assert_eq!(
        received(&back, &client.five_tuple),
        Received::Data(other, b"in".to_vec())
    );
    // Send goes on working beside the channel.
    assert_eq!(client.send(&mut boxed, PEER, b"too").len(), 1);
}

#[test]
fn channel_numbers_are_0x4000_to_0x7fff() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    for (number, code) in [
        (0, 400),
        (0x3fff, 400),
        (0x8000, 400),
        (0xffff, 400),
        (0x4000, 0),
        (0x4fff, 0),
    ] {
        let peer = format!("8.8.8.8:{}", number | 1);
        assert_eq!(
            client.bind(&mut boxed, number, &peer).code(),
            code,
            "{number:x}"
        );
    }
    // Clients of RFC 5766 go on to 0x7FFF.
    for number in [0x5000, 0x7fff] {
        client
            .bind(&mut boxed, number, &format!("1.1.1.1:{number}"))
            .success();
        assert_eq!(client.channel(&mut boxed, number, b"x").len(), 1);
    }
}

#[test]
fn number_and_peer_are_unique_both_ways() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.bind(&mut boxed, 0x4000, PEER).success();
    assert_eq!(client.bind(&mut boxed, 0x4000, "8.8.8.8:4001").code(), 400);
    assert_eq!(client.bind(&mut boxed, 0x4001, PEER).code(), 400);
    client.bind(&mut boxed, 0x4001, "8.8.8.8:4001").success();
    assert_eq!(client.bind(&mut boxed, 0x4000, "8.8.8.8:4001").code(), 400);
    // Another allocation has numbers of its own.
    let (mut other, _) = Client::allocated(&mut boxed, "198.51.100.7:5001", "a");
    other.bind(&mut boxed, 0x4000, "8.8.8.8:4001").success();
}

#[test]
fn a_failed_bind_permits_nobody() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    assert_eq!(client.bind(&mut boxed, 0x4000, "1.1.1.1:1").code(), 400);
    assert_eq!(client.send(&mut boxed, "1.1.1.1:1", b"x"), []);
}

#[test]
fn incomplete_binds_are_a_400() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let cases: [fn(Request) -> Request; 6] = [
        |r| r,
        |r| r.channel(0x4000),
        |r| r.peer(PEER),
        |r| r.attr(ATTR_CHANNEL_NUMBER, &[0x40, 0]).peer(PEER),
        |r| r.channel(0x4000).attr(ATTR_XOR_PEER_ADDRESS, &[0, 1, 0, 0]),
        |r| r.channel(0x4000).peer("8.8.8.8:0"),
    ];
    for build in cases {
        let request = build(client.request(METHOD_CHANNEL_BIND));
        assert_eq!(client.ask(&mut boxed, request).code(), 400);
    }
    assert_eq!(client.bind(&mut boxed, 0x4000, PEER6).code(), 443);
}

#[test]
fn a_channel_lasts_ten_minutes_and_its_permission_five() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.refresh(&mut boxed, 3_600).success();
    client.bind(&mut boxed, 0x4000, PEER).success();
    boxed.advance(Duration::from_secs(300));
    assert_eq!(
        client.channel(&mut boxed, 0x4000, b"x"),
        [],
        "the permission has expired"
    );
    client.permit(&mut boxed, PEER).success();
    assert_eq!(client.channel(&mut boxed, 0x4000, b"x").len(), 1);
    boxed.advance(Duration::from_millis(299_999));
    let back = boxed.peer_sends(relayed, addr(PEER), b"x");
    assert!(matches!(
        received(&back, &client.five_tuple),
        Received::Channel(..)
    ));
    client.permit(&mut boxed, PEER).success();
    boxed.advance(Duration::from_millis(1));
    assert_eq!(
        client.channel(&mut boxed, 0x4000, b"x"),
        [],
        "the channel has expired"
    );
    let back = boxed.peer_sends(relayed, addr(PEER), b"x");
    assert!(matches!(
        received(&back, &client.five_tuple),
        Received::Data(..)
    ));
}

#[test]
fn a_bind_refreshes_channel_and_permission() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.refresh(&mut boxed, 3_600).success();
    for _ in 0..8 {
        client.bind(&mut boxed, 0x4000, PEER).success();
        boxed.advance(Duration::from_secs(299));
        assert_eq!(client.channel(&mut boxed, 0x4000, b"x").len(), 1);
    }
}

#[test]
fn an_expired_channel_can_be_bound_otherwise() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.refresh(&mut boxed, 3_600).success();
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.bind(&mut boxed, 0x4001, "1.1.1.1:1").success();
    boxed.advance(Duration::from_secs(600));
    client.bind(&mut boxed, 0x4000, "1.1.1.1:1").success();
    client.bind(&mut boxed, 0x4001, PEER).success();
    let (_, to, _) = sent(&client.channel(&mut boxed, 0x4001, b"x"));
    assert_eq!(to, addr(PEER));
}

#[test]
fn the_sixty_fifth_channel_is_a_508() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    for i in 0..64 {
        client
            .bind(&mut boxed, 0x4000 + i, &format!("8.8.8.8:{}", i + 1))
            .success();
    }
    assert_eq!(client.bind(&mut boxed, 0x4100, "8.8.8.8:100").code(), 508);
    client.bind(&mut boxed, 0x4000, "8.8.8.8:1").success();
}

#[test]
fn broken_channel_data_is_dropped() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    let tuple = client.five_tuple;
    for bytes in [
        &[0x40][..],
        &[0x40, 0, 0],
        &[0x40, 0, 0, 1],
        &[0x40, 0, 0, 9, 1, 2, 3, 4],
    ] {
        assert_eq!(boxed.client_sends(&tuple, bytes), [], "{bytes:?}");
    }
    assert_eq!(
        boxed.client_sends(&tuple, &channel_data(0x4001, b"unbound")),
        []
    );
    assert_eq!(
        boxed.client_sends(&tuple, &channel_data(0x8000, b"reserved")),
        []
    );
    let stranger = udp("198.51.100.9:1");
    assert_eq!(
        boxed.client_sends(&stranger, &channel_data(0x4000, b"x")),
        []
    );
}

#[test]
fn padding_over_udp_is_taken_off_and_empty_data_is_data() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    let padded = boxed.client_sends(&client.five_tuple, &[0x40, 0, 0, 1, 7, 0, 0, 0]);
    assert_eq!(sent(&padded).2, [7]);
    assert!(sent(&client.channel(&mut boxed, 0x4000, b"")).2.is_empty());
    let back = boxed.peer_sends(relayed, addr(PEER), b"");
    assert_eq!(
        received(&back, &client.five_tuple),
        Received::Channel(0x4000, vec![])
    );
}

#[test]
fn over_streams_channel_data_is_padded_both_ways() {
    let mut boxed = TestBox::new();
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = Client::at(
            FiveTuple {
                transport,
                ..udp(CLIENT)
            },
            "a",
        );
        client.challenge(&mut boxed);
        let relayed = client.allocate(&mut boxed);
        client.bind(&mut boxed, 0x4000, PEER).success();
        for length in 0..9 {
            let data = vec![7; length];
            // The harness checks the padding.
            let back = boxed.peer_sends(relayed, addr(PEER), &data);
            assert_eq!(
                received(&back, &client.five_tuple),
                Received::Channel(0x4000, data)
            );
            let mut framed = channel_data(0x4000, &vec![7; length]);
            framed.resize(framed.len().next_multiple_of(4), 0);
            let out = boxed.client_sends(&client.five_tuple, &framed);
            assert_eq!(sent(&out).2.len(), length);
        }
    }
}
