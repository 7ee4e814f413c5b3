//! Rates, malformed frames, sizes and speed.

use super::harness::{World, ice};
use super::*;
use crate::protocol::{ExchangeRequest, FrameType};
use serde_json::{Value, json};

#[test]
fn a_flood_is_told_to_wait_and_then_closed() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    // The join was the first of the thousand.
    for _ in 1..1000 {
        world.send(a, json!({"type": "message", "content": 1}));
    }
    assert!(world.take(a).is_empty());
    assert_eq!(world.take(b).len(), 999);
    let refused = world.ask(a, json!({"type": "message", "id": "x", "content": 1}));
    assert_eq!(
        (&refused["code"], &refused["retryAfter"]),
        (&json!("rate-limited"), &json!(20))
    );
    world.pass(Duration::from_millis(20));
    let retried = world.ask(a, json!({"type": "message", "id": "x", "content": 1}));
    assert_eq!(retried["type"], "ack", "the same id may be tried again");
    for _ in 0..1100 {
        world.send(a, json!({"type": "message", "content": 1}));
    }
    assert_eq!(world.closed.get(&a), Some(&4006));
    assert_eq!(world.hub.gauges().away, 1, "it may resume");
    world.empties();
}

#[test]
fn candidates_have_a_bucket_of_their_own() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    for _ in 0..500 {
        world.send(a, json!({"type": "candidate", "candidate": null}));
    }
    assert_eq!(world.take(b).len(), 500);
    world.send(a, json!({"type": "candidate", "candidate": null}));
    assert_eq!(world.take(a)[0]["code"], "rate-limited");
    assert_eq!(world.ask(a, json!({"type": "ping"}))["type"], "pong");
    world.empties();
}

#[test]
fn ten_malformed_frames_in_a_row_close() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    let grant = || Ok(Grant::open());
    for _ in 0..9 {
        world.send_text(a, "{", grant());
    }
    assert_eq!(world.take(a).len(), 9);
    world.send(a, json!({"type": "ping"}));
    let bad = [("{", "invalid-json"), ("[]", "invalid-message")];
    world.clear();
    for (text, code) in bad.iter().cycle().take(10) {
        world.send_text(a, text, grant());
        assert_eq!(world.take(a)[0]["code"], *code);
    }
    assert_eq!(world.closed.get(&a), Some(&1008));
    world.send(a, json!({"type": "ping"}));
    assert!(world.take(a).is_empty());
    world.empties();
}

