//! Foreign clients over requests and over topics: Socket.IO by polling, the polling of a tutorial, rooms
//! over MQTT, and what an operator sees of names and topics.

use crate::harness::{Callbox, Client, Reachable, TIMEOUT};
use crate::http::{json, send};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const SOCKET_IO: &str = "[compat]\nenabled = [\"socketio\"]";
const PAGE: &str = "Origin: http://localhost:3000\r\n";

/// A client of Socket.IO 4 that knows polling only.
struct Polling<'a> {
    callbox: &'a Callbox,
    path: String,
}

impl<'a> Polling<'a> {
    async fn open(callbox: &'a Callbox) -> Self {
        let path = "/socket.io/?EIO=4&transport=polling";
        let (status, _, body) = send(callbox, "GET", path, PAGE, "").await;
        assert_eq!(status, 200, "{body}");
        let open = json(body.strip_prefix('0').unwrap());
        let path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
        Self { callbox, path }
    }

    async fn post(&self, body: &str) -> u16 {
        send(self.callbox, "POST", &self.path, PAGE, body).await.0
    }

    async fn get(&self) -> (u16, String) {
        let (status, _, body) = send(self.callbox, "GET", &self.path, PAGE, "").await;
        (status, body)
    }
}

#[tokio::test]
async fn a_client_of_socketio_polls_and_its_session_ends_when_it_polls_twice() {
    let callbox = Callbox::start(SOCKET_IO).await;
    let polling = Polling::open(&callbox).await;
    assert_eq!(polling.post("40").await, 200);
    let (_, connected) = polling.get().await;
    assert!(connected.starts_with("40{\"sid\":"), "{connected}");
    assert_eq!(
        polling
            .post("421[\"join\",\"r\"]\u{1e}42[\"chat\",1]")
            .await,
        200
    );
    let (_, received) = polling.get().await;
    assert!(received.starts_with("431[{\"ok\":true"), "{received}");
    // The later of the two is refused, and the session with the earlier one closed.
    let (one, two) = tokio::join!(polling.get(), polling.get());
    let mut codes = [one, two].map(|(status, body)| (status, json(&body)["code"].as_u64()));
    codes.sort_unstable();
    assert_eq!(codes, [(400, Some(1)), (400, Some(3))]);
    let (status, body) = polling.get().await;
    assert_eq!((status, &json(&body)["code"]), (400, &json!(1)));
}

