//! Signaling in a room, as clients see it.

use crate::harness::{Callbox, Client};
use serde_json::json;

#[tokio::test]
async fn two_peers_trade_an_offer_an_answer_and_candidates() {
    let callbox = Callbox::start("").await;
    let (mut alice, joined) = Client::join(&callbox, "room", "alice").await;
    assert_eq!(joined["seq"], 1);
    assert_eq!(joined["role"], "host");
    assert_eq!(joined["peers"], json!([]));
    assert_eq!(joined["iceTransportPolicy"], "all");
    assert_eq!(joined["ttl"], 3600);
    assert!(joined["expiresAt"].as_u64().unwrap() > 1_700_000_000);
    let (mut bob, joined) = Client::join(&callbox, "room", "bob").await;
    assert_eq!(joined["peers"][0]["peerId"], json!(alice.peer_id));
    let news = alice.expect("peer-joined").await;
    assert_eq!(
        (news["seq"].as_u64(), &news["identity"]),
        (Some(2), &json!("bob"))
    );

    let offer = json!({"type": "offer", "sdp": "v=0\r\n", "to": alice.peer_id, "from": "forged"});
    assert_eq!(bob.request(offer).await["type"], "ack");
    let offer = alice.expect("offer").await;
    assert_eq!(offer["sdp"], "v=0\r\n");
    assert_eq!(
        offer["from"],
        json!(bob.peer_id),
        "the server's stamp, not the client's"
    );
    assert_eq!(offer["fromIdentity"], "bob");
    assert_eq!(offer["roomId"], "room");
    assert!(offer["ts"].is_u64());

    alice
        .send(json!({"type": "answer", "sdp": {"type": "answer", "sdp": "v=0\r\n"}}))
        .await;
    assert_eq!(bob.expect("answer").await["sdp"]["type"], "answer");
    alice
        .send(json!({"type": "candidate", "candidate": {"candidate": "candidate:1"}}))
        .await;
    assert_eq!(
        bob.expect("candidate").await["candidate"]["candidate"],
        "candidate:1"
    );
    alice
        .send(json!({"type": "candidate", "candidate": null}))
        .await;
    let end = bob.expect("candidate").await;
    assert!(end["candidate"].is_null() && end.get("candidate").is_some());

    alice
        .send(json!({"type": "message", "content": {"n": 12345678901234567890u64}}))
        .await;
    assert_eq!(
        bob.expect("message").await["content"]["n"],
        12345678901234567890u64
    );
    alice.send(json!({"type": "hangup"})).await;
    bob.expect("hangup").await;
    assert_eq!(
        alice.request(json!({"type": "leave"})).await["type"],
        "left"
    );
    let left = bob.expect("peer-left").await;
    assert_eq!(
        (&left["identity"], &left["reason"]),
        (&json!("alice"), &json!("left"))
    );
}

#[tokio::test]
async fn nothing_crosses_rooms() {
    let callbox = Callbox::start("").await;
    let (mut here, _) = Client::join(&callbox, "here", "a").await;
    let (mut there, _) = Client::join(&callbox, "there", "b").await;
    let reply = here
        .request(json!({"type": "message", "content": 1, "to": there.peer_id}))
        .await;
    assert_eq!(reply["code"], "no-such-peer");
    here.request(json!({"type": "message", "content": 2})).await;
    assert_eq!(
        there.request(json!({"type": "ping"})).await["seq"],
        2,
        "nothing came before"
    );
}

#[tokio::test]
async fn credentials_are_renewed_before_they_expire() {
    let callbox = Callbox::start("[turn]\nttl = \"4s\"").await;
    let (mut client, joined) = Client::join(&callbox, "room", "a").await;
    let fresh = client.expect("ice-servers").await;
    assert!(fresh["expiresAt"].as_u64() > joined["expiresAt"].as_u64());
    let asked = client.request(json!({"type": "ice"})).await;
    assert_eq!(asked["type"], "ice-servers");
    assert!(asked["iceServers"][1]["credential"].is_string());
}
