//! Allocate (RFC 8656 section 7.2).

use super::harness::*;
use crate::engine::*;
use crate::shared::RelayAddress;
use std::time::Duration;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";
const ADDRESS_ERROR: AttrType = AttrType(0x8001);

fn refused(boxed: &mut TestBox, build: impl FnOnce(Request) -> Request) -> Response {
    let mut client = Client::challenged(boxed, CLIENT, "a");
    let request = build(client.request(METHOD_ALLOCATE));
    client.ask(boxed, request)
}

#[test]
fn a_success_says_where_and_for_how_long() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().signed(&client);
    let outs = boxed.client_sends(&client.five_tuple, &request);
    let [
        Out::Event(Event::Opened {
            user,
            five_tuple,
            relayed,
        }),
        Out::Reply(_, reply),
    ] = &outs[..]
    else {
        panic!("{outs:?}")
    };
    let response = Response::parse(reply).success();
    response.assert_signed(&client);
    let relay = response.address(ATTR_XOR_RELAYED_ADDRESS);
    assert_eq!(
        (&**user, *five_tuple, &relayed[..]),
        ("a", client.five_tuple, &[relay][..])
    );
    assert_eq!(relay.ip(), ip(V4));
    assert!((49_152..=65_535).contains(&relay.port()));
    assert_eq!(response.address(ATTR_XORMAPPED_ADDRESS), addr(CLIENT));
    assert_eq!(response.lifetime(), 600);
    assert_eq!(
        boxed
            .ports
            .borrow()
            .open
            .iter()
            .copied()
            .collect::<Vec<_>>(),
        [relay]
    );
    assert!(response.has(ATTR_SOFTWARE));
    assert!(!response.has(ATTR_REALM) && !response.has(ATTR_NONCE));
}

#[test]
fn behind_nat_the_announced_address_is_told_and_the_other_one_bound() {
    let nat = RelayAddress {
        bind: ip("10.0.0.5"),
        announced: ip("203.0.113.5"),
    };
    let mut boxed = TestBox::with(Options {
        relays: vec![nat],
        ..Options::default()
    });
    let (_, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    assert_eq!(relayed.ip(), nat.announced);
    let bound = std::net::SocketAddr::new(nat.bind, relayed.port());
    assert!(boxed.ports.borrow().open.contains(&bound));
}

#[test]
fn a_retransmission_gets_the_same_answer() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_EVEN_PORT, &[0x80]);
    let bytes = request.signed(&client);
    let first = boxed.ask(&client.five_tuple, &bytes).success();
    boxed.advance(Duration::from_secs(8));
    let again = boxed.ask(&client.five_tuple, &bytes);
    assert_eq!(first.0.raw, again.0.raw);
    assert_eq!(
        boxed.shared.allocations(),
        2,
        "itself and the port it reserved"
    );
    assert_eq!(boxed.ports.borrow().opened, 1);
}

#[test]
fn another_allocate_on_the_same_five_tuple_is_a_437() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp();
    assert_eq!(client.ask(&mut boxed, request).code(), 437);
    // Neither user nor transport makes it another five-tuple; the server's address does.
    let mut other = Client::challenged(&mut boxed, CLIENT, "b");
    let request = other.request(METHOD_ALLOCATE).udp();
    assert_eq!(other.ask(&mut boxed, request).code(), 437);
    other.five_tuple.transport = Transport::Tcp;
    other.allocate(&mut boxed);
    other.five_tuple.transport = Transport::Udp;
    other.five_tuple.server = addr("192.0.2.10:443");
    other.allocate(&mut boxed);
}

#[test]
fn requested_transport_must_be_udp() {
    let mut boxed = TestBox::new();
    assert_eq!(refused(&mut boxed, |r| r).code(), 400);
    for value in [&[17][..], &[17, 0, 0], &[17, 0, 0, 0, 0]] {
        let response = refused(&mut boxed, |r| r.attr(ATTR_REQUESTED_TRANSPORT, value));
        assert_eq!(response.code(), 400);
    }
    for protocol in [0, 6, 132] {
        let value = [protocol, 0, 0, 0];
        let response = refused(&mut boxed, |r| r.attr(ATTR_REQUESTED_TRANSPORT, &value));
        assert_eq!(response.code(), 442);
    }
    boxed.assert_empty();
}

