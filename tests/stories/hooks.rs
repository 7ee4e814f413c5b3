//! The application's backend: it decides who may join or call.

use crate::harness::{Callbox, Client, TIMEOUT};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use callbox::hooks::signature;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What the backend was asked, and a gate that holds its answers back.
#[derive(Default)]
struct Backend {
    asked: Mutex<Vec<Value>>,
    changed: Notify,
    held: Mutex<bool>,
    open: Notify,
}

impl Backend {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let backend = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/authorize", post(authorize));
        let router = router.with_state(Arc::clone(&backend));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, address)
    }

    /// Waits for the `n`th question.
    async fn question(&self, n: usize) -> Value {
        let arrived = async {
            loop {
                let changed = self.changed.notified();
                if let Some(asked) = self.asked.lock().unwrap().get(n) {
                    return asked.clone();
                }
                changed.await;
            }
        };
        timeout(TIMEOUT, arrived).await.unwrap()
    }
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Answers by the name of the room or the callee.
async fn authorize(
    State(backend): State<Arc<Backend>>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let signed = headers.get(signature::HEADER).unwrap().to_str().unwrap();
    let tolerance = Duration::from_secs(60);
    assert!(signature::verify(
        SECRET.as_bytes(),
        signed,
        body.as_bytes(),
        unix_s(),
        tolerance
    ));
    let question: Value = serde_json::from_str(&body).unwrap();
    let held = *backend.held.lock().unwrap();
    let opened = backend.open.notified();
    backend.asked.lock().unwrap().push(question.clone());
    backend.changed.notify_waiters();
    if held {
        opened.await;
    }
    let about = question["to"].as_str().or(question["room"].as_str());
    let yes = json!({"allow": true}).to_string();
    match about.unwrap_or_default() {
        "closed" => json!({"allow": false, "reason": "not on your plan"})
            .to_string()
            .into_response(),
        "stage" => json!({"allow": true, "role": "viewer", "metadata": {"seat": 7}})
            .to_string()
            .into_response(),
        "kept" => ([("cache-control", "max-age=600")], yes).into_response(),
        "garbage" => "not json".into_response(),
        "moved" => (
            axum::http::StatusCode::FOUND,
            [("location", "http://10.0.0.1/")],
        )
            .into_response(),
        _ => yes.into_response(),
    }
}

fn toml(address: SocketAddr, more: &str) -> String {
    format!(
        "[hooks]\nauthorize = \"http://{address}/authorize\"\nsecret = \"{SECRET}\"\nallow_private = true\n{more}"
    )
}

fn join(room: &str) -> Value {
    json!({"type": "join", "roomId": room, "identity": "ann", "metadata": {"own": 1}})
}

#[tokio::test]
async fn the_backend_decides_who_joins_with_which_role_and_metadata() {
    let (backend, address) = Backend::start().await;
    let callbox = Callbox::start(&toml(address, "")).await;
    let mut client = Client::connect(&callbox).await;
    let refused = client.request(join("closed")).await;
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&json!("forbidden"), &json!("not on your plan"))
    );
    let joined = client.request(join("stage")).await;
    assert_eq!(
        (&joined["type"], &joined["role"]),
        (&json!("joined"), &json!("viewer"))
    );
    let (_other, seen) = Client::join(&callbox, "stage", "bob").await;
    assert_eq!(seen["peers"][0]["metadata"], json!({"seat": 7}));

    let questions = backend.asked.lock().unwrap().clone();
    let actions: Vec<_> = questions
        .iter()
        .map(|q| q["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["create", "create", "join"]);
    let first = &questions[0];
    assert_eq!(
        (&first["identity"], &first["room"], &first["ip"]),
        (&json!("ann"), &json!("closed"), &json!("127.0.0.1"))
    );
    assert_eq!(
        (&first["claims"], &first["to"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn the_backend_decides_who_calls_whom() {
    let (backend, address) = Backend::start().await;
    let callbox = Callbox::start(&toml(address, "")).await;
    let (mut caller, _) = Client::register(&callbox, "ann").await;
    let (mut callee, _) = Client::register(&callbox, "bob").await;
    assert_eq!(
        caller
            .refused(json!({"type": "call", "to": "closed"}))
            .await,
        "forbidden"
    );
    let calling = caller.request(json!({"type": "call", "to": "bob"})).await;
    assert_eq!(calling["type"], "calling");
    callee.until("call").await;
    let asked = backend.question(3).await;
    assert_eq!(
        (&asked["action"], &asked["identity"], &asked["to"]),
        (&json!("call"), &json!("ann"), &json!("bob"))
    );
    assert_eq!(asked["peerId"], json!(caller.peer_id));
}

#[tokio::test]
async fn while_a_question_is_out_later_messages_wait_and_rooms_go_on() {
    let (backend, address) = Backend::start().await;
    let callbox = Callbox::start(&toml(address, "")).await;
    let (mut ann, _) = Client::join(&callbox, "r", "ann").await;
    let (mut bob, _) = Client::join(&callbox, "r", "bob").await;
    *backend.held.lock().unwrap() = true;
    let mut late = Client::connect(&callbox).await;
    late.send(json!({"type": "join", "roomId": "r", "id": "1"}))
        .await;
    late.send(json!({"type": "message", "content": "after", "id": "2"}))
        .await;
    backend.question(2).await;
    ann.send(json!({"type": "message", "content": "meanwhile"}))
        .await;
    assert_eq!(bob.until("message").await["content"], "meanwhile");
    backend.open.notify_waiters();
    assert_eq!(late.expect("joined").await["id"], "1");
    assert_eq!(bob.until("message").await["content"], "after");
}

#[tokio::test]
async fn without_an_answer_newcomers_are_refused_or_let_in_as_configured() {
    for (more, expected) in [("", "error"), ("fail_open = true\n", "joined")] {
        let (_backend, address) = Backend::start().await;
        let callbox = Callbox::start(&toml(address, more)).await;
        let mut client = Client::connect(&callbox).await;
        for room in ["garbage", "moved"] {
            let reply = client.request(join(room)).await;
            assert_eq!(reply["type"], expected, "{room}: {reply}");
        }
    }
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let callbox = Callbox::start(&toml(gone, "")).await;
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.refused(join("r")).await, "forbidden");
}

#[tokio::test]
async fn a_private_backend_is_refused_unless_it_is_allowed() {
    let (backend, address) = Backend::start().await;
    let toml = toml(address, "").replace("allow_private = true\n", "");
    let callbox = Callbox::start(&toml).await;
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.refused(join("r")).await, "forbidden");
    assert!(backend.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_is_kept_for_as_long_as_it_says() {
    let (backend, address) = Backend::start().await;
    let callbox = Callbox::start(&toml(address, "")).await;
    let (_first, _) = Client::join(&callbox, "kept", "ann").await;
    // The room exists now, so that the question is another one.
    for _ in 0..3 {
        Client::join(&callbox, "kept", "ann").await;
    }
    let actions: Vec<_> = backend
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|q| q["action"].clone())
        .collect();
    assert_eq!(actions, ["create", "join"]);
}
