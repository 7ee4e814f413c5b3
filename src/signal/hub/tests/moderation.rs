//! State, roles, and what hosts do.

use super::harness::World;
use super::*;
use serde_json::json;

#[test]
fn state_is_merged_and_shown_to_the_others() {
    let mut world = World::new();
    let [(a, a_id), (b, _)] = world.party("r");
    let state = json!({"type": "state", "state": {"hand": true, "at": {"x": 1, "y": 2}}});
    assert_eq!(world.ask(a, state)["type"], "ack");
    assert!(world.take(a).is_empty(), "who set it knows");
    let shown = world.take(b).remove(0);
    assert_eq!(
        (&shown["type"], &shown["peerId"]),
        (&json!("peer-state"), &json!(a_id))
    );
    assert_eq!(
        shown["state"],
        json!({"hand": true, "at": {"x": 1, "y": 2}})
    );
    world.ask(
        a,
        json!({"type": "state", "state": {"hand": null, "at": {"x": null, "z": 3}}}),
    );
    assert_eq!(world.take(b)[0]["state"], json!({"at": {"y": 2, "z": 3}}));
    world.ask(a, json!({"type": "mute", "kind": "audio"}));
    world.ask(a, json!({"type": "mute", "kind": "video"}));
    world.ask(a, json!({"type": "unmute", "kind": "audio"}));
    let shown = world.take(b).pop().unwrap();
    assert_eq!(
        shown["state"]["muted"],
        json!({"audio": false, "video": true})
    );
    let peers = world.ask(b, json!({"type": "list"}));
    assert_eq!(peers["peers"][0]["state"], shown["state"]);
    let big = json!({"type": "state", "state": {"more": "x".repeat(8 * 1024 - 20)}});
    assert_eq!(world.ask(a, big)["code"], "too-large");
    assert_eq!(
        world.ask(b, json!({"type": "list"}))["peers"],
        peers["peers"]
    );
    world.empties();
}

#[test]
fn a_host_asks_a_peer_to_mute() {
    let mut world = World::new();
    let [(a, a_id), (b, b_id), (c, _)] = world.party("r");
    let ask = json!({"type": "mute", "kind": "screen", "to": b_id, "why": {"noise": 9}});
    assert_eq!(world.ask(a, ask.clone())["type"], "ack");
    let got = world.take(b).remove(0);
    assert_eq!(
        (&got["type"], &got["kind"]),
        (&json!("mute"), &json!("screen"))
    );
    assert_eq!((&got["from"], &got["roomId"]), (&json!(a_id), &json!("r")));
    assert_eq!(got["why"], json!({"noise": 9}));
    assert!(world.take(c).is_empty());
    assert_eq!(world.ask(c, ask)["code"], "forbidden");
    let own = json!({"type": "unmute", "kind": "audio", "to": b_id});
    assert_eq!(world.ask(b, own)["type"], "ack");
    assert_eq!(world.types(c), ["peer-state"]);
    world.empties();
}

#[test]
fn a_kick_tells_closes_and_revokes() {
    let mut world = World::new();
    let [(a, a_id), (b, b_id), (c, c_id)] = world.party("r");
    let kick = |id: &str| json!({"type": "kick", "peerId": id, "reason": "spam"});
    assert_eq!(world.ask(b, kick(&a_id))["code"], "forbidden");
    assert_eq!(world.ask(a, kick(&a_id))["code"], "no-such-peer");
    assert_eq!(world.ask(a, kick("nobody"))["code"], "no-such-peer");
    assert_eq!(world.ask(a, kick(&b_id))["type"], "ack");
    let told = world.take(b).pop().unwrap();
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("kicked"), &json!("spam"))
    );
    assert_eq!(world.closed.get(&b), Some(&4002));
    let news = world.take(c).remove(0);
    assert_eq!(
        (&news["type"], &news["reason"]),
        (&json!("peer-left"), &json!("kicked"))
    );
    assert_eq!(world.revoked, [(b_id, 1_700_003_600)]);
    world.cut(c);
    assert_eq!(
        world.ask(a, kick(&c_id))["type"],
        "ack",
        "someone away can be kicked"
    );
    assert_eq!(world.hub.gauges().away, 0);
    world.empties();
}

#[test]
fn the_host_changes_the_room_and_all_are_told() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let change = json!({"type": "room", "locked": true, "maxPeers": 9000, "password": "pw",
        "metadata": {"topic": "x"}});
    assert_eq!(world.ask(b, change.clone())["code"], "forbidden");
    let changed = world.ask(a, change);
    let room = changed["room"].clone();
    assert_eq!(
        (&room["locked"], &room["maxPeers"]),
        (&json!(true), &json!(50))
    );
    assert_eq!(
        (&room["hasPassword"], &room["metadata"]),
        (&json!(true), &json!({"topic": "x"}))
    );
    let told = world.take(b).remove(0);
    assert_eq!(
        (&told["type"], &told["room"]),
        (&json!("room-updated"), &room)
    );
    let c = world.open();
    let join = json!({"type": "join", "roomId": "r", "password": "pw"});
    assert_eq!(world.ask(c, join)["code"], "room-locked");
    let change = json!({"type": "room", "locked": false, "password": null, "metadata": null});
    let room = world.ask(a, change)["room"].clone();
    assert_eq!(
        (&room["hasPassword"], &room["metadata"]),
        (&json!(false), &json!(null))
    );
    assert_eq!(
        world.ask(c, json!({"type": "join", "roomId": "r"}))["type"],
        "joined"
    );
    world.empties();
}

