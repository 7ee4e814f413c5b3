//! Socket.IO, clients 2, 3 and 4: events that go to a room or to one member, in rooms of their own.
//!
//! Of the two layers of its protocol, [`engine`] has the bodies of requests; packets over a
//! WebSocket, pings and the handshake of Socket.IO are here. What events mean is a matter of the
//! [`Profile`].

mod client;
pub mod engine;
mod held;
mod idle;
mod packet;
mod server;
mod state;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub(super) use self::client::is_server_owned;
use self::engine::{Revision, packet_of};
pub use self::state::Opening;
use super::MAX_TOKEN;
use super::object::{Object, malformed};
use super::tutorial::Tutorial;
use crate::protocol::{
    ClientMessage, CloseCode, DialectKind, ErrorCode, ExchangeReply, ExchangeRequest, FrameType,
    MessageType, PeerId, Request, write_json_str,
};
use crate::signal::hub::Event;
use crate::signal::{Closing, Dialect, Incoming, Message, Outgoing, Output};
use held::Held;
use packet::{Kind, Packet};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use state::{Joining, Member, Partial, Phase};
use std::time::{Duration, Instant};

/// The time between pings, and how long an answer may take.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// How long an answer to a ping may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to say CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the attachments of an event may take: as long as a message that does not end.
const ATTACHED_WITHIN: Duration = Duration::from_secs(50);
/// Bytes of the attachments of one event.
const MAX_BINARY: usize = 64 * 1024;

/// What applications expect of their server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// A tutorial's lobby, until the client joins a room as another one does.
    Tutorial,
    /// Events pass to the room, or to a named member.
    Relay,
    /// All are in one lobby and see who is there.
    Lobby,
    /// `create or join`, for two.
    Codelab,
    /// `join room` and signals by id, for four.
    Mesh,
    /// `callUser` and `answerCall`.
    Call,
}

impl Profile {
    /// The one of that name, as `?profile=` has it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "relay" => Self::Relay,
            "lobby" => Self::Lobby,
            "codelab" => Self::Codelab,
            "mesh" => Self::Mesh,
            "call" => Self::Call,
            _ => return None,
        })
    }

    /// The hub's name of a room of this profile; without a name the lobby.
    fn room(self, name: Option<&str>) -> String {
        let part = match self {
            Self::Relay => {
                return name.map_or_else(|| KIND.own_lobby("relay"), |name| KIND.own_room(name));
            }
            Self::Tutorial => "tutorials",
            Self::Lobby => "lobby",
            Self::Codelab => "codelab",
            Self::Mesh => "mesh",
            Self::Call => "call",
        };
        match name {
            Some(name) => KIND.own_room_of(part, name),
            None => KIND.own_lobby(part),
        }
    }
}

/// One connection of Socket.IO.
#[derive(Debug)]
pub struct SocketIo {
    opening: Opening,
    phase: Phase,
    /// Whether the hub has accepted it.
    is_accepted: bool,
    early: u32,
    me: String,
    token: Option<SecretString>,
    /// What is due: CONNECT, a ping, or its answer; the client's next ping in version 3.
    connect_by: Option<Instant>,
    ping_at: Option<Instant>,
    heard_by: Option<Instant>,
    /// From when on a ping of the client comes at the pace that it was told, in version 3.
    next_ping: Option<Instant>,
    partial: Option<Partial>,
    /// When the attachments have to be there.
    attached_by: Option<Instant>,
    room: Option<String>,
    joining: Option<Joining>,
    /// What it says meanwhile.
    held: Held,
    joins: u32,
    /// Everybody in the room, in the order in which they came.
    members: Vec<Member>,
    /// With whom there is a call.
    partners: Vec<String>,
    /// The translator of a client that joined as the tutorial's other clients do.
    tutorial: Option<Box<Tutorial>>,
    /// Whether that client is in its room.
    has_moved: bool,
}

