//! Coming in, going out, and who is refused.

use super::harness::{World, ice};
use super::*;
use crate::auth::{Role, RoomScope};
use serde_json::json;

#[test]
fn a_connection_is_welcomed_and_joins() {
    let mut world = World::new();
    let conn = world.open();
    let welcome = world.take(conn).remove(0);
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(
        (&welcome["protocol"], &welcome["heartbeat"]),
        (&json!(1), &json!(25))
    );
    assert_eq!(welcome["serverTime"], 1_700_000_000_000u64);
    assert!(welcome.get("seq").is_none());

    let joined = world.ask(
        conn,
        json!({"type": "join", "id": "1", "roomId": "r", "identity": "ann", "metadata": {"n": 1}}),
    );
    assert_eq!(joined["type"], "joined");
    assert_eq!((&joined["seq"], &joined["id"]), (&json!(1), &json!("1")));
    assert_eq!(joined["peerId"], welcome["peerId"]);
    assert_eq!(
        (&joined["role"], &joined["identity"]),
        (&json!("host"), &json!("ann"))
    );
    assert_eq!(joined["peers"], json!([]));
    assert_eq!(
        joined["room"],
        json!({"roomId": "r", "locked": false, "maxPeers": 50, "hasPassword": false,
               "metadata": null, "relayOnly": false, "createdAt": 1_700_000_000_000u64})
    );
    assert_eq!(
        joined["iceServers"][1]["username"]
            .as_str()
            .unwrap()
            .split(':')
            .nth(1),
        joined["peerId"].as_str()
    );
    assert_eq!(joined["iceTransportPolicy"], "all");
    assert_eq!(
        (&joined["ttl"], &joined["resumeWindow"]),
        (&json!(3600), &json!(30))
    );
    assert_eq!(joined["expiresAt"], 1_700_003_600);
    assert_eq!(joined["resumeToken"].as_str().unwrap().len(), 22);
    world.empties();
}

#[test]
fn members_see_each_other_come_and_go() {
    let mut world = World::new();
    let (a, joined_a) = world.join("r", "ann");
    let (b, joined_b) = world.join("r", "ben");
    assert_eq!(joined_b["peers"][0]["peerId"], joined_a["peerId"]);
    assert_eq!(joined_b["peers"][0]["identity"], "ann");
    assert_eq!(joined_b["peers"][0]["connection"], "online");
    assert_eq!(joined_b["role"], "member");

    let news = world.take(a).remove(0);
    assert_eq!(
        (&news["type"], &news["seq"]),
        (&json!("peer-joined"), &json!(2))
    );
    assert_eq!(news["peer"]["peerId"], joined_b["peerId"]);
    assert_eq!(
        (&news["peerId"], &news["identity"]),
        (&joined_b["peerId"], &json!("ben"))
    );

    let peers = world.ask(b, json!({"type": "list"}));
    assert_eq!(peers["peers"].as_array().unwrap().len(), 1);
    assert_eq!(peers["peers"][0], joined_b["peers"][0]);

    let left = world.ask(b, json!({"type": "leave"}));
    assert_eq!((&left["type"], &left["seq"]), (&json!("left"), &json!(3)));
    let news = world.take(a).remove(0);
    assert_eq!(
        (&news["type"], &news["reason"]),
        (&json!("peer-left"), &json!("left"))
    );
    assert_eq!(
        (&news["peerId"], &news["identity"]),
        (&joined_b["peerId"], &json!("ben"))
    );
    assert_eq!(world.ask(b, json!({"type": "list"}))["code"], "not-in-room");
    world.empties();
}

#[test]
fn a_missing_identity_is_the_peer_id_and_a_registered_one_stays() {
    let mut world = World::new();
    let conn = world.open();
    let joined = world.ask(conn, json!({"type": "join", "roomId": "r"}));
    assert_eq!(joined["identity"], joined["peerId"]);
    let (conn, _) = world.register("ann");
    let joined = world.ask(conn, json!({"type": "join", "roomId": "r"}));
    assert_eq!(joined["identity"], "ann");
    world.empties();
}

