//! Lost connections and their resumption.

use super::harness::{World, ice};
use super::*;
use crate::protocol::ResumeToken;
use serde_json::{Value, json};

fn resume(world: &mut World, joined: &Value, seq: u64) -> (u64, Value) {
    let conn = world.open();
    let ask = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": seq});
    let answer = world.ask(conn, ask);
    (conn, answer)
}

fn contents(messages: &[Value]) -> Vec<(u64, u64)> {
    messages
        .iter()
        .filter(|m| m["type"] == "message")
        .map(|m| (m["seq"].as_u64().unwrap(), m["content"].as_u64().unwrap()))
        .collect()
}

#[test]
fn two_hundred_missed_messages_follow_in_order() {
    let mut world = World::new();
    let (a, _) = world.join("r", "ann");
    let (b, joined) = world.join("r", "ben");
    world.clear();
    world.cut(b);
    let news = world.take(a).remove(0);
    assert_eq!(
        (&news["type"], &news["connection"]),
        (&json!("peer-state"), &json!("away"))
    );
    for n in 0..200 {
        world.send(a, json!({"type": "message", "content": n}));
    }
    let (b2, resumed) = resume(&mut world, &joined, 1);
    assert_eq!(
        (&resumed["type"], &resumed["gap"]),
        (&json!("resumed"), &json!(false))
    );
    assert_eq!(
        (&resumed["replayed"], &resumed.get("seq")),
        (&json!(200), &None)
    );
    for same in [
        "peerId",
        "roomId",
        "identity",
        "role",
        "resumeToken",
        "room",
    ] {
        assert_eq!(resumed[same], joined[same], "{same}");
    }
    assert_eq!(resumed["peers"][0]["identity"], "ann");
    assert!(resumed["iceServers"].is_array());
    let missed = world.take(b2);
    assert_eq!(
        contents(&missed),
        (0..200).map(|n| (n + 2, n)).collect::<Vec<_>>()
    );
    let news = world.take(a).remove(0);
    assert_eq!(
        (&news["type"], &news["connection"]),
        (&json!("peer-state"), &json!("online"))
    );
    world.send(a, json!({"type": "message", "content": 200}));
    assert_eq!(contents(&world.take(b2)), [(202, 200)]);
    assert!(
        world.revoked.is_empty(),
        "relays live as long as the session"
    );
    world.empties();
}

#[test]
fn a_pong_of_the_session_before_confirms_nothing_of_the_resumed_one() {
    let mut world = World::new();
    let [(a, _), _] = world.party("r");
    let (lost, joined) = world.join("r", "ben");
    for n in 0..5 {
        world.send(a, json!({"type": "message", "content": n}));
    }
    world.cut(lost);
    let (used, _) = world.join("other", "ben");
    let before = world.peers[&used];
    world.send(used, json!({"type": "leave"}));
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    assert_eq!(world.ask(used, resume)["replayed"], 5);
    let (conn, seq) = (ConnId(used), 6);
    let kept = world.hub.gauges().ring_bytes;
    let peer = before;
    world.input(Input::Confirmed { conn, peer, seq });
    assert_eq!(world.hub.gauges().ring_bytes, kept);
    let peer = world.peers[&used];
    world.input(Input::Confirmed { conn, peer, seq });
    assert!(world.hub.gauges().ring_bytes < kept);
}

#[test]
fn confirmed_frames_are_not_kept_and_unseen_ones_make_a_gap() {
    let mut world = World::new();
    let (a, _) = world.join("r", "ann");
    let (b, joined) = world.join("r", "ben");
    for n in 0..10 {
        world.send(a, json!({"type": "message", "content": n}));
    }
    world.confirm(b, 6);
    world.cut(b);
    let (b, resumed) = resume(&mut world, &joined, 8);
    assert_eq!(
        (&resumed["gap"], &resumed["replayed"]),
        (&json!(false), &json!(3))
    );
    assert_eq!(contents(&world.take(b)), [(9, 7), (10, 8), (11, 9)]);
    world.cut(b);
    let (b, resumed) = resume(&mut world, &joined, 4);
    assert_eq!(
        (&resumed["gap"], &resumed["replayed"]),
        (&json!(true), &json!(3))
    );
    world.confirm(b, 1000);
    let peer = world.peers[&b];
    world.input(Input::Confirmed {
        conn: ConnId(999),
        peer,
        seq: 1,
    });
    assert_eq!(
        (world.hub.counters().resumes, world.hub.counters().gaps),
        (2, 1)
    );
    world.empties();
}

