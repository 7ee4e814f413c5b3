//! STUN Binding and the basic processing of RFC 8489 section 6.3.

use super::harness::*;
use crate::engine::*;
use stun::attributes::*;
use stun::message::Message;
use stun::message::*;

fn binding(client: &mut Client) -> Request {
    client.request(METHOD_BINDING)
}

#[test]
fn binding_answers_with_the_mapped_address_on_every_transport() {
    let mut boxed = TestBox::new();
    for address in ["198.51.100.7:5000", "[2001:db8:1::7]:5000"] {
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            let mut client = Client::at(
                FiveTuple {
                    transport,
                    ..udp(address)
                },
                "a",
            );
            let request = binding(&mut client).unsigned();
            let response = boxed.ask(&client.five_tuple, &request);
            assert_eq!(response.0.typ, BINDING_SUCCESS);
            assert_eq!(response.address(ATTR_XORMAPPED_ADDRESS), addr(address));
            assert_eq!(response.kinds(), [ATTR_XORMAPPED_ADDRESS, ATTR_FINGERPRINT]);
        }
    }
    assert_eq!(boxed.stats().bindings, 6);
}

#[test]
fn binding_needs_no_credentials_and_minds_none() {
    let mut boxed = TestBox::new();
    let mut client = Client::new("198.51.100.7:5000", "a");
    let request = binding(&mut client).signed(&client);
    assert_eq!(
        boxed.ask(&client.five_tuple, &request).0.typ,
        BINDING_SUCCESS
    );
}

#[test]
fn unknown_required_attributes_are_named_in_a_420() {
    let mut boxed = TestBox::new();
    let mut client = Client::new("198.51.100.7:5000", "a");
    let request = binding(&mut client)
        .attr(AttrType(0x7001), b"abc")
        .attr(ATTR_CHANGE_REQUEST, &[0, 0, 0, 6])
        .attr(AttrType(0x8fff), b"optional")
        .unsigned();
    let response = boxed.ask(&client.five_tuple, &request);
    assert_eq!(response.code(), 420);
    assert_eq!(
        response.attr(ATTR_UNKNOWN_ATTRIBUTES),
        [0x70, 0x01, 0x00, 0x03]
    );
}

#[test]
fn unknown_optional_attributes_are_ignored() {
    let mut boxed = TestBox::new();
    let mut client = Client::new("198.51.100.7:5000", "a");
    let request = binding(&mut client)
        .attr(AttrType(0x8fff), b"x")
        .fingerprinted();
    assert_eq!(boxed.ask(&client.five_tuple, &request).code(), 0);
}

#[test]
fn a_wrong_or_misplaced_fingerprint_is_dropped() {
    let mut boxed = TestBox::new();
    let mut client = Client::new("198.51.100.7:5000", "a");
    let mut wrong = binding(&mut client).fingerprinted();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(boxed.client_sends(&client.five_tuple, &wrong), []);
    let mut misplaced = Message::new();
    misplaced
        .unmarshal_binary(&binding(&mut client).fingerprinted())
        .unwrap();
    misplaced.add(ATTR_SOFTWARE, b"late");
    assert_eq!(boxed.client_sends(&client.five_tuple, &misplaced.raw), []);
    assert_eq!(boxed.stats().dropped.malformed, 2);
}

#[test]
fn malformed_input_is_dropped_without_a_reply() {
    let mut boxed = TestBox::new();
    let mut client = Client::new("198.51.100.7:5000", "a");
    let good = binding(&mut client).attr(ATTR_SOFTWARE, b"x").unsigned();
    let edited = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases = [
        vec![],
        vec![0],
        good[..19].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0; 4]].concat(),
        edited(3, 7),
        [&good[..], &[0; 2]].concat(),
        edited(0, 0x80),
        edited(0, 0x10),
        edited(23, 0xff),
        edited(22, 0xff),
    ];
    for case in &cases {
        assert_eq!(
            boxed.client_sends(&client.five_tuple, case),
            [],
            "{case:02x?}"
        );
    }
    assert_eq!(boxed.stats().dropped.malformed, cases.len() as u64);
}

/// RFC 5389 section 12.2.
#[test]
fn a_binding_request_without_the_cookie_gets_mapped_address() {
    let mut boxed = TestBox::new();
    let transaction = [7; 16];
    let request = |attributes: &[u8]| {
        let length = (attributes.len() as u16).to_be_bytes();
        [&[0, 1], &length[..], &transaction, attributes].concat()
    };
    // CHANGE-REQUEST that changes nothing, which clients of that time send along.
    for attributes in [&[][..], &[0, 3, 0, 4, 0, 0, 0, 0]] {
        for (address, ip) in [
            ("198.51.100.7:5000", &[198, 51, 100, 7][..]),
            ("[2001:db8:1::7]:5000", &ip_octets("2001:db8:1::7")),
        ] {
            let outs = boxed.client_sends(&udp(address), &request(attributes));
            let [Out::Reply(_, reply)] = &outs[..] else {
                panic!("{outs:?}")
            };
            let family = if ip.len() == 4 { 1 } else { 2 };
            let length = ip.len() as u8 + 4;
            let value = [&[0, 1, 0, length, 0, family, 0x13, 0x88], ip].concat();
            let head = [1, 1, 0, value.len() as u8];
            assert_eq!(*reply, [&head[..], &transaction, &value].concat());
            assert!(reply.len() <= 3 * 20);
        }
    }
    assert_eq!(boxed.stats().bindings, 4);
    for broken in [
        request(&[0, 3, 0, 8, 0, 0, 0, 0]),
        request(&[0, 3, 0, 4]),
        [&request(&[])[..], &[0]].concat(),
        [&[0, 3, 0, 0][..], &transaction].concat(),
    ] {
        assert_eq!(boxed.client_sends(&udp("198.51.100.7:5000"), &broken), []);
    }
    assert_eq!(boxed.stats().dropped.malformed, 4);
}

fn ip_octets(ip: &str) -> [u8; 16] {
    ip.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

#[test]
fn what_no_server_gets_is_dropped_without_a_reply() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, "198.51.100.7:5000", "a");
    let kinds = [
        MessageType::new(METHOD_BINDING, CLASS_SUCCESS_RESPONSE),
        MessageType::new(METHOD_ALLOCATE, CLASS_ERROR_RESPONSE),
        MessageType::new(METHOD_ALLOCATE, CLASS_INDICATION),
        MessageType::new(METHOD_SEND, CLASS_REQUEST),
        MessageType::new(METHOD_DATA, CLASS_REQUEST),
        MessageType::new(METHOD_DATA, CLASS_INDICATION),
        MessageType::new(METHOD_CONNECT, CLASS_REQUEST),
        MessageType::new(METHOD_CONNECTION_BIND, CLASS_REQUEST),
    ];
    for kind in kinds {
        let message = client.message(kind).udp().signed(&client);
        assert_eq!(
            boxed.client_sends(&client.five_tuple, &message),
            [],
            "{kind}"
        );
    }
    assert_eq!(boxed.stats().dropped.unexpected, kinds.len() as u64);
    let keep_alive = client
        .message(MessageType::new(METHOD_BINDING, CLASS_INDICATION))
        .unsigned();
    assert_eq!(boxed.client_sends(&client.five_tuple, &keep_alive), []);
}

#[test]
fn only_the_first_of_a_repeated_attribute_counts() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, "198.51.100.7:5000", "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .lifetime(1_200)
        .lifetime(3_600);
    assert_eq!(client.ask(&mut boxed, request).success().lifetime(), 1_200);
}
