//! Hostile numbers: what may not grow does not, and the box goes on serving.

use super::harness::*;
use crate::engine::*;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn a_hundred_thousand_unauthenticated_allocates_leave_nothing_behind() {
    let mut boxed = TestBox::new();
    let mut client = Client::new("198.51.100.7:5000", "a");
    let request = client.request(METHOD_ALLOCATE).udp().unsigned();
    let mut replies = 0;
    for _ in 0..100_000 {
        replies += boxed.client_sends(&client.five_tuple, &request).len();
    }
    assert_eq!(replies, 100_000);
    boxed.assert_empty();
    assert_eq!(boxed.engines[0].table.footprint(), 0);
}

/// An attacker that forges a source sends requests without credentials, requests with wrong ones, and
/// Bindings. The forged address loses nothing by it.
#[test]
fn a_forged_source_costs_its_address_nothing() {
    let mut boxed = TestBox::new();
    let (mut served, _) = Client::allocated(&mut boxed, "198.51.100.7:6000", "served");
    let mut late = Client::challenged(&mut boxed, "198.51.100.7:6001", "late");
    boxed.advance(Duration::from_secs(500));
    served.refresh(&mut boxed, 3_600).success();
    boxed.advance(Duration::from_secs(3_100));
    let mut forged = Client::new("198.51.100.7:5000", "forged");
    forged.nonce = late.nonce.clone();
    forged.password = "wrong".into();
    let floods = [
        forged.request(METHOD_ALLOCATE).udp().unsigned(),
        forged.request(METHOD_ALLOCATE).udp().signed(&forged),
        forged.request(METHOD_REFRESH).signed(&forged),
        forged.request(METHOD_BINDING).unsigned(),
    ];
    for round in 0..50_000_u32 {
        let source = udp(&format!("198.51.100.7:{}", 1_024 + round % 60_000));
        boxed.client_sends(&source, &floods[round as usize % floods.len()]);
    }
    // Who comes for the first time, over datagrams and streams.
    Client::allocated(&mut boxed, "198.51.100.7:6002", "newcomer");
    let tcp = FiveTuple {
        transport: Transport::Tcp,
        ..udp("198.51.100.7:6003")
    };
    let mut stream = Client::at(tcp, "stream");
    stream.challenge(&mut boxed);
    stream.allocate(&mut boxed);
    // Who has the password and a nonce of long ago.
    let request = late.request(METHOD_ALLOCATE).udp();
    let stale = late.ask(&mut boxed, request);
    assert_eq!(stale.code(), 438);
    late.nonce = stale.text(stun::attributes::ATTR_NONCE);
    late.allocate(&mut boxed);
    // Who has an allocation.
    let stale = served.refresh(&mut boxed, 3_600);
    assert_eq!(stale.code(), 438);
    served.nonce = stale.text(stun::attributes::ATTR_NONCE);
    served.refresh(&mut boxed, 3_600).success();
}

#[test]
fn a_hundred_thousand_sources_leave_nothing_behind() {
    let mut boxed = TestBox::new();
    let request = Client::new("198.51.100.7:5000", "a")
        .request(METHOD_ALLOCATE)
        .udp()
        .unsigned();
    let mut replies = 0;
    for i in 0..100_000u32 {
        let [_, b, c, d] = i.to_be_bytes();
        let tuple = udp(&format!("11.{b}.{c}.{d}:5000"));
        replies += boxed.client_sends(&tuple, &request).len();
    }
    assert_eq!(replies, 100_000, "each source asked once");
    boxed.assert_empty();
    assert_eq!(boxed.engines[0].table.footprint(), 0);
    Client::allocated(&mut boxed, "198.51.100.8:5000", "b");
}

#[test]
fn five_thousand_permissions_on_one_allocation_stop_at_the_cap() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
    let mut granted = 0;
    for i in 0..5_000 {
        let peer = format!("9.9.{}.{}:1", i / 250, i % 250);
        granted += usize::from(client.permit(&mut boxed, &peer).code() == 0);
    }
    assert_eq!(granted, 64);
    // In one message as well: none of them.
    let mut request = client.request(METHOD_CREATE_PERMISSION);
    for i in 0..4_000 {
        request = request.peer(&format!("9.8.{}.{}:1", i / 250, i % 250));
    }
    assert_eq!(client.ask(&mut boxed, request).code(), 508);
    let views: Vec<_> = boxed.engines[0].allocations(boxed.now.instant).collect();
    assert_eq!(views[0].permissions, 64);
}

