//! Topics that are rooms: a subscriber is a member, so that clients of MQTT and others meet.
//!
//! What clients of MQTT say to each other goes by the topic alone; what goes between them and
//! others goes through the room, so that nobody gets it twice.

use super::super::super::object::{Object, string};
use super::super::super::writer::Writer;
use super::super::super::y_webrtc::exchange;
use super::super::packet::{Packet, Publish, Reason};
use super::super::reader::Stream;
use super::super::writer;
use super::Mqtt;
use crate::protocol::{
    self, Body, ClientMessage, CloseCode, DialectKind, ErrorCode, ExchangeRequest, FrameType, Join,
    MAX_NAME, MessageType, PeerId, Publication, Request, RoomPatch, SubscriptionOptions, Wish,
    folds_to, write_json_str,
};
use crate::signal::Output;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What stands for the room in a pattern.
const ROOM: &str = "{room}";
/// Types that members of a room say to each other; what has another one is a `message`.
const TYPES: [&str; 5] = ["offer", "answer", "candidate", "message", "hangup"];

/// Which topics are rooms: `room/{room}/signaling`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomTopics {
    before: Box<str>,
    after: Box<str>,
}

impl RoomTopics {
    /// Reads a pattern with one `{room}`; nothing where it is not one.
    pub fn new(pattern: &str) -> Option<Self> {
        let (before, after) = pattern.split_once(ROOM)?;
        let is_plain = |text: &str| !text.contains(['{', '}', '+', '#', '\0']);
        let is_topic = is_plain(before) && is_plain(after) && !before.starts_with('$');
        is_topic.then(|| Self {
            before: before.into(),
            after: after.into(),
        })
    }

    fn room<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let room = topic
            .strip_prefix(&*self.before)?
            .strip_suffix(&*self.after)?;
        let is_name = !room.is_empty() && room.len() <= MAX_NAME;
        (is_name && !room.contains('/') && !room.contains(char::is_control)).then_some(room)
    }
}

/// The room of one connection, if topics are rooms.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rooms {
    #[serde(skip)]
    pub(super) topics: Option<Arc<RoomTopics>>,
    #[serde(serialize_with = "exposed", deserialize_with = "secret")]
    pub(super) token: Option<SecretString>,
    /// Whether joins need the token: there are rooms, and the box asks for tokens.
    pub(super) keeps_token: bool,
    /// The name of the client, if it has one.
    pub(super) identity: Option<String>,
    /// The topic whose room it is in, and its peer id: one at a time.
    entered: Option<(Arc<str>, PeerId)>,
    joining: Option<Box<Joining>>,
    /// The SUBSCRIBE of the topic of its room, and the place of the topic in it, until the answer.
    entering: Option<(u16, usize)>,
    /// How many joins were asked for.
    joins: u32,
    /// Whether it is in its room because it published there, and gets nothing of it.
    only_publishes: bool,
    /// The PUBLISH that waits until the client is in the room that it is for.
    held: Vec<u8>,
}

/// What stands for the SUBSCRIBE of a join that a PUBLISH waits for: no packet has this id.
const NO_SUBSCRIBE: u16 = 0;

/// A SUBSCRIBE that waits until the client is in the room of one of its topics.
#[derive(Debug, Serialize, Deserialize)]
struct Joining {
    /// Of the `join`.
    id: String,
    /// Of the SUBSCRIBE.
    subscribe: u16,
    topics: Vec<Wish>,
    /// The place of the topic that is the room.
    place: usize,
}

/// For the process that goes on with the connection, and for nobody else.
fn exposed<S: Serializer>(token: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    (token.as_ref().map(ExposeSecret::expose_secret)).serialize(to)
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(SecretString::from))
}

impl Rooms {
    /// Whether another process may have written it.
    pub(super) fn is_sound(&self) -> bool {
        let joining = self.joining.as_ref();
        joining.is_none_or(|joining| joining.place < joining.topics.len()) && self.joins < 1 << 30
    }

    /// The room that a topic is.
    pub(super) fn room_of(&self, topic: &str) -> Option<Arc<str>> {
        Some(self.topics.as_ref()?.room(topic)?.into())
    }

