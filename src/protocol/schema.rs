//! The protocol as JSON Schema and as AsyncAPI: what a client may say and what the server says.
//!
//! Each type of message has its fields here, in a `match` over the types that the parser and the server know:
//! a type without fields does not compile, and the tests hold the documented examples against the schema.

use super::{
    ErrorCode, FrameType, LeaveReason, MAX_ID, MAX_METADATA, MAX_NAME, MAX_PASSWORD, MAX_REASON,
    MessageType, Path, Transport,
};
use serde_json::{Map, Value, json};

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Any,
    Bool,
    Text(usize),
    Count(u64),
    Number(f64),
    Words(&'static [&'static str]),
    /// A definition of [`At::definitions`].
    Is(&'static str),
    List(&'static str),
    PasswordOrNull,
}

/// A field: its name, what it holds, whether it is always there.
#[derive(Clone, Copy)]
struct Field(&'static str, Kind, bool);

const fn must(name: &'static str, kind: Kind) -> Field {
    Field(name, kind, true)
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field(name, kind, false)
}

use Kind::{Any, Bool, Count, Is, List, Number, PasswordOrNull, Text, Words};

const NAME: Kind = Is("Name");
const ROOM_SETTINGS: &[Field] = &[
    may("locked", Bool),
    may("maxPeers", Count(1)),
    may("password", PasswordOrNull),
    may("metadata", Any),
    may("relayOnly", Bool),
];
const CALL_ANSWER: &[Field] = &[
    must("callId", Text(MAX_NAME)),
    may("reason", Text(MAX_REASON)),
    may("metadata", Any),
];
const MUTE: &[Field] = &[
    must("kind", Words(&["audio", "video", "screen"])),
    may("to", NAME),
];

/// The fields of a client's message.
fn said(kind: MessageType) -> Vec<Field> {
    use MessageType as T;
    match kind {
        T::Register => vec![may("identity", NAME), may("token", Text(usize::MAX))],
        T::Join => vec![
            must("roomId", NAME),
            may("identity", NAME),
            may("token", Text(usize::MAX)),
            may("password", Text(MAX_PASSWORD)),
            may("metadata", Any),
            may("create", Is("RoomSettings")),
        ],
        T::Resume => vec![must("resumeToken", Text(MAX_NAME)), must("seq", Count(0))],
        T::Leave | T::List | T::Rooms | T::IceServers => vec![],
        T::Offer | T::Answer => vec![must("sdp", Is("Sdp")), may("to", NAME)],
        T::Candidate => vec![must("candidate", Is("Candidate")), may("to", NAME)],
        T::Message => vec![must("content", Any), may("to", NAME)],
        T::Publish | T::Subscribe => vec![must("tracks", Any), may("to", NAME)],
        T::Call => vec![must("to", NAME), may("metadata", Any)],
        T::Accept | T::Reject => CALL_ANSWER.to_vec(),
        T::Hangup => vec![
            may("callId", Text(MAX_NAME)),
            may("reason", Text(MAX_REASON)),
            may("metadata", Any),
            may("to", NAME),
        ],
        T::State => vec![must("state", Is("Object"))],
        T::Mute | T::Unmute => MUTE.to_vec(),
        T::Kick => vec![must("peerId", NAME), may("reason", Text(MAX_REASON))],
        T::Room => ROOM_SETTINGS.to_vec(),
        T::Grant => vec![must("peerId", NAME), must("role", Is("Role"))],
        T::Invite => vec![
            may("ttl", Count(1)),
            may("role", Is("Role")),
            may("uses", Count(1)),
        ],
        T::Report => vec![
            may("to", NAME),
            may("callId", Text(MAX_NAME)),
            must("path", Is("Path")),
            may("transport", Is("Transport")),
            may("connectMs", Number(f64::MAX)),
            may("rttMs", Number(f64::MAX)),
            may("loss", Number(1.0)),
        ],
        T::Ping => vec![may("t", Any)],
    }
}

const ICE: &[Field] = &[
    must("iceServers", List("IceServer")),
    must("iceTransportPolicy", Words(&["all", "relay"])),
    must("ttl", Count(0)),
    must("expiresAt", Count(0)),
];
const SESSION: &[Field] = &[
    must("peerId", NAME),
    must("identity", NAME),
    must("resumeToken", Text(usize::MAX)),
    must("resumeWindow", Count(0)),
];
const IN_ROOM: &[Field] = &[
    must("roomId", NAME),
    must("role", Is("Role")),
    must("peers", List("Peer")),
    must("room", Is("Room")),
    may("more", Bool),
];
const STAMPS: &[Field] = &[
    must("from", NAME),
    must("fromIdentity", NAME),
    must("ts", Count(0)),
    may("roomId", NAME),
    may("callId", Text(MAX_NAME)),
];

const OF_CALL: &[Field] = &[must("callId", Text(MAX_NAME)), may("metadata", Any)];

/// The fields of a frame of the server.
fn server_fields(kind: FrameType) -> Vec<Field> {
    use FrameType as T;
    match kind {
        T::Ack => vec![
            may("iceServers", List("IceServer")),
            may("iceTransportPolicy", Words(&["all", "relay"])),
            may("ttl", Count(0)),
            may("expiresAt", Count(0)),
        ],
        T::Left => vec![],
        T::Pong => vec![may("t", Any)],
        T::Invited => vec![
            may("token", Text(usize::MAX)),
            must("url", Text(usize::MAX)),
            must("expiresAt", Count(0)),
        ],
        T::Offer | T::Answer => [STAMPS, &[must("sdp", Is("Sdp"))]].concat(),
        T::Candidate => [STAMPS, &[must("candidate", Is("Candidate"))]].concat(),
        T::Message => [STAMPS, &[must("content", Any)]].concat(),
        T::Publish | T::Subscribe => [STAMPS, &[must("tracks", Any)]].concat(),
        T::Mute | T::Unmute => [STAMPS, MUTE].concat(),
        T::Call | T::Accept => [STAMPS, OF_CALL].concat(),
        T::Reject => [STAMPS, OF_CALL, &[may("reason", Any)]].concat(),
        T::Hangup => vec![
            may("from", NAME),
            may("fromIdentity", NAME),
            may("roomId", NAME),
            may("callId", Text(MAX_NAME)),
            may("reason", Any),
            must("ts", Count(0)),
        ],
        T::PeerState => vec![
            must("peerId", NAME),
            must("identity", NAME),
            must("role", Is("Role")),
            must("state", Is("Object")),
            must("connection", Words(&["online", "away"])),
        ],
        T::PeerJoined => vec![
            must("peer", Is("Peer")),
            must("peerId", NAME),
            must("identity", NAME),
        ],
        T::PeerLeft => vec![
            must("peerId", NAME),
            must("identity", NAME),
            must("reason", Is("LeaveReason")),
        ],
        T::Error => vec![
            must("code", Is("ErrorCode")),
            must("message", Text(usize::MAX)),
            may("retryAfter", Count(0)),
        ],
        T::IceServers => ICE.to_vec(),
        T::Welcome => vec![
            must("peerId", NAME),
            must("protocol", Count(1)),
            must("heartbeat", Count(0)),
            must("serverTime", Count(0)),
        ],
        T::Joined => [SESSION, ICE, IN_ROOM].concat(),
        T::Registered => [SESSION, ICE].concat(),
        T::Resumed => [
            SESSION,
            ICE,
            &[
                must("replayed", Count(0)),
                must("gap", Bool),
                may("roomId", NAME),
                may("role", Is("Role")),
                may("peers", List("Peer")),
                may("room", Is("Room")),
                may("more", Bool),
            ],
        ]
        .concat(),
        T::Calling => vec![must("callId", Text(MAX_NAME))],
        T::Peers => vec![must("peers", List("Peer")), may("more", Bool)],
        T::Rooms => vec![
            must("rooms", List("Room")),
            may("truncated", Bool),
            may("partial", List("Name")),
        ],
        T::RoomUpdated => vec![must("room", Is("Room"))],
        T::Notify => vec![must("content", Any)],
        T::Kicked => vec![may("reason", Any)],
        T::Draining => vec![must("reconnectIn", Count(0))],
    }
}

const PEER: &[Field] = &[
    must("peerId", NAME),
    must("identity", NAME),
    must("role", Is("Role")),
    must("state", Is("Object")),
    must("metadata", Any),
    must("joinedAt", Count(0)),
    must("connection", Words(&["online", "away"])),
    may("dialect", Text(MAX_NAME)),
];
const ROOM: &[Field] = &[
    must("roomId", NAME),
    must("locked", Bool),
    must("maxPeers", Count(1)),
    must("hasPassword", Bool),
    must("metadata", Any),
    must("relayOnly", Bool),
    must("createdAt", Count(0)),
    may("peers", Count(0)),
];

/// Where definitions are referred to.
#[derive(Clone, Copy)]
struct At(&'static str);

impl At {
    fn to(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.0) })
    }

    fn value(self, kind: Kind) -> Value {
        match kind {
            Any => json!({}),
            Bool => json!({ "type": "boolean" }),
            Text(usize::MAX) => json!({ "type": "string" }),
            Text(most) => json!({ "type": "string", "maxLength": most }),
            Count(least) => json!({ "type": "integer", "minimum": least }),
            Number(f64::MAX) => json!({ "type": "number", "minimum": 0 }),
            Number(most) => json!({ "type": "number", "minimum": 0, "maximum": most }),
            Words(words) => json!({ "enum": words }),
            Is(name) => self.to(name),
            List(name) => json!({ "type": "array", "items": self.to(name) }),
            PasswordOrNull => json!({ "type": ["string", "null"], "maxLength": MAX_PASSWORD }),
        }
    }

    /// An object with these fields; with `lenient`, `null` stands for a field that may be absent.
    fn object<'a>(self, fields: impl IntoIterator<Item = &'a Field>, lenient: bool) -> Value {
        let mut properties = Map::new();
        let mut required = vec![];
        for Field(name, kind, always) in fields {
            let value = match (self.value(*kind), *always || !lenient) {
                (Value::Object(any), _) if any.is_empty() => json!({}),
                (value, true) => value,
                (value, false) => json!({ "anyOf": [value, { "type": "null" }] }),
            };
            properties.insert((*name).to_owned(), value);
            if *always {
                required.push(*name);
            }
        }
        json!({ "type": "object", "properties": properties, "required": required })
    }

    /// A message: its fields, its `type`, and what every message of that direction may carry.
    fn message(self, name: &str, fields: &[Field], everywhere: &[Field], lenient: bool) -> Value {
        let mut schema = self.object(fields.iter().chain(everywhere), lenient);
        schema["title"] = json!(name);
        schema["properties"]["type"] = json!({ "const": name });
        if let Some(required) = schema["required"].as_array_mut() {
            required.insert(0, json!("type"));
        }
        schema
    }

    fn definitions(self) -> Map<String, Value> {
        let words = |all: Vec<&str>| json!({ "enum": all });
        let all = [
            (
                "Name",
                json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME,
                    "description": "1 to 128 bytes of UTF-8 without control characters" }),
            ),
            ("Object", json!({ "type": "object" })),
            ("Role", json!({ "enum": ["host", "member", "viewer"] })),
            (
                "Path",
                words(Path::ALL.iter().map(|path| path.as_str()).collect()),
            ),
            (
                "Transport",
                words(Transport::ALL.iter().map(|t| t.as_str()).collect()),
            ),
            (
                "ErrorCode",
                words(ErrorCode::ALL.iter().map(|code| code.as_str()).collect()),
            ),
            (
                "LeaveReason",
                words(LeaveReason::ALL.iter().map(|r| r.as_str()).collect()),
            ),
            (
                "Sdp",
                json!({ "description": "the text of a description, or `{type, sdp}`", "anyOf": [
                    { "type": "string" },
                    { "type": "object", "properties": { "sdp": { "type": "string" } }, "required": ["sdp"] },
                ] }),
            ),
            (
                "Candidate",
                json!({ "description": "a candidate, or `null` for the end of them",
                    "type": ["string", "object", "null"] }),
            ),
            (
                "IceServer",
                json!({ "type": "object", "required": ["urls"], "properties": {
                    "urls": { "type": "array", "items": { "type": "string" } },
                    "username": { "type": "string" },
                    "credential": { "type": "string" },
                } }),
            ),
            ("Peer", self.object(PEER, false)),
            ("Room", self.object(ROOM, false)),
            ("RoomSettings", self.object(ROOM_SETTINGS, true)),
        ];
        let mut definitions: Map<String, Value> = all
            .into_iter()
            .map(|(name, schema)| (name.to_owned(), schema))
            .collect();
        let (mut client, mut server) = (vec![], vec![]);
        for kind in MessageType::ALL {
            let name = format!("client.{}", kind.as_str());
            let id = [may("id", Text(MAX_ID))];
            let schema = self.message(kind.as_str(), &said(*kind), &id, true);
            client.push(self.to(&name));
            definitions.insert(name, schema);
        }
        for kind in FrameType::ALL {
            let name = format!("server.{}", kind.as_str());
            let numbers = [may("seq", Count(1)), may("id", Text(MAX_ID))];
            let schema = self.message(kind.as_str(), &server_fields(*kind), &numbers, false);
            server.push(self.to(&name));
            definitions.insert(name, schema);
        }
        definitions.insert("ClientMessage".into(), json!({ "oneOf": client }));
        definitions.insert("ServerMessage".into(), json!({ "oneOf": server }));
        definitions
    }
}

