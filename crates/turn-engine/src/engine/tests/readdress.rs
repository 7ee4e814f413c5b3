//! A box whose public address becomes another one while it runs.

use super::harness::*;
use crate::engine::*;
use crate::shared::RelayAddress;
use stun::attributes::ATTR_XOR_RELAYED_ADDRESS;
use stun::message::METHOD_ALLOCATE;

const THERE: &str = "198.51.100.99";

/// As `app` does it: the shared state first, then the policy of every worker.
fn move_to(boxed: &mut TestBox, address: RelayAddress) {
    boxed.shared.move_to(address);
    let policy = PeerPolicy::new(vec![], vec![], boxed.shared.addresses());
    boxed.reload(Settings {
        policy,
        ..settings()
    });
}

#[test]
fn new_allocations_live_on_the_new_address_and_old_ones_stay() {
    let mut boxed = TestBox::new();
    let (mut old, old_at) = Client::allocated(&mut boxed, "198.51.100.7:5000", "a");
    let (mut twin, twin_at) = Client::allocated(&mut boxed, "198.51.100.8:5000", "b");
    old.permit(&mut boxed, &twin_at.to_string()).success();
    twin.permit(&mut boxed, &old_at.to_string()).success();
    move_to(&mut boxed, same(THERE));

    let (mut new, new_at) = Client::allocated(&mut boxed, "198.51.100.9:5000", "c");
    assert_eq!(new_at.ip(), ip(THERE));
    assert!(boxed.ports.borrow().open.contains(&new_at), "bound there");

    // Those that met before still do, by the addresses that they know.
    let outs = old.send(&mut boxed, &twin_at.to_string(), b"x");
    let got = Received::Data(old_at, b"x".to_vec());
    assert_eq!(received(&outs, &twin.five_tuple), got);
    old.refresh(&mut boxed, 600).success();
    old.permit(&mut boxed, PEER).success();
    assert_eq!(sent(&old.send(&mut boxed, PEER, b"x")).0, old_at);

    // Old and new meet too, inside the process.
    new.permit(&mut boxed, &old_at.to_string()).success();
    old.permit(&mut boxed, &new_at.to_string()).success();
    let outs = new.send(&mut boxed, &old_at.to_string(), b"y");
    let got = Received::Data(new_at, b"y".to_vec());
    assert_eq!(received(&outs, &old.five_tuple), got);
}

#[test]
fn a_family_that_gets_an_address_is_served_from_then_on() {
    let mut boxed = TestBox::with(Options {
        relays: vec![same(V4)],
        ..Options::default()
    });
    let mut client = Client::challenged(&mut boxed, "198.51.100.7:5000", "a");
    let request = client.request(METHOD_ALLOCATE).udp().family(2);
    assert_eq!(client.ask(&mut boxed, request).code(), 440);
    let ports = boxed.shared.ports();
    move_to(&mut boxed, same(V6));
    assert_eq!(boxed.shared.ports(), 2 * ports);
    let request = client.request(METHOD_ALLOCATE).udp().family(2);
    let response = client.ask(&mut boxed, request).success();
    let relayed = response.address(ATTR_XOR_RELAYED_ADDRESS);
    assert_eq!(relayed.ip(), ip(V6));
    assert!(boxed.shared.find(relayed).is_some());
    for elsewhere in ["2001:db8::11", "2001:db9::10"] {
        assert!(!boxed.shared.hosts(ip(elsewhere)), "{elsewhere}");
    }
}

#[test]
fn only_the_latest_addresses_are_remembered() {
    let boxed = TestBox::new();
    let there = |n: u8| same(&format!("198.51.100.{n}"));
    for n in 0..100 {
        boxed.shared.move_to(there(n));
        boxed.shared.move_to(there(n));
    }
    assert!(boxed.shared.hosts(ip("198.51.100.91")));
    assert!(!boxed.shared.hosts(ip("198.51.100.90")));
    assert_eq!(boxed.shared.addresses().len(), 2 * (9 + 1));
    // Back and forth between two is one former address.
    boxed.shared.move_to(there(98));
    boxed.shared.move_to(there(99));
    assert!(boxed.shared.hosts(ip("198.51.100.91")));
}
