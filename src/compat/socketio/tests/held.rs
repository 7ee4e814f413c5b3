//! What a client says before its join is answered: clients send everything in one go.

use super::*;

#[test]
fn what_follows_a_join_is_said_in_the_room() {
    let mut bench = Bench::connected(Profile::Relay);
    bench.emit(json!(["join", "r"]));
    bench.say(&format!("427{}", json!(["hello", {"to": OTHER}])));
    bench.say(&format!(
        "451-{}",
        json!(["file", {"_placeholder": true, "num": 0}])
    ));
    bench.act(|d, now, out| d.decode(Incoming::Binary(b"one"), now, out));
    bench.say("428[\"leave\"]");
    bench.emit(json!(["join", "s"]));
    bench.say(&format!("429{}", json!(["hello", 1])));
    assert!(bench.texts.is_empty(), "{:?}", bench.texts);
    // Pings are answered, and another process goes on from there.
    bench.later(25);
    assert_eq!(bench.texts.pop().as_deref(), Some("2"));
    bench.say("3");
    let memory = bench.dialect.memory(bench.now).unwrap();
    bench.dialect = SocketIo::remembered(&memory, bench.now).unwrap();
    bench.enter(json!([peer(OTHER, "olga")]));
    let asked = std::mem::take(&mut bench.asked);
    let asked: Vec<_> = asked
        .into_iter()
        .filter_map(|asked| {
            let message = asked.unwrap();
            Some(match message.request {
                Request::Forward(forward) => (message.id, forward.to),
                Request::Leave => (message.id, Some("leave".to_owned())),
                Request::Join(join) => (None, Some(join.room_id)),
                _ => return None,
            })
        })
        .collect();
    let id = |ack: &str| Some(format!("ack-{ack}"));
    assert_eq!(
        asked,
        [
            (None, Some(KIND.own_room("r"))),
            (id("7"), Some(OTHER.to_string())),
            (None, None),
            (id("8"), Some("leave".to_owned())),
            (None, Some(KIND.own_room("s"))),
        ]
    );
}

#[test]
fn who_is_not_let_in_is_told_so_for_each() {
    let mut bench = Bench::connected(Profile::Relay);
    bench.say(&format!("421{}", json!(["join", "r"])));
    bench.say(&format!("422{}", json!(["hello", 1])));
    let id = bench.asked.last().unwrap().as_ref().unwrap().id.clone();
    bench.native(
        FrameType::Error,
        json!({"id": id, "code": "room-full", "message": "full"}),
    );
    let failed = |ack: &str, code: &str| {
        let text = bench.texts.iter().find(|text| text.starts_with(ack));
        assert!(text.is_some_and(|text| text.contains(code)), "{ack} {code}");
    };
    failed("431", "room-full");
    failed("432", "not-in-room");
}

#[test]
fn a_client_without_an_answer_cannot_have_much_kept() {
    let mut bench = Bench::connected(Profile::Relay);
    bench.emit(json!(["join", "r"]));
    for n in 1.. {
        bench.emit(json!(["hello", "x".repeat(10_000)]));
        if bench.closing.is_some() {
            assert_eq!(n, 14, "128 KiB");
            break;
        }
        assert!(n < 14);
    }
    let mut bench = Bench::connected(Profile::Relay);
    bench.emit(json!(["join", "r"]));
    (0..256).for_each(|_| bench.emit(json!(["x"])));
    assert!(bench.closing.is_none(), "what one request holds");
    bench.emit(json!(["x"]));
    assert_eq!(
        bench.closing.as_ref().map(|c| c.code),
        Some(CloseCode::RateLimited)
    );
}

/// An attack: it would be kept for as long as the connection is open.
#[test]
fn a_token_is_kept_where_joins_need_it_and_never_a_long_one() {
    for (revision, refusal) in [
        (Revision::V3, r#"44"unauthorized""#),
        (Revision::V4, r#"44{"message":"unauthorized"}"#),
    ] {
        let mut bench = Bench::new(revision, Profile::Relay);
        bench.say("40");
        bench.event(Event::Exchange(Box::new(ExchangeReply::Opened)));
        bench.say("41");
        let before = bench.held();
        bench.texts.clear();
        bench.say(&format!(
            "40{}",
            json!({"token": "x".repeat(MAX_TOKEN + 1)})
        ));
        assert!(bench.held() < before + 100, "{} bytes", bench.held());
        assert_eq!(bench.texts, [refusal]);
        bench.say(r#"40{"token":"a.b.c"}"#);
        assert!(bench.held() >= before + "a.b.c".len());
        assert_eq!(bench.dialect.phase, Phase::Connected);
    }
    for keeps_token in [true, false] {
        let mut bench = Bench::new(Revision::V4, Profile::Relay);
        bench.dialect.opening.keeps_token = keeps_token;
        bench.say(r#"40{"token":"a.b.c"}"#);
        bench.event(Event::Exchange(Box::new(ExchangeReply::Opened)));
        bench.emit(json!(["join", "r"]));
        assert_eq!(bench.join().token.is_some(), keeps_token);
    }
}
