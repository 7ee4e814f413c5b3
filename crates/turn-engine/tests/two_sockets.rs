//! The example serves the client of webrtc-rs.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/two_sockets.rs"]
mod example;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use turn::client::{Client, ClientConfig};
use turn_engine::credential::TurnSecrets;
use webrtc_util::Conn;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_relays_between_its_sockets() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let go_on = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&go_on);
    let serving = std::thread::spawn(move || {
        example::serve(&server, "north", || asked.load(Ordering::Relaxed)).unwrap();
    });

    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let secrets = TurnSecrets::new(vec!["north".into()]).unwrap();
    let credential = secrets.mint("alice", unix.as_secs() + 60);
    let client = Client::new(ClientConfig {
        stun_serv_addr: address.clone(),
        turn_serv_addr: address,
        username: credential.username,
        password: credential.password,
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap()),
        vnet: None,
    });
    let client = client.await.unwrap();
    client.listen().await.unwrap();
    let relayed = client.allocate().await.unwrap();

    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 100];
    // The client sends indications first, and binds a channel meanwhile.
    for round in 0..10_u8 {
        relayed
            .send_to(&[round; 50], peer.local_addr().unwrap())
            .await
            .unwrap();
        let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!(
            (&buffer[..length], from),
            (&[round; 50][..], relayed.local_addr().unwrap())
        );
        peer.send_to(b"and back", from).await.unwrap();
        let (length, from) = relayed.recv_from(&mut buffer).await.unwrap();
        assert_eq!(
            (&buffer[..length], from),
            (&b"and back"[..], peer.local_addr().unwrap())
        );
    }
    relayed.close().await.unwrap();
    client.close().await.unwrap();
    go_on.store(false, Ordering::Relaxed);
    serving.join().unwrap();
}
