//! What the clients of the tutorials send and receive.

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

fn deliver(
    client: &mut Tutorial,
    frame: &Value,
    now: Instant,
    by: Option<DialectKind>,
) -> Vec<Value> {
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

/// A client that said `join` and received that it is in, with these others.
fn member(join: Value, peers: &[Value]) -> (Tutorial, Vec<Value>, Instant) {
    let mut client = Tutorial::default();
    let asked = say(&mut client, &join).asked;
    assert!(matches!(asked[..], [Ok((_, Request::Join(_)))]));
    let now = Instant::now();
    let joined = json!({"type": "joined", "roomId": "r", "peerId": "me", "identity": "me",
        "peers": peers, "resumeToken": "secret", "id": "join-1"});
    let frames = deliver(&mut client, &joined, now, None);
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
    let frames = deliver(&mut client, &error, Instant::now(), None);
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
fn who_waits_for_an_offer_is_shown_nobody_who_offers() {
    let others = [
        peer("p1", "ann", None),
        peer("p2", "bob", Some("tutorial-1")),
    ];
    let join = json!({"type": "join", "roomId": "r", "identity": "me"});
    let (mut client, frames, now) = member(join, &others);
    assert_eq!(frames.len(), 2, "no newcomer yet");
    assert_eq!(client.next_timeout(), Some(now + HOLD));
    let newcomer = |who: Value| json!({"type": "peer-joined", "peer": who, "peerId": "p3"});
    let silent = deliver(&mut client, &newcomer(peer("p3", "x", None)), now, None);
    assert!(silent.is_empty());
    let later = now + HOLD / 2;
    let of_its_kind = newcomer(peer("p4", "y", Some("tutorial-1")));
    assert!(deliver(&mut client, &of_its_kind, later, None).is_empty());
    let first = watch(|out| client.timed_out(now + HOLD, out)).frames;
    assert_eq!(first.len(), 1, "the member that does not offer by itself");
    assert_eq!(first[0]["peerId"], "p1");
    let gone = json!({"type": "peer-left", "peerId": "p4", "identity": "y", "reason": "left"});
    deliver(&mut client, &gone, later, None);
    assert_eq!(client.next_timeout(), None, "who has left is not announced");
}

/// Pages say things in one go, and read the answers later.
#[test]
fn a_leave_counts_from_when_the_join_was_said() {
    let join = |room: &str| json!({"type": "join", "roomId": room});
    let leave = |room: &str| json!({"type": "leave", "roomId": room});
    let leaves = |done: Done| {
        let asked = done.asked.into_iter().map(Result::unwrap);
        asked
            .filter(|(_, asked)| matches!(asked, Request::Leave))
            .count()
    };
    let mut client = Tutorial::default();
    assert_eq!(leaves(say(&mut client, &leave("a"))), 0);
    say(&mut client, &join("a"));
    assert_eq!(leaves(say(&mut client, &leave("b"))), 0, "of another room");
    assert_eq!(leaves(say(&mut client, &leave("a"))), 1);
    assert_eq!(leaves(say(&mut client, &leave("a"))), 0, "again");
    say(&mut client, &join("b"));
    let memory = client.to_memory(Instant::now()).unwrap();
    let mut client = Tutorial::remembered(&memory, Instant::now()).unwrap();
    assert_eq!(leaves(say(&mut client, &leave("a"))), 0);
    let joined = |id: &str, room: &str| json!({"type": "joined", "id": id, "peerId": "me", "roomId": room, "peers": []});
    let now = Instant::now();
    deliver(&mut client, &joined("join-1", "a"), now, None);
    deliver(&mut client, &json!({"type": "left"}), now, None);
    deliver(&mut client, &joined("join-2", "b"), now, None);
    assert_eq!(leaves(say(&mut client, &leave("a"))), 0);
    // Who is not let in is where it was.
    say(&mut client, &join("c"));
    let refused = json!({"type": "error", "id": "join-3", "code": "room-full", "message": "full"});
    deliver(&mut client, &refused, now, None);
    assert_eq!(leaves(say(&mut client, &leave("c"))), 0);
    assert_eq!(leaves(say(&mut client, &leave("b"))), 1);
}

/// A page would look for the connection to itself.
#[test]
fn no_client_is_told_that_it_has_left() {
    let mut client = Tutorial::default();
    let left = |peer: String| json!({"type": "peer-left", "peerId": peer, "reason": "room-closed"});
    let now = Instant::now();
    let own = PeerId::from_bits(1).to_string();
    assert!(deliver(&mut client, &left(own), now, None).is_empty());
    let other = PeerId::from_bits(2).to_string();
    assert_eq!(deliver(&mut client, &left(other), now, None).len(), 2);
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
            deliver(&mut plain, &offer(form.clone()), now, kin)[0]["sdp"],
            *form
        );
    }
    assert_eq!(
        deliver(&mut plain, &offer(text.clone()), now, None)[0]["sdp"],
        object
    );
    say(
        &mut plain,
        &json!({"type": "offer", "sdp": "v=0", "to": "p1"}),
    );
    let received = deliver(&mut plain, &offer(object.clone()), now, None);
    assert_eq!(received[0]["sdp"], text, "as it sends itself");
    assert_eq!(received[0]["fromUserId"], Value::Null, "no name but the id");
    let mut bare = Tutorial::default();
    let done = say(&mut bare, &json!({"desc": object}));
    assert!(matches!(done.asked[0], Ok((_, Request::Lobby))));
    assert_eq!(
        deliver(&mut bare, &offer(text), now, None),
        [json!({"desc": object})]
    );
    let candidate = json!({"type": "candidate", "candidate": null, "from": "p1"});
    assert_eq!(
        deliver(&mut bare, &candidate, now, None),
        [json!({"candidate": null})]
    );
    let done = say(&mut bare, &json!({"candidate": null}));
    let (_, _, to) = forwarded(done);
    assert_eq!(to.as_deref(), Some("p1"), "whom it received");
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
    let left = deliver(&mut client, &json!({"type": "left"}), now, None);
    assert_eq!(left, [json!({"type": "left", "roomId": "r"})]);
    assert!(
        say(&mut client, &json!({"type": "leave"})).asked.is_empty(),
        "it is in none"
    );
}

