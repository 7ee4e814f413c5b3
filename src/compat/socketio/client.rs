//! Events of clients: joins, and what goes to others.
//!
//! In a room of Socket.IO an event travels as the content of a message: `{event, args, bin?}`. The
//! sender's translator puts its id into it, so that nobody speaks for another.

use super::super::object::{Object, malformed, string};
use super::super::writer::Writer;
use super::{Joining, Profile, SocketIo};
use crate::compat::tutorial::Tutorial;
use crate::protocol::{
    ClientMessage, DialectKind, ErrorCode, Forward, Join, MAX_DEPTH, MAX_NAME, MessageType,
    Payload, Request, RoomPatch, folds_to, is_deeper_than, write_json_str,
};
use crate::signal::{Dialect, Incoming, Output};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Instant;

/// Names of a join, and of leaving.
const JOINS: [&str; 5] = ["join", "join-room", "joinRoom", "join_room", "room:join"];
const LEAVES: [&str; 5] = [
    "leave",
    "leave-room",
    "leaveRoom",
    "leave_room",
    "room:leave",
];
/// Fields that name a room, a user or a receiver.
const ROOMS: [&str; 4] = ["roomId", "room", "roomID", "room_id"];
const USERS: [&str; 4] = ["userId", "user", "username", "name"];
const TARGETS: [&str; 6] = [
    "to",
    "target",
    "targetId",
    "receiver",
    "userToCall",
    "userToSignal",
];
/// What bytes are in an event whose attachments follow it.
const PLACEHOLDER: &str = "_placeholder";
/// Calls of one client that are remembered.
const MAX_PARTNERS: usize = 16;
/// What an event's content has around the arguments, in levels of nesting.
const OUTER_DEPTH: usize = 3;

/// Whether the server alone says this, so that no client may say it to others.
pub(in crate::compat) fn is_server_owned(profile: Profile, name: &str) -> bool {
    const ALWAYS: [&str; 3] = ["ice-servers", "join-error", "notify"];
    /// What the libraries say to their own pages; those in the second line are of clients 2.
    #[rustfmt::skip]
    const OF_LIBRARIES: [&str; 9] = [
        "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener",
        "connecting", "connect_timeout", "error",
    ];
    // Rooms of profiles are apart, so that each keeps its own words and leaves those of others free.
    let own: &[&str] = match profile {
        Profile::Tutorial | Profile::Lobby => &["ready", "change", "ipaddr"],
        Profile::Relay => &[
            "room-users",
            "user-connected",
            "user-joined",
            "user-left",
            "user-disconnected",
        ],
        Profile::Codelab => &["created", "joined", "join", "ready", "full"],
        Profile::Mesh => &[
            "all users",
            "room full",
            "user joined",
            "user left",
            "receiving returned signal",
        ],
        Profile::Call => &["me", "callAccepted", "callEnded"],
    };
    let is = |names: &[&str]| names.contains(&name);
    is(&ALWAYS) || is(&OF_LIBRARIES) || is(own)
}