#[test]
fn the_reply_to_a_room_change_goes_before_the_new_credentials() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    world.send(a, json!({"type": "room", "relayOnly": true}));
    assert_eq!(world.types(a), ["room-updated", "ice-servers"]);
    world.send(a, json!({"type": "room", "relayOnly": true}));
    assert_eq!(world.types(a), ["room-updated"]);
    world.empties();
}

#[test]
fn roles_are_granted_and_bind() {
    let mut world = World::new();
    let [(a, a_id), (b, b_id), (c, _)] = world.party("r");
    let grant = |id: &str, role: &str| json!({"type": "grant", "peerId": id, "role": role});
    assert_eq!(world.ask(b, grant(&b_id, "host"))["code"], "forbidden");
    assert_eq!(
        world.ask(a, grant("nobody", "host"))["code"],
        "no-such-peer"
    );
    assert_eq!(world.ask(a, grant(&a_id, "member"))["code"], "forbidden");
    assert_eq!(world.ask(a, grant(&b_id, "viewer"))["type"], "ack");
    for conn in [b, c] {
        let shown = world.take(conn).remove(0);
        assert_eq!(
            (&shown["type"], &shown["role"]),
            (&json!("peer-state"), &json!("viewer"))
        );
    }
    assert_eq!(
        world.ask(b, json!({"type": "publish", "tracks": []}))["code"],
        "forbidden"
    );
    for allowed in [
        json!({"type": "answer", "sdp": "v=0"}),
        json!({"type": "candidate", "candidate": null}),
        json!({"type": "subscribe", "tracks": []}),
    ] {
        assert_eq!(world.ask(b, allowed)["type"], "ack");
    }
    world.ask(a, grant(&b_id, "host"));
    assert_eq!(world.ask(b, grant(&a_id, "member"))["type"], "ack");
    assert_eq!(
        world.ask(a, json!({"type": "room", "locked": true}))["code"],
        "forbidden"
    );
    world.empties();
}

#[test]
fn rooms_are_listed_where_the_configuration_allows() {
    let mut world = World::new();
    let [(a, _)] = world.party("b");
    world.join("a", "x");
    assert_eq!(world.ask(a, json!({"type": "rooms"}))["code"], "forbidden");
    world.hub.settings.list_rooms = true;
    let listed = world.ask(a, json!({"type": "rooms"}));
    assert_eq!(
        (&listed["rooms"][0]["roomId"], &listed["rooms"][1]["roomId"]),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(
        (&listed["rooms"][0]["peers"], &listed["truncated"]),
        (&json!(1), &json!(false))
    );
    let nobody = world.open();
    let refusal = Err(RequestError::new(ErrorCode::Unauthorized, "no"));
    assert_eq!(
        world.ask_as(nobody, json!({"type": "rooms"}), refusal)["code"],
        "unauthorized"
    );
    world.empties();
}

#[test]
fn a_long_list_of_rooms_is_cut_short() {
    let mut world = World::new();
    world.hub.settings.list_rooms = true;
    for n in 0..20 {
        let conn = world.open();
        let create = json!({"metadata": "x".repeat(8000)});
        world.ask(
            conn,
            json!({"type": "join", "roomId": format!("{n:02}"), "create": create}),
        );
    }
    let (a, _) = world.join("z", "x");
    let listed = world.ask(a, json!({"type": "rooms"}));
    assert_eq!(
        (
            listed["rooms"].as_array().unwrap().len(),
            &listed["truncated"]
        ),
        (15, &json!(true))
    );
    world.empties();
}

#[test]
fn a_kick_takes_the_credentials_that_the_same_token_took_over_http() {
    let mut world = World::new();
    let [(host, _)] = world.party("r");
    let by_token = Grant {
        identity: Some("mallory".into()),
        ..Grant::open()
    };
    let join = json!({"type": "join", "roomId": "r", "identity": "eve"});
    // An invitation, and a token without a name.
    let nameless = Grant {
        bearer: Some("digest".into()),
        ..Grant::open()
    };
    for (grant, kick, expected) in [
        (by_token.clone(), true, vec!["mallory"]),
        (by_token, false, vec![]),
        (nameless.clone(), true, vec!["digest"]),
        (Grant::open(), true, vec![]),
    ] {
        let conn = world.open();
        let peer = world.ask_as(conn, join.clone(), Ok(grant))["peerId"].clone();
        world.revoked.clear();
        if kick {
            world.ask(host, json!({"type": "kick", "peerId": peer}));
        } else {
            world.ask(conn, json!({"type": "leave"}));
        }
        let named: Vec<_> = world
            .revoked
            .iter()
            .filter(|(_, revoked_until)| *revoked_until == 0)
            .collect();
        assert_eq!(
            named.iter().map(|(user, _)| user).collect::<Vec<_>>(),
            expected
        );
    }
    let conn = world.open();
    world.ask_as(conn, join, Ok(nameless));
    world.revoked.clear();
    let mut effects = vec![];
    (world.hub)
        .close_room(world.now, "r", &mut effects)
        .unwrap();
    world.deliver(effects);
    let digest = ("digest".to_owned(), 0);
    assert!(world.revoked.contains(&digest), "the room was closed");
    world.empties();
}
