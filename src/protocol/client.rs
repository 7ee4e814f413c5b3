//! What clients say: one text frame becomes a [`ClientMessage`] or a [`FrameError`].
//!
//! Everything that is relayed stays the client's own JSON text, so that numbers, key order and
//! escapes arrive as they were sent.

mod fields;
mod names;
mod text;

use super::exchange::ExchangeRequest;
use super::{DialectKind, ErrorCode, MAX_DEPTH, MAX_ID, MessageType};
use crate::auth::Role;
use fields::{Fault, Fields};
pub use names::folds_to;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// One well-formed message.
#[derive(Debug)]
pub struct ClientMessage {
    /// What the reply must carry, where the client wants one.
    pub id: Option<String>,
    /// The `type`.
    pub kind: MessageType,
    /// The fields of that type.
    pub request: Request,
    /// Which client of a foreign protocol this turned out to be. No frame says so: translators do.
    pub dialect: Option<DialectKind>,
}

impl ClientMessage {
    /// The token inside a `join` or `register`; it goes before the connection's own.
    pub fn token(&self) -> Option<&SecretString> {
        match &self.request {
            Request::Register { token, .. } => token.as_ref(),
            Request::Join(join) => join.token.as_ref(),
            Request::Exchange(ExchangeRequest::Open { token, .. }) => token.as_ref(),
            _ => None,
        }
    }

    /// Whether the hub looks at the grant of this message's frame.
    pub fn wants_grant(&self) -> bool {
        matches!(
            self.kind,
            MessageType::Register | MessageType::Join | MessageType::Rooms
        )
    }
}

/// The fields of a message, by what is done with them.
#[derive(Debug)]
pub enum Request {
    /// `register`.
    Register {
        /// The wished name; a token's own goes before it.
        identity: Option<String>,
        /// A JWT.
        token: Option<SecretString>,
    },
    /// `join`.
    Join(Box<Join>),
    /// Enters the room of those who name none, with all that wait there in silence. The native
    /// protocol has no such message.
    Lobby,
    /// `resume`.
    Resume {
        /// From `joined` or `registered`.
        token: SecretString,
        /// The last number seen.
        seq: u64,
    },
    /// `leave`.
    Leave,
    /// `offer`, `answer`, `candidate`, `message`, `publish`, `subscribe`, and `hangup` without
    /// a call.
    Forward(Forward),
    /// `call`.
    Call {
        /// An identity or a peer id.
        to: String,
        /// Fields to pass on, as `,"key":value` text.
        rest: String,
    },
    /// `accept`.
    Accept(CallSignal),
    /// `reject`.
    Reject(CallSignal),
    /// `hangup` of a call.
    Hangup(CallSignal),
    /// `state`: a merge patch (RFC 7396).
    State(Map<String, Value>),
    /// `mute` and `unmute`.
    Mute {
        /// Which kind of media.
        media: Media,
        /// `mute` or `unmute`.
        muted: bool,
        /// Whom to ask; absent: oneself.
        to: Option<String>,
        /// Fields to pass on, as `,"key":value` text.
        rest: String,
    },
    /// `list`.
    List,
    /// `rooms`.
    Rooms,
    /// `ice`.
    IceServers,
    /// `kick`.
    Kick {
        /// Whom.
        peer_id: String,
        /// What the removed peer is told.
        reason: Option<String>,
    },
    /// `room`.
    Room(Box<RoomPatch>),
    /// `grant`.
    Grant {
        /// Whom.
        peer_id: String,
        /// The new role.
        role: Role,
    },
    /// What dialects with topics and names ask; no native frame does.
    Exchange(ExchangeRequest),
    /// `invite`.
    Invite(InviteRequest),
    /// `report`.
    Report(Report),
    /// `ping`.
    Ping {
        /// Given back as it is.
        t: Option<Box<RawValue>>,
    },
}

/// Longest life of an invitation, seconds: a day.
pub const MAX_INVITE: u64 = 24 * 3600;

/// The fields of `invite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InviteRequest {
    /// Seconds, at most [`MAX_INVITE`].
    pub ttl: u64,
    /// The role of its bearer.
    pub role: Role,
    /// How often it may be used; `None`: as often as one likes.
    pub uses: Option<u32>,
}

/// The fields of `report`: how a connection between two peers went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How the media goes, if it does.
    pub path: Path,
    /// Between client and relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Milliseconds from the beginning to the first media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u32>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Packets of a million that did not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_ppm: Option<u32>,
}

named! {
    /// How media goes between two peers.
    pub enum Path {
        /// From peer to peer.
        Direct = "direct",
        /// Through a relay.
        Relay = "relay",
        /// Not at all.
        Failed = "failed",
    }
}

named! {
    /// Between a client and its relay.
    pub enum Transport {
        /// UDP.
        Udp = "udp",
        /// TCP.
        Tcp = "tcp",
        /// TLS over TCP.
        Tls = "tls",
    }
}

