//! Events for clients: what the hub says, in the words of each profile.

use super::super::object::{Object, list};
use super::super::writer::Writer;
use super::client::{failed, quoted};
use super::{Member, Profile, SocketIo};
use crate::protocol::{Body, FrameType};
use crate::signal::{Dialect, Outgoing, Output};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Instant;

/// The fields of ICE servers that clients get.
const ICE: [&str; 4] = ["iceServers", "iceTransportPolicy", "ttl", "expiresAt"];

impl SocketIo {
    pub(super) fn native(
        &mut self,
        outgoing: &Outgoing,
        body: &Body,
        now: Instant,
        out: &mut Output<'_>,
    ) {
        let Ok(object) = Object::parse(body.as_str()) else {
            return;
        };
        let is_own_join = body.kind() == FrameType::Joined && self.joining_is(&object);
        if let Some(mut tutorial) = self.tutorial.take_if(|_| !is_own_join) {
            self.has_moved |= body.kind() == FrameType::Joined;
            if !self.has_moved && body.kind() != FrameType::Error {
                // Of the lobby that it is about to leave.
                self.tutorial = Some(tutorial);
                return;
            }
            let texts = out.texts_of(|out| tutorial.encode(outgoing, now, out));
            self.tutorial = Some(tutorial);
            return emit_texts(&texts, out);
        }
        match body.kind() {
            FrameType::Joined => self.joined(&object, out),
            FrameType::Peers => self.more_peers(&object),
            FrameType::PeerJoined => self.peer_joined(&object, out),
            FrameType::PeerLeft => self.peer_left(&object, out),
            FrameType::Message => self.message(&object, out),
            FrameType::Ack | FrameType::Left => {
                Self::acknowledge(ack_of(&object), r#"{"ok":true}"#, out);
            }
            FrameType::Error => self.error(&object, out),
            FrameType::IceServers => Self::emit("ice-servers", &[&ice(&object)], out),
            FrameType::Notify => {
                let content = object.text("content").unwrap_or("null");
                Self::emit("notify", &[content], out);
            }
            _ => {}
        }
    }

    /// Whether the answer is to a join of this translator.
    fn joining_is(&self, object: &Object<'_>) -> bool {
        let id = object.string("id");
        (self.joining.as_ref()).is_some_and(|joining| id.as_deref() == Some(&joining.id))
    }

    fn joined(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let Some(joining) = self
            .joining
            .take_if(|joining| object.string("id").as_deref() == Some(&joining.id))
        else {
            return;
        };
        self.room = Some(joining.room.clone());
        self.partners.clear();
        self.members = object.text("peers").map(members).unwrap_or_default();
        self.members.push(Member {
            id: self.me.clone(),
            user: object
                .first(&["identity"])
                .map_or_else(|| self.me.clone(), |name| name.into()),
        });
        let (room, me) = (quoted(&joining.room), quoted(&self.me));
        let others = self.members.iter().filter(|member| member.id != self.me);
        let others = format!(
            "[{}]",
            others.map(|m| quoted(&m.id)).collect::<Vec<_>>().join(",")
        );
        let is_first = self.members.len() == 1;
        let ice = ice(object);
        if joining.ack.is_some() {
            let mut answer = Writer::untyped();
            answer
                .raw("ok", "true")
                .raw("id", &me)
                .raw("peers", &others);
            for name in ICE {
                answer.raw_if(name, object.text(name));
            }
            Self::acknowledge(joining.ack, &answer.finish(), out);
        }
        match self.opening.profile {
            Profile::Relay => Self::emit("room-users", &[&others], out),
            Profile::Tutorial | Profile::Lobby => {
                Self::emit("ready", &[&me, &self.persons()], out);
            }
            Profile::Codelab if is_first => Self::emit("created", &[&room, &me], out),
            Profile::Codelab => {
                Self::emit("joined", &[&room, &me], out);
                Self::emit("ready", &[&room], out);
            }
            Profile::Mesh => Self::emit("all users", &[&others], out),
            Profile::Call => {}
        }
        Self::emit("ice-servers", &[&ice], out);
    }

    /// The rest of a list that was too long for one message.
    fn more_peers(&mut self, object: &Object<'_>) {
        let me = self.members.iter().position(|member| member.id == self.me);
        let at = me.unwrap_or(self.members.len());
        let more = object.text("peers").map(members).unwrap_or_default();
        let new: Vec<_> = more
            .into_iter()
            .filter(|member| !self.members.contains(member))
            .collect();
        self.members.splice(at..at, new);
    }

    fn peer_joined(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let Some(member) = member(object) else { return };
        let (id, user) = (quoted(&member.id), quoted(&member.user));
        self.members.push(member);
        match self.opening.profile {
            Profile::Relay => {
                Self::emit("user-connected", &[&user], out);
                let object = Writer::untyped()
                    .raw("id", &id)
                    .raw("userId", &user)
                    .finish();
                Self::emit("user-joined", &[&object], out);
            }
            Profile::Tutorial | Profile::Lobby => Self::emit("change", &[&self.persons()], out),
            Profile::Codelab => {
                let room = quoted(self.room.as_deref().unwrap_or_default());
                Self::emit("join", &[&room], out);
                Self::emit("ready", &[&room], out);
            }
            Profile::Mesh | Profile::Call => {}
        }
    }

    fn peer_left(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let Some(member) = member(object) else { return };
        if member.id == self.me {
            // The room is closed, as the end of the connection says.
            return;
        }
        self.members.retain(|other| other.id != member.id);
        let (id, user) = (quoted(&member.id), quoted(&member.user));
        match self.opening.profile {
            Profile::Relay => {
                Self::emit("user-left", &[&id], out);
                Self::emit("user-disconnected", &[&user], out);
            }
            Profile::Tutorial | Profile::Lobby => Self::emit("change", &[&self.persons()], out),
            Profile::Mesh => Self::emit("user left", &[&id], out),
            Profile::Call => {
                let before = self.partners.len();
                self.partners.retain(|partner| *partner != member.id);
                if self.partners.len() < before {
                    Self::emit("callEnded", &[], out);
                }
            }
            Profile::Codelab => {}
        }
    }

    /// An event of another member.
    fn message(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let Some(content) = object.object("content") else {
            return;
        };
        // Events are of members, whose translators have stamped them: who calls from elsewhere has
        // none.
        let is_member = |from: &str| self.members.iter().any(|member| member.id == from);
        if !object.string("from").is_some_and(|from| is_member(&from)) {
            return;
        }
        let (Some(name), Some(arguments)) = (content.string("event"), content.text("args")) else {
            return;
        };
        if let Some(from) = object.string("from") {
            self.partner_of(&name, &from);
        }
        let has_attachments = content.text("bin").is_some();
        let is_timed =
            name == "message" && matches!(self.opening.profile, Profile::Tutorial | Profile::Lobby);
        if !has_attachments && !is_timed {
            return Self::emit_list(&name, arguments, out);
        }
        let mut arguments: Vec<_> = list(arguments).into_iter().map(str::to_owned).collect();
        if is_timed {
            let ts = object
                .text("ts")
                .and_then(|ts| ts.parse().ok())
                .unwrap_or(0);
            if let Some(first) = arguments.first_mut() {
                *first = timed(first, ts);
            }
        }
        let attachments: Vec<String> = content
            .text("bin")
            .and_then(|bin| serde_json::from_str(bin).ok())
            .unwrap_or_default();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        if attachments.is_empty() {
            return Self::emit(&name, &arguments, out);
        }
        let mut text = format!("45{}-[{}", attachments.len(), quoted(&name));
        for argument in arguments {
            text.push(',');
            text.push_str(argument);
        }
        text.push(']');
        out.text(&text);
        for encoded in attachments {
            let mut bytes = if self.is_v3() { vec![4] } else { vec![] };
            bytes.append(&mut STANDARD.decode(encoded).unwrap_or_default());
            out.binary(&bytes);
        }
    }

    fn partner_of(&mut self, name: &str, from: &str) {
        if matches!(name, "callUser" | "callAccepted") {
            self.partner(from);
        }
    }

    fn error(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let code = object.string("code").unwrap_or_default();
        let why = object.string("message").unwrap_or_default();
        let id = object.string("id");
        let of_join = self
            .joining
            .take_if(|joining| id.as_deref() == Some(&joining.id));
        let Some(joining) = of_join else {
            return Self::acknowledge(ack_of(object), &failed(&code, &why), out);
        };
        let refusal = failed(&code, &why);
        Self::acknowledge(joining.ack, &refusal, out);
        let room = quoted(&joining.room);
        match (self.opening.profile, &*code) {
            (Profile::Codelab, "room-full") => Self::emit("full", &[&room], out),
            (Profile::Mesh, "room-full") => Self::emit("room full", &[], out),
            _ => Self::emit("join-error", &[&refusal], out),
        }
    }

    /// Everybody, numbered in the order in which they came.
    fn persons(&self) -> String {
        let person = |(n, member): (usize, &Member)| {
            Writer::untyped()
                .string("id", &member.id)
                .raw("seq", &(n + 1).to_string())
                .finish()
        };
        let persons: Vec<_> = self.members.iter().enumerate().map(person).collect();
        format!("[{}]", persons.join(","))
    }
}

/// Messages of a tutorial as events of their type.
pub(super) fn emit_texts(texts: &[String], out: &mut Output<'_>) {
    for text in texts {
        let kind = Object::parse(text).ok().and_then(|object| {
            let kind = object.string("type")?;
            Some(kind.into_owned())
        });
        if let Some(kind) = kind {
            SocketIo::emit(&kind, &[text], out);
        }
    }
}

/// The acknowledgement that the answer to a request is for.
fn ack_of(object: &Object<'_>) -> Option<u64> {
    object.string("id")?.strip_prefix("ack-")?.parse().ok()
}

fn ice(object: &Object<'_>) -> String {
    let mut ice = Writer::untyped();
    for name in ICE {
        ice.raw_if(name, object.text(name));
    }
    ice.finish()
}

fn member(object: &Object<'_>) -> Option<Member> {
    let id = object.first(&["peerId"])?.into_owned();
    let user = object.first(&["identity"]);
    let user = user.map_or_else(|| id.clone(), |user| user.into_owned());
    Some(Member { id, user })
}

fn members(peers: &str) -> Vec<Member> {
    let peers = list(peers).into_iter();
    peers
        .filter_map(|peer| member(&Object::parse(peer).ok()?))
        .collect()
}

/// The object with the time of the day (UTC), as the tutorial's server has it.
fn timed(argument: &str, unix_ms: u64) -> String {
    let Ok(object) = Object::parse(argument) else {
        return argument.to_owned();
    };
    let mut timed = Writer::untyped();
    for (name, value) in object.fields() {
        if name != "time" {
            timed.raw(name, value.get());
        }
    }
    let seconds = unix_ms / 1000;
    let time = format!(
        "{}:{}:{}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    );
    timed.string("time", &time).finish()
}