    pub(super) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    fn is_in(&self, topic: &str) -> bool {
        (self.entered.as_ref()).is_some_and(|(entered, _)| **entered == *topic)
    }

    /// A payload for the topic of a room without what the server alone says there: `fromIdentity`,
    /// `roomId`, `ts`, and a `from` that is the peer id of another. `None` where a lenient reader
    /// could find an object in it that is not one here.
    pub(super) fn unstamped<'a>(&self, payload: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let Some(object) = object(payload)? else {
            return Some(Cow::Borrowed(payload));
        };
        let is = |name: &str, stamp: &str| folds_to(name, stamp);
        let mut writer = Writer::untyped();
        for (name, value) in object.fields() {
            let is_stamp = ["fromIdentity", "roomId", "ts"]
                .iter()
                .any(|stamp| is(name, stamp))
                || is(name, "from") && self.is_anothers(value);
            if !is_stamp {
                writer.raw(name, value.get());
            }
        }
        Some(Cow::Owned(writer.finish().into_bytes()))
    }

    fn is_anothers(&self, from: &RawValue) -> bool {
        let peer = string(from).and_then(|text| PeerId::parse(&text));
        let own = self.entered.as_ref().map(|(_, own)| *own);
        peer.is_some() && peer != own
    }
}

/// The object that a payload is, if it is one; `None` where it may be one that is not read here.
fn object(payload: &[u8]) -> Option<Option<Object<'_>>> {
    // Decoders pass over blanks and byte order marks, some guess UTF-16, and some replace what is
    // not UTF-8.
    let is_blank = |byte: u8| {
        byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0B | 0xEF | 0xBB | 0xBF | 0xFE | 0xFF)
    };
    match payload.iter().find(|byte| !is_blank(**byte)) {
        Some(b'{') => Object::parse(std::str::from_utf8(payload).ok()?)
            .ok()
            .map(Some),
        _ => Some(None),
    }
}

impl Mqtt {
    /// A connection for which topics of that pattern are rooms, on a box that may ask for tokens.
    pub fn with_rooms(topics: Option<Arc<RoomTopics>>, asks_for_tokens: bool) -> Self {
        let mut mqtt = Self::default();
        mqtt.rooms.keeps_token = topics.is_some() && asks_for_tokens;
        mqtt.rooms.topics = topics;
        mqtt
    }

    /// Subscribes. Where the client is in no room yet, it enters that of the first topic that is one
    /// before that.
    pub(super) fn ask_topics(&mut self, id: u16, mut topics: Vec<Wish>, out: &mut Output<'_>) {
        if topics.iter().any(|wish| self.rooms.is_in(&wish.topic)) {
            self.rooms.only_publishes = false;
        }
        let place = match self.rooms.entered {
            Some(_) if !self.rooms.only_publishes => None,
            _ => topics.iter().position(|wish| wish.room.is_some()),
        };
        let Some((place, room)) = place.and_then(|at| Some((at, topics[at].room.clone()?))) else {
            for wish in &mut topics {
                wish.is_refused |= wish.room.is_some() && !self.rooms.is_in(&wish.topic);
            }
            return out.request(exchange(ExchangeRequest::Subscribe { id, topics }));
        };
        self.join(id, room, (topics, place), out);
    }

    /// Whether a PUBLISH has to wait until the client is in the room of its topic: clients publish before
    /// they subscribe, and some never subscribe.
    pub(super) fn enters_to_publish(
        &mut self,
        publish: &Publish<'_>,
        out: &mut Output<'_>,
    ) -> bool {
        let room = match self.rooms.entered {
            Some(_) => None,
            None => self.rooms.room_of(publish.topic),
        };
        let Some(room) = room else {
            return false;
        };
        let mut held = vec![];
        writer::publish(&mut held, self.version, publish);
        self.rooms.held = held;
        let wish = Wish {
            topic: publish.topic.into(),
            options: SubscriptionOptions::default(),
            room: Some(Arc::clone(&room)),
            is_refused: false,
        };
        self.join(NO_SUBSCRIBE, room, (vec![wish], 0), out);
        true
    }

