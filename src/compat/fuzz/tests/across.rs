//! Attacks from one dialect on another, in one room: each speaker against each.
//!
//! A client of `/api/messages` is one of `/`: both have the same translator.

use super::rooms::{packet, string};
use super::*;
use crate::compat::mqtt::packet::Packet;
use crate::compat::mqtt::reader::Stream;
use crate::compat::object;
use crate::protocol::{FrameType, MessageType, folds_to};
use serde_json::value::RawValue;
use std::ops::ControlFlow;

/// In the room before the two. Its names are those that the attacker gives as its own.
const BYSTANDER: u64 = 2;
const NAME: &str = "mallory";
const TOPIC: &str = "room/r/signaling";

/// A client, and what it has shown of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Native,
    /// Of a tutorial, on `/`.
    Page(DialectKind),
    SocketIo(Profile),
    Mqtt(Version),
    PeerJs,
    YWebrtc,
    Trystero,
}

const ALL: [Who; 16] = [
    Who::Native,
    Who::Page(DialectKind::Tutorial),
    Who::Page(DialectKind::Tutorial0),
    Who::Page(DialectKind::Tutorial1),
    Who::Page(DialectKind::Tutorial2),
    Who::Page(DialectKind::Tutorial3),
    Who::SocketIo(Profile::Tutorial),
    Who::SocketIo(Profile::Relay),
    Who::SocketIo(Profile::Lobby),
    Who::SocketIo(Profile::Codelab),
    Who::SocketIo(Profile::Call),
    Who::Mqtt(Version::V3),
    Who::Mqtt(Version::V5),
    Who::PeerJs,
    Who::YWebrtc,
    Who::Trystero,
];

/// What servers say in some dialect and no client of the native protocol says at all.
const WORDS: [&str; 28] = [
    "room-joined",
    "user-joined",
    "user-left",
    "join-error",
    "ready",
    "change",
    "ipaddr",
    "connect",
    "connect_error",
    "disconnect",
    "room-users",
    "user-connected",
    "user-disconnected",
    "me",
    "callAccepted",
    "callEnded",
    "all users",
    "full",
    "created",
    "OPEN",
    "EXPIRE",
    "ID-TAKEN",
    "ERROR",
    "LEAVE",
    "OFFER",
    "pong",
    "publish",
    "no-such-type",
];

/// What the server alone writes at the top of what it relays, as natives get it.
const STAMPS: [&str; 18] = [
    "from",
    "fromIdentity",
    "roomId",
    "ts",
    "seq",
    "peerId",
    "iceServers",
    "iceTransportPolicy",
    "ttl",
    "expiresAt",
    "resumeToken",
    "resumeWindow",
    "peers",
    "peer",
    "room",
    "role",
    "code",
    "retryAfter",
];

impl Who {
    fn kind(self) -> DialectKind {
        match self {
            Self::Native => DialectKind::Native,
            Self::Page(_) => DialectKind::Tutorial,
            Self::SocketIo(_) => DialectKind::SocketIo,
            Self::Mqtt(_) => DialectKind::Mqtt,
            Self::PeerJs => DialectKind::PeerJs,
            Self::YWebrtc => DialectKind::YWebrtc,
            Self::Trystero => DialectKind::Trystero,
        }
    }

    /// Whether it is in the room of all: others meet nobody but their own.
    fn is_in_room(self) -> bool {
        matches!(
            self,
            Self::Native | Self::Page(_) | Self::SocketIo(Profile::Tutorial) | Self::Mqtt(_)
        )
    }

