//! What one client may get of what another one says.

use super::super::mqtt::packet::Packet;
use super::super::mqtt::reader::Stream;
use super::super::object::{self, Object};
use super::super::socketio::{Profile, is_server_owned};
use super::{Profiles, VICTIM, Variant};
use crate::protocol::DialectKind;
use crate::signal::{Message, sdp};
use serde_json::value::RawValue;
use std::ops::ControlFlow;

/// # Panics
/// If a client gets what only the server says, a sender that is not the client, or what is not of its
/// protocol.
pub(super) fn judge(kind: DialectKind, variant: Variant, attacker: &str, received: &Message) {
    let text = match received {
        Message::Text(text) => text,
        Message::Binary(bytes) => return judge_bytes(kind, variant, bytes),
    };
    let object = || Object::parse(text).unwrap_or_else(|_| panic!("not an object: {text}"));
    let names = |object: &Object<'_>| -> Vec<String> {
        object.fields().map(|(name, _)| name.to_owned()).collect()
    };
    match kind {
        DialectKind::YWebrtc => {
            let object = object();
            assert_eq!(object.string("type").as_deref(), Some("publish"), "{text}");
            assert_eq!(object.string("topic").as_deref(), Some("t"), "{text}");
            assert!(
                object
                    .text("clients")
                    .is_some_and(|n| n.parse::<u32>().is_ok()),
                "{text}"
            );
            if variant.relay_only {
                let known = ["type", "topic", "clients", "data"];
                assert!(
                    names(&object).iter().all(|name| known.contains(&&**name)),
                    "{text}"
                );
                let data = object.object("data");
                let signal = data.as_ref().and_then(|data| data.get("signal"));
                signal.into_iter().for_each(judge_signal);
            }
        }
        DialectKind::Trystero => {
            let object = object();
            assert!(
                names(&object)
                    .iter()
                    .all(|name| name == "topic" || name == "payload")
            );
            assert_eq!(object.string("topic").as_deref(), Some("t"), "{text}");
        }
        DialectKind::PeerJs => {
            let object = object();
            let kind = object.string("type").unwrap_or_default();
            let relayed = ["OFFER", "ANSWER", "CANDIDATE", "LEAVE"];
            assert!(relayed.contains(&&*kind), "{text}");
            assert_eq!(object.string("src").as_deref(), Some("client0"), "{text}");
            let known = ["type", "src", "dst", "payload"];
            assert!(
                names(&object).iter().all(|name| known.contains(&&**name)),
                "{text}"
            );
            if variant.relay_only
                && let Some(payload) = object.object("payload")
            {
                payload.get("sdp").into_iter().for_each(judge_description);
                payload
                    .get("candidate")
                    .into_iter()
                    .for_each(judge_candidate);
            }
        }
        DialectKind::SocketIo => judge_event(variant.profiles, attacker, text),
        _ => {
            let object = object();
            let kind = object.string("type").unwrap_or_default();
            let servers = [
                "welcome",
                "joined",
                "room-joined",
                "registered",
                "resumed",
                "ice-servers",
                "error",
                "join-error",
                "kicked",
                "draining",
                "notify",
            ];
            assert!(!servers.contains(&&*kind), "{text}");
            let relayed = ["offer", "answer", "candidate", "message", "hangup"];
            for name in ["from", "fromId"] {
                let said = object.string(name);
                let may_lack = !relayed.contains(&&*kind);
                assert!(
                    said.as_deref().map_or(may_lack, |said| said == attacker),
                    "{text}"
                );
            }
            for name in ["iceServers", "resumeToken", "seq", "token"] {
                assert!(object.text(name).is_none(), "{text}");
            }
        }
    }
}