#[tokio::test]
async fn errors_of_engine_io_have_their_numbers_and_pages_their_credentials() {
    let callbox = Callbox::start(SOCKET_IO).await;
    for (method, query, code) in [
        ("GET", "EIO=4&transport=pigeon", 0),
        ("GET", "EIO=4&transport=polling&sid=x", 1),
        ("GET", "EIO=4&transport=websocket&sid=x", 1),
        ("POST", "EIO=4&transport=polling", 2),
        ("GET", "EIO=2&transport=polling", 5),
        ("GET", "EIO=3&transport=polling&j=0", 5),
    ] {
        let path = format!("/socket.io/?{query}");
        let (status, _, body) = send(&callbox, method, &path, PAGE, "").await;
        assert_eq!(
            (status, &json(&body)["code"]),
            (400, &json!(code)),
            "{query}"
        );
    }
    let path = "/socket.io/?EIO=4&transport=polling";
    let preflight = format!("{PAGE}Access-Control-Request-Method: POST\r\n");
    for (method, headers) in [("GET", PAGE), ("OPTIONS", &preflight)] {
        let (_, head, _) = send(&callbox, method, path, headers, "").await;
        assert!(
            head.contains("access-control-allow-origin: http://localhost:3000"),
            "{head}"
        );
        assert!(
            head.contains("access-control-allow-credentials: true"),
            "{head}"
        );
    }
    let elsewhere = "Origin: https://elsewhere.example\r\n";
    let (status, _, body) = send(&callbox, "GET", path, elsewhere, "").await;
    assert_eq!((status, &json(&body)["code"]), (403, &json!(4)));
    let (_, head, _) = send(&callbox, "GET", "/v1/ice-servers", PAGE, "").await;
    assert!(!head.contains("allow-credentials"), "{head}");
    let (status, head, body) = send(&callbox, "GET", "/socket.io/socket.io.js", "", "").await;
    assert!(status == 200 && body.contains("Socket.IO v4"));
    let tag = head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap();
    let known = format!("If-None-Match: {tag}\r\n");
    assert_eq!(
        send(&callbox, "GET", "/socket.io/socket.io.js", &known, "")
            .await
            .0,
        304
    );
    let off = Callbox::start("compat.enabled = []").await;
    for path in [path, "/socket.io/socket.io.js", "/api/messages"] {
        assert_eq!(send(&off, "GET", path, "", "").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_or_not_of_the_protocol_ends_one_session_alone() {
    let callbox = Callbox::start(&format!("{SOCKET_IO}\n[signal]\nmax_frame = \"1KiB\"")).await;
    let (large, wrong, fine) = (
        Polling::open(&callbox).await,
        Polling::open(&callbox).await,
        Polling::open(&callbox).await,
    );
    assert_eq!(large.post(&"4".repeat(2_000)).await, 413);
    assert_eq!(wrong.post("b!").await, 400);
    for ended in [large, wrong] {
        assert_eq!(ended.post("40").await, 400);
    }
    assert_eq!(fine.post("40").await, 200);
    assert!(fine.get().await.1.starts_with("40"));
}

#[tokio::test]
async fn a_token_is_needed_to_connect() {
    let callbox = Callbox::start(&format!(
        "{SOCKET_IO}\n[auth]\nmode = \"jwt\"\nsecret = \"a secret that is long enough for HS256\""
    ))
    .await;
    let polling = Polling::open(&callbox).await;
    assert_eq!(polling.post("40{\"token\":\"x.y.z\"}").await, 200);
    let (_, refused) = polling.get().await;
    assert!(
        refused.contains("44{\"message\":\"unauthorized\"}"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_page_that_polls_meets_a_native_client() {
    let callbox = Callbox::start("").await;
    let (mut native, joined) = Client::join(&callbox, "r", "nina").await;
    let (status, head, body) = send(&callbox, "GET", "/api/messages", "", "").await;
    assert_eq!((status, &json(&body)[0]["type"]), (200, &json!("welcome")));
    let cookie = head
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    assert!(
        cookie.contains("httponly") && cookie.contains("samesite=strict"),
        "{cookie}"
    );
    let (pair, _) = cookie.split_once(';').unwrap();
    let cookie = format!("Cookie: other=1; {pair}\r\n");
    let say = async |message: Value| {
        send(
            &callbox,
            "POST",
            "/api/messages",
            &cookie,
            &message.to_string(),
        )
        .await
        .0
    };
    let next = async || json(&send(&callbox, "GET", "/api/messages", &cookie, "").await.2);
    assert_eq!(say(json!({"type": "join", "roomId": "r"})).await, 202);
    let received = next().await;
    assert_eq!(
        received[0]["members"],
        json!([joined["peerId"]]),
        "{received}"
    );
    let newcomer = native.until("peer-joined").await;
    native
        .send(json!({"type": "offer", "sdp": "v=0", "to": newcomer["peerId"]}))
        .await;
    assert_eq!(next().await[0]["from"], joined["peerId"]);
    let answer = json!({"type": "answer", "sdp": "v=0", "to": joined["peerId"], "from": "eve"});
    assert_eq!(say(answer).await, 202);
    assert_eq!(native.until("answer").await["from"], newcomer["peerId"]);
}

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn connect(callbox: &Callbox, path: &str, subprotocol: Option<&str>) -> Socket {
    let url = format!("ws://{}{path}", callbox.http());
    let mut request = url.into_client_request().unwrap();
    if let Some(subprotocol) = subprotocol {
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", subprotocol.parse().unwrap());
    }
    connect_async(request).await.unwrap().0
}

pub async fn next(socket: &mut Socket) -> Message {
    loop {
        let message = timeout(TIMEOUT, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

/// A packet of MQTT with a body below 128 bytes.
fn packet(head: u8, body: &[u8]) -> Message {
    assert!(body.len() < 128);
    Message::binary([&[head, body.len() as u8], body].concat())
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

#[tokio::test]
async fn a_topic_of_mqtt_is_a_room_where_all_meet() {
    let callbox = Callbox::start("").await;
    let (mut native, _) = Client::join(&callbox, "r", "nina").await;
    let (topic, mut clients) = ("room/r/signaling", vec![]);
    for name in ["one", "two"] {
        let mut client = connect(&callbox, "/", Some("mqtt")).await;
        let hello = [&text("MQTT")[..], &[4, 2, 0, 60], &text(name)].concat();
        client.send(packet(0x10, &hello)).await.unwrap();
        assert_eq!(next(&mut client).await.into_data()[0], 0x20);
        let subscribe = [&[0, 1][..], &text(topic), &[0]].concat();
        client.send(packet(0x82, &subscribe)).await.unwrap();
        assert_eq!(next(&mut client).await.into_data()[0], 0x90);
        let joined = native.until("peer-joined").await;
        assert_eq!(
            (&joined["identity"], &joined["peer"]["dialect"]),
            (&json!(name), &json!("mqtt"))
        );
        clients.push(client);
    }
    let payload = |message: Message| {
        let bytes = message.into_data();
        assert_eq!(bytes[0], 0x30);
        let at = bytes.iter().position(|byte| *byte == b'{').unwrap();
        json(std::str::from_utf8(&bytes[at..]).unwrap())
    };
    // What one publishes: the other one receives it once, as it is, and the native client by the room.
    let offer = r#"{"type":"offer","sdp":"v=0","from":"user-456"}"#;
    let publish = packet(0x30, &[&text(topic), offer.as_bytes()].concat());
    clients[0].send(publish).await.unwrap();
    for client in &mut clients {
        assert_eq!(payload(next(client).await), json(offer));
    }
    let received = native.until("offer").await;
    assert_eq!(
        (&received["fromIdentity"], &received["sdp"]),
        (&json!("one"), &json!("v=0"))
    );
    assert_ne!(received["from"], "user-456");
    // What the native client says is published.
    let answer = json!({"type": "answer", "sdp": "v=1", "to": received["from"]});
    native.send(answer).await;
    native
        .send(json!({"type": "message", "content": "to all"}))
        .await;
    let published = payload(next(&mut clients[0]).await);
    assert_eq!(
        (&published["type"], &published["sdp"]),
        (&json!("answer"), &json!("v=1"))
    );
    assert_eq!(
        (&published["fromIdentity"], &published["roomId"]),
        (&json!("nina"), &json!("r"))
    );
    for client in &mut clients {
        assert_eq!(payload(next(client).await)["content"], "to all");
    }
    // Who receives by a topic what cannot be filtered is in no room that shows no addresses.
    let relay_only = json!({"type": "room", "relayOnly": true});
    assert_eq!(native.refused(relay_only).await, "forbidden");
    let mut quiet = Client::connect(&callbox).await;
    let join = json!({"type": "join", "roomId": "quiet", "create": {"relayOnly": true}});
    quiet.request(join).await;
    let subscribe = [&[0, 3][..], &text("room/quiet/signaling"), &[0]].concat();
    let mut third = connect(&callbox, "/", Some("mqtt")).await;
    let hello = [&text("MQTT")[..], &[4, 2, 0, 60], &text("three")].concat();
    third.send(packet(0x10, &hello)).await.unwrap();
    next(&mut third).await;
    third.send(packet(0x82, &subscribe)).await.unwrap();
    let refused = next(&mut third).await.into_data();
    assert_eq!(refused[..], [0x90, 3, 0, 3, 0x80]);
    assert_eq!(
        quiet.request(json!({"type": "list"})).await["peers"],
        json!([])
    );
    let unsubscribe = [&[0, 2][..], &text(topic)].concat();
    clients[0].send(packet(0xa2, &unsubscribe)).await.unwrap();
    assert_eq!(native.until("peer-left").await["identity"], "one");
}

#[tokio::test]
async fn an_operator_sees_and_removes_a_client_of_peerjs() {
    let callbox = Callbox::start(
        "[compat]\nenabled = [\"peerjs\", \"socketio\"]\n[auth]\nadmin_token = \"sesame\"",
    )
    .await;
    let admin = "Authorization: Bearer sesame\r\n";
    let mut client = connect(&callbox, "/peerjs?key=peerjs&id=ann&token=t", None).await;
    assert!(next(&mut client).await.to_text().unwrap().contains("OPEN"));
    let (_, _, body) = send(&callbox, "GET", "/v1/clients", admin, "").await;
    let listed = json(&body)["clients"][0].clone();
    assert_eq!(
        (&listed["name"], &listed["dialect"]),
        (&json!("ann"), &json!("peerjs"))
    );
    let (_, _, metrics) = send(&callbox, "GET", "/metrics", admin, "").await;
    assert!(metrics.contains("callbox_signal_names 1"), "{metrics}");
    let path = format!("/v1/clients/{}", listed["peerId"].as_str().unwrap());
    assert_eq!(send(&callbox, "DELETE", &path, admin, "").await.0, 204);
    loop {
        if let Message::Close(frame) = next(&mut client).await {
            assert_eq!(u16::from(frame.unwrap().code), 4002);
            break;
        }
    }
    assert_eq!(send(&callbox, "DELETE", &path, admin, "").await.0, 404);
    assert_eq!(send(&callbox, "GET", "/v1/clients", "", "").await.0, 401);
    // A room of Socket.IO is apart from the native one of that name, and shown with its realm.
    let polling = Polling::open(&callbox).await;
    assert_eq!(polling.post("40").await, 200);
    assert!(polling.get().await.1.starts_with("40"));
    assert_eq!(polling.post("421[\"join\",\"r\"]").await, 200);
    assert!(polling.get().await.1.starts_with("431[{\"ok\":true"));
    let (_, joined) = Client::join(&callbox, "r", "nina").await;
    assert_eq!(joined["peers"], json!([]));
    let rooms =
        async || json(&send(&callbox, "GET", "/v1/rooms", admin, "").await.2)["rooms"].clone();
    assert_eq!(rooms().await[1]["roomId"], "socketio\u{1f}r");
    let path = "/v1/rooms/socketio%1fr";
    let patch = send(&callbox, "PATCH", path, admin, "{\"relayOnly\":true}").await;
    assert_eq!(
        (patch.0, &json(&patch.2)["code"]),
        (400, &json!("forbidden"))
    );
    assert_eq!(send(&callbox, "DELETE", path, admin, "").await.0, 204);
}
