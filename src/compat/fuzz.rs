//! Two clients of one dialect and the hub between them: what one sends, and all that the other
//! receives. The fuzz targets and the attack tests run it.

mod judge;

use super::Foreign;
use super::mqtt::packet::Version;
use super::mqtt::{Mqtt, RoomTopics};
use super::peerjs::{Hello, PeerJs};
use super::socketio::engine::{self, Revision};
use super::socketio::{Opening, Profile, SocketIo};
use super::trystero::Trystero;
use super::tutorial::Tutorial;
use super::y_webrtc::YWebrtc;
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::protocol::DialectKind;
use crate::signal::hub::{ConnId, Effect, Hub, Input, Now, Settings};
use crate::signal::{Asked, Dialect, Incoming, Message, Native, Outgoing, Output, server_messages};
use judge::judge;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
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
/// The same of version 5.
const MQTT_5_HELLO: [&[u8]; 2] = [
    b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01",
    b"\x82\x07\x00\x01\x00\x00\x01t\x00",
];

/// A hub and its connections.
struct World {
    hub: Hub,
    now: Now,
    clients: Vec<(ConnId, Speaker, Vec<Message>)>,
    peers: Vec<String>,
    variant: Variant,
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

/// Which kinds of a dialect the two clients speak.
#[derive(Debug, Clone, Copy)]
struct Variant {
    profiles: Profiles,
    /// Of MQTT.
    versions: [Version; 2],
    /// Of Engine.IO.
    revisions: [Revision; 2],
    /// Whether only relayed candidates pass.
    relay_only: bool,
}

impl From<Profiles> for Variant {
    fn from(profiles: Profiles) -> Self {
        Self {
            profiles,
            versions: [Version::V3; 2],
            revisions: [Revision::V4; 2],
            relay_only: false,
        }
    }
}

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

    fn with(kind: DialectKind, variant: impl Into<Variant>, now: Instant) -> Self {
        let mut world = Self::empty(now);
        world.variant = variant.into();
        let profiles = world.variant.profiles;
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
            variant: RELAYS.into(),
            #[cfg(test)]
            remakes: None,
        }
    }

    fn connect(&mut self, kind: DialectKind, profile: Profile, conn: u64) {
        let Variant {
            versions,
            revisions,
            relay_only,
            ..
        } = self.variant;
        // A third client speaks as the victim does.
        let who = (conn as usize).min(VICTIM as usize);
        let dialect: Foreign = match kind {
            DialectKind::YWebrtc => YWebrtc { relay_only }.into(),
            DialectKind::Trystero => Trystero.into(),
            DialectKind::PeerJs => {
                let query = format!("id=client{conn}&token=t{conn}&key=peerjs");
                PeerJs::new(Hello::read(&query, "peerjs", false), relay_only).into()
            }
            DialectKind::Mqtt => {
                let rooms = RoomTopics::new("room/{room}/signaling").map(Arc::new);
                Box::new(Mqtt::with_rooms(rooms, false)).into()
            }
            DialectKind::SocketIo => Box::new(SocketIo::new(Opening {
                revision: revisions[who],
                sid: (revisions[who] == Revision::V4).then(|| "S".into()),
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
                let [hello, subscribe] = match versions[who] {
                    Version::V3 => MQTT_HELLO,
                    Version::V5 => MQTT_5_HELLO,
                };
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
            grant: None,
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
    variant: impl Into<Variant>,
    messages: impl Iterator<Item = &'a [u8]>,
    now: Instant,
) {
    let mut world = World::with(kind, variant, now);
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
            judge(kind, world.variant, &attacker, &received);
        }
    }
}

/// Cuts what a fuzzer gives into messages, at zeros, which no text of a protocol holds; bytes of MQTT
/// are a stream.
pub fn fuzz_bytes(kind: DialectKind, bytes: &[u8], now: Instant) {
    let (variant, rest) = chosen(kind, bytes);
    match kind {
        DialectKind::Mqtt => fuzz_with(kind, variant, rest.chunks(64), now),
        _ => fuzz_with(kind, variant, rest.split(|byte| *byte == 0), now),
    }
}

/// What a first byte chooses with which no message begins: from 0x80 up profiles and versions of
/// Socket.IO, and whether only relayed candidates pass; below 0x10 versions of MQTT.
fn chosen(kind: DialectKind, bytes: &[u8]) -> (Variant, &[u8]) {
    let mut variant = Variant::from(RELAYS);
    let rest = match (kind, bytes) {
        (DialectKind::Mqtt, [versions @ 0..=0x0f, rest @ ..]) => {
            let of = |bit: u8| match versions & bit {
                0 => Version::V3,
                _ => Version::V5,
            };
            variant.versions = [of(1), of(2)];
            rest
        }
        (DialectKind::SocketIo, [first @ 0x80..=0xff, rest @ ..]) => {
            let (first, kinds) = (first - 0x80, PROFILES.len() as u8);
            let of = |n: u8| PROFILES[usize::from(n % kinds)].0;
            variant.profiles = [of(first / kinds), of(first)];
            variant.revisions = match first / kinds / kinds {
                0 => [Revision::V4; 2],
                1 => [Revision::V3; 2],
                2 => [Revision::V3, Revision::V4],
                _ => [Revision::V4, Revision::V3],
            };
            rest
        }
        (DialectKind::YWebrtc | DialectKind::PeerJs, [first @ 0x80..=0xff, rest @ ..]) => {
            variant.relay_only = first & 1 == 1;
            rest
        }
        _ => bytes,
    };
    (variant, rest)
}

/// The body of a request of Engine.IO, of which the first byte says what it is: what is read of it is
/// read again from what is written of that.
///
/// # Panics
/// If it is not.
pub fn fuzz_engine(bytes: &[u8]) {
    let [first, body @ ..] = bytes else {
        return;
    };
    let (revision, is_binary) = match first % 3 {
        0 => (Revision::V4, false),
        1 => (Revision::V3, false),
        _ => (Revision::V3, true),
    };
    let Ok(packets) = engine::read(revision, is_binary, body) else {
        return;
    };
    let has_bytes = (packets.iter()).any(|packet| matches!(packet, Message::Binary(_)));
    if is_binary && !has_bytes {
        // Where nothing needs bytes, texts are written, of which one may stand for bytes.
        return;
    }
    let written = engine::write(revision, !is_binary, &packets);
    assert_eq!(written.0, is_binary);
    let again = engine::read(revision, is_binary, &written.1);
    assert_eq!(again.as_ref(), Ok(&packets));
}

#[cfg(test)]
mod tests;
