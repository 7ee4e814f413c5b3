//! What clients send when they are broken or hostile; afterwards the box serves on.

use crate::harness::{Callbox, Client, Process};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Sends one frame and returns the code of the error that comes back.
async fn error_of(client: &mut Client, frame: Message) -> Value {
    client.send_raw(frame).await;
    client.expect("error").await["code"].clone()
}

#[tokio::test]
async fn malformed_frames_get_an_error_and_the_connection_lives() {
    let callbox = Callbox::start("").await;
    let (mut client, _) = Client::join(&callbox, "room", "a").await;
    for (frame, code) in [
        (Message::text("not json"), "invalid-json"),
        (Message::text(""), "invalid-json"),
        (Message::text("[1, 2]"), "invalid-message"),
        (Message::text("7"), "invalid-message"),
        (Message::text("{}"), "invalid-message"),
        (Message::text("{\"type\": \"dance\"}"), "unknown-type"),
        (Message::binary(vec![0, 159, 146, 150]), "invalid-message"),
        (
            Message::text("{\"type\": \"offer\", \"sdp\": 7}"),
            "invalid-message",
        ),
    ] {
        assert_eq!(
            error_of(&mut client, frame.clone()).await,
            code,
            "{frame:?}"
        );
    }
    let reply = client.request(json!({"type": "offer"})).await;
    assert_eq!(
        reply["code"], "invalid-message",
        "a fault still answers the id"
    );
    assert_eq!(
        client.request(json!({"type": "ping", "t": 5})).await["t"],
        5
    );
}

#[tokio::test]
async fn ten_malformed_frames_in_a_row_end_the_connection() {
    let callbox = Callbox::start("").await;
    let (mut client, _) = Client::join(&callbox, "room", "a").await;
    for _ in 0..9 {
        assert_eq!(
            error_of(&mut client, Message::text("x")).await,
            "invalid-json"
        );
    }
    assert_eq!(
        client.request(json!({"type": "ping"})).await["type"],
        "pong"
    );
    for _ in 0..10 {
        client.send_raw(Message::text("x")).await;
    }
    assert_eq!(client.closed().await, CloseCode::Policy);
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection_with_1009() {
    let callbox = Callbox::start("").await;
    for kib in [65, 1024] {
        let (mut client, _) = Client::join(&callbox, "room", "a").await;
        let content = "x".repeat(kib * 1024);
        // The box may close while the frame is still on its way.
        client
            .send(json!({"type": "message", "content": content}))
            .await;
        assert_eq!(client.closed().await, CloseCode::Size, "{kib} KiB");
    }
    let (mut client, _) = Client::join(&callbox, "room", "a").await;
    let content = "x".repeat(63 * 1024);
    let reply = client
        .request(json!({"type": "message", "content": content}))
        .await;
    assert_eq!(reply["type"], "ack", "what fits is fine");
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_the_connection_with_1007() {
    let callbox = Callbox::start("").await;
    let (mut client, _) = Client::join(&callbox, "room", "a").await;
    // A final, masked text frame of two bytes; the mask is zero.
    client
        .tcp()
        .write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28])
        .await
        .unwrap();
    assert_eq!(client.closed().await, CloseCode::Invalid);
}

#[tokio::test]
async fn a_frame_against_the_rfc_ends_the_connection_with_1002() {
    let callbox = Callbox::start("").await;
    // Without a mask, and with a reserved bit.
    for frame in [&[0x81, 0x01, b'a'][..], &[0xc1, 0x81, 0, 0, 0, 0, b'a']] {
        let (mut client, _) = Client::join(&callbox, "room", "a").await;
        client.tcp().write_all(frame).await.unwrap();
        assert_eq!(client.closed().await, CloseCode::Protocol);
    }
}

#[tokio::test]
async fn a_message_in_fragments_with_a_ping_between_is_one_message() {
    let callbox = Callbox::start("").await;
    let (mut a, _) = Client::join(&callbox, "room", "a").await;
    let (mut b, _) = Client::join(&callbox, "room", "b").await;
    let text = br#"{"type":"message","content":"whole"}"#;
    let (first, rest) = text.split_at(20);
    // Masks of zero; the ping says "hi".
    let header = |first: u8, length: usize| [first, 0x80 | length as u8, 0, 0, 0, 0];
    for piece in [
        &header(0x01, first.len())[..],
        first,
        &header(0x89, 2),
        b"hi",
        &header(0x80, rest.len()),
        rest,
    ] {
        a.tcp().write_all(piece).await.unwrap();
        a.tcp().flush().await.unwrap();
    }
    assert_eq!(b.until("message").await["content"], "whole");
}

#[tokio::test]
async fn a_goodbye_is_answered_with_its_own_code() {
    let callbox = Callbox::start("").await;
    let (mut client, _) = Client::join(&callbox, "room", "a").await;
    let frame = CloseFrame {
        code: CloseCode::Library(4321),
        reason: "done".into(),
    };
    client.send_raw(Message::Close(Some(frame))).await;
    assert_eq!(client.closed().await, CloseCode::Library(4321));
}

#[tokio::test]
async fn a_thousand_messages_to_an_absent_peer_are_a_thousand_errors() {
    let callbox = Callbox::start("").await;
    let (mut client, _) = Client::join(&callbox, "room", "a").await;
    for _ in 0..1_000 {
        let to = "AAAAAAAAAAAAAAAAAAAAAA";
        client
            .send(json!({"type": "message", "content": 1, "to": to}))
            .await;
    }
    for _ in 0..1_000 {
        assert_eq!(client.expect("error").await["code"], "no-such-peer");
    }
}

#[tokio::test]
async fn a_second_join_leaves_the_first_room() {
    let callbox = Callbox::start("").await;
    let (mut stays, _) = Client::join(&callbox, "one", "stays").await;
    let (mut moves, _) = Client::join(&callbox, "one", "moves").await;
    stays.expect("peer-joined").await;
    let joined = moves
        .request(json!({"type": "join", "roomId": "two"}))
        .await;
    assert_eq!(joined["type"], "joined");
    assert_eq!(joined["peers"], json!([]));
    let left = stays.expect("peer-left").await;
    assert_eq!(left["reason"], "left");
    assert_eq!(left["identity"], "moves");
    assert_eq!(
        stays.request(json!({"type": "list"})).await["peers"],
        json!([])
    );
}

#[tokio::test]
async fn a_consumer_that_does_not_read_is_closed_and_costs_little() {
    let callbox = Process::start(&[("CALLBOX_SIGNAL__RATE", "100000/s")]);
    let (mut sleeper, joined) = Client::join(&callbox, "room", "sleeper").await;
    let (mut talker, _) = Client::join(&callbox, "room", "talker").await;
    let content = "x".repeat(32 * 1024);
    let before = callbox.resident_kib();
    for _ in 0..1_500 {
        let reply = talker
            .request(json!({"type": "message", "content": content}))
            .await;
        assert_eq!(reply["type"], "ack", "the talker is not held up");
    }
    let grown = callbox.resident_kib().saturating_sub(before);
    assert!(
        grown < 1024,
        "48 MiB to one deaf consumer grew the box by {grown} KiB"
    );
    assert_eq!(sleeper.closed().await, CloseCode::Library(4003));
    let mut back = Client::connect(&callbox).await;
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    let resumed = back.request(resume).await;
    assert_eq!(
        (&resumed["type"], &resumed["gap"]),
        (&json!("resumed"), &json!(true))
    );
}