impl SocketIo {
    /// Begins.
    pub fn new(opening: Opening) -> Self {
        Self {
            opening,
            phase: Phase::Fresh,
            is_accepted: false,
            early: 0,
            me: String::new(),
            token: None,
            connect_by: None,
            ping_at: None,
            heard_by: None,
            next_ping: None,
            partial: None,
            attached_by: None,
            room: None,
            joining: None,
            held: Held::default(),
            joins: 0,
            members: vec![],
            partners: vec![],
            tutorial: None,
            has_moved: false,
        }
    }

    fn is_v3(&self) -> bool {
        self.opening.revision == Revision::V3
    }

    /// The open packet, once the peer id is known.
    fn welcome(&mut self, peer: PeerId, out: &mut Output<'_>) {
        if !self.me.is_empty() {
            return;
        }
        self.me = peer.to_string();
        let mut open = json!({
            "sid": self.opening.sid.as_ref().unwrap_or(&self.me),
            "upgrades": if self.opening.upgrades { &["websocket"][..] } else { &[] },
            "pingInterval": PING_INTERVAL.as_millis() as u64,
            "pingTimeout": PING_TIMEOUT.as_millis() as u64,
        });
        if !self.is_v3() {
            open["maxPayload"] = json!(self.opening.max_payload);
        }
        out.text(&format!("0{open}"));
        if self.is_v3() {
            // Its clients connect to `/` without a word.
            self.connect(None, out);
        }
    }

