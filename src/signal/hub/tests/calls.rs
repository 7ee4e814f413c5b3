//! Direct calls: ringing, several devices, answers, ends.

use super::harness::World;
use super::*;
use serde_json::{Value, json};

/// Ann calls Ben; both are registered. Returns their connections and the call.
fn ringing(world: &mut World) -> ((u64, String), (u64, String), Value) {
    let ann = world.register("ann");
    let ben = world.register("ben");
    let calling = world.ask(
        ann.0,
        json!({"type": "call", "to": "ben", "metadata": {"v": 1}}),
    );
    assert_eq!(calling["type"], "calling");
    (ann, ben, calling["callId"].clone())
}

#[test]
fn a_call_rings_is_taken_talks_and_ends() {
    let mut world = World::new();
    let ((a, a_id), (b, b_id), call) = ringing(&mut world);
    let ring = world.take(b).remove(0);
    assert_eq!((&ring["type"], &ring["callId"]), (&json!("call"), &call));
    assert_eq!(
        (&ring["from"], &ring["fromIdentity"]),
        (&json!(a_id), &json!("ann"))
    );
    assert_eq!(ring["metadata"], json!({"v": 1}));
    assert!(ring.get("to").is_none());
    let early = json!({"type": "offer", "sdp": "v=0", "to": b_id});
    assert_eq!(world.ask(a, early.clone())["code"], "no-such-peer");

    let accept = json!({"type": "accept", "callId": call, "metadata": 7});
    let ack = world.ask(b, accept);
    assert_eq!(
        (&ack["type"], &ack["iceTransportPolicy"]),
        (&json!("ack"), &json!("all"))
    );
    assert!(ack["iceServers"].is_array() && ack["ttl"].is_u64() && ack["expiresAt"].is_u64());
    let taken = world.take(a).remove(0);
    assert_eq!(
        (&taken["type"], &taken["callId"]),
        (&json!("accept"), &call)
    );
    assert_eq!(
        (&taken["from"], &taken["metadata"]),
        (&json!(b_id), &json!(7))
    );

    assert_eq!(world.ask(a, early)["type"], "ack");
    let offer = world.take(b).remove(0);
    assert_eq!((&offer["callId"], &offer["from"]), (&call, &json!(a_id)));
    assert!(offer.get("roomId").is_none());
    world.send(b, json!({"type": "message", "content": 1, "to": a_id}));
    assert_eq!(world.types(a), ["message"]);

    world.pass(Duration::from_secs(46));
    assert!(world.take(a).is_empty(), "a taken call does not time out");
    let over = json!({"type": "hangup", "callId": call, "reason": "tired"});
    world.ask(b, over);
    let ended = world.take(a).remove(0);
    assert_eq!(
        (&ended["type"], &ended["callId"]),
        (&json!("hangup"), &call)
    );
    assert_eq!(ended["reason"], "tired");
    let late = json!({"type": "message", "content": 1, "to": a_id});
    assert_eq!(world.ask(b, late)["code"], "no-such-peer");
    assert_eq!(
        world.ask(b, json!({"type": "hangup", "callId": call}))["code"],
        "no-such-call"
    );
    world.empties();
}

#[test]
fn every_device_rings_and_the_first_answer_wins() {
    let mut world = World::new();
    let (phone, _) = world.register("ben");
    let (laptop, joined) = world.join("r", "ben");
    let (caller, _) = world.register("ann");
    world.clear();
    let call = world.ask(caller, json!({"type": "call", "to": "ben"}))["callId"].clone();
    assert_eq!(world.types(phone), ["call"]);
    assert_eq!(world.types(laptop), ["call"]);
    world.ask(laptop, json!({"type": "accept", "callId": call}));
    let told = world.take(phone).remove(0);
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("hangup"), &json!("answered-elsewhere"))
    );
    assert_eq!(world.take(caller)[0]["from"], joined["peerId"]);
    let late = json!({"type": "accept", "callId": call});
    assert_eq!(world.ask(phone, late)["code"], "no-such-call");
    world.empties();
}

