//! Who is let in, under which name, and who is refused.

use super::harness::{World, ice};
use super::*;
use crate::auth::{Role, RoomPattern, RoomScope};
use serde_json::json;

#[test]
fn tokens_decide_over_name_role_room_and_lists() {
    let mut world = World::new();
    let grant = Grant {
        identity: Some("token-name".into()),
        chooses_identity: false,
        rooms: RoomScope::Matching(vec![RoomPattern::Glob("team-*".into())]),
        role: Some(Role::Viewer),
        call: false,
        list_rooms: true,
        metadata: Some(json!({"from": "token"})),
        ..Grant::open()
    };
    let conn = world.open();
    let join = |room: &str| {
        json!({"type": "join", "roomId": room, "identity": "claimed",
            "metadata": {"from": "client", "own": 1}})
    };
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
    assert_eq!(
        seen["peers"][0]["metadata"],
        json!({"from": "token", "own": 1}),
        "the token's keys go before the client's"
    );
    assert_eq!(seen["role"], "host", "there was none");
    assert_eq!(
        world.ask(other, json!({"type": "rooms"}))["code"],
        "forbidden"
    );
    let call = json!({"type": "call", "to": "other"});
    assert_eq!(world.ask(conn, call)["code"], "forbidden");
    world.empties();
}

#[test]
fn a_token_without_a_name_lets_nobody_choose_one() {
    let mut world = World::new();
    let nameless = || {
        Ok(Grant {
            chooses_identity: false,
            ..Grant::open()
        })
    };
    let conn = world.open();
    for claim in [
        json!({"type": "register", "identity": "boss"}),
        json!({"type": "join", "roomId": "r", "identity": "boss"}),
    ] {
        let entered = world.ask_as(conn, claim, nameless());
        assert_eq!(entered["identity"], entered["peerId"]);
    }
    let (named, _) = world.register("ann");
    let entered = world.ask_as(named, json!({"type": "join", "roomId": "r"}), nameless());
    assert_eq!(entered["identity"], entered["peerId"]);
    world.empties();
}

