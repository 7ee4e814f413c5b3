//! What happens in rooms reaches the application's backend and all listeners.

use crate::harness::{Callbox, Client, Process, Reachable, TIMEOUT};
use crate::http::send;
use crate::turn_client;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use callbox::auth::credential::Credential;
use callbox::hooks::signature;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "Authorization: Bearer sesame\r\n";

/// A backend that refuses some batches before it takes one.
#[derive(Default)]
struct Backend {
    /// Statuses of the next answers; 200 afterwards.
    refusals: Mutex<Vec<u16>>,
    events: Mutex<Vec<Value>>,
    batches: Mutex<Vec<usize>>,
    changed: Notify,
}

impl Backend {
    async fn start(refusals: &[u16]) -> (Arc<Self>, SocketAddr) {
        let backend = Arc::new(Self {
            refusals: Mutex::new(refusals.to_vec()),
            ..Self::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/events", post(take));
        let router = router.with_state(Arc::clone(&backend));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, address)
    }

    /// Waits for an event of that type, and returns all up to it.
    async fn until(&self, kind: &str) -> Vec<Value> {
        let arrived = async {
            loop {
                let changed = self.changed.notified();
                let events = self.events.lock().unwrap().clone();
                if let Some(at) = events.iter().position(|e| e["type"] == kind) {
                    return events[..=at].to_vec();
                }
                changed.await;
            }
        };
        timeout(TIMEOUT, arrived).await.unwrap()
    }
}

async fn take(State(backend): State<Arc<Backend>>, headers: HeaderMap, body: String) -> Response {
    let signed = headers.get(signature::HEADER).unwrap().to_str().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let tolerance = Duration::from_secs(60);
    assert!(signature::verify(
        SECRET.as_bytes(),
        signed,
        body.as_bytes(),
        now.as_secs(),
        tolerance
    ));
    let refusal = backend.refusals.lock().unwrap().pop();
    if let Some(status) = refusal {
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        // A redirect is not followed: where it leads could be anywhere.
        return (status, [("location", "http://10.0.0.1/")], "").into_response();
    }
    let body: Value = serde_json::from_str(&body).unwrap();
    let events = body["events"].as_array().unwrap().clone();
    backend.batches.lock().unwrap().push(events.len());
    backend.events.lock().unwrap().extend(events);
    backend.changed.notify_waiters();
    "garbage, which nobody reads".into_response()
}

fn toml(address: SocketAddr, more: &str) -> String {
    format!(
        "[hooks]\nurl = \"http://{address}/events\"\nsecret = \"{SECRET}\"\n{more}\n\
         [auth]\nadmin_token = \"sesame\""
    )
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|e| e["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_backend_is_told_of_rooms_peers_and_calls_in_order() {
    // It refuses twice first.
    let (backend, address) = Backend::start(&[302, 500]).await;
    let callbox = Callbox::start(&toml(address, "allow_private = true")).await;
    let (mut ann, _) = Client::join(&callbox, "r", "ann").await;
    let (mut bob, _) = Client::join(&callbox, "r", "bob").await;
    let calling = ann.request(json!({"type": "call", "to": "bob"})).await;
    bob.until("call").await;
    let accept = json!({"type": "accept", "callId": calling["callId"]});
    bob.request(accept).await;
    bob.request(json!({"type": "leave"})).await;
    ann.request(json!({"type": "leave"})).await;
    let events = backend.until("room-ended").await;
    let expected = [
        "room-started",
        "peer-joined",
        "peer-joined",
        "call-started",
        "call-ended",
        "peer-left",
        "peer-left",
        "room-ended",
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[1]["identity"], "ann");
    assert_eq!(events[4]["answeredBy"]["identity"], "bob");
    assert_eq!(events[5]["reason"], "left");
    let mut ids: Vec<_> = events.iter().map(|e| e["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), events.len());
    assert!(
        events
            .iter()
            .all(|e| e["ts"].is_u64() && e["node"].is_string())
    );

    let metrics = send(&callbox, "GET", "/metrics", TOKEN, "").await.2;
    assert!(
        metrics.contains("callbox_hooks_delivery_failures_total 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_end_of_the_box_is_told_before_it_ends() {
    let (backend, address) = Backend::start(&[]).await;
    let secret = ("CALLBOX_HOOKS__SECRET", SECRET);
    let url = format!("http://{address}/events");
    let mut process = Process::start(&[
        ("CALLBOX_HOOKS__URL", &url),
        secret,
        ("CALLBOX_HOOKS__ALLOW_PRIVATE", "true"),
        ("CALLBOX_DRAIN__GRACE", "0s"),
    ]);
    let (_ann, _) = Client::join(&process, "r", "ann").await;
    backend.until("peer-joined").await;
    process.signal("TERM");
    let events = backend.until("room-ended").await;
    assert_eq!(events[2]["reason"], "draining");
    let ended = tokio::task::spawn_blocking(move || process.exit_code());
    assert_eq!(ended.await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_private_backend_gets_nothing_unless_it_is_allowed() {
    let (backend, address) = Backend::start(&[]).await;
    let callbox = Callbox::start(&toml(address, "")).await;
    Client::join(&callbox, "r", "ann").await;
    let failed = async {
        loop {
            let metrics = send(&callbox, "GET", "/metrics", TOKEN, "").await.2;
            if !metrics.contains("callbox_hooks_delivery_failures_total 0") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, failed).await.unwrap();
    assert!(backend.batches.lock().unwrap().is_empty());
}

/// An open stream of events.
struct Stream {
    tcp: TcpStream,
    text: String,
}

impl Stream {
    async fn open(callbox: &impl Reachable, path: &str) -> Self {
        let mut tcp = TcpStream::connect(callbox.http()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self {
            tcp,
            text: String::new(),
        };
        stream.until("\r\n\r\n").await;
        assert!(stream.text.starts_with("HTTP/1.1 200"), "{}", stream.text);
        assert!(stream.text.contains("text/event-stream"));
        stream
    }

    async fn until(&mut self, text: &str) -> &str {
        while !self.text.contains(text) {
            let mut bytes = [0; 4096];
            let read = timeout(TIMEOUT, self.tcp.read(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("no {text:?} in {}", self.text));
            let read = read.unwrap();
            assert!(read > 0, "ended before {text:?}: {}", self.text);
            self.text
                .push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        &self.text
    }
}

#[tokio::test]
async fn an_operator_listens_and_traces_a_room() {
    let callbox = Callbox::start("[auth]\nadmin_token = \"sesame\"").await;
    assert_eq!(send(&callbox, "GET", "/v1/events", "", "").await.0, 401);
    let mut stream = Stream::open(&callbox, "/v1/events?trace=r").await;
    let (mut ann, _) = Client::join(&callbox, "r", "ann").await;
    let (mut bob, _) = Client::join(&callbox, "r", "bob").await;
    ann.request(json!({"type": "offer", "sdp": "not shown"}))
        .await;
    bob.until("offer").await;
    ann.request(json!({"type": "report", "to": bob.peer_id, "path": "relay", "rttMs": 20}))
        .await;
    let told = stream.until("\"rttMs\":20").await;
    for expected in [
        "event: room",
        "event: peer",
        "event: message",
        "\"message\":\"offer\"",
        "\"path\":\"relay\"",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    assert!(!told.contains("not shown"), "{told}");

    // Messages are shown to whom asks for them.
    let mut other = Stream::open(&callbox, "/v1/events").await;
    ann.request(json!({"type": "message", "content": 1})).await;
    ann.request(json!({"type": "leave"})).await;
    let told = other.until("peer-left").await;
    assert!(!told.contains("event: message"), "{told}");
}

#[tokio::test]
async fn the_end_of_a_relay_is_told_with_its_bytes() {
    let (backend, address) = Backend::start(&[]).await;
    let relay = "allow_private = true\n[turn]\nallowed_peers = [\"127.0.0.0/8\"]";
    let callbox = Callbox::start(&toml(address, relay)).await;
    let (mut ann, joined) = Client::join(&callbox, "r", "ann").await;
    let (server, turn) = (callbox.udp[0], joined["iceServers"][1].clone());
    let relayed = move || {
        let text = |name: &str| turn[name].as_str().unwrap().to_owned();
        let credential = Credential {
            username: text("username"),
            password: text("credential"),
        };
        let mut turn = turn_client::udp(server, credential);
        let relayed = turn.allocate().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        turn.bind(0x4000, peer.local_addr().unwrap()).unwrap();
        peer.send_to(b"hello", relayed).unwrap();
        assert_eq!(turn.receive_channel(), (0x4000, b"hello".to_vec()));
    };
    tokio::task::spawn_blocking(relayed).await.unwrap();
    ann.request(json!({"type": "leave"})).await;
    let events = backend.until("relay-ended").await;
    let ended = events.last().unwrap();
    assert_eq!(ended["peerId"], ann.peer_id);
    assert_eq!(
        (&ended["room"], &ended["identity"]),
        (&json!("r"), &json!("ann")),
        "{ended}"
    );
    assert_eq!(ended["reason"], "revoked");
    assert!(ended["bytes"].as_u64().unwrap() > 0, "{ended}");
}

#[tokio::test]
async fn trace_prints_who_says_what() {
    let callbox = Process::start(&[("CALLBOX_AUTH__ADMIN_TOKEN", "sesame")]);
    let url = format!("http://{}", callbox.http());
    let program = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callbox"));
        command.args(["trace", "--room", "r", "--url", &url]);
        command.args(more).env("CALLBOX_TOKEN", "sesame");
        command
    };
    let mut trace = program(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(trace.stdout.take().unwrap());
    let (found, line) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = out.lines().map_while(Result::ok);
        let _ = found.send(lines.find(|line| line.contains("message")));
    });
    let (mut ann, _) = Client::join(&callbox, "r", "ann").await;
    let (_bob, _) = Client::join(&callbox, "r", "bob").await;
    let begun = async {
        while !send(&callbox, "GET", "/metrics", TOKEN, "")
            .await
            .2
            .contains("callbox_hooks_listeners 1")
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, begun).await.unwrap();
    ann.request(json!({"type": "message", "content": "x"}))
        .await;
    let printed = timeout(TIMEOUT, line).await;
    trace.kill().unwrap();
    trace.wait().unwrap();
    let printed = printed.unwrap().unwrap().unwrap();
    assert!(printed.contains("ann ("), "{printed}");
    let wrong = program(&["--token", "wrong"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.contains("does not take this admin token"), "{error}");
}

#[test]
fn the_documented_backends_are_those_that_the_suite_runs() {
    let documented = include_str!("../../docs/backend.md");
    for backend in [
        include_str!("../backend/backend.mjs"),
        include_str!("../backend/backend.py"),
    ] {
        assert!(documented.contains(backend), "{backend}");
    }
}
