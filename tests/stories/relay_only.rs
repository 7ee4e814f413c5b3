//! Rooms in which no address may be learnt.

use crate::harness::{Callbox, Client};
use serde_json::{Value, json};

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

    for candidate in [
        json!(HOST),
        json!(format!("a={HOST}")),
        json!({"candidate": HOST, "sdpMid": "0"}),
    ] {
        let reply = bob
            .request(json!({"type": "candidate", "candidate": candidate}))
            .await;
        assert_eq!(reply["type"], "ack", "dropped, not refused");
    }
    let odd = RELAY.replace("raddr", "generation raddr");
    for relayed in [RELAY, &odd] {
        bob.request(json!({"type": "candidate", "candidate": {"candidate": relayed}}))
            .await;
        let got = alice.expect("candidate").await.to_string();
        assert!(
            got.contains("203.0.113.9") && got.contains("raddr 0.0.0.0 rport 0"),
            "{got}"
        );
    }

    let honest = format!(
        "v=0\r\no=- 1 1 IN IP4 192.168.7.7\r\ns=-\r\nc=IN IP4 192.168.7.7\r\nt=0 0\r\n\
         m=audio 50000 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 192.168.7.7\r\n\
         a=rtcp:50001 IN IP4 192.168.7.7\r\na={HOST}\r\na={RELAY}\r\na=mid:0\r\n"
    );
    let cheat = format!("{honest}{}", cheating_lines());
    for sdp in [json!(cheat), json!({"type": "offer", "sdp": cheat})] {
        bob.send(json!({"type": "offer", "sdp": sdp})).await;
        let offer = leaks_nothing(&alice.expect("offer").await);
        assert!(
            offer.contains("203.0.113.9") && offer.contains("a=mid:0"),
            "{offer}"
        );
    }
    for beside in [
        json!({"type": "offer", "sdp": "t=0 0", "candidate": HOST, "candidates": [HOST]}),
        json!({"type": "offer", "sdp": {"type": HOST, "sdp": "t=0 0", "candidate": HOST}}),
        json!({"type": "candidate", "candidate": null, "sdp": format!("a={HOST}")}),
        json!({"type": "candidate", "candidate": null, "sdpMid": {"candidate": HOST}}),
        json!({"type": "candidate", "candidate": {"candidate": "", "usernameFragment": HOST}}),
        json!({"type": "candidate", "candidate": "", "usernameFragment": HOST}),
    ] {
        bob.send(beside.clone()).await;
        leaks_nothing(&alice.expect(beside["type"].as_str().unwrap()).await);
    }
}

/// Lines that one reader or another takes for a candidate or an address.
fn cheating_lines() -> String {
    let separators = ["\x0b", "\x0c", "\x1c", "\u{85}", "\u{2028}", "\0"];
    let hidden = separators.map(|separator| format!("a=x{separator}a={HOST}\r\n"));
    let lines = [
        format!("A={HOST}"),
        HOST.to_owned(),
        format!("\u{feff}a={HOST}"),
        format!("a=\u{200b}{HOST}"),
        "C=IN IP4 192.168.7.7".to_owned(),
        "o=192.168.7.7 1 1 IN IP4 192.168.7.7".to_owned(),
        "m=audio  50000 RTP".to_owned(),
    ];
    hidden.concat() + &lines.join("\r\n")
}

fn leaks_nothing(got: &Value) -> String {
    let text = got.to_string();
    assert!(
        !text.contains("192.168.7.7") && !text.contains("50000"),
        "{text}"
    );
    text
}

#[tokio::test]
async fn without_a_relay_there_is_no_such_room() {
    let callbox = Callbox::start("[turn]\nenabled = false").await;
    let mut client = Client::connect(&callbox).await;
    let create = json!({"type": "join", "roomId": "r", "create": {"relayOnly": true}});
    assert_eq!(client.refused(create).await, "no-relay");
}