#[test]
fn a_bad_token_is_told_and_closed_but_a_session_lives_on() {
    let mut world = World::new();
    let refusal = |code| Err(RequestError::new(code, "no"));
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
fn rooms_count_against_the_network_of_who_made_them() {
    let mut world = World::with(
        Settings {
            max_rooms: 12,
            sessions_per_network: 4,
            ..Settings::default()
        },
        ice(true),
    );
    let mut made = 0;
    // A member of another network keeps a room when its maker leaves for the next one.
    for n in 0..6 {
        let join = json!({"type": "join", "roomId": format!("r{n}")});
        let maker = world.open_from("192.0.2.1");
        let answer = world.ask(maker, join.clone());
        made += usize::from(answer["type"] == "joined");
        assert!(n < 4 || answer["code"] == "rate-limited", "{answer}");
        let keeper = world.open_from(&format!("198.51.100.{n}"));
        world.ask(keeper, join);
        if world.is_open(maker) {
            world.ask(maker, json!({"type": "leave"}));
        }
    }
    assert_eq!(made, 4);
    // Networks of one /48 make half of all.
    let mut world = World::with(
        Settings {
            max_rooms: 12,
            sessions_per_network: 4,
            ..Settings::default()
        },
        ice(true),
    );
    for n in 0..12 {
        let conn = world.open_from(&format!("2001:db8:0:{n:x}00::1"));
        let answer = world.ask(conn, json!({"type": "join", "roomId": format!("w{n}")}));
        assert_eq!(answer["type"] == "joined", n < 6, "{answer}");
    }
    let other = world.open_from("203.0.113.1");
    let joined = world.ask(other, json!({"type": "join", "roomId": "mine"}));
    assert_eq!(joined["type"], "joined");
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
fn away_sessions_go_on_counting_against_their_network() {
    let settings = Settings {
        sessions_per_network: 2,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let join = |n: usize| json!({"type": "join", "roomId": format!("{n}")});
    let mut last = json!(null);
    for n in 0..2 {
        let conn = world.open_from("2001:db8::1");
        last = world.ask(conn, join(n));
        world.cut(conn);
    }
    let conn = world.open_from("2001:db8::2");
    let refused = world.ask(conn, join(2));
    assert_eq!(
        (&refused["code"], &refused["retryAfter"]),
        (&json!("rate-limited"), &json!(30000))
    );
    let elsewhere = world.open_from("2001:db8:0:1::1");
    assert_eq!(world.ask(elsewhere, join(2))["type"], "joined");
    let moved = world.open_from("192.0.2.9");
    let resume = json!({"type": "resume", "resumeToken": last["resumeToken"], "seq": 1});
    assert_eq!(world.ask(moved, resume)["type"], "resumed");
    assert_eq!(world.ask(conn, join(0))["type"], "joined");
    assert_eq!(
        world.ask(conn, join(1))["type"],
        "joined",
        "it has one already"
    );
    world.pass(Duration::from_secs(30));
    let of_one = Settings {
        sessions_per_network: 1,
        ..Settings::default()
    };
    let network = "2001:db8::".parse().unwrap();
    assert!(world.hub.sessions.is_network_full(network, &of_one));
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
fn a_tokens_role_rules() {
    let with = |role| {
        Ok(Grant {
            role: Some(role),
            ..Grant::open()
        })
    };
    let join = json!({"type": "join", "roomId": "r",
        "create": {"password": "p", "locked": true, "maxPeers": 1, "relayOnly": true}});
    // Who comes first by a member's token rules nothing, and makes the room as it would be anyway.
    let mut world = World::with(Settings::default(), ice(false));
    for role in [Role::Member, Role::Viewer] {
        let conn = world.open();
        let joined = world.ask_as(conn, join.clone(), with(role));
        assert_eq!(
            (&joined["type"], &joined["role"]),
            (&json!("joined"), &json!(role))
        );
        let room = &joined["room"];
        assert!(
            room["locked"] == false && room["hasPassword"] == false,
            "{room}"
        );
        assert!(
            room["maxPeers"] == 50 && room["relayOnly"] == false,
            "{room}"
        );
        world.ask(conn, json!({"type": "leave"}));
    }
    world.empties();

    // A host by coming first closes the room; the token's host comes in all the same.
    let mut world = World::new();
    let (first, joined) = world.join("r", "first");
    assert_eq!(joined["role"], "host");
    let first_id = &joined["peerId"];
    world.ask(
        first,
        json!({"type": "room", "locked": true, "password": "p", "maxPeers": 1}),
    );
    let member = world.open();
    assert_eq!(
        world.ask_as(member, join.clone(), with(Role::Member))["type"],
        "error"
    );
    let host = world.open();
    let joined = world.ask_as(host, join.clone(), with(Role::Host));
    assert_eq!(
        (&joined["type"], &joined["role"]),
        (&json!("joined"), &json!("host"))
    );
    let host_id = &joined["peerId"];
    for try_it in [
        json!({"type": "kick", "peerId": host_id}),
        json!({"type": "grant", "peerId": host_id, "role": "member"}),
        json!({"type": "grant", "peerId": host_id, "role": "viewer"}),
    ] {
        assert_eq!(world.ask(first, try_it)["code"], "forbidden");
    }
    let second = world.open();
    let wrong = json!({"type": "join", "roomId": "r", "password": "wrong"});
    let joined = world.ask_as(second, wrong, with(Role::Host));
    let second_id = &joined["peerId"];
    for ok in [
        json!({"type": "grant", "peerId": first_id, "role": "member"}),
        json!({"type": "grant", "peerId": second_id, "role": "member"}),
        json!({"type": "kick", "peerId": second_id}),
        json!({"type": "kick", "peerId": first_id}),
    ] {
        assert_eq!(world.ask(host, ok)["type"], "ack");
    }
    world.empties();
}

#[test]
fn a_room_of_one_box_holds_no_more_than_the_box_allows() {
    let settings = Settings {
        max_peers: 1,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    world.join("r", "a");
    let host = world.open();
    let grant = Grant {
        role: Some(Role::Host),
        ..Grant::open()
    };
    let joined = world.ask_as(host, json!({"type": "join", "roomId": "r"}), Ok(grant));
    assert_eq!(joined["code"], "room-full");
}

#[test]
fn a_token_may_forbid_to_subscribe() {
    let mut world = World::new();
    let [(other, _)] = world.party("r");
    let conn = world.open();
    let deaf = Grant {
        subscribe: false,
        ..Grant::open()
    };
    world.ask_as(conn, json!({"type": "join", "roomId": "r"}), Ok(deaf));
    world.clear();
    let subscribe = json!({"type": "subscribe", "tracks": 1});
    assert_eq!(world.ask(conn, subscribe.clone())["code"], "forbidden");
    assert_eq!(
        world.ask(conn, json!({"type": "publish", "tracks": 1}))["type"],
        "ack"
    );
    assert_eq!(world.ask(other, subscribe)["type"], "ack");
}

#[test]
fn a_session_that_ends_with_its_token_is_told_and_closed() {
    let mut world = World::new();
    let until = |world: &World, seconds: u64| {
        Ok(Grant {
            ends: Some(world.now.unix_ms / 1000 + seconds),
            ..Grant::open()
        })
    };
    let [(other, _)] = world.party("r");
    let conn = world.open();
    let (grant, join) = (until(&world, 60), json!({"type": "join", "roomId": "r"}));
    let joined = world.ask_as(conn, join, grant);
    assert_eq!(joined["ttl"], 60, "credentials end with the token");
    world.clear();
    world.pass(Duration::from_secs(59));
    assert!(world.is_open(conn));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.closed[&conn], 4001);
    let told = world.take(conn).pop().unwrap();
    assert_eq!(told["code"], "token-expired");
    let left = world.take(other).pop().unwrap();
    assert_eq!(
        (&left["type"], &left["reason"]),
        (&json!("peer-left"), &json!("disconnected"))
    );
    assert_eq!(world.revoked.len(), 1);

    // A new token in time keeps the name; a clock that was set back ends nothing early.
    let conn = world.open();
    let register = json!({"type": "register", "identity": "a"});
    for _ in 0..3 {
        let grant = until(&world, 60);
        world.ask_as(conn, register.clone(), grant);
        world.pass(Duration::from_secs(40));
    }
    world.now.unix_ms -= 600_000;
    world.pass(Duration::from_secs(500));
    assert!(world.is_open(conn));
    world.pass(Duration::from_secs(200));
    assert_eq!(world.closed[&conn], 4001);

    // A clock that is set forward, past the end of the token, ends the session: it began at a wrong time.
    let conn = world.open();
    let grant = until(&world, 3 * 24 * 3600);
    world.ask_as(conn, register, grant);
    world.pass(Duration::from_secs(60));
    assert!(world.is_open(conn));
    world.now.unix_ms += 4 * 24 * 3600 * 1000;
    world.pass(Duration::from_secs(11));
    assert_eq!(world.closed[&conn], 4001);
    world.empties();
}