#[test]
fn what_is_a_json_object_is_not_malformed() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    let odd = [
        (r#"{"type":"x"}"#, "unknown-type"),
        (r#"{"type":"offer","sdp":7}"#, "invalid-message"),
        ("{}", "invalid-message"),
        (
            &format!(r#"{{"type":"join","roomId":"{}"}}"#, "x".repeat(129)),
            "too-large",
        ),
    ];
    for (text, code) in odd.iter().cycle().take(40) {
        world.send_text(a, "{", Ok(Grant::open()));
        world.send_text(a, text, Ok(Grant::open()));
        assert_eq!(world.take(a)[1]["code"], *code);
    }
    assert!(world.is_open(a));
    world.empties();
}

#[test]
fn binary_frames_and_large_fields_are_told_and_counted() {
    let mut world = World::new();
    let [(a, _)] = world.party("r");
    world.input(Input::Frame {
        conn: ConnId(a),
        message: Err(FrameError::binary()),
        grant: None,
    });
    world.send(a, json!({"type": "ping", "id": "x".repeat(65)}));
    let got = world.take(a);
    assert_eq!(
        (&got[0]["code"], &got[1]["code"]),
        (&json!("invalid-message"), &json!("too-large"))
    );
    let refused: BTreeMap<_, _> = world.hub.counters().refused().collect();
    assert_eq!(refused[&ErrorCode::TooLarge], 1);
    let received: BTreeMap<_, _> = world.hub.counters().received().collect();
    assert_eq!(received[&MessageType::Join], 1);
    world.empties();
}

#[test]
fn an_idle_session_is_small() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    for _ in 0..100 {
        world.send(a, json!({"type": "message", "content": "x".repeat(3000)}));
    }
    assert!(world.hub.gauges().ring_bytes > 50_000);
    for conn in [a, b] {
        let answer = world.ask(conn, json!({"type": "ping"}));
        world.confirm(conn, answer["seq"].as_u64().unwrap());
    }
    assert_eq!(world.hub.gauges().ring_bytes, 0);
    assert!(size_of::<Conn>() + size_of::<session::Session>() <= 560);
    world.empties();
}

#[test]
fn ten_thousand_operations_take_less_than_a_second() {
    let settings = Settings {
        rate: 0,
        candidate_rate: 0,
        ..Settings::default()
    };
    let mut hub = Hub::new(settings, ice(true), [1; 32]);
    let now = Now {
        instant: Instant::now(),
        unix_ms: 1_700_000_000_000,
    };
    // How many frames of each kind came of a frame.
    let run = |hub: &mut Hub, conn: u64, text: &str| {
        let input = Input::Frame {
            conn: ConnId(conn),
            message: crate::protocol::parse(text),
            grant: None,
        };
        let mut effects = Vec::new();
        hub.handle(now, input, &mut effects);
        let sent = |kind: FrameType| {
            let is_of = |effect: &&Effect| match effect {
                Effect::Send { event, .. } => event.kind() == kind,
                _ => false,
            };
            effects.iter().filter(is_of).count()
        };
        (sent(FrameType::Message), sent(FrameType::Ack))
    };
    let started = cpu_time();
    for conn in 0..1000 {
        let client = [127, 0, 0, 1].into();
        let conn = ConnId(conn);
        let dialect = DialectKind::Native;
        let connected = Input::Connected {
            conn,
            client,
            dialect,
            lobby: None,
        };
        hub.handle(now, connected, &mut Vec::new());
        let join = format!(r#"{{"type":"join","id":"1","roomId":"{}"}}"#, conn.0 / 2);
        run(&mut hub, conn.0, &join);
    }
    for n in 0..9000 {
        let message = format!(r#"{{"type":"message","id":"m{n}","content":"hello"}}"#);
        assert_eq!(run(&mut hub, n % 1000, &message), (1, 1));
    }
    let took = cpu_time() - started;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Of this thread: a loaded machine must not fail the test.
fn cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn who_never_enters_a_session_may_say_little() {
    for text in [
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"join","roomId":"r","password":"wrong"}"#,
    ] {
        let settings = Settings {
            rate: 0,
            ..Settings::default()
        };
        let mut world = World::with(settings, super::harness::ice(true));
        let [(host, _)] = world.party("r");
        world.ask(host, json!({"type": "room", "password": "right"}));
        let conn = world.open();
        for n in 0..250 {
            if n % 20 == 0 {
                world.pass(Duration::from_millis(100));
            }
            world.send_text(conn, text, Ok(Grant::open()));
        }
        assert_eq!(world.closed[&conn], 4001, "{text}");
        // Who is in a session may say as much as the rate allows.
        for _ in 0..250 {
            world.send_text(host, r#"{"type":"heartbeat"}"#, Ok(Grant::open()));
        }
        assert!(world.is_open(host));
    }
}

/// Bytes of messages, as JSON.
fn bytes_of(messages: &[Value]) -> usize {
    messages.iter().map(|m| m.to_string().len()).sum()
}

#[test]
fn no_pattern_of_one_network_fills_what_waits_for_another() {
    let big = json!({"type": "message", "content": "x".repeat(60_000)});
    let profile = json!({"x": "x".repeat(8_000)});
    let join = |room: &str| json!({"type": "join", "roomId": room, "metadata": profile});
    // Rooms by turns: who leaves sends little, and who comes much.
    let by_turns = |world: &mut World| {
        let (a, _) = world.join("b", "accomplice");
        for _ in 0..240 {
            world.send(a, join("b"));
            world.send(a, join("r"));
        }
    };
    let one_after_another = |world: &mut World| {
        for _ in 0..8 {
            let a = world.open();
            world.send(a, join("r"));
            world.send(a, big.clone());
            world.send(a, big.clone());
            world.cut(a);
        }
    };
    let at_once = |world: &mut World| {
        let conns: Vec<_> = (0..4).map(|_| world.open()).collect();
        conns.iter().for_each(|a| world.send(*a, join("r")));
        conns.iter().for_each(|a| world.send(*a, big.clone()));
        conns.iter().for_each(|a| world.send(*a, big.clone()));
    };
    let presence = |world: &mut World| {
        let mut a = world.open();
        let joined = world.ask(a, join("r"));
        world.send(a, json!({"type": "state", "state": profile}));
        for _ in 0..150 {
            world.cut(a);
            a = world.open();
            let token = &joined["resumeToken"];
            world.send(a, json!({"type": "resume", "resumeToken": token, "seq": 1}));
        }
    };
    let patterns: [&dyn Fn(&mut World); 4] = [&by_turns, &one_after_another, &at_once, &presence];
    for (index, pattern) in patterns.iter().enumerate() {
        let mut world = World::new();
        let victim = world.open_from("198.51.100.1");
        world.ask(victim, json!({"type": "join", "roomId": "r"}));
        world.take(victim);
        pattern(&mut world);
        let got = bytes_of(&world.take(victim));
        assert!((100_000..230_000).contains(&got), "pattern {index}: {got}");
        // Others are sent something all the same, and the network is again after a while.
        let other = world.open_from("203.0.113.1");
        let joined = world.ask(other, join("r"));
        assert_eq!(joined["type"], "joined");
        world.pass(Duration::from_secs(2));
        let late = world.open();
        assert_eq!(world.ask(late, join("r"))["type"], "joined");
        world.empties();
    }
}

#[test]
fn a_class_behind_one_address_negotiates_with_who_was_there() {
    let mut world = World::new();
    let (first, joined) = world.join("r", "first");
    let to = joined["peerId"].as_str().unwrap().to_owned();
    let pupils: Vec<_> = (0..28)
        .map(|n| world.join("r", &format!("pupil {n}")).0)
        .collect();
    world.take(first);
    let offer = json!({"type": "offer", "sdp": "v".repeat(5_000), "to": to});
    for pupil in &pupils {
        assert_eq!(world.ask(*pupil, offer.clone())["type"], "ack");
    }
    assert_eq!(world.take(first).len(), pupils.len());
}

#[test]
fn who_sends_others_much_waits_and_resuming_is_no_way_around() {
    let mut world = World::new();
    let [(b, _)] = world.party("r");
    let a = world.open();
    let joined = world.ask(a, json!({"type": "join", "roomId": "r"}));
    let big = json!({"type": "message", "content": "x".repeat(60_000)});
    for held in [false, false, true] {
        world.send(a, big.clone());
        assert_eq!(world.held.contains_key(&a), held);
    }
    let until = world.held[&a];
    let waits = until - world.now.instant;
    // 180 kB less the burst of 128 KiB, at 256 KiB a second.
    assert!(
        waits > Duration::from_millis(180) && waits < Duration::from_millis(200),
        "{waits:?}"
    );
    assert_eq!(world.take(b).len(), 4, "nothing is lost");
    world.cut(a);
    let a = world.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    world.ask(a, resume);
    assert_eq!(world.ask(a, big.clone())["code"], "rate-limited");
    world.pass(waits);
    world.send(a, big.clone());
    assert!(world.held[&a] > until);
    // Other ways to send bytes to others count as well, and what goes to oneself does not.
    for request in [
        json!({"type": "state", "state": {"x": "x".repeat(8_000)}}),
        json!({"type": "publish", "tracks": "x".repeat(8_000)}),
        json!({"type": "room", "metadata": "x".repeat(8_000)}),
    ] {
        let conn = if request["type"] == "room" { b } else { a };
        world.pass(Duration::from_secs(2));
        let before = world.held.get(&conn).copied();
        for _ in 0..20 {
            world.send(conn, request.clone());
        }
        assert!(
            world.held.get(&conn).copied() > before,
            "{}",
            request["type"]
        );
    }
    let before = world.held[&a];
    world.send(a, json!({"type": "ping", "t": "x".repeat(60_000)}));
    world.send(a, json!({"type": "list"}));
    assert_eq!(world.held[&a], before);
    world.empties();
}

#[test]
fn long_lists_come_in_parts_below_a_frame() {
    let settings = Settings {
        max_peers: 100,
        ..Settings::default()
    };
    let mut world = World::with(settings, super::harness::ice(true));
    let metadata = "x".repeat(8 * 1024 - 2);
    for _ in 0..30 {
        world.pass(Duration::from_millis(50));
        let conn = world.open();
        let join = json!({"type": "join", "roomId": "r", "metadata": metadata});
        world.ask(conn, join);
    }
    let collect = |frames: Vec<serde_json::Value>, first: &str| {
        let mut peers = vec![];
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(frame["type"], if n == 0 { first } else { "peers" });
            assert!(
                frame.to_string().len() < 64 * 1024,
                "{}",
                frame.to_string().len()
            );
            let more = frame.get("more").is_some_and(|more| more == true);
            assert_eq!(more, n + 1 < frames.len());
            assert_eq!(frame.get("id").is_some(), n == 0);
            peers.extend(
                frame["peers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|p| p["peerId"].clone()),
            );
        }
        assert!(frames.len() > 3);
        peers
    };
    let conn = world.open();
    world.clear();
    let join = json!({"type": "join", "id": "j", "roomId": "r", "metadata": 1});
    world.send(conn, join.clone());
    let joined = world.take(conn);
    let token = joined[0]["resumeToken"].clone();
    let peers = collect(joined, "joined");
    assert_eq!(peers.len(), 30);
    world.send(conn, join);
    assert_eq!(collect(world.take(conn), "joined"), peers, "given again");
    world.send(conn, json!({"type": "list", "id": "l"}));
    let listed = world.take(conn);
    let seq = listed.last().unwrap()["seq"].clone();
    assert_eq!(collect(listed, "peers"), peers);
    world.cut(conn);
    let conn = world.open();
    world.clear();
    world.send(
        conn,
        json!({"type": "resume", "id": "r", "resumeToken": token, "seq": seq}),
    );
    let resumed = world.take(conn);
    assert_eq!(resumed[0]["replayed"], 0);
    assert_eq!(collect(resumed, "resumed"), peers);
    // A short list is one frame, and says nothing of parts.
    let [(small, _), _] = world.party("small");
    world.send(small, json!({"type": "list", "id": "l"}));
    let frames = world.take(small);
    assert!(frames.len() == 1 && frames[0].get("more").is_none());
}

#[test]
fn nobody_of_any_dialect_talks_for_ever_without_entering() {
    use super::exchange::{OPEN, ask, claim, enter, subscribe};
    let settings = Settings {
        rate: 0,
        ..Settings::default()
    };
    let mut world = World::with(settings, super::harness::ice(true));
    let idle = || ExchangeRequest::Idle;
    let dialects = [
        DialectKind::Tutorial,
        DialectKind::SocketIo,
        DialectKind::PeerJs,
        DialectKind::YWebrtc,
        DialectKind::Trystero,
    ];
    for dialect in dialects {
        let conn = world.open_as("192.0.2.1", dialect);
        if dialect != DialectKind::Tutorial {
            ask(&mut world, conn, OPEN);
        }
        // The answers to the server's own pings are no more than silence.
        for _ in 0..300 {
            ask(&mut world, conn, ExchangeRequest::Alive);
        }
        assert!(world.is_open(conn), "{dialect:?}");
        for _ in 0..201 {
            ask(&mut world, conn, idle());
        }
        assert_eq!(world.closed.get(&conn), Some(&4001), "{dialect:?}");
        // Requests that are refused are no way in.
        let conn = world.open_as("192.0.2.1", dialect);
        for _ in 0..201 {
            world.send_text(conn, r#"{"type":"heartbeat"}"#, Ok(Grant::open()));
        }
        assert_eq!(world.closed.get(&conn), Some(&4001), "{dialect:?}");
    }
    // Who has a topic, a name, or a session, or speaks MQTT, goes on.
    let subscriber = enter(&mut world, DialectKind::YWebrtc);
    subscribe(&mut world, subscriber, "doc").unwrap();
    let named = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, named, "ann", 1);
    let publisher = enter(&mut world, DialectKind::Mqtt);
    let member = world.open_as("192.0.2.1", DialectKind::Tutorial);
    world.send(member, json!({"type": "join", "roomId": "r"}));
    for conn in [subscriber, named, publisher, member] {
        for _ in 0..300 {
            ask(&mut world, conn, idle());
        }
        assert!(world.is_open(conn), "{conn}");
    }
}
