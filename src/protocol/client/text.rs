//! A message as the text from which it was read, or as one that reads the same: what one node sends
//! to another.

use super::{CallSignal, ClientMessage, Fields, Forward, Join, Payload, Request, RoomPatch};
use crate::protocol::{is_foreign_room, write_json_str};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use std::fmt::Write as _;

/// Stands in the text for the name of a room that no client can write.
const PLACEHOLDER: &str = "-";

impl ClientMessage {
    /// The text that [`parse`](super::parse) reads as this message, but for the name of a
    /// [foreign room](is_foreign_room) and [`Self::dialect`]; `None` for what only a translator asks.
    pub fn to_text(&self) -> Option<String> {
        let mut text = Text(format!("{{\"type\":\"{}\"", self.kind.as_str()));
        if let Some(id) = &self.id {
            text.string("id", id);
        }
        match &self.request {
            Request::Register { identity, token } => {
                text.optional("identity", identity.as_deref());
                text.secret("token", token.as_ref());
            }
            Request::Join(join) => text.join(join),
            Request::Resume { token, seq } => {
                text.secret("resumeToken", Some(token));
                text.number("seq", *seq);
            }
            Request::Leave | Request::List | Request::Rooms | Request::IceServers => {}
            Request::Forward(forward) => text.forward(forward),
            Request::Call { to, rest } => {
                text.string("to", to);
                text.0.push_str(rest);
            }
            Request::Accept(signal) | Request::Reject(signal) | Request::Hangup(signal) => {
                text.signal(signal);
            }
            Request::State(state) => {
                let state = serde_json::to_string(state).ok()?;
                text.raw("state", &state);
            }
            Request::Mute {
                media, to, rest, ..
            } => {
                text.optional("to", to.as_deref());
                text.beside("kind", Some(media.as_str()), rest);
            }
            Request::Kick { peer_id, reason } => {
                text.string("peerId", peer_id);
                text.optional("reason", reason.as_deref());
            }
            Request::Room(patch) => text.patch(patch),
            Request::Grant { peer_id, role } => {
                text.string("peerId", peer_id);
                text.raw("role", &serde_json::to_string(role).ok()?);
            }
            Request::Invite(invite) => {
                text.number("ttl", invite.ttl);
                text.raw("role", &serde_json::to_string(&invite.role).ok()?);
                if let Some(uses) = invite.uses {
                    text.number("uses", uses.into());
                }
            }
            Request::Report(report) => {
                // About whom is of no interest any more.
                text.string("to", PLACEHOLDER);
                text.string("path", report.path.as_str());
                text.optional("transport", report.transport.map(|way| way.as_str()));
                for (name, value) in [("connectMs", report.connect_ms), ("rttMs", report.rtt_ms)] {
                    if let Some(value) = value {
                        text.number(name, value.into());
                    }
                }
                if let Some(lost) = report.lost_ppm {
                    text.raw("loss", &(f64::from(lost) / 1e6).to_string());
                }
            }
            Request::Ping { t } => text.json("t", t.as_deref()),
            Request::Lobby | Request::Exchange(_) => return None,
        }
        text.0.push('}');
        Some(text.0)
    }
}

/// The text so far, without its last brace.
struct Text(String);

impl Text {
    fn raw(&mut self, name: &str, json: &str) {
        let _ = write!(self.0, ",\"{name}\":{json}");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.raw(name, &number.to_string());
    }

