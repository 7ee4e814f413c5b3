//! What the clients of the tutorials say and hear.

use super::*;
use crate::protocol::{Body, FrameType, Request};
use crate::signal::hub::Event;
use serde_json::{Value, json};

/// What a translator wrote and asked.
struct Done {
    frames: Vec<Value>,
    asked: Vec<Result<(Option<DialectKind>, Request), String>>,
}

fn watch(act: impl FnOnce(&mut Output<'_>)) -> Done {
    let (mut bytes, mut requests, mut closing) = (vec![], vec![], None);
    act(&mut Output::new(&mut bytes, &mut requests, &mut closing));
    let mut frames = vec![];
    let mut rest = &bytes[..];
    while let [0x81, length, after @ ..] = rest {
        let (length, after) = match *length {
            126 => (
                usize::from(u16::from_be_bytes([after[0], after[1]])),
                &after[2..],
            ),
            short => (usize::from(short), after),
        };
        frames.push(serde_json::from_slice(&after[..length]).unwrap());
        rest = &after[length..];
    }
    assert!(rest.is_empty() && closing.is_none());
    let asked = requests.into_iter().map(|request| {
        request
            .map(|message| (message.dialect, message.request))
            .map_err(|error| error.code.as_str().to_owned())
    });
    Done {
        frames,
        asked: asked.collect(),
    }
}

fn say(client: &mut Tutorial, message: &Value) -> Done {
    let text = message.to_string();
    watch(|out| client.decode(Incoming::Text(&text), Instant::now(), out))
}

fn hear(client: &mut Tutorial, frame: &Value, now: Instant, by: Option<DialectKind>) -> Vec<Value> {
    let kind = FrameType::from_name(frame["type"].as_str().unwrap()).unwrap();
    let event = Event::Native(Body::from_object(kind, frame.to_string()).sent_by(by));
    let outgoing = Outgoing {
        peer: PeerId::from_bits(1),
        seq: None,
        event,
    };
    watch(|out| client.encode(&outgoing, now, out)).frames
}

fn peer(id: &str, name: &str, dialect: Option<&str>) -> Value {
    json!({"peerId": id, "identity": name, "dialect": dialect})
}

/// A client that said `join` and heard that it is in, with these others.
fn member(join: Value, peers: &[Value]) -> (Tutorial, Vec<Value>, Instant) {
    let mut client = Tutorial::default();
    let asked = say(&mut client, &join).asked;
    assert!(matches!(asked[..], [Ok((_, Request::Join(_)))]));
    let now = Instant::now();
    let joined = json!({"type": "joined", "roomId": "r", "peerId": "me", "identity": "me",
        "peers": peers, "resumeToken": "secret", "id": "join-1"});
    let frames = hear(&mut client, &joined, now, None);
    (client, frames, now)
}

fn forwarded(done: Done) -> (Option<DialectKind>, Value, Option<String>) {
    let [Ok((dialect, Request::Forward(forward)))] = &done.asked[..] else {
        panic!("{:?}", done.asked)
    };
    let rest = format!("{{\"_\":0{}}}", forward.rest);
    (
        *dialect,
        serde_json::from_str(&rest).unwrap(),
        forward.to.clone(),
    )
}

#[test]
fn a_join_is_answered_in_the_words_of_all_and_gives_no_secret_away() {
    let others = [
        peer("p1", "ann", None),
        peer("p2", "p2", Some("tutorial-3")),
    ];
    let (_, frames, _) = member(json!({"type": "join", "roomId": "r"}), &others);
    assert_eq!(
        frames[0],
        json!({"type": "room-joined", "roomId": "r", "clientId": "me", "members": ["p1", "p2"]})
    );
    assert_eq!(frames[1]["type"], "joined");
    assert_eq!(frames[1]["members"], json!(["p1", "p2"]));
    assert_eq!(frames[1]["clientId"], "me");
    assert!(frames[1].get("resumeToken").is_none() && frames[1].get("id").is_none());
    assert_eq!(frames.len(), 2);
}

#[test]
fn a_join_without_a_room_is_of_the_default_one_and_a_refused_one_says_so_twice() {
    let mut client = Tutorial::default();
    let done = say(&mut client, &json!({"type": "join", "roomId": ""}));
    let [Ok((_, Request::Join(join)))] = &done.asked[..] else {
        panic!()
    };
    assert_eq!(join.room_id, "default");
    let error = json!({"type": "error", "code": "room-full", "message": "full", "id": "join-1"});
    let frames = hear(&mut client, &error, Instant::now(), None);
    assert_eq!(
        frames,
        [
            json!({"type": "join-error", "error": "full", "code": "room-full"}),
            json!({"type": "error", "code": "room-full", "message": "full"}),
        ]
    );
}

#[test]
fn targets_go_by_many_names_and_stamps_of_the_client_go_nowhere() {
    for (field, dialect) in [
        ("to", Some(DialectKind::Tutorial0)),
        ("targetId", Some(DialectKind::Tutorial3)),
        ("target", None),
    ] {
        let mut client = Tutorial::default();
        let done = say(
            &mut client,
            &json!({"type": "message", "content": 1, field: "p1", "from": "eve", "fromId": "eve",
                "fromUserId": "eve", "clientId": "eve", "fromIdentity": "eve", "ts": 0, "x": [1]}),
        );
        let (shown, rest, to) = forwarded(done);
        assert_eq!((shown, to.as_deref()), (dialect, Some("p1")), "{field}");
        assert!(!rest.to_string().contains("eve"), "{rest}");
        assert_eq!(rest["x"], json!([1]));
    }
}

#[test]
fn whoever_waits_for_an_offer_hears_of_nobody_who_offers() {
    let others = [
        peer("p1", "ann", None),
        peer("p2", "bob", Some("tutorial-1")),
    ];
    let join = json!({"type": "join", "roomId": "r", "identity": "me"});
    let (mut client, frames, now) = member(join, &others);
    assert_eq!(frames.len(), 2, "no newcomer yet");
    assert_eq!(client.next_timeout(), Some(now + HOLD));
    let newcomer = |who: Value| json!({"type": "peer-joined", "peer": who, "peerId": "p3"});
    let silent = hear(&mut client, &newcomer(peer("p3", "x", None)), now, None);
    assert!(silent.is_empty());
    let later = now + HOLD / 2;
    let of_its_kind = newcomer(peer("p4", "y", Some("tutorial-1")));
    assert!(hear(&mut client, &of_its_kind, later, None).is_empty());
    let first = watch(|out| client.timed_out(now + HOLD, out)).frames;
    assert_eq!(first.len(), 1, "the member that does not offer by itself");
    assert_eq!(first[0]["peerId"], "p1");
    let gone = json!({"type": "peer-left", "peerId": "p4", "identity": "y", "reason": "left"});
    hear(&mut client, &gone, later, None);
    assert_eq!(client.next_timeout(), None, "who has left is not announced");
}

#[test]
fn descriptions_come_in_the_form_that_the_client_knows() {
    let offer =
        |sdp: Value| json!({"type": "offer", "sdp": sdp, "from": "p1", "fromIdentity": "p1"});
    let (text, object) = (json!("v=0"), json!({"type": "offer", "sdp": "v=0"}));
    let now = Instant::now();
    let mut plain = Tutorial::default();
    let kin = Some(DialectKind::Tutorial0);
    for form in [&text, &object] {
        assert_eq!(
            hear(&mut plain, &offer(form.clone()), now, kin)[0]["sdp"],
            *form
        );
    }
    assert_eq!(
        hear(&mut plain, &offer(text.clone()), now, None)[0]["sdp"],
        object
    );
    say(
        &mut plain,
        &json!({"type": "offer", "sdp": "v=0", "to": "p1"}),
    );
    let heard = hear(&mut plain, &offer(object.clone()), now, None);
    assert_eq!(heard[0]["sdp"], text, "as it sends itself");
    assert_eq!(heard[0]["fromUserId"], Value::Null, "no name but the id");
    let mut bare = Tutorial::default();
    let done = say(&mut bare, &json!({"desc": object}));
    assert!(matches!(done.asked[0], Ok((_, Request::Lobby))));
    assert_eq!(
        hear(&mut bare, &offer(text), now, None),
        [json!({"desc": object})]
    );
    let candidate = json!({"type": "candidate", "candidate": null, "from": "p1"});
    assert_eq!(
        hear(&mut bare, &candidate, now, None),
        [json!({"candidate": null})]
    );
    let done = say(&mut bare, &json!({"candidate": null}));
    let (_, _, to) = forwarded(done);
    assert_eq!(to.as_deref(), Some("p1"), "whom it heard");
}

#[test]
fn a_client_cannot_say_what_only_the_server_says() {
    let mut client = Tutorial::default();
    for kind in [
        "welcome",
        "joined",
        "room-joined",
        "user-joined",
        "user-left",
        "peer-joined",
        "peer-left",
        "registered",
        "left",
        "join-error",
        "error",
        "ice-servers",
        "kicked",
        "notify",
        "resume",
        "draining",
        "room-updated",
        "peer-state",
    ] {
        let done = say(
            &mut client,
            &json!({"type": kind, "to": "p1", "iceServers": []}),
        );
        assert!(
            matches!(&done.asked[..], [Err(code)] if code == "unknown-type"),
            "{kind}"
        );
        assert!(done.frames.is_empty());
    }
    // Nor do names of the server's fields pass in what is relayed.
    let done = say(
        &mut client,
        &json!({"type": "message", "content": 1, "iceServers": [], "members": [], "userId": "eve"}),
    );
    let (_, rest, _) = forwarded(done);
    assert!(
        rest.get("iceServers").is_none() && rest.get("userId").is_none(),
        "{rest}"
    );
}

#[test]
fn leaving_another_room_changes_nothing() {
    let (mut client, _, now) = member(json!({"type": "join", "roomId": "r"}), &[]);
    assert!(
        say(&mut client, &json!({"type": "leave", "roomId": "other"}))
            .asked
            .is_empty()
    );
    let done = say(&mut client, &json!({"type": "leave", "roomId": "r"}));
    assert!(matches!(done.asked[..], [Ok((_, Request::Leave))]));
    let left = hear(&mut client, &json!({"type": "left"}), now, None);
    assert_eq!(left, [json!({"type": "left", "roomId": "r"})]);
    assert!(
        say(&mut client, &json!({"type": "leave"})).asked.is_empty(),
        "it is in none"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_brings_it_down(texts in proptest::collection::vec(".{0,80}", 0..6)) {
        let mut client = Tutorial::default();
        for text in &texts {
            watch(|out| client.decode(Incoming::Text(text), Instant::now(), out));
        }
    }
}
