//! Clients of the tutorials on `/`, beside native ones.

use super::harness::{Callbox, Client};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// Far less than a resume window.
const SOON: Duration = Duration::from_secs(10);

async fn tutorial(callbox: &Callbox) -> Client {
    Client::connect_to(callbox, "/", &[("origin", "http://localhost:3000")])
        .await
        .unwrap()
}

#[tokio::test]
async fn a_native_client_and_one_of_a_tutorial_call_each_other_and_nobody_stays_behind() {
    let callbox = Callbox::start("").await;
    let (mut native, joined) = Client::join(&callbox, "r", "nina").await;
    let mut page = tutorial(&callbox).await;
    page.send(json!({"type": "register", "userId": "xaver"}))
        .await;
    assert_eq!(page.until("registered").await["userId"], "xaver");
    page.send(json!({"type": "join", "roomId": "r"})).await;
    let members = page.until("joined").await["members"].clone();
    assert_eq!(members, json!([joined["peerId"]]));
    let newcomer = native.until("peer-joined").await;
    assert_eq!(newcomer["identity"], "xaver");
    assert_eq!(newcomer["peer"]["dialect"], "tutorial-3");
    page.send(
        json!({"type": "offer", "targetId": joined["peerId"], "fromId": "eve",
        "sdp": {"type": "offer", "sdp": "v=0"}}),
    )
    .await;
    let offer = native.until("offer").await;
    assert_eq!(offer["from"], page.peer_id.as_str());
    assert!(
        offer.get("fromId").is_none() && offer.get("targetId").is_none(),
        "{offer}"
    );
    native
        .send(json!({"type": "answer", "sdp": "v=0", "to": page.peer_id}))
        .await;
    let answer = page.until("answer").await;
    assert_eq!(answer["fromId"], joined["peerId"]);
    assert_eq!(answer["sdp"], json!({"type": "answer", "sdp": "v=0"}));
    drop(page);
    let left = timeout(SOON, native.until("peer-left")).await.unwrap();
    assert_eq!(
        left["reason"], "disconnected",
        "no ghost waits for a resume"
    );
}

#[tokio::test]
async fn a_page_that_names_no_room_finds_the_one_that_waits_in_silence() {
    let callbox = Callbox::start("").await;
    let mut silent = tutorial(&callbox).await;
    let elsewhere = [("origin", "http://localhost:4000")];
    let mut other = Client::connect_to(&callbox, "/", &elsewhere).await.unwrap();
    let mut caller = tutorial(&callbox).await;
    caller
        .send(json!({"desc": {"type": "offer", "sdp": "v=0"}}))
        .await;
    let offer = silent.recv().await;
    assert_eq!(offer, json!({"desc": {"type": "offer", "sdp": "v=0"}}));
    silent
        .send(json!({"desc": {"type": "answer", "sdp": "v=0"}}))
        .await;
    assert_eq!(caller.recv().await["desc"]["type"], "answer");
    silent.send(json!({"candidate": null})).await;
    assert_eq!(caller.recv().await, json!({"candidate": null}));
    other.send(json!({"type": "ping"})).await;
    assert_eq!(
        other.recv().await["type"],
        "pong",
        "a page of another origin is not called"
    );
}

#[tokio::test]
async fn what_is_not_switched_on_is_not_there() {
    let callbox = Callbox::start("compat.enabled = []").await;
    let refused = Client::connect_to(&callbox, "/", &[]).await;
    assert_eq!(refused.err(), Some(200), "the call page, and no WebSocket");
}

#[tokio::test]
async fn where_tokens_are_needed_the_url_carries_one() {
    let callbox = Callbox::start(
        "compat.enabled = [\"tutorials\"]\n[auth]\nmode = \"jwt\"\n\
         secret = \"a secret that is long enough for HS256\"",
    )
    .await;
    let mut page = Client::connect_to(&callbox, "/?token=x.y.z", &[])
        .await
        .unwrap();
    assert_eq!(u16::from(page.closed().await), 4001);
}