#[test]
fn unknown_required_attributes_are_refused_with_integrity() {
    let mut boxed = TestBox::new();
    let response = refused(&mut boxed, |r| r.udp().attr(AttrType(0x7abc), b"x"));
    assert_eq!(response.code(), 420);
    assert_eq!(response.attr(ATTR_UNKNOWN_ATTRIBUTES), [0x7a, 0xbc]);
    boxed.assert_empty();
}

#[test]
fn dont_fragment_is_supported() {
    let mut boxed = TestBox::new();
    refused(&mut boxed, |r| r.udp().attr(ATTR_DONT_FRAGMENT, &[])).success();
}

#[test]
fn lifetimes_are_clamped() {
    let mut boxed = TestBox::new();
    for (asked, granted) in [
        (0, 600),
        (1, 600),
        (599, 600),
        (601, 601),
        (3_600, 3_600),
        (3_601, 3_600),
    ] {
        let mut client = Client::challenged(&mut boxed, CLIENT, "a");
        let request = client.request(METHOD_ALLOCATE).udp().lifetime(asked);
        assert_eq!(
            client.ask(&mut boxed, request).success().lifetime(),
            granted
        );
        client.refresh(&mut boxed, 0).success();
    }
    for value in [&[0, 0, 1][..], &[0, 0, 0, 1, 0]] {
        let response = refused(&mut boxed, |r| r.udp().attr(ATTR_LIFETIME, value));
        assert_eq!(response.code(), 400);
    }
}

#[test]
fn the_requested_family_is_given() {
    let mut boxed = TestBox::new();
    for (family, local) in [(1, V4), (2, V6)] {
        let mut client = Client::challenged(&mut boxed, CLIENT, "a");
        let request = client.request(METHOD_ALLOCATE).udp().family(family);
        let response = client.ask(&mut boxed, request).success();
        assert_eq!(response.address(ATTR_XOR_RELAYED_ADDRESS).ip(), ip(local));
        client.refresh(&mut boxed, 0).success();
    }
    assert_eq!(refused(&mut boxed, |r| r.udp().family(3)).code(), 440);
    let short = |r: Request| r.udp().attr(ATTR_REQUESTED_ADDRESS_FAMILY, &[1]);
    assert_eq!(refused(&mut boxed, short).code(), 400);
    assert_eq!(
        refused(&mut boxed, |r| r.udp().family(2).additional(2)).code(),
        400
    );
}

#[test]
fn a_family_that_is_not_served_is_a_440() {
    let only = |relay| {
        TestBox::with(Options {
            relays: vec![same(relay)],
            ..Options::default()
        })
    };
    let mut v4 = only(V4);
    assert_eq!(refused(&mut v4, |r| r.udp().family(2)).code(), 440);
    v4.assert_empty();
    let mut v6 = only(V6);
    assert_eq!(refused(&mut v6, |r| r.udp().family(1)).code(), 440);
    refused(&mut v6, |r| r.udp().family(2)).success();
}

#[test]
fn a_dual_allocation_has_two_addresses() {
    let mut boxed = TestBox::new();
    let response = refused(&mut boxed, |r| r.udp().additional(2)).success();
    let relayed = response.addresses(ATTR_XOR_RELAYED_ADDRESS);
    assert_eq!(
        relayed.iter().map(|a| a.ip()).collect::<Vec<_>>(),
        [ip(V4), ip(V6)]
    );
    assert!(!response.has(ADDRESS_ERROR));
    assert_eq!(boxed.shared.allocations(), 1);
    for value in [&[1, 0, 0, 0][..], &[3, 0, 0, 0], &[2]] {
        let mut client = Client::challenged(&mut boxed, "198.51.100.7:5001", "a");
        let request = client
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(AttrType(0x8000), value);
        assert_eq!(client.ask(&mut boxed, request).code(), 400, "{value:?}");
    }
}

