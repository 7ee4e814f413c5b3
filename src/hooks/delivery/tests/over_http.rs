//! Events over real connections, to a backend that answers in every way that a socket allows.

use super::*;
use crate::net::https::trust;
use rustls::RootCertStore;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const WITHIN: Duration = Duration::from_secs(60);

/// How a connection goes on behind the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It stays open and says no more.
    Silence,
    /// It ends.
    End,
}

/// What the backend answers, how it goes on, and whether that confirms the batch.
const ANSWERS: &[(&str, Then, bool)] = &[
    ("", Then::End, false),
    (
        "\u{0}\u{1}garbage, and no HTTP\r\n\r\n",
        Then::Silence,
        false,
    ),
    ("HTTP/1.1 200 O", Then::End, false),
    ("HTTP/1.1 999999 What\r\n\r\n", Then::End, false),
    (
        "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
        Then::Silence,
        false,
    ),
    (
        "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        Then::Silence,
        false,
    ),
    (
        "HTTP/1.1 503 Later\r\nRetry-After: never\r\nContent-Length: 0\r\n\r\n",
        Then::End,
        false,
    ),
    // Its length is a lie, and its end never comes.
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nnot so much",
        Then::Silence,
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n",
        Then::End,
        true,
    ),
    (
        "HTTP/1.1 202 Taken\r\nContent-Length: 10\r\n\r\nhal",
        Then::End,
        true,
    ),
    ("HTTP/1.1 204 Nothing\r\n\r\n", Then::Silence, true),
];

/// Takes one request; returns its body.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut read = vec![];
    loop {
        let text = String::from_utf8_lossy(&read).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1)?;
            let length: usize = length.split("\r\n").next()?.parse().ok()?;
            if body.len() >= length {
                return Some(body.to_owned());
            }
        }
        let mut part = [0; 4096];
        match socket.read(&mut part).await {
            Ok(n) if n > 0 => read.extend_from_slice(&part[..n]),
            _ => return None,
        }
    }
}

#[derive(Default)]
struct Taken {
    requests: usize,
    /// Of confirmed batches.
    confirmed: Vec<Value>,
}

async fn serve(listener: TcpListener, taken: Arc<Mutex<Taken>>) {
    while let Ok((mut socket, _)) = listener.accept().await {
        while let Some(body) = request(&mut socket).await {
            let (answer, then) = {
                let mut taken = taken.lock().unwrap();
                let healthy = &(
                    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                    Then::Silence,
                    true,
                );
                let (answer, then, confirms) = ANSWERS.get(taken.requests).unwrap_or(healthy);
                taken.requests += 1;
                if *confirms {
                    let body: Value = serde_json::from_str(&body).unwrap();
                    taken
                        .confirmed
                        .extend(body["events"].as_array().unwrap().clone());
                }
                (*answer, *then)
            };
            let _ = socket.write_all(answer.as_bytes()).await;
            if then == Then::End {
                break;
            }
        }
    }
}

#[tokio::test]
async fn whatever_a_backend_answers_each_event_is_confirmed_once_and_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Taken::default()));
    let events = Events::new("box", 1);
    events.deliver_to_backend(true);
    let settings = || Settings {
        url: Some(url.parse().unwrap()),
        ..settings()
    };
    let sender = watch::Sender::new(settings());
    let client = HttpsClient::new(trust(RootCertStore::empty()), None);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve(listener, Arc::clone(&taken)));
    tasks.spawn(events.clone().deliver(client, sender.subscribe()));
    let mut pushed = 0;
    let all = async {
        loop {
            let requests = taken.lock().unwrap().requests;
            if requests > ANSWERS.len() && events.waiting() == 0 {
                return;
            }
            // One more in each state of the backend.
            if pushed <= requests as u64 {
                events.push(Topic::Peer, "peer-joined", &json!({"n": pushed}));
                pushed += 1;
            }
            // Settings that come again end the pause after a failure.
            sender.send_replace(settings());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, all).await.unwrap();
    let confirmed = std::mem::take(&mut taken.lock().unwrap().confirmed);
    assert_eq!(numbers(&confirmed), (0..pushed).collect::<Vec<_>>());
    let ids: BTreeSet<_> = confirmed.iter().map(|event| event["id"].as_str()).collect();
    assert_eq!(ids.len() as u64, pushed);
    assert_eq!(events.counts().delivered, pushed);
    assert_eq!(events.counts().dropped, 0);
}