#[test]
fn rings_are_bounded_one_by_one_and_in_all() {
    let settings = Settings {
        ring: 2000,
        ring_total: 3000,
        sessions_per_network: u32::MAX,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let (a, _) = world.join("r", "ann");
    let (b, joined) = world.join("r", "ben");
    let (c, _) = world.join("r", "cy");
    world.cut(b);
    world.cut(c);
    for n in 0..100 {
        world.send(a, json!({"type": "message", "content": n}));
        assert!(world.hub.gauges().ring_bytes <= 3000);
    }
    let (b, resumed) = resume(&mut world, &joined, 1);
    assert_eq!(resumed["gap"], true);
    let got = contents(&world.take(b));
    assert!(!got.is_empty() && got.len() < 20);
    assert_eq!(got.last().unwrap().1, 99);
    world.empties();
}

#[test]
fn no_network_takes_the_resume_of_others() {
    let settings = Settings {
        ring: 2000,
        ring_total: 80_000,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let enter = |world: &mut World, from: &str, room: String| {
        let conn = world.open_as(from, DialectKind::Native);
        (
            conn,
            world.ask(conn, json!({"type": "join", "roomId": room})),
        )
    };
    for n in 0..60 {
        let room = format!("r{n}");
        let from = format!("2001:db8:0:{n:x}::1");
        let (talks, _) = enter(&mut world, &from, room.clone());
        let (silent, _) = enter(&mut world, &from, room);
        world.cut(silent);
        for _ in 0..4 {
            world.send(
                talks,
                json!({"type": "message", "content": "x".repeat(700)}),
            );
        }
    }
    let held = world.hub.gauges().ring_bytes;
    assert!(held > 30_000 && held <= 40_000, "{held}");

    let (friend, _) = enter(&mut world, "192.0.2.50", "v".into());
    let (lost, joined) = enter(&mut world, "192.0.2.51", "v".into());
    world.cut(lost);
    for n in 0..8 {
        world.send(friend, json!({"type": "message", "content": n}));
    }
    let (_, resumed) = resume(&mut world, &joined, 1);
    assert_eq!(
        (&resumed["replayed"], &resumed["gap"]),
        (&json!(8), &json!(false))
    );
    world.empties();
}

#[test]
fn the_window_ends_with_a_leave_and_a_revocation() {
    for (loss, reason) in [
        (Loss::Disconnected, "disconnected"),
        (Loss::Timeout, "timeout"),
    ] {
        let mut world = World::new();
        let (a, _) = world.join("r", "ann");
        let (b, joined) = world.join("r", "ben");
        world.input(Input::Closed {
            conn: ConnId(b),
            loss,
        });
        world.clear();
        world.pass(Duration::from_secs(30));
        let news = world.take(a).remove(0);
        assert_eq!(
            (&news["type"], &news["reason"]),
            (&json!("peer-left"), &json!(reason))
        );
        assert_eq!(world.revoked.len(), 1);
        let (late, answer) = resume(&mut world, &joined, 1);
        assert_eq!(answer["code"], "resume-failed");
        let join = json!({"type": "join", "roomId": "r"});
        assert_eq!(
            world.ask(late, join)["type"],
            "joined",
            "the connection is still good"
        );
    }
}

#[test]
fn a_resume_beats_a_connection_that_still_seems_alive() {
    let mut world = World::new();
    let (a, _) = world.join("r", "ann");
    let (old, joined) = world.join("r", "ben");
    world.clear();
    let (new, resumed) = resume(&mut world, &joined, 1);
    assert_eq!(resumed["type"], "resumed");
    assert_eq!(world.closed.get(&old), Some(&4004));
    assert!(world.take(a).is_empty(), "nobody was away");
    world.send(old, json!({"type": "message", "content": 1}));
    assert!(world.take(a).is_empty(), "the old connection is nobody's");
    world.send(new, json!({"type": "message", "content": 1}));
    assert_eq!(world.types(a), ["message"]);
    world.empties();
}

#[test]
fn requests_sent_again_after_a_resume_take_effect_once() {
    let mut world = World::new();
    let (a, _) = world.join("r", "ann");
    let (b, joined) = world.join("r", "ben");
    let message = json!({"type": "message", "id": "m", "content": 1});
    world.send(b, message.clone());
    world.cut(b);
    let (b, _) = resume(&mut world, &joined, 1);
    assert_eq!(world.types(b), ["ack"], "the lost ack is replayed");
    assert_eq!(world.ask(b, message)["type"], "ack");
    assert_eq!(contents(&world.take(a)).len(), 1);
    world.empties();
}

#[test]
fn the_same_resume_twice_is_answered_twice() {
    let mut world = World::new();
    let (a, _) = world.join("r", "ann");
    let (b, joined) = world.join("r", "ben");
    world.cut(b);
    world.send(a, json!({"type": "message", "content": 1}));
    let conn = world.open();
    let ask = json!({"type": "resume", "id": "r", "resumeToken": joined["resumeToken"], "seq": 1});
    let first = world.ask(conn, ask.clone());
    let mut second = world.ask(conn, ask);
    assert!(second.as_object_mut().unwrap().remove("seq").is_some());
    assert_eq!(first["type"], "resumed");
    assert_eq!(first, second);
    world.empties();
}

#[test]
fn bad_resumes_fail_and_harm_nobody() {
    let mut world = World::new();
    let (b, joined) = world.join("r", "ben");
    let conn = world.open();
    for token in ["", "x", "AAAAAAAAAAAAAAAAAAAAAA"] {
        let ask = json!({"type": "resume", "resumeToken": token, "seq": 1});
        assert_eq!(world.ask(conn, ask)["code"], "resume-failed");
    }
    let ahead = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 99});
    assert_eq!(world.ask(conn, ahead.clone())["code"], "resume-failed");
    assert!(world.is_open(b));
    assert_eq!(world.ask(b, ahead)["code"], "resume-failed");
    // A new join makes a new token.
    let again = world.ask(b, json!({"type": "join", "roomId": "r"}));
    assert_ne!(again["resumeToken"], joined["resumeToken"]);
    let (_, answer) = resume(&mut world, &joined, 1);
    assert_eq!(answer["code"], "resume-failed");
    world.ask(b, json!({"type": "leave"}));
    let (_, answer) = resume(&mut world, &again, 1);
    assert_eq!(answer["code"], "resume-failed");
    world.empties();
}

