//! Floods with bounded counts: memory, descriptors and everybody else's service stay as they were.
//!
//! A test program of its own, one test at a time: what is measured is the whole process.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with the stories about the relay")]
#[path = "../relay/client.rs"]
mod client;
#[allow(dead_code, reason = "as above")]
#[path = "../relay/relay.rs"]
mod relay;

use crate::client::Link;
use crate::relay::{Relay, SOON, echo};
use callbox::net::raise_descriptor_limit;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stun::message::{
    METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, Setter,
};
use tokio::sync::Mutex;
use turn::proto::channum::ChannelNumber;

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Bytes sent to a client that does not read: enough to fill every buffer on the way many times.
const FLOOD: usize = 64 << 20;

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

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
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
    let mut count = 0_u32;
    let mut round_trip = || {
        let asked = Instant::now();
        quick.send_channel(0x4000, &count.to_be_bytes());
        assert_eq!(quick.receive_channel().1, count.to_be_bytes());
        count += 1;
        asked.elapsed()
    };
    let quiet = median((0..200).map(|_| round_trip()).collect());

    let before = resident();
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let mut during = vec![];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let length = flooder.send_to(&[7; 1200], relayed).unwrap_or(0);
                sent.fetch_add(length, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + SOON * 3;
        while sent.load(Ordering::Relaxed) < FLOOD && Instant::now() < deadline {
            during.push(round_trip());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(sent.load(Ordering::Relaxed) >= FLOOD, "{sent:?}");
    // A worker that waits for the slow client's socket does so for seconds. On two cores the flood, the
    // relay and the echo share the time of what was alone before.
    let during = median(during);
    assert!(
        during < 200 * quiet + Duration::from_millis(50),
        "{during:?} during the flood, {quiet:?} before"
    );
    let stats = relay.eventually(|stats| stats.io.slow_reader > 0).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");

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
    let ports = relay.handle.shared().free_ports();
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
    // The runtime of the test before may still have been going down.
    assert!(descriptors() <= before);
    let grown = resident().saturating_sub(held);
    assert!(grown < 8 << 20, "{grown}");
    assert_eq!(relay.handle.shared().allocations(), 0);
    let free = relay.handle.shared().free_ports();
    assert!(
        free <= ports && ports - free <= 10_001,
        "the rest is in quarantine"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_half_open_connections_keeps_nobody_out() {
    let _alone = ALONE.lock().await;
    raise_descriptor_limit();
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
    assert!(
        stats.streams <= 129,
        "a source has a share: {}",
        stats.streams
    );
    client.bind(0x4000, echo("127.0.0.1")).unwrap();
    client.send_channel(0x4000, b"through");
    assert_eq!(client.receive_channel().1, b"through");
    let mut newcomer = client::tcp(relay.tcp, relay.credential("bob"));
    newcomer.allocate().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_strangers_cost_nothing_and_keep_nobody_out() {
    let _alone = ALONE.lock().await;
    let relay = Relay::start(1);
    let mut client = client::udp(relay.udp, relay.credential("alice"));
    // Not challenged yet, so that it is without credentials.
    let request = client.signed(METHOD_ALLOCATE, &[&client::UDP]).raw;
    client.allocate().unwrap();
    client.bind(0x4000, echo("127.0.0.1")).unwrap();
    let mut before = 0;
    for number in 0..100_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        let stranger = UdpSocket::bind((Ipv4Addr::new(127, 100 + b, c, d), 0)).unwrap();
        stranger.send_to(&request, relay.udp).unwrap();
        if number % 100 == 0 {
            // Waits until the box has come this far, so that no socket buffer is too small.
            client.send_channel(0x4000, &number.to_be_bytes());
            assert_eq!(client.receive_channel().1, number.to_be_bytes());
        }
        if number == 1_000 {
            before = resident();
        }
    }
    let stats = relay
        .eventually(|stats| stats.engine.refused.code_401 > 100_000)
        .await;
    assert_eq!(stats.engine.allocations_opened, 1);
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_permissions_asked_on_one_allocation_stop_at_the_cap() {
    let _alone = ALONE.lock().await;
    let relay = Relay::start(1);
    let mut client = client::udp(relay.udp, relay.credential("alice"));
    client.allocate().unwrap();
    let before = resident();
    let mut granted = 0;
    for number in 0..5_000_u16 {
        let [high, low] = number.to_be_bytes();
        let peer = (Ipv4Addr::new(8, 8, high, low), 4_000).into();
        match client.permit(peer) {
            Ok(()) => granted += 1,
            Err(code) => assert_eq!(code, 508),
        }
    }
    assert_eq!(granted, 64);
    assert_eq!(relay.handle.allocations().await[0].permissions, 64);
    let grown = resident().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_messages_end_nothing_but_their_own_stream() {
    let _alone = ALONE.lock().await;
    let relay = Relay::start(1);
    let peer = echo("127.0.0.1");
    let mut bystander = client::udp(relay.udp, relay.credential("bystander"));
    bystander.allocate().unwrap();
    bystander.bind(0x4000, peer).unwrap();
    let mut mallory = client::udp(relay.udp, relay.credential("mallory"));
    mallory.allocate().unwrap();
    let before = resident();
    let mut random = StdRng::seed_from_u64(8656);
    for round in 0..10_000_u32 {
        let channel: [&dyn Setter; 2] = [&ChannelNumber(0x4001), &client::peer_address(peer)];
        let mut bytes = match round % 5 {
            0 => mallory.signed(METHOD_ALLOCATE, &[&client::UDP]).raw,
            1 => mallory.signed(METHOD_REFRESH, &[]).raw,
            2 => mallory.signed(METHOD_CREATE_PERMISSION, &channel[1..]).raw,
            3 => mallory.signed(METHOD_CHANNEL_BIND, &channel).raw,
            _ => client::channel_data(0x4001, b"payload"),
        };
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..3) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            _ => bytes[at] ^= random.random_range(1..=255_u8),
        }
        mallory.link.send(&bytes).unwrap();
        if round % 10 == 0 {
            let mut stream = client::tcp_stream(relay.tcp);
            // It may be closed already: the box need not read to the end.
            let _ = stream.write_all(&bytes);
        }
        if round % 50 == 0 {
            bystander.send_channel(0x4000, &round.to_be_bytes());
            assert_eq!(bystander.receive_channel().1, round.to_be_bytes());
        }
    }
    let stats = relay.eventually(|stats| stats.streams == 0).await;
    assert!(stats.engine.dropped.malformed > 1_000 && stats.engine.refused.code_401 > 1_000);
    assert_eq!(stats.engine.allocations_opened, 2);
    let grown = resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    // A truncated Refresh is none: both allocations live.
    assert_eq!(relay.handle.allocations().await.len(), 2);
}
