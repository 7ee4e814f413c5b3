//! Every message has an example in docs/protocol.md, and every example is what the code takes or
//! sends.

use super::harness::World;
use super::*;
use crate::protocol::parse;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../../docs/protocol.md");

/// Fields whose content is the application's.
const FREE: [&str; 7] = [
    "metadata",
    "state",
    "content",
    "tracks",
    "candidate",
    "sdp",
    "t",
];

fn examples(tag: &str) -> Vec<Value> {
    let fence = format!("```json {tag}\n");
    PAGE.split(&fence)
        .skip(1)
        .map(|rest| {
            let text = rest.split("\n```").next().unwrap();
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
        })
        .collect()
}

#[test]
fn every_client_message_has_an_example_that_parses() {
    let mut seen = BTreeSet::new();
    for example in examples("client") {
        let message = parse(&example.to_string()).unwrap_or_else(|e| panic!("{e:?}"));
        seen.insert(message.kind);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), MessageType::ALL);
}

#[test]
fn every_server_message_has_an_example_of_its_shape() {
    let sent = everything_the_hub_says();
    let examples = examples("server");
    for example in &examples {
        let alike: Vec<_> = sent
            .iter()
            .filter(|m| m["type"] == example["type"])
            .collect();
        assert!(
            alike.iter().any(|frame| same_shape(example, frame)),
            "{example} is like none of {alike:#?}"
        );
    }
    for frame in &sent {
        let shown = examples
            .iter()
            .any(|example| example["type"] == frame["type"]);
        assert!(shown, "no example of {}", frame["type"]);
    }
}

#[test]
fn every_code_and_reason_is_explained() {
    let codes = ErrorCode::ALL
        .iter()
        .map(|code| format!("| `{}` |", code.as_str()));
    let reasons = LeaveReason::ALL
        .iter()
        .map(|reason| format!("`{}`", reason.as_str()));
    let closes = [
        CloseCode::Normal,
        CloseCode::Draining,
        CloseCode::BadUtf8,
        CloseCode::Malformed,
        CloseCode::TooLarge,
        CloseCode::Restart,
        CloseCode::TryLater,
        CloseCode::Unauthorized,
        CloseCode::Kicked,
        CloseCode::SlowConsumer,
        CloseCode::Replaced,
        CloseCode::HeartbeatTimeout,
        CloseCode::RateLimited,
        CloseCode::RoomClosed,
    ];
    let closes = closes.iter().map(|code| format!("| {} |", *code as u16));
    for text in codes.chain(reasons).chain(closes) {
        assert!(PAGE.contains(&text), "{text}");
    }
}

/// Whether two frames have the same fields of the same kinds. `id` and `to` depend on the request.
fn same_shape(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = |map: &serde_json::Map<String, Value>| {
                let names = map.keys().filter(|name| *name != "id" && *name != "to");
                names.cloned().collect::<BTreeSet<_>>()
            };
            keys(a) == keys(b)
                && a.iter().all(|(name, value)| {
                    FREE.contains(&name.as_str())
                        || b.get(name).is_none_or(|b| same_shape(value, b))
                })
        }
        (Value::Array(a), Value::Array(b)) => {
            a.is_empty() == b.is_empty() && a.iter().zip(b).all(|(a, b)| same_shape(a, b))
        }
        (Value::Null, Value::Null) | (Value::Bool(_), Value::Bool(_)) => true,
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => true,
        _ => false,
    }
}

/// A day at the box.
fn everything_the_hub_says() -> Vec<Value> {
    let mut world = World::new();
    let mut said = Vec::new();
    world.hub.settings.list_rooms = true;
    let a = world.open();
    said.extend(world.take(a));
    said.push(world.ask(a, json!({"type": "join", "roomId": "r", "identity": "a"})));
    let b = world.open();
    let joined = world.ask(b, json!({"type": "join", "roomId": "r", "identity": "b"}));
    let b_id = joined["peerId"].clone();
    said.push(joined.clone());
    said.extend(world.take(a));
    for message in [
        json!({"type": "offer", "sdp": "x"}),
        json!({"type": "offer", "sdp": {"type": "offer", "sdp": "x"}}),
        json!({"type": "answer", "sdp": "x"}),
        json!({"type": "candidate", "candidate": null}),
        json!({"type": "message", "content": 1}),
        json!({"type": "publish", "tracks": 1}),
        json!({"type": "subscribe", "tracks": 1}),
        json!({"type": "mute", "kind": "audio", "to": b_id}),
        json!({"type": "unmute", "kind": "audio", "to": b_id}),
        json!({"type": "state", "state": {"x": 1}}),
        json!({"type": "room", "relayOnly": true}),
        json!({"type": "list"}),
        json!({"type": "rooms"}),
        json!({"type": "ice"}),
        json!({"type": "ping", "t": 1}),
    ] {
        said.push(world.ask(a, message));
        said.extend(world.take(a));
        said.extend(world.take(b));
    }
    let mut effects = Vec::new();
    let content = to_raw_value("x").unwrap();
    world
        .hub
        .notify(world.now, "r", &content, &mut effects)
        .unwrap();
    world.deliver(effects);
    world.cut(b);
    let b = world.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    said.push(world.ask(b, resume));
    said.extend(world.take(a));

    let (c, _) = world.register("c");
    let (d, _) = world.register("d");
    let e = world.open();
    said.push(world.ask(e, json!({"type": "register", "identity": "e"})));
    for (last, with) in [
        ("reject", json!("busy")),
        ("accept", json!(null)),
        ("none", json!(null)),
    ] {
        let calling = world.ask(c, json!({"type": "call", "to": "d", "metadata": 1}));
        let answer = json!({"type": last, "callId": calling["callId"], "reason": with});
        said.extend(world.take(d));
        if last == "none" {
            world.pass(Duration::from_secs(45));
        } else if last == "accept" {
            let answer = json!({"type": last, "callId": calling["callId"]});
            said.push(world.ask(d, answer));
            world.ask(d, json!({"type": "hangup", "callId": calling["callId"]}));
        } else {
            said.push(world.ask(d, answer));
        }
        said.push(calling);
        said.extend(world.take(c));
    }
    for _ in 0..1100 {
        world.send(e, json!({"type": "ping"}));
    }
    said.extend(world.take(e));
    said.push(world.ask(a, json!({"type": "kick", "peerId": b_id})));
    said.extend(world.take(b));
    said.extend(world.take(a));
    let grace_ends = world.now.instant + Duration::from_secs(1);
    world.input(Input::Drain {
        grace_ends,
        alternate: false,
    });
    said.push(world.ask(a, json!({"type": "leave"})));
    said.extend(world.take(c));
    said
}
