//! The native protocol over requests, for networks that break WebSockets.

use crate::harness::{Callbox, Client, Reachable, TIMEOUT};
use crate::http::{json, send};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client that knows requests only.
struct Requests<'a> {
    callbox: &'a Callbox,
    path: String,
    waiting: Vec<Value>,
}

impl<'a> Requests<'a> {
    async fn open(callbox: &'a Callbox, headers: &str) -> Self {
        let (status, head, body) = send(callbox, "POST", "/v1/sessions", headers, "").await;
        assert_eq!(status, 201, "{body}");
        assert!(head.contains("cache-control: no-store"));
        let id = json(&body)["sessionId"].as_str().unwrap().to_owned();
        Self {
            callbox,
            path: format!("/v1/sessions/{id}"),
            waiting: vec![],
        }
    }

    async fn say(&self, message: Value) -> u16 {
        let path = format!("{}/messages", self.path);
        send(self.callbox, "POST", &path, "", &message.to_string())
            .await
            .0
    }

    async fn poll(&mut self, query: &str) -> (u16, Value) {
        let path = format!("{}/messages{query}", self.path);
        let (status, _, body) = send(self.callbox, "GET", &path, "", "").await;
        (status, json(&body))
    }

    async fn until(&mut self, kind: &str) -> Value {
        loop {
            for message in std::mem::take(&mut self.waiting) {
                if message["type"] == kind {
                    return message;
                }
            }
            let (status, body) = self.poll("?wait=25").await;
            assert_eq!(status, 200, "{body}");
            self.waiting = body["messages"].as_array().unwrap().clone();
        }
    }
}

