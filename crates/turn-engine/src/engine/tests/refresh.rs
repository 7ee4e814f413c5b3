//! Refresh (RFC 8656 section 8.2) and who may ask (section 5).

use super::harness::*;
use crate::engine::*;
use std::time::Duration;
use stun::attributes::*;

const CLIENT: &str = "198.51.100.7:5000";

fn dual(boxed: &mut TestBox) -> Client {
    let mut client = Client::challenged(boxed, CLIENT, "a");
    let request = client.request(METHOD_ALLOCATE).udp().additional(2);
    client.ask(boxed, request).success();
    client
}

fn refresh(boxed: &mut TestBox, client: &mut Client, lifetime: u32, family: u8) -> Response {
    let request = client
        .request(METHOD_REFRESH)
        .lifetime(lifetime)
        .family(family);
    client.ask(boxed, request)
}

fn relayed(boxed: &TestBox) -> Vec<std::net::IpAddr> {
    let views = boxed.engines[0].allocations(boxed.now.instant);
    views
        .flat_map(|view| view.relayed)
        .map(|a| a.ip())
        .collect()
}

#[test]
fn a_refresh_sets_the_lifetime_anew() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    boxed.advance(Duration::from_secs(599));
    for (asked, granted) in [(1, 600), (900, 900), (9_999, 3_600)] {
        let response = client.refresh(&mut boxed, asked).success();
        assert_eq!(response.lifetime(), granted);
        assert!(response.has(ATTR_SOFTWARE));
    }
    let request = client.request(METHOD_REFRESH);
    assert_eq!(client.ask(&mut boxed, request).success().lifetime(), 600);
    boxed.advance(Duration::from_secs(599));
    assert_eq!(boxed.shared.allocations(), 1);
    boxed.advance(Duration::from_secs(1));
    boxed.assert_empty();
}

#[test]
fn lifetime_zero_deletes_at_once_and_the_five_tuple_is_free() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_REFRESH).lifetime(0).signed(&client);
    let outs = boxed.client_sends(&client.five_tuple, &request);
    let [
        Out::Event(Event::Closed {
            reason: CloseReason::Client,
            ..
        }),
        Out::Reply(_, reply),
    ] = &outs[..]
    else {
        panic!("{outs:?}")
    };
    let response = Response::parse(reply).success();
    response.assert_signed(&client);
    assert_eq!(response.lifetime(), 0);
    boxed.assert_empty();
    // The client takes this answer to its retransmission for a success (section 8.3).
    assert_eq!(boxed.ask(&client.five_tuple, &request).code(), 437);
    client.allocate(&mut boxed);
}

#[test]
fn without_an_allocation_every_request_is_a_437() {
    let mut boxed = TestBox::new();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    assert_eq!(client.refresh(&mut boxed, 600).code(), 437);
    assert_eq!(client.refresh(&mut boxed, 0).code(), 437);
    assert_eq!(client.permit(&mut boxed, PEER).code(), 437);
    assert_eq!(client.bind(&mut boxed, 0x4000, PEER).code(), 437);
    assert_eq!(boxed.stats().refused.code_437, 4);
}

#[test]
fn another_users_requests_are_a_441() {
    let mut boxed = TestBox::new();
    let (mut owner, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let mut other = Client::challenged(&mut boxed, CLIENT, "b");
    assert_eq!(other.refresh(&mut boxed, 0).code(), 441);
    assert_eq!(other.permit(&mut boxed, PEER).code(), 441);
    assert_eq!(other.bind(&mut boxed, 0x4000, PEER).code(), 441);
    owner.refresh(&mut boxed, 600).success();
    // The rule is about the username, not the user inside of it.
    let credential = secrets(&["north"]).mint("a", UNIX + 7_200);
    (owner.username, owner.password) = (credential.username, credential.password);
    assert_eq!(owner.refresh(&mut boxed, 600).code(), 441);
}

#[test]
fn an_expired_allocation_answers_nothing_however_late_the_timer_is() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    boxed.skip(Duration::from_secs(290));
    client.bind(&mut boxed, 0x4000, PEER).success();
    boxed.skip(Duration::from_secs(310));
    assert_eq!(client.channel(&mut boxed, 0x4000, b"late"), []);
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"late"), []);
    assert_eq!(client.refresh(&mut boxed, 600).code(), 437);
    boxed.assert_empty();
}

#[test]
fn a_family_of_a_dual_allocation_can_be_refreshed_alone() {
    let mut boxed = TestBox::new();
    let mut client = dual(&mut boxed);
    assert_eq!(
        refresh(&mut boxed, &mut client, 1_200, 2)
            .success()
            .lifetime(),
        1_200
    );
    boxed.advance(Duration::from_secs(600));
    assert_eq!(relayed(&boxed), [ip(V6)]);
    assert_eq!(client.permit(&mut boxed, PEER).code(), 443);
    client.permit(&mut boxed, PEER6).success();
    assert_eq!(refresh(&mut boxed, &mut client, 600, 1).code(), 443);
    boxed.advance(Duration::from_secs(600));
    boxed.assert_empty();
}

#[test]
fn a_family_of_a_dual_allocation_can_be_deleted_alone() {
    let mut boxed = TestBox::new();
    let mut client = dual(&mut boxed);
    client.permit(&mut boxed, PEER).success();
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.bind(&mut boxed, 0x4001, PEER6).success();
    assert_eq!(
        refresh(&mut boxed, &mut client, 0, 1).success().lifetime(),
        0
    );
    assert_eq!(relayed(&boxed), [ip(V6)]);
    assert_eq!(boxed.ports.borrow().open.len(), 1);
    assert_eq!(client.channel(&mut boxed, 0x4000, b"gone"), []);
    assert_eq!(client.channel(&mut boxed, 0x4001, b"here").len(), 1);
    assert_eq!(
        refresh(&mut boxed, &mut client, 0, 2).success().lifetime(),
        0
    );
    boxed.assert_empty();
}

#[test]
fn without_a_family_both_are_meant() {
    let mut boxed = TestBox::new();
    let mut client = dual(&mut boxed);
    client.refresh(&mut boxed, 1_200).success();
    boxed.advance(Duration::from_secs(1_199));
    assert_eq!(relayed(&boxed), [ip(V4), ip(V6)]);
    client.refresh(&mut boxed, 0).success();
    boxed.assert_empty();
}

#[test]
fn a_family_that_the_allocation_lacks_is_a_443() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    assert_eq!(refresh(&mut boxed, &mut client, 600, 2).code(), 443);
    assert_eq!(refresh(&mut boxed, &mut client, 0, 2).code(), 443);
    assert_eq!(refresh(&mut boxed, &mut client, 0, 3).code(), 443);
    refresh(&mut boxed, &mut client, 600, 1).success();
}

#[test]
fn malformed_wishes_are_a_400_and_change_nothing() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let request = client.request(METHOD_REFRESH).attr(ATTR_LIFETIME, &[0; 3]);
    assert_eq!(client.ask(&mut boxed, request).code(), 400);
    let request = client
        .request(METHOD_REFRESH)
        .attr(ATTR_REQUESTED_ADDRESS_FAMILY, &[1, 0]);
    assert_eq!(client.ask(&mut boxed, request).code(), 400);
    assert_eq!(boxed.shared.allocations(), 1);
}
