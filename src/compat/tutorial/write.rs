//! What the hub says, in the words of the clients.

use super::{Form, HOLD, MAX_HELD, Tutorial};
use crate::compat::object::{Object, list};
use crate::compat::writer::Writer;
use crate::protocol::{Body, DialectKind, FrameType, PeerId, folds_to};
use crate::signal::hub::Event;
use crate::signal::{Outgoing, Output};
use std::borrow::Cow;
use std::time::Instant;

impl Tutorial {
    pub(super) fn write(&mut self, outgoing: &Outgoing, now: Instant, out: &mut Output<'_>) {
        let Event::Native(body) = &outgoing.event else {
            return;
        };
        let Ok(object) = Object::parse(body.as_str()) else {
            return;
        };
        self.peer = Some(outgoing.peer);
        match body.kind() {
            FrameType::Joined => self.joined(&object, now, out),
            FrameType::PeerJoined => self.peer_joined(&object, now, out),
            FrameType::PeerLeft => self.peer_left(&object, out),
            FrameType::Error => self.error(&object, body, out),
            FrameType::Offer | FrameType::Answer => self.description(body, &object, out),
            FrameType::Candidate => self.candidate(body, &object, out),
            FrameType::Left => self.left(&object, out),
            _ if self.is_bare() => {}
            FrameType::Welcome => out.text(&copy(body, &object, |frame| {
                frame.raw_if("clientId", object.text("peerId"));
            })),
            FrameType::Registered => out.text(&copy(body, &object, |frame| {
                frame.raw_if("userId", object.text("identity"));
            })),
            FrameType::Message | FrameType::Hangup => {
                out.text(&copy(body, &object, |frame| sender(frame, &object)));
            }
            _ => out.text(&copy(body, &object, |_| {})),
        }
    }

    /// Whether the client knows `{desc}` and `{candidate}` only.
    fn is_bare(&self) -> bool {
        self.speaks == Some(DialectKind::Tutorial2)
    }

    fn joined(&mut self, object: &Object<'_>, now: Instant, out: &mut Output<'_>) {
        let id = object.first(&["id"]);
        let asked = self.answered(id.as_deref());
        if asked.is_none() && id.is_none() {
            // It was called before it said anything.
            self.speaks = Some(DialectKind::Tutorial2);
        }
        self.entering = false;
        self.held.clear();
        let before = self.room.take();
        self.room = object.first(&["roomId"]).map(Cow::into_owned);
        self.arrive();
        self.partner = None;
        if self.is_bare() {
            return;
        }
        if let Some(before) = before {
            out.text(&Writer::new("left").string("roomId", &before).finish());
        }
        let peers = object.text("peers").map(list).unwrap_or_default();
        let peers: Vec<_> = peers
            .into_iter()
            .filter_map(|peer| Object::parse(peer).ok())
            .collect();
        let ids: Vec<_> = peers
            .iter()
            .filter_map(|peer| peer.text("peerId"))
            .collect();
        let members = format!("[{}]", ids.join(","));
        let mut room_joined = Writer::new("room-joined");
        room_joined
            .raw_if("roomId", object.text("roomId"))
            .raw_if("clientId", object.text("peerId"))
            .raw("members", &members);
        out.text(&room_joined.finish());
        let has_id = asked.is_some_and(|(_, own)| own);
        let mut joined = Writer::new("joined");
        for (name, value) in object.fields() {
            if !SECRET.contains(&name) && (name != "id" || has_id) {
                joined.raw(name, value.get());
            }
        }
        joined
            .raw_if("clientId", object.text("peerId"))
            .raw("members", &members);
        out.text(&joined.finish());
        if self.speaks == Some(DialectKind::Tutorial1) {
            // A member of another kind waits for the offer of this one.
            for peer in peers.iter().filter(|peer| !waits(peer)) {
                self.hold(peer, now);
            }
        }
    }

    /// Where all joins are answered, it is where it was heading to, or was not let in.
    fn arrive(&mut self) {
        if self.joining.is_empty() {
            self.heading.clone_from(&self.room);
        }
    }

    fn peer_joined(&mut self, object: &Object<'_>, now: Instant, out: &mut Output<'_>) {
        if self.is_bare() {
            return;
        }
        let peer = object.object("peer");
        if self.speaks == Some(DialectKind::Tutorial1) {
            // Newcomers of other kinds offer by themselves.
            if let Some(peer) = peer.filter(waits) {
                self.hold(&peer, now);
            }
            return;
        }
        out.text(&arrival("user-joined", object));
        out.text(&arrival("peer-joined", object));
    }

    fn hold(&mut self, peer: &Object<'_>, now: Instant) {
        if let Some(id) = peer.first(&["peerId"])
            && self.held.len() < MAX_HELD
        {
            let text = arrival("peer-joined", peer);
            self.held.push_back((now + HOLD, id.into_owned(), text));
        }
    }

    fn peer_left(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        let peer = object.first(&["peerId"]);
        if peer.as_deref().and_then(PeerId::parse) == self.peer {
            // The room is closed, as the end of the connection says.
            return;
        }
        if self.partner.as_deref() == peer.as_deref() {
            self.partner = None;
        }
        if let Some(peer) = &peer {
            self.held.retain(|(_, held, _)| held != peer);
        }
        if self.is_bare() {
            return;
        }
        for kind in ["user-left", "peer-left"] {
            let mut left = Writer::new(kind);
            aliases(&mut left, object);
            left.raw_if("reason", object.text("reason"));
            out.text(&left.finish());
        }
    }