#[test]
fn the_last_reject_reaches_the_caller() {
    let mut world = World::new();
    let (phone, _) = world.register("ben");
    let (laptop, _) = world.register("ben");
    let (caller, _) = world.register("ann");
    let call = world.ask(caller, json!({"type": "call", "to": "ben"}))["callId"].clone();
    let reject = json!({"type": "reject", "callId": call, "reason": "busy"});
    assert_eq!(world.ask(phone, reject.clone())["type"], "ack");
    assert!(world.take(caller).is_empty());
    assert_eq!(world.ask(phone, reject.clone())["code"], "no-such-call");
    world.ask(laptop, reject);
    let told = world.take(caller).remove(0);
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("reject"), &json!("busy"))
    );
    assert_eq!(world.hub.gauges().calls, 0);
    world.empties();
}

#[test]
fn the_caller_may_cancel_and_a_device_may_decline_by_hangup() {
    let mut world = World::new();
    let ((a, _), (b, _), call) = ringing(&mut world);
    world.clear();
    let own = json!({"type": "hangup", "callId": call, "reason": "timeout", "metadata": 1});
    world.ask(a, own);
    let told = world.take(b).remove(0);
    assert_eq!(
        (&told["type"], &told["reason"], &told["metadata"]),
        (&json!("hangup"), &json!("cancelled"), &json!(1))
    );

    let call = world.ask(a, json!({"type": "call", "to": "ben"}))["callId"].clone();
    world.ask(b, json!({"type": "hangup", "callId": call}));
    assert_eq!(world.types(a), ["reject"]);
    assert_eq!(
        world.ask(a, json!({"type": "accept", "callId": call}))["code"],
        "no-such-call"
    );
    world.empties();
}

#[test]
fn a_call_nobody_takes_times_out_on_both_sides() {
    let mut world = World::new();
    let ((a, _), (b, _), call) = ringing(&mut world);
    world.clear();
    world.pass(Duration::from_secs(45));
    for conn in [a, b] {
        let told = world.take(conn).remove(0);
        assert_eq!(
            (&told["type"], &told["reason"]),
            (&json!("hangup"), &json!("timeout"))
        );
        assert_eq!(told["callId"], call);
    }
    world.empties();
}

#[test]
fn a_party_that_does_not_come_back_ends_the_call() {
    let mut world = World::new();
    let ((a, _), (b, _), call) = ringing(&mut world);
    world.ask(b, json!({"type": "accept", "callId": call}));
    world.clear();
    world.cut(b);
    world.pass(Duration::from_secs(29));
    assert!(world.take(a).is_empty());
    world.pass(Duration::from_secs(1));
    let told = world.take(a).remove(0);
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("hangup"), &json!("disconnected"))
    );
    world.empties();
}

#[test]
fn one_of_two_ringing_devices_may_go() {
    let mut world = World::new();
    let (phone, _) = world.register("ben");
    let (laptop, _) = world.register("ben");
    let (caller, _) = world.register("ann");
    let call = world.ask(caller, json!({"type": "call", "to": "ben"}))["callId"].clone();
    world.ask(phone, json!({"type": "leave"}));
    assert!(world.take(caller).is_empty());
    world.ask(laptop, json!({"type": "leave"}));
    let told = world.take(caller).remove(0);
    assert_eq!(
        (&told["reason"], &told["callId"]),
        (&json!("disconnected"), &call)
    );
    world.empties();
}

#[test]
fn calls_go_on_when_a_party_joins_a_room() {
    let mut world = World::new();
    let ((a, _), (b, b_id), call) = ringing(&mut world);
    world.ask(b, json!({"type": "accept", "callId": call}));
    assert_eq!(
        world.ask(b, json!({"type": "join", "roomId": "r"}))["seq"],
        1
    );
    assert!(world.revoked.is_empty());
    world.clear();
    world.send(a, json!({"type": "message", "content": 1, "to": b_id}));
    assert_eq!(world.types(b), ["message"]);
    world.ask(b, json!({"type": "leave"}));
    assert_eq!(world.types(a), ["hangup"]);
    world.empties();
}

