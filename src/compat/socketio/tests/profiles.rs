//! What applications of each kind send and receive, and how it ends.

use super::*;

#[test]
fn the_lobby_of_the_tutorial_shows_who_is_there() {
    let mut bench = Bench::connected(Profile::Tutorial);
    assert_eq!(bench.join().room_id, KIND.own_lobby("tutorials"));
    bench.enter(json!([peer(OTHER, "o")]));
    let persons = json!([{"id": OTHER, "seq": 1}, {"id": ME, "seq": 2}]);
    assert_eq!(bench.received()[0], json!(["ready", ME, persons]));
    bench.native(FrameType::PeerLeft, peer(OTHER, "o"));
    bench.native(FrameType::PeerJoined, peer(THIRD, "t"));
    assert_eq!(
        bench.received(),
        [
            json!(["change", [{"id": ME, "seq": 1}]]),
            json!(["change", [{"id": ME, "seq": 1}, {"id": THIRD, "seq": 2}]]),
        ]
    );
    bench.asked.clear();
    bench.emit(json!(["message", {"to": THIRD, "type": "text", "content": "x", "time": "never"}]));
    let sent = bench.sent();
    assert_eq!(sent[0].0, Some(THIRD.to_string()));
    assert_eq!(sent[0].2[0]["from"], ME.to_string());
    bench.receives(
        THIRD,
        json!({"event": "message", "args": [{"type": "text", "from": THIRD, "time": "9"}]}),
    );
    assert_eq!(bench.received()[0][1]["time"], "1:2:3");
    bench.emit(json!(["ipaddr"]));
    bench.emit(json!(["bye"]));
    assert_eq!(bench.received(), [json!(["ipaddr", "192.0.2.1"])]);
    assert!(bench.sent().is_empty());
}

/// As when an operator closes the room: a page would look for the connection to itself.
#[test]
fn no_client_is_told_that_it_has_left() {
    for profile in [Profile::Relay, Profile::Lobby, Profile::Mesh, Profile::Call] {
        let mut bench = Bench::joined(profile, json!(["join", "r"]));
        bench.native(FrameType::PeerLeft, peer(ME, "me"));
        assert!(bench.received().is_empty(), "{profile:?}");
    }
}

#[test]
fn a_client_of_the_tutorials_moves_from_the_lobby_to_a_room_of_all() {
    let mut bench = Bench::joined(Profile::Tutorial, Value::Null);
    bench.emit(json!(["join-room", {"roomId": "r"}]));
    let join = bench.join();
    assert_eq!(join.room_id, "r", "native clients are there too");
    bench.native(FrameType::PeerLeft, peer(OTHER, "o"));
    assert!(
        bench.received().is_empty(),
        "nobody of the lobby shows up in the room"
    );
    bench.native(
        FrameType::Joined,
        json!({"id": "join-1", "peerId": ME, "roomId": "r", "identity": "me", "peers": [],
            "resumeToken": "secret"}),
    );
    let received = bench.received();
    assert_eq!(received[0][0], "room-joined");
    assert!(
        !received
            .iter()
            .any(|event| event.to_string().contains("secret"))
    );
    bench.native(
        FrameType::PeerJoined,
        json!({"peerId": THIRD, "identity": "t", "peer": peer(THIRD, "t")}),
    );
    let joined = bench
        .received()
        .into_iter()
        .find(|event| event[0] == "user-joined")
        .unwrap();
    assert_eq!(joined[1]["clientId"], THIRD.to_string());
    bench.asked.clear();
    bench.emit(json!(["offer", {"sdp": "v=0", "target": THIRD, "from": "eve"}]));
    let Request::Forward(forward) = bench.asked.pop().unwrap().unwrap().request else {
        panic!();
    };
    assert_eq!(forward.to, Some(THIRD.to_string()));
    bench.native(
        FrameType::Answer,
        json!({"sdp": {"type": "answer", "sdp": "v"}, "from": THIRD}),
    );
    let answer = bench.received().pop().unwrap();
    assert_eq!(
        (&answer[0], &answer[1]["from"]),
        (&json!("answer"), &json!(THIRD))
    );
}