/// The fields of `join`.
#[derive(Debug)]
pub struct Join {
    /// Which room.
    pub room_id: String,
    /// The wished name; a token's own goes before it.
    pub identity: Option<String>,
    /// A JWT.
    pub token: Option<SecretString>,
    /// Of the room.
    pub password: Option<SecretString>,
    /// Shown to others.
    pub metadata: Option<Box<RawValue>>,
    /// Settings for the room, if this join makes it.
    pub create: RoomPatch,
}

/// Changes to a room: what is absent stays.
#[derive(Debug, Default)]
pub struct RoomPatch {
    /// Whether newcomers are refused.
    pub locked: Option<bool>,
    /// At least 1; the server's own limit goes before it.
    pub max_peers: Option<u32>,
    /// `Some(None)` removes it.
    pub password: Option<Option<SecretString>>,
    /// `Some(None)` removes it.
    pub metadata: Option<Option<Box<RawValue>>>,
    /// Whether addresses are kept from showing.
    pub relay_only: Option<bool>,
}

impl RoomPatch {
    /// Reads the body of an admin request.
    ///
    /// # Errors
    /// As [`parse`], without an id.
    pub fn from_json(text: &str) -> Result<Self, FrameError> {
        Fields::parse(text)
            .and_then(|fields| match is_deeper_than(text, MAX_DEPTH) {
                true => Err(Fault::too_deep()),
                false => fields.room_patch(),
            })
            .map_err(|f| f.with_id(None))
    }
}

/// A message that goes to other peers as it is.
#[derive(Debug)]
pub struct Forward {
    /// A peer id; absent: every other member of the room.
    pub to: Option<String>,
    /// What a relay-only room looks into.
    pub payload: Payload,
    /// All other fields, as `,"key":value` text.
    pub rest: String,
}

impl Forward {
    /// Bytes of what others get of it, the server's stamps not counted.
    pub fn size(&self) -> usize {
        let payload = match &self.payload {
            Payload::Opaque => 0,
            Payload::Sdp(raw) | Payload::Candidate(raw) => raw.get().len(),
        };
        payload + self.rest.len()
    }
}

/// The field of a relayed message that may show an address.
#[derive(Debug)]
pub enum Payload {
    /// None: all is in `rest`.
    Opaque,
    /// `sdp`: a string, or an object with a string `sdp`.
    Sdp(Box<RawValue>),
    /// `candidate`: a string, an object or `null`.
    Candidate(Box<RawValue>),
}

/// The fields of `accept`, `reject` and `hangup`.
#[derive(Debug)]
pub struct CallSignal {
    /// Which call.
    pub call_id: String,
    /// The `reason`, as JSON text.
    pub reason: Option<String>,
    /// All other fields, as `,"key":value` text.
    pub rest: String,
}

/// What can be muted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// The microphone.
    Audio,
    /// The camera.
    Video,
    /// The shared screen.
    Screen,
}

impl Media {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Screen => "screen",
        }
    }
}

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// `invalid-json`, `invalid-message`, `unknown-type` or `too-large`.
    pub code: ErrorCode,
    /// One sentence for a developer's eyes; never the client's own text.
    pub message: Cow<'static, str>,
    /// The `id`, where it could be read in spite of the fault.
    pub id: Option<String>,
    /// Whether it is not even a JSON object: ten such frames in a row end a connection.
    pub malformed: bool,
}

impl FrameError {
    /// A binary frame.
    pub fn binary() -> Self {
        Fault::invalid("binary frames mean nothing here").malformed()
    }
}

/// Reads one text frame, whose length the caller has checked.
///
/// # Errors
/// `invalid-json`, `invalid-message`, `unknown-type`, or `too-large` for a field over its limit.
pub fn parse(text: &str) -> Result<ClientMessage, FrameError> {
    let fields = Fields::parse(text).map_err(Fault::malformed)?;
    let id = fields
        .string("id", MAX_ID)
        .map_err(|fault| fault.with_id(None))?;
    let message = match is_deeper_than(text, MAX_DEPTH) {
        true => Err(Fault::too_deep()),
        false => fields.message(),
    };
    match message {
        Ok((kind, request)) => Ok(ClientMessage {
            id,
            kind,
            request,
            dialect: None,
        }),
        Err(fault) => Err(fault.with_id(id)),
    }
}

/// Whether valid JSON nests deeper than `limit`: decoders elsewhere give up, or worse.
pub fn is_deeper_than(json: &str, limit: usize) -> bool {
    // Text with few brackets needs no look at where they stand; nearly every message is such.
    if opening_brackets(json) <= limit {
        return false;
    }
    let (mut depth, mut quoted) = (0_usize, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if quoted => {
                bytes.next();
            }
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    false
}

/// Counts `{` and `[`, which differ in one bit. Sums of a byte are what a compiler makes wide instructions of.
fn opening_brackets(json: &str) -> usize {
    let opens = |byte: &u8| u8::from(byte | 0x20 == b'{');
    let chunks = json.as_bytes().chunks(usize::from(u8::MAX));
    chunks
        .map(|chunk| usize::from(chunk.iter().map(opens).sum::<u8>()))
        .sum()
}

#[cfg(test)]
mod tests;