#[test]
fn calls_by_peer_id_find_one_device_and_oneself_never() {
    let mut world = World::new();
    let (a, a_id) = world.register("ann");
    let (b, b_id) = world.register("ben");
    let (c, _) = world.register("ben");
    world.ask(a, json!({"type": "call", "to": b_id}));
    assert_eq!((world.types(b).len(), world.types(c).len()), (1, 0));
    for to in ["ann", &a_id, "nobody"] {
        assert_eq!(
            world.ask(a, json!({"type": "call", "to": to}))["code"],
            "no-such-peer"
        );
    }
    let nobody = world.open();
    assert_eq!(
        world.ask(nobody, json!({"type": "call", "to": "ben"}))["code"],
        "not-in-room"
    );
    world.empties();
}

#[test]
fn nobody_can_be_blocked_by_calls_that_ring() {
    let mut world = World::new();
    let call = |to: &str| json!({"type": "call", "to": to});
    let (b, _) = world.register("ben");
    let (mallory, _) = world.register("mallory");
    for allowed in [true, true, false, false] {
        let answer = world.ask(mallory, call("ben"));
        assert_eq!(answer["type"] == "calling", allowed, "{answer}");
    }
    let (friend, _) = world.register("friend");
    let calling = world.ask(friend, call("ben"));
    assert_eq!(calling["type"], "calling");
    // A network fills its half of what may ring, and no more.
    let mut placed = 0;
    for _ in 0..40 {
        let (conn, _) = world.register("again");
        placed += usize::from(world.ask(conn, call("ben"))["type"] == "calling");
    }
    assert_eq!(placed, 32 - 3);
    let elsewhere = world.open_from("198.51.100.1");
    world.ask(elsewhere, json!({"type": "register"}));
    assert_eq!(world.ask(elsewhere, call("ben"))["type"], "calling");
    // Whatever rings, the device itself places calls and takes them.
    assert_eq!(world.ask(b, call("friend"))["type"], "calling");
    let accept = json!({"type": "accept", "callId": calling["callId"]});
    assert_eq!(world.ask(b, accept)["type"], "ack");
    world.pass(Duration::from_secs(45));
    assert_eq!(world.ask(mallory, call("ben"))["type"], "calling");
    world.empties();
}

#[test]
fn a_call_from_elsewhere_takes_a_place_of_the_network_that_has_most() {
    let mut world = World::new();
    let call = |to: &str| json!({"type": "call", "to": to});
    let (ben, _) = world.register("ben");
    let from = |world: &mut World, client: &str, name: &str| {
        let conn = world.open_from(client);
        world.ask(conn, json!({"type": "register", "identity": name}));
        conn
    };
    // Two networks fill all places, by two calls of each client.
    let mut callers = vec![];
    for client in ["198.51.100.1", "198.51.100.2"] {
        for n in 0..16 {
            let conn = from(&mut world, client, &format!("{client} {n}"));
            for _ in 0..2 {
                assert_eq!(world.ask(conn, call("ben"))["type"], "calling");
            }
            callers.push(conn);
        }
    }
    world.clear();
    let friend = from(&mut world, "203.0.113.1", "friend");
    let calling = world.ask(friend, call("ben"));
    assert_eq!(calling["type"], "calling");
    assert_eq!(world.types(ben), ["hangup", "call"]);
    let told: Vec<_> = (callers.iter())
        .flat_map(|conn| world.take(*conn))
        .map(|told| (told["type"].clone(), told["reason"].clone()))
        .collect();
    assert_eq!(told, [(json!("hangup"), json!("timeout"))]);
    // The two have no more by it, and others never lose theirs to them.
    for client in ["198.51.100.1", "198.51.100.2"] {
        let conn = from(&mut world, client, "again");
        for _ in 0..4 {
            world.ask(conn, call("ben"));
        }
    }
    for n in 2..60 {
        let conn = from(&mut world, &format!("203.0.113.{n}"), "other");
        let answer = world.ask(conn, call("ben"));
        assert_eq!(answer["type"], "calling", "{n}: {answer}");
    }
    let accept = json!({"type": "accept", "callId": calling["callId"]});
    assert_eq!(world.ask(ben, accept)["type"], "ack");
    world.empties();
}