impl SocketIo {
    pub(super) fn event(
        &mut self,
        data: &str,
        ack: Option<u64>,
        attachments: &[Vec<u8>],
        now: Instant,
        out: &mut Output<'_>,
    ) {
        let list: Option<Vec<&RawValue>> = serde_json::from_str(data).ok();
        let Some((name, arguments)) = list.as_ref().and_then(|list| list.split_first()) else {
            return Self::broken(out);
        };
        let Some(name) = string(name) else {
            return Self::broken(out);
        };
        let is_deep = is_deeper_than(data, MAX_DEPTH - OUTER_DEPTH);
        if is_deep || !attachments.is_empty() && !are_placed(data, attachments.len()) {
            return Self::broken(out);
        }
        let is_answered_here = matches!(
            (self.opening.profile, &*name),
            (Profile::Tutorial | Profile::Lobby, "ipaddr")
        );
        if is_server_owned(self.opening.profile, &name) && !is_answered_here {
            Self::acknowledge(ack, &failed("forbidden", "the server says this"), out);
            return self.idle(out);
        }
        let event = Said {
            name: &name,
            arguments,
            ack,
            attachments,
        };
        match (self.opening.profile, &*name) {
            (Profile::Tutorial, "join-room") => {
                let tutorial = || Box::new(Tutorial::of(DialectKind::Tutorial0));
                self.tutorial.get_or_insert_with(tutorial);
                self.tutorial_event("join", &event, now, out);
            }
            (Profile::Tutorial, _) if self.tutorial.is_some() => {
                self.tutorial_event(&name, &event, now, out);
            }
            (Profile::Tutorial | Profile::Lobby, "ipaddr") => {
                if let Some(address) = &self.opening.address {
                    Self::emit("ipaddr", &[&quoted(address)], out);
                }
                self.idle(out);
            }
            (Profile::Tutorial, "message") => self.pass(&event, out),
            // Its server passes nothing else on.
            (Profile::Tutorial, _) => self.idle(out),
            (Profile::Codelab, "create or join") => self.join(&event, Some(2), out),
            (Profile::Mesh, "join room") => self.join(&event, Some(4), out),
            (Profile::Mesh, "sending signal") => {
                self.direct(&event, "userToSignal", "user joined", out, |own, object| {
                    let mut content = Writer::untyped();
                    content.raw_if("signal", object.text("signal"));
                    content.string("callerID", own).finish()
                });
            }
            (Profile::Mesh, "returning signal") => {
                let name = "receiving returned signal";
                self.direct(&event, "callerID", name, out, |own, object| {
                    let mut content = Writer::untyped();
                    content.raw_if("signal", object.text("signal"));
                    content.string("id", own).finish()
                });
            }
            (Profile::Call, "callUser") => {
                self.direct(&event, "userToCall", "callUser", out, |own, object| {
                    let mut content = Writer::untyped();
                    content.raw_if("signal", object.text("signalData"));
                    content.string("from", own);
                    content.raw_if("name", object.text("name")).finish()
                });
            }
            (Profile::Call, "answerCall") => {
                self.direct(&event, "to", "callAccepted", out, |_, object| {
                    object.text("signal").unwrap_or("null").to_owned()
                });
            }
            (Profile::Relay, name) if JOINS.contains(&name) => self.join(&event, None, out),
            (Profile::Relay, name) if LEAVES.contains(&name) => self.leave(ack, out),
            _ => self.pass(&event, out),
        }
    }

    /// The client is connected: what it does without having asked.
    pub(super) fn entered(&mut self, out: &mut Output<'_>) {
        match self.opening.profile {
            Profile::Relay | Profile::Codelab | Profile::Mesh => return,
            Profile::Call => Self::emit("me", &[&quoted(&self.me)], out),
            Profile::Tutorial | Profile::Lobby => {}
        }
        self.enter(None, None, None, None, out);
    }

    fn join(&mut self, event: &Said<'_>, max_peers: Option<u32>, out: &mut Output<'_>) {
        let first = event.arguments.first();
        let object = first.and_then(|first| Object::parse(first.get()).ok());
        let room = match (&object, first) {
            (Some(object), _) => ROOMS.iter().find_map(|name| name_of(object.get(name)?)),
            (None, first) => first.and_then(|first| name_of(first)),
        };
        let user = event.arguments.get(1).and_then(|user| name_of(user));
        let user = user.or_else(|| {
            USERS
                .iter()
                .find_map(|name| name_of(object.as_ref()?.get(name)?))
        });
        let (Some(room), true) = (room, user.as_deref().is_none_or(is_name)) else {
            let why =
                "a room, and a user if there is one, has 1 to 128 bytes, none of them controls";
            Self::acknowledge(event.ack, &failed("invalid-message", why), out);
            return out.request(Err(malformed("the join names no room")));
        };
        self.enter(Some(room), user, max_peers, event.ack, out);
    }

    /// Enters a room of Socket.IO, or the lobby. What the server alone says in one profile any client
    /// may say in another, so that each has rooms of its own.
    fn enter(
        &mut self,
        room: Option<String>,
        user: Option<String>,
        max_peers: Option<u32>,
        ack: Option<u64>,
        out: &mut Output<'_>,
    ) {
        self.joins = self.joins.wrapping_add(1);
        // Not an id of the tutorial's translator, which joins over the same connection.
        let id = format!("enter-{}", self.joins);
        out.request(Ok(ClientMessage {
            id: Some(id.clone()),
            kind: MessageType::Join,
            dialect: None,
            request: Request::Join(Box::new(Join {
                room_id: self.opening.profile.room(room.as_deref()),
                identity: user,
                token: self.token.clone(),
                password: None,
                metadata: None,
                create: RoomPatch {
                    max_peers,
                    ..RoomPatch::default()
                },
            })),
        }));
        let room = room.unwrap_or_default();
        self.joining = Some(Joining { id, room, ack });
    }

