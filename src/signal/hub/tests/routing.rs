//! Who receives what, with which stamps, and once.

use super::harness::World;
use super::*;
use serde_json::json;

#[test]
fn messages_reach_the_room_or_one_peer_with_the_servers_stamps() {
    let mut world = World::new();
    let [(a, a_id), (b, b_id), (c, _)] = world.party("r");
    for message in [
        json!({"type": "offer", "sdp": "v=0"}),
        json!({"type": "answer", "sdp": {"type": "answer", "sdp": "v=0"}}),
        json!({"type": "candidate", "candidate": {"candidate": "candidate:1", "sdpMid": "0"}}),
        json!({"type": "candidate", "candidate": null}),
        json!({"type": "message", "content": {"deep": [1, null]}}),
        json!({"type": "hangup", "reason": "bye"}),
        json!({"type": "publish", "tracks": ["t"]}),
        json!({"type": "subscribe", "tracks": ["t"]}),
    ] {
        let mut forged = message.clone();
        for (key, value) in [
            ("from", "x"),
            ("fromIdentity", "x"),
            ("roomId", "x"),
            ("callId", "x"),
        ] {
            // `hangup` with a call id is a hangup of that call.
            if message["type"] != "hangup" || key != "callId" {
                forged[key] = json!(value);
            }
        }
        forged["ts"] = json!(1);
        assert_eq!(world.ask(a, forged.clone())["type"], "ack");
        for conn in [b, c] {
            let mut got = world.take(conn).remove(0);
            assert!(got["seq"].is_u64() && got.as_object_mut().unwrap().remove("seq").is_some());
            let mut expected = message.clone();
            expected["from"] = json!(a_id);
            expected["fromIdentity"] = json!("p0");
            expected["roomId"] = json!("r");
            expected["ts"] = json!(1_700_000_000_000u64);
            assert_eq!(got, expected);
        }
        forged["to"] = json!(b_id);
        world.send(a, forged);
        assert_eq!(world.take(b)[0]["to"], json!(b_id));
        assert!(world.take(a).is_empty() && world.take(c).is_empty());
    }
    world.empties();
}

#[test]
fn text_is_relayed_as_it_was_written() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let text = r#"{"type":"message","content":{"b":12345678901234567890123,"a":"\ud800","c":1.0}}"#;
    let mut effects = Vec::new();
    let message = crate::protocol::parse(text);
    let input = Input::Frame {
        conn: ConnId(a),
        message,
        grant: None,
    };
    world.hub.handle(world.now, input, &mut effects);
    let [
        Effect::Send {
            conn,
            event: Event::Native(body),
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*conn, ConnId(b));
    let content = r#""content":{"b":12345678901234567890123,"a":"\ud800","c":1.0}"#;
    assert!(body.as_str().contains(content), "{}", body.as_str());
    let stamps = r#","fromIdentity":"p0","roomId":"r","ts":1700000000000}"#;
    assert!(
        body.as_str().ends_with(stamps),
        "stamps come last: {}",
        body.as_str()
    );
}

#[test]
fn nothing_crosses_rooms_and_absent_targets_are_told() {
    let mut world = World::new();
    let [(a, a_id)] = world.party("one");
    let (b, joined) = world.join("two", "b");
    let (c, c_id) = world.register("c");
    for to in [
        joined["peerId"].as_str().unwrap(),
        &c_id,
        &a_id,
        "p0",
        "nobody",
    ] {
        let message = json!({"type": "message", "content": 1, "to": to});
        assert_eq!(world.ask(a, message)["code"], "no-such-peer", "{to}");
    }
    assert!(world.take(b).is_empty());
    assert_eq!(
        world.ask(c, json!({"type": "message", "content": 1}))["code"],
        "not-in-room"
    );
    let nobody = world.open();
    assert_eq!(
        world.ask(nobody, json!({"type": "message", "content": 1}))["code"],
        "not-in-room"
    );
    assert_eq!(
        world.ask(nobody, json!({"type": "ice"}))["code"],
        "not-in-room"
    );
    assert_eq!(
        world.ask(nobody, json!({"type": "leave"}))["code"],
        "not-in-room"
    );
    world.empties();
}

