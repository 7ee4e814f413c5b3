//! What clients say: one text frame becomes a [`ClientMessage`] or a [`FrameError`].
//!
//! Everything that is relayed stays the client's own JSON text, so that numbers, key order and
//! escapes arrive as they were sent.

use super::{
    ErrorCode, MAX_ID, MAX_METADATA, MAX_NAME, MAX_PASSWORD, MAX_REASON, MessageType,
    write_json_str,
};
use crate::auth::Role;
use secrecy::SecretString;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// One well-formed message.
#[derive(Debug)]
pub struct ClientMessage {
    /// What the reply must carry, where the client wants one.
    pub id: Option<String>,
    /// The `type`.
    pub kind: MessageType,
    /// The fields of that type.
    pub request: Request,
}

impl ClientMessage {
    /// The token inside a `join` or `register`; it goes before the connection's own.
    pub fn token(&self) -> Option<&SecretString> {
        match &self.request {
            Request::Register { token, .. } => token.as_ref(),
            Request::Join(join) => join.token.as_ref(),
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
    Relay(Relay),
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
    /// `ping`.
    Ping {
        /// Given back as it is.
        t: Option<Box<RawValue>>,
    },
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
            .and_then(|fields| fields.room_patch())
            .map_err(|f| f.with_id(None))
    }
}

/// A message that goes to other peers as it is.
#[derive(Debug)]
pub struct Relay {
    /// A peer id; absent: every other member of the room.
    pub to: Option<String>,
    /// What a relay-only room looks into.
    pub payload: Payload,
    /// All other fields, as `,"key":value` text.
    pub rest: String,
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
    /// Whether `rest` has a `reason`.
    pub has_reason: bool,
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

/// Why a frame is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// `invalid-json`, `invalid-message`, `unknown-type` or `too-large`.
    pub code: ErrorCode,
    /// One sentence for a developer's eyes; never the client's own text.
    pub message: Cow<'static, str>,
    /// The `id`, where it could be read in spite of the fault.
    pub id: Option<String>,
}

impl FrameError {
    /// A binary frame.
    pub fn binary() -> Self {
        Fault::invalid("binary frames mean nothing here").with_id(None)
    }