    pub(super) fn leave(&mut self, ack: Option<u64>, out: &mut Output<'_>) {
        (self.joining, self.tutorial) = (None, None);
        self.members.clear();
        self.partners.clear();
        if self.room.take().is_none() {
            Self::acknowledge(ack, r#"{"ok":true}"#, out);
            return self.idle(out);
        }
        out.request(Ok(ClientMessage {
            id: ack.map(|ack| format!("ack-{ack}")),
            kind: MessageType::Leave,
            dialect: None,
            request: Request::Leave,
        }));
    }

    /// Passes an event to a named member, or to all others in the room.
    fn pass(&mut self, event: &Said<'_>, out: &mut Output<'_>) {
        let mut to = None;
        let mut arguments = String::new();
        let mut is_stamped = false;
        for (n, argument) in event.arguments.iter().enumerate() {
            let text = argument.get();
            if n > 0 {
                arguments.push(',');
            }
            if !is_stamped && text.starts_with('{') {
                let Ok(object) = Object::parse(text) else {
                    return Self::broken(out);
                };
                // In the place of bytes the receiver's client reads no object.
                let is_bytes = !event.attachments.is_empty() && object.text(PLACEHOLDER).is_some();
                if !is_bytes {
                    to = object.first(&TARGETS).map(|to| to.into_owned()).or(to);
                    arguments.push_str(&self.stamped(&object));
                    is_stamped = true;
                    continue;
                }
            }
            if n == 0
                && let Some(first) = string(argument)
                && self.find(&first).is_some()
            {
                to = Some(first.into_owned());
            }
            arguments.push_str(text);
        }
        if !is_stamped {
            if !arguments.is_empty() {
                arguments.push(',');
            }
            write_json_str(&mut arguments, &self.me);
        }
        // Some applications name their room there.
        let to = to.filter(|to| self.room.as_deref() != Some(to));
        let to = match to {
            None => None,
            Some(to) => match self.find(&to) {
                Some(id) => Some(id),
                None => return self.nobody(event.ack, out),
            },
        };
        self.send(event, event.name, &arguments, to.as_deref(), out);
    }

    /// Sends one member what `make` makes of the first argument.
    fn direct(
        &mut self,
        event: &Said<'_>,
        target: &str,
        name: &str,
        out: &mut Output<'_>,
        make: impl FnOnce(&str, &Object<'_>) -> String,
    ) {
        let first = event.arguments.first();
        let Some(object) = first.and_then(|first| Object::parse(first.get()).ok()) else {
            return Self::broken(out);
        };
        let to = object.string(target).and_then(|to| self.find(&to));
        let Some(to) = to else {
            return self.nobody(event.ack, out);
        };
        self.partner(&to);
        let argument = make(&self.me, &object);
        self.send(event, name, &argument, Some(&to), out);
    }

    pub(super) fn partner(&mut self, id: &str) {
        let is_call = self.opening.profile == Profile::Call;
        let is_new = !self.partners.iter().any(|partner| partner == id);
        if is_call && is_new && self.partners.len() < MAX_PARTNERS {
            self.partners.push(id.to_owned());
        }
    }

    /// The receiver is not there. Only a client that wants an acknowledgement learns of it.
    fn nobody(&mut self, ack: Option<u64>, out: &mut Output<'_>) {
        let code = ErrorCode::NoSuchPeer.as_str();
        Self::acknowledge(ack, &failed(code, "nobody here has that id"), out);
        self.idle(out);
    }

    fn send(
        &mut self,
        event: &Said<'_>,
        name: &str,
        arguments: &str,
        to: Option<&str>,
        out: &mut Output<'_>,
    ) {
        if self.room.is_none() {
            let code = ErrorCode::NotInRoom.as_str();
            Self::acknowledge(event.ack, &failed(code, "join a room first"), out);
            return self.idle(out);
        }
        let mut rest = String::with_capacity(64 + name.len() + arguments.len());
        rest.push_str(r#","content":{"event":"#);
        write_json_str(&mut rest, name);
        rest.push_str(r#","args":["#);
        rest.push_str(arguments);
        rest.push(']');
        if !event.attachments.is_empty() {
            let encoded = event.attachments.iter().map(|bytes| STANDARD.encode(bytes));
            rest.push_str(r#","bin":"#);
            rest.push_str(&json!(encoded.collect::<Vec<_>>()).to_string());
        }
        rest.push('}');
        out.request(Ok(ClientMessage {
            id: event.ack.map(|ack| format!("ack-{ack}")),
            kind: MessageType::Message,
            dialect: None,
            request: Request::Forward(Forward {
                to: to.map(str::to_owned),
                payload: Payload::Opaque,
                rest,
            }),
        }));
    }

    /// The object with the sender's id.
    fn stamped(&self, object: &Object<'_>) -> String {
        let mut stamped = Writer::untyped();
        for (name, value) in object.fields() {
            // For decoders that ignore case as well.
            if !["from", "sender"].iter().any(|own| folds_to(name, own)) {
                stamped.raw(name, value.get());
            }
        }
        stamped.string("from", &self.me).string("sender", &self.me);
        stamped.finish()
    }

    /// The id of the other member that has it, or that alone has it as its user.
    fn find(&self, name: &str) -> Option<String> {
        let others = || self.members.iter().filter(|member| member.id != self.me);
        if let Some(member) = others().find(|member| member.id == name) {
            return Some(member.id.clone());
        }
        let mut named = others().filter(|member| member.user == name);
        match (named.next(), named.next()) {
            (Some(only), None) => Some(only.id.clone()),
            _ => None,
        }
    }

    /// An event of a client that joined as the tutorial's other clients do: a message of theirs.
    fn tutorial_event(&mut self, kind: &str, event: &Said<'_>, now: Instant, out: &mut Output<'_>) {
        let first = event.arguments.first().map_or("{}", |first| first.get());
        let Ok(object) = Object::parse(first) else {
            return Self::broken(out);
        };
        let mut message = Writer::new(kind);
        for (name, value) in object.fields() {
            if name != "type" && name != "token" {
                message.raw(name, value.get());
            }
        }
        let token = object.string("token").map(|token| token.into_owned());
        let token = token.or_else(|| Some(self.token.as_ref()?.expose_secret().to_owned()));
        if let Some(token) = token {
            message.string("token", &token);
        }
        let message = message.finish();
        if let Some(tutorial) = &mut self.tutorial {
            tutorial.decode(Incoming::Text(&message), now, out);
        }
        Self::acknowledge(event.ack, "", out);
    }
}

/// An event as a client said it.
struct Said<'a> {
    name: &'a str,
    arguments: &'a [&'a RawValue],
    ack: Option<u64>,
    attachments: &'a [Vec<u8>],
}

/// The argument of an acknowledgement that says no.
pub(super) fn failed(code: &str, error: &str) -> String {
    json!({ "ok": false, "code": code, "error": error }).to_string()
}

pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    write_json_str(&mut quoted, text);
    quoted
}

/// A name in a string, or a number.
fn name_of(raw: &RawValue) -> Option<String> {
    let text = match raw.get().starts_with(|c: char| c.is_ascii_digit()) {
        true => raw.get().to_owned(),
        false => string(raw)?.into_owned(),
    };
    is_name(&text).then_some(text)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.contains(char::is_control)
}

/// Whether every placeholder stands for one of the attachments, and is nothing else: a client that is
/// given another one ends its connection, and old clients take more than `true` for one.
fn are_placed(data: &str, count: usize) -> bool {
    fn check(value: &Value, count: usize) -> bool {
        match value {
            Value::Array(list) => list.iter().all(|value| check(value, count)),
            Value::Object(object) if object.contains_key(PLACEHOLDER) => {
                let number = object.get("num").and_then(Value::as_u64);
                object.len() == 2
                    && object[PLACEHOLDER] == true
                    && number.is_some_and(|number| number < count as u64)
            }
            Value::Object(object) => object.values().all(|value| check(value, count)),
            _ => true,
        }
    }
    serde_json::from_str(data).is_ok_and(|value| check(&value, count))
}