#[test]
fn a_second_join_leaves_the_first_room_and_begins_anew() {
    let mut world = World::new();
    let [(a, _), (b, b_id)] = world.party("one");
    let before = world.ask(b, json!({"type": "ping", "t": 5}));
    assert_eq!((&before["type"], &before["t"]), (&json!("pong"), &json!(5)));
    let joined = world.ask(b, json!({"type": "join", "roomId": "two"}));
    assert_eq!(
        (&joined["seq"], &joined["peerId"]),
        (&json!(1), &json!(b_id))
    );
    assert_eq!(joined["identity"], "p1");
    assert_eq!(world.types(a), ["peer-left"]);
    // The relays of the first room die; the new credentials are beyond what is refused.
    assert_eq!(world.revoked, [(b_id, 1_700_003_600)]);
    assert_eq!(joined["expiresAt"], 1_700_003_601);
    world.send(a, json!({"type": "message", "content": 1}));
    assert!(world.take(b).is_empty());
    world.empties();
}

#[test]
fn a_refused_join_leaves_everything_as_it_was() {
    let mut world = World::new();
    let [(a, _)] = world.party("one");
    let (b, _) = world.join("two", "b");
    world.ask(b, json!({"type": "room", "locked": true}));
    assert_eq!(
        world.ask(a, json!({"type": "join", "roomId": "two"}))["code"],
        "room-locked"
    );
    assert_eq!(world.ask(a, json!({"type": "list"}))["type"], "peers");
    world.empties();
}

#[test]
fn joining_the_same_room_again_is_leaving_and_coming_back() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    world.hub.settings.max_peers = 2;
    assert_eq!(
        world.ask(b, json!({"type": "join", "roomId": "r"}))["type"],
        "joined"
    );
    assert_eq!(world.types(a), ["peer-left", "peer-joined"]);
    world.ask(a, json!({"type": "leave"}));
    assert_eq!(
        world.ask(b, json!({"type": "join", "roomId": "r"}))["role"],
        "host"
    );
    world.empties();
}

#[test]
fn the_join_deadline_closes_who_stays_nobody() {
    let mut world = World::new();
    let idle = world.open();
    let (named, _) = world.register("ann");
    world.pass(Duration::from_secs(11));
    let got = world.take(idle);
    assert_eq!(got.last().unwrap()["code"], "unauthorized");
    assert_eq!(world.closed.get(&idle), Some(&4001));
    assert!(world.is_open(named));
    world.empties();
}

#[test]
fn tokens_decide_over_name_role_room_and_lists() {
    let mut world = World::new();
    let grant = Grant {
        identity: Some("token-name".into()),
        rooms: RoomScope::Matching(vec!["team-*".into()]),
        role: Some(Role::Viewer),
        call: false,
        list_rooms: true,
        metadata: Some(json!({"from": "token"})),
    };
    let conn = world.open();
    let join = |room: &str| json!({"type": "join", "roomId": room, "identity": "claimed"});
    assert_eq!(
        world.ask_as(conn, join("other"), Ok(grant.clone()))["code"],
        "forbidden"
    );
    let joined = world.ask_as(conn, join("team-1"), Ok(grant));
    assert_eq!(
        (&joined["identity"], &joined["role"]),
        (&json!("token-name"), &json!("viewer"))
    );
    assert_eq!(
        world.ask(conn, json!({"type": "rooms"}))["rooms"][0]["roomId"],
        "team-1"
    );
    let (other, seen) = world.join("team-1", "other");
    assert_eq!(seen["peers"][0]["metadata"], json!({"from": "token"}));
    assert_eq!(seen["role"], "member");
    assert_eq!(
        world.ask(other, json!({"type": "rooms"}))["code"],
        "forbidden"
    );
    let call = json!({"type": "call", "to": "other"});
    assert_eq!(world.ask(conn, call)["code"], "forbidden");
    world.empties();
}

