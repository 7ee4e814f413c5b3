//! What the server says: messages as serialisable types, and the text that goes on the wire.

use super::{CallId, DialectKind, ErrorCode, FrameType, LeaveReason, PeerId, ResumeToken};
use crate::auth::Role;
use crate::auth::credential::IceServers;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

/// The text of one JSON object and its type, serialised once and shared by all its receivers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedBody")]
pub struct Body {
    kind: FrameType,
    sender: Option<DialectKind>,
    text: Arc<str>,
}

/// A body as a snapshot holds it.
#[derive(Deserialize)]
struct UncheckedBody {
    kind: FrameType,
    sender: Option<DialectKind>,
    text: Arc<str>,
}

impl TryFrom<UncheckedBody> for Body {
    type Error = &'static str;

    fn try_from(body: UncheckedBody) -> Result<Self, Self::Error> {
        let UncheckedBody { kind, sender, text } = body;
        // The number of a frame is written behind the first brace.
        if !is_object(&text) {
            return Err("a body is a JSON object with a field");
        }
        Ok(Self { kind, sender, text })
    }
}

fn is_object(text: &str) -> bool {
    text.starts_with("{\"") && text.ends_with('}')
}

/// Bodies carry credentials, tokens and what people say to each other.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({}, {} bytes)", self.kind.as_str(), self.len())
    }
}

impl Body {
    /// Renders a message, with the `id` of the request it answers where there is one.
    pub fn new(message: &ServerMessage<'_>, id: Option<&str>) -> Self {
        let mut text = serde_json::to_string(message)
            .expect("server messages have string keys and no failing Serialize");
        if let Some(id) = id {
            text.pop();
            text.push_str(",\"id\":");
            write_json_str(&mut text, id);
            text.push('}');
        }
        Self {
            kind: message.kind(),
            sender: None,
            text: text.into(),
        }
    }

    /// Wraps the text of a JSON object of that type, which has at least one field.
    pub fn from_object(kind: FrameType, text: String) -> Self {
        debug_assert!(is_object(&text));
        Self {
            kind,
            sender: None,
            text: text.into(),
        }
    }

    /// Puts together what another process has taken apart; `None` where no frame can be made of it.
    pub fn from_parts(
        kind: FrameType,
        sender: Option<DialectKind>,
        text: Arc<str>,
    ) -> Option<Self> {
        Self::try_from(UncheckedBody { kind, sender, text }).ok()
    }

    /// The text without `seq`, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// Notes what the client speaks whose message this is.
    pub fn sent_by(mut self, dialect: Option<DialectKind>) -> Self {
        self.sender = dialect;
        self
    }

    /// What the client speaks whose message this is; `None` for the native protocol, and for the
    /// server's own messages.
    pub fn sender(&self) -> Option<DialectKind> {
        self.sender
    }

    /// The `type`.
    pub fn kind(&self) -> FrameType {
        self.kind
    }

    /// The text without `seq`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Bytes of the text without `seq`.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Always false: a body has at least its braces.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// Appends the text of the WebSocket frame that carries `body` as number `seq` of its session.
pub fn write_frame(out: &mut Vec<u8>, seq: Option<u64>, body: &Body) {
    let text = body.as_str().as_bytes();
    match seq {
        None => out.extend_from_slice(text),
        Some(seq) => {
            write!(out, "{{\"seq\":{seq},").expect("writing to a Vec succeeds");
            out.extend_from_slice(&text[1..]);
        }
    }
}

/// How many bytes [`write_frame`] appends.
pub fn frame_len(seq: Option<u64>, body: &Body) -> usize {
    // `"seq":`, the number and a comma.
    let stamp = |seq: u64| 7 + seq.checked_ilog10().unwrap_or(0) as usize + 1;
    body.len() + seq.map_or(0, stamp)
}

/// What [`write_frame`] appends, for tests.
#[cfg(test)]
pub(crate) fn frame(seq: Option<u64>, body: &Body) -> String {
    let mut out = vec![];
    write_frame(&mut out, seq, body);
    String::from_utf8(out).unwrap()
}

/// Appends `value` to JSON text as a quoted and escaped string.
pub fn write_json_str(out: &mut String, value: &str) {
    if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(value).expect("a string is always serialisable"));
    }
}

