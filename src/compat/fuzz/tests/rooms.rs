//! Topics of MQTT that are rooms, with a hub behind them.

use super::*;
use crate::protocol::parse;

/// One beside the two.
const NATIVE: u64 = 2;

pub(super) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

pub(super) fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    if body.len() > 127 {
        bytes.push((body.len() % 128) as u8 | 0x80);
        bytes.push((body.len() / 128) as u8);
    } else {
        bytes.push(body.len() as u8);
    }
    [bytes, body.to_vec()].concat()
}

fn subscribe(id: u8, topic: &str) -> Vec<u8> {
    packet(0x82, &[&[0, id][..], &string(topic), &[0]].concat())
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic), payload].concat())
}

/// A native client says something.
fn say(world: &mut World, text: &str) {
    let conn = ConnId(NATIVE);
    let mut inputs = VecDeque::new();
    if world.hub.client_of(conn).is_none() {
        inputs.push_back(Input::Connected {
            conn,
            client: IpAddr::from(Ipv4Addr::LOCALHOST),
            dialect: DialectKind::Native,
            lobby: None,
        });
    }
    inputs.push_back(Input::Frame {
        conn,
        message: parse(text),
        grant: None,
    });
    world.settle(inputs);
}

fn taken(world: &mut World, conn: u64) -> Vec<Vec<u8>> {
    let client = world.clients.iter_mut().find(|(id, ..)| id.0 == conn);
    let messages = client.map(|(.., received)| std::mem::take(received));
    let bytes = |message| match message {
        Message::Binary(bytes) => bytes.to_vec(),
        Message::Text(text) => panic!("{text}"),
    };
    messages
        .unwrap_or_default()
        .into_iter()
        .map(bytes)
        .collect()
}

fn members(world: &World, room: &str) -> usize {
    world.hub.room(room).map_or(0, |room| room.members.len())
}