#[test]
fn ten_thousand_allocations_come_and_go_and_everything_is_back() {
    let mut boxed = TestBox::new();
    let free = boxed.shared.free_ports();
    let mut client = Client::challenged(&mut boxed, "198.51.100.7:5000", "a");
    for i in 0..10_000 {
        client.allocate(&mut boxed);
        client.refresh(&mut boxed, 0).success();
        if i % 100 == 0 {
            boxed.advance(Duration::from_millis(500));
        }
    }
    boxed.assert_empty();
    assert_eq!(boxed.shared.free_ports(), free);
    assert_eq!(
        boxed.engines[0].table.footprint(),
        1,
        "one slot serves them all"
    );
}

#[test]
fn reservations_are_bounded() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, "198.51.100.7:5000", "a");
    let mut codes = std::collections::BTreeMap::new();
    for _ in 0..1_500 {
        let request = client
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(stun::attributes::ATTR_EVEN_PORT, &[0x80]);
        let code = client.ask(&mut boxed, request).code();
        *codes.entry(code).or_insert(0) += 1;
        if code == 0 {
            client.refresh(&mut boxed, 0).success();
        }
    }
    // A reserved port takes a place in its user's quota of 128; an allocation needs one more.
    assert_eq!(codes, [(0, 127), (486, 1_373)].into());
    boxed.advance(Duration::from_secs(30));
    client.allocate(&mut boxed);
    client.refresh(&mut boxed, 0).success();
    boxed.assert_empty();
}

/// One that was redeemed holds its place until its time is over: otherwise one user could make any
/// number of them.
#[test]
fn reservations_of_one_network_leave_some_to_others() {
    let mut boxed = TestBox::new();
    let asks = |boxed: &mut TestBox, from: &str, user: &str| {
        let mut client = Client::challenged(boxed, from, user);
        let request = client
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(stun::attributes::ATTR_EVEN_PORT, &[0x80]);
        let reply = client.ask(boxed, request);
        let code = reply.code();
        if code == 0 {
            client.refresh(boxed, 0).success();
        }
        code
    };
    // Each user is far from its quota.
    let codes: Vec<_> = (0..200)
        .map(|n| asks(&mut boxed, "198.51.100.7:5000", &format!("user{n}")))
        .collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 128);
    assert_eq!(codes.last(), Some(&508));
    assert_eq!(asks(&mut boxed, "198.51.100.8:5000", "other"), 0);
    boxed.advance(Duration::from_secs(30));
    assert_eq!(asks(&mut boxed, "198.51.100.7:5000", "user0"), 0);
}

/// 2 KiB an allocation is what the whole process may use; kernel buffers come on top.
#[test]
fn an_idle_allocation_is_small() {
    let allocation = std::mem::size_of::<super::super::allocation::Allocation<u64>>();
    assert!(allocation <= 640, "{allocation} bytes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Valid messages with bytes changed, cut off or added: never a panic, and never more than
    /// the client's own allocation.
    #[test]
    fn mutated_valid_messages_do_no_harm(
        edits in proptest::collection::vec((any::<u16>(), any::<u8>(), 0u8..8), 1..60),
    ) {
        let mut boxed = TestBox::new();
        let (mut client, relayed) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
        client.permit(&mut boxed, PEER).success();
        for (at, value, which) in edits {
            let mut bytes = match which {
                0 => client.request(METHOD_ALLOCATE).udp().signed(&client),
                1 => client.request(METHOD_REFRESH).lifetime(600).signed(&client),
                2 => client.request(METHOD_CREATE_PERMISSION).peer(PEER).signed(&client),
                3 => client.request(METHOD_CHANNEL_BIND).channel(0x4000).peer(PEER).signed(&client),
                4 => client.request(METHOD_BINDING).fingerprinted(),
                5 => client
                    .send_indication()
                    .peer(PEER)
                    .attr(stun::attributes::ATTR_DATA, b"payload")
                    .unsigned(),
                _ => channel_data(0x4000, b"payload"),
            };
            let at = usize::from(at) % bytes.len();
            match value % 4 {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, value),
                _ => bytes[at] = value,
            }
            for out in boxed.client_sends(&client.five_tuple, &bytes) {
                if let Out::ToPeer { from, to, .. } = out {
                    prop_assert_eq!((from, to.ip()), (relayed, ip("8.8.8.8")));
                }
            }
            prop_assert_eq!(boxed.shared.allocations(), 1);
        }
    }
}
