//! The application's backend: it decides who may join or call.

use crate::harness::{Callbox, Client, TIMEOUT};
use crate::operation::config;
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

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What the backend was asked, and a gate that holds its answers back.
#[derive(Default)]
pub struct Backend {
    asked: Mutex<Vec<Value>>,
    changed: Notify,
    held: Mutex<bool>,
    open: Notify,
    /// A room that nobody may enter.
    refused: Mutex<Option<String>>,
}

impl Backend {
    pub async fn start() -> (Arc<Self>, SocketAddr) {
        let backend = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/authorize", post(authorize))
            .route("/events", post(async || ""));
        let router = router.with_state(Arc::clone(&backend));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, address)
    }

    /// Answers no to questions about `room` from here on.
    pub fn refuses(&self, room: &str) {
        *self.refused.lock().unwrap() = Some(room.to_owned());
    }

    /// Waits for the `n`th question.
    pub async fn question(&self, n: usize) -> Value {
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
    // Before anybody knows of the question.
    let refused = backend.refused.lock().unwrap().clone();
    let opened = backend.open.notified();
    backend.asked.lock().unwrap().push(question.clone());
    backend.changed.notify_waiters();
    if held {
        opened.await;
    }
    let about = question["to"].as_str().or(question["room"].as_str());
    let is_refused = refused.is_some() && refused.as_deref() == about;
    let yes = json!({"allow": true}).to_string();
    match about.unwrap_or_default() {
        _ if question["identity"] == "mallory" || is_refused => {
            json!({"allow": false}).to_string().into_response()
        }
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

pub fn toml(address: SocketAddr, more: &str) -> String {
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

fn token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(b"north");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

#[tokio::test]
async fn questions_carry_the_claims_that_the_session_came_by_and_no_others() {
    let (backend, address) = Backend::start().await;
    let jwt = "[auth]\nmode = \"jwt\"\nsecret = \"north\"";
    let callbox = Callbox::start(&toml(address, jwt)).await;
    let claims =
        json!({"sub": "ann", "exp": unix_s() + 60, "room": "*", "call": true, "plan": "small"});
    let forged = format!("e30.{}.x", "eyJzdWIiOiJib3NzIiwicGxhbiI6ImxhcmdlIn0");
    let mut ann = Client::connect_with(&callbox, &format!("?token={forged}"), &[])
        .await
        .unwrap();
    let joined = ann
        .request(json!({"type": "join", "roomId": "r", "token": token(&claims)}))
        .await;
    assert_eq!(joined["identity"], "ann");
    // A call names no token: the forged one of the request must not stand in for it.
    ann.send(json!({"type": "call", "to": "bob", "id": "9"}))
        .await;
    let (create, call) = (backend.question(0).await, backend.question(1).await);
    assert_eq!(
        (&create["action"], &call["action"]),
        (&json!("create"), &json!("call"))
    );
    assert_eq!((&create["claims"], &call["claims"]), (&claims, &claims));

    // In open mode nobody has verified anything.
    let open = Callbox::start(&toml(address, "")).await;
    let mut bob = Client::connect(&open).await;
    bob.request(json!({"type": "join", "roomId": "r", "token": token(&claims)}))
        .await;
    assert_eq!(backend.question(2).await["claims"], Value::Null);
}

#[tokio::test]
async fn a_room_that_ends_while_the_question_is_out_is_asked_about_anew() {
    let (backend, address) = Backend::start().await;
    let callbox = Callbox::start(&toml(address, "")).await;
    let (mut ann, _) = Client::join(&callbox, "r", "ann").await;
    *backend.held.lock().unwrap() = true;
    let mut bob = Client::connect(&callbox).await;
    bob.send(json!({"type": "join", "roomId": "r", "identity": "bob", "id": "1"}))
        .await;
    assert_eq!(backend.question(1).await["action"], "join");
    ann.request(json!({"type": "leave"})).await;
    *backend.held.lock().unwrap() = false;
    backend.open.notify_waiters();
    assert_eq!(bob.expect("joined").await["id"], "1");
    assert_eq!(backend.question(2).await["action"], "create");
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

/// The address policy is that of the relay, at each moment: a connection that is kept changes nothing.
#[tokio::test]
async fn the_address_policy_of_hooks_follows_a_reload() {
    let (_backend, address) = Backend::start().await;
    let private = toml(address, "").replace("allow_private = true\n", "");
    let opened = format!("{private}[turn]\nallowed_peers = [\"127.0.0.0/8\"]\n");
    let callbox = Callbox::start(&opened).await;
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.request(join("r")).await["type"], "joined");
    client.request(json!({"type": "leave"})).await;
    callbox.reload(config(&private));
    assert_eq!(client.refused(join("r")).await, "forbidden");
    callbox.reload(config(&opened));
    assert_eq!(client.request(join("r")).await["type"], "joined");
    client.request(json!({"type": "leave"})).await;
    let denied = format!("{opened}denied_peers = [\"127.0.0.1/32\"]\n");
    callbox.reload(config(&denied));
    assert_eq!(client.refused(join("r")).await, "forbidden");
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

/// Ten thousand joins a minute, each of them asked for, while a room goes on. It takes a minute and
/// prints what it has measured:
/// `cargo test --test stories ten_thousand_joins -- --ignored --nocapture`. `CALLBOX_LOAD_SECONDS`
/// makes it shorter.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and measures"]
#[allow(clippy::print_stdout, reason = "it is run for its figures")]
async fn ten_thousand_joins_a_minute_are_asked_for_and_rooms_go_on() {
    const A_SECOND: u64 = 10_000 / 60 + 1;
    let seconds = std::env::var("CALLBOX_LOAD_SECONDS").ok();
    let seconds: u64 = seconds.and_then(|s| s.parse().ok()).unwrap_or(60);
    let (backend, address) = Backend::start().await;
    let limits = "[signal]\nconnections_per_ip = 100000\n[rooms]\nmax_peers = 1000\n\
                  [auth]\nadmin_token = \"sesame\"";
    let with_events = format!(
        "{}url = \"http://{address}/events\"\n{limits}",
        toml(address, "")
    );
    let callbox = Arc::new(Callbox::start(&with_events).await);
    let (mut ann, _) = Client::join(&*callbox, "steady", "ann").await;
    let (mut bob, _) = Client::join(&*callbox, "steady", "bob").await;

    let mut joins = tokio::task::JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_nanos(1_000_000_000 / A_SECOND));
    let (mut latencies, mut join_times) = (vec![], vec![]);
    let began = std::time::Instant::now();
    let total = A_SECOND * seconds;
    let mut started = 0;
    while started < total {
        pace.tick().await;
        started += 1;
        let callbox = Arc::clone(&callbox);
        joins.spawn(async move {
            let began = std::time::Instant::now();
            // Rooms of ten: what is measured is the way in, not what a crowd tells itself.
            let room = format!("room-{}", started / 10);
            let (mut client, _) = Client::join(&*callbox, &room, &format!("n{started}")).await;
            let took = began.elapsed();
            client.request(json!({"type": "leave"})).await;
            took
        });
        if started % 10 == 0 {
            let sent = std::time::Instant::now();
            ann.send(json!({"type": "message", "content": started}))
                .await;
            bob.until("message").await;
            latencies.push(sent.elapsed());
            // Pings of the box are answered by reading.
            ann.request(json!({"type": "ping"})).await;
        }
    }
    let took = began.elapsed();
    while let Some(join) = joins.join_next().await {
        join_times.push(join.unwrap());
    }
    latencies.sort();
    join_times.sort();
    let p = |sorted: &[Duration], share: usize| sorted[(sorted.len() - 1) * share / 100];
    println!(
        "{} joins in {took:.1?}: p50 {:.1?} p99 {:.1?}; messages meanwhile: p50 {:.1?} p99 {:.1?}",
        join_times.len(),
        p(&join_times, 50),
        p(&join_times, 99),
        p(&latencies, 50),
        p(&latencies, 99),
    );
    assert_eq!(join_times.len() as u64, total);
    assert!(backend.asked.lock().unwrap().len() as u64 >= total);
    // The backend is gone: newcomers are refused within 3 s, and the room goes on.
    *backend.held.lock().unwrap() = true;
    let asked = std::time::Instant::now();
    let mut late = Client::connect(&*callbox).await;
    late.send(json!({"type": "join", "roomId": "crowd", "id": "1"}))
        .await;
    ann.send(json!({"type": "message", "content": "meanwhile"}))
        .await;
    assert_eq!(bob.until("message").await["content"], "meanwhile");
    assert!(asked.elapsed() < Duration::from_secs(3));
    assert_eq!(late.expect("error").await["code"], "forbidden");
    let waited = asked.elapsed();
    println!("without the backend a newcomer is refused after {waited:.2?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}