#[test]
fn the_codelab_is_for_two() {
    let mut bench = Bench::connected(Profile::Codelab);
    bench.emit(json!(["create or join", "foo"]));
    let join = bench.join();
    assert_eq!(
        (join.room_id, join.create.max_peers),
        (KIND.own_room_of("codelab", "foo"), Some(2))
    );
    bench.enter(json!([]));
    assert_eq!(bench.received()[0], json!(["created", "foo", ME]));
    bench.native(FrameType::PeerJoined, peer(OTHER, "o"));
    assert_eq!(
        bench.received(),
        [json!(["join", "foo"]), json!(["ready", "foo"])]
    );
    bench.asked.clear();
    bench.emit(json!(["message", "got user media"]));
    assert_eq!(
        bench.sent()[0],
        (None, json!("message"), json!(["got user media", ME]))
    );
    let mut second = Bench::connected(Profile::Codelab);
    second.emit(json!(["create or join", "foo"]));
    second.enter(json!([peer(OTHER, "o")]));
    assert_eq!(
        second.received()[..2],
        [json!(["joined", "foo", ME]), json!(["ready", "foo"])]
    );
    let mut third = Bench::connected(Profile::Codelab);
    third.emit(json!(["create or join", "foo"]));
    third.native(
        FrameType::Error,
        json!({"id": "enter-1", "code": "room-full", "message": "m"}),
    );
    assert_eq!(third.received(), [json!(["full", "foo"])]);
}

#[test]
fn a_mesh_signals_by_id() {
    let mut bench = Bench::connected(Profile::Mesh);
    bench.emit(json!(["join room", "r"]));
    assert_eq!(bench.join().create.max_peers, Some(4));
    bench.enter(json!([peer(OTHER, "o")]));
    assert_eq!(bench.received()[0], json!(["all users", [OTHER]]));
    bench.asked.clear();
    bench.emit(
        json!(["sending signal", {"userToSignal": OTHER, "callerID": "eve", "signal": {"a": 1}}]),
    );
    bench.emit(json!(["returning signal", {"callerID": OTHER, "signal": "s"}]));
    let to = Some(OTHER.to_string());
    assert_eq!(
        bench.sent(),
        [
            (
                to.clone(),
                json!("user joined"),
                json!([{"signal": {"a": 1}, "callerID": ME}])
            ),
            (
                to,
                json!("receiving returned signal"),
                json!([{"signal": "s", "id": ME}])
            ),
        ]
    );
    bench.native(FrameType::PeerLeft, peer(OTHER, "o"));
    assert_eq!(bench.received(), [json!(["user left", OTHER])]);
}

#[test]
fn a_call_ends_for_its_parties_alone() {
    let mut bench = Bench::connected(Profile::Call);
    assert_eq!(bench.join().room_id, KIND.own_lobby("call"));
    bench.enter(json!([peer(OTHER, "o"), peer(THIRD, "t")]));
    bench.received();
    bench.asked.clear();
    bench.emit(
        json!(["callUser", {"userToCall": OTHER, "signalData": 1, "from": "eve", "name": "Me"}]),
    );
    let expected = json!([{"signal": 1, "from": ME, "name": "Me"}]);
    assert_eq!(
        bench.sent(),
        [(Some(OTHER.to_string()), json!("callUser"), expected)]
    );
    bench.receives(OTHER, json!({"event": "callAccepted", "args": ["s"]}));
    assert_eq!(bench.received(), [json!(["callAccepted", "s"])]);
    bench.native(FrameType::PeerLeft, peer(THIRD, "t"));
    assert!(bench.received().is_empty());
    bench.native(FrameType::PeerLeft, peer(OTHER, "o"));
    assert_eq!(bench.received(), [json!(["callEnded"])]);
}

#[test]
fn a_client_is_sent_away_only_where_it_is_not_to_come_back() {
    let away = [
        CloseCode::Normal,
        CloseCode::Unauthorized,
        CloseCode::Kicked,
        CloseCode::Replaced,
        CloseCode::RoomClosed,
    ];
    for code in CloseCode::ALL {
        let mut bench = Bench::connected(Profile::Relay);
        let closing = Closing {
            code: *code,
            reason: "",
        };
        let mut status = 0;
        bench.act(|dialect, _, out| status = dialect.closing(&closing, out));
        let expected: &[&str] = match away.contains(code) {
            true => &["41", "1"],
            false => &["1"],
        };
        assert_eq!(bench.texts, expected, "{code:?}");
        assert_eq!(status, *code as u16);
    }
}
