mod attachments;
mod held;
mod profiles;

use super::super::tests::messages;
use super::*;
use crate::protocol::{Body, Forward, Join, Payload};
use crate::signal::Asked;
use serde_json::Value;

const ME: PeerId = PeerId::from_bits(7);
const OTHER: PeerId = PeerId::from_bits(8);
const THIRD: PeerId = PeerId::from_bits(9);

/// One connection, and what it did since the last look.
struct Bench {
    dialect: SocketIo,
    now: Instant,
    texts: Vec<String>,
    binaries: Vec<Vec<u8>>,
    asked: Vec<Asked>,
    closing: Option<Closing>,
}

impl Bench {
    fn new(revision: Revision, profile: Profile) -> Self {
        let dialect = SocketIo::new(Opening {
            revision,
            sid: (revision == Revision::V4).then(|| "S".to_owned()),
            upgrades: true,
            profile,
            max_payload: 65_536,
            address: Some("192.0.2.1".into()),
            keeps_token: true,
        });
        let mut bench = Self {
            dialect,
            now: Instant::now(),
            texts: vec![],
            binaries: vec![],
            asked: vec![],
            closing: None,
        };
        bench.act(|dialect, now, out| dialect.opened(now, out));
        bench.native(FrameType::Welcome, json!({"peerId": ME}));
        bench
    }

    /// Connected to `/`; what was said so far is forgotten.
    fn connected(profile: Profile) -> Self {
        let mut bench = Self::new(Revision::V4, profile);
        bench.say("40");
        bench.event(Event::Exchange(Box::new(ExchangeReply::Opened)));
        bench.texts.clear();
        bench
    }

    /// In the room of one other member.
    fn joined(profile: Profile, join: Value) -> Self {
        let mut bench = Self::connected(profile);
        if !join.is_null() {
            bench.emit(join);
        }
        bench.enter(json!([peer(OTHER, "olga")]));
        bench.texts.clear();
        bench.asked.clear();
        bench
    }

    fn enter(&mut self, peers: Value) {
        let id = self
            .asked
            .iter()
            .rev()
            .find_map(|asked| asked.as_ref().ok()?.id.clone());
        let joined = json!({"id": id, "peerId": ME, "identity": "me", "roomId": "x", "peers": peers,
            "iceServers": [{"urls": ["stun:h"]}], "ttl": 60, "resumeToken": "secret"});
        self.native(FrameType::Joined, joined);
    }