/// Every message that the server makes itself; relayed ones are composed from the client's text.
#[derive(Debug, Serialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
#[allow(
    missing_docs,
    reason = "each variant and field is documented in docs/protocol.md"
)]
pub enum ServerMessage<'a> {
    Welcome {
        peer_id: PeerId,
        protocol: u8,
        heartbeat: u64,
        server_time: u64,
    },
    Joined(Entry<'a>),
    Registered(Entry<'a>),
    Resumed(Entry<'a>),
    Left,
    Ack {
        #[serde(flatten)]
        ice: Option<Ice>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        t: Option<&'a RawValue>,
    },
    Calling {
        call_id: CallId,
    },
    PeerJoined {
        peer: PeerView<'a>,
        peer_id: PeerId,
        identity: Cow<'a, str>,
    },
    PeerLeft {
        peer_id: PeerId,
        identity: Cow<'a, str>,
        reason: LeaveReason,
    },
    PeerState {
        peer_id: PeerId,
        identity: Cow<'a, str>,
        role: Role,
        state: StateView<'a>,
        connection: Presence,
    },
    Peers {
        peers: Vec<PeerView<'a>>,
        #[serde(skip_serializing_if = "is_false")]
        more: bool,
    },
    Rooms {
        rooms: Vec<RoomView<'a>>,
        truncated: bool,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        partial: &'a [String],
    },
    RoomUpdated {
        room: RoomView<'a>,
    },
    Invited {
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
        url: &'a str,
        expires_at: u64,
    },
    Notify {
        content: &'a RawValue,
    },
    IceServers(Ice),
    Kicked {
        reason: &'a str,
    },
    Draining {
        reconnect_in: u64,
    },
    Hangup {
        call_id: CallId,
        reason: &'a str,
        ts: u64,
    },
    Error {
        code: ErrorCode,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

impl ServerMessage<'_> {
    /// The `type`.
    pub fn kind(&self) -> FrameType {
        use FrameType as T;
        match self {
            Self::Welcome { .. } => T::Welcome,
            Self::Joined(_) => T::Joined,
            Self::Registered(_) => T::Registered,
            Self::Resumed(_) => T::Resumed,
            Self::Left => T::Left,
            Self::Ack { .. } => T::Ack,
            Self::Pong { .. } => T::Pong,
            Self::Calling { .. } => T::Calling,
            Self::PeerJoined { .. } => T::PeerJoined,
            Self::PeerLeft { .. } => T::PeerLeft,
            Self::PeerState { .. } => T::PeerState,
            Self::Peers { .. } => T::Peers,
            Self::Rooms { .. } => T::Rooms,
            Self::Invited { .. } => FrameType::Invited,
            Self::RoomUpdated { .. } => T::RoomUpdated,
            Self::Notify { .. } => T::Notify,
            Self::IceServers(_) => T::IceServers,
            Self::Kicked { .. } => T::Kicked,
            Self::Draining { .. } => T::Draining,
            Self::Hangup { .. } => T::Hangup,
            Self::Error { .. } => T::Error,
        }
    }
}

/// What `joined`, `registered` and `resumed` tell a client about its session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// The room; absent for a registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_id: Option<&'a str>,
    /// The session.
    pub peer_id: PeerId,
    /// The name others see.
    pub identity: Cow<'a, str>,
    /// The role in the room; absent for a registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The other members; absent for a registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<PeerView<'a>>>,
    /// Whether `peers` frames with the other members follow.
    #[serde(skip_serializing_if = "is_false")]
    pub more: bool,
    /// The room's settings; absent for a registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomView<'a>>,
    /// Servers and credentials.
    #[serde(flatten)]
    pub ice: Ice,
    /// What `resume` takes.
    pub resume_token: ResumeToken,
    /// Seconds that a lost connection may stay away.
    pub resume_window: u64,
    /// Present in `resumed` only.
    #[serde(flatten)]
    pub resumption: Option<Resumption>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What a resume found in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumption {
    /// Frames that follow.
    pub replayed: usize,
    /// Whether frames before those were lost.
    pub gap: bool,
}

/// `iceServers` with the policy to use them by.
#[derive(Debug, Clone, Serialize)]
pub struct Ice {
    /// Servers, TTL and expiry.
    #[serde(flatten)]
    pub servers: IceServers,
    /// The value for `RTCConfiguration.iceTransportPolicy`.
    #[serde(rename = "iceTransportPolicy")]
    pub policy: TransportPolicy,
}

/// `RTCConfiguration.iceTransportPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportPolicy {
    /// Any candidate.
    All,
    /// Relayed candidates only.
    Relay,
}

/// Whether a session has a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It has.
    Online,
    /// It lost it, and may yet resume.
    Away,
}

/// A peer's state: an object, empty until something was set.
#[derive(Debug, Clone, Copy)]
pub struct StateView<'a>(pub Option<&'a RawValue>);