    fn string(&mut self, name: &str, value: &str) {
        let _ = write!(self.0, ",\"{name}\":");
        write_json_str(&mut self.0, value);
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(name, value);
        }
    }

    fn secret(&mut self, name: &str, value: Option<&SecretString>) {
        self.optional(name, value.map(ExposeSecret::expose_secret));
    }

    fn json(&mut self, name: &str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.raw(name, value.get());
        }
    }

    /// A field that `rest` may have already; then `rest`.
    fn beside(&mut self, name: &str, value: Option<&str>, rest: &str) {
        let inside = format!("{{{}}}", rest.strip_prefix(',').unwrap_or(rest));
        if Fields::parse(&inside).is_ok_and(|fields| fields.get(name).is_none()) {
            self.optional(name, value);
        }
        self.0.push_str(rest);
    }

    fn join(&mut self, join: &Join) {
        let room = &*join.room_id;
        self.string(
            "roomId",
            if is_foreign_room(room) {
                PLACEHOLDER
            } else {
                room
            },
        );
        self.optional("identity", join.identity.as_deref());
        self.secret("token", join.token.as_ref());
        self.secret("password", join.password.as_ref());
        self.json("metadata", join.metadata.as_deref());
        let mut create = Self(String::new());
        create.patch(&join.create);
        if let Some(create) = create.0.strip_prefix(',') {
            self.raw("create", &format!("{{{create}}}"));
        }
    }

    fn patch(&mut self, patch: &RoomPatch) {
        let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        for (name, value) in [
            ("locked", flag(patch.locked)),
            ("maxPeers", patch.max_peers.map(|max| max.to_string())),
            ("relayOnly", flag(patch.relay_only)),
        ] {
            if let Some(value) = value {
                self.raw(name, &value);
            }
        }
        match &patch.password {
            Some(Some(password)) => self.secret("password", Some(password)),
            Some(None) => self.raw("password", "null"),
            None => {}
        }
        match &patch.metadata {
            Some(Some(metadata)) => self.json("metadata", Some(metadata)),
            Some(None) => self.raw("metadata", "null"),
            None => {}
        }
    }

    fn forward(&mut self, forward: &Forward) {
        match &forward.payload {
            Payload::Opaque => {}
            Payload::Sdp(raw) => self.json("sdp", Some(raw)),
            Payload::Candidate(raw) => self.json("candidate", Some(raw)),
        }
        self.beside("to", forward.to.as_deref(), &forward.rest);
    }

    fn signal(&mut self, signal: &CallSignal) {
        self.string("callId", &signal.call_id);
        if let Some(reason) = &signal.reason {
            self.raw("reason", reason);
        }
        self.0.push_str(&signal.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn what_is_written_reads_as_the_same_message() {
        for text in [
            r#"{"type":"register","identity":"a","token":"t","id":"1"}"#,
            r#"{"type":"join","roomId":"r \"é","identity":"a","token":"t","password":"p","metadata":{"a":1},"create":{"locked":true,"maxPeers":3,"password":null,"metadata":[1],"relayOnly":false}}"#,
            r#"{"type":"resume","resumeToken":"x","seq":7}"#,
            r#"{"type":"leave","id":"l"}"#,
            r#"{"type":"offer","to":"p","sdp":{"type":"offer","sdp":"v=0"},"x":1e400}"#,
            r#"{"type":"candidate","candidate":null,"more":[1]}"#,
            r#"{"type":"message","content":{"b":1,"a":2},"to":"p"}"#,
            r#"{"type":"call","to":"bob","metadata":{"a":1},"id":"c"}"#,
            r#"{"type":"accept","callId":"c","sdp":"x"}"#,
            r#"{"type":"reject","callId":"c","reason":"busy"}"#,
            r#"{"type":"hangup","callId":"c","reason":"b"}"#,
            r#"{"type":"hangup"}"#,
            r#"{"type":"state","state":{"a":{"b":null}}}"#,
            r#"{"type":"mute","kind":"audio","to":"p"}"#,
            r#"{"type":"unmute","kind":"video","x":0}"#,
            r#"{"type":"rooms"}"#,
            r#"{"type":"kick","peerId":"p","reason":"r"}"#,
            r#"{"type":"room","password":"s","maxPeers":2,"metadata":null}"#,
            r#"{"type":"grant","peerId":"p","role":"host"}"#,
            r#"{"type":"invite","ttl":60,"role":"viewer","uses":3}"#,
            r#"{"type":"report","to":"p","path":"relay","transport":"tls","connectMs":5,"rttMs":6,"loss":0.25}"#,
            r#"{"type":"ping","t":[1]}"#,
        ] {
            let message = parse(text).unwrap();
            let again = parse(&message.to_text().unwrap()).unwrap();
            assert_eq!(format!("{message:?}"), format!("{again:?}"), "{text}");
        }
    }
}