    /// Publishes what has waited for a join, or refuses it.
    fn publish_held(&mut self, out: &mut Output<'_>) {
        let held = std::mem::take(&mut self.rooms.held);
        let fed = Stream::default().feed(&held, usize::MAX, |head, body| {
            if let Packet::Publish(publish) = Packet::read(head, body, self.version)? {
                self.publish_now(&publish, out);
            }
            Ok(ControlFlow::Continue(()))
        });
        if let Err(reason) = fed {
            self.fail(reason, CloseCode::ProtocolError, out);
        }
    }

    fn join(
        &mut self,
        subscribe: u16,
        room: Arc<str>,
        (topics, place): (Vec<Wish>, usize),
        out: &mut Output<'_>,
    ) {
        self.rooms.joins += 1;
        let join = format!("join {}", self.rooms.joins);
        out.request(Ok(ClientMessage {
            id: Some(join.clone()),
            ..request(
                MessageType::Join,
                Request::Join(Box::new(Join {
                    room_id: room.to_string(),
                    identity: self.rooms.identity.clone(),
                    token: self.rooms.token.clone(),
                    password: None,
                    metadata: None,
                    create: RoomPatch::default(),
                })),
            )
        }));
        self.rooms.joining = Some(Box::new(Joining {
            id: join,
            subscribe,
            topics,
            place,
        }));
    }

    /// The client is in the room: it gets the topic, and what it sent meanwhile is read.
    pub(super) fn joined(&mut self, body: &Body, peer: PeerId, out: &mut Output<'_>) {
        let object = Object::parse(body.as_str()).ok();
        let id = object.and_then(|object| object.string("id").map(Cow::into_owned));
        let Some(joining) = (self.rooms.joining).take_if(|it| Some(&it.id) == id.as_ref()) else {
            return;
        };
        let Joining {
            subscribe,
            topics,
            place,
            ..
        } = *joining;
        self.rooms.entered = Some((Arc::clone(&topics[place].topic), peer));
        self.rooms.only_publishes = subscribe == NO_SUBSCRIBE;
        if self.rooms.only_publishes {
            self.publish_held(out);
        } else {
            self.rooms.entering = Some((subscribe, place));
            self.ask_topics(subscribe, topics, out);
        }
        self.read(&[], out);
    }

    /// The client is not let into the room; returns whether that is what the error is about.
    pub(super) fn not_joined(&mut self, id: &str, code: &str, out: &mut Output<'_>) -> bool {
        let Some(joining) = self.rooms.joining.take_if(|joining| joining.id == id) else {
            return false;
        };
        let is = |own: ErrorCode| code == own.as_str();
        let reason = match is(ErrorCode::RoomFull) || is(ErrorCode::RateLimited) {
            true => Reason::QuotaExceeded,
            false => Reason::NotAuthorized,
        };
        let Joining {
            subscribe,
            mut topics,
            place,
            ..
        } = *joining;
        if subscribe == NO_SUBSCRIBE {
            self.publish_held(out);
            self.read(&[], out);
            return true;
        }
        topics.remove(place);
        if let Some(codes) = self.subscribing.get_mut(&subscribe)
            && let Some(code) = codes.iter_mut().filter(|code| code.is_none()).nth(place)
        {
            *code = Some(Err(reason));
        }
        for wish in &mut topics {
            wish.is_refused |= wish.room.is_some();
        }
        match topics.is_empty() {
            true => self.asked_topics(subscribe, vec![], out),
            false => {
                let id = subscribe;
                out.request(exchange(ExchangeRequest::Subscribe { id, topics }));
            }
        }
        self.read(&[], out);
        true
    }

    /// Answers a SUBSCRIBE. Who does not get the topic of its room is not a member either.
    pub(super) fn asked_topics(
        &mut self,
        id: u16,
        granted: Vec<Result<u8, Reason>>,
        out: &mut Output<'_>,
    ) {
        let codes = self.subscribing.remove(&id).unwrap_or_default();
        if let Some((_, place)) = self.rooms.entering.take_if(|(entering, _)| *entering == id)
            && granted.get(place).is_none_or(Result::is_err)
            && self.rooms.entered.take().is_some()
        {
            out.request(Ok(request(MessageType::Leave, Request::Leave)));
        }
        self.subscribed(id, codes, granted, out);
    }