    /// The fields that are the server's in what this client gets.
    fn owned(self) -> Vec<&'static str> {
        match self {
            Self::Mqtt(_) => STAMPS[..4].to_vec(),
            Self::Page(_) | Self::SocketIo(_) => {
                let more = ["clientId", "userId", "fromId", "fromUserId", "members"];
                [&STAMPS[..], &more[..]].concat()
            }
            _ => STAMPS.to_vec(),
        }
    }

    fn enter(self, world: &mut World, conn: u64) {
        match self {
            Self::Native => {
                world.open(DialectKind::Native, conn, Speaker::Native(Native));
                world.text(conn, r#"{"type":"join","roomId":"r"}"#);
            }
            Self::Page(kind) => {
                let page = Speaker::Foreign(Tutorial::default().into());
                world.open(DialectKind::Tutorial, conn, page);
                let join = match kind {
                    DialectKind::Tutorial1 => r#"{"type":"join","roomId":"r","identity":"one"}"#,
                    _ => r#"{"type":"join","roomId":"r"}"#,
                };
                if kind == DialectKind::Tutorial3 {
                    world.text(conn, r#"{"type":"register","userId":"three"}"#);
                }
                world.text(conn, join);
                match kind {
                    DialectKind::Tutorial0 => {
                        world.text(conn, r#"{"type":"message","content":0,"to":"nobody"}"#);
                    }
                    DialectKind::Tutorial2 => world.text(conn, r#"{"candidate":null}"#),
                    _ => {}
                }
            }
            Self::SocketIo(profile) => {
                world.connect(DialectKind::SocketIo, profile, conn);
                if profile == Profile::Tutorial {
                    world.text(conn, r#"42["join-room",{"roomId":"r"}]"#);
                }
            }
            Self::Mqtt(version) => {
                let rooms = RoomTopics::new("room/{room}/signaling").map(Arc::new);
                let mqtt = Speaker::Foreign(Box::new(Mqtt::with_rooms(rooms, true)).into());
                world.open(DialectKind::Mqtt, conn, mqtt);
                let (level, none) = self.version(version);
                let hello = [
                    &string("MQTT")[..],
                    &[level, 2, 0, 60],
                    none,
                    &string(&format!("m{conn}")),
                ];
                world.binary(conn, &packet(0x10, &hello.concat()));
                for (id, topic) in [(1, TOPIC), (2, "t"), (3, "$callbox/ice")] {
                    let body = [&[0, id][..], none, &string(topic), &[0]].concat();
                    world.binary(conn, &packet(0x82, &body));
                }
            }
            Self::PeerJs | Self::YWebrtc | Self::Trystero => {
                world.connect(self.kind(), Profile::Relay, conn);
                for topic in ["r", TOPIC] {
                    let (one, list) = (format!(r#""topic":"{topic}""#), format!(r#"["{topic}"]"#));
                    let text = format!(r#"{{"type":"subscribe",{one},"topics":{list}}}"#);
                    world.text(conn, &text);
                }
            }
        }
    }

    /// The level of a version, and no properties.
    fn version(self, version: Version) -> (u8, &'static [u8]) {
        match version {
            Version::V3 => (4, &[]),
            Version::V5 => (5, &[0]),
        }
    }

    /// Says a word with these fields, to all and to one, in every way that its protocol has.
    fn attack(self, world: &mut World, word: &str, fields: &str, to: &str) {
        let say = |world: &mut World, text: &str| world.text(ATTACKER, text);
        let both = ["".to_owned(), format!(r#","to":"{to}""#)];
        let object = |to: &str| format!(r#"{{"type":"{word}"{fields}{to}}}"#);
        match self {
            Self::Native | Self::Page(_) => {
                for to in &both {
                    say(world, &object(to));
                }
                let call = format!(r#"{{"type":"call"{fields},"to":"{to}"}}"#);
                say(world, &call);
                // Whose partner it is gets it alone.
                let desc = r#"{"type":"offer","sdp":"v=0"}"#;
                say(world, &format!(r#"{{"desc":{desc}{fields}}}"#));
                say(world, r#"{"type":"message","content":"fine"}"#);
            }
            Self::SocketIo(_) => {
                for to in &both {
                    say(world, &format!(r#"42["{word}",{}]"#, object(to)));
                }
                say(world, &format!(r#"42["{word}","{to}"]"#));
                say(world, r#"42["message",{"content":"fine"}]"#);
            }
            Self::Mqtt(version) => {
                let (_, none) = self.version(version);
                for topic in [TOPIC, "t", "r", "$callbox/ice"] {
                    for to in &both {
                        let body = [&string(topic)[..], none, object(to).as_bytes()].concat();
                        world.binary(ATTACKER, &packet(0x30, &body));
                    }
                }
            }
            Self::PeerJs => {
                for dst in [to, "client1", "r"] {
                    say(world, &object(&format!(r#","dst":"{dst}","payload":1"#)));
                }
            }
            Self::YWebrtc | Self::Trystero => {
                for topic in [TOPIC, "t", "r"] {
                    say(
                        world,
                        &object(&format!(r#","topic":"{topic}","payload":1"#)),
                    );
                    let fields = fields.trim_start_matches(',');
                    say(
                        world,
                        &format!(r#"{{"type":"publish","topic":"{topic}",{fields}}}"#),
                    );
                }
            }
        }
    }

    /// What the server says to this client, as an object with its `type`.
    fn reads(self, message: &Message) -> Vec<(Option<String>, String)> {
        match (self, message) {
            (Self::SocketIo(_), Message::Text(text)) => {
                let list = object::list(text.strip_prefix("42").expect("an event"));
                let name = serde_json::from_str(list[0]).expect("a name");
                vec![(Some(name), list[1].to_owned())]
            }
            (Self::Mqtt(version), Message::Binary(bytes)) => {
                let mut said = vec![];
                let fed = Stream::default().feed(bytes, usize::MAX, |head, body| {
                    match Packet::read(head, body, version)? {
                        Packet::Publish(publish) => {
                            assert!([TOPIC, "t"].contains(&publish.topic), "{publish:?}");
                            let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                            if publish.topic == TOPIC {
                                said.push((None, text));
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                    Ok(ControlFlow::Continue(()))
                });
                assert!(fed.is_ok(), "{bytes:?}");
                said
            }
            (_, Message::Text(text)) => vec![(None, text.clone())],
            (_, Message::Binary(bytes)) => panic!("{bytes:?}"),
        }
    }

    fn judge(self, attacker: (Self, &str), forged: &[&str], message: &Message) {
        let (from, id) = attacker;
        for (event, text) in self.reads(message) {
            let fields = fields(&text);
            let value = |name: &str| {
                let mut of_name = fields.iter().filter(|(field, _)| folds_to(field, name));
                let first = of_name.next();
                assert!(of_name.next().is_none(), "twice {name}: {text}");
                first.map(|(field, value)| {
                    assert_eq!(field, name, "{text}");
                    value.trim_matches('"').to_owned()
                })
            };
            if self == Self::Page(DialectKind::Tutorial2) {
                let name = &fields[0].0;
                let is_known = fields.len() == 1 && ["desc", "candidate"].contains(&&**name);
                assert!(is_known, "{text}");
                continue;
            }
            // Who speaks MQTT gives itself a name.
            let is_topic = matches!((from, self), (Self::Mqtt(_), Self::Mqtt(_)));
            if !is_topic {
                let kind = value("type").expect("a type");
                let said = MessageType::from_name(&kind);
                let relayed = said.and_then(FrameType::relayed);
                assert!(relayed.is_some(), "{kind}: {text}");
                assert!(event.is_none_or(|event| event == kind), "{text}");
                assert_eq!(value("from").as_deref(), Some(id), "{text}");
            }
            if is_topic {
                // What looks like an id is the server's; any other name is the client's own.
                let names = fields.iter().filter(|(name, _)| folds_to(name, "from"));
                for (_, value) in names {
                    assert_ne!(value.trim_matches('"'), forged[0], "{text}");
                }
            }
            for name in self.owned() {
                if is_topic && name == "from" {
                    continue;
                }
                let value = value(name).unwrap_or_default();
                assert!(!forged.contains(&&*value), "{name}: {text}");
                assert!(!value.contains(NAME), "{name}: {text}");
                match name {
                    "from" | "fromId" if !value.is_empty() => assert_eq!(value, id, "{text}"),
                    "fromIdentity" | "roomId" | "ts" if is_topic => assert_eq!(value, "", "{text}"),
                    // Which members of a room get, and nobody else.
                    "roomId" if !value.is_empty() => assert_eq!(value, "r", "{text}"),
                    "ts" | "from" | "fromId" | "fromIdentity" | "roomId" => {}
                    "fromUserId" => {}
                    // Frames of natives are numbered.
                    "seq" if self == Self::Native => {
                        assert!(value.parse::<u64>().is_ok_and(|seq| seq > 0), "{text}");
                    }
                    _ => assert_eq!(value, "", "{name}: {text}"),
                }
            }
        }
    }
}

/// All fields of an object, those with one name as well.
fn fields(text: &str) -> Vec<(String, String)> {
    struct Fields(Vec<(String, String)>);
    impl<'de> serde::Deserialize<'de> for Fields {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> serde::de::Visitor<'de> for All {
                type Value = Vec<(String, String)>;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Self::Value, A::Error> {
                    let mut fields = vec![];
                    while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                        fields.push((name, value.get().to_owned()));
                    }
                    Ok(fields)
                }
            }
            deserializer.deserialize_map(All).map(Self)
        }
    }
    let parsed: Fields = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    parsed.0
}

/// What the server says in one dialect no client of another one says to its clients: nobody speaks in
/// another's name, and none of the server's words comes from anybody else.
#[test]
fn no_dialect_speaks_for_the_server_in_another() {
    let words = FrameType::ALL.iter().map(|kind| kind.as_str()).chain(WORDS);
    // What its clients may ask for, beside what goes to others.
    let is_request = |word: &&str| {
        let said = MessageType::from_name(word);
        said.is_some_and(|said| FrameType::relayed(said).is_none())
    };
    let words: Vec<_> = words.filter(|word| !is_request(word)).collect();
    for attacker in ALL {
        for victim in ALL {
            let meet = attacker.is_in_room() && victim.is_in_room();
            if !meet && attacker.kind() == victim.kind() {
                continue;
            }
            let mut world = World::empty(Instant::now());
            world.open(DialectKind::Native, BYSTANDER, Speaker::Native(Native));
            let join = format!(r#"{{"type":"join","roomId":"r","identity":"{NAME}"}}"#);
            world.text(BYSTANDER, &join);
            victim.enter(&mut world, VICTIM);
            attacker.enter(&mut world, ATTACKER);
            world.received();
            let [own, to, other] = [ATTACKER, VICTIM, BYSTANDER].map(|conn| {
                let peer = world.peers[conn as usize].clone();
                assert!(!peer.is_empty(), "{attacker:?} {victim:?}");
                peer
            });
            let forged = [&*other, NAME, "forged"];
            let mut count = 0;
            // Where nothing may arrive at all, some words stand for the others.
            let step = if meet { 1 } else { 5 };
            for (n, word) in words.iter().enumerate().step_by(step) {
                let mut fields =
                    r#","sdp":{"type":"offer","sdp":"v=0"},"candidate":null"#.to_owned();
                fields.push_str(r#","content":1,"tracks":[],"data":1,"media":"audio""#);
                for name in victim.owned() {
                    for (name, value) in [
                        (name.to_owned(), forged[n % forged.len()]),
                        (name.to_uppercase(), "forged"),
                    ] {
                        fields.push_str(&format!(r#","{name}":"{value}""#));
                    }
                }
                world.now.instant += Duration::from_secs(5);
                world.now.unix_ms += 5_000;
                attacker.attack(&mut world, word, &fields, &to);
                for message in world.received() {
                    victim.judge((attacker, &own), &forged, &message);
                    count += 1;
                }
            }
            assert_eq!(count > 0, meet, "{attacker:?} says to {victim:?}");
        }
    }
}