#[test]
fn an_id_is_answered_once_and_takes_effect_once() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let message = json!({"type": "message", "id": "m", "content": 1});
    for _ in 0..3 {
        assert_eq!(world.ask(a, message.clone())["type"], "ack");
    }
    assert_eq!(world.types(b), ["message"]);
    let refused = json!({"type": "message", "id": "n", "content": 1, "to": "nobody"});
    let first = world.ask(a, refused.clone());
    let second = world.ask(a, refused);
    assert_eq!(
        (&first["code"], &first["message"]),
        (&second["code"], &second["message"])
    );
    world.send(a, json!({"type": "message", "content": 1}));
    assert!(world.take(a).is_empty(), "no id, no ack");
    for n in 0..64 {
        world.ask(a, json!({"type": "ping", "id": n.to_string()}));
    }
    world.clear();
    world.ask(a, message);
    assert_eq!(world.types(b), ["message"], "the 65th last is forgotten");
    world.empties();
}

#[test]
fn long_replies_are_made_again_without_their_effect() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let conn = world.open();
    let join = json!({"type": "join", "id": "j", "roomId": "r", "metadata": "x".repeat(600)});
    let first = world.ask(conn, join.clone());
    world.clear();
    let second = world.ask(conn, join.clone());
    assert_eq!(second["type"], "joined");
    for same in ["peerId", "resumeToken", "peers", "role"] {
        assert_eq!(first[same], second[same]);
    }
    assert!(world.take(a).is_empty() && world.take(b).is_empty());
    for kind in ["list", "ice", "ping"] {
        let ask = json!({"type": kind, "id": kind, "t": "x".repeat(600)});
        assert_eq!(
            world.ask(conn, ask.clone())["type"],
            world.ask(conn, ask)["type"]
        );
    }
    let change = json!({"type": "room", "id": "c", "metadata": "y".repeat(600)});
    world.ask(a, change.clone());
    world.clear();
    assert_eq!(world.ask(a, change)["type"], "room-updated");
    assert!(world.take(b).is_empty());
    world.ask(conn, json!({"type": "leave"}));
    world.clear();
    let third = world.ask(conn, join);
    assert_eq!(third["code"], "not-in-room", "what was left is not redone");
    assert!(world.take(a).is_empty());
    world.empties();
}

#[test]
fn an_old_id_never_does_or_tells_of_something_else() {
    let mut world = World::new();
    let [(a, _)] = world.party("h4");
    let conn = world.open();
    let join = |id: &str, room: &str| json!({"type": "join", "id": id, "roomId": room});
    let (j, k) = (join("J", "h3"), join("K", "h4"));
    assert_eq!(world.ask(conn, j.clone())["roomId"], "h3");
    assert_eq!(world.ask(conn, k.clone())["roomId"], "h4");
    world.clear();
    assert_eq!(world.ask(conn, j.clone())["code"], "not-in-room");
    assert_eq!(world.ask(conn, k.clone())["roomId"], "h4");
    let list = json!({"type": "list", "id": "L"});
    let pad = json!({"type": "state", "state": {"x": "x".repeat(600)}});
    world.ask(a, pad);
    assert_eq!(world.ask(conn, list.clone())["type"], "peers");
    assert_eq!(world.ask(conn, list)["type"], "peers");
    assert_eq!(world.ask(conn, join("L", "h5"))["code"], "invalid-message");
    world.ask(conn, json!({"type": "leave", "id": "M"}));
    world.clear();
    assert_eq!(world.ask(conn, k)["code"], "not-in-room");
    assert_eq!(world.ask(conn, j)["code"], "not-in-room");
    let left = world.ask(conn, json!({"type": "leave", "id": "M"}));
    assert_eq!(left["type"], "left");
    assert!(world.take(a).is_empty() && world.hub.gauges().rooms == 1);
    world.empties();
}

#[test]
fn relay_only_rooms_keep_addresses_back() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let changed = world.ask(a, json!({"type": "room", "relayOnly": true}));
    assert_eq!(changed["room"]["relayOnly"], true);
    for conn in [a, b] {
        let pushed = world.take(conn);
        let ice = pushed.iter().find(|m| m["type"] == "ice-servers").unwrap();
        assert_eq!(ice["iceTransportPolicy"], "relay");
    }
    let host = "candidate:1 1 udp 2122260223 192.168.0.196 46243 typ host";
    let relay =
        "candidate:2 1 udp 41885439 198.51.100.9 61665 typ relay raddr 203.0.113.77 rport 5";
    assert_eq!(
        world.ask(a, json!({"type": "candidate", "candidate": host}))["type"],
        "ack"
    );
    assert!(world.take(b).is_empty());
    assert_eq!(world.hub.counters().withheld_candidates, 1);
    world.send(a, json!({"type": "candidate", "candidate": relay}));
    assert!(
        world.take(b)[0]["candidate"]
            .as_str()
            .unwrap()
            .ends_with("raddr 0.0.0.0 rport 0")
    );
    let sdp = format!("v=0\r\nc=IN IP4 203.0.113.77\r\na={host}\r\na={relay}\r\n");
    for sdp in [json!(sdp), json!({"type": "offer", "sdp": sdp})] {
        world.send(a, json!({"type": "offer", "sdp": sdp}));
        let got = world.take(b).remove(0).to_string();
        assert!(
            !got.contains("203.0.113.77") && !got.contains("192.168"),
            "{got}"
        );
        assert!(got.contains("198.51.100.9"));
    }
    let cheat = r#"{"type":"offer","sdp":"\ud800","id":"x"}"#;
    world.send_text(a, cheat, Ok(Grant::open()));
    assert_eq!(world.take(a)[0]["code"], "invalid-message");
    assert_eq!(
        world.ask(b, json!({"type": "ice"}))["iceTransportPolicy"],
        "relay"
    );
    world.empties();
}

