use super::packet::{Filter, Packet, Publish, Reason, Subscribe, Version};
use super::reader::Stream;
use super::writer::{self, Ack, Announced};
use proptest::prelude::*;
use std::ops::ControlFlow;

/// The first byte and the rest of a packet that the server wrote.
fn split(bytes: &[u8]) -> (u8, Vec<u8>) {
    let mut found = None;
    Stream::default()
        .feed(bytes, usize::MAX, |head, body| {
            assert!(found.is_none(), "one packet");
            found = Some((head, body.to_vec()));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    found.unwrap()
}

/// CONNECT as mqtt.js 5.16 sends it: 3.1.1, clean, keep-alive 60.
const CONNECT_V3: &[u8] = b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x08mqttjs_1";

#[test]
fn connects_of_both_versions_are_read() {
    let Packet::Connect(connect) = Packet::read(0x10, CONNECT_V3, Version::V3).unwrap() else {
        panic!()
    };
    assert_eq!(connect.version, Version::V3);
    assert_eq!((connect.client_id, connect.keep_alive), ("mqttjs_1", 60));
    assert!(connect.clean_start && connect.will.is_none());

    // Version 5: receive maximum 2, a user property, a will with a delay, user and password.
    let body = b"\x00\x04MQTT\x05\xee\x00\x0a\
        \x0c\x21\x00\x02\x26\x00\x01a\x00\x03bcd\
        \x00\x00\
        \x05\x18\x00\x00\x00\x09\x00\x01w\x00\x03bye\
        \x00\x02me\x00\x02pw";
    let Packet::Connect(connect) = Packet::read(0x10, body, Version::V3).unwrap() else {
        panic!()
    };
    assert_eq!(connect.version, Version::V5);
    assert_eq!(connect.receive_maximum, 2);
    assert_eq!(
        (connect.user, connect.password),
        (Some("me"), Some(&b"pw"[..]))
    );
    let will = connect.will.unwrap();
    assert_eq!((will.topic, will.payload, will.qos), ("w", &b"bye"[..], 1));
    assert!(will.retain && will.properties.is_empty());
}

#[test]
fn unsound_packets_are_refused_by_their_reason() {
    let refused = |head: u8, body: &[u8], version| Packet::read(head, body, version).unwrap_err();
    // Levels 3 (MQIsdp) and 6, reserved flags, a will QoS without a will.
    let old = b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00";
    assert_eq!(refused(0x10, old, Version::V3), Reason::UnsupportedVersion);
    let new = b"\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x00";
    assert_eq!(refused(0x10, new, Version::V3), Reason::UnsupportedVersion);
    for flags in [0x03, 0x0A, 0x1E, 0x42] {
        let body = [b"\x00\x04MQTT\x04", &[flags][..], b"\x00\x3c\x00\x00"].concat();
        assert_eq!(
            refused(0x10, &body, Version::V3),
            Reason::Malformed,
            "{flags:x}"
        );
    }
    // QoS 3, QoS 0 sent again, packet id 0, a wildcard, an empty topic.
    assert_eq!(
        refused(0x36, b"\x00\x01a\x00\x01", Version::V3),
        Reason::Malformed
    );
    assert_eq!(refused(0x38, b"\x00\x01a", Version::V3), Reason::Malformed);
    assert_eq!(
        refused(0x32, b"\x00\x01a\x00\x00", Version::V3),
        Reason::Malformed
    );
    assert_eq!(
        refused(0x30, b"\x00\x03a/#", Version::V3),
        Reason::TopicInvalid
    );
    assert_eq!(
        refused(0x30, b"\x00\x00", Version::V3),
        Reason::TopicInvalid
    );
    assert_eq!(
        refused(0x30, b"\x00\x02\xff\xfe", Version::V3),
        Reason::Malformed
    );
    assert_eq!(
        refused(0x30, b"\x00\x01\x00", Version::V3),
        Reason::Malformed
    );
    // A subscription identifier from a publisher, a property twice.
    assert_eq!(
        refused(0x30, b"\x00\x01a\x02\x0b\x01", Version::V5),
        Reason::Malformed
    );
    let twice = b"\x00\x01a\x04\x01\x00\x01\x00";
    assert_eq!(refused(0x30, twice, Version::V5), Reason::ProtocolError);
    // SUBSCRIBE: wrong flags, no filter, QoS 3, reserved bits, filters that are none.
    assert_eq!(
        refused(0x80, b"\x00\x01\x00\x01a\x00", Version::V3),
        Reason::Malformed
    );
    assert_eq!(
        refused(0x82, b"\x00\x01", Version::V3),
        Reason::ProtocolError
    );
    assert_eq!(
        refused(0x82, b"\x00\x01\x00\x01a\x03", Version::V3),
        Reason::Malformed
    );
    assert_eq!(
        refused(0x82, b"\x00\x01\x00\x01a\x04", Version::V3),
        Reason::Malformed
    );
    for filter in ["a#", "#/a", "a+/b", "+a"] {
        let mut body = b"\x00\x01".to_vec();
        body.extend((filter.len() as u16).to_be_bytes());
        body.extend(filter.as_bytes());
        body.push(0);
        assert_eq!(
            refused(0x82, &body, Version::V3),
            Reason::FilterInvalid,
            "{filter}"
        );
    }
    // What only a server sends, and what does not exist.
    for head in [0x00, 0x20, 0x90, 0xB0, 0xD0] {
        assert_eq!(
            refused(head, b"", Version::V5),
            Reason::ProtocolError,
            "{head:x}"
        );
    }
    assert_eq!(refused(0xF0, b"", Version::V3), Reason::ProtocolError);
    assert_eq!(
        refused(0xC0, b"x", Version::V3),
        Reason::Malformed,
        "bytes behind a ping"
    );
}

#[test]
fn subscriptions_and_farewells_are_read() {
    let body = b"\x00\x07\x02\x0b\x05\x00\x01a\x05\x00\x03a/+\x02";
    let filters = vec![
        Filter {
            filter: "a",
            qos: 1,
            no_local: true,
        },
        Filter {
            filter: "a/+",
            qos: 2,
            no_local: false,
        },
    ];
    let subscribe = Subscribe {
        id: 7,
        identified: true,
        filters,
    };
    assert_eq!(
        Packet::read(0x82, body, Version::V5),
        Ok(Packet::Subscribe(subscribe))
    );
    assert_eq!(
        Packet::read(0xE0, b"", Version::V3),
        Ok(Packet::Disconnect(false))
    );
    assert_eq!(
        Packet::read(0xE0, b"\x04", Version::V5),
        Ok(Packet::Disconnect(true))
    );
    assert_eq!(
        Packet::read(0xE0, b"\x00\x00", Version::V5),
        Ok(Packet::Disconnect(false))
    );
    assert_eq!(Packet::read(0xF0, b"\x18", Version::V5), Ok(Packet::Auth));
    assert_eq!(
        Packet::read(0x40, b"\x00\x09\x10\x00", Version::V5),
        Ok(Packet::PubAck(9))
    );
}

#[test]
fn answers_are_those_of_the_standards() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = vec![];
        write(&mut out);
        out
    };
    let announced = Announced {
        maximum_packet: 65_536,
        receive_maximum: 64,
        keep_alive: Some(60),
        client_id: Some("made"),
        ice_servers: None,
    };
    assert_eq!(
        written(&|out| writer::accept(out, Version::V3, announced)),
        b"\x20\x02\x00\x00"
    );
    assert_eq!(
        written(&|out| writer::accept(out, Version::V5, announced)),
        b"\x20\x25\x00\x00\x22\
          \x11\x00\x00\x00\x00\x25\x00\x28\x00\x29\x00\x2a\x00\
          \x27\x00\x01\x00\x00\x21\x00\x40\x22\x00\x00\x13\x00\x3c\x12\x00\x04made"
    );
    let refused = |version, reason| written(&|out| writer::refuse(out, version, reason));
    assert_eq!(
        refused(Version::V3, Reason::UnsupportedVersion),
        b"\x20\x02\x00\x01"
    );
    assert_eq!(
        refused(Version::V3, Reason::NotAuthorized),
        b"\x20\x02\x00\x05"
    );
    assert_eq!(
        refused(Version::V5, Reason::NotAuthorized),
        b"\x20\x03\x00\x87\x00"
    );
    let none = Reason::NoMatchingSubscribers;
    let ack = |version, reason| {
        written(&|out| writer::acknowledge(out, version, Ack::PubAck, 258, reason))
    };
    assert_eq!(ack(Version::V3, none), b"\x40\x02\x01\x02");
    assert_eq!(ack(Version::V5, none), b"\x40\x03\x01\x02\x10");
    let codes = [Ok(1), Err(Reason::WildcardsUnavailable)];
    let granted = |version| written(&|out| writer::subscribed(out, version, 3, &codes));
    assert_eq!(granted(Version::V3), b"\x90\x04\x00\x03\x01\x80");
    assert_eq!(granted(Version::V5), b"\x90\x05\x00\x03\x00\x01\xa2");
    let left = |version| written(&|out| writer::unsubscribed(out, version, 3, &[Reason::Success]));
    assert_eq!(left(Version::V3), b"\xb0\x02\x00\x03");
    assert_eq!(left(Version::V5), b"\xb0\x04\x00\x03\x00\x00");
    assert_eq!(
        written(&|out| writer::disconnect(out, Version::V5, Reason::TakenOver)),
        b"\xe0\x01\x8e"
    );
    assert!(written(&|out| writer::disconnect(out, Version::V3, Reason::TakenOver)).is_empty());
}

