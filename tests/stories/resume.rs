//! Losing the connection and coming back.

use crate::harness::{Callbox, Client};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

fn resume(joined: &Value, seq: u64) -> Value {
    json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": seq})
}

#[tokio::test]
async fn two_hundred_messages_missed_are_replayed_in_order() {
    let callbox = Callbox::start("").await;
    let (mut talker, _) = Client::join(&callbox, "r", "talker").await;
    let (mut listener, joined) = Client::join(&callbox, "r", "listener").await;
    let seq = listener.request(json!({"type": "ping"})).await["seq"]
        .as_u64()
        .unwrap();
    let peer_id = listener.peer_id.clone();
    drop(listener);
    let away = talker.until("peer-state").await;
    assert_eq!(
        (&away["peerId"], &away["connection"]),
        (&json!(peer_id), &json!("away"))
    );
    for n in 0..200 {
        talker
            .request(json!({"type": "message", "content": n}))
            .await;
    }
    let mut back = Client::connect(&callbox).await;
    let resumed = back.request(resume(&joined, seq)).await;
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    assert_eq!(resumed["peerId"], json!(peer_id), "the old peer id");
    assert_eq!(
        (&resumed["replayed"], &resumed["gap"]),
        (&json!(200), &json!(false))
    );
    assert!(resumed.get("seq").is_none());
    for n in 0..200 {
        let message = back.expect("message").await;
        assert_eq!(message["content"], n);
        assert_eq!(message["seq"], seq + 1 + n);
    }
    assert_eq!(talker.until("peer-state").await["connection"], "online");
}

#[tokio::test]
async fn what_no_longer_fits_the_ring_is_a_gap() {
    let callbox = Callbox::start("[signal]\nring = \"4KiB\"").await;
    let (mut talker, _) = Client::join(&callbox, "r", "talker").await;
    let (listener, joined) = Client::join(&callbox, "r", "listener").await;
    drop(listener);
    talker.until("peer-state").await;
    for n in 0..100 {
        let content = json!({"n": n, "pad": "x".repeat(100)});
        talker
            .request(json!({"type": "message", "content": content}))
            .await;
    }
    let mut back = Client::connect(&callbox).await;
    let resumed = back.request(resume(&joined, 1)).await;
    assert_eq!(resumed["gap"], true, "{resumed}");
    let replayed = resumed["replayed"].as_u64().unwrap();
    assert!((1..100).contains(&replayed), "{replayed}");
    for n in 100 - replayed..100 {
        assert_eq!(back.expect("message").await["content"]["n"], n);
    }
}

#[tokio::test]
async fn a_resume_wins_over_a_connection_that_still_seems_alive() {
    let callbox = Callbox::start("").await;
    let (mut old, joined) = Client::join(&callbox, "r", "a").await;
    let mut new = Client::connect(&callbox).await;
    assert_eq!(new.request(resume(&joined, 1)).await["type"], "resumed");
    assert_eq!(old.closed().await, CloseCode::Library(4004));
    assert_eq!(new.request(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn after_the_window_the_session_is_gone() {
    let callbox = Callbox::start("[signal]\nresume_window = \"1s\"").await;
    let (mut stays, _) = Client::join(&callbox, "r", "stays").await;
    let (lost, joined) = Client::join(&callbox, "r", "lost").await;
    drop(lost);
    let left = stays.until("peer-left").await;
    assert_eq!(left["reason"], "disconnected");
    let mut back = Client::connect(&callbox).await;
    assert_eq!(back.refused(resume(&joined, 1)).await, "resume-failed");
    let forged = json!({"resumeToken": "AAAAAAAAAAAAAAAAAAAAAA"});
    assert_eq!(back.refused(resume(&forged, 1)).await, "resume-failed");
}

#[tokio::test]
async fn a_repeated_request_has_one_effect_even_across_a_resume() {
    let callbox = Callbox::start("").await;
    let (mut other, _) = Client::join(&callbox, "r", "other").await;
    let (mut first, joined) = Client::join(&callbox, "r", "first").await;
    other.until("peer-joined").await;
    let message = json!({"type": "message", "content": "once", "id": "same"});
    first.send(message.clone()).await;
    first.until("ack").await;
    drop(first);
    other.until("message").await;
    let mut back = Client::connect(&callbox).await;
    assert_eq!(
        back.refused(resume(&joined, 100_000)).await,
        "resume-failed",
        "never sent"
    );
    assert_eq!(back.request(resume(&joined, 2)).await["type"], "resumed");
    back.send(message).await;
    assert_eq!(back.until("ack").await["id"], "same");
    back.request(json!({"type": "message", "content": "next"}))
        .await;
    assert_eq!(
        other.until("message").await["content"],
        "next",
        "no second copy came before"
    );
}

#[tokio::test]
async fn who_was_removed_while_away_is_told_so_and_may_not_come_back_unasked() {
    let callbox = Callbox::start("").await;
    let (mut host, _) = Client::join(&callbox, "r", "host").await;
    let (guest, joined) = Client::join(&callbox, "r", "guest").await;
    let kick = json!({"type": "kick", "peerId": guest.peer_id});
    drop(guest);
    assert_eq!(host.until("peer-state").await["connection"], "away");
    assert_eq!(host.request(kick).await["type"], "ack");
    let mut back = Client::connect(&callbox).await;
    back.send(resume(&joined, 1)).await;
    assert_eq!(back.closed().await, CloseCode::Library(4002));
    // A new entry is judged as ever.
    let (mut again, _) = Client::join(&callbox, "r", "guest").await;
    assert_eq!(
        again.request(json!({"type": "leave"})).await["type"],
        "left"
    );
}