    fn left(&mut self, object: &Object<'_>, out: &mut Output<'_>) {
        self.held.clear();
        self.partner = None;
        let room = self.room.take();
        self.arrive();
        if self.is_bare() {
            return;
        }
        let mut left = Writer::new("left");
        if let Some(room) = room {
            left.string("roomId", &room);
        }
        left.raw_if("id", object.text("id"));
        out.text(&left.finish());
    }

    fn error(&mut self, object: &Object<'_>, body: &Body, out: &mut Output<'_>) {
        self.entering = false;
        let id = object.first(&["id"]);
        let of_join = id.as_deref().and_then(|id| self.answered(Some(id)));
        self.arrive();
        if self.is_bare() {
            return;
        }
        let Some((_, own)) = of_join else {
            return out.text(body.as_str());
        };
        let mut refused = Writer::new("join-error");
        refused
            .raw_if("error", object.text("message"))
            .raw_if("code", object.text("code"));
        out.text(&refused.finish());
        out.text(&copy_without(body, object, if own { "" } else { "id" }));
    }

    /// An offer or an answer, in the form that the client knows.
    fn description(&mut self, body: &Body, object: &Object<'_>, out: &mut Output<'_>) {
        self.partner = object.first(&["from"]).map(Cow::into_owned);
        let kind = body.kind().as_str();
        let sdp = object.text("sdp").unwrap_or("null");
        let wanted = match self.speaks {
            Some(DialectKind::Tutorial1 | DialectKind::Tutorial2 | DialectKind::Tutorial3) => {
                Some(Form::Object)
            }
            // The sender may be of the same tutorial, and means what it sends.
            _ if matches!(
                body.sender(),
                Some(DialectKind::Tutorial | DialectKind::Tutorial0)
            ) =>
            {
                None
            }
            _ => Some(self.form.unwrap_or(Form::Object)),
        };
        let sdp = match wanted {
            Some(form) => in_form(form, kind, sdp),
            None => Cow::Borrowed(sdp),
        };
        if self.is_bare() {
            out.text(&Writer::untyped().raw("desc", &sdp).finish());
            return;
        }
        let mut frame = Writer::new(kind);
        frame.raw("sdp", &sdp);
        for (name, value) in object.fields() {
            if !matches!(name, "type" | "sdp") && !is_stamp(name) {
                frame.raw(name, value.get());
            }
        }
        sender(&mut frame, object);
        out.text(&frame.finish());
    }

    fn candidate(&mut self, body: &Body, object: &Object<'_>, out: &mut Output<'_>) {
        if self.is_bare() {
            let candidate = object.text("candidate").unwrap_or("null");
            out.text(&Writer::untyped().raw("candidate", candidate).finish());
        } else {
            out.text(&copy(body, object, |frame| sender(frame, object)));
        }
    }
}

/// What no foreign client can use.
const SECRET: [&str; 4] = ["type", "seq", "resumeToken", "resumeWindow"];

/// What the servers of the tutorials say of the sender and the room, and what the box writes in their
/// place: a client that is not of a tutorial may send fields of these names.
const STAMPS: [&str; 6] = [
    "clientId",
    "userId",
    "fromId",
    "fromUserId",
    "members",
    "targetId",
];

fn is_stamp(name: &str) -> bool {
    STAMPS.iter().any(|stamp| folds_to(name, stamp))
}

/// Whether a peer is of the tutorial whose newcomers wait for an offer.
fn waits(peer: &Object<'_>) -> bool {
    peer.first(&["dialect"])
        .is_some_and(|dialect| dialect == DialectKind::Tutorial1.as_str())
}

fn arrival(kind: &str, peer: &Object<'_>) -> String {
    let mut frame = Writer::new(kind);
    aliases(&mut frame, peer);
    frame.finish()
}

/// A peer under the names of all tutorials.
fn aliases(frame: &mut Writer, peer: &Object<'_>) {
    let (id, name) = (peer.text("peerId"), peer.text("identity"));
    frame
        .raw_if("clientId", id)
        .raw_if("userId", name)
        .raw_if("peerId", id)
        .raw_if("identity", name)
        .raw_if("from", id);
}

/// The sender under the names of the other tutorials.
fn sender(frame: &mut Writer, object: &Object<'_>) {
    let (id, name) = (object.first(&["from"]), object.first(&["fromIdentity"]));
    if let Some(id) = id {
        frame.string("fromId", &id);
        // The id serves as name where there is none.
        frame.string_or_null("fromUserId", name.as_deref().filter(|name| **name != *id));
    }
}

fn copy(body: &Body, object: &Object<'_>, more: impl FnOnce(&mut Writer)) -> String {
    let mut frame = Writer::new(body.kind().as_str());
    for (name, value) in object.fields() {
        if !SECRET.contains(&name) && !is_stamp(name) {
            frame.raw(name, value.get());
        }
    }
    more(&mut frame);
    frame.finish()
}

fn copy_without(body: &Body, object: &Object<'_>, without: &str) -> String {
    let mut frame = Writer::new(body.kind().as_str());
    for (name, value) in object.fields() {
        if name != "type" && name != without {
            frame.raw(name, value.get());
        }
    }
    frame.finish()
}

/// A description as text or as object; what is neither stays as it is.
fn in_form<'a>(form: Form, kind: &str, sdp: &'a str) -> Cow<'a, str> {
    match form {
        Form::Object if sdp.starts_with('"') => {
            let object = Writer::new(kind).raw("sdp", sdp).finish();
            Cow::Owned(object)
        }
        Form::Text if sdp.starts_with('{') => {
            let text = Object::parse(sdp)
                .ok()
                .and_then(|object| object.text("sdp"));
            Cow::Borrowed(text.filter(|text| text.starts_with('"')).unwrap_or(sdp))
        }
        _ => Cow::Borrowed(sdp),
    }
}