    /// A frame longer than `max_frame` bytes.
    pub fn too_large(max_frame: usize) -> Self {
        Fault(
            ErrorCode::TooLarge,
            format!("a frame has at most {max_frame} bytes").into(),
        )
        .with_id(None)
    }
}

/// Reads one text frame.
///
/// # Errors
/// `too-large` over `max_frame` bytes or for a field over its own limit, `invalid-json`,
/// `invalid-message`, `unknown-type`.
pub fn parse(text: &str, max_frame: usize) -> Result<ClientMessage, FrameError> {
    if text.len() > max_frame {
        return Err(FrameError::too_large(max_frame));
    }
    let fields = Fields::parse(text).map_err(|fault| fault.with_id(None))?;
    let id = fields
        .string("id", MAX_ID)
        .map_err(|fault| fault.with_id(None))?;
    match fields.message() {
        Ok((kind, request)) => Ok(ClientMessage { id, kind, request }),
        Err(fault) => Err(fault.with_id(id)),
    }
}

/// Fields that a relayed message does not keep: the server's own stamps, and what is between the
/// sender and the server only. (`to` stays: it tells a receiver that it was meant alone.)
const NOT_RELAYED: [&str; 9] = [
    "type",
    "id",
    "token",
    "seq",
    "from",
    "fromIdentity",
    "roomId",
    "callId",
    "ts",
];

struct Fault(ErrorCode, Cow<'static, str>);

impl Fault {
    fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self(ErrorCode::InvalidMessage, message.into())
    }

    fn missing(name: &str) -> Self {
        Self::invalid(format!("`{name}` is missing"))
    }

    fn wrong(name: &str) -> Self {
        Self::invalid(format!("`{name}` is not of its type"))
    }

    fn too_large(name: &str, max: usize) -> Self {
        Self(
            ErrorCode::TooLarge,
            format!("`{name}` has at most {max} bytes").into(),
        )
    }

    fn with_id(self, id: Option<String>) -> FrameError {
        FrameError {
            code: self.0,
            message: self.1,
            id,
        }
    }
}

/// The top level of a frame, in order; of fields with the same name the last one counts, as in
/// every browser.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, Fault> {
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() && serde_json::from_str::<IgnoredAny>(text).is_ok() {
                Fault::invalid("a message is a JSON object")
            } else {
                Fault(ErrorCode::InvalidJson, "the frame is not JSON".into())
            }
        })
    }

    fn message(&self) -> Result<(MessageType, Request), Fault> {
        let name: Cow<'_, str> = match self.get("type") {
            Some(raw) => string(raw).ok_or_else(|| Fault::wrong("type"))?,
            None => return Err(Fault::missing("type")),
        };
        let kind = MessageType::from_name(&name)
            .ok_or_else(|| Fault(ErrorCode::UnknownType, "unknown `type`".into()))?;
        Ok((kind, self.request(kind)?))
    }

    fn request(&self, kind: MessageType) -> Result<Request, Fault> {
        use MessageType as T;
        Ok(match kind {
            T::Register => Request::Register {
                identity: self.name("identity")?,
                token: self.token()?,
            },
            T::Join => Request::Join(Box::new(Join {
                room_id: required(self.name("roomId")?, "roomId")?,
                identity: self.name("identity")?,
                token: self.token()?,
                password: self
                    .string("password", MAX_PASSWORD)?
                    .map(SecretString::from),
                metadata: self.json("metadata")?,
                create: match self.present("create") {
                    Some(raw) => Fields::parse(raw.get())
                        .map_err(|_| Fault::wrong("create"))?
                        .room_patch()?,
                    None => RoomPatch::default(),
                },
            })),
            T::Resume => {
                let token = self.string("resumeToken", MAX_NAME)?;
                Request::Resume {
                    token: required(token, "resumeToken")?.into(),
                    seq: required(self.value("seq")?, "seq")?,
                }
            }
            T::Leave => Request::Leave,
            T::Offer | T::Answer => {
                let sdp = required(self.present("sdp"), "sdp")?;
                if !is_sdp(sdp) {
                    return Err(Fault::wrong("sdp"));
                }
                self.relay(Payload::Sdp(sdp.to_owned()), "sdp")?
            }
            T::Candidate => {
                let candidate = required(self.get("candidate"), "candidate")?;
                if !candidate.get().starts_with(['"', '{', 'n']) {
                    return Err(Fault::wrong("candidate"));
                }
                self.relay(Payload::Candidate(candidate.to_owned()), "candidate")?
            }
            T::Message => {
                required(self.get("content"), "content")?;
                self.relay(Payload::Opaque, "")?
            }
            T::Publish | T::Subscribe => {
                required(self.get("tracks"), "tracks")?;
                self.relay(Payload::Opaque, "")?
            }
            T::Call => {
                self.json("metadata")?;
                let to = required(self.name("to")?, "to")?;
                Request::Call {
                    to,
                    rest: self.rest("to"),
                }
            }
            T::Accept => Request::Accept(required(self.call_signal()?, "callId")?),
            T::Reject => Request::Reject(required(self.call_signal()?, "callId")?),
            T::Hangup => match self.call_signal()? {
                Some(signal) => Request::Hangup(signal),
                None => self.relay(Payload::Opaque, "")?,
            },
            T::State => {
                let state = required(self.json("state")?, "state")?;
                Request::State(
                    serde_json::from_str(state.get()).map_err(|_| Fault::wrong("state"))?,
                )
            }
            T::Mute | T::Unmute => Request::Mute {
                media: required(self.value("kind")?, "kind")?,
                muted: kind == T::Mute,
                to: self.name("to")?,
            },
            T::List => Request::List,
            T::Rooms => Request::Rooms,
            T::IceServers => Request::IceServers,
            T::Kick => Request::Kick {
                peer_id: required(self.name("peerId")?, "peerId")?,
                reason: self.string("reason", MAX_REASON)?,
            },
            T::Room => Request::Room(Box::new(self.room_patch()?)),
            T::Grant => Request::Grant {
                peer_id: required(self.name("peerId")?, "peerId")?,
                role: required(self.value("role")?, "role")?,
            },
            T::Ping => Request::Ping {
                t: self.get("t").map(RawValue::to_owned),
            },
        })
    }

    fn relay(&self, payload: Payload, payload_field: &str) -> Result<Request, Fault> {
        Ok(Request::Relay(Relay {
            to: self.name("to")?,
            payload,
            rest: self.rest(payload_field),
        }))
    }

    fn call_signal(&self) -> Result<Option<CallSignal>, Fault> {
        let Some(call_id) = self.string("callId", MAX_NAME)? else {
            return Ok(None);
        };
        let has_reason = self.string("reason", MAX_REASON)?.is_some();
        self.json("metadata")?;
        Ok(Some(CallSignal {
            call_id,
            has_reason,
            rest: self.rest(""),
        }))
    }

    fn room_patch(&self) -> Result<RoomPatch, Fault> {
        let password = match self.get("password") {
            Some(_) => Some(
                self.string("password", MAX_PASSWORD)?
                    .map(SecretString::from),
            ),
            None => None,
        };
        let metadata = match self.get("metadata") {
            Some(_) => Some(self.json("metadata")?),
            None => None,
        };
        let max_peers = self.value("maxPeers")?;
        if max_peers == Some(0) {
            return Err(Fault::invalid("`maxPeers` is at least 1"));
        }
        Ok(RoomPatch {
            locked: self.value("locked")?,
            max_peers,
            password,
            metadata,
            relay_only: self.value("relayOnly")?,
        })
    }

    fn token(&self) -> Result<Option<SecretString>, Fault> {
        // No limit of its own: the frame's bounds it, and tokens of identity providers are long.
        Ok(self.string("token", usize::MAX)?.map(SecretString::from))
    }

    /// A `roomId`, `identity`, `to` or `peerId`.
    fn name(&self, field: &str) -> Result<Option<String>, Fault> {
        match self.string(field, MAX_NAME)? {
            Some(name) if name.is_empty() || name.chars().any(char::is_control) => {
                Err(Fault::invalid(format!(
                    "`{field}` has 1 to {MAX_NAME} bytes, none of them controls"
                )))
            }
            name => Ok(name),
        }
    }

    fn string(&self, field: &str, max: usize) -> Result<Option<String>, Fault> {
        let Some(raw) = self.present(field) else {
            return Ok(None);
        };
        let text = string(raw).ok_or_else(|| Fault::wrong(field))?;
        if text.len() > max {
            return Err(Fault::too_large(field, max));
        }
        Ok(Some(text.into_owned()))
    }

    /// `metadata` or `state`.
    fn json(&self, field: &str) -> Result<Option<Box<RawValue>>, Fault> {
        match self.present(field) {
            Some(raw) if raw.get().len() > MAX_METADATA => {
                Err(Fault::too_large(field, MAX_METADATA))
            }
            raw => Ok(raw.map(RawValue::to_owned)),
        }
    }

    fn value<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, Fault> {
        self.present(field)
            .map(|raw| serde_json::from_str(raw.get()).map_err(|_| Fault::wrong(field)))
            .transpose()
    }

    /// The field's text, `null` included.
    fn get(&self, field: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == field)
            .map(|(_, raw)| *raw)
    }

    /// The field's text; `null` counts as absent.
    fn present(&self, field: &str) -> Option<&'a RawValue> {
        self.get(field).filter(|raw| raw.get() != "null")
    }

    /// The text of every field but `NOT_RELAYED` and `payload`.
    fn rest(&self, payload: &str) -> String {
        let kept = || {
            self.0
                .iter()
                .filter(|(name, _)| name != payload && !NOT_RELAYED.contains(&name.as_ref()))
        };
        // Quotes, colon and comma; escapes in names are rare enough to let the string grow.
        let mut out = String::with_capacity(
            kept()
                .map(|(name, raw)| name.len() + raw.get().len() + 4)
                .sum(),
        );
        for (name, raw) in kept() {
            out.push(',');
            write_json_str(&mut out, name);
            out.push(':');
            out.push_str(raw.get());
        }
        out
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;
        impl<'de> Visitor<'de> for TopLevel {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Text(name), raw)) = map.next_entry()? {
                    fields.push((name, raw));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(TopLevel).map(Self)
    }
}

/// A string that borrows from its source where it has no escapes (serde's own `Cow` never does).
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|Text(text)| text)
}

fn required<T>(value: Option<T>, field: &str) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::missing(field))
}

fn is_sdp(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Description<'a> {
        #[serde(borrow)]
        sdp: &'a RawValue,
    }
    let text = raw.get();
    text.starts_with('"')
        || text.starts_with('{')
            && serde_json::from_str::<Description<'_>>(text)
                .is_ok_and(|description| description.sdp.get().starts_with('"'))
}

#[cfg(test)]
mod tests;
