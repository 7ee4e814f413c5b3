//! Two clients of one dialect and the hub between them: what one sends, and all that the other
//! receives. The fuzz targets and the attack tests run it.

use super::mqtt::packet::{Packet, Version};
use super::mqtt::reader::Stream;
use super::mqtt::{Mqtt, RoomTopics};
use super::object::Object;
use super::peerjs::{Hello, PeerJs};
use super::socketio::engine::Revision;
use super::socketio::{Opening, Profile, SocketIo, is_server_owned};
use super::trystero::Trystero;
use super::tutorial::Tutorial;
use super::y_webrtc::YWebrtc;
use super::{Foreign, object};
use crate::auth::Grant;
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::protocol::{DialectKind, RequestError};
use crate::signal::hub::{ConnId, Effect, Hub, Input, Now, Settings};
use crate::signal::{Asked, Dialect, Incoming, Message, Native, Outgoing, Output, server_messages};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who attacks and who is attacked.
const ATTACKER: u64 = 0;
const VICTIM: u64 = 1;
/// CONNECT of version 3.1.1 and SUBSCRIBE of `t`.
const MQTT_HELLO: [&[u8]; 2] = [
    b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01",
    b"\x82\x06\x00\x01\x00\x01t\x00",
];

/// A hub and its connections.
struct World {
    hub: Hub,
    now: Now,
    clients: Vec<(ConnId, Speaker, Vec<Message>)>,
    peers: Vec<String>,
    /// Of which dialect translators are made again whenever they have said something.
    #[cfg(test)]
    remakes: Option<DialectKind>,
}

/// A client of the native protocol, or of another one.
#[allow(clippy::large_enum_variant, reason = "a world has three of them")]
enum Speaker {
    Native(Native),
    Foreign(Foreign),
}

impl Dialect for Speaker {
    fn opened(&mut self, now: Instant, out: &mut Output<'_>) {
        match self {
            Self::Native(dialect) => dialect.opened(now, out),
            Self::Foreign(dialect) => dialect.opened(now, out),
        }
    }

    fn decode(&mut self, message: Incoming<'_>, now: Instant, out: &mut Output<'_>) {
        match self {
            Self::Native(dialect) => dialect.decode(message, now, out),
            Self::Foreign(dialect) => dialect.decode(message, now, out),
        }
    }

    fn encode(&mut self, outgoing: &Outgoing, now: Instant, out: &mut Output<'_>) {
        match self {
            Self::Native(dialect) => dialect.encode(outgoing, now, out),
            Self::Foreign(dialect) => dialect.encode(outgoing, now, out),
        }
    }
}

