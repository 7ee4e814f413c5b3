//! Send and Data indications, and ICMP reports (RFC 8656 section 11).

use super::harness::*;
use crate::engine::*;
use std::time::Duration;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";

fn permitted(boxed: &mut TestBox) -> (Client, std::net::SocketAddr) {
    let (mut client, relayed) = Client::allocated(boxed, CLIENT, "a");
    client.permit(boxed, PEER).success();
    (client, relayed)
}

#[test]
fn dont_fragment_reaches_the_socket() {
    let mut boxed = TestBox::new();
    let (mut client, _) = permitted(&mut boxed);
    for wanted in [false, true] {
        let mut send = client.send_indication().peer(PEER).attr(ATTR_DATA, b"x");
        if wanted {
            send = send.attr(ATTR_DONT_FRAGMENT, &[]);
        }
        let outs = boxed.client_sends(&client.five_tuple, &send.unsigned());
        let [Out::ToPeer { dont_fragment, .. }] = outs[..] else {
            panic!("{outs:?}")
        };
        assert_eq!(dont_fragment, wanted);
    }
}

#[test]
fn incomplete_and_odd_sends_are_dropped() {
    let mut boxed = TestBox::new();
    let (mut client, _) = permitted(&mut boxed);
    let cases: [fn(Request) -> Request; 6] = [
        |r| r.attr(ATTR_DATA, b"x"),
        |r| r.peer(PEER),
        |r| r.peer("8.8.8.8:0").attr(ATTR_DATA, b"x"),
        |r| {
            r.attr(ATTR_XOR_PEER_ADDRESS, &[0, 1, 0, 0, 1])
                .attr(ATTR_DATA, b"x")
        },
        |r| {
            r.peer(PEER)
                .attr(ATTR_DATA, b"x")
                .attr(AttrType(0x7abc), b"")
        },
        |r| r.peer("[::ffff:8.8.8.8]:4000").attr(ATTR_DATA, b"x"),
    ];
    for build in cases {
        let send = build(client.send_indication()).unsigned();
        assert_eq!(boxed.client_sends(&client.five_tuple, &send), []);
    }
    let mut stranger = Client::new("198.51.100.9:1", "a");
    assert_eq!(stranger.send(&mut boxed, PEER, b"x"), []);
    let fingerprinted = client
        .send_indication()
        .peer(PEER)
        .attr(ATTR_DATA, b"x")
        .fingerprinted();
    assert_eq!(
        boxed.client_sends(&client.five_tuple, &fingerprinted).len(),
        1
    );
}

#[test]
fn payloads_of_every_length_come_through_unchanged() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = permitted(&mut boxed);
    for length in [0, 1, 2, 3, 4, 1_199, 1_200, 9_000, 65_400] {
        let data: Vec<u8> = (0..length).map(|i| i as u8).collect();
        assert_eq!(sent(&client.send(&mut boxed, PEER, &data)).2, data);
        let back = boxed.peer_sends(relayed, addr(PEER), &data);
        assert_eq!(
            received(&back, &client.five_tuple),
            Received::Data(addr(PEER), data)
        );
    }
    // No STUN message has room for it.
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), &[0; 65_535]), []);
}

#[test]
fn data_indications_over_streams_and_from_ipv6_peers_are_whole_messages() {
    let mut boxed = TestBox::new();
    let mut client = Client::at(
        FiveTuple {
            transport: Transport::Tcp,
            ..udp(CLIENT)
        },
        "a",
    );
    client.challenge(&mut boxed);
    let request = client.request(METHOD_ALLOCATE).udp().family(2);
    let relayed = client
        .ask(&mut boxed, request)
        .success()
        .address(ATTR_XOR_RELAYED_ADDRESS);
    client.permit(&mut boxed, PEER6).success();
    for length in 0..6 {
        let data = vec![9; length];
        let back = boxed.peer_sends(relayed, addr(PEER6), &data);
        assert_eq!(
            received(&back, &client.five_tuple),
            Received::Data(addr(PEER6), data)
        );
    }
}

#[test]
fn scope_and_flow_of_a_peer_address_do_not_matter() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().family(2);
    let relayed = client
        .ask(&mut boxed, request)
        .success()
        .address(ATTR_XOR_RELAYED_ADDRESS);
    client.bind(&mut boxed, 0x4000, PEER6).success();
    let mut scoped = addr(PEER6);
    if let std::net::SocketAddr::V6(scoped) = &mut scoped {
        scoped.set_scope_id(7);
        scoped.set_flowinfo(9);
    }
    let back = boxed.peer_sends(relayed, scoped, b"x");
    assert_eq!(
        received(&back, &client.five_tuple),
        Received::Channel(0x4000, b"x".to_vec())
    );
}

#[test]
fn indications_have_transaction_ids_of_their_own() {
    let mut boxed = TestBox::new();
    let (_, relayed) = permitted(&mut boxed);
    let ids: std::collections::BTreeSet<_> = (0..100)
        .map(|_| match &boxed.peer_sends(relayed, addr(PEER), b"x")[..] {
            [Out::ToClient(_, bytes)] => bytes[8..20].to_vec(),
            outs => panic!("{outs:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn icmp_errors_reach_the_client_that_permitted_the_peer() {
    let mut boxed = TestBox::new();
    let (client, relayed) = permitted(&mut boxed);
    let report = |boxed: &mut TestBox, icmp, data| boxed.icmp(relayed, PEER, icmp, data);
    for (icmp, data, value) in [
        ((3, 3), 99, [0, 0, 6, 3, 0, 0, 0, 0]),
        ((3, 4), 1_400, [0, 0, 6, 4, 0, 0, 5, 120]),
        ((11, 0), 99, [0, 0, 22, 0, 0, 0, 0, 0]),
    ] {
        let outs = report(&mut boxed, icmp, data);
        let expected = Received::Icmp(addr(PEER), value.to_vec());
        assert_eq!(received(&outs, &client.five_tuple), expected);
    }
    for icmp in [(0, 0), (5, 0), (8, 0), (12, 0)] {
        assert_eq!(report(&mut boxed, icmp, 0), []);
    }
    assert_eq!(boxed.icmp(relayed, "8.8.4.4:1", (3, 3), 0), []);
    boxed.advance(Duration::from_secs(300));
    assert_eq!(report(&mut boxed, (3, 3), 0), []);
}

#[test]
fn icmp_errors_stay_here_unless_they_are_wanted() {
    let settings = Settings {
        reports_icmp: false,
        ..settings()
    };
    let mut boxed = TestBox::with_settings(settings);
    let (_, relayed) = permitted(&mut boxed);
    assert_eq!(boxed.icmp(relayed, PEER, (3, 3), 0), []);
}

#[test]
fn icmpv6_has_numbers_of_its_own() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().family(2);
    let relayed = client
        .ask(&mut boxed, request)
        .success()
        .address(ATTR_XOR_RELAYED_ADDRESS);
    client.permit(&mut boxed, PEER6).success();
    for (icmp, data, value) in [
        ((1, 4), 99, [0, 0, 2, 4, 0, 0, 0, 0]),
        ((2, 0), 1_280, [0, 0, 4, 0, 0, 0, 5, 0]),
        ((3, 1), 99, [0, 0, 6, 1, 0, 0, 0, 0]),
    ] {
        let outs = boxed.icmp(relayed, PEER6, icmp, data);
        let expected = Received::Icmp(addr(PEER6), value.to_vec());
        assert_eq!(received(&outs, &client.five_tuple), expected);
    }
    assert_eq!(boxed.icmp(relayed, PEER6, (11, 0), 0), []);
}