fn judge_event([sender, receiver]: Profiles, attacker: &str, text: &str) {
    assert_eq!(sender, receiver, "of another profile: {text}");
    let data = match text.strip_prefix("42") {
        Some(data) => data,
        None => match text
            .strip_prefix("45")
            .and_then(|rest| rest.split_once('-'))
        {
            Some((_, data)) => data,
            None => panic!("not an event: {text}"),
        },
    };
    let parts = object::list(data);
    let name: String = parts
        .first()
        .and_then(|name| serde_json::from_str(name).ok())
        .unwrap_or_else(|| panic!("no name: {text}"));
    let field = |name: &str| {
        let object = Object::parse(parts.get(1)?).ok()?;
        object.string(name).map(|text| text.into_owned())
    };
    match (receiver, &*name) {
        // What the server says of the client that came or went.
        (Profile::Relay, "user-connected" | "user-disconnected")
        | (Profile::Lobby | Profile::Tutorial, "change") => {}
        (Profile::Relay, "user-joined" | "user-left") | (Profile::Mesh, "user left") => {
            assert!(text.contains(attacker), "{text}");
        }
        (Profile::Codelab, "join" | "ready") => assert_eq!(parts[1..], ["\"r\""], "{text}"),
        (Profile::Call, "callEnded") => assert_eq!(parts.len(), 1, "{text}"),
        // What it makes of an event of the client; the last of them names nobody.
        (Profile::Mesh, "user joined") => {
            assert_eq!(field("callerID").as_deref(), Some(attacker), "{text}");
        }
        (Profile::Mesh, "receiving returned signal") => {
            assert_eq!(field("id").as_deref(), Some(attacker), "{text}");
        }
        (Profile::Call, "callUser") => {
            assert_eq!(field("from").as_deref(), Some(attacker), "{text}");
        }
        (Profile::Call, "callAccepted") => assert_eq!(parts.len(), 2, "{text}"),
        (profile, name) if is_server_owned(profile, name) => panic!("{text}"),
        _ => {
            // The first object, or the last argument, names the sender. Where bytes come with the
            // event, a placeholder is not an object.
            let has_bytes = text.starts_with("45");
            let first = parts[1..].iter().find_map(|part| {
                let object = Object::parse(part).ok()?;
                let is_bytes = has_bytes && object.text("_placeholder") == Some("true");
                (!is_bytes).then_some(object)
            });
            match first {
                Some(object) => {
                    for name in ["from", "sender"] {
                        assert_eq!(object.string(name).as_deref(), Some(attacker), "{text}");
                    }
                }
                None => {
                    let last: Option<String> = parts
                        .last()
                        .and_then(|last| serde_json::from_str(last).ok());
                    assert_eq!(last.as_deref(), Some(attacker), "{text}");
                }
            }
        }
    }
}

fn judge_bytes(kind: DialectKind, variant: Variant, bytes: &[u8]) {
    if kind != DialectKind::Mqtt {
        // An attachment of an event.
        assert_eq!(kind, DialectKind::SocketIo);
        return;
    }
    let fed = Stream::default().feed(bytes, usize::MAX, |head, body| {
        match Packet::read(head, body, variant.versions[VICTIM as usize])? {
            Packet::Publish(publish) => assert_eq!(publish.topic, "t"),
            other => panic!("{other:?}"),
        }
        Ok(ControlFlow::Continue(()))
    });
    assert!(fed.is_ok(), "{bytes:?}");
}

/// A signal of simple-peer that has passed where only relayed candidates do: it would pass again.
fn judge_signal(signal: &RawValue) {
    let object = Object::parse(signal.get()).unwrap_or_else(|_| panic!("{signal}"));
    match (object.get("sdp"), object.get("candidate")) {
        (Some(_), _) => judge_description(signal),
        (None, Some(raw)) => judge_candidate(raw),
        (None, None) => {}
    }
}

fn judge_description(raw: &RawValue) {
    assert_eq!(sdp::description(raw).as_deref(), Ok(raw.get()));
}

fn judge_candidate(raw: &RawValue) {
    let again = sdp::candidate(raw).map(|text| text.unwrap_or_default());
    assert_eq!(again.as_deref(), Ok(raw.get()));
}
