//! What a machine lacks: ports that other programs hold, descriptors, a family.

use super::harness::*;
use crate::engine::*;
use std::time::Duration;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";

/// A box may share its machine with a program that takes most of the range.
#[test]
fn a_few_free_ports_among_many_held_ones_are_found_and_the_held_ones_remembered() {
    let range = 50_000..=50_999_u16;
    let mut boxed = TestBox::with(Options {
        ports: range.clone(),
        ..Options::default()
    });
    let held = range.filter(|port| port % 20 != 7);
    let held: Vec<_> = held.map(|port| addr(&format!("{V4}:{port}"))).collect();
    boxed.ports.borrow_mut().foreign.extend(&held);
    let mut served = 0;
    for user in 0..60 {
        let mut client =
            Client::challenged(&mut boxed, &format!("198.51.100.7:{}", 5_000 + user), "a");
        let request = client.request(METHOD_ALLOCATE).udp();
        served += usize::from(client.ask(&mut boxed, request).code() == 0);
    }
    assert_eq!(served, 50, "each free port is found");
    let tried = boxed.ports.borrow().tried_in_vain;
    assert!(tried <= held.len(), "no held port is tried twice: {tried}");
    assert_eq!(boxed.stats().ports_held, tried as u64);
    assert_eq!(boxed.shared.held_ports(), tried);
    // They are tried again once their program may have gone.
    boxed.ports.borrow_mut().foreign.clear();
    boxed.advance(Duration::from_secs(60));
    for user in 0..200 {
        Client::allocated(
            &mut boxed,
            &format!("198.51.100.8:{}", 5_000 + user),
            &format!("{user}"),
        );
    }
}

#[test]
fn without_descriptors_a_request_is_refused_by_that_cause() {
    let mut boxed = TestBox::new();
    boxed.ports.borrow_mut().exhausted = true;
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().signed(&client);
    let outs = boxed.client_sends(&client.five_tuple, &request);
    assert!(matches!(
        events(&outs)[..],
        [Event::Refused {
            refusal: DenyReason::NoDescriptor,
            ..
        }]
    ));
    boxed.assert_empty();
    boxed.ports.borrow_mut().exhausted = false;
    client.allocate(&mut boxed);
}

/// A documented exception to RFC 8656 section 7.2: no browser asks for a family.
#[test]
fn a_box_with_ipv6_alone_gives_ipv6_where_no_family_is_named() {
    let mut boxed = TestBox::with(Options {
        relays: vec![same(V6)],
        ..Options::default()
    });
    let (_, relayed) = Client::allocated(&mut boxed, "[2001:db8:1::7]:5000", "a");
    assert_eq!(relayed.ip(), ip(V6));
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(ATTR_EVEN_PORT, &[0]);
    let even = client.ask(&mut boxed, request);
    assert_eq!(
        even.success().address(ATTR_XOR_RELAYED_ADDRESS).ip(),
        ip(V6)
    );
    // Where both are served, the RFC holds.
    let mut boxed = TestBox::new();
    let (_, relayed) = Client::allocated(&mut boxed, "[2001:db8:1::7]:5000", "a");
    assert_eq!(relayed.ip(), ip(V4));
}
