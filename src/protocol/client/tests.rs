//! What parses, what does not, and what is relayed as it was.

use super::*;
use crate::protocol::{MAX_METADATA, MAX_REASON, write_json_str};
use proptest::prelude::*;
use secrecy::ExposeSecret;

fn ok(text: &str) -> ClientMessage {
    parse(text).unwrap()
}

fn code(text: &str) -> &'static str {
    parse(text).unwrap_err().code.as_str()
}

fn relay(text: &str) -> Forward {
    match ok(text).request {
        Request::Forward(relay) => relay,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_a_message_is_told_apart() {
    for text in [
        "",
        "x",
        "{",
        "[1,",
        r#"{"type":"ping""#,
        "{} {}",
        r#"{"type":"ping",}"#,
    ] {
        assert_eq!(code(text), "invalid-json", "{text}");
    }
    for text in [
        "[]",
        "1",
        "null",
        "\"ping\"",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":null}"#,
    ] {
        assert_eq!(code(text), "invalid-message", "{text}");
    }
    assert_eq!(code(r#"{"type":"Ping"}"#), "unknown-type");
    for (text, malformed) in [
        ("{", true),
        ("[]", true),
        ("{}", false),
        (r#"{"type":"x"}"#, false),
        (r#"{"type":"ping","id":7}"#, false),
        (r#"{"type":"join","roomId":""}"#, false),
    ] {
        assert_eq!(parse(text).unwrap_err().malformed, malformed, "{text}");
    }
}

#[test]
fn an_id_is_read_in_spite_of_other_faults() {
    let error = parse(r#"{"type":"join","id":"7"}"#).unwrap_err();
    assert_eq!(error.id.as_deref(), Some("7"));
    let error = parse(r#"{"type":"nope","id":"8"}"#).unwrap_err();
    assert_eq!(
        (error.code, error.id.as_deref()),
        (ErrorCode::UnknownType, Some("8"))
    );
    assert_eq!(
        code(&format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(65))),
        "too-large"
    );
    assert_eq!(code(r#"{"type":"ping","id":7}"#), "invalid-message");
}

#[test]
fn names_are_short_printable_and_not_empty() {
    let join = |room: &str| format!(r#"{{"type":"join","roomId":"{room}"}}"#);
    assert!(parse(&join(&"é".repeat(64))).is_ok());
    assert_eq!(code(&join(&"é".repeat(65))), "too-large");
    for bad in ["", "\\n", "a\\u0000b", "\\u0085", "\\ud800"] {
        assert_eq!(code(&join(bad)), "invalid-message", "{bad}");
    }
    assert_eq!(code(r#"{"type":"join"}"#), "invalid-message");
    assert_eq!(
        code(r#"{"type":"join","roomId":"r","identity":5}"#),
        "invalid-message"
    );
}

#[test]
fn null_is_absence_where_absence_has_a_meaning() {
    let Request::Join(join) = ok(
        r#"{"type":"join","roomId":"r","identity":null,"password":null,"metadata":null,"create":null}"#,
    )
    .request
    else {
        panic!()
    };
    assert!(join.identity.is_none() && join.password.is_none() && join.metadata.is_none());
    let Request::Room(patch) = ok(r#"{"type":"room","password":null,"locked":null}"#).request
    else {
        panic!()
    };
    assert!(matches!(patch.password, Some(None)) && patch.locked.is_none());
    assert!(patch.metadata.is_none());
}

#[test]
fn relayed_text_stays_as_it_was_but_for_stamps_and_secrets() {
    let relay = relay(concat!(
        r#"{"ts":1, "content" : {"b":1,"a":12345678901234567890123,"a":"\ud800"} ,"#,
        r#""fr\u006fm":"forged","seq":9,"token":"t","roomId":"x","type":"message","extra":[1, 2],"to":"p"}"#,
    ));
    assert_eq!(
        relay.rest,
        r#","content":{"b":1,"a":12345678901234567890123,"a":"\ud800"},"extra":[1, 2],"to":"p""#
    );
    assert_eq!(relay.to.as_deref(), Some("p"));
}

#[test]
fn only_the_last_sdp_is_relayed() {
    let relay = relay(r#"{"type":"offer","sdp":"first","sdp":"last","more":1}"#);
    assert!(matches!(relay.payload, Payload::Sdp(sdp) if sdp.get() == "\"last\""));
    assert_eq!(relay.rest, r#","more":1"#);
}

#[test]
fn payloads_have_their_types() {
    for good in [
        r#"{"type":"offer","sdp":"v=0"}"#,
        r#"{"type":"answer","sdp":{"type":"answer","sdp":"v=0"}}"#,
        r#"{"type":"candidate","candidate":null}"#,
        r#"{"type":"candidate","candidate":""}"#,
        r#"{"type":"candidate","candidate":{"candidate":"x"}}"#,
        r#"{"type":"message","content":null}"#,
        r#"{"type":"publish","tracks":[]}"#,
        r#"{"type":"hangup"}"#,
        r#"{"type":"ping"}"#,
    ] {
        ok(good);
    }
    for bad in [
        r#"{"type":"offer"}"#,
        r#"{"type":"offer","sdp":null}"#,
        r#"{"type":"offer","sdp":{"sdp":1}}"#,
        r#"{"type":"offer","sdp":{}}"#,
        r#"{"type":"candidate"}"#,
        r#"{"type":"candidate","candidate":1}"#,
        r#"{"type":"message"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"accept"}"#,
        r#"{"type":"hangup","callId":1}"#,
        r#"{"type":"mute","kind":"smell"}"#,
        r#"{"type":"grant","peerId":"p","role":"king"}"#,
        r#"{"type":"resume","resumeToken":"t"}"#,
        r#"{"type":"resume","resumeToken":"t","seq":-1}"#,
        r#"{"type":"resume","resumeToken":"t","seq":1e300}"#,
        r#"{"type":"room","maxPeers":0}"#,
        r#"{"type":"room","maxPeers":4294967296}"#,
        r#"{"type":"join","roomId":"r","create":[]}"#,
        r#"{"type":"state","state":[]}"#,
        r#"{"type":"state"}"#,
    ] {
        assert_eq!(code(bad), "invalid-message", "{bad}");
    }
}

#[test]
fn fields_over_their_limit_are_too_large() {
    let big = "x".repeat(MAX_METADATA);
    assert_eq!(
        code(&format!(
            r#"{{"type":"join","roomId":"r","metadata":"{big}"}}"#
        )),
        "too-large"
    );
    assert_eq!(
        code(&format!(r#"{{"type":"state","state":{{"a":"{big}"}}}}"#)),
        "too-large"
    );
    assert_eq!(
        code(&format!(r#"{{"type":"call","to":"a","metadata":"{big}"}}"#)),
        "too-large"
    );
    let reason = "x".repeat(MAX_REASON + 1);
    assert_eq!(
        code(&format!(
            r#"{{"type":"reject","callId":"c","reason":"{reason}"}}"#
        )),
        "too-large"
    );
}

#[test]
fn nesting_ends_at_64_levels_and_counts_the_frame() {
    let arrays = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    for (field, kind) in [("content", "message"), ("x", "list"), ("tracks", "publish")] {
        let frame = |depth: usize| {
            let value = arrays(depth - 1);
            format!(r#"{{"type":"{kind}","id":"7","{field}":{value}}}"#)
        };
        ok(&frame(64));
        for depth in [65, 66, 1000, 30_000] {
            let error = parse(&frame(depth)).unwrap_err();
            assert_eq!(
                (error.code.as_str(), error.malformed),
                ("invalid-message", false)
            );
            assert_eq!(error.id.as_deref(), Some("7"));
        }
    }
    let nested = format!("{}1{}", r#"{"a":"#.repeat(64), "}".repeat(64));
    for text in [
        format!(r#"{{"type":"state","state":{nested}}}"#),
        format!(r#"{{"type":"join","roomId":"r","create":{{"metadata":{nested}}}}}"#),
    ] {
        assert_eq!(code(&text), "invalid-message");
    }
    assert!(RoomPatch::from_json(&format!(r#"{{"metadata":{nested}}}"#)).is_err());
    // Many brackets are not depth, and those in strings do not count.
    let wide = format!("[{}[]]", "[],".repeat(500));
    ok(&format!(r#"{{"type":"message","content":{wide}}}"#));
    let quoted = r#"\"[{"#.repeat(500);
    ok(&format!(
        r#"{{"type":"message","content":"{quoted}","more":[]}}"#
    ));
    assert_eq!(code(&"[".repeat(500)), "invalid-json");
}

#[test]
fn another_name_for_to_is_refused_in_every_message() {
    for text in [
        r#"{"type":"message","content":1,"target":"p"}"#,
        r#"{"type":"offer","sdp":"v=0","targetId":null}"#,
        r#"{"type":"hangup","targetID":"p","to":"p"}"#,
        r#"{"type":"list","t\u0061rget":1}"#,
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidMessage);
        assert!(
            error.message.contains("did you mean `to`?"),
            "{}",
            error.message
        );
    }
    ok(r#"{"type":"message","content":{"target":"p"},"targets":1}"#);
}

#[test]
fn fields_that_the_server_owns_are_dropped_in_every_case_from_every_relayed_message() {
    let owned = concat!(
        r#""From":1,"FROMIDENTITY":1,"\u017feq":1,"ROOMID":1,"T\u0053":1,"to\u212aen":1,"Type":"kicked","#,
        r#""peerid":1,"IceServers":[],"iceTransportPolicy":1,"TTL":1,"expiresAt":1,"resumeToken":1,"#,
        r#""resumeWindow":1,"peers":1,"Peer":1,"room":1,"role":1,"code":1,"retryAfter":1,"ID":1"#,
    );
    let rest_of = |text: &str| match ok(text).request {
        Request::Forward(relay) => relay.rest,
        Request::Call { rest, .. } | Request::Mute { rest, .. } => rest,
        Request::Accept(signal) | Request::Reject(signal) | Request::Hangup(signal) => signal.rest,
        other => panic!("{other:?}"),
    };
    for fields in [
        r#""type":"offer","sdp":"v","Sdp":"w""#,
        r#""type":"answer","sdp":"v""#,
        r#""type":"candidate","candidate":null"#,
        r#""type":"hangup""#,
        r#""type":"hangup","callId":"c","REASON":1"#,
        r#""type":"accept","callId":"c""#,
        r#""type":"reject","callId":"c""#,
        r#""type":"call","to":"a""#,
        r#""type":"mute","kind":"audio""#,
        r#""type":"unmute","kind":"audio""#,
    ] {
        let rest = rest_of(&format!(
            r#"{{{owned},{fields},"kept":{{"from":1,"Seq":2}}}}"#
        ));
        let rest = rest.replace(r#","kind":"audio""#, "");
        assert_eq!(rest, r#","kept":{"from":1,"Seq":2}"#, "{fields}");
    }
    for (kind, field) in [
        ("message", "content"),
        ("publish", "tracks"),
        ("subscribe", "tracks"),
    ] {
        let text = format!(r#"{{"type":"{kind}","{field}":{{"Type":1,"iceServers":2}},{owned}}}"#);
        assert_eq!(
            rest_of(&text),
            format!(r#","{field}":{{"Type":1,"iceServers":2}}"#)
        );
    }
}

#[test]
fn secrets_are_read_but_not_printed() {
    let message = ok(r#"{"type":"join","roomId":"r","token":"s3cret","password":"s3cret"}"#);
    assert!(!format!("{message:?}").contains("s3cret"));
    assert_eq!(message.token().unwrap().expose_secret(), "s3cret");
    assert!(message.wants_grant());
}

proptest! {
    #[test]
    fn any_text_parses_or_errs(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_object_parses_or_errs(
        kind in prop::sample::select(MessageType::ALL),
        fields in prop::collection::vec(("[a-zA-Z]{1,8}|roomId|to|sdp|content|state|seq|callId", ".{0,20}"), 0..8),
    ) {
        let mut text = format!("{{\"type\":\"{}\"", kind.as_str());
        for (name, value) in fields {
            text.push(',');
            write_json_str(&mut text, &name);
            text.push(':');
            write_json_str(&mut text, &value);
        }
        text.push('}');
        match parse(&text) {
            Ok(message) => prop_assert_eq!(message.kind, kind),
            Err(error) => prop_assert!(error.code != ErrorCode::InvalidJson),
        }
    }
}