#[test]
fn who_was_ended_while_away_is_told_so_and_stays_out() {
    let mut world = World::new();
    let (host, _) = world.join("r", "ann");
    let (kicked, kicked_joined) = world.join("r", "ben");
    let (silent, silent_joined) = world.join("r", "cy");
    world.cut(kicked);
    for joined in [&kicked_joined, &silent_joined] {
        let kick = json!({"type": "kick", "peerId": joined["peerId"], "reason": "spam"});
        assert_eq!(world.ask(host, kick)["type"], "ack");
    }
    // The close never reached the second one: its connection was dead already.
    assert_eq!(world.closed.get(&silent), Some(&4002));
    for joined in [&kicked_joined, &silent_joined] {
        let conn = world.open();
        world.clear();
        world.send(conn, resume_of(joined));
        assert_eq!(world.types(conn), [""; 0]);
        assert_eq!(world.closed.get(&conn), Some(&4002));
    }
    // A replaced one would replace its replacement, and so on.
    world.hub.settings.unique_identity = UniqueIdentity::Replace;
    let (old, old_joined) = world.join("other", "dora");
    world.cut(old);
    let (new, _) = world.join("other", "dora");
    let conn = world.open();
    world.send(conn, resume_of(&old_joined));
    assert_eq!(world.closed.get(&conn), Some(&4004));
    assert!(world.is_open(new));
    // A room that the operator closed is not made anew.
    let (member, joined) = world.join("closed", "eve");
    world.cut(member);
    let mut effects = Vec::new();
    assert!(
        world
            .hub
            .close_room(world.now, "closed", &mut effects)
            .is_ok()
    );
    let conn = world.open();
    world.send(conn, resume_of(&joined));
    assert_eq!(world.closed.get(&conn), Some(&4007));
    // A new process knows it too.
    let snapshot = serde_json::to_string(&world.hub.snapshot(world.now)).unwrap();
    let snapshot = serde_json::from_str(&snapshot).unwrap();
    let settings = world.hub.settings.clone();
    world.hub = Hub::restore(world.now, snapshot, settings, ice(true), [3; 32]).unwrap();
    let conn = world.open();
    world.send(conn, resume_of(&kicked_joined));
    assert_eq!(world.closed.get(&conn), Some(&4002));
    // Another node says it too; a session that lives here is none of its business.
    let (member, joined) = world.join("there", "fay");
    world.cut(member);
    let token = ResumeToken::parse(joined["resumeToken"].as_str().unwrap());
    let living = EndedSession {
        token: token.unwrap().digest(),
        network: [198, 51, 100, 7].into(),
        code: CloseCode::Kicked,
    };
    world.hub.ended_elsewhere(world.now, living);
    let (_, answer) = resume(&mut world, &joined, 1);
    assert_eq!(answer["type"], "resumed");
    let mut other = World::new();
    other.hub.ended_elsewhere(other.now, living);
    let conn = other.open();
    other.send(conn, resume_of(&joined));
    assert_eq!(other.closed.get(&conn), Some(&4002));
    // It is over with the window, as everything else that could be resumed.
    world.pass(Duration::from_secs(30));
    let (_, answer) = resume(&mut world, &kicked_joined, 1);
    assert_eq!(answer["code"], "resume-failed");
    // Who left by itself, or joined anew, is told what it was told before.
    let (leaver, left) = world.join("r", "finn");
    world.ask(leaver, json!({"type": "leave"}));
    let (_, answer) = resume(&mut world, &left, 1);
    assert_eq!(answer["code"], "resume-failed");
    world.empties();
}