#[test]
fn a_dual_allocation_may_go_without_one_family() {
    for (relay, missing) in [(V4, 2), (V6, 1)] {
        let options = Options {
            relays: vec![same(relay)],
            ..Options::default()
        };
        let mut boxed = TestBox::with(options);
        let response = refused(&mut boxed, |r| r.udp().additional(2)).success();
        assert_eq!(response.address(ATTR_XOR_RELAYED_ADDRESS).ip(), ip(relay));
        let error = response.attr(ADDRESS_ERROR);
        assert_eq!(error[..4], [missing, 0, 4, 40]);
        assert_eq!(&error[4..], b"Address Family not Supported");
    }
}

#[test]
fn a_dual_allocation_without_any_port_is_a_508() {
    let mut boxed = TestBox::with(Options {
        ports: 50_000..=50_000,
        ..Options::default()
    });
    let mut first = Client::challenged(&mut boxed, "198.51.100.7:4999", "a");
    let request = first.request(METHOD_ALLOCATE).udp().family(2);
    first.ask(&mut boxed, request).success();
    let response = refused(&mut boxed, |r| r.udp().additional(2)).success();
    assert_eq!(response.attr(ADDRESS_ERROR)[..4], [2, 0, 5, 8]);
    let mut third = Client::challenged(&mut boxed, "198.51.100.7:5002", "a");
    let request = third.request(METHOD_ALLOCATE).udp().additional(2);
    assert_eq!(third.ask(&mut boxed, request).code(), 508);
}

#[test]
fn even_port_is_even() {
    let mut boxed = TestBox::new();
    for i in 0..20 {
        let mut client =
            Client::challenged(&mut boxed, &format!("198.51.100.7:{}", 6_000 + i), "a");
        let request = client
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(ATTR_EVEN_PORT, &[0]);
        let response = client.ask(&mut boxed, request).success();
        assert_eq!(response.address(ATTR_XOR_RELAYED_ADDRESS).port() % 2, 0);
        assert!(!response.has(ATTR_RESERVATION_TOKEN));
    }
    let wide = |r: Request| r.udp().attr(ATTR_EVEN_PORT, &[0, 0]);
    assert_eq!(refused(&mut boxed, wide).code(), 400);
}

#[test]
fn a_reservation_is_redeemed_once_by_anybody_with_the_token() {
    let mut boxed = TestBox::new();
    let mut rtp = Client::challenged(&mut boxed, CLIENT, "a");
    let request = rtp
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_EVEN_PORT, &[0x80]);
    let response = rtp.ask(&mut boxed, request).success();
    let even = response.address(ATTR_XOR_RELAYED_ADDRESS);
    let token = response.attr(ATTR_RESERVATION_TOKEN);
    assert_eq!((even.port() % 2, token.len()), (0, 8));

    let redeem = |boxed: &mut TestBox, port: u16| {
        let mut client = Client::challenged(boxed, &format!("198.51.100.8:{port}"), "b");
        let request = client
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(ATTR_RESERVATION_TOKEN, &token);
        client.ask(boxed, request)
    };
    boxed.advance(Duration::from_secs(29));
    let odd = redeem(&mut boxed, 1)
        .success()
        .address(ATTR_XOR_RELAYED_ADDRESS);
    assert_eq!((odd.ip(), odd.port()), (even.ip(), even.port() + 1));
    assert_eq!(redeem(&mut boxed, 2).code(), 508);
}

#[test]
fn a_reservation_lapses_after_thirty_seconds_and_its_port_comes_back() {
    let mut boxed = TestBox::with(Options {
        ports: 50_000..=50_001,
        ..Options::default()
    });
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_EVEN_PORT, &[0x80]);
    let token = client
        .ask(&mut boxed, request)
        .success()
        .attr(ATTR_RESERVATION_TOKEN);
    let mut other = Client::challenged(&mut boxed, "198.51.100.8:1", "b");
    let request = other.request(METHOD_ALLOCATE).udp();
    assert_eq!(
        other.ask(&mut boxed, request).code(),
        508,
        "the other port is reserved"
    );
    boxed.advance(Duration::from_secs(30));
    let request = other
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_RESERVATION_TOKEN, &token);
    assert_eq!(other.ask(&mut boxed, request).code(), 508);
    assert_eq!(other.allocate(&mut boxed).port(), 50_001);
}