#[test]
fn nothing_beside_the_payload_carries_a_candidate_out_of_a_relay_only_room() {
    let mut world = World::new();
    let [(a, a_id), (b, b_id)] = world.party("r");
    world.ask(a, json!({"type": "room", "relayOnly": true}));
    let (c, c_id) = world.register("c");
    let calling = world.ask(a, json!({"type": "call", "to": "c"}));
    world.ask(c, json!({"type": "accept", "callId": calling["callId"]}));
    let host = "a=candidate:1 1 udp 2122260223 192.168.7.7 50000 typ host";
    for message in [
        json!({"type": "offer", "sdp": "t=0 0", "candidate": host, "candidates": [host]}),
        json!({"type": "answer", "sdp": {"type": "answer", "sdp": ""}, "candidate": host}),
        json!({"type": "candidate", "candidate": null, "sdp": host}),
        json!({"type": "candidate", "candidate": null, "sdpMid": {"candidate": host}}),
        json!({"type": "candidate", "candidate": {"candidate": "", "sdpMid": {"candidate": host}}}),
        json!({"type": "candidate", "candidate": "", "usernameFragment": host}),
    ] {
        for (to, conn) in [(&b_id, b), (&c_id, c)] {
            let mut message = message.clone();
            message["to"] = json!(to);
            world.clear();
            assert_eq!(world.ask(a, message.clone())["type"], "ack");
            let got = world.take(conn).remove(0);
            assert!(!got.to_string().contains("192.168.7.7"), "{got}");
            assert_eq!((&got["to"], &got["from"]), (&json!(to), &json!(a_id)));
        }
    }
    let labels = json!({"type": "candidate", "candidate": "", "sdpMid": "0", "sdpMLineIndex": 1,
        "usernameFragment": "F7gI"});
    world.clear();
    world.send(a, labels.clone());
    let got = world.take(b).remove(0);
    for label in ["sdpMid", "sdpMLineIndex", "usernameFragment"] {
        assert_eq!(got[label], labels[label]);
    }
    world.empties();
}

#[test]
fn a_reply_does_not_outlive_its_session() {
    // Without a relay every reply is short enough to be kept as text.
    let mut world = World::with(Settings::default(), super::harness::ice(false));
    let (_, other) = world.register("ben");
    let conn = world.open();
    let requests = [
        json!({"type": "register", "id": "r", "identity": "ann"}),
        json!({"type": "call", "id": "c", "to": other}),
        json!({"type": "ice", "id": "i"}),
    ];
    for request in &requests {
        assert_ne!(world.ask(conn, request.clone())["type"], "error");
        assert_ne!(world.ask(conn, request.clone())["type"], "error");
    }
    world.ask(conn, json!({"type": "leave", "id": "l"}));
    for request in &requests {
        let revived = world.ask(conn, request.clone());
        assert_eq!(revived["code"], "not-in-room", "{revived}");
    }
    assert_eq!(
        world.ask(conn, json!({"type": "leave", "id": "l"}))["type"],
        "left"
    );
    // Nor does it come to life in another session.
    world.ask(conn, json!({"type": "join", "id": "j", "roomId": "x"}));
    assert_eq!(world.ask(conn, requests[0].clone())["code"], "not-in-room");
    assert_eq!(world.ask(conn, requests[1].clone())["code"], "not-in-room");
    world.ask(conn, json!({"type": "join", "roomId": "y"}));
    let j = json!({"type": "join", "id": "j", "roomId": "x"});
    assert_eq!(world.ask(conn, j)["code"], "not-in-room");
    world.empties();
}
