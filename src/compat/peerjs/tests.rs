//! What PeerJS's clients get for what they say.

use super::*;
use crate::auth::credential::IceServers;
use crate::compat::tests::{self as harness, Done};
use proptest::prelude::*;
use serde_json::{Value, json};

fn hello() -> Hello {
    Hello::read("key=peerjs&id=ann&token=abc&version=1.5.5", "peerjs", false).unwrap()
}

/// A connection that has its id.
fn ann(relay_only: bool) -> PeerJs {
    let mut dialect = PeerJs::new(Ok(hello()), relay_only);
    let done = harness::opened(&mut dialect);
    assert!(matches!(
        done.requests[0],
        Ok(ExchangeRequest::Open {
            token: Some(_),
            name: Some(_)
        })
    ));
    let done = reply(&mut dialect, ExchangeReply::Opened);
    assert!(matches!(
        &done.requests[..],
        [Ok(ExchangeRequest::Ice), Ok(ExchangeRequest::Claim { name, takeover: Takeover::Shared, .. })]
            if name == "ann"
    ));
    let servers = IceServers {
        ice_servers: vec![],
        ttl: 60,
        expires_at: 9,
    };
    assert!(
        reply(&mut dialect, ExchangeReply::Ice(servers.clone()))
            .texts
            .is_empty()
    );
    let done = reply(&mut dialect, ExchangeReply::Claimed { name: "ann".into() });
    let policy = if relay_only {
        r#""iceTransportPolicy":"relay","#
    } else {
        ""
    };
    let open = format!(
        r#"{{"type":"OPEN","payload":{{{policy}"iceServers":[],"ttl":60,"expiresAt":9}}}}"#
    );
    assert_eq!(done.texts, [open]);
    // The protocol has no message for a renewal.
    assert!(
        reply(&mut dialect, ExchangeReply::Ice(servers))
            .texts
            .is_empty()
    );
    dialect
}

fn reply(dialect: &mut PeerJs, reply: ExchangeReply) -> Done {
    harness::event(dialect, Event::Exchange(Box::new(reply)))
}

/// What a frame asks for, and what its receiver "bob" gets.
fn relayed(dialect: &mut PeerJs, frame: &Value) -> Option<Value> {
    let mut done = harness::text(dialect, &frame.to_string());
    let request = done.requests.pop().unwrap().unwrap();
    let ExchangeRequest::Send { message, .. } = request else {
        assert!(matches!(request, ExchangeRequest::Idle));
        return None;
    };
    let mut bob = PeerJs {
        state: State::Open("bob".into()),
        relay_only: false,
    };
    let from = "ann".into();
    let done = harness::event(&mut bob, Event::Addressed { from, message });
    Some(serde_json::from_str(&done.texts[0]).unwrap())
}

#[test]
fn the_query_names_id_token_and_key() {
    let read = |query, jwt| Hello::read(query, "peerjs", jwt).map(|hello| hello.id);
    assert_eq!(read("key=peerjs&id=a%20b&token=x", false), Ok("a b".into()));
    for query in [
        "",
        "key=peerjs&id=a",
        "key=peerjs&token=x",
        "id=a&token=x",
        "key=peerjs&id=&token=x",
    ] {
        assert_eq!(
            read(query, false),
            Err("the URL needs id, token and key"),
            "{query}"
        );
    }
    let wrong = Err("the key is not the one of this server");
    assert_eq!(read("key=other&id=a&token=x", false), wrong);
    assert_eq!(read("key=a.b.c&id=a&token=x", false), wrong);
    assert_eq!(read("key=a.b.c&id=a&token=x", true), Ok("a".into()));
    assert_eq!(read("key=other&id=a&token=x", true), wrong);
    let proof = |query| Hello::read(query, "peerjs", false).unwrap().proof;
    assert_eq!(
        proof("key=peerjs&id=a&token=x"),
        proof("key=peerjs&id=b&token=x")
    );
    assert_ne!(
        proof("key=peerjs&id=a&token=x"),
        proof("key=peerjs&id=a&token=y")
    );
}

