//! The admin side, draining, and new settings.

use super::harness::{World, ice};
use super::*;
use crate::protocol::RoomPatch;
use serde_json::json;
use serde_json::value::to_raw_value;

#[test]
fn rooms_and_members_are_shown() {
    let mut world = World::new();
    let [(_, a_id), _] = world.party("r");
    world.join("s", "x");
    let names: Vec<_> = world
        .hub
        .rooms()
        .map(|room| (room.room_id.to_owned(), room.peers))
        .collect();
    assert_eq!(
        names,
        [("r".to_owned(), Some(2)), ("s".to_owned(), Some(1))]
    );
    let room = serde_json::to_value(world.hub.room("r").unwrap()).unwrap();
    assert_eq!((&room["roomId"], &room["peers"]), (&json!("r"), &json!(2)));
    assert_eq!(room["members"][0]["peerId"], json!(a_id));
    assert!(world.hub.room("nowhere").is_none());
    let info = world.hub.peer(&a_id).unwrap();
    assert_eq!(
        (info.identity.as_str(), info.room_id.as_deref()),
        ("p0", Some("r"))
    );
    assert!(world.hub.peer("http-x").is_none());
}

#[test]
fn notices_reach_every_member() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let mut effects = Vec::new();
    let content = to_raw_value(&json!({"in": 5})).unwrap();
    assert_eq!(
        world.hub.notify(world.now, "r", &content, &mut effects),
        Ok(2)
    );
    let missing = world
        .hub
        .notify(world.now, "x", &content, &mut effects)
        .unwrap_err();
    assert_eq!(missing.code, ErrorCode::NoSuchRoom);
    world.deliver(effects);
    for conn in [a, b] {
        let got = world.take(conn).remove(0);
        assert_eq!(
            (&got["type"], &got["content"]),
            (&json!("notify"), &json!({"in": 5}))
        );
    }
}