    fn connect(&mut self, token: Option<String>, out: &mut Output<'_>) {
        if token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN) {
            self.refuse(ErrorCode::Unauthorized.as_str(), out);
            return self.idle(out);
        }
        self.connect_by = None;
        let token = token.map(SecretString::from).or(self.token.take());
        self.token = token.clone().filter(|_| self.opening.keeps_token);
        if self.is_accepted {
            return self.connected(out);
        }
        self.phase = Phase::Opening;
        out.request(Ok(ClientMessage {
            id: None,
            dialect: None,
            kind: MessageType::Register,
            request: Request::Exchange(ExchangeRequest::Open { token, name: None }),
        }));
    }

    fn connected(&mut self, out: &mut Output<'_>) {
        self.phase = Phase::Connected;
        self.is_accepted = true;
        match self.is_v3() {
            true => out.text("40"),
            false => out.text(&format!("40{}", json!({ "sid": self.me }))),
        }
        self.entered(out);
    }

    /// What the hub does not let in.
    fn refuse(&self, message: &str, out: &mut Output<'_>) {
        self.refuse_namespace("/", message, out);
    }

    fn refuse_namespace(&self, namespace: &str, message: &str, out: &mut Output<'_>) {
        let mut text = "44".to_owned();
        if namespace != "/" {
            text.push_str(namespace);
            text.push(',');
        }
        match self.is_v3() {
            true => write_json_str(&mut text, message),
            false => text.push_str(&json!({ "message": message }).to_string()),
        }
        out.text(&text);
    }

    fn broken(out: &mut Output<'_>) {
        out.request(Err(malformed("the packet is not one of Socket.IO")));
    }

    fn read(&mut self, message: Incoming<'_>, now: Instant, out: &mut Output<'_>) {
        match message {
            Incoming::Text(text) => self.engine(text, now, out),
            Incoming::Binary(bytes) => self.binary(bytes, now, out),
        }
    }

    /// A packet of Engine.IO.
    fn engine(&mut self, text: &str, now: Instant, out: &mut Output<'_>) {
        match text.as_bytes().first() {
            Some(b'1') => out.close(CloseCode::Normal, ""),
            Some(b'2') if self.is_v3() => {
                out.text(&format!("3{}", &text[1..]));
                let is_due = self.next_ping.is_none_or(|next| next <= now);
                self.next_ping = Some(now + PING_INTERVAL / 2);
                self.alive(is_due, out);
            }
            Some(b'3') if !self.is_v3() => {
                let is_due = self.heard_by.take().is_some();
                self.ping_at = Some(now + PING_INTERVAL);
                self.alive(is_due, out);
            }
            Some(b'4') => self.packet(&text[1..], now, out),
            Some(b'5' | b'6') => self.idle(out),
            Some(b'b') if self.is_v3() => match packet_of(Revision::V3, text) {
                Ok(Message::Binary(bytes)) => self.binary(&bytes, now, out),
                _ => Self::broken(out),
            },
            _ => Self::broken(out),
        }
    }

    fn binary(&mut self, bytes: &[u8], now: Instant, out: &mut Output<'_>) {
        match (self.opening.revision, bytes) {
            (Revision::V4, bytes) | (Revision::V3, [4, bytes @ ..]) => {
                self.attachment(bytes, now, out);
            }
            _ => Self::broken(out),
        }
    }

    /// A packet of Socket.IO.
    fn packet(&mut self, text: &str, now: Instant, out: &mut Output<'_>) {
        if self.partial.is_some() {
            return out.close(CloseCode::ProtocolError, "an attachment is due");
        }
        let Some(packet) = Packet::read(text) else {
            return Self::broken(out);
        };
        let namespace = packet.namespace.split('?').next().unwrap_or("/");
        match packet.kind {
            Kind::Connect if namespace != "/" => {
                self.refuse_namespace(namespace, "Invalid namespace", out);
                self.idle(out);
            }
            Kind::Connect if matches!(self.phase, Phase::Fresh | Phase::Left) => {
                let auth = Object::parse(packet.data).ok();
                let token = auth.and_then(|auth| auth.first(&["token"])?.into_owned().into());
                self.connect(token, out);
            }
            Kind::Disconnect if namespace == "/" && self.phase == Phase::Connected => {
                self.phase = Phase::Left;
                self.leave(None, out);
            }
            Kind::Event | Kind::BinaryEvent if self.phase != Phase::Connected => Self::broken(out),
            Kind::BinaryEvent | Kind::BinaryAck if packet.attachments > 0 => {
                let is_event = packet.kind == Kind::BinaryEvent && namespace == "/";
                self.partial = Some(Partial {
                    event: is_event.then(|| (packet.data.to_owned(), packet.id)),
                    wanted: packet.attachments,
                    attachments: vec![],
                });
                self.attached_by = Some(now + ATTACHED_WITHIN);
                self.idle(out);
            }
            Kind::Event | Kind::BinaryEvent if namespace == "/" => {
                self.event(packet.data, packet.id, &[], now, out);
            }
            _ => self.idle(out),
        }
    }

    fn attachment(&mut self, bytes: &[u8], now: Instant, out: &mut Output<'_>) {
        let Some(partial) = &mut self.partial else {
            return Self::broken(out);
        };
        let held: usize = partial.attachments.iter().map(Vec::len).sum();
        if held + bytes.len() > MAX_BINARY {
            (self.partial, self.attached_by) = (None, None);
            return out.close(CloseCode::TooLarge, "attachments are over 64 KiB");
        }
        // Nobody wants those of an acknowledgement: they are counted.
        let kept = partial.event.as_ref().map_or(&[][..], |_| bytes);
        partial.attachments.push(kept.to_vec());
        if partial.attachments.len() < partial.wanted {
            return self.idle(out);
        }
        self.attached_by = None;
        let whole = self.partial.take();
        match whole.and_then(|whole| Some((whole.event?, whole.attachments))) {
            Some(((data, ack), attachments)) => self.event(&data, ack, &attachments, now, out),
            None => self.idle(out),
        }
    }

    /// Sends an event to the client; arguments are JSON.
    fn emit(name: &str, arguments: &[&str], out: &mut Output<'_>) {
        let mut text = "42[".to_owned();
        write_json_str(&mut text, name);
        for argument in arguments {
            text.push(',');
            text.push_str(argument);
        }
        text.push(']');
        out.text(&text);
    }

    /// Sends an event to the client; its arguments are a JSON list, or none where it is not one.
    fn emit_list(name: &str, arguments: &str, out: &mut Output<'_>) {
        let mut quoted = String::with_capacity(name.len() + 2);
        write_json_str(&mut quoted, name);
        let inner = arguments.strip_prefix('[');
        let inner = inner.and_then(|rest| rest.strip_suffix(']'));
        match inner.map(str::trim).filter(|inner| !inner.is_empty()) {
            Some(inner) => out.text_of(&["42[", &quoted, ",", inner, "]"]),
            None => out.text_of(&["42[", &quoted, "]"]),
        }
    }

    /// Answers an event that asked for an acknowledgement.
    fn acknowledge(ack: Option<u64>, argument: &str, out: &mut Output<'_>) {
        if let Some(id) = ack {
            out.text(&format!("43{id}[{argument}]"));
        }
    }
}

