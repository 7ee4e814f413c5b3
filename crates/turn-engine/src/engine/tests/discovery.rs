//! NAT behaviour discovery: RFC 5780, and what RFC 3489 had of it.

use super::harness::*;
use crate::engine::*;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";
const SECOND: &str = "192.0.2.11";

fn boxed(servers: &[&str]) -> TestBox {
    let mut boxed = TestBox::new();
    let servers = servers.iter().map(|s| addr(s)).collect();
    boxed.engines[0].set_stun_servers(servers);
    boxed
}

fn two_addresses() -> TestBox {
    boxed(&[
        &format!("{V4}:3478"),
        &format!("{V4}:3479"),
        &format!("{SECOND}:3478"),
        &format!("{SECOND}:3479"),
    ])
}

/// The answer to a Binding request, and the address of the box from which it comes.
fn ask(boxed: &mut TestBox, attributes: &[(AttrType, &[u8])]) -> (SocketAddr, Response) {
    let mut client = Client::new(CLIENT, "a");
    let mut request = client.request(METHOD_BINDING);
    for (kind, value) in attributes {
        request = request.attr(*kind, value);
    }
    let outs = boxed.client_sends(&client.five_tuple, &request.unsigned());
    let [Out::Reply(to, bytes)] = &outs[..] else {
        panic!("{outs:?}")
    };
    assert_eq!(to.client, addr(CLIENT));
    (to.server, Response::parse(bytes))
}

/// An address attribute that is not XOR'ed, of IPv4.
fn plain_address(response: &Response, kind: AttrType) -> SocketAddr {
    let value: [u8; 8] = response.attr(kind).try_into().unwrap();
    let [_, 1, p0, p1, a, b, c, d] = value else {
        panic!("{value:?}")
    };
    SocketAddr::from(([a, b, c, d], u16::from_be_bytes([p0, p1])))
}

#[test]
fn a_box_with_two_addresses_tells_the_other_one_and_answers_from_it() {
    let mut boxed = two_addresses();
    let (from, response) = ask(&mut boxed, &[]);
    assert_eq!(from, addr("192.0.2.10:3478"));
    assert_eq!(response.address(ATTR_XORMAPPED_ADDRESS), addr(CLIENT));
    assert_eq!(plain_address(&response, ATTR_MAPPED_ADDRESS), addr(CLIENT));
    assert_eq!(plain_address(&response, ATTR_RESPONSE_ORIGIN), from);
    let other = plain_address(&response, ATTR_OTHER_ADDRESS);
    assert_eq!(other, addr("192.0.2.11:3479"));
    for (flags, expected) in [
        (0, "192.0.2.10:3478"),
        (2, "192.0.2.10:3479"),
        (4, "192.0.2.11:3478"),
        (6, "192.0.2.11:3479"),
    ] {
        let change = [0, 0, 0, flags];
        let (from, response) = ask(&mut boxed, &[(ATTR_CHANGE_REQUEST, &change)]);
        assert_eq!(from, addr(expected));
        assert_eq!(plain_address(&response, ATTR_RESPONSE_ORIGIN), from);
        assert_eq!(plain_address(&response, ATTR_OTHER_ADDRESS), other);
    }
    let (_, broken) = ask(&mut boxed, &[(ATTR_CHANGE_REQUEST, &[0, 6])]);
    assert_eq!(broken.code(), 400);
}

