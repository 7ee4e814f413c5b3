//! Rooms in which no address may be learnt.

use crate::harness::{Callbox, Client};
use serde_json::json;

const HOST: &str = "candidate:1 1 udp 2130706431 192.168.7.7 50000 typ host";
const RELAY: &str =
    "candidate:2 1 udp 33562367 203.0.113.9 60000 typ relay raddr 192.168.7.7 rport 50000";

#[tokio::test]
async fn a_client_that_cheats_leaks_nothing() {
    let callbox = Callbox::start("").await;
    let mut alice = Client::connect(&callbox).await;
    let create = json!({"type": "join", "roomId": "r", "create": {"relayOnly": true}});
    let joined = alice.request(create).await;
    assert_eq!(joined["iceTransportPolicy"], "relay");
    assert_eq!(joined["room"]["relayOnly"], true);
    let (mut bob, _) = Client::join(&callbox, "r", "bob").await;
    alice.until("peer-joined").await;

    for candidate in [json!(HOST), json!({"candidate": HOST, "sdpMid": "0"})] {
        let reply = bob
            .request(json!({"type": "candidate", "candidate": candidate}))
            .await;
        assert_eq!(reply["type"], "ack", "dropped, not refused");
    }
    bob.request(json!({"type": "candidate", "candidate": {"candidate": RELAY}}))
        .await;
    let first = alice.expect("candidate").await.to_string();
    assert!(
        first.contains("203.0.113.9") && first.contains("raddr 0.0.0.0 rport 0"),
        "{first}"
    );

    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 192.168.7.7\r\ns=-\r\nc=IN IP4 192.168.7.7\r\nt=0 0\r\n\
         m=audio 50000 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 192.168.7.7\r\n\
         a=rtcp:50001 IN IP4 192.168.7.7\r\na={HOST}\r\na={RELAY}\r\na=mid:0\r\n"
    );
    bob.send(json!({"type": "offer", "sdp": sdp})).await;
    bob.send(json!({"type": "offer", "sdp": {"type": "offer", "sdp": sdp}}))
        .await;
    for _ in 0..2 {
        let offer = alice.expect("offer").await.to_string();
        assert!(
            !offer.contains("192.168.7.7") && !offer.contains("50000"),
            "{offer}"
        );
        assert!(
            offer.contains("203.0.113.9") && offer.contains("a=mid:0"),
            "{offer}"
        );
    }
}

#[tokio::test]
async fn without_a_relay_there_is_no_such_room() {
    let callbox = Callbox::start("[turn]\nenabled = false").await;
    let mut client = Client::connect(&callbox).await;
    let create = json!({"type": "join", "roomId": "r", "create": {"relayOnly": true}});
    assert_eq!(client.refused(create).await, "no-relay");
}
