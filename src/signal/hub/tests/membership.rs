//! Coming in and going out.

use super::harness::{World, ice};
use super::*;
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
fn the_only_member_who_joins_again_finds_the_room_as_it_was() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    let change = json!({"type": "room", "locked": true, "password": "pw", "maxPeers": 3,
        "metadata": {"topic": 1}, "relayOnly": true});
    let before = world.ask(a, change)["room"].clone();
    let create = json!({"metadata": 2});
    world.pass(Duration::from_secs(1));
    let joined = world.ask(a, json!({"type": "join", "roomId": "r", "create": create}));
    assert_eq!(
        (&joined["room"], &joined["role"]),
        (&before, &json!("host"))
    );
    world.ask(a, json!({"type": "join", "roomId": "s"}));
    let joined = world.ask(a, json!({"type": "join", "roomId": "r"}));
    assert_eq!(joined["room"]["hasPassword"], false, "it ended meanwhile");
    world.empties();
}

#[test]
fn who_leaves_has_another_ten_seconds_to_join() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    world.pass(Duration::from_secs(60));
    for conn in [a, b] {
        world.ask(conn, json!({"type": "leave"}));
    }
    world.pass(Duration::from_secs(9));
    world.ask(b, json!({"type": "join", "roomId": "r"}));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.closed.get(&a), Some(&4001));
    assert!(world.is_open(b));
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