impl Serialize for StateView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(state) => state.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

/// A member as others see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView<'a> {
    /// The session.
    pub peer_id: PeerId,
    /// Its name.
    pub identity: Cow<'a, str>,
    /// What it may do.
    pub role: Role,
    /// What it says of itself.
    pub state: StateView<'a>,
    /// What it joined with; `null` if nothing.
    pub metadata: Option<&'a RawValue>,
    /// Unix milliseconds.
    pub joined_at: u64,
    /// Whether it is there.
    pub connection: Presence,
    /// The foreign protocol that it speaks; absent for the native one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<DialectKind>,
}

impl PeerView<'_> {
    /// Bytes of its JSON at most.
    pub fn size(&self) -> usize {
        // 256 bytes hold the fields of fixed size with their names; a name has no controls, so that an
        // escape takes two bytes.
        let raw = |raw: Option<&RawValue>| raw.map_or(4, |raw| raw.get().len());
        256 + 2 * self.identity.len() + raw(self.state.0) + raw(self.metadata)
    }
}

/// A room as its members see it.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomView<'a> {
    /// Its name.
    pub room_id: &'a str,
    /// Whether newcomers are refused.
    pub locked: bool,
    /// How many it holds at most.
    pub max_peers: u32,
    /// Whether newcomers need a password.
    pub has_password: bool,
    /// What its host says of it; `null` if nothing.
    pub metadata: Option<&'a RawValue>,
    /// Whether media and signaling are kept from showing addresses.
    pub relay_only: bool,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Members, where the reader is not one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_carries_its_number_first_and_the_id_of_its_request() {
        let body = Body::new(&ServerMessage::Ack { ice: None }, Some("a\"b"));
        assert_eq!(body.as_str(), r#"{"type":"ack","id":"a\"b"}"#);
        assert_eq!(
            frame(Some(7), &body),
            r#"{"seq":7,"type":"ack","id":"a\"b"}"#
        );
        assert_eq!(frame(None, &body), body.as_str());
        for seq in [0, 1, 9, 10, 99_999, 100_000, u64::MAX] {
            assert_eq!(frame(Some(seq), &body).len(), frame_len(Some(seq), &body));
        }
    }

    #[test]
    fn strings_are_escaped_as_serde_would() {
        for text in [
            "",
            "plain",
            "q\"uote",
            "back\\slash",
            "new\nline",
            "\u{1}",
            "été 中文 🎉",
        ] {
            let mut out = String::new();
            write_json_str(&mut out, text);
            assert_eq!(out, serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn an_empty_state_is_an_object() {
        assert_eq!(serde_json::to_string(&StateView(None)).unwrap(), "{}");
    }
}
