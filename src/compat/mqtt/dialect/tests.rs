//! A connection alone: limits, and answers that depend on the version.

use super::*;
use crate::compat::tests::{Done, binary, event, watch};
use crate::protocol::{Denied, ExchangeReply};

fn reply(mqtt: &mut Mqtt, reply: ExchangeReply) -> Done {
    event(mqtt, Event::Exchange(Box::new(reply)))
}

/// CONNECT, with more behind the client id.
fn connect(level: u8, flags: u8, properties: &[u8], more: &[u8]) -> Vec<u8> {
    let body = [
        b"\x00\x04MQTT",
        &[level, flags, 0, 60][..],
        properties,
        b"\x00\x01c",
        more,
    ]
    .concat();
    let mut bytes = vec![0x10];
    let mut rest = body.len();
    while rest > 127 {
        bytes.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    bytes.push(rest as u8);
    [bytes, body].concat()
}

fn open(level: u8, properties: &[u8]) -> Mqtt {
    let mut mqtt = Mqtt::default();
    binary(&mut mqtt, &connect(level, 2, properties, b""));
    reply(&mut mqtt, ExchangeReply::Opened);
    let name = "c".into();
    reply(&mut mqtt, ExchangeReply::Claimed { name });
    mqtt.accept(None, &mut Output::new(&mut vec![], &mut vec![], &mut None));
    assert!(matches!(mqtt.state, State::Open));
    mqtt
}

#[test]
fn over_the_limit_version_3_is_closed_and_5_is_told() {
    for qos in [1, 2] {
        let publish = [&[0x30 | qos << 1, 6, 0, 1, b't', 0, 9][..], b"m"].concat();
        let slow = || ExchangeReply::Published {
            id: 9,
            clients: Err(Denied::TooFast),
        };
        let mut three = open(4, b"");
        binary(&mut three, &publish);
        let done = reply(&mut three, slow());
        assert_eq!(done.binaries, [] as [Vec<u8>; 0], "no acknowledgement");
        assert_eq!(done.closing.unwrap().code, CloseCode::RateLimited);
        let mut five = open(5, b"\x00");
        binary(&mut five, &[&publish[..6], b"\x09\x00"].concat()[..]);
        let done = reply(&mut five, slow());
        assert!(done.closing.is_none());
        assert_eq!(done.binaries[0].last(), Some(&0x97));
    }
}

#[test]
fn a_slow_subscriber_and_a_will_take_up_little() {
    let mut mqtt = open(5, b"\x03\x21\x00\x01");
    let publication = Arc::new(Publication {
        topic: "t".into(),
        properties: [].into(),
        payload: vec![b'x'; 1_000].into(),
        qos: 1,
        room: None,
    });
    let mut taken = 0;
    loop {
        let done = event(
            &mut mqtt,
            Event::Published {
                publication: Arc::clone(&publication),
                clients: 1,
                qos: 1,
            },
        );
        if let Some(closing) = done.closing {
            assert_eq!(closing.code, CloseCode::SlowConsumer);
            break;
        }
        taken += publication.cost();
        assert!(taken < 32 << 10, "{taken}");
    }
    assert!(taken > 16 << 10, "a call's worth of offers waits");
    for (length, refused) in [(4_000, false), (5_000, true)] {
        let will = [
            b"\x00\x00\x04left".as_slice(),
            &(length as u16).to_be_bytes(),
            &vec![b'x'; length],
        ]
        .concat();
        let mut mqtt = Mqtt::default();
        let done = binary(&mut mqtt, &connect(5, 0x06, b"\x00", &will));
        assert_eq!(done.closing.is_some(), refused, "{length}");
        if refused {
            assert_eq!(done.binaries, [b"\x20\x03\x00\x97\x00"]);
        }
    }
}

#[test]
fn the_end_of_the_subscription_of_ice_servers_is_confirmed_once() {
    let mut mqtt = open(5, b"\x00");
    let topic = b"\x00\x0c$callbox/ice";
    binary(
        &mut mqtt,
        &[b"\x82\x12\x00\x01\x00", &topic[..], b"\x00"].concat(),
    );
    for (id, code) in [(2, 0x00), (3, 0x11)] {
        binary(&mut mqtt, &[&[0xA2, 17, 0, id, 0], &topic[..]].concat());
        let found = vec![false];
        let done = reply(
            &mut mqtt,
            ExchangeReply::Unsubscribed {
                id: id.into(),
                found,
            },
        );
        assert_eq!(done.binaries, [[0xB0, 4, 0, id, 0, code]]);
    }
}

#[test]
fn more_than_a_packet_before_the_answer_to_connect_is_refused() {
    let mut mqtt = Mqtt::default();
    binary(&mut mqtt, &connect(4, 2, b"", b""));
    let mut kept = 0;
    let closing = loop {
        match binary(&mut mqtt, &[0xC0; 4_096]).closing {
            None => kept += 4_096,
            Some(closing) => break closing,
        }
        assert!(kept <= MAX_PACKET, "{kept}");
    };
    assert_eq!(closing.code, CloseCode::TooLarge);
    assert!(!mqtt.stream.is_unfinished());
}

/// Of 64 KiB a connection each would otherwise hold for as long as it answers pings.
#[test]
fn a_packet_that_does_not_end_ends_the_connection() {
    let start = Instant::now();
    let feed = |mqtt: &mut Mqtt, at: Instant, bytes: &[u8]| {
        watch(|out| mqtt.decode(Incoming::Binary(bytes), at, out))
    };
    let publish = b"\x30\x07\x00\x01t\x00abc";
    let mut mqtt = open(5, b"\x00");
    mqtt.keep_alive = None;
    feed(&mut mqtt, start, publish);
    assert_eq!(mqtt.next_timeout(), None);
    // Byte by byte it has no more time than otherwise.
    feed(&mut mqtt, start, &publish[..2]);
    feed(&mut mqtt, start + ENDS_WITHIN / 2, &publish[2..4]);
    assert_eq!(mqtt.next_timeout(), Some(start + ENDS_WITHIN));
    // The next one has its own time.
    let later = start + ENDS_WITHIN - Duration::from_secs(1);
    feed(&mut mqtt, later, &[&publish[4..], &publish[..1]].concat());
    let at = later + ENDS_WITHIN;
    assert_eq!(mqtt.next_timeout(), Some(at));
    let memory = mqtt.to_memory(later).unwrap();
    let mut mqtt = Mqtt::remembered(&memory, None, later).unwrap();
    assert_eq!(mqtt.next_timeout(), Some(at));
    assert!(watch(|out| mqtt.timed_out(later, out)).closing.is_none());
    let done = watch(|out| mqtt.timed_out(at, out));
    assert_eq!(done.closing.unwrap().code, CloseCode::ProtocolError);
    assert_eq!(done.binaries, [b"\xe0\x01\x81"]);
    assert_eq!(mqtt.next_timeout(), None);
}

/// What the server says there no client says, and who is told of refusals is told of this one.
#[test]
fn a_message_of_any_quality_to_a_topic_of_the_server_is_refused() {
    for (level, qos, expected) in [
        (5, 1, &b"\x40\x03\x00\x09\x87"[..]),
        (5, 2, b"\x50\x03\x00\x09\x87"),
        (4, 1, b"\x40\x02\x00\x09"),
        (4, 2, b"\x50\x02\x00\x09"),
    ] {
        let properties: &[u8] = if level == 5 { b"\x00" } else { b"" };
        let mut mqtt = open(level, properties);
        let body = [b"\x00\x02$x\x00\x09", properties, b"m"].concat();
        let publish = [&[0x30 | qos << 1, body.len() as u8][..], &body].concat();
        let mut done = binary(&mut mqtt, &publish);
        assert_eq!(done.binaries, [expected], "{level} {qos}");
        let asked = done.requests.pop().unwrap();
        assert!(matches!(asked, Ok(ExchangeRequest::Idle)));
        // The next message under that id is another one, after a refusal at once.
        assert_eq!(mqtt.unreleased.len(), usize::from(level == 4 && qos == 2));
    }
}

/// An attack: both would be kept for as long as the connection is open.
#[test]
fn a_token_is_kept_where_joins_need_it_and_never_a_long_one() {
    let field = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let rooms = || RoomTopics::new("room/{room}/signaling").map(Arc::new);
    let held = |mqtt: &Mqtt| mqtt.memory(Instant::now()).unwrap().len();
    let login = |token: &str| {
        let more = [field("any"), field(token)].concat();
        connect(4, 0xC2, b"", &more)
    };
    let long = format!("a.b.{}", "c".repeat(MAX_TOKEN));
    let mut mqtt = Mqtt::with_rooms(rooms(), true);
    let before = held(&mqtt);
    let done = binary(&mut mqtt, &login(&long));
    assert_eq!(done.binaries, [[0x20, 2, 0, 5]], "not authorized");
    assert!(done.requests.is_empty() && done.closing.is_some());
    assert!(held(&mqtt) < before + 100, "{} bytes", held(&mqtt));
    for (topics, asks, keeps) in [
        (rooms(), true, true),
        (rooms(), false, false),
        (None, true, false),
    ] {
        let mut mqtt = Mqtt::with_rooms(topics, asks);
        let done = binary(&mut mqtt, &login("a.b.c"));
        let asked = done.requests.into_iter().next().unwrap().unwrap();
        assert!(matches!(
            asked,
            ExchangeRequest::Open { token: Some(_), .. }
        ));
        assert_eq!(mqtt.rooms.token.is_some(), keeps);
    }
    let mut mqtt = Mqtt::with_rooms(rooms(), true);
    let id = field(&"c".repeat(MAX_NAME + 1));
    let body = [&b"\x00\x04MQTT\x04\x02\x00\x3c"[..], &id].concat();
    let head = [
        0x10,
        (body.len() % 128) as u8 | 0x80,
        (body.len() / 128) as u8,
    ];
    let done = binary(&mut mqtt, &[&head[..], &body].concat());
    assert_eq!(done.binaries, [[0x20, 2, 0, 2]], "the client id");
}

#[test]
fn over_the_rate_of_messages_a_connection_is_closed() {
    use crate::protocol::Body;
    let refused = r#"{"type":"error","code":"rate-limited","message":"m"}"#;
    let error = || Event::Native(Body::from_object(FrameType::Error, refused.to_owned()));
    let done = event(&mut open(5, b"\x00"), error());
    assert_eq!(done.binaries, [[0xE0, 1, 0x96]]);
    assert_eq!(done.closing.unwrap().code, CloseCode::RateLimited);
    let done = event(&mut open(4, b""), error());
    assert_eq!(done.binaries, [] as [Vec<u8>; 0]);
    assert_eq!(done.closing.unwrap().code, CloseCode::RateLimited);
}