#[test]
fn the_operator_changes_a_room() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    let mut effects = Vec::new();
    let patch = RoomPatch::from_json(r#"{"locked":true,"relayOnly":true}"#).unwrap();
    let view = world
        .hub
        .patch_room(world.now, "r", patch, &mut effects)
        .unwrap();
    assert!(view.locked && view.relay_only);
    world.deliver(effects);
    assert_eq!(world.types(a), ["room-updated", "ice-servers"]);
    let missing = world
        .hub
        .patch_room(world.now, "x", RoomPatch::default(), &mut Vec::new());
    assert_eq!(missing.unwrap_err().code, ErrorCode::NoSuchRoom);
    assert!(
        RoomPatch::from_json("[]").is_err() && RoomPatch::from_json(r#"{"locked":1}"#).is_err()
    );
}

#[test]
fn a_closed_room_ends_its_sessions_with_one_frame_each() {
    let mut world = World::new();
    let [(a, a_id), (b, _), (c, _)] = world.party("r");
    world.cut(c);
    world.clear();
    let mut effects = Vec::new();
    assert_eq!(world.hub.close_room(world.now, "r", &mut effects), Ok(3));
    world.deliver(effects);
    for conn in [a, b] {
        let got = world.take(conn);
        assert_eq!(got.len(), 1);
        assert_eq!(
            (&got[0]["type"], &got[0]["reason"]),
            (&json!("peer-left"), &json!("room-closed"))
        );
        assert_eq!(world.closed.get(&conn), Some(&4007));
    }
    assert_eq!(world.revoked.len(), 3);
    assert_eq!(world.revoked[0].0, a_id);
    assert!(
        world
            .hub
            .close_room(world.now, "r", &mut Vec::new())
            .is_err()
    );
    world.empties();
}

#[test]
fn a_member_is_removed_as_by_a_kick() {
    let mut world = World::new();
    let [(a, _), (b, b_id)] = world.party("r");
    let mut effects = Vec::new();
    world
        .hub
        .remove_peer(world.now, "r", &b_id, &mut effects)
        .unwrap();
    let gone = world
        .hub
        .remove_peer(world.now, "r", &b_id, &mut effects)
        .unwrap_err();
    assert_eq!(gone.code, ErrorCode::NoSuchPeer);
    world.deliver(effects);
    assert_eq!(world.types(b), ["kicked"]);
    assert_eq!(world.closed.get(&b), Some(&4002));
    assert_eq!(world.take(a)[0]["reason"], "kicked");
    world.empties();
}

#[test]
fn revoked_credentials_are_exceeded_by_later_ones() {
    let mut world = World::new();
    let [(a, a_id)] = world.party("r");
    let mut effects = Vec::new();
    assert!(world.hub.revoke(&a_id, &mut effects));
    assert!(!world.hub.revoke("http-x", &mut effects));
    world.deliver(effects);
    assert_eq!(world.revoked, [(a_id, 1_700_003_600)]);
    assert_eq!(
        world.ask(a, json!({"type": "ice"}))["expiresAt"],
        1_700_003_601
    );
}

#[test]
fn a_drain_refuses_newcomers_keeps_calls_and_ends_with_the_grace() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let idle = world.open();
    world.clear();
    let grace_ends = world.now.instant + Duration::from_secs(60);
    world.input(Input::Drain {
        grace_ends,
        alternate: false,
    });
    for conn in [a, b, idle] {
        let told = world.take(conn).remove(0);
        assert_eq!(told["type"], "draining");
        assert!((60_000..65_000).contains(&told["reconnectIn"].as_u64().unwrap()));
    }
    let late = world.open();
    assert_eq!(world.closed.get(&late), Some(&1001));
    for ask in [
        json!({"type": "join", "roomId": "x"}),
        json!({"type": "register", "identity": "x"}),
    ] {
        assert_eq!(world.ask(idle, ask)["code"], "draining");
    }
    world.send(a, json!({"type": "message", "content": 1}));
    assert_eq!(world.types(b), ["message"]);
    world.cut(b);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.types(a), ["peer-state"], "away, but not gone");
    assert!(world.revoked.is_empty());
    world.pass(Duration::from_secs(1));
    let told = world.take(a).remove(0);
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("peer-left"), &json!("draining"))
    );
    assert_eq!(world.closed.get(&a), Some(&1001));
    world.empties();
}

#[test]
fn with_an_alternate_clients_come_back_at_once_and_a_second_drain_counts() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    let end = |world: &World, s| world.now.instant + Duration::from_secs(s);
    let grace_ends = end(&world, 60);
    world.input(Input::Drain {
        grace_ends,
        alternate: true,
    });
    assert!(world.take(a)[0]["reconnectIn"].as_u64().unwrap() < 5_000);
    let grace_ends = end(&world, 1);
    world.input(Input::Drain {
        grace_ends,
        alternate: true,
    });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.closed.get(&a), Some(&1001));
    world.empties();
}

#[test]
fn new_settings_hold_from_then_on() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    let settings = Settings {
        max_peers: 1,
        ring: 0,
        ..Settings::default()
    };
    world.hub.reconfigure(settings, ice(false));
    assert_eq!(
        world.ask(a, json!({"type": "ice"}))["iceServers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let b = world.open();
    let joined = world.ask(b, json!({"type": "join", "roomId": "s"}));
    assert_eq!(joined["room"]["maxPeers"], 1);
    assert_eq!(world.hub.gauges().ring_bytes, 0);
    world.empties();
}

#[test]
fn nothing_secret_is_printed() {
    let mut world = World::new();
    let conn = world.open();
    let create = json!({"password": "s3cret"});
    let joined = world.ask(
        conn,
        json!({"type": "join", "roomId": "r", "create": create}),
    );
    let printed = format!("{:?}", world.hub);
    for secret in ["s3cret", "north", joined["resumeToken"].as_str().unwrap()] {
        assert!(!printed.contains(secret), "{secret}");
    }
}