/// What applications two clients of Socket.IO have: of the attacker and of the victim.
type Profiles = [Profile; 2];
const RELAYS: Profiles = [Profile::Relay; 2];
const PROFILES: [(Profile, Option<&str>); 6] = [
    (Profile::Relay, Some(r#"42["join","r"]"#)),
    (Profile::Codelab, Some(r#"42["create or join","r"]"#)),
    (Profile::Mesh, Some(r#"42["join room","r"]"#)),
    (Profile::Call, None),
    (Profile::Lobby, None),
    (Profile::Tutorial, None),
];

impl World {
    #[cfg(test)]
    fn new(kind: DialectKind, now: Instant) -> Self {
        Self::with(kind, RELAYS, now)
    }

    fn with(kind: DialectKind, profiles: Profiles, now: Instant) -> Self {
        let mut world = Self::empty(now);
        // The victim comes first: a host is not to be led by a guest.
        for conn in [VICTIM, ATTACKER] {
            world.connect(kind, profiles[conn as usize], conn);
        }
        world
    }

    fn empty(now: Instant) -> Self {
        let ice = IceIssuer {
            stun_urls: vec!["stun:box:3478".into()],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["s".into()]).expect("there is one"),
            ttl: Duration::from_secs(60),
        };
        Self {
            hub: Hub::new(Settings::default(), ice, [7; 32]),
            now: Now {
                instant: now,
                unix_ms: 1_767_225_600_000,
            },
            clients: vec![],
            peers: vec![String::new(); 3],
            #[cfg(test)]
            remakes: None,
        }
    }

    fn connect(&mut self, kind: DialectKind, profile: Profile, conn: u64) {
        let dialect: Foreign = match kind {
            DialectKind::YWebrtc => YWebrtc { relay_only: false }.into(),
            DialectKind::Trystero => Trystero.into(),
            DialectKind::PeerJs => {
                let query = format!("id=client{conn}&token=t{conn}&key=peerjs");
                PeerJs::new(Hello::read(&query, "peerjs", false), false).into()
            }
            DialectKind::Mqtt => {
                let rooms = RoomTopics::new("room/{room}/signaling").map(Arc::new);
                Box::new(Mqtt::with_rooms(rooms, false)).into()
            }
            DialectKind::SocketIo => Box::new(SocketIo::new(Opening {
                revision: Revision::V4,
                sid: Some("S".into()),
                upgrades: true,
                profile,
                max_payload: 65_536,
                address: None,
                keeps_token: true,
            }))
            .into(),
            _ => Tutorial::default().into(),
        };
        self.open(kind, conn, Speaker::Foreign(dialect));
        self.act(conn, |dialect, now, out| dialect.opened(now, out));
        match kind {
            DialectKind::YWebrtc => self.text(conn, r#"{"type":"subscribe","topics":["t"]}"#),
            DialectKind::Trystero => self.text(conn, r#"{"type":"subscribe","topic":"t"}"#),
            DialectKind::PeerJs => {}
            DialectKind::Mqtt => {
                let [hello, subscribe] = MQTT_HELLO;
                let name = [b'a' + conn as u8];
                self.binary(conn, &[hello, &name].concat());
                self.binary(conn, subscribe);
            }
            DialectKind::SocketIo => {
                self.text(conn, "40");
                let own = PROFILES.iter().find(|(own, _)| *own == profile);
                if let Some((_, Some(join))) = own {
                    self.text(conn, join);
                }
            }
            _ => self.text(conn, r#"{"type":"join","roomId":"r"}"#),
        }
    }

    fn open(&mut self, kind: DialectKind, conn: u64, dialect: Speaker) {
        let id = ConnId(conn);
        self.clients.push((id, dialect, vec![]));
        let connected = Input::Connected {
            conn: id,
            client: IpAddr::from(Ipv4Addr::LOCALHOST),
            dialect: kind,
            lobby: None,
        };
        self.settle(VecDeque::from([connected]));
    }

    fn text(&mut self, conn: u64, text: &str) {
        self.act(conn, |dialect, now, out| {
            dialect.decode(Incoming::Text(text), now, out)
        });
    }

    fn binary(&mut self, conn: u64, bytes: &[u8]) {
        self.act(conn, |dialect, now, out| {
            dialect.decode(Incoming::Binary(bytes), now, out)
        });
    }

    fn act(&mut self, conn: u64, act: impl FnOnce(&mut Speaker, Instant, &mut Output<'_>)) {
        let asked = self.speak(ConnId(conn), act);
        self.settle(asked.into());
    }

    /// Lets a dialect speak; what it asks of the hub.
    fn speak(
        &mut self,
        conn: ConnId,
        act: impl FnOnce(&mut Speaker, Instant, &mut Output<'_>),
    ) -> Vec<Input> {
        let now = self.now.instant;
        let Some((_, dialect, received)) = self.clients.iter_mut().find(|(id, ..)| *id == conn)
        else {
            return vec![];
        };
        let (mut frames, mut asked, mut closing) = (vec![], vec![], None);
        act(
            dialect,
            now,
            &mut Output::new(&mut frames, &mut asked, &mut closing),
        );
        received.extend(server_messages(&frames));
        #[cfg(test)]
        if let (Some(kind), Speaker::Foreign(foreign)) = (self.remakes, &mut *dialect) {
            *foreign = tests::remake(foreign, kind, now);
        }
        let input = |message: Asked| Input::Frame {
            conn,
            message,
            grant: Ok::<_, RequestError>(Grant::open()),
        };
        asked.into_iter().map(input).collect()
    }

    fn settle(&mut self, mut inputs: VecDeque<Input>) {
        let mut effects = vec![];
        while let Some(input) = inputs.pop_front() {
            self.hub.handle(self.now, input, &mut effects);
            for effect in effects.drain(..) {
                if let Effect::Send {
                    conn,
                    peer,
                    seq,
                    event,
                } = effect
                {
                    self.peers[conn.0 as usize] = peer.to_string();
                    let outgoing = Outgoing { peer, seq, event };
                    let asked = self.speak(conn, |dialect, now, out| {
                        dialect.encode(&outgoing, now, out)
                    });
                    inputs.extend(asked);
                }
            }
        }
    }

    /// What the victim received since the last look.
    fn received(&mut self) -> Vec<Message> {
        let victim = self.clients.iter_mut().find(|(conn, ..)| conn.0 == VICTIM);
        victim
            .map(|(.., received)| std::mem::take(received))
            .unwrap_or_default()
    }
}

/// One client says `messages`, a text each, or bytes behind a first byte of 1; what another one gets
/// of it is judged.
///
/// # Panics
/// If the other client gets what only the server says, a sender that is not the client, or what is
/// not of its protocol.
pub fn fuzz<'a>(kind: DialectKind, messages: impl Iterator<Item = &'a [u8]>, now: Instant) {
    fuzz_with(kind, RELAYS, messages, now);
}

fn fuzz_with<'a>(
    kind: DialectKind,
    profiles: Profiles,
    messages: impl Iterator<Item = &'a [u8]>,
    now: Instant,
) {
    let mut world = World::with(kind, profiles, now);
    world.received();
    for message in messages {
        match (kind, message) {
            (DialectKind::Mqtt, bytes) | (_, [1, bytes @ ..]) => world.binary(ATTACKER, bytes),
            (_, bytes) => {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    world.text(ATTACKER, text);
                }
            }
        }
        let attacker = world.peers[ATTACKER as usize].clone();
        for received in world.received() {
            judge(kind, profiles, &attacker, &received);
        }
    }
}

/// Cuts what a fuzzer gives into messages, at zeros, which no text of a protocol holds; bytes of MQTT
/// are a stream. A first byte from 0x80 up, with which no text begins, names two profiles of Socket.IO.
pub fn fuzz_bytes(kind: DialectKind, bytes: &[u8], now: Instant) {
    match (kind, bytes) {
        (DialectKind::Mqtt, _) => fuzz(kind, bytes.chunks(64), now),
        (DialectKind::SocketIo, [profiles @ 0x80..=0xff, rest @ ..]) => {
            let of = |n: u8| PROFILES[usize::from(n) % PROFILES.len()].0;
            let (pair, kinds) = (profiles - 0x80, PROFILES.len() as u8);
            let profiles = [of(pair / kinds), of(pair % kinds)];
            fuzz_with(kind, profiles, rest.split(|byte| *byte == 0), now);
        }
        _ => fuzz(kind, bytes.split(|byte| *byte == 0), now),
    }
}

fn judge(kind: DialectKind, profiles: Profiles, attacker: &str, received: &Message) {
    let text = match received {
        Message::Text(text) => text,
        Message::Binary(bytes) => return judge_bytes(kind, bytes),
    };
    let object = || Object::parse(text).unwrap_or_else(|_| panic!("not an object: {text}"));
    let names = |object: &Object<'_>| -> Vec<String> {
        object.fields().map(|(name, _)| name.to_owned()).collect()
    };
    match kind {
        DialectKind::YWebrtc => {
            let object = object();
            assert_eq!(object.string("type").as_deref(), Some("publish"), "{text}");
            assert_eq!(object.string("topic").as_deref(), Some("t"), "{text}");
            assert!(
                object
                    .text("clients")
                    .is_some_and(|n| n.parse::<u32>().is_ok()),
                "{text}"
            );
        }
        DialectKind::Trystero => {
            let object = object();
            assert!(
                names(&object)
                    .iter()
                    .all(|name| name == "topic" || name == "payload")
            );
            assert_eq!(object.string("topic").as_deref(), Some("t"), "{text}");
        }
        DialectKind::PeerJs => {
            let object = object();
            let kind = object.string("type").unwrap_or_default();
            let relayed = ["OFFER", "ANSWER", "CANDIDATE", "LEAVE"];
            assert!(relayed.contains(&&*kind), "{text}");
            assert_eq!(object.string("src").as_deref(), Some("client0"), "{text}");
            let known = ["type", "src", "dst", "payload"];
            assert!(
                names(&object).iter().all(|name| known.contains(&&**name)),
                "{text}"
            );
        }
        DialectKind::SocketIo => judge_event(profiles, attacker, text),
        _ => {
            let object = object();
            let kind = object.string("type").unwrap_or_default();
            let servers = [
                "welcome",
                "joined",
                "room-joined",
                "registered",
                "resumed",
                "ice-servers",
                "error",
                "join-error",
                "kicked",
                "draining",
                "notify",
            ];
            assert!(!servers.contains(&&*kind), "{text}");
            let relayed = ["offer", "answer", "candidate", "message", "hangup"];
            for name in ["from", "fromId"] {
                let said = object.string(name);
                let may_lack = !relayed.contains(&&*kind);
                assert!(
                    said.as_deref().map_or(may_lack, |said| said == attacker),
                    "{text}"
                );
            }
            for name in ["iceServers", "resumeToken", "seq", "token"] {
                assert!(object.text(name).is_none(), "{text}");
            }
        }
    }
}

fn judge_event([sender, receiver]: Profiles, attacker: &str, text: &str) {
    assert_eq!(sender, receiver, "of another profile: {text}");
    let data = match text.strip_prefix("42") {
        Some(data) => data,
        None => match text
            .strip_prefix("45")
            .and_then(|rest| rest.split_once('-'))
        {
            Some((_, data)) => data,
            None => panic!("not an event: {text}"),
        },
    };
    let parts = object::list(data);
    let name: String = parts
        .first()
        .and_then(|name| serde_json::from_str(name).ok())
        .unwrap_or_else(|| panic!("no name: {text}"));
    let field = |name: &str| {
        let object = Object::parse(parts.get(1)?).ok()?;
        object.string(name).map(|text| text.into_owned())
    };
    match (receiver, &*name) {
        // What the server says of the client that came or went.
        (Profile::Relay, "user-connected" | "user-disconnected")
        | (Profile::Lobby | Profile::Tutorial, "change") => {}
        (Profile::Relay, "user-joined" | "user-left") | (Profile::Mesh, "user left") => {
            assert!(text.contains(attacker), "{text}");
        }
        (Profile::Codelab, "join" | "ready") => assert_eq!(parts[1..], ["\"r\""], "{text}"),
        (Profile::Call, "callEnded") => assert_eq!(parts.len(), 1, "{text}"),
        // What it makes of an event of the client; the last of them names nobody.
        (Profile::Mesh, "user joined") => {
            assert_eq!(field("callerID").as_deref(), Some(attacker), "{text}");
        }
        (Profile::Mesh, "receiving returned signal") => {
            assert_eq!(field("id").as_deref(), Some(attacker), "{text}");
        }
        (Profile::Call, "callUser") => {
            assert_eq!(field("from").as_deref(), Some(attacker), "{text}");
        }
        (Profile::Call, "callAccepted") => assert_eq!(parts.len(), 2, "{text}"),
        (profile, name) if is_server_owned(profile, name) => panic!("{text}"),
        _ => {
            // The first object, or the last argument, names the sender. Where bytes come with the
            // event, a placeholder is not an object.
            let has_bytes = text.starts_with("45");
            let first = parts[1..].iter().find_map(|part| {
                let object = Object::parse(part).ok()?;
                let is_bytes = has_bytes && object.text("_placeholder") == Some("true");
                (!is_bytes).then_some(object)
            });
            match first {
                Some(object) => {
                    for name in ["from", "sender"] {
                        assert_eq!(object.string(name).as_deref(), Some(attacker), "{text}");
                    }
                }
                None => {
                    let last: Option<String> = parts
                        .last()
                        .and_then(|last| serde_json::from_str(last).ok());
                    assert_eq!(last.as_deref(), Some(attacker), "{text}");
                }
            }
        }
    }
}

fn judge_bytes(kind: DialectKind, bytes: &[u8]) {
    if kind != DialectKind::Mqtt {
        // An attachment of an event.
        assert_eq!(kind, DialectKind::SocketIo);
        return;
    }
    let fed = Stream::default().feed(bytes, usize::MAX, |head, body| {
        match Packet::read(head, body, Version::V3)? {
            Packet::Publish(publish) => assert_eq!(publish.topic, "t"),
            other => panic!("{other:?}"),
        }
        Ok(ControlFlow::Continue(()))
    });
    assert!(fed.is_ok(), "{bytes:?}");
}

#[cfg(test)]
mod tests;