fn resume_of(joined: &Value) -> Value {
    json!({"type": "resume", "id": "r", "resumeToken": joined["resumeToken"], "seq": 1})
}

#[test]
fn an_away_host_has_not_left() {
    let mut world = World::new();
    let (a, joined) = world.join("r", "ann");
    let (b, _) = world.join("r", "ben");
    world.cut(a);
    world.clear();
    assert_eq!(
        world.ask(b, json!({"type": "room", "locked": true}))["code"],
        "forbidden"
    );
    let (a, resumed) = resume(&mut world, &joined, 2);
    assert_eq!(resumed["role"], "host");
    assert_eq!(
        world.ask(a, json!({"type": "room", "locked": true}))["type"],
        "room-updated"
    );
    world.empties();
}

#[test]
fn credentials_of_an_away_session_are_renewed_into_its_ring() {
    let settings = Settings {
        resume_window: Duration::from_secs(9000),
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let (a, joined) = world.join("r", "ann");
    world.cut(a);
    world.pass(Duration::from_secs(3000));
    let (a, resumed) = resume(&mut world, &joined, 1);
    assert_eq!(resumed["replayed"], 1);
    assert_eq!(world.types(a), ["ice-servers"]);
}

#[test]
fn rates_used_up_stay_used_up_across_a_resume() {
    let mut world = World::new();
    let (a, joined) = world.join("r", "ann");
    for _ in 1..1000 {
        world.send(a, json!({"type": "ping"}));
    }
    let seen = world.take(a).last().unwrap()["seq"].as_u64().unwrap();
    world.cut(a);
    let (a, resumed) = resume(&mut world, &joined, seen);
    assert_eq!(resumed["type"], "resumed");
    assert_eq!(
        world.ask(a, json!({"type": "ping"}))["code"],
        "rate-limited"
    );
    world.empties();
}

#[test]
fn a_clock_that_is_set_renews_everybodys_credentials() {
    let mut world = World::new();
    let [(a, _), (b, _)] = world.party("r");
    let day = 24 * 3600 * 1000;
    for forward in [true, false] {
        world.pass(Duration::from_secs(60));
        world.now.unix_ms += 200;
        world.clear();
        world.pass(Duration::from_secs(60));
        assert!(
            world.take(a).is_empty() && world.take(b).is_empty(),
            "a drift is not a step"
        );
        world.now.unix_ms = match forward {
            true => world.now.unix_ms + day,
            false => world.now.unix_ms - day,
        };
        // Noticed without any input.
        world.pass(Duration::from_secs(11));
        for conn in [a, b] {
            let pushed = world.take(conn);
            assert_eq!(pushed.len(), 1);
            let expires = pushed[0]["expiresAt"].as_u64().unwrap();
            assert!(
                expires.abs_diff(world.now.unix_ms / 1000 + 3600) <= 11,
                "{pushed:?}"
            );
        }
    }
    assert_eq!(world.hub.counters().clock_steps, 2);
    world.empties();
}
