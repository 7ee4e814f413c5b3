//! Direct calls by identity, outside any room.

use crate::harness::{Callbox, Client};
use serde_json::{Value, json};
use std::time::Duration;

/// Rings `to` and returns the id of the call.
async fn call(caller: &mut Client, to: &str) -> Value {
    let reply = caller
        .request(json!({"type": "call", "to": to, "metadata": {"n": 1}}))
        .await;
    assert_eq!(reply["type"], "calling", "{reply}");
    reply["callId"].clone()
}

#[tokio::test]
async fn a_call_rings_every_device_and_the_first_answer_takes_it() {
    let callbox = Callbox::start("").await;
    let (mut alice, registered) = Client::register(&callbox, "alice").await;
    assert!(registered["iceServers"].is_array() && registered["resumeToken"].is_string());
    let (mut phone, _) = Client::register(&callbox, "bob").await;
    let (mut laptop, _) = Client::join(&callbox, "elsewhere", "bob").await;
    let id = call(&mut alice, "bob").await;
    for device in [&mut phone, &mut laptop] {
        let ring = device.until("call").await;
        assert_eq!(ring["callId"], id);
        assert_eq!(ring["fromIdentity"], "alice");
        assert_eq!(ring["metadata"], json!({"n": 1}));
    }
    let accepted = laptop
        .request(json!({"type": "accept", "callId": id}))
        .await;
    assert_eq!(accepted["type"], "ack");
    assert!(
        accepted["iceServers"].is_array(),
        "credentials come with the call"
    );
    let other = phone.until("hangup").await;
    assert_eq!(other["reason"], "answered-elsewhere");
    let accept = alice.until("accept").await;
    assert_eq!(
        (&accept["callId"], &accept["from"]),
        (&id, &json!(laptop.peer_id))
    );

    alice
        .send(json!({"type": "offer", "sdp": "v=0", "to": laptop.peer_id}))
        .await;
    let offer = laptop.until("offer").await;
    assert_eq!(offer["callId"], id);
    laptop
        .send(json!({"type": "answer", "sdp": "v=0", "to": offer["from"]}))
        .await;
    alice.until("answer").await;
    let stranger = json!({"type": "message", "content": 1, "to": phone.peer_id});
    assert_eq!(
        alice.refused(stranger).await,
        "no-such-peer",
        "only the bound device"
    );
    assert_eq!(
        alice.request(json!({"type": "hangup", "callId": id})).await["type"],
        "ack"
    );
    assert_eq!(laptop.until("hangup").await["callId"], id);
    let late = json!({"type": "answer", "sdp": "v=0", "to": alice.peer_id});
    assert_eq!(laptop.refused(late).await, "no-such-peer");
}

#[tokio::test]
async fn one_rejection_leaves_the_other_devices_ringing_and_the_last_reaches_the_caller() {
    let callbox = Callbox::start("").await;
    let (mut alice, _) = Client::register(&callbox, "alice").await;
    let (mut phone, _) = Client::register(&callbox, "bob").await;
    let (mut laptop, _) = Client::register(&callbox, "bob").await;
    let id = call(&mut alice, "bob").await;
    let reject = json!({"type": "reject", "callId": id, "reason": "busy"});
    assert_eq!(phone.request(reject.clone()).await["type"], "ack");
    assert_eq!(
        alice.request(json!({"type": "ping"})).await["type"],
        "pong",
        "still ringing"
    );
    assert_eq!(laptop.request(reject).await["type"], "ack");
    let rejected = alice.expect("reject").await;
    assert_eq!(
        (&rejected["callId"], &rejected["reason"]),
        (&id, &json!("busy"))
    );
    assert_eq!(
        alice.refused(json!({"type": "hangup", "callId": id})).await,
        "no-such-call"
    );
}

#[tokio::test]
async fn the_caller_may_give_up_while_it_rings() {
    let callbox = Callbox::start("").await;
    let (mut alice, _) = Client::register(&callbox, "alice").await;
    let (mut bob, _) = Client::register(&callbox, "bob").await;
    let id = call(&mut alice, "bob").await;
    alice.request(json!({"type": "hangup", "callId": id})).await;
    bob.expect("call").await;
    assert_eq!(bob.expect("hangup").await["reason"], "cancelled");
    assert_eq!(
        bob.refused(json!({"type": "accept", "callId": id})).await,
        "no-such-call"
    );
    assert_eq!(
        alice.refused(json!({"type": "call", "to": "nobody"})).await,
        "no-such-peer"
    );
}

#[tokio::test]
async fn an_unanswered_call_ends_for_both_sides() {
    let callbox = Callbox::start("").await;
    let (mut alice, _) = Client::register(&callbox, "alice").await;
    let (mut bob, _) = Client::register(&callbox, "bob").await;
    let id = call(&mut alice, "bob").await;
    bob.expect("call").await;
    // Below the first heartbeat, then past the 45 s of the contract.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(24)).await;
    tokio::time::resume();
    assert_eq!(alice.request(json!({"type": "ping"})).await["type"], "pong");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(22)).await;
    tokio::time::resume();
    for side in [&mut alice, &mut bob] {
        let hangup = side.until("hangup").await;
        assert_eq!(
            (&hangup["callId"], &hangup["reason"]),
            (&id, &json!("timeout"))
        );
    }
}

#[tokio::test]
async fn a_party_that_is_gone_for_good_ends_the_call() {
    let callbox = Callbox::start("[signal]\nresume_window = \"1s\"").await;
    let (mut alice, _) = Client::register(&callbox, "alice").await;
    let (mut bob, _) = Client::register(&callbox, "bob").await;
    let id = call(&mut alice, "bob").await;
    bob.request(json!({"type": "accept", "callId": id})).await;
    drop(bob);
    assert_eq!(alice.until("hangup").await["reason"], "disconnected");
}
