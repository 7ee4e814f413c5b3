//! What one client may take, and what it may not hide behind.

use crate::harness::{Callbox, Client, Process};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test]
async fn a_flood_of_candidates_is_held_back_and_then_ended() {
    let callbox = Callbox::start("[signal]\ncandidate_rate = \"5/s\"").await;
    let (mut flooder, _) = Client::join(&callbox, "r", "flooder").await;
    let (mut other, _) = Client::join(&callbox, "r", "other").await;
    let candidate = json!({"type": "candidate", "candidate": {"candidate": "candidate:1"}});
    for _ in 0..60 {
        flooder.send(candidate.clone()).await;
    }
    let error = flooder.until("error").await;
    assert_eq!(error["code"], "rate-limited");
    assert!(error["retryAfter"].as_u64().unwrap() > 0);
    assert_eq!(
        flooder.request(json!({"type": "ping"})).await["type"],
        "pong",
        "the rest goes on"
    );
    for _ in 0..5_000 {
        flooder.send(candidate.clone()).await;
    }
    assert_eq!(flooder.closed().await, CloseCode::Library(4006));
    assert_eq!(other.request(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn connections_of_one_address_are_counted_behind_trusted_proxies_only() {
    let toml = "[signal]\nconnections_per_ip = 2";
    let forged: &[(&'static str, &str)] = &[("x-forwarded-for", "198.51.100.1")];
    let other: &[(&'static str, &str)] = &[("x-forwarded-for", "198.51.100.2")];

    let callbox = Callbox::start(toml).await;
    let _one = Client::connect_with(&callbox, "", forged).await.unwrap();
    let _two = Client::connect_with(&callbox, "", other).await.unwrap();
    let third = Client::connect_with(&callbox, "", other).await;
    assert_eq!(
        third.err(),
        Some(429),
        "no trusted proxy wrote those headers"
    );

    let trusting = format!("{toml}\n[http]\ntrusted_proxies = [\"127.0.0.0/8\"]");
    let callbox = Callbox::start(&trusting).await;
    let _one = Client::connect_with(&callbox, "", forged).await.unwrap();
    let _two = Client::connect_with(&callbox, "", forged).await.unwrap();
    assert_eq!(
        Client::connect_with(&callbox, "", forged).await.err(),
        Some(429)
    );
    let _three = Client::connect_with(&callbox, "", other).await.unwrap();
}

#[tokio::test]
async fn pages_of_other_origins_may_not_connect() {
    let callbox = Callbox::start("").await;
    let evil = Client::connect_with(&callbox, "", &[("origin", "https://evil.example")]).await;
    assert_eq!(evil.err(), Some(403));
}

#[tokio::test]
async fn who_says_nothing_is_shown_out() {
    let callbox = Callbox::start("").await;
    let mut silent = Client::connect(&callbox).await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    tokio::time::resume();
    assert_eq!(silent.closed().await, CloseCode::Library(4001));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_found() {
    let callbox = Callbox::start("[signal]\nheartbeat = \"1s\"\ntimeout = \"1s\"").await;
    let (mut stays, _) = Client::join(&callbox, "r", "stays").await;
    // Its library answers pings only while it is read from.
    let (mut deaf, _) = Client::join(&callbox, "r", "deaf").await;
    let away = stays.until("peer-state").await;
    assert_eq!(away["connection"], "away");
    assert_eq!(deaf.closed().await, CloseCode::Library(4005));
}

#[tokio::test]
async fn a_flood_of_pings_by_a_client_that_does_not_read_costs_little() {
    let callbox = Process::start(&[]);
    let (mut flooder, _) = Client::join(&callbox, "r", "flooder").await;
    let before = callbox.resident_kib();
    // A masked ping of 125 bytes; the mask is zero.
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([7; 125]);
    let pings = ping.repeat(1_000);
    let mut sent = 0;
    while sent < 200 && flooder.tcp().write_all(&pings).await.is_ok() {
        sent += 1;
    }
    let grown = callbox.resident_kib().saturating_sub(before);
    assert!(
        grown < 2 * 1024,
        "{sent},000 pings grew the box by {grown} KiB"
    );
    let (mut other, _) = Client::join(&callbox, "r", "other").await;
    assert_eq!(other.request(json!({"type": "ping"})).await["type"], "pong");
}
