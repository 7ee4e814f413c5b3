//! The fields of one frame: found, checked against their limits, and made a [`Request`].

use super::names::{folds_to, is_server_owned};
use super::{
    CallSignal, Forward, FrameError, InviteRequest, Join, MAX_INVITE, Path, Payload, Report,
    Request, RoomPatch, Transport, is_deeper_than,
};
use crate::auth::{Role, is_name};
use crate::protocol::{
    ErrorCode, MAX_DEPTH, MAX_METADATA, MAX_METADATA_DEPTH, MAX_NAME, MAX_PASSWORD, MAX_REASON,
    MessageType, write_json_str,
};
use secrecy::SecretString;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Life of an invitation that says nothing else, seconds.
const DEFAULT_INVITE: u64 = 3600;
/// Longest time that a report may tell of: ten minutes.
const MAX_MILLIS: f64 = 600_000.0;

pub(super) struct Fault(pub(super) ErrorCode, pub(super) Cow<'static, str>);

impl Fault {
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self(ErrorCode::InvalidMessage, message.into())
    }

    pub(super) fn too_deep() -> Self {
        Self::invalid(format!("JSON nests at most {MAX_DEPTH} levels deep"))
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

    pub(super) fn with_id(self, id: Option<String>) -> FrameError {
        FrameError {
            code: self.0,
            message: self.1,
            id,
            malformed: false,
        }
    }

    pub(super) fn malformed(self) -> FrameError {
        FrameError {
            malformed: true,
            ..self.with_id(None)
        }
    }
}

/// The top level of a frame, in order; of fields with the same name the last one counts, as in
/// every browser.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Fault> {
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() && serde_json::from_str::<IgnoredAny>(text).is_ok() {
                Fault::invalid("a message is a JSON object")
            } else {
                Fault(ErrorCode::InvalidJson, "the frame is not JSON".into())
            }
        })
    }

    pub(super) fn message(&self) -> Result<(MessageType, Request), Fault> {
        let name: Cow<'_, str> = match self.get("type") {
            Some(raw) => string(raw).ok_or_else(|| Fault::wrong("type"))?,
            None => return Err(Fault::missing("type")),
        };
        let kind = MessageType::from_name(&name)
            .ok_or_else(|| Fault(ErrorCode::UnknownType, "unknown `type`".into()))?;
        // Sent on to everybody, the message would reach peers that it was not meant for.
        if let Some((name, _)) = self.0.iter().find(|(name, _)| is_mistaken_for_to(name)) {
            let name = if folds_to(name, "target") {
                "target"
            } else {
                "targetId"
            };
            return Err(Fault::invalid(format!(
                "`{name}` is not a field of this protocol: did you mean `to`?"
            )));
        }
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
                rest: self.rest("to"),
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
            T::Invite => {
                let ttl = self.value("ttl")?.unwrap_or(DEFAULT_INVITE);
                if !(1..=MAX_INVITE).contains(&ttl) {
                    return Err(Fault::invalid(format!(
                        "`ttl` is 1 to {MAX_INVITE} seconds"
                    )));
                }
                let uses = self.value("uses")?;
                if uses == Some(0) {
                    return Err(Fault::invalid("`uses` is at least 1"));
                }
                let role = self.value("role")?.unwrap_or(Role::Member);
                Request::Invite(InviteRequest { ttl, role, uses })
            }
            T::Report => {
                if self.name("to")?.is_none() && self.string("callId", MAX_NAME)?.is_none() {
                    return Err(Fault::invalid("`to` or `callId` is missing"));
                }
                let word = |name| self.string(name, MAX_NAME);
                let path = required(word("path")?, "path")?;
                let transport = word("transport")?;
                let transport = transport.as_deref().map(Transport::from_name);
                Request::Report(Report {
                    path: Path::from_name(&path).ok_or_else(|| Fault::wrong("path"))?,
                    transport: match transport {
                        Some(None) => return Err(Fault::wrong("transport")),
                        transport => transport.flatten(),
                    },
                    connect_ms: self.measured("connectMs", MAX_MILLIS, 1.0)?,
                    rtt_ms: self.measured("rttMs", MAX_MILLIS, 1.0)?,
                    lost_ppm: self.measured("loss", 1.0, 1e6)?,
                })
            }
            T::Ping => Request::Ping {
                t: self.get("t").map(RawValue::to_owned),
            },
        })
    }

    /// A number from 0 to `max`, in steps of which one has `steps`.
    fn measured(&self, field: &str, max: f64, steps: f64) -> Result<Option<u32>, Fault> {
        match self.value::<f64>(field)? {
            Some(number) if !(0.0..=max).contains(&number) => {
                Err(Fault::invalid(format!("`{field}` is 0 to {max}")))
            }
            number => Ok(number.map(|number| (number * steps).round() as u32)),
        }
    }

    fn relay(&self, payload: Payload, payload_field: &str) -> Result<Request, Fault> {
        Ok(Request::Forward(Forward {
            to: self.name("to")?,
            payload,
            rest: self.rest(payload_field),
        }))
    }

    fn call_signal(&self) -> Result<Option<CallSignal>, Fault> {
        let Some(call_id) = self.string("callId", MAX_NAME)? else {
            return Ok(None);
        };
        self.string("reason", MAX_REASON)?;
        self.json("metadata")?;
        Ok(Some(CallSignal {
            call_id,
            reason: self.present("reason").map(|raw| raw.get().to_owned()),
            rest: self.rest("reason"),
        }))
    }

    pub(super) fn room_patch(&self) -> Result<RoomPatch, Fault> {
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
            Some(name) if !is_name(&name) => Err(Fault::invalid(format!(
                "`{field}` has 1 to {MAX_NAME} bytes, none of them controls"
            ))),
            name => Ok(name),
        }
    }

    pub(super) fn string(&self, field: &str, max: usize) -> Result<Option<String>, Fault> {
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
            Some(raw) if is_deeper_than(raw.get(), MAX_METADATA_DEPTH) => {
                let text = format!("`{field}` nests at most {MAX_METADATA_DEPTH} levels deep");
                Err(Fault::invalid(text))
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
    pub(super) fn get(&self, field: &str) -> Option<&'a RawValue> {
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

    /// The text of every field but those that the server owns and `payload`, in any case.
    fn rest(&self, payload: &str) -> String {
        let kept = || {
            self.0
                .iter()
                .filter(|(name, _)| !folds_to(name, payload) && !is_server_owned(name))
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

fn is_mistaken_for_to(name: &str) -> bool {
    folds_to(name, "target") || folds_to(name, "targetId")
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
