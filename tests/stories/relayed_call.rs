//! Two real WebRTC peers meet in a room and connect through the box's relay.

use crate::connection::Outcome;
use crate::harness::{Callbox, Client, TIMEOUT};
use crate::peers::Peer;
use serde_json::Value;
use tokio::time::timeout;
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType::Relay;

/// Sent by each peer.
const PAYLOAD: usize = 4 << 20;

/// Brings two peers into a room; the newcomer offers. `edit` may change the `iceServers`.
async fn meet(callbox: &Callbox, edit: impl Fn(&mut Value)) -> (Peer, Peer, Outcome, Outcome) {
    let mut peers = vec![];
    for name in ["alice", "bob"] {
        let (client, mut joined) = Client::join(callbox, "room", name).await;
        edit(&mut joined["iceServers"]);
        peers.push(Peer::new(client, &joined["iceServers"]).await);
    }
    let (mut bob, mut alice) = (peers.pop().unwrap(), peers.pop().unwrap());
    bob.offer().await;
    let both = async { tokio::join!(alice.connect(), bob.connect()) };
    let (a, b) = timeout(TIMEOUT, both).await.expect("an attempt ends");
    (alice, bob, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_may_only_relay_pass_four_mebibytes_each_way() {
    let callbox = Callbox::start("").await;
    let (mut alice, mut bob, a, b) = meet(&callbox, |_| {}).await;
    assert_eq!((a, b), (Outcome::Connected, Outcome::Connected));
    let pattern = |salt: usize| -> Vec<u8> {
        (0..PAYLOAD)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8 ^ salt as u8)
            .collect()
    };
    let (of_alice, of_bob) = (pattern(1), pattern(2));
    let (to_alice, to_bob) = tokio::join!(
        alice.connection.exchange(&of_alice),
        bob.connection.exchange(&of_bob)
    );
    assert!(
        to_bob == of_alice && to_alice == of_bob,
        "the data arrived intact"
    );
    assert_eq!(alice.connection.selected().await, (Relay, Relay));
    assert_eq!(bob.connection.selected().await, (Relay, Relay));
    alice.close().await;
    bob.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_relay_the_same_peers_fail() {
    let callbox = Callbox::start("").await;
    let drop_turn = |servers: &mut Value| {
        servers
            .as_array_mut()
            .unwrap()
            .retain(|server| server["username"].is_null());
    };
    let (alice, bob, a, b) = meet(&callbox, drop_turn).await;
    assert_eq!((a, b), (Outcome::Failed, Outcome::Failed));
    alice.close().await;
    bob.close().await;
}
