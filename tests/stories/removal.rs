//! A peer that is removed from signaling loses its relay as well.

use crate::harness::{Callbox, Client, TIMEOUT};
use crate::http::{json, send};
use crate::turn_client::{self, Client as TurnClient};
use callbox::auth::credential::Credential;
use serde_json::{Value, json as value};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const TOML: &str = "[turn]\nallowed_peers = [\"127.0.0.0/8\"]\n[auth]\nadmin_token = \"sesame\"\n\
                    [signal]\nresume_window = \"1s\"";
const TOKEN: &str = "Authorization: Bearer sesame\r\n";
fn credential(reply: &Value) -> Credential {
    let turn = &reply["iceServers"][1];
    Credential {
        username: turn["username"].as_str().unwrap().into(),
        password: turn["credential"].as_str().unwrap().into(),
    }
}

/// A live relay of the peer that `joined`, with a peer of its own that receives what it sends.
struct Relayed {
    turn: TurnClient<UdpSocket>,
    peer: UdpSocket,
}

impl Relayed {
    fn open(callbox: &Callbox, joined: &Value) -> Self {
        let mut turn = turn_client::udp(callbox.udp[0], credential(joined));
        let relayed = turn.allocate().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        turn.bind(0x4000, peer.local_addr().unwrap()).unwrap();
        peer.send_to(b"hello", relayed).unwrap();
        assert_eq!(turn.receive_channel(), (0x4000, b"hello".to_vec()));
        Self { turn, peer }
    }

    /// Asks on the wire until nothing passes any more.
    fn goes_silent(mut self) {
        let begun = Instant::now();
        let mut received = [0; 16];
        self.peer
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        loop {
            self.turn.send_channel(0x4000, b"still there?");
            if self.peer.recv(&mut received).is_err() {
                break;
            }
            assert!(begun.elapsed() < TIMEOUT, "the relay lives on");
        }
        let again = self.turn.allocate();
        assert_eq!(again, Err(401), "what was minted before is refused");
    }
}

async fn blocking(story: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(story).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_closes_the_relay() {
    let callbox = Callbox::start(TOML).await;
    let (mut host, _) = Client::join(&callbox, "r", "host").await;
    let (guest, joined) = Client::join(&callbox, "r", "guest").await;
    let relayed = Relayed::open(&callbox, &joined);
    host.request(value!({"type": "kick", "peerId": guest.peer_id}))
        .await;
    blocking(|| relayed.goes_silent()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_closes_the_relay_and_coming_back_opens_another() {
    let callbox = Callbox::start(TOML).await;
    let (mut client, joined) = Client::join(&callbox, "r", "a").await;
    let relayed = Relayed::open(&callbox, &joined);
    client.request(value!({"type": "leave"})).await;
    blocking(|| relayed.goes_silent()).await;
    let again = client
        .request(value!({"type": "join", "roomId": "r"}))
        .await;
    assert_eq!(again["type"], "joined");
    Relayed::open(&callbox, &again);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_resume_window_closes_the_relay() {
    let callbox = Callbox::start(TOML).await;
    let (mut stays, _) = Client::join(&callbox, "r", "stays").await;
    let (lost, joined) = Client::join(&callbox, "r", "lost").await;
    let relayed = Relayed::open(&callbox, &joined);
    drop(lost);
    stays.until("peer-left").await;
    blocking(|| relayed.goes_silent()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_relays_and_revokes_them() {
    let callbox = Callbox::start(TOML).await;
    let (client, joined) = Client::join(&callbox, "r", "alice").await;
    let relayed = Relayed::open(&callbox, &joined);
    let listed = json(&send(&callbox, "GET", "/v1/relays", TOKEN, "").await.2);
    let row = &listed["relays"][0];
    assert_eq!(row["user"], value!(client.peer_id));
    assert_eq!(
        (&row["identity"], &row["roomId"]),
        (&value!("alice"), &value!("r"))
    );
    assert_eq!(
        (&row["transport"], &row["bytesReceived"]),
        (&value!("udp"), &value!(5))
    );
    let path = format!("/v1/relays/{}", client.peer_id);
    assert_eq!(send(&callbox, "DELETE", &path, TOKEN, "").await.0, 204);
    blocking(|| relayed.goes_silent()).await;

    let (_, _, text) = send(&callbox, "GET", "/metrics", TOKEN, "").await;
    for line in [
        "callbox_relay_allocations{family=\"ipv4\",transport=\"udp\"} 0",
        "callbox_relay_allocations_opened_total 1",
        "callbox_relay_bytes_total{path=\"to_clients\"} 5",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing:\n{text}"
        );
    }

    let servers = json(&send(&callbox, "GET", "/v1/ice-servers", "", "").await.2);
    let relayed = Relayed::open(&callbox, &servers);
    let listed = json(&send(&callbox, "GET", "/v1/relays", TOKEN, "").await.2);
    let user = listed["relays"][0]["user"].as_str().unwrap().to_owned();
    assert!(user.starts_with("http-"), "{user}");
    assert_eq!(
        send(&callbox, "DELETE", &format!("/v1/relays/{user}"), TOKEN, "")
            .await
            .0,
        204
    );
    blocking(|| relayed.goes_silent()).await;
}
