//! The client in Rust of docs/clients, as it stands there.

use crate::harness::{Callbox, Client, Reachable, TIMEOUT};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

#[path = "../../docs/clients/client.rs"]
mod client;

fn start(url: &str, name: &'static str, said: &UnboundedSender<String>) -> JoinHandle<String> {
    let (url, said) = (url.to_owned(), said.clone());
    tokio::spawn(async move { client::run(&url, "rust", name, None, said).await })
}

/// Waits until a client says that.
async fn says(said: &mut UnboundedReceiver<String>, wanted: &str) {
    let heard = async {
        while let Some(words) = said.recv().await {
            if words == wanted {
                return;
            }
        }
        panic!("the clients ended before one said {wanted:?}");
    };
    timeout(TIMEOUT, heard).await.expect(wanted);
}

#[tokio::test]
async fn the_documented_client_connects_to_another_of_its_kind() {
    // Two of rustls' providers are compiled in: ring by the peers, aws-lc by the box.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let callbox = Callbox::start("").await;
    let url = format!("ws://{}/ws", callbox.http());
    let (said, mut received) = unbounded_channel();
    let (ann, ben) = (start(&url, "Ann", &said), start(&url, "Ben", &said));
    // Who comes later finds the other one and offers, whichever of the two that is. What it greets with
    // goes to the other one by data channel, and comes back.
    says(&mut received, "received hello").await;
    ann.abort();
    ben.abort();
}

/// A proxy to the box whose connections end when a word comes.
async fn cutting_proxy(to: SocketAddr, mut cut: UnboundedReceiver<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = cut.recv() => {}
            }
        }
    });
    address
}

#[tokio::test]
async fn the_documented_client_resumes_after_a_cut() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let callbox = Callbox::start("").await;
    let (cut, cuts) = unbounded_channel();
    let proxy = cutting_proxy(callbox.http(), cuts).await;
    let (said, mut received) = unbounded_channel();
    let ann = start(&format!("ws://{proxy}/ws"), "Ann", &said);
    says(&mut received, "joined").await;
    let (mut eve, joined) = Client::join(&callbox, "rust", "eve").await;
    let ann_id = &joined["peers"][0]["peerId"];
    for round in 0..2 {
        let message = json!({"type": "message", "to": ann_id, "content": round});
        eve.request(message).await;
        let echo = eve.until("message").await;
        assert_eq!(echo["content"], json!({"echo": round}));
        assert_eq!(&echo["from"], ann_id, "it is the same session");
        if round == 0 {
            cut.send(()).unwrap();
            says(&mut received, "resumed").await;
        }
    }
    assert!(!ann.is_finished());
    ann.abort();
}

type Script = WebSocketStream<TcpStream>;

async fn accepted(listener: &TcpListener) -> (Script, Value) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut script = tokio_tungstenite::accept_async(stream).await.unwrap();
    let request = heard(&mut script).await;
    (script, request)
}

async fn heard(script: &mut Script) -> Value {
    let frame = script.next().await.unwrap().unwrap();
    serde_json::from_str(frame.to_text().unwrap()).unwrap()
}

async fn answers(script: &mut Script, answer: Value) {
    script
        .send(Message::text(answer.to_string()))
        .await
        .unwrap();
}

async fn closes(mut script: Script, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    script.close(Some(frame)).await.unwrap();
}

/// What a box says is scripted here, as no box can be had to say all of it.
#[tokio::test]
async fn the_documented_client_does_what_close_codes_ask() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let (said, _received) = unbounded_channel();
    let ended = tokio::spawn(async move {
        client::run(&url, "rust", "Ann", Some("a token".into()), said).await
    });
    let story = async {
        let (mut script, join) = accepted(&listener).await;
        assert_eq!(
            (&join["type"], &join["token"]),
            (&json!("join"), &json!("a token"))
        );
        let joined = json!({"seq": 1, "type": "joined", "id": join["id"], "roomId": "rust", "peerId": "p",
            "resumeToken": "t", "peers": [], "iceServers": []});
        answers(&mut script, joined.clone()).await;
        let word = json!({"seq": 2, "type": "message", "from": "q", "content": 1});
        answers(&mut script, word).await;
        // It answers, and nobody acknowledges that.
        let echo = heard(&mut script).await;
        assert_eq!(echo["content"], json!({"echo": 1}));
        for code in [1012, 1013] {
            closes(script, code).await;
            let resume;
            (script, resume) = accepted(&listener).await;
            assert_eq!(
                (&resume["type"], &resume["seq"]),
                (&json!("resume"), &json!(2))
            );
            let mut resumed = joined.clone();
            (resumed["type"], resumed["id"]) = (json!("resumed"), resume["id"].clone());
            resumed.as_object_mut().unwrap().remove("seq");
            answers(&mut script, resumed).await;
            assert_eq!(
                heard(&mut script).await,
                echo,
                "it goes again under its old id"
            );
        }
        // A session that is gone is made anew, with the token.
        drop(script);
        let (mut script, resume) = accepted(&listener).await;
        let gone = json!({"type": "error", "id": resume["id"], "code": "resume-failed", "message": "gone"});
        answers(&mut script, gone).await;
        let again = heard(&mut script).await;
        assert_eq!(
            (&again["type"], &again["token"]),
            (&join["type"], &join["token"])
        );
        assert_ne!(again["id"], resume["id"]);
        answers(&mut script, joined).await;
        closes(script, 4002).await;
    };
    timeout(TIMEOUT, story).await.unwrap();
    let why = timeout(TIMEOUT, ended).await.unwrap().unwrap();
    assert_eq!(why, "closed 4002");
}

#[tokio::test]
async fn the_documented_client_outlives_what_a_peer_makes_up() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let callbox = Callbox::start("").await;
    let url = format!("ws://{}/ws", callbox.http());
    let (said, mut received) = unbounded_channel();
    let ann = start(&url, "Ann", &said);
    let (mut eve, joined) = Client::join(&callbox, "rust", "eve").await;
    let to = match &joined["peers"][0]["peerId"] {
        Value::Null => eve.until("peer-joined").await["peerId"].clone(),
        known => known.clone(),
    };
    for value in [
        json!(null),
        json!(5),
        json!("garbage"),
        json!("v=0"),
        json!({"sdp": 5}),
        json!({"candidate": 5}),
        json!({"candidate": "x", "sdpMid": {}}),
    ] {
        for kind in ["offer", "candidate", "answer", "message"] {
            // Some are refused by the box, and the others have to be lived with.
            let made_up =
                json!({"type": kind, "to": to, "sdp": value, "candidate": value, "content": value});
            eve.request(made_up).await;
        }
    }
    let ben = start(&url, "Ben", &said);
    says(&mut received, "received hello").await;
    assert!(!ann.is_finished());
    ann.abort();
    ben.abort();
}