#[test]
fn reservations_do_not_go_with_other_wishes() {
    let mut boxed = TestBox::new();
    let with = |kind: AttrType, value: &'static [u8]| {
        move |r: Request| {
            r.udp()
                .attr(ATTR_RESERVATION_TOKEN, &[1; 8])
                .attr(kind, value)
        }
    };
    let cases: [(AttrType, &'static [u8]); 3] = [
        (ATTR_EVEN_PORT, &[0]),
        (ATTR_REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]),
        (AttrType(0x8000), &[2, 0, 0, 0]),
    ];
    for (kind, value) in cases {
        assert_eq!(refused(&mut boxed, with(kind, value)).code(), 400);
    }
    let even_dual = |r: Request| r.udp().attr(ATTR_EVEN_PORT, &[0x80]).additional(2);
    assert_eq!(refused(&mut boxed, even_dual).code(), 400);
    let short = |r: Request| r.udp().attr(ATTR_RESERVATION_TOKEN, &[1; 7]);
    assert_eq!(refused(&mut boxed, short).code(), 400);
    boxed.assert_empty();
}

#[test]
fn a_pair_that_the_range_lacks_is_a_508() {
    let mut boxed = TestBox::with(Options {
        ports: 50_001..=50_002,
        ..Options::default()
    });
    let response = refused(&mut boxed, |r| r.udp().attr(ATTR_EVEN_PORT, &[0x80]));
    assert_eq!(response.code(), 508);
    refused(&mut boxed, |r| r.udp().attr(ATTR_EVEN_PORT, &[0])).success();
}

#[test]
fn ports_of_other_programs_are_passed_over() {
    let mut boxed = TestBox::with(Options {
        ports: 50_000..=50_003,
        ..Options::default()
    });
    let foreign = [50_000, 50_001, 50_003].map(|port| addr(&format!("{V4}:{port}")));
    boxed.ports.borrow_mut().foreign.extend(foreign);
    let (_, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    assert_eq!(relayed.port(), 50_002);
}

#[test]
fn a_system_without_sockets_is_a_508_and_loses_nothing() {
    let mut boxed = TestBox::new();
    let free = boxed.shared.free_ports();
    boxed.ports.borrow_mut().broken = true;
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().signed(&client);
    let outs = boxed.client_sends(&client.five_tuple, &request);
    assert!(matches!(
        events(&outs)[..],
        [Event::Refused {
            refusal: DenyReason::Socket,
            ..
        }]
    ));
    boxed.assert_empty();
    assert_eq!(boxed.shared.free_ports(), free);
}

#[test]
fn draining_refuses_what_is_new_and_keeps_what_lives() {
    let mut boxed = TestBox::new();
    let (mut living, _) = Client::allocated(&mut boxed, "198.51.100.7:4999", "a");
    boxed.engines[0].drain();
    assert_eq!(refused(&mut boxed, |r| r.udp()).code(), 508);
    living.refresh(&mut boxed, 600).success();
    living.permit(&mut boxed, PEER).success();
}

#[test]
fn draining_sends_clients_to_an_alternate_of_their_family() {
    let alternates = vec![addr("198.51.100.99:3478"), addr("[2001:db8::99]:3479")];
    let mut boxed = TestBox::with_settings(Settings {
        alternates,
        ..settings()
    });
    boxed.engines[0].drain();
    let response = refused(&mut boxed, |r| r.udp());
    assert_eq!(response.code(), 300);
    assert_eq!(
        response.attr(ATTR_ALTERNATE_SERVER),
        [0, 1, 0x0d, 0x96, 198, 51, 100, 99]
    );
    let mut v6 = Client::challenged(&mut boxed, "[2001:db8:1::7]:5000", "a");
    let request = v6.request(METHOD_ALLOCATE).udp();
    let response = v6.ask(&mut boxed, request);
    assert_eq!(
        (response.code(), response.attr(ATTR_ALTERNATE_SERVER).len()),
        (300, 20)
    );
    boxed.assert_empty();
}