#[test]
fn who_is_refused_gets_the_reason_and_is_closed() {
    let mut dialect = PeerJs::new(Err("no"), false);
    let done = harness::opened(&mut dialect);
    assert_eq!(done.texts, [r#"{"type":"ERROR","payload":{"msg":"no"}}"#]);
    assert_eq!(done.closing.unwrap().code, CloseCode::Normal);
    // Taken.
    let mut dialect = PeerJs::new(Ok(hello()), false);
    let done = reply(&mut dialect, ExchangeReply::Taken);
    let text = r#"{"type":"ID-TAKEN","payload":{"msg":"the id is taken"}}"#;
    assert_eq!(done.texts, [text]);
    assert!(done.closing.is_some());
    // By the hub: before an id the reason is an ERROR, with one it is the close frame's.
    let closing = Closing {
        code: CloseCode::Unauthorized,
        reason: "unauthorized",
    };
    let mut dialect = PeerJs::new(Ok(hello()), false);
    let done = harness::closing(&mut dialect, &closing);
    let text = r#"{"type":"ERROR","payload":{"msg":"unauthorized"}}"#;
    assert_eq!(
        (done.texts, done.status),
        (vec![text.to_owned()], Some(4001))
    );
    assert!(harness::closing(&mut ann(false), &closing).texts.is_empty());
    // The client ends for good at an ERROR before OPEN: who is to come again gets none.
    for code in [CloseCode::TryLater, CloseCode::Restart] {
        let reason = "try again";
        let done = harness::closing(
            &mut PeerJs::new(Ok(hello()), false),
            &Closing { code, reason },
        );
        assert_eq!((done.texts, done.status), (vec![], Some(code as u16)));
    }
}

#[test]
fn four_fields_are_relayed_and_the_source_is_the_servers() {
    let mut dialect = ann(false);
    let payload = json!({"sdp": {"type": "offer", "sdp": "v=0"}, "type": "data",
        "connectionId": "dc_1", "metadata": {"n": [1, 2]}, "label": "dc_1"});
    for kind in ["OFFER", "ANSWER", "CANDIDATE", "LEAVE"] {
        let frame = json!({"type": kind, "src": "eve", "dst": "bob", "payload": payload,
            "iceServers": [], "key": "x"});
        let expected = json!({"type": kind, "src": "ann", "dst": "bob", "payload": payload});
        assert_eq!(relayed(&mut dialect, &frame), Some(expected));
    }
    let done = reply(
        &mut dialect,
        ExchangeReply::Absent {
            name: "carl".into(),
            own: "ann".into(),
        },
    );
    assert_eq!(
        done.texts,
        [r#"{"type":"EXPIRE","src":"carl","dst":"ann"}"#]
    );
    let done = harness::text(&mut dialect, r#"{"type":"LEAVE"}"#);
    assert!(matches!(done.requests[0], Ok(ExchangeRequest::Release)));
    for text in ["", "x", "[]", "5"] {
        let done = harness::text(&mut dialect, text);
        assert!(
            matches!(done.requests[0], Ok(ExchangeRequest::Idle)),
            "{text}"
        );
    }
    let done = harness::binary(&mut dialect, b"x");
    assert!(matches!(done.requests[0], Ok(ExchangeRequest::Idle)));
}

/// Attacks: what the server says, no client says to another.
#[test]
fn the_servers_words_are_not_relayed() {
    let mut dialect = ann(false);
    for kind in [
        "OPEN",
        "ID-TAKEN",
        "ERROR",
        "EXPIRE",
        "INVALID-KEY",
        "HEARTBEAT",
        "offer",
        "X",
    ] {
        let frame = json!({"type": kind, "src": "x", "dst": "bob", "payload": {"msg": "bye"}});
        assert_eq!(relayed(&mut dialect, &frame), None, "{kind}");
    }
    let frame = json!({"type": "OFFER", "payload": {}});
    assert_eq!(relayed(&mut dialect, &frame), None, "to nobody");
    let twice = r#"{"type":"EXPIRE","type":"OFFER","dst":"bob","payload":1}"#;
    let twice: Box<RawValue> = serde_json::from_str(twice).unwrap();
    let done = harness::text(&mut dialect, twice.get());
    let Ok(ExchangeRequest::Send { message, .. }) = &done.requests[0] else {
        panic!()
    };
    assert_eq!(
        (&*message.kind, message.payload.as_deref()),
        ("OFFER", Some("1"))
    );
}

#[test]
fn where_only_relayed_candidates_pass_addresses_do_not() {
    let mut dialect = ann(true);
    let candidate = |dialect: &mut PeerJs, kind: &str| {
        let line = format!("candidate:1 1 udp 1 192.0.2.7 5 typ {kind} raddr 10.0.0.1 rport 9");
        let payload = json!({"candidate": {"candidate": line, "sdpMid": "0"},
            "type": "data", "connectionId": "dc_1"});
        relayed(
            dialect,
            &json!({"type": "CANDIDATE", "dst": "bob", "payload": payload}),
        )
    };
    assert_eq!(candidate(&mut dialect, "host"), None);
    let relay = candidate(&mut dialect, "relay").unwrap().to_string();
    assert!(
        relay.contains("192.0.2.7") && !relay.contains("10.0.0.1"),
        "{relay}"
    );
    let sdp = "v=0\r\nc=IN IP4 10.0.0.1\r\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\n";
    let payload = json!({"sdp": {"type": "offer", "sdp": sdp}, "type": "data",
        "connectionId": "dc_1", "hidden": "10.0.0.1"});
    let frame = json!({"type": "OFFER", "dst": "bob", "payload": payload});
    let offer = relayed(&mut dialect, &frame).unwrap();
    assert!(!offer.to_string().contains("10.0.0.1"), "{offer}");
    assert_eq!(offer["payload"]["sdp"]["type"], "offer");
    let unreadable = json!({"type": "OFFER", "dst": "bob", "payload": {"sdp": {"sdp": [sdp]}}});
    assert_eq!(relayed(&mut dialect, &unreadable), None);
    let text = json!({"type": "OFFER", "dst": "bob", "payload": "10.0.0.1"});
    assert_eq!(relayed(&mut dialect, &text), None);
}

proptest! {
    #[test]
    fn no_text_brings_it_down(text in "\\PC{0,80}", relay_only: bool) {
        harness::text(&mut ann(relay_only), &text);
    }

    #[test]
    fn any_payload_arrives_as_sent(text in "\\PC{0,60}", number: i64) {
        let payload = json!({"text": text, "list": [number, null, {"deep": [[text]]}]});
        let frame = json!({"type": "ANSWER", "dst": "bob", "payload": payload});
        let got = relayed(&mut ann(false), &frame).unwrap();
        prop_assert_eq!(&got["payload"], &payload);
    }
}