/// The JSON Schema (2020-12) of every message. Definitions are called `client.join`, `server.joined`
/// and so on; `ClientMessage` and `ServerMessage` are any of them.
pub fn json_schema() -> Value {
    let at = At("#/$defs/");
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "callbox signaling protocol, version 1",
        "description": format!("Text frames of /ws, one object a frame. Unknown fields are ignored; \
            `metadata` and `state` have at most {MAX_METADATA} bytes."),
        "anyOf": [at.to("ClientMessage"), at.to("ServerMessage")],
        "$defs": at.definitions(),
    })
}

/// The AsyncAPI 3 document of the WebSocket at `/ws`.
pub fn async_api(version: &str) -> Value {
    let at = At("#/components/schemas/");
    let mut messages = Map::new();
    let mut operations = [vec![], vec![]];
    let names = MessageType::ALL
        .iter()
        .map(|kind| ("client", kind.as_str()))
        .chain(FrameType::ALL.iter().map(|kind| ("server", kind.as_str())));
    for (side, name) in names {
        let key = format!("{side}.{name}");
        let reference = format!("#/channels/ws/messages/{key}");
        operations[usize::from(side == "server")].push(json!({ "$ref": reference }));
        let message =
            json!({ "name": name, "contentType": "application/json", "payload": at.to(&key) });
        messages.insert(key, message);
    }
    let [from_client, from_server] = operations;
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "callbox signaling",
            "version": version,
            "description": "docs/protocol.md says what each message means. Every frame is a text frame \
                with one JSON object.",
        },
        "defaultContentType": "application/json",
        "channels": { "ws": {
            "address": "/ws",
            "messages": messages,
            "bindings": { "ws": { "method": "GET", "query": {
                "type": "object", "properties": { "token": { "type": "string" } },
            } } },
        } },
        "operations": {
            "fromClient": { "action": "receive", "channel": { "$ref": "#/channels/ws" }, "messages": from_client,
                "summary": "what a client sends" },
            "fromServer": { "action": "send", "channel": { "$ref": "#/channels/ws" }, "messages": from_server,
                "summary": "what the server sends" },
        },
        "components": { "schemas": at.definitions() },
    })
}

#[cfg(test)]
mod tests;
