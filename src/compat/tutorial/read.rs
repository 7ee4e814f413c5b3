//! What the clients say, in the words of the native protocol.

use super::{Form, MAX_JOINING, Tutorial};
use crate::compat::object::{Object, string};
use crate::compat::writer::Writer;
use crate::protocol::{
    self, ClientMessage, DialectKind, FrameError, MAX_ID, MAX_NAME, MessageType, Request,
};
use crate::signal::{Incoming, Output};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The room of a join that names none.
const DEFAULT_ROOM: &str = "default";
/// Fields that are read here, or that only the server says.
const OWN: [&str; 16] = [
    "type",
    "to",
    "targetId",
    "target",
    "roomId",
    "room",
    "identity",
    "userId",
    "sdp",
    "candidate",
    "from",
    "fromId",
    "fromUserId",
    "fromIdentity",
    "clientId",
    "ts",
];

impl Tutorial {
    pub(super) fn read(&mut self, message: Incoming<'_>, out: &mut Output<'_>) {
        let text = match message {
            Incoming::Text(text) => text,
            Incoming::Binary(_) => return out.request(Err(FrameError::binary())),
        };
        let Ok(object) = Object::parse(text) else {
            return self.ask(out, text);
        };
        let kind = object.first(&["type"]);
        match kind.as_deref() {
            None if object.text("type").is_none() => self.bare(&object, text, out),
            Some("join") => self.join(&object, out),
            Some("register") => self.register(&object, out),
            Some("leave") => self.leave(&object, out),
            Some(kind @ ("offer" | "answer" | "candidate" | "message" | "hangup")) => {
                self.relay(kind, &object, out);
            }
            // Nobody here knows how to come back, and the token is not given out.
            Some("resume") => self.ask(out, r#"{"type":"no-such-type"}"#),
            _ => self.ask(out, text),
        }
    }

    /// `{desc}` and `{candidate}` of pages that name neither type nor receiver.
    fn bare(&mut self, object: &Object<'_>, text: &str, out: &mut Output<'_>) {
        let desc = object.object("desc");
        let kind = match &desc {
            Some(desc) => match desc.first(&["type"]).as_deref() {
                Some("offer") => "offer",
                Some("answer") => "answer",
                // Nothing that another page could take.
                _ => return self.ask(out, text),
            },
            None if object.text("candidate").is_some() => "candidate",
            None => return self.ask(out, text),
        };
        self.speaks = Some(DialectKind::Tutorial2);
        if self.room.is_none() && !self.entering {
            self.entering = true;
            out.request(Ok(ClientMessage {
                id: None,
                kind: MessageType::Join,
                request: Request::Lobby,
                dialect: self.speaks,
            }));
        }
        let mut message = Writer::new(kind);
        match kind {
            "candidate" => message.raw_if("candidate", object.text("candidate")),
            _ => {
                self.form = Some(Form::Object);
                message.raw_if("sdp", object.text("desc"))
            }
        };
        if let Some(partner) = &self.partner {
            message.string("to", partner);
        }
        self.ask(out, &message.finish());
    }

    fn join(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let named = object.first(&["identity"]);
        match (&named, self.speaks) {
            (Some(_), _) => self.speaks = Some(DialectKind::Tutorial1),
            (None, Some(DialectKind::Tutorial1 | DialectKind::Tutorial2)) => self.speaks = None,
            (None, _) => {}
        }
        let mut message = Writer::new("join");
        let raw = object.get("roomId").or(object.get("room"));
        match raw.map(RawValue::get) {
            // As it is, for the one check of all room names; a number is a name to its own server.
            Some(room) if room.starts_with(|c: char| c.is_ascii_digit()) => {
                self.heads_for(Some(Cow::Borrowed(room)));
                message.string("roomId", room)
            }
            Some(room) if !matches!(room, "null" | "\"\"" | "false") => {
                self.heads_for(raw.and_then(string));
                message.raw("roomId", room)
            }
            _ => {
                self.heads_for(Some(Cow::Borrowed(DEFAULT_ROOM)));
                message.string("roomId", DEFAULT_ROOM)
            }
        };
        let name = named.or_else(|| object.first(&["userId"]));
        if let Some(name) = name.as_deref().or(self.name.as_deref()) {
            message.string("identity", name);
        }
        for field in ["token", "password", "metadata", "create"] {
            message.raw_if(field, object.text(field));
        }
        let id = object.first(&["id"]).map(|id| id.into_owned());
        let own = id.is_some();
        self.joins += 1;
        let id = id.unwrap_or_else(|| format!("join-{}", self.joins));
        message.string("id", &id);
        // The answer to a longer one names none.
        if id.len() <= MAX_ID {
            self.joining.push_back((id, own));
        }
        if self.joining.len() > MAX_JOINING {
            self.joining.pop_front();
        }
        self.ask(out, &message.finish());
    }

    /// The client asks for a room. It does not get into one whose name is too long, and what a stranger
    /// sends is kept within limits.
    fn heads_for(&mut self, room: Option<Cow<'_, str>>) {
        if room.as_deref().is_none_or(|room| room.len() <= MAX_NAME) {
            self.heading = room.map(Cow::into_owned);
        }
    }

    fn register(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let name = object.first(&["userId", "identity"]);
        if object.first(&["userId"]).is_some() {
            self.speaks = Some(DialectKind::Tutorial3);
        }
        let mut message = Writer::new("register");
        if let Some(name) = &name {
            message.string("identity", name);
            if name.len() <= MAX_NAME {
                self.name = Some(name.clone().into_owned());
            }
        }
        for field in ["token", "id"] {
            message.raw_if(field, object.text(field));
        }
        self.ask(out, &message.finish());
    }

    /// Leaving a room that one is not in changes nothing.
    fn leave(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let Some(room) = &self.heading else { return };
        if object
            .first(&["roomId", "room"])
            .is_some_and(|other| other != **room)
        {
            return;
        }
        self.heading = None;
        let mut message = Writer::new("leave");
        message.raw_if("id", object.text("id"));
        self.ask(out, &message.finish());
    }

    fn relay(&mut self, kind: &str, object: &Object<'_>, out: &mut Output<'_>) {
        if object.text("targetId").is_some() {
            self.speaks = Some(DialectKind::Tutorial3);
        } else if object.text("to").is_some() && self.speaks.is_none() {
            self.speaks = Some(DialectKind::Tutorial0);
        }
        let mut message = Writer::new(kind);
        if let Some(to) = object.first(&["to", "targetId", "target"]) {
            message.string("to", &to);
        }
        let inner = object.object("data");
        let payload = |name| {
            let own = object.text(name);
            own.or_else(|| inner.as_ref().and_then(|data| data.text(name)))
        };
        let sdp = payload("sdp");
        if let Some(sdp) = sdp {
            self.form = Some(match sdp.starts_with('"') {
                true => Form::Text,
                false => Form::Object,
            });
        }
        message.raw_if("sdp", sdp);
        message.raw_if("candidate", payload("candidate"));
        for (name, value) in object.fields() {
            if !OWN.contains(&name) {
                message.raw(name, value.get());
            }
        }
        self.ask(out, &message.finish());
    }

    fn ask(&self, out: &mut Output<'_>, text: &str) {
        let message = protocol::parse(text);
        out.request(message.map(|message| ClientMessage {
            dialect: self.speaks,
            ..message
        }));
    }
}
