//! Passwords, locks, limits, hosts.

use crate::harness::{Callbox, Client};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test]
async fn a_password_keeps_strangers_out() {
    let callbox = Callbox::start("").await;
    let mut host = Client::connect(&callbox).await;
    let create = json!({"type": "join", "roomId": "r", "create": {"password": "xyzzy"}});
    let joined = host.request(create).await;
    assert_eq!(joined["room"]["hasPassword"], true);
    assert!(!joined.to_string().contains("xyzzy"));
    let mut guest = Client::connect(&callbox).await;
    let join = |password: &str| json!({"type": "join", "roomId": "r", "password": password});
    assert_eq!(
        guest.refused(json!({"type": "join", "roomId": "r"})).await,
        "bad-password"
    );
    assert_eq!(guest.refused(join("wrong")).await, "bad-password");
    assert_eq!(guest.request(join("xyzzy")).await["type"], "joined");
    guest.request(json!({"type": "leave"})).await;
    host.request(json!({"type": "room", "password": null}))
        .await;
    let open = guest.request(json!({"type": "join", "roomId": "r"})).await;
    assert_eq!(open["room"]["hasPassword"], false);
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let callbox = Callbox::start("").await;
    let mut host = Client::connect(&callbox).await;
    host.request(json!({"type": "join", "roomId": "r", "create": {"password": "xyzzy"}}))
        .await;
    let mut guest = Client::connect(&callbox).await;
    let mut refusals = vec![];
    for n in 0..50 {
        let guess = json!({"type": "join", "roomId": "r", "password": n.to_string()});
        refusals.push(guest.refused(guess).await);
    }
    assert_eq!(refusals[0], "bad-password");
    let slowed = refusals
        .iter()
        .filter(|code| *code == "rate-limited")
        .count();
    assert!(slowed > 30, "{slowed} of 50 guesses were held back");
}

#[tokio::test]
async fn a_locked_and_a_full_room_take_nobody() {
    let callbox = Callbox::start("").await;
    let mut host = Client::connect(&callbox).await;
    host.request(json!({"type": "join", "roomId": "r", "create": {"maxPeers": 2}}))
        .await;
    let mut guest = Client::connect(&callbox).await;
    let join = json!({"type": "join", "roomId": "r"});
    assert_eq!(
        host.request(json!({"type": "room", "locked": true})).await["type"],
        "room-updated"
    );
    assert_eq!(guest.refused(join.clone()).await, "room-locked");
    host.request(json!({"type": "room", "locked": false})).await;
    assert_eq!(guest.request(join.clone()).await["type"], "joined");
    let mut third = Client::connect(&callbox).await;
    assert_eq!(third.refused(join).await, "room-full");
}

#[tokio::test]
async fn the_longest_present_member_follows_a_host_that_leaves() {
    let callbox = Callbox::start("").await;
    let (mut host, _) = Client::join(&callbox, "r", "host").await;
    let (mut second, joined) = Client::join(&callbox, "r", "second").await;
    assert_eq!(joined["role"], "member");
    let (mut third, _) = Client::join(&callbox, "r", "third").await;
    assert_eq!(
        second
            .refused(json!({"type": "room", "locked": true}))
            .await,
        "forbidden"
    );
    host.request(json!({"type": "leave"})).await;
    third.until("peer-left").await;
    let peers = third.request(json!({"type": "list"})).await;
    assert_eq!(peers["peers"][0]["role"], "host", "{peers}");
    assert_eq!(
        second
            .request(json!({"type": "room", "locked": true}))
            .await["type"],
        "room-updated"
    );
}

#[tokio::test]
async fn a_kicked_peer_is_told_and_disconnected() {
    let callbox = Callbox::start("").await;
    let (mut host, _) = Client::join(&callbox, "r", "host").await;
    let (mut guest, _) = Client::join(&callbox, "r", "guest").await;
    let (mut witness, _) = Client::join(&callbox, "r", "witness").await;
    let kick = json!({"type": "kick", "peerId": guest.peer_id, "reason": "spam"});
    assert_eq!(witness.refused(kick.clone()).await, "forbidden");
    assert_eq!(host.request(kick).await["type"], "ack");
    assert_eq!(guest.until("kicked").await["reason"], "spam");
    assert_eq!(guest.closed().await, CloseCode::Library(4002));
    assert_eq!(witness.until("peer-left").await["reason"], "kicked");
}

#[tokio::test]
async fn an_identity_may_be_held_once() {
    let join = |identity: &str| json!({"type": "join", "roomId": "r", "identity": identity});
    let callbox = Callbox::start("[rooms]\nunique_identity = \"replace\"").await;
    let (mut older, _) = Client::join(&callbox, "r", "alice").await;
    let (_newer, _) = Client::join(&callbox, "r", "alice").await;
    assert_eq!(older.closed().await, CloseCode::Library(4004));
    let callbox = Callbox::start("[rooms]\nunique_identity = \"reject\"").await;
    let (_older, _) = Client::join(&callbox, "r", "alice").await;
    let mut newer = Client::connect(&callbox).await;
    assert_eq!(newer.refused(join("alice")).await, "identity-taken");
    assert_eq!(newer.request(join("bob")).await["type"], "joined");
}

#[tokio::test]
async fn state_and_mute_are_seen_by_others() {
    let callbox = Callbox::start("").await;
    let (mut host, _) = Client::join(&callbox, "r", "host").await;
    let (mut guest, _) = Client::join(&callbox, "r", "guest").await;
    guest
        .request(json!({"type": "state", "state": {"hand": true, "x": 1}}))
        .await;
    guest
        .request(json!({"type": "state", "state": {"x": null}}))
        .await;
    guest
        .request(json!({"type": "mute", "kind": "audio"}))
        .await;
    host.until("peer-state").await;
    host.until("peer-state").await;
    let seen = host.until("peer-state").await;
    assert_eq!(seen["peerId"], json!(guest.peer_id));
    assert_eq!(
        seen["state"],
        json!({"hand": true, "muted": {"audio": true}})
    );
    let ask = json!({"type": "mute", "kind": "video", "to": host.peer_id});
    assert_eq!(guest.refused(ask).await, "forbidden");
    let ask = json!({"type": "mute", "kind": "video", "to": guest.peer_id});
    assert_eq!(host.request(ask).await["type"], "ack");
    assert_eq!(guest.until("mute").await["kind"], "video");
}