#[test]
fn a_bad_token_is_told_and_closed_but_a_session_lives_on() {
    let mut world = World::new();
    let refusal = |code| Err(Refusal::new(code, "no"));
    let join = json!({"type": "join", "roomId": "r"});
    let conn = world.open();
    let answer = world.ask_as(conn, join.clone(), refusal(ErrorCode::TokenExpired));
    assert_eq!(answer["code"], "token-expired");
    assert_eq!(world.closed.get(&conn), Some(&4001));
    let [(conn, _)] = world.party("r");
    let answer = world.ask_as(conn, join, refusal(ErrorCode::Unauthorized));
    assert_eq!(answer["code"], "unauthorized");
    assert!(world.is_open(conn));
    world.empties();
}

#[test]
fn rooms_are_created_with_options_and_guarded() {
    let mut world = World::new();
    let host = world.open();
    let joined = world.ask(
        host,
        json!({"type": "join", "roomId": "r", "create":
            {"maxPeers": 2, "password": "pw", "metadata": {"topic": 1}, "relayOnly": true}}),
    );
    let room = &joined["room"];
    assert_eq!(
        (&room["maxPeers"], &room["hasPassword"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(
        (&room["metadata"], &room["relayOnly"]),
        (&json!({"topic": 1}), &json!(true))
    );
    assert_eq!(joined["iceTransportPolicy"], "relay");
    assert!(!joined.to_string().contains("pw"));

    let conn = world.open();
    let join = |password| json!({"type": "join", "roomId": "r", "password": password});
    assert_eq!(
        world.ask(conn, json!({"type": "join", "roomId": "r"}))["code"],
        "bad-password"
    );
    assert_eq!(world.ask(conn, join("PW"))["code"], "bad-password");
    assert_eq!(world.ask(conn, join("pw"))["type"], "joined");
    let third = world.open();
    assert_eq!(world.ask(third, join("pw"))["code"], "room-full");
    world.empties();
}

#[test]
fn guessing_passwords_is_slowed_for_the_network_and_room_only() {
    let mut world = World::new();
    let host = world.open();
    world.ask(
        host,
        json!({"type": "join", "roomId": "r", "create": {"password": "pw"}}),
    );
    let join = |password| json!({"type": "join", "roomId": "r", "password": password});
    let guesser = world.open_from("2001:db8::1");
    for _ in 0..10 {
        assert_eq!(world.ask(guesser, join("guess"))["code"], "bad-password");
    }
    let neighbour = world.open_from("2001:db8::2");
    let refused = world.ask(
        neighbour,
        json!({"type": "join", "id": "x", "roomId": "r", "password": "pw"}),
    );
    assert_eq!(
        (&refused["code"], &refused["retryAfter"]),
        (&json!("rate-limited"), &json!(6000))
    );
    let elsewhere = world.open_from("2001:db8:0:1::1");
    assert_eq!(world.ask(elsewhere, join("pw"))["type"], "joined");
    world.pass(Duration::from_secs(6));
    let retried = world.ask(
        neighbour,
        json!({"type": "join", "id": "x", "roomId": "r", "password": "pw"}),
    );
    assert_eq!(retried["type"], "joined");
    world.empties();
}

#[test]
fn tables_of_rooms_and_sessions_are_capped() {
    let settings = Settings {
        max_rooms: 1,
        max_sessions: 2,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let [(a, _), _] = world.party("r");
    let c = world.open();
    let refused = world.ask(c, json!({"type": "register", "identity": "c"}));
    assert_eq!(
        (&refused["code"], &refused["retryAfter"]),
        (&json!("rate-limited"), &json!(30000))
    );
    assert_eq!(
        world.ask(a, json!({"type": "join", "roomId": "s"}))["code"],
        "room-full"
    );
    assert_eq!(
        world.ask(a, json!({"type": "join", "roomId": "r"}))["type"],
        "joined"
    );
    world.empties();
}

#[test]
fn unique_identities_replace_or_are_refused() {
    let mut world = World::new();
    let [(a, _), (b, b_id)] = world.party("r");
    world.hub.settings.unique_identity = UniqueIdentity::Reject;
    let conn = world.open();
    let join = json!({"type": "join", "roomId": "r", "identity": "p1"});
    assert_eq!(world.ask(conn, join.clone())["code"], "identity-taken");
    world.hub.settings.unique_identity = UniqueIdentity::Replace;
    let joined = world.ask(conn, join);
    assert_eq!(joined["peers"].as_array().unwrap().len(), 1);
    assert_eq!(world.closed.get(&b), Some(&4004));
    assert_eq!(world.revoked[0].0, b_id);
    let news = world.take(a);
    assert_eq!(
        (&news[0]["type"], &news[0]["reason"]),
        (&json!("peer-left"), &json!("replaced"))
    );
    assert_eq!(news[1]["type"], "peer-joined");
    // Elsewhere the name is free.
    assert_eq!(world.join("other", "p1").1["type"], "joined");
    world.empties();
}

#[test]
fn who_replaces_the_only_member_finds_the_room_as_it_was() {
    let settings = Settings {
        unique_identity: UniqueIdentity::Replace,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let (a, _) = world.join("r", "ann");
    world.ask(a, json!({"type": "room", "password": "pw"}));
    let b = world.open();
    let join = json!({"type": "join", "roomId": "r", "identity": "ann", "password": "pw"});
    let joined = world.ask(b, join);
    assert_eq!(
        (&joined["role"], &joined["room"]["hasPassword"]),
        (&json!("host"), &json!(true))
    );
    assert_eq!(joined["peers"], json!([]));
    world.empties();
}

#[test]
fn the_role_of_host_passes_on_and_everyone_is_told() {
    let mut world = World::new();
    let [(a, _), (b, b_id), (c, _)] = world.party("r");
    world.ask(a, json!({"type": "leave"}));
    for conn in [b, c] {
        let news = world.take(conn);
        assert_eq!(news[0]["type"], "peer-left");
        assert_eq!(
            (&news[1]["type"], &news[1]["role"]),
            (&json!("peer-state"), &json!("host"))
        );
        assert_eq!(news[1]["peerId"], json!(b_id));
    }
    assert_eq!(
        world.ask(c, json!({"type": "room", "locked": true}))["code"],
        "forbidden"
    );
    assert_eq!(
        world.ask(b, json!({"type": "room", "locked": true}))["type"],
        "room-updated"
    );
    world.empties();
}

#[test]
fn credentials_are_renewed_unasked_at_three_quarters_of_their_life() {
    let mut world = World::new();
    let [(a, id)] = world.party("r");
    world.pass(Duration::from_secs(2699));
    assert!(world.take(a).is_empty());
    world.pass(Duration::from_secs(1));
    let pushed = world.take(a).remove(0);
    assert_eq!(
        (&pushed["type"], &pushed["ttl"]),
        (&json!("ice-servers"), &json!(3600))
    );
    let asked = world.ask(a, json!({"type": "ice"}));
    assert_eq!(asked["expiresAt"], pushed["expiresAt"]);
    world.ask(a, json!({"type": "leave"}));
    assert_eq!(world.revoked, [(id, 1_700_000_000 + 2700 + 3600)]);
    world.empties();
}

#[test]
fn without_a_relay_nothing_is_minted_or_revoked() {
    let mut world = World::with(Settings::default(), ice(false));
    let conn = world.open();
    let create = json!({"type": "join", "roomId": "r", "create": {"relayOnly": true}});
    assert_eq!(world.ask(conn, create)["code"], "no-relay");
    let joined = world.ask(conn, json!({"type": "join", "roomId": "r"}));
    assert_eq!(
        joined["iceServers"],
        json!([{"urls": ["stun:box.example:3478"]}])
    );
    let change = json!({"type": "room", "relayOnly": true});
    assert_eq!(world.ask(conn, change)["code"], "no-relay");
    world.empties();
    assert!(world.revoked.is_empty());
}