#[test]
fn a_box_with_one_address_changes_its_port_alone() {
    let mut boxed = boxed(&["0.0.0.0:3478", "0.0.0.0:3479"]);
    let (_, response) = ask(&mut boxed, &[]);
    assert_eq!(
        response.kinds(),
        [ATTR_XORMAPPED_ADDRESS, ATTR_FINGERPRINT],
        "a plain request costs nothing more"
    );
    let (from, response) = ask(&mut boxed, &[(ATTR_CHANGE_REQUEST, &[0, 0, 0, 2])]);
    assert_eq!(from, addr("192.0.2.10:3479"));
    assert_eq!(plain_address(&response, ATTR_RESPONSE_ORIGIN), from);
    assert!(!response.has(ATTR_OTHER_ADDRESS));
    for flags in [4, 6] {
        let (from, refused) = ask(&mut boxed, &[(ATTR_CHANGE_REQUEST, &[0, 0, 0, flags])]);
        assert_eq!(from, addr("192.0.2.10:3478"));
        assert_eq!(refused.code(), 420);
        assert_eq!(refused.attr(ATTR_UNKNOWN_ATTRIBUTES), [0, 3]);
    }
}

#[test]
fn padding_is_answered_with_no_more_than_it_has() {
    let mut boxed = two_addresses();
    for length in [0, 4, 7, 1_200, 9_000] {
        let (_, response) = ask(&mut boxed, &[(ATTR_PADDING, &vec![0; length])]);
        let expected = length.min(1_500) & !3;
        assert_eq!(response.attr(ATTR_PADDING).len(), expected, "of {length}");
    }
    // Nobody may name whom the answer goes to.
    let (_, refused) = ask(&mut boxed, &[(ATTR_RESPONSE_PORT, &[0x13, 0x88, 0, 0])]);
    assert_eq!(refused.code(), 420);
}

#[test]
fn behind_one_to_one_nat_the_public_address_is_told() {
    let mut boxed = TestBox::with(Options {
        relays: vec![crate::shared::RelayAddress {
            bind: ip(V4),
            announced: ip("203.0.113.1"),
        }],
        ..Options::default()
    });
    let servers = [V4, SECOND].map(|ip| [3478, 3479].map(|port| addr(&format!("{ip}:{port}"))));
    boxed.engines[0].set_stun_servers(servers.concat());
    let (from, response) = ask(&mut boxed, &[]);
    assert_eq!(from, addr("192.0.2.10:3478"));
    let origin = plain_address(&response, ATTR_RESPONSE_ORIGIN);
    assert_eq!(origin, addr("203.0.113.1:3478"));
}

#[test]
fn a_stream_comes_from_where_it_was_opened() {
    let mut boxed = two_addresses();
    let mut client = Client::new(CLIENT, "a");
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..client.five_tuple
    };
    let request = client.request(METHOD_BINDING);
    let change = request.attr(ATTR_CHANGE_REQUEST, &[0, 0, 0, 2]).unsigned();
    assert_eq!(boxed.ask(&tcp, &change).code(), 420);
}

#[test]
fn classic_clients_are_answered_from_elsewhere_or_not_at_all() {
    let request = |flags: u8| {
        let change = [0, 3, 0, 4, 0, 0, 0, flags];
        [&[0, 1, 0, 8][..], &[7; 16], &change].concat()
    };
    let mut boxed = two_addresses();
    for (flags, expected) in [(0, "192.0.2.10:3478"), (6, "192.0.2.11:3479")] {
        let outs = boxed.client_sends(&udp(CLIENT), &request(flags));
        let [Out::Reply(to, bytes)] = &outs[..] else {
            panic!("{outs:?}")
        };
        assert_eq!(to.server, addr(expected));
        let kinds: Vec<u8> = bytes[20..]
            .chunks(12)
            .map(|attribute| attribute[1])
            .collect();
        assert_eq!(kinds, [1, 4, 5], "MAPPED-, SOURCE-, CHANGED-ADDRESS");
    }
    let mut single = TestBox::new();
    assert_eq!(single.client_sends(&udp(CLIENT), &request(2)), []);
    let elsewhere = [0, 2, 0, 8, 0, 1, 0x13, 0x88, 203, 0, 113, 9];
    let elsewhere = [&[0, 1, 0, 12][..], &[7; 16], &elsewhere].concat();
    assert_eq!(boxed.client_sends(&udp(CLIENT), &elsewhere), []);
}