#[test]
fn namesakes_of_one_network_do_not_hide_a_person() {
    let mut world = World::new();
    for _ in 0..200 {
        world.register("ben");
    }
    let ben = world.open_from("203.0.113.1");
    world.ask(ben, json!({"type": "register", "identity": "ben"}));
    for n in 0..20 {
        let (caller, _) = world.register(&format!("ann {n}"));
        world.ask(caller, json!({"type": "call", "to": "ben"}));
        assert_eq!(world.types(ben), ["call"], "{n}");
    }
    // A person that has moved to another network is found there.
    let token = world.ask(ben, json!({"type": "join", "roomId": "r"}))["resumeToken"].clone();
    world.cut(ben);
    let moved = world.open_from("203.0.113.2");
    let resume = json!({"type": "resume", "resumeToken": token, "seq": 1});
    assert_eq!(world.ask(moved, resume)["type"], "resumed");
    world.clear();
    let (caller, _) = world.register("late");
    world.ask(caller, json!({"type": "call", "to": "ben"}));
    assert_eq!(world.types(moved), ["call"]);
    world.empties();
}

#[test]
fn pending_calls_are_capped() {
    let mut world = World::new();
    let (a, _) = world.register("ann");
    for n in 0..17 {
        let (_, to) = world.register("ben");
        let answer = world.ask(a, json!({"type": "call", "to": to}));
        assert_eq!(answer["type"] == "calling", n < 16, "{n}");
    }
    let calls = world.hub.gauges().calls;
    world.hub.settings.max_calls = calls;
    let (c, _) = world.register("cleo");
    let refused = world.ask(c, json!({"type": "call", "to": "ann"}));
    assert_eq!(
        (&refused["code"], &refused["retryAfter"]),
        (&json!("rate-limited"), &json!(45_000))
    );
    world.empties();
}

#[test]
fn calls_in_progress_are_capped_apart_from_those_that_ring() {
    let mut world = World::new();
    let (b, _) = world.register("ben");
    for n in 0..17 {
        let (conn, _) = world.register("caller");
        let calling = world.ask(conn, json!({"type": "call", "to": "ben"}));
        assert_eq!(calling["type"], "calling");
        let accepted = world.ask(b, json!({"type": "accept", "callId": calling["callId"]}));
        assert_eq!(accepted["type"] == "ack", n < 16, "{n}: {accepted}");
    }
    world.empties();
}

#[test]
fn a_call_waits_for_a_device_that_is_away() {
    let mut world = World::new();
    let conn = world.open();
    let registered = world.ask(conn, json!({"type": "register", "identity": "ben"}));
    world.cut(conn);
    let (a, _) = world.register("ann");
    world.ask(a, json!({"type": "call", "to": "ben"}));
    let conn = world.open();
    let resumed = world.ask(
        conn,
        json!({"type": "resume", "resumeToken": registered["resumeToken"], "seq": 1}),
    );
    assert_eq!(
        (&resumed["type"], &resumed["replayed"]),
        (&json!("resumed"), &json!(1))
    );
    assert!(resumed.get("roomId").is_none());
    assert_eq!(world.types(conn), ["call"]);
    world.empties();
}

/// What a client of one protocol has in rooms of its own is nothing to others, its name included.
#[test]
fn no_call_rings_where_no_client_could_answer_it() {
    let mut world = World::new();
    let (caller, _) = world.register("eve");
    let called = |world: &mut World, to: &str| {
        let answer = world.ask(caller, json!({"type": "call", "to": to}));
        answer["code"].as_str().map(str::to_owned)
    };
    for dialect in [DialectKind::SocketIo, DialectKind::Mqtt] {
        let conn = world.open_as("192.0.2.9", dialect);
        let joined = world.ask(
            conn,
            json!({"type": "join", "roomId": "r", "identity": "ann"}),
        );
        let peer = joined["peerId"].as_str().unwrap().to_owned();
        for to in ["ann", &peer] {
            assert_eq!(called(&mut world, to).as_deref(), Some("no-such-peer"));
        }
        assert!(world.take(conn).is_empty());
    }
    let tutorial = world.open_as("192.0.2.9", DialectKind::Tutorial);
    world.ask(tutorial, json!({"type": "register", "identity": "ann"}));
    assert_eq!(called(&mut world, "ann"), None);
    assert_eq!(world.types(tutorial), ["call"], "and there alone");
}
