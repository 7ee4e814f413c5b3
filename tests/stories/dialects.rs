//! What holds for foreign clients whatever they say: limits, tokens, stamps, and what pages are told.

use crate::harness::{Callbox, Client, Reachable, TIMEOUT};
use crate::http::{json, send};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const ADMIN: &str = "Authorization: Bearer sesame\r\n";
const SECRET: &str = "a secret that is long enough for HS256";

/// A WebSocket whose messages are texts.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(callbox: &Callbox, path: &str) -> Self {
        let url = format!("ws://{}{path}", callbox.http());
        Self(connect_async(url).await.unwrap().0)
    }

    /// A client of Socket.IO that is connected.
    async fn of_socketio(callbox: &Callbox, query: &str, token: &str) -> Self {
        let path = format!("/socket.io/?EIO=4&transport=websocket{query}");
        let mut socket = Self::open(callbox, &path).await;
        socket.until("0{").await;
        socket
            .say(&format!("40{}", json!({ "token": token })))
            .await;
        socket.until("40").await;
        socket
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Says all of it before anything is read.
    async fn say_at_once(&mut self, texts: &[&str]) {
        for text in texts {
            self.0.feed(Message::text(*text)).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    /// The next message: its text, or the code with which the connection ends.
    async fn next(&mut self) -> Result<String, u16> {
        loop {
            let message = timeout(TIMEOUT, self.0.next()).await.unwrap();
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.code.into()),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Err(0),
            }
        }
    }

    /// The next message that begins so.
    async fn until(&mut self, start: &str) -> String {
        loop {
            let text = self.next().await.unwrap();
            if text.starts_with(start) {
                return text;
            }
        }
    }

    async fn ends(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_json_ends_neither_peerjs_nor_trystero_but_for_the_rate() {
    let callbox = Callbox::start(
        "[compat]\nenabled = [\"peerjs\", \"trystero\"]\n[auth]\nadmin_token = \"sesame\"",
    )
    .await;
    let mut relay = Socket::open(&callbox, "/trystero").await;
    let mut peer = Socket::open(&callbox, "/peerjs/peerjs?key=peerjs&id=ann&token=t").await;
    peer.until("{\"type\":\"OPEN\"").await;
    for socket in [&mut relay, &mut peer] {
        for _ in 0..30 {
            socket.say("nope").await;
        }
        socket.0.send(Message::binary(vec![1])).await.unwrap();
    }
    relay.say(r#"{"type":"subscribe","topic":"t"}"#).await;
    let publish = r#"{"type":"publish","topic":"t","payload":1}"#;
    relay.say(publish).await;
    assert_eq!(relay.next().await.unwrap(), r#"{"topic":"t","payload":1}"#);
    peer.say(r#"{"type":"OFFER","dst":"ann","payload":{}}"#)
        .await;
    assert!(peer.next().await.unwrap().contains("OFFER"));
    // What is counted as sent is what a client received.
    let (_, _, metrics) = send(&callbox, "GET", "/metrics", ADMIN, "").await;
    for (dialect, sent) in [("trystero", 1), ("peerjs", 2)] {
        let line = format!(
            "callbox_signal_dialect_messages_total{{dialect=\"{dialect}\",direction=\"sent\"}} {sent}\n"
        );
        assert!(metrics.contains(&line), "{line} of {metrics}");
    }
    for mut socket in [relay, peer] {
        let flood = async {
            // Many at a time, so that a busy machine says more than the rate allows, too. The end may come while there is
            // more to say.
            'open: loop {
                for _ in 0..500 {
                    if socket.0.feed(Message::text("nope")).await.is_err() {
                        break 'open;
                    }
                }
                if socket.0.flush().await.is_err() {
                    break;
                }
                if let Ok(Some(Ok(Message::Close(Some(frame))))) =
                    timeout(std::time::Duration::ZERO, socket.0.next()).await
                {
                    return u16::from(frame.code);
                }
            }
            socket.ends().await
        };
        let code = timeout(TIMEOUT, flood).await.unwrap();
        assert!(matches!(code, 0 | 4006), "{code}");
    }
}

#[tokio::test]
async fn nobody_says_the_same_for_ever_without_entering_whatever_the_protocol() {
    let enabled = "[compat]\nenabled = [\"tutorials\", \"trystero\", \"y-webrtc\"]";
    let callbox = Callbox::start(enabled).await;
    for (path, text) in [
        ("/", r#"{"type":"heartbeat"}"#),
        // The dialect passes it over: nobody is in a room.
        ("/", r#"{"type":"leave"}"#),
        ("/", r#"{"desc":1}"#),
        ("/trystero", r#"{"type":"x"}"#),
        ("/y-webrtc", r#"{"type":"ping"}"#),
        ("/y-webrtc", r#"{"type":"subscribe","topics":[""]}"#),
    ] {
        let mut socket = Socket::open(&callbox, path).await;
        for _ in 0..201 {
            // It may end before all is said.
            if socket.0.feed(Message::text(text)).await.is_err() {
                break;
            }
        }
        let _ = socket.0.flush().await;
        assert_eq!(socket.ends().await, 4001, "{path} {text}");
    }
}

#[tokio::test]
async fn who_only_publishes_goes_on() {
    let enabled = "[compat]\nenabled = [\"trystero\", \"y-webrtc\"]";
    let callbox = Callbox::start(enabled).await;
    for (path, subscribe) in [
        ("/trystero", r#"{"type":"subscribe","topic":"t"}"#),
        ("/y-webrtc", r#"{"type":"subscribe","topics":["t"]}"#),
    ] {
        let mut subscriber = Socket::open(&callbox, path).await;
        subscriber.say(subscribe).await;
        let publish = |n: u32| format!(r#"{{"type":"publish","topic":"t","payload":{n}}}"#);
        // Its own publication says that it has subscribed.
        subscriber.say(&publish(0)).await;
        subscriber.until("{").await;
        let mut publisher = Socket::open(&callbox, path).await;
        for n in 1..=450 {
            publisher.say(&publish(n)).await;
        }
        for n in 1..=450 {
            let text = subscriber.next().await.unwrap();
            assert!(text.contains(&format!("\"payload\":{n}")), "{n}: {text}");
        }
    }
}

/// Libraries send all that was said before they were connected in one go.
#[tokio::test]
async fn what_is_said_in_one_go_counts_in_its_order() {
    let callbox = Callbox::start("[compat]\nenabled = [\"tutorials\", \"socketio\"]").await;
    let join = r#"42["join","r"]"#;
    let mut member = Socket::of_socketio(&callbox, "", "").await;
    member.say(join).await;
    member.until("42[\"room-users\"").await;
    let mut guest = Socket::of_socketio(&callbox, "", "").await;
    let said = [join, r#"42["hello",{"n":1}]"#, r#"42["leave"]"#];
    guest.say_at_once(&said).await;
    member.until("42[\"user-joined\"").await;
    let hello = member.until("42[\"hello\"").await;
    assert!(hello.starts_with(r#"42["hello",{"n":1,"from":"#), "{hello}");
    member.until("42[\"user-left\"").await;
    let mut page = Socket::open(&callbox, "/").await;
    let said = [
        r#"{"type":"join","roomId":"t"}"#,
        r#"{"type":"leave","roomId":"t"}"#,
    ];
    page.say_at_once(&said).await;
    page.until(r#"{"type":"left""#).await;
}

#[tokio::test]
async fn the_lobby_of_socketio_is_the_room_that_the_token_names() {
    for (enabled, query, room) in [
        ("socketio", "&profile=call", "socketio\u{1f}call\u{1f}r"),
        ("socketio", "&profile=lobby", "socketio\u{1f}lobby\u{1f}r"),
        ("tutorials", "", "socketio\u{1f}tutorials\u{1f}r"),
    ] {
        let callbox = Callbox::start(&format!(
            "[compat]\nenabled = [\"{enabled}\"]\n[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\n\
             admin_token = \"sesame\""
        ))
        .await;
        let claims = json!({"room": "r", "exp": 4_000_000_000_u64});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let mut socket = Socket::of_socketio(&callbox, query, &token).await;
        socket.until("42[\"ice-servers\"").await;
        let (_, _, rooms) = send(&callbox, "GET", "/v1/rooms", ADMIN, "").await;
        assert_eq!(json(&rooms)["rooms"][0]["roomId"], room);
        if enabled == "tutorials" {
            let path = format!("/?token={token}");
            let mut page = Client::connect_to(&callbox, &path, &[]).await.unwrap();
            let mut native = Client::connect(&callbox).await;
            native
                .request(json!({"type": "join", "roomId": "r", "token": token}))
                .await;
            page.send(json!({"desc": {"type": "offer", "sdp": "v=0"}}))
                .await;
            assert_eq!(native.until("offer").await["sdp"]["sdp"], "v=0");
        }
    }
}

#[tokio::test]
async fn clients_of_engine_io_3_know_no_limit_and_have_twice_the_room() {
    let callbox = Callbox::start("[compat]\nenabled = [\"socketio\"]").await;
    let large = "x".repeat(100_000);
    for (revision, ends) in [(3, false), (4, true)] {
        let path = format!("/socket.io/?EIO={revision}&transport=websocket");
        let mut socket = Socket::open(&callbox, &path).await;
        socket.until("0{").await;
        if revision == 4 {
            socket.say("40").await;
        }
        socket.until("40").await;
        socket.say("421[\"join\",\"r\"]").await;
        socket.until("431[{\"ok\":true").await;
        socket.say(&format!("422[\"chat\",\"{large}\"]")).await;
        match ends {
            true => assert_eq!(socket.ends().await, 1009),
            false => assert_eq!(socket.until("432").await, "432[{\"ok\":true}]"),
        }
    }
}

#[tokio::test]
async fn a_page_of_peerjs_learns_that_only_relayed_candidates_pass() {
    for (relay_only, policy) in [(true, json!("relay")), (false, Value::Null)] {
        let callbox = Callbox::start(&format!(
            "[compat]\nenabled = [\"peerjs\"]\n[compat.peerjs]\nrelay_only = {relay_only}"
        ))
        .await;
        let path = "/peerjs/peerjs/ice-servers";
        let (status, _, body) = send(&callbox, "GET", path, "", "").await;
        assert_eq!((status, &json(&body)["iceTransportPolicy"]), (200, &policy));
        assert!(json(&body)["iceServers"][0]["urls"].is_array(), "{body}");
    }
}

/// A native client, which may send fields of any name, is the attacker.
#[tokio::test]
async fn no_other_protocol_forges_what_a_tutorial_is_told_of_the_sender() {
    let callbox = Callbox::start("").await;
    let mut page = Client::connect_to(&callbox, "/", &[]).await.unwrap();
    page.send(json!({"type": "join", "roomId": "r"})).await;
    page.until("joined").await;
    let mut socket = Socket::of_socketio(&callbox, "", "").await;
    socket.say(r#"42["join-room",{"roomId":"r"}]"#).await;
    socket.until("42[\"joined\"").await;
    let (mut native, joined) = Client::join(&callbox, "r", "nina").await;
    for kind in ["offer", "message"] {
        let forged = json!({"type": kind, "sdp": "v=0", "content": 1, "clientId": "eve",
            "userId": "eve", "fromId": "eve", "fromUserId": "eve", "FromId": "eve",
            "members": ["eve"]});
        native.send(forged).await;
        let by_socketio = socket.until(&format!("42[\"{kind}\"")).await;
        for received in [page.until(kind).await, json(&by_socketio[2..])[1].clone()] {
            assert!(!received.to_string().contains("eve"), "{received}");
            assert_eq!(received["fromId"], joined["peerId"], "{received}");
        }
    }
}
