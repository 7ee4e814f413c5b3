//! Life and death of allocations beside Refresh: timers, sessions, streams, views and events.

use super::harness::*;
use crate::engine::*;
use std::time::Duration;

const CLIENT: &str = "198.51.100.7:5000";

#[test]
fn the_next_timeout_is_the_earliest_expiry() {
    let mut boxed = TestBox::new();
    let start = boxed.now.instant;
    let after = |seconds| Some(start + Duration::from_secs(seconds));
    assert_eq!(boxed.engines[0].next_timeout(), None);
    let (mut a, _) = Client::allocated(&mut boxed, CLIENT, "a");
    boxed.advance(Duration::from_secs(10));
    let (mut b, _) = Client::allocated(&mut boxed, "198.51.100.7:5001", "b");
    assert_eq!(boxed.engines[0].next_timeout(), after(600));
    a.refresh(&mut boxed, 3_600).success();
    assert_eq!(boxed.engines[0].next_timeout(), after(610));
    b.refresh(&mut boxed, 0).success();
    assert_eq!(boxed.engines[0].next_timeout(), after(3_610));
    let outs = boxed.advance(Duration::from_secs(3_600));
    assert!(matches!(
        events(&outs)[..],
        [Event::Closed {
            reason: CloseReason::Expired,
            ..
        }]
    ));
    boxed.assert_empty();
}

#[test]
fn a_session_ends_however_often_it_is_refreshed() {
    let max_session = Duration::from_secs(1_000);
    let mut boxed = TestBox::with_settings(Settings {
        max_session,
        ..settings()
    });
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    boxed.advance(Duration::from_secs(500));
    assert_eq!(client.refresh(&mut boxed, 3_600).success().lifetime(), 500);
    boxed.advance(Duration::from_millis(499_900));
    assert_eq!(
        client.refresh(&mut boxed, 600).success().lifetime(),
        1,
        "0 would say deleted"
    );
    let outs = boxed.advance(Duration::from_millis(100));
    assert!(matches!(
        events(&outs)[..],
        [Event::Closed { reason: CloseReason::SessionEnd, lived, .. }] if *lived == max_session
    ));
    boxed.assert_empty();
}

#[test]
fn a_closed_stream_ends_its_allocation_only() {
    let mut boxed = TestBox::new();
    let (_, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..udp(CLIENT)
    };
    let mut stream = Client::at(tcp, "a");
    stream.challenge(&mut boxed);
    stream.allocate(&mut boxed);
    let outs = boxed.client_closed(&tcp);
    assert!(matches!(
        events(&outs)[..],
        [Event::Closed { reason: CloseReason::Disconnected, five_tuple, .. }] if *five_tuple == tcp
    ));
    assert_eq!(boxed.client_closed(&tcp), []);
    assert_eq!(boxed.shared.allocations(), 1);
}

#[test]
fn revocation_closes_every_relay_of_that_user_only() {
    let mut boxed = TestBox::new();
    for (i, user) in ["a", "b", "a", "ab", "a"].into_iter().enumerate() {
        Client::allocated(&mut boxed, &format!("198.51.100.7:{}", 5_000 + i), user);
    }
    assert_eq!(boxed.revoke("a").len(), 3);
    let mut left: Vec<_> = boxed.engines[0]
        .allocations(boxed.now.instant)
        .map(|view| view.user.to_string())
        .collect();
    left.sort();
    assert_eq!(left, ["ab", "b"]);
    assert_eq!(boxed.ports.borrow().open.len(), 2);
}

#[test]
fn views_and_events_tell_bytes_and_ages() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.permit(&mut boxed, "1.1.1.1:1").success();
    client.channel(&mut boxed, 0x4000, b"12345");
    client.send(&mut boxed, "1.1.1.1:1", b"123");
    boxed.peer_sends(relayed, addr(PEER), b"1234567");
    boxed.advance(Duration::from_secs(100));
    let (sent, received) = (
        Flow {
            packets: 2,
            bytes: 8,
        },
        Flow {
            packets: 1,
            bytes: 7,
        },
    );
    let views: Vec<_> = boxed.engines[0].allocations(boxed.now.instant).collect();
    assert_eq!(
        views,
        [AllocationView {
            user: "a".into(),
            secret: secrets(&["north"]).ids().next(),
            five_tuple: client.five_tuple,
            relayed: vec![relayed],
            sent,
            received,
            age: Duration::from_secs(100),
            expires_in: Duration::from_secs(500),
            permissions: 2,
            channels: 1,
        }]
    );
    let request = client.request(METHOD_REFRESH).lifetime(0).signed(&client);
    let outs = boxed.client_sends(&client.five_tuple, &request);
    let [
        Event::Closed {
            sent: s,
            received: r,
            relayed: at,
            ..
        },
    ] = events(&outs)[..]
    else {
        panic!("{outs:?}")
    };
    assert_eq!((*s, *r, &at[..]), (sent, received, &[relayed][..]));
    let stats = boxed.stats();
    assert_eq!((stats.to_peers, stats.to_clients), (sent, received));
    assert_eq!((stats.allocations_opened, stats.allocations_closed), (1, 1));
    let mut sum = Stats::default();
    sum += stats;
    sum += stats;
    assert_eq!(sum.to_peers.bytes, 16);
    assert_eq!(
        sum.refused.iter().find(|(name, _)| *name == "code_401"),
        Some(("code_401", 2))
    );
}

#[test]
fn secrets_and_keys_are_never_printed() {
    let mut boxed = TestBox::new();
    let (client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let printed = format!("{:?} {:?}", settings(), boxed.engines[0].table);
    assert!(!printed.contains("north") && !printed.contains(&client.password));
    assert!(!printed.contains(&format!("{:?}", client.key())));
}