    fn act(&mut self, act: impl FnOnce(&mut SocketIo, Instant, &mut Output<'_>)) {
        let mut frames = vec![];
        let mut out = Output::new(&mut frames, &mut self.asked, &mut self.closing);
        act(&mut self.dialect, self.now, &mut out);
        let (texts, binaries) = messages(&frames);
        self.texts.extend(texts);
        self.binaries.extend(binaries);
    }

    fn say(&mut self, text: &str) {
        self.act(|dialect, now, out| dialect.decode(Incoming::Text(text), now, out));
    }

    /// The bytes of all that is remembered.
    fn held(&self) -> usize {
        self.dialect.memory(self.now).unwrap().len()
    }

    fn emit(&mut self, event: Value) {
        self.say(&format!("42{event}"));
    }

    fn event(&mut self, event: Event) {
        let outgoing = Outgoing {
            peer: ME,
            seq: None,
            event,
        };
        self.act(|dialect, now, out| dialect.encode(&outgoing, now, out));
    }

    fn native(&mut self, kind: FrameType, mut fields: Value) {
        fields["type"] = json!(kind.as_str());
        self.event(Event::Native(Body::from_object(kind, fields.to_string())));
    }

    /// An event that another member's translator let through.
    fn receives(&mut self, from: PeerId, content: Value) {
        let message = json!({"content": content, "from": from, "ts": 3_723_000});
        self.native(FrameType::Message, message);
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.act(|dialect, now, out| dialect.timed_out(now, out));
    }

    /// The events since the last look.
    fn received(&mut self) -> Vec<Value> {
        let texts = std::mem::take(&mut self.texts).into_iter();
        texts
            .map(|text| serde_json::from_str(text.strip_prefix("42").expect(&text)).unwrap())
            .collect()
    }

    /// What goes to others since the last look: to whom, the name and the arguments.
    fn sent(&mut self) -> Vec<(Option<String>, Value, Value)> {
        let asked = std::mem::take(&mut self.asked);
        asked
            .into_iter()
            .filter_map(|asked| match asked.unwrap().request {
                Request::Forward(Forward {
                    to,
                    payload: Payload::Opaque,
                    rest,
                }) => {
                    let message: Value =
                        serde_json::from_str(&format!("{{{}}}", &rest[1..])).unwrap();
                    let content = &message["content"];
                    Some((to, content["event"].clone(), content["args"].clone()))
                }
                Request::Exchange(ExchangeRequest::Idle) => None,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn join(&mut self) -> Join {
        let asked = self.asked.iter_mut().rev();
        let request = asked
            .filter_map(|asked| asked.as_mut().ok())
            .find(|message| matches!(message.request, Request::Join(_)))
            .expect("a join");
        match std::mem::replace(&mut request.request, Request::Leave) {
            Request::Join(join) => *join,
            _ => unreachable!(),
        }
    }
}

fn peer(id: PeerId, identity: &str) -> Value {
    json!({"peerId": id, "identity": identity})
}

#[test]
fn a_client_of_version_4_connects() {
    let mut bench = Bench::new(Revision::V4, Profile::Relay);
    let open: Value = serde_json::from_str(&bench.texts.pop().unwrap()[1..]).unwrap();
    assert_eq!(
        open,
        json!({"sid": "S", "upgrades": ["websocket"], "pingInterval": 25_000, "pingTimeout": 20_000,
            "maxPayload": 65_536})
    );
    bench.say("40/admin,");
    assert_eq!(
        bench.texts.pop().unwrap(),
        r#"44/admin,{"message":"Invalid namespace"}"#
    );
    bench.say(r#"40{"token":"a.b.c"}"#);
    let asked = bench.asked.pop().unwrap().unwrap();
    assert!(asked.token().is_some(), "{asked:?}");
    bench.event(Event::Exchange(Box::new(ExchangeReply::Opened)));
    assert_eq!(bench.texts, [format!("40{{\"sid\":\"{ME}\"}}")]);
    // It leaves, and comes again over the same connection.
    bench.texts.clear();
    bench.say("41");
    bench.say(r#"42["a"]"#);
    assert!(bench.asked.last().unwrap().is_err());
    bench.say("40");
    assert_eq!(bench.texts, [format!("40{{\"sid\":\"{ME}\"}}")]);
}

#[test]
fn a_client_of_version_3_is_connected_without_a_word() {
    let mut bench = Bench::new(Revision::V3, Profile::Relay);
    let open: Value = serde_json::from_str(&bench.texts.pop().unwrap()[1..]).unwrap();
    assert_eq!(open["sid"], ME.to_string(), "it is socket.id there");
    assert_eq!(open["maxPayload"], Value::Null);
    bench.event(Event::Exchange(Box::new(ExchangeReply::Opened)));
    bench.say("2probe");
    bench.say("40/admin,");
    assert_eq!(
        bench.texts,
        ["40", "3probe", "44/admin,\"Invalid namespace\""]
    );
}

#[test]
fn a_client_that_may_not_come_in_gets_the_reason() {
    for (revision, refusal) in [
        (Revision::V3, r#"44"unauthorized""#),
        (Revision::V4, r#"44{"message":"unauthorized"}"#),
    ] {
        let mut bench = Bench::new(revision, Profile::Relay);
        bench.say("40");
        bench.texts.clear();
        bench.native(
            FrameType::Error,
            json!({"code": "unauthorized", "message": "m"}),
        );
        assert_eq!(bench.texts, [refusal]);
    }
}

#[test]
fn each_version_has_its_heartbeat() {
    let mut bench = Bench::connected(Profile::Relay);
    assert_eq!(
        bench.dialect.next_timeout(),
        Some(bench.now + PING_INTERVAL)
    );
    bench.later(25);
    assert_eq!(bench.texts, ["2"]);
    bench.say("3");
    bench.later(24);
    assert_eq!((bench.texts.len(), &bench.closing), (1, &None));
    bench.later(1);
    bench.later(20);
    assert_eq!(
        bench.closing.as_ref().map(|c| c.code),
        Some(CloseCode::HeartbeatTimeout)
    );

    let mut bench = Bench::new(Revision::V3, Profile::Relay);
    bench.later(44);
    bench.say("2");
    bench.later(44);
    assert_eq!(bench.closing, None);
    bench.later(1);
    assert!(bench.closing.is_some());

    let mut bench = Bench::new(Revision::V4, Profile::Relay);
    bench.later(25);
    bench.say("3");
    bench.later(20);
    assert!(bench.closing.is_some(), "no CONNECT came");
}

#[test]
fn a_join_enters_a_room_of_its_own_realm() {
    for (join, room, user) in [
        (json!(["join", "r"]), "r", None),
        (json!(["join-room", "r", "u"]), "r", Some("u")),
        (
            json!(["joinRoom", {"roomId": "r", "userId": "u"}]),
            "r",
            Some("u"),
        ),
        (json!(["join_room", {"room_id": 12}]), "12", None),
        (json!(["room:join", 12, 13]), "12", Some("13")),
    ] {
        let mut bench = Bench::connected(Profile::Relay);
        bench.emit(join);
        let join = bench.join();
        assert_eq!(join.room_id, KIND.own_room(room));
        assert!(crate::protocol::is_foreign_room(&join.room_id));
        assert_eq!(join.identity.as_deref(), user);
    }
    let mut bench = Bench::connected(Profile::Relay);
    bench.say("427[\"join\",{}]");
    assert!(bench.asked.last().unwrap().is_err() && bench.texts[0].starts_with("437[{\"code\""));
    bench.texts.clear();
    bench.say("428[\"join\",\"r\"]");
    bench.enter(json!([peer(OTHER, "olga")]));
    let texts = std::mem::take(&mut bench.texts);
    let ack: Value = serde_json::from_str(texts[0].strip_prefix("438").unwrap()).unwrap();
    assert_eq!(
        ack,
        json!([{"ok": true, "id": ME, "peers": [OTHER], "iceServers": [{"urls": ["stun:h"]}], "ttl": 60}])
    );
    assert_eq!(texts[1], format!("42[\"room-users\",[\"{OTHER}\"]]"));
    assert!(texts[2].starts_with("42[\"ice-servers\",{\"iceServers\":"));
    bench.native(FrameType::PeerJoined, peer(THIRD, "theo"));
    bench.native(FrameType::PeerLeft, peer(THIRD, "theo"));
    assert_eq!(
        bench.received(),
        [
            json!(["user-connected", "theo"]),
            json!(["user-joined", {"id": THIRD, "userId": "theo"}]),
            json!(["user-left", THIRD]),
            json!(["user-disconnected", "theo"]),
        ]
    );
}

#[test]
fn an_event_goes_to_whom_a_field_or_the_first_argument_names() {
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    let other = OTHER.to_string();
    for (event, to) in [
        (json!(["offer", {"to": OTHER}]), Some(&other)),
        (json!(["offer", {"target": "olga"}]), Some(&other)),
        (json!(["offer", OTHER, "sdp"]), Some(&other)),
        (json!(["offer", {"to": "r"}]), None),
        (json!(["chat", "hello", OTHER]), None),
        (json!(["chat", {"text": OTHER}]), None),
    ] {
        bench.emit(event.clone());
        let sent = bench.sent();
        assert_eq!(sent.len(), 1, "{event}");
        assert_eq!(sent[0].0.as_ref(), to, "{event}");
    }
    bench.emit(json!(["offer", {"to": "nobody"}]));
    assert!(bench.sent().is_empty());
    bench.say("425[\"offer\",{\"to\":\"nobody\"}]");
    assert!(bench.texts[0].contains("no-such-peer"));
}

#[test]
fn the_senders_id_is_the_servers_to_say() {
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    bench.emit(json!(["offer", 1, {"from": "eve", "sdp": "v", "sender": "eve"}]));
    bench.emit(json!(["chat", "hi", [2]]));
    let many: serde_json::Map<_, _> = (0..900).map(|n| (format!("f{n}"), json!(n))).collect();
    assert_eq!(
        bench.sent(),
        [
            (
                None,
                json!("offer"),
                json!([1, {"sdp": "v", "from": ME, "sender": ME}])
            ),
            (None, json!("chat"), json!(["hi", [2], ME])),
        ]
    );
    bench.emit(json!(["state", many]));
    let (_, _, arguments) = bench.sent().remove(0);
    assert_eq!(arguments[0].as_object().unwrap().len(), 902);
    assert_eq!(arguments[0]["from"], ME.to_string());
    bench.receives(OTHER, json!({"event": "chat", "args": ["hi", OTHER]}));
    assert_eq!(bench.received(), [json!(["chat", "hi", OTHER])]);
    bench.receives(THIRD, json!({"event": "ice-servers", "args": [{}]}));
    assert!(bench.received().is_empty(), "of nobody in the room");
}

#[test]
fn what_the_server_says_no_client_says_to_another() {
    let always = [
        "ice-servers",
        "connect",
        "connect_error",
        "connect_timeout",
        "connecting",
        "disconnect",
        "disconnecting",
        "error",
        "newListener",
        "removeListener",
        "join-error",
        "notify",
    ];
    let rest: [(Profile, Value, &[&str]); 5] = [
        (
            Profile::Relay,
            json!(["join", "r"]),
            &[
                "room-users",
                "user-joined",
                "user-left",
                "user-connected",
                "user-disconnected",
            ],
        ),
        (Profile::Lobby, Value::Null, &["ready", "change", "ipaddr"]),
        (
            Profile::Codelab,
            json!(["create or join", "r"]),
            &["created", "joined", "join", "ready", "full"],
        ),
        (
            Profile::Mesh,
            json!(["join room", "r"]),
            &[
                "all users",
                "room full",
                "user joined",
                "user left",
                "receiving returned signal",
            ],
        ),
        (
            Profile::Call,
            Value::Null,
            &["me", "callAccepted", "callEnded"],
        ),
    ];
    for (profile, join, own) in rest {
        let mut bench = Bench::joined(profile, join);
        for name in always.iter().chain(own) {
            bench.emit(json!([name, {"to": OTHER, "iceServers": []}]));
            bench.emit(json!([name, OTHER]));
            assert_eq!(bench.sent(), [], "{profile:?}: {name}");
        }
    }
    // Other names are the application's, whatever they begin with.
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    for name in ["ready", "change", "connected-user", "disconnect-call"] {
        bench.emit(json!([name, {"to": OTHER}]));
        let sent = bench.sent();
        assert_eq!(sent.len(), 1, "{name}");
        assert_eq!(sent[0].1, name);
    }
    // Escapes and other cases do not help.
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    bench.say("42[\"ice\\u002dservers\",{}]");
    bench.say("42[\"conn\\u0065ct\",{}]");
    assert_eq!(bench.sent(), []);
}

#[test]
fn what_is_not_of_the_protocol_ends_nothing_else() {
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    for text in [
        "",
        "x",
        "4",
        "49",
        "42",
        "42{}",
        "42[]",
        "42[1]",
        "42[\"a\"",
        "b",
        "45-[]",
        "459-[\"a\"]",
    ] {
        bench.say(text);
        assert!(bench.asked.pop().unwrap().is_err(), "{text}");
    }
    let deep = format!("42[\"a\",{}1{}]", "[".repeat(62), "]".repeat(62));
    bench.say(&deep);
    assert!(bench.asked.pop().unwrap().is_err());
    assert_eq!(bench.closing, None);
    bench.say("1");
    assert_eq!(
        bench.closing.as_ref().map(|c| c.code),
        Some(CloseCode::Normal)
    );
}

proptest::proptest! {
    #[test]
    fn nothing_that_a_client_says_panics(
        v3: bool,
        profile in 0..6_usize,
        texts in proptest::collection::vec(
            "(4[0-6]([0-9]-)?(/[a-z]*,)?[0-9]{0,3})?(\\[\"(join|join-room|offer|message|create or join|callUser)\"(,(\\{\"to\":\"x\"\\}|\"r\"|1|\\{\"_placeholder\":true,\"num\":0\\}|\\PC{0,8})){0,3}\\])?\\PC{0,4}",
            0..12,
        ),
    ) {
        let profiles = [Profile::Tutorial, Profile::Relay, Profile::Lobby, Profile::Codelab, Profile::Mesh, Profile::Call];
        let revision = if v3 { Revision::V3 } else { Revision::V4 };
        let mut bench = Bench::new(revision, profiles[profile]);
        bench.say("40");
        bench.event(Event::Exchange(Box::new(ExchangeReply::Opened)));
        bench.enter(json!([peer(OTHER, "o")]));
        for text in &texts {
            bench.say(text);
            bench.act(|d, now, out| d.decode(Incoming::Binary(text.as_bytes()), now, out));
        }
        for text in &bench.texts {
            // Every text is a packet that a client can read.
            proptest::prop_assert!(text.starts_with(|c: char| c.is_ascii_digit()));
            if let Some(event) = text.strip_prefix("42") {
                proptest::prop_assert!(serde_json::from_str::<Vec<Value>>(event).is_ok());
            }
        }
    }
}