#[test]
fn who_is_not_let_into_a_room_does_not_get_its_topic() {
    let mut world = World::new(DialectKind::Mqtt, Instant::now());
    say(
        &mut world,
        r#"{"type":"join","roomId":"lk","create":{"locked":true}}"#,
    );
    let topic = "room/lk/signaling";
    for client in [VICTIM, ATTACKER] {
        taken(&mut world, client);
        world.binary(client, &subscribe(2, topic));
        assert_eq!(taken(&mut world, client), [b"\x90\x03\x00\x02\x80"]);
    }
    world.binary(ATTACKER, &publish(topic, b"secret"));
    assert_eq!(taken(&mut world, VICTIM), [] as [Vec<u8>; 0]);
    assert_eq!(members(&world, "lk"), 1);
    // A client that asks again gets in once the room is open.
    say(&mut world, r#"{"type":"room","locked":false}"#);
    for client in [VICTIM, ATTACKER] {
        world.binary(client, &subscribe(3, topic));
        assert_eq!(taken(&mut world, client), [b"\x90\x03\x00\x03\x00"]);
    }
    assert_eq!(members(&world, "lk"), 3);
    world.binary(ATTACKER, &publish(topic, b"open"));
    assert_eq!(taken(&mut world, VICTIM), [publish(topic, b"open")]);
    // One room at a time; and topics that are not rooms go with those that are refused.
    let both = [
        &[0, 4][..],
        &string("room/s/signaling"),
        &[0],
        &string("t2"),
        &[0],
    ]
    .concat();
    world.binary(VICTIM, &packet(0x82, &both));
    assert_eq!(taken(&mut world, VICTIM), [b"\x90\x04\x00\x04\x80\x00"]);
    world.binary(ATTACKER, &publish("t2", b"beside"));
    assert_eq!(taken(&mut world, VICTIM), [publish("t2", b"beside")]);
    // Who leaves may enter another room.
    let unsubscribe = packet(0xA2, &[&[0, 5][..], &string(topic)].concat());
    world.binary(VICTIM, &unsubscribe);
    world.binary(VICTIM, &subscribe(6, "room/s/signaling"));
    assert_eq!(
        taken(&mut world, VICTIM),
        [&b"\xb0\x02\x00\x05"[..], b"\x90\x03\x00\x06\x00"]
    );
    assert_eq!((members(&world, "lk"), members(&world, "s")), (2, 1));
    // Who is a member of another room does not publish.
    world.binary(VICTIM, &publish(topic, b"from outside"));
    assert_eq!(
        taken(&mut world, ATTACKER).pop(),
        Some(publish(topic, b"open"))
    );
}

/// A tutorial's client publishes before it subscribes.
#[test]
fn who_publishes_to_a_room_enters_it() {
    let mut world = World::new(DialectKind::Mqtt, Instant::now());
    let topic = "room/r/signaling";
    world.binary(VICTIM, &subscribe(2, topic));
    taken(&mut world, VICTIM);
    taken(&mut world, ATTACKER);
    world.binary(ATTACKER, &publish(topic, b"early"));
    assert_eq!(taken(&mut world, VICTIM), [publish(topic, b"early")]);
    assert_eq!(members(&world, "r"), 2);
    // It has not asked for what others say, by the topic or in the room.
    world.binary(VICTIM, &publish(topic, b"not yet"));
    taken(&mut world, VICTIM);
    say(&mut world, r#"{"type":"join","roomId":"r"}"#);
    say(&mut world, r#"{"type":"message","content":1}"#);
    assert_eq!(taken(&mut world, ATTACKER), [] as [Vec<u8>; 0]);
    assert_eq!(taken(&mut world, VICTIM).len(), 1);
    world.binary(ATTACKER, &subscribe(3, topic));
    assert_eq!(taken(&mut world, ATTACKER), [b"\x90\x03\x00\x03\x00"]);
    say(&mut world, r#"{"type":"message","content":2}"#);
    assert_eq!(taken(&mut world, ATTACKER).len(), 1);
    assert_eq!(members(&world, "r"), 3);
    // Of two clients that only publish, one may go on to another room, and one is not let in.
    for room in ["a", "b"] {
        let create = format!(r#"{{"type":"join","roomId":"{room}","create":{{"maxPeers":2}}}}"#);
        say(&mut world, &create);
        world.binary(
            ATTACKER,
            &packet(0xA2, &[&[0, 9][..], &string(topic)].concat()),
        );
        taken(&mut world, ATTACKER);
        world.binary(ATTACKER, &publish(&format!("room/{room}/signaling"), b"x"));
        assert_eq!(members(&world, room), 2, "{room}");
        let other = format!("room/{room}2/signaling");
        world.binary(ATTACKER, &subscribe(7, &other));
        assert_eq!(taken(&mut world, ATTACKER), [b"\x90\x03\x00\x07\x00"]);
        assert_eq!(
            (members(&world, room), members(&world, &format!("{room}2"))),
            (1, 1)
        );
        world.binary(
            ATTACKER,
            &packet(0xA2, &[&[0, 9][..], &string(&other)].concat()),
        );
        taken(&mut world, ATTACKER);
    }
    say(&mut world, r#"{"type":"room","locked":true}"#);
    // With QoS 1 and 2: acknowledged, as version 3.1.1 has no words for a refusal.
    for (head, ack) in [(0x32, 0x40), (0x34, 0x50)] {
        let body = [&string("room/b/signaling")[..], &[0, 5], b"x"].concat();
        world.binary(ATTACKER, &packet(head, &body));
        assert_eq!(taken(&mut world, ATTACKER), [[ack, 2, 0, 5]]);
    }
    assert_eq!(members(&world, "b"), 1);
}

#[test]
fn no_client_of_mqtt_speaks_for_the_bridge() {
    let mut world = World::new(DialectKind::Mqtt, Instant::now());
    say(
        &mut world,
        r#"{"type":"join","roomId":"r","identity":"nat"}"#,
    );
    let topic = "room/r/signaling";
    for client in [VICTIM, ATTACKER] {
        world.binary(client, &subscribe(2, topic));
        taken(&mut world, client);
    }
    let (native, own) = (
        world.peers[2].clone(),
        world.peers[ATTACKER as usize].clone(),
    );
    let forged = format!(
        r#"{{"type":"offer","sdp":"v=0","from":"x","from":"{native}","fromIdentity":"nat","ROOMID":"r","ts":1}}"#
    );
    world.binary(ATTACKER, &publish(topic, forged.as_bytes()));
    let stripped = br#"{"type":"offer","sdp":"v=0"}"#;
    assert_eq!(taken(&mut world, VICTIM), [publish(topic, stripped)]);
    // Its own names for itself stay.
    for from in ["user-456", &own] {
        let fine = format!(r#"{{"type":"offer","sdp":"v=0","from":"{from}"}}"#);
        world.binary(ATTACKER, &publish(topic, fine.as_bytes()));
        assert_eq!(taken(&mut world, VICTIM), [publish(topic, fine.as_bytes())]);
    }
    // What another decoder could read as an object goes nowhere.
    for lenient in [
        &b"{\"fromIdentity\":\"nat\",\"z\":NaN}"[..],
        b"{\"fromIdentity\":\"nat\",\"z\":\"\xff\"}",
        b"\xef\xbb\xbf{\"fromIdentity\":\"nat\"}",
    ] {
        world.binary(ATTACKER, &publish(topic, lenient));
        assert_eq!(taken(&mut world, VICTIM), [] as [Vec<u8>; 0]);
    }
    world.binary(ATTACKER, &publish(topic, b"[1]"));
    assert_eq!(taken(&mut world, VICTIM), [publish(topic, b"[1]")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Packets may come before the answers to those before them, cut anywhere.
    #[test]
    fn what_is_sent_before_an_answer_waits_for_it(piece in 1_usize..120) {
        let mut world = World::new(DialectKind::Mqtt, Instant::now());
        let topic = "room/r/signaling";
        world.binary(VICTIM, &subscribe(2, topic));
        taken(&mut world, VICTIM);
        let rooms = RoomTopics::new("room/{room}/signaling").map(Arc::new);
        world.open(DialectKind::Mqtt, NATIVE, Speaker::Foreign(Box::new(Mqtt::with_rooms(rooms, true)).into()));
        let [hello, _] = MQTT_HELLO;
        let stream = [
            hello, b"z", &subscribe(1, topic), &publish(topic, b"early"), &subscribe(2, "t"), b"\xc0\x00",
        ]
        .concat();
        for piece in stream.chunks(piece) {
            world.binary(NATIVE, piece);
        }
        let expected = [
            b"\x20\x02\x00\x00".to_vec(),
            b"\x90\x03\x00\x01\x00".to_vec(),
            publish(topic, b"early"),
            b"\x90\x03\x00\x02\x00".to_vec(),
            b"\xd0\x00".to_vec(),
        ];
        let mut received = taken(&mut world, NATIVE);
        // Answers of the hub come behind those of the dialect alone.
        received.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        prop_assert_eq!(received, expected);
        prop_assert_eq!(taken(&mut world, VICTIM), [publish(topic, b"early")]);
    }

    /// Whatever a client makes of the names of the stamps, none of them reaches another.
    #[test]
    fn no_stamp_passes(
        fields in prop::collection::vec(
            (prop::sample::select(vec![
                "from", "From", "fromIdentity", "FROMIDENTITY", "from\\u0049dentity", "roomId", "ts", "TS", "a",
            ]), "[x-z]{0,4}"),
            0..8,
        ),
        blank in "[ \t\r\n]{0,2}",
    ) {
        let mut world = World::new(DialectKind::Mqtt, Instant::now());
        let topic = "room/r/signaling";
        for client in [VICTIM, ATTACKER] {
            world.binary(client, &subscribe(2, topic));
            taken(&mut world, client);
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        let payload = format!("{blank}{{{}}}", fields.join(","));
        world.binary(ATTACKER, &publish(topic, payload.as_bytes()));
        let received = taken(&mut world, VICTIM);
        prop_assert_eq!(received.len(), 1);
        let text = String::from_utf8_lossy(&received[0]).to_lowercase();
        for stamp in ["fromidentity", "\"roomid", "\"ts\"", "0049"] {
            prop_assert!(!text.contains(stamp), "{}", text);
        }
    }
}

/// SUBACK of version 5 says why (MQTT 5.0, 3.9.3); version 3.1.1 has one code for all of it.
#[test]
fn version_5_learns_why_a_topic_is_refused() {
    let mut world = World::empty(Instant::now());
    let rooms = RoomTopics::new("room/{room}/signaling").map(Arc::new);
    let mut clients = vec![];
    for (conn, level) in [(VICTIM, 5), (ATTACKER, 4)] {
        let mqtt = Box::new(Mqtt::with_rooms(rooms.clone(), true));
        world.open(DialectKind::Mqtt, conn, Speaker::Foreign(mqtt.into()));
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        let hello = [&string("MQTT")[..], &[level, 2, 0, 60], none, &string("")];
        world.binary(conn, &packet(0x10, &hello.concat()));
        taken(&mut world, conn);
        clients.push((conn, none));
    }
    let mut id = 0;
    let mut codes = |world: &mut World, topic: &str| {
        id += 1;
        [0, 1].map(|client| {
            let (conn, none): (u64, &[u8]) = clients[client];
            let body = [&[0, id][..], none, &string(topic), &[0]].concat();
            world.binary(conn, &packet(0x82, &body));
            let mut answers = taken(world, conn).into_iter();
            let answer = answers.find(|answer| answer[0] == 0x90).unwrap();
            let (code, head) = answer.split_last().unwrap();
            let length = 3 + none.len() as u8;
            assert_eq!(head, [&[0x90, length, 0, id][..], none].concat(), "{topic}");
            *code
        })
    };
    for (create, code) in [
        (r#"{"locked":true}"#, 0x87),
        (r#"{"password":"x"}"#, 0x87),
        (r#"{"maxPeers":1}"#, 0x97),
    ] {
        let room = format!("r{}", create.len());
        say(
            &mut world,
            &format!(r#"{{"type":"join","roomId":"{room}","create":{create}}}"#),
        );
        let topic = format!("room/{room}/signaling");
        assert_eq!(codes(&mut world, &topic), [code, 0x80], "{create}");
    }
    for (topic, wanted) in [
        ("t", [0, 0]),
        ("t/#", [0xA2, 0x80]),
        ("+/t", [0xA2, 0x80]),
        ("$share/g/t", [0x9E, 0x80]),
        ("$SYS/uptime", [0x87, 0x80]),
        ("$callbox/ice", [0, 0]),
        ("room/open/signaling", [0, 0]),
        // One room at a time.
        ("room/other/signaling", [0x87, 0x80]),
    ] {
        assert_eq!(codes(&mut world, topic), wanted, "{topic}");
    }
}