    pub(super) fn leave_room(&mut self, topics: &[&str], out: &mut Output<'_>) {
        let is_left = |entered: &mut (Arc<str>, PeerId)| topics.contains(&&*entered.0);
        if self.rooms.entered.take_if(is_left).is_some() {
            out.request(Ok(request(MessageType::Leave, Request::Leave)));
        }
    }

    /// What a member publishes to the topic of its room, and what it says in the room with it; `None`
    /// where it may not publish it.
    pub(super) fn for_room<'a>(
        &self,
        topic: &str,
        payload: &'a [u8],
    ) -> Option<(Option<ClientMessage>, Cow<'a, [u8]>)> {
        if !self.rooms.is_in(topic) {
            return None;
        }
        let payload = self.rooms.unstamped(payload)?;
        let said = std::str::from_utf8(&payload).ok().and_then(native);
        let said = said.and_then(|text| protocol::parse(&text).ok());
        Some((said, payload))
    }

    /// Publishes to the client what a member that does not speak MQTT says.
    pub(super) fn hear_room(&mut self, body: &Body, out: &mut Output<'_>) {
        let is_said = matches!(
            body.kind(),
            FrameType::Offer
                | FrameType::Answer
                | FrameType::Candidate
                | FrameType::Message
                | FrameType::Hangup
        );
        let Some((topic, _)) = self.rooms.entered.clone() else {
            return;
        };
        let is_of_topic = body.sender() == Some(DialectKind::Mqtt);
        if !is_said || is_of_topic || self.rooms.only_publishes {
            return;
        }
        let publication = Publication {
            topic,
            properties: [].into(),
            payload: body.as_str().as_bytes().into(),
            qos: 0,
            room: None,
        };
        self.send(&publication, 0, out);
    }
}

/// The message of the native protocol that a payload is. `from` and other stamps are the server's:
/// parsing drops them.
fn native(payload: &str) -> Option<String> {
    let object = Object::parse(payload).ok();
    let kind = object.as_ref().and_then(|object| object.first(&["type"]));
    let (Some(object), Some(kind)) = (&object, kind.filter(|kind| TYPES.contains(&&**kind))) else {
        let mut content = payload.to_owned();
        if serde_json::from_str::<serde::de::IgnoredAny>(payload).is_err() {
            content.clear();
            write_json_str(&mut content, payload);
        }
        return Some(Writer::new("message").raw("content", &content).finish());
    };
    let mut message = Writer::new(&kind);
    if let Some(to) = object.first(&["to", "target", "targetId"]) {
        message.string("to", &to);
    }
    for (name, value) in object.fields() {
        if !matches!(name, "type" | "to" | "target" | "targetId" | "id") {
            message.raw(name, value.get());
        }
    }
    Some(message.finish())
}

fn request(kind: MessageType, request: Request) -> ClientMessage {
    ClientMessage {
        id: None,
        kind,
        request,
        dialect: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_room() {
        let topics = RoomTopics::new("room/{room}/signaling").unwrap();
        assert_eq!(topics.room("room/123/signaling"), Some("123"));
        for topic in [
            "room//signaling",
            "room/a/b/signaling",
            "room/123",
            "x/room/1/signaling",
        ] {
            assert_eq!(topics.room(topic), None, "{topic}");
        }
        for pattern in [
            "",
            "room",
            "{room}{room}",
            "a/+/{room}",
            "$x/{room}",
            "{room}/#",
        ] {
            assert_eq!(RoomTopics::new(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn a_payload_is_a_message_of_the_room() {
        let said = |payload: &str| protocol::parse(&native(payload).unwrap());
        let offer = said(r#"{"type":"offer","sdp":"v=0","from":"user-456","target":"x"}"#).unwrap();
        let Request::Forward(forward) = offer.request else {
            panic!()
        };
        assert_eq!(forward.to.as_deref(), Some("x"));
        assert!(!forward.rest.contains("user-456"), "{}", forward.rest);
        for payload in [
            "text",
            "[1]",
            r#"{"type":"kick","peerId":"x"}"#,
            "{\"a\":1}",
        ] {
            let message = said(payload).unwrap();
            assert_eq!(message.kind, MessageType::Message, "{payload}");
        }
    }
}