impl Dialect for SocketIo {
    fn opened(&mut self, now: Instant, _: &mut Output<'_>) {
        match self.is_v3() {
            true => self.heard_by = Some(now + PING_INTERVAL + PING_TIMEOUT),
            false => {
                self.connect_by = Some(now + CONNECT_TIMEOUT);
                self.ping_at = Some(now + PING_INTERVAL);
            }
        }
    }

    fn decode(&mut self, message: Incoming<'_>, now: Instant, out: &mut Output<'_>) {
        if self.is_v3() {
            self.heard_by = Some(now + PING_INTERVAL + PING_TIMEOUT);
        }
        match self.has_to_wait(message) {
            true => self.hold(message, out),
            false => self.read(message, now, out),
        }
    }

    fn encode(&mut self, outgoing: &Outgoing, now: Instant, out: &mut Output<'_>) {
        match &outgoing.event {
            Event::Native(body) if body.kind() == FrameType::Welcome => {
                self.welcome(outgoing.peer, out);
            }
            Event::Native(body) if body.kind() == FrameType::Error && !self.is_accepted => {
                let object = Object::parse(body.as_str()).ok();
                let code = object.and_then(|object| object.string("code"));
                if self.phase == Phase::Opening {
                    self.refuse(code.as_deref().unwrap_or("refused"), out);
                }
            }
            Event::Native(body) if self.phase == Phase::Connected => {
                self.native(outgoing, body, now, out);
            }
            Event::Exchange(reply)
                if self.phase == Phase::Opening && matches!(**reply, ExchangeReply::Opened) =>
            {
                self.connected(out);
            }
            _ => {}
        }
        self.go_on(now, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        let tutorial = self.tutorial.as_ref().and_then(|t| t.next_timeout());
        let own = [
            self.connect_by,
            self.ping_at,
            self.heard_by,
            self.attached_by,
        ];
        own.into_iter().chain([tutorial]).flatten().min()
    }

    fn timed_out(&mut self, now: Instant, out: &mut Output<'_>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.connect_by) || is_due(self.heard_by) {
            (self.connect_by, self.heard_by) = (None, None);
            out.close(CloseCode::HeartbeatTimeout, "ping timeout");
        }
        if is_due(self.attached_by) {
            (self.partial, self.attached_by) = (None, None);
            out.close(
                CloseCode::ProtocolError,
                "attachments of an event did not come",
            );
        }
        if is_due(self.ping_at) {
            self.ping_at = None;
            self.heard_by = Some(now + PING_TIMEOUT);
            out.text("2");
        }
        if let Some(mut tutorial) = self.tutorial.take() {
            let texts = out.texts_of(|out| tutorial.timed_out(now, out));
            self.tutorial = Some(tutorial);
            server::emit_texts(&texts, out);
        }
    }

    fn memory(&self, now: Instant) -> Option<String> {
        self.to_memory(now)
    }

    fn closing(&mut self, closing: &Closing, out: &mut Output<'_>) -> u16 {
        // A client that receives DISCONNECT stays away, one whose connection is lost comes back.
        let is_sent_away = matches!(
            closing.code,
            CloseCode::Normal
                | CloseCode::Unauthorized
                | CloseCode::Kicked
                | CloseCode::Replaced
                | CloseCode::RoomClosed
        );
        if self.phase == Phase::Connected && is_sent_away {
            out.text("41");
        }
        if !self.me.is_empty() {
            out.text("1");
        }
        closing.code as u16
    }
}

/// What the connections of Socket.IO are to the hub.
pub const KIND: DialectKind = DialectKind::SocketIo;