/// A stream of Server-Sent Events.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn open(requests: &Requests<'_>, headers: &str) -> Self {
        let mut stream = TcpStream::connect(requests.callbox.http()).await.unwrap();
        let path = &requests.path;
        let head = format!("GET {path}/events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut events = Self(BufReader::new(stream));
        assert!(events.line().await.starts_with("HTTP/1.1 200 "));
        events
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(TIMEOUT, self.0.read_line(&mut line)).await;
        assert!(read.unwrap().unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next event's id and data.
    async fn event(&mut self) -> (Option<u64>, Value) {
        let mut id = None;
        loop {
            let line = self.line().await;
            if let Some(number) = line.strip_prefix("id: ") {
                id = Some(number.parse().unwrap());
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return (id, json(data));
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_websocket_meets_one_with_it() {
    let callbox = Callbox::start("").await;
    let (mut native, joined) = Client::join(&callbox, "r", "nina").await;
    let mut polling = Requests::open(&callbox, "").await;
    let welcome = polling.until("welcome").await;
    let join = json!({"type": "join", "id": "1", "roomId": "r", "identity": "paul"});
    assert_eq!(polling.say(join).await, 202);
    let entered = polling.until("joined").await;
    assert_eq!(entered["peers"][0]["peerId"], joined["peerId"]);
    assert_eq!(
        native.until("peer-joined").await["peerId"],
        welcome["peerId"]
    );
    native
        .send(json!({"type": "offer", "sdp": "v=0", "to": welcome["peerId"]}))
        .await;
    let offer = polling.until("offer").await;
    assert_eq!(offer["from"], joined["peerId"]);
    let answer = json!({"type": "answer", "sdp": "v=0", "to": joined["peerId"]});
    assert_eq!(polling.say(answer).await, 202);
    assert_eq!(native.until("answer").await["from"], welcome["peerId"]);
    // What is wrong with a message comes as one.
    let (status, _, _) = send(
        &callbox,
        "POST",
        &format!("{}/messages", polling.path),
        "",
        "not json",
    )
    .await;
    assert_eq!(status, 202);
    assert_eq!(polling.until("error").await["code"], "invalid-json");
    let (status, _, _) = send(&callbox, "DELETE", &polling.path, "", "").await;
    assert_eq!(status, 204);
    assert_eq!(polling.poll("").await.0, 404);
    let state = native.until("peer-state").await;
    assert_eq!(state["connection"], "away", "it may resume elsewhere");
}

#[tokio::test]
async fn events_bear_their_numbers_and_come_again_behind_the_last_one_that_came() {
    let callbox = Callbox::start("").await;
    let requests = Requests::open(&callbox, "").await;
    let mut events = Events::open(&requests, "").await;
    let (id, welcome) = events.event().await;
    assert_eq!((id, &welcome["type"]), (None, &json!("welcome")));
    requests.say(json!({"type": "join", "roomId": "r"})).await;
    let (id, joined) = events.event().await;
    assert_eq!((id, &joined["type"]), (Some(1), &json!("joined")));
    let (mut native, _) = Client::join(&callbox, "r", "nina").await;
    assert_eq!(events.event().await.0, Some(2));
    // The connection breaks, and the next message is said meanwhile.
    drop(events);
    native.send(json!({"type": "message", "content": 3})).await;
    let mut events = Events::open(&requests, "Last-Event-ID: 1\r\n").await;
    let (id, message) = events.event().await;
    assert_eq!((id, &message["type"]), (Some(2), &json!("peer-joined")));
    let (id, message) = events.event().await;
    assert_eq!((id, &message["content"]), (Some(3), &json!(3)));
}

#[tokio::test]
async fn a_session_over_requests_is_resumed_over_a_websocket() {
    let callbox = Callbox::start("").await;
    let mut requests = Requests::open(&callbox, "").await;
    requests.say(json!({"type": "join", "roomId": "r"})).await;
    let joined = requests.until("joined").await;
    let mut native = Client::connect(&callbox).await;
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    let resumed = native.request(resume).await;
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    assert_eq!(resumed["peerId"], joined["peerId"]);
    // The older connection is told why it ends.
    loop {
        let (status, body) = requests.poll("?wait=25").await;
        if body["closed"] != Value::Null {
            assert_eq!(body["closed"]["code"], 4004);
            break;
        }
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test]
async fn who_asks_for_nothing_is_gone_after_the_resume_window() {
    let callbox = Callbox::start("[signal]\nresume_window = \"1s\"").await;
    let (mut native, _) = Client::join(&callbox, "r", "nina").await;
    let mut requests = Requests::open(&callbox, "").await;
    requests.say(json!({"type": "join", "roomId": "r"})).await;
    let joined = requests.until("joined").await;
    let left = timeout(TIMEOUT, native.until("peer-left")).await.unwrap();
    assert_eq!(left["peerId"], joined["peerId"]);
    assert_eq!(requests.poll("").await.0, 404);
    assert_eq!(requests.say(json!({"type": "ping"})).await, 404);
}

#[tokio::test]
async fn requests_are_held_to_the_limits_of_websockets() {
    let callbox = Callbox::start("[signal]\nconnections_per_ip = 2\nmax_frame = \"1KiB\"").await;
    let first = Requests::open(&callbox, "").await;
    let _second = Requests::open(&callbox, "").await;
    let (status, _, body) = send(&callbox, "POST", "/v1/sessions", "", "").await;
    assert_eq!(
        (status, &json(&body)["code"]),
        (429, &json!("rate-limited"))
    );
    let refused = Client::connect_with(&callbox, "", &[]).await;
    assert_eq!(refused.err(), Some(429), "both kinds count as one");
    let large = json!({"type": "message", "content": "x".repeat(2_000)});
    assert_eq!(first.say(large).await, 413);
    assert_eq!(first.say(json!({"type": "ping"})).await, 202, "it lives on");
    let (status, _, _) = send(&callbox, "DELETE", &first.path, "", "").await;
    assert_eq!(status, 204);
    // Its place is free again.
    let again = async {
        while send(&callbox, "POST", "/v1/sessions", "", "").await.0 != 201 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, again).await.unwrap();
    for (method, path, expected) in [
        ("GET", "/v1/sessions/x/messages", 404),
        ("GET", "/v1/sessions/x/events", 404),
        ("GET", "/v1/sessions", 405),
    ] {
        assert_eq!(send(&callbox, method, path, "", "").await.0, expected);
    }
    let path = format!("{}/messages?wait=soon", _second.path);
    assert_eq!(send(&callbox, "GET", &path, "", "").await.0, 400);
}

#[tokio::test]
async fn where_tokens_are_needed_a_session_needs_one_as_well() {
    let callbox = Callbox::start(
        "[auth]\nmode = \"jwt\"\nsecret = \"a secret that is long enough for HS256\"",
    )
    .await;
    let mut requests = Requests::open(&callbox, "Authorization: Bearer x.y.z\r\n").await;
    requests.say(json!({"type": "join", "roomId": "r"})).await;
    assert_eq!(requests.until("error").await["code"], "unauthorized");
    let (_, body) = requests.poll("?wait=25").await;
    assert_eq!(body["closed"]["code"], 4001);
    let (status, _, _) = send(
        &callbox,
        "POST",
        "/v1/sessions",
        "Origin: https://elsewhere.example\r\n",
        "",
    )
    .await;
    assert_eq!(status, 403, "pages of elsewhere");
}