/// An attack: what is refused would be kept for as long as the connection is open.
#[test]
fn what_is_too_long_is_refused_and_not_kept() {
    let long = "x".repeat(60_000);
    let attacks = [
        json!({"type": "join", "roomId": "r", "id": long}),
        json!({"type": "join", "roomId": "r", "id": long, "identity": long}),
        json!({"type": "join", "roomId": long}),
        json!({"type": "join", "room": long}),
        json!({"type": "join", "roomId": "r", "userId": long}),
        json!({"type": "register", "userId": long}),
        json!({"type": "register", "identity": long, "id": long}),
        json!({"type": "leave", "id": long}),
        json!({"type": "offer", "to": long, "sdp": long}),
        json!({"desc": {"type": "offer", "sdp": long}}),
    ];
    let (mut client, _, now) = member(json!({"type": "join", "roomId": "r"}), &[]);
    let held = |client: &Tutorial| client.memory(now).unwrap().len();
    let before = held(&client);
    for attack in attacks.iter().cycle().take(10 * MAX_JOINING) {
        let text = attack.to_string();
        let (mut frames, mut asked, mut closing) = (vec![], vec![], None);
        let mut out = Output::new(&mut frames, &mut asked, &mut closing);
        client.decode(Incoming::Text(&text), now, &mut out);
        for refused in asked.into_iter().filter_map(Result::err) {
            let error = json!({"type": "error", "code": "too-large", "message": "m",
                "id": refused.id});
            deliver(&mut client, &error, now, None);
        }
        let grown = held(&client).saturating_sub(before);
        assert!(grown < 1_024, "{grown} bytes after {}", &text[..60]);
    }
    // Numbers are names of rooms, too.
    let text = format!(r#"{{"type":"join","roomId":{}}}"#, "7".repeat(60_000));
    watch(|out| client.decode(Incoming::Text(&text), now, out));
    assert!(held(&client) < before + 1_024);
    let done = say(&mut client, &json!({"type": "leave", "roomId": "r"}));
    assert!(
        matches!(done.asked[..], [Ok((_, Request::Leave))]),
        "it is where it was"
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

#[test]
fn answers_to_joins_that_follow_each_other_are_told_apart() {
    let mut client = Tutorial::default();
    for room in ["first", "second"] {
        say(&mut client, &json!({"type": "join", "roomId": room}));
    }
    for (id, room) in [("join-1", "first"), ("join-2", "second")] {
        let joined =
            json!({"type": "joined", "id": id, "roomId": room, "peerId": "me", "peers": []});
        let received = deliver(&mut client, &joined, Instant::now(), None);
        let entered = received.iter().find(|frame| frame["type"] == "room-joined");
        assert_eq!(entered.unwrap()["roomId"], room);
    }
    assert_eq!(client.speaks, None, "nobody was called into the lobby");
}

/// An attack by clients of other protocols, whose own stamps have other names.
#[test]
fn stamps_of_the_tutorials_come_from_the_server_alone() {
    let (mut client, _, now) = member(json!({"type": "join", "roomId": "r"}), &[]);
    for kind in ["offer", "answer", "candidate", "message", "hangup"] {
        let frame = json!({"type": kind, "sdp": "v=0", "candidate": null, "content": 1, "from": "p1",
            "fromIdentity": "ann", "clientId": "eve", "userId": "eve", "fromId": "eve",
            "fromUserId": "eve", "FROMID": "eve", "ClientID": "eve", "members": ["eve"],
            "targetId": "eve", "userid": "eve"});
        let received = deliver(&mut client, &frame, now, None).remove(0);
        assert!(!received.to_string().contains("eve"), "{received}");
        assert_eq!(
            (
                &received["from"],
                &received["fromId"],
                &received["fromUserId"]
            ),
            (&json!("p1"), &json!("p1"), &json!("ann"))
        );
    }
}
