//! Floods with bounded counts: memory, descriptors and everybody else's service stay as they were.
//!
//! A test program of its own, one test at a time: what is measured is the whole process.

#[allow(dead_code, reason = "shared with the stories about the relay")]
#[path = "../relay/client.rs"]
mod client;
#[allow(dead_code, reason = "as above")]
#[path = "../relay/relay.rs"]
mod relay;

use crate::client::Link;
use crate::relay::{Relay, SOON, echo};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Mutex;

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// File descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_loses_datagrams_and_delays_nobody() {
    let _alone = ALONE.lock().await;
    let relay = Relay::start(1);
    let mut slow = client::tcp(relay.tcp, relay.credential("slow"));
    let relayed = slow.allocate().unwrap();
    let flooder = UdpSocket::bind("127.0.0.1:0").unwrap();
    slow.bind(0x4000, flooder.local_addr().unwrap()).unwrap();
    let mut quick = client::udp(relay.udp, relay.credential("quick"));
    quick.allocate().unwrap();
    quick.bind(0x4000, echo("127.0.0.1")).unwrap();

    let before = resident();
    let stop = AtomicBool::new(false);
    let (mut sent, mut slowest) = (0_usize, std::time::Duration::ZERO);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                sent += flooder.send_to(&[7; 1200], relayed).unwrap_or(0);
            }
            sent
        });
        let begun = Instant::now();
        // Enough to have filled every buffer on the way many times over.
        for count in 0..2_000_u32 {
            let asked = Instant::now();
            quick.send_channel(0x4000, &count.to_be_bytes());
            assert_eq!(quick.receive_channel().1, count.to_be_bytes());
            slowest = slowest.max(asked.elapsed());
            assert!(begun.elapsed() < SOON * 3);
        }
        stop.store(true, Ordering::Relaxed);
        sent = flood.join().unwrap();
    });
    assert!(slowest < SOON / 10, "{slowest:?}");
    let stats = relay.eventually(|stats| stats.io.slow_reader > 0).await;
    let grown = resident().saturating_sub(before);
    assert!(sent > 20 << 20, "{sent}");
    assert!(grown < 24 << 20, "{grown} bytes more after {sent}");

    // What it gets once it reads again is whole and in step.
    let mut read = 0;
    slow.link.stream.set_nonblocking(true).unwrap();
    while let Ok(message) = slow.link.receive() {
        assert_eq!(message.len(), 1204);
        read += 1;
    }
    assert!(read > 0 && read < stats.engine.to_clients.packets);
    assert_eq!(relay.stats().await.streams, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_allocations_leave_nothing_behind() {
    let _alone = ALONE.lock().await;
    let relay = Relay::start(2);
    let ports = relay.handle.ledger().free_ports();
    let mut clients: Vec<_> = (0..10)
        .map(|index| client::udp(relay.udp, relay.credential(&format!("user{index}"))))
        .collect();
    clients[0].allocate().unwrap();
    clients[0].release().unwrap();
    let (before, held) = (descriptors(), resident());
    for _ in 0..1_000 {
        for client in &mut clients {
            client.allocate().unwrap();
        }
        for client in &mut clients {
            client.release().unwrap();
        }
    }
    let stats = relay.stats().await;
    assert_eq!(stats.engine.allocations_opened, 10_001);
    assert_eq!(stats.engine.allocations_closed, 10_001);
    assert_eq!(descriptors(), before);
    let grown = resident().saturating_sub(held);
    assert!(grown < 8 << 20, "{grown}");
    assert_eq!(relay.handle.ledger().allocations(), 0);
    let free = relay.handle.ledger().free_ports();
    assert!(
        free <= ports && ports - free <= 10_001,
        "the rest is in quarantine"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_half_open_connections_keeps_nobody_out() {
    let _alone = ALONE.lock().await;
    let relay = Relay::start(1);
    let mut client = client::tcp(relay.tcp, relay.credential("alice"));
    client.allocate().unwrap();
    let mut held = vec![];
    for _ in 0..1_500 {
        held.push(client::tcp_stream(relay.tcp));
    }
    let stats = relay
        .eventually(|stats| stats.io.streams_opened == 1_501)
        .await;
    assert!(stats.streams <= 1_025, "{}", stats.streams);
    client.bind(0x4000, echo("127.0.0.1")).unwrap();
    client.send_channel(0x4000, b"through");
    assert_eq!(client.receive_channel().1, b"through");
    let mut newcomer = client::tcp(relay.tcp, relay.credential("bob"));
    newcomer.allocate().unwrap();
}
