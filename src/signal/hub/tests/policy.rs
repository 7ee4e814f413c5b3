//! What `policy` refuses, and what it leaves alone.

use super::harness::{World, ice};
use super::snapshot::restored;
use super::*;
use crate::auth::Role;
use serde_json::{Value, json};

fn world(policy: Policy) -> World {
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    World::with(settings, ice(true))
}

fn rules(messages: Vec<MessageRule>) -> Policy {
    Policy {
        messages,
        calls: vec![],
    }
}

fn code(answer: &Value) -> &str {
    answer["code"].as_str().unwrap_or("ok")
}

fn viewer() -> Grant {
    Grant {
        role: Some(Role::Viewer),
        ..Grant::open()
    }
}

#[test]
fn the_first_rule_that_fits_the_role_decides_on_type_and_size() {
    let mut world = world(rules(vec![
        MessageRule {
            role: Some(Role::Viewer),
            deny: vec![MessageType::Message],
            max: Some(50),
            ..MessageRule::default()
        },
        MessageRule {
            role: Some(Role::Viewer),
            ..MessageRule::default()
        },
    ]));
    let (host, _) = world.join("r", "host");
    let conn = world.open();
    let join = json!({"type": "join", "roomId": "r"});
    world.ask_as(conn, join, Ok(viewer()));
    world.clear();
    let message = json!({"type": "message", "content": 1});
    assert_eq!(code(&world.ask(conn, message.clone())), "forbidden");
    assert!(world.take(host).is_empty(), "nothing passed");
    let long = json!({"type": "answer", "sdp": "x".repeat(60)});
    assert_eq!(code(&world.ask(conn, long)), "forbidden");
    let short = json!({"type": "answer", "sdp": "x"});
    assert_eq!(code(&world.ask(conn, short)), "ok");
    let state = json!({"type": "state", "state": {"long": "x".repeat(60)}});
    assert_eq!(code(&world.ask(conn, state)), "forbidden");
    world.clear();
    assert_eq!(code(&world.ask(host, message)), "ok", "no rule fits");
    assert_eq!(world.hub.counters().refused_messages, 3);
}

#[test]
fn a_rule_without_a_role_fits_everybody_and_a_list_admits_its_types_alone() {
    let mut world = world(rules(vec![MessageRule {
        allow: Some(vec![MessageType::Offer]),
        ..MessageRule::default()
    }]));
    let (host, _) = world.join("r", "host");
    world.join("r", "bob");
    world.clear();
    assert_eq!(
        code(&world.ask(host, json!({"type": "offer", "sdp": ""}))),
        "ok"
    );
    for refused in [
        json!({"type": "message", "content": 1}),
        json!({"type": "publish", "tracks": []}),
        json!({"type": "state", "state": {}}),
        json!({"type": "mute", "kind": "audio"}),
    ] {
        assert_eq!(
            code(&world.ask(host, refused.clone())),
            "forbidden",
            "{refused}"
        );
    }
    assert_eq!(code(&world.ask(host, json!({"type": "list"}))), "ok");
}

#[test]
fn who_is_in_no_room_is_judged_by_the_role_of_its_token() {
    let mut world = world(rules(vec![MessageRule {
        role: Some(Role::Viewer),
        deny: vec![MessageType::Message],
        ..MessageRule::default()
    }]));
    let by_room = Grant {
        role: Some(Role::Host),
        role_for: Some(("own".into(), Role::Viewer)),
        ..Grant::open()
    };
    for (name, grant) in [("ann", viewer()), ("cid", by_room)] {
        let conn = world.open();
        let registers = json!({"type": "register", "identity": name});
        world.ask_as(conn, registers, Ok(grant));
        let callee = register(&mut world, &format!("of-{name}"), None);
        let to = world.peers[&callee].to_string();
        let called = json!({"type": "call", "to": to});
        let call = world.ask(conn, called)["callId"].clone();
        let accept = json!({"type": "accept", "callId": call});
        assert_eq!(code(&world.ask(callee, accept)), "ok");
        // The role outlives an upgrade.
        world.hub = restored(&world);
        world.clear();
        for refused in [
            json!({"type": "message", "to": to, "content": 1}),
            json!({"type": "publish", "to": to, "tracks": []}),
        ] {
            assert_eq!(code(&world.ask(conn, refused)), "forbidden", "{name}");
        }
        assert!(world.take(callee).is_empty(), "nothing passed");
        let allowed = json!({"type": "answer", "to": to, "sdp": "x"});
        assert_eq!(code(&world.ask(conn, allowed)), "ok");
        let other = world.peers[&conn].to_string();
        let message = json!({"type": "message", "to": other, "content": 1});
        assert_eq!(code(&world.ask(callee, message)), "ok", "no rule fits");
    }
}

fn register(world: &mut World, name: &str, team: Option<&str>) -> u64 {
    let conn = world.open();
    let grant = Grant {
        team: team.map(str::to_owned),
        ..Grant::open()
    };
    world.ask_as(
        conn,
        json!({"type": "register", "identity": name}),
        Ok(grant),
    );
    conn
}

fn call(world: &mut World, from: u64, to: &str) -> String {
    world.clear();
    let answer = world.ask(from, json!({"type": "call", "to": to}));
    code(&answer).to_owned()
}

fn calls(calls: Vec<CallRule>) -> World {
    world(Policy {
        calls,
        messages: vec![],
    })
}

fn from_to(from: &str, to: &str, deny: bool) -> CallRule {
    CallRule {
        from: Some(from.into()),
        to: Some(to.into()),
        deny,
        ..CallRule::default()
    }
}

#[test]
fn calls_go_by_the_first_rule_that_fits_both_and_by_none_they_are_refused() {
    let mut world = calls(vec![
        from_to("*", "boss", true),
        from_to("agent-*", "*", false),
    ]);
    let agent = register(&mut world, "agent-7", None);
    let guest = register(&mut world, "guest", None);
    register(&mut world, "boss", None);
    assert_eq!(call(&mut world, agent, "guest"), "ok");
    assert_eq!(call(&mut world, agent, "boss"), "forbidden");
    assert_eq!(call(&mut world, guest, "agent-7"), "forbidden");
    assert_eq!(call(&mut world, guest, "nobody"), "no-such-peer");
    assert_eq!(world.hub.counters().refused_calls, 2);
}

#[test]
fn a_team_or_a_room_may_call_among_themselves() {
    let mut teams = calls(vec![CallRule {
        same_team: true,
        ..CallRule::default()
    }]);
    let ann = register(&mut teams, "ann", Some("red"));
    register(&mut teams, "bob", Some("red"));
    register(&mut teams, "eve", Some("blue"));
    let none = register(&mut teams, "none", None);
    register(&mut teams, "other", None);
    assert_eq!(call(&mut teams, ann, "bob"), "ok");
    assert_eq!(call(&mut teams, ann, "eve"), "forbidden");
    assert_eq!(call(&mut teams, none, "other"), "forbidden", "no team");

    let mut rooms = calls(vec![CallRule {
        same_room: true,
        ..CallRule::default()
    }]);
    let (ann, _) = rooms.join("r", "ann");
    rooms.join("r", "bob");
    rooms.join("s", "eve");
    assert_eq!(call(&mut rooms, ann, "bob"), "ok");
    assert_eq!(call(&mut rooms, ann, "eve"), "forbidden");
}