#[test]
fn a_length_is_four_bytes_at_most_and_within_the_limit() {
    let fed = |bytes: &[u8], max| {
        Stream::default().feed(bytes, max, |_, _| Ok(ControlFlow::Continue(())))
    };
    assert_eq!(fed(b"\x30\x80\x80\x80\x80", 100), Err(Reason::Malformed));
    assert_eq!(fed(b"\x30\xff\xff\xff\x7f", 65_536), Err(Reason::TooLarge));
    assert_eq!(fed(b"\x30\x62", 100), Ok(()), "a hundred bytes in all");
    assert_eq!(fed(b"\x30\x63", 100), Err(Reason::TooLarge));
}

proptest! {
    /// A publication that is written is read as it was, in either version, and cut anywhere.
    #[test]
    fn publications_survive_the_wire(
        topic in "[^\\x00+#]{1,60}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        qos in 0u8..3,
        id in 1u16..,
        retain: bool,
        is_five: bool,
        piece in 1usize..70,
    ) {
        let version = if is_five { Version::V5 } else { Version::V3 };
        let properties: &[u8] = if is_five { b"\x01\x01\x26\x00\x01k\x00\x01v" } else { b"" };
        let publish = Publish {
            duplicate: false,
            qos,
            retain,
            topic: &topic,
            id: if qos == 0 { 0 } else { id },
            aliased: false,
            properties,
            payload: &payload,
        };
        let mut bytes = vec![];
        writer::publish(&mut bytes, version, &publish);
        prop_assert!(bytes.len() <= writer::publish_length(&publish));
        let (head, body) = split(&bytes);
        prop_assert_eq!(Packet::read(head, &body, version), Ok(Packet::Publish(publish)));
        let mut stream = Stream::default();
        let mut found = 0;
        for piece in bytes.chunks(piece) {
            stream.feed(piece, 1 << 16, |got, rest| {
                assert_eq!((got, rest), (head, &body[..]));
                found += 1;
                Ok(ControlFlow::Continue(()))
            }).unwrap();
        }
        prop_assert_eq!(found, 1);
        prop_assert!(!stream.is_unfinished());
    }

    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        super::fuzz(&bytes);
    }
}
