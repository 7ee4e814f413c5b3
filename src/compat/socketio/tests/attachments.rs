//! Events with bytes.

use super::*;

#[test]
fn attachments_follow_their_event_both_ways() {
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    let placeholder = |n: u32| json!({"_placeholder": true, "num": n});
    let event = json!(["file", {"to": OTHER, "a": placeholder(0)}, placeholder(1)]);
    bench.say(&format!("452-{event}"));
    bench.act(|d, now, out| d.decode(Incoming::Binary(b"one"), now, out));
    assert!(bench.sent().is_empty());
    bench.act(|d, now, out| d.decode(Incoming::Binary(b"two"), now, out));
    let asked = bench.asked.pop().unwrap().unwrap();
    let Request::Forward(forward) = asked.request else {
        panic!();
    };
    let message: Value = serde_json::from_str(&format!("{{{}}}", &forward.rest[1..])).unwrap();
    bench.texts.clear();
    bench.receives(OTHER, message["content"].clone());
    assert!(
        bench.texts[0].starts_with("452-[\"file\",{"),
        "{:?}",
        bench.texts
    );
    assert_eq!(bench.binaries, [b"one", b"two"]);
    // What stands for no attachment would end the receiver's connection.
    bench.asked.clear();
    for wrong in [json!(1), json!(-1), json!("0"), Value::Null] {
        let event = json!(["file", {"_placeholder": true, "num": wrong}]);
        bench.say(&format!("451-{event}"));
        bench.act(|d, now, out| d.decode(Incoming::Binary(b"x"), now, out));
        assert!(bench.asked.pop().unwrap().is_err());
        bench.asked.clear();
    }
    let large = vec![0; MAX_BINARY + 1];
    bench.say(&format!("451-{}", json!(["file", placeholder(0)])));
    bench.act(|d, now, out| d.decode(Incoming::Binary(&large), now, out));
    assert_eq!(
        bench.closing.as_ref().map(|c| c.code),
        Some(CloseCode::TooLarge)
    );
}

/// Pings go on meanwhile, and what has come of the event is held.
#[test]
fn attachments_that_do_not_come_end_the_connection() {
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    let placeholder = |n: u32| json!({"_placeholder": true, "num": n});
    let event = json!(["file", placeholder(0), placeholder(1)]);
    bench.say(&format!("452-{event}"));
    let by = bench.now + ATTACHED_WITHIN;
    bench.now += ATTACHED_WITHIN / 2;
    bench.act(|d, now, out| d.decode(Incoming::Binary(b"one"), now, out));
    // Another process goes on from there.
    let memory = bench.dialect.memory(bench.now).unwrap();
    bench.dialect = SocketIo::remembered(&memory, bench.now).unwrap();
    while bench.now < by {
        bench.now = bench.dialect.next_timeout().unwrap().min(by);
        bench.act(|d, now, out| d.timed_out(now, out));
        if std::mem::take(&mut bench.texts).contains(&"2".to_owned()) {
            bench.say("3");
        }
        assert!(bench.closing.is_none() || bench.now == by);
    }
    let closing = bench.closing.take().map(|closing| closing.code);
    assert_eq!(closing, Some(CloseCode::ProtocolError));
    assert!(bench.dialect.next_timeout().is_some_and(|at| at > by));
    // Those that come in time are not late for the next event.
    let mut bench = Bench::joined(Profile::Relay, json!(["join", "r"]));
    bench.say(&format!("451-{}", json!(["file", placeholder(0)])));
    bench.act(|d, now, out| d.decode(Incoming::Binary(b"one"), now, out));
    bench.now += ATTACHED_WITHIN;
    bench.act(|d, now, out| d.timed_out(now, out));
    let late = "attachments of an event did not come";
    assert!(bench.closing.is_none_or(|closing| closing.reason != late));
}

/// Who is not let in yet may send one, too.
#[test]
fn the_attachments_of_an_acknowledgement_are_counted_and_not_kept() {
    let mut bench = Bench::new(Revision::V4, Profile::Relay);
    let before = bench.held();
    bench.say(&format!("68-1{}", json!(["x".repeat(60_000)])));
    for n in 0..8 {
        let bytes = vec![n; MAX_BINARY / 8];
        assert!(bench.held() < before + 200, "{} bytes", bench.held());
        bench.act(|d, now, out| d.decode(Incoming::Binary(&bytes), now, out));
    }
    bench.say("40");
    assert!(bench.closing.is_none(), "all of them have come");
}
