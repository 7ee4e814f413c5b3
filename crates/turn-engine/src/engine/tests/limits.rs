//! Quotas and rates.

use super::harness::*;
use crate::engine::*;
use std::time::Duration;

fn quotas(user: u32, ip: u32, total: u32) -> Settings {
    Settings {
        quotas: Quotas { user, ip, total },
        ..settings()
    }
}

/// Asks for an allocation; 0 or the error code, and which limit it was.
fn ask(boxed: &mut TestBox, address: &str, user: &str) -> (u16, Option<DenyReason>) {
    let mut client = Client::challenged(boxed, address, user);
    let request = client.request(METHOD_ALLOCATE).udp().signed(&client);
    let outs = boxed.client_sends(&client.five_tuple, &request);
    let refusal = events(&outs).iter().find_map(|event| match event {
        Event::Refused {
            refusal,
            user: Some(_),
            ..
        } => Some(*refusal),
        _ => None,
    });
    let Some(Out::Reply(_, reply)) = outs.last() else {
        panic!("{outs:?}")
    };
    (Response::parse(reply).code(), refusal)
}

#[test]
fn each_quota_refuses_with_its_code() {
    let mut boxed = TestBox::with_settings(quotas(2, 3, 4));
    assert_eq!(ask(&mut boxed, "198.51.100.7:1", "a"), (0, None));
    assert_eq!(ask(&mut boxed, "198.51.100.8:1", "a"), (0, None));
    assert_eq!(
        ask(&mut boxed, "198.51.100.9:1", "a"),
        (486, Some(DenyReason::UserQuota))
    );
    assert_eq!(ask(&mut boxed, "198.51.100.7:2", "b"), (0, None));
    assert_eq!(ask(&mut boxed, "198.51.100.7:3", "c"), (0, None));
    assert_eq!(
        ask(&mut boxed, "198.51.100.7:4", "d"),
        (486, Some(DenyReason::IpQuota))
    );
    assert_eq!(
        ask(&mut boxed, "198.51.100.9:1", "d"),
        (508, Some(DenyReason::TotalQuota))
    );
    assert_eq!(boxed.shared.allocations(), 4);
    boxed.advance(Duration::from_secs(600));
    boxed.assert_empty();
    assert_eq!(ask(&mut boxed, "198.51.100.7:1", "a"), (0, None));
}

#[test]
fn a_reserved_port_that_nobody_came_for_counts_against_nobody() {
    let mut boxed = TestBox::with_settings(quotas(2, 100, 2));
    let mut client = Client::challenged(&mut boxed, "198.51.100.7:1", "a");
    let request = client
        .request(METHOD_ALLOCATE)
        .udp()
        .attr(stun::attributes::ATTR_EVEN_PORT, &[0x80]);
    client.ask(&mut boxed, request).success();
    assert_eq!(
        ask(&mut boxed, "198.51.100.8:1", "a"),
        (486, Some(DenyReason::UserQuota))
    );
    boxed.advance(Duration::from_secs(30));
    assert_eq!(ask(&mut boxed, "198.51.100.8:1", "a"), (0, None));
}

#[test]
fn an_ipv6_subscriber_counts_by_its_64() {
    let mut boxed = TestBox::with_settings(quotas(9, 2, 9));
    assert_eq!(ask(&mut boxed, "[2001:db8:0:1::1]:1", "a").0, 0);
    assert_eq!(ask(&mut boxed, "[2001:db8:0:1:ffff::2]:1", "b").0, 0);
    assert_eq!(ask(&mut boxed, "[2001:db8:0:1::3]:1", "c").0, 486);
    assert_eq!(ask(&mut boxed, "[2001:db8:0:2::1]:1", "d").0, 0);
}

#[test]
fn users_count_across_credentials_and_workers() {
    let mut boxed = TestBox::with(Options {
        settings: quotas(1, 9, 9),
        workers: 2,
        ..Options::default()
    });
    Client::allocated(&mut boxed, "198.51.100.7:1", "a");
    let mut other = Client::new("198.51.100.7:2", "a");
    let later = secrets(&["north"]).mint("a", UNIX + 7_200);
    (other.username, other.password, other.worker) = (later.username, later.password, 1);
    other.challenge(&mut boxed);
    let request = other.request(METHOD_ALLOCATE).udp();
    assert_eq!(other.ask(&mut boxed, request).code(), 486);
}

#[test]
fn a_reservation_is_redeemed_by_a_user_at_the_quota() {
    for quotas in [quotas(2, 9, 9), quotas(9, 2, 9), quotas(9, 9, 2)] {
        let mut boxed = TestBox::with_settings(quotas);
        let mut client = Client::challenged(&mut boxed, "198.51.100.7:1", "a");
        let request = client
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(stun::attributes::ATTR_EVEN_PORT, &[0x80]);
        let response = client.ask(&mut boxed, request).success();
        let token = response.attr(stun::attributes::ATTR_RESERVATION_TOKEN);
        assert_eq!(boxed.shared.allocations(), 2);

        let mut second = Client::challenged(&mut boxed, "198.51.100.7:2", "a");
        let request = second
            .request(METHOD_ALLOCATE)
            .udp()
            .attr(stun::attributes::ATTR_RESERVATION_TOKEN, &token);
        second.ask(&mut boxed, request).success();
        assert_eq!(boxed.shared.allocations(), 2, "the place went over");
    }
}

#[test]
fn quotas_are_given_back_on_every_path() {
    let mut boxed = TestBox::with_settings(quotas(1, 1, 1));
    let free = boxed.shared.free_ports();
    let ends: [fn(&mut TestBox, &mut Client); 4] = [
        |boxed, client| drop(client.refresh(boxed, 0).success()),
        |boxed, _| drop(boxed.advance(Duration::from_secs(600))),
        |boxed, _| drop(boxed.revoke("a")),
        |boxed, client| drop(boxed.client_closed(&client.five_tuple)),
    ];
    for end in ends {
        let (mut client, _) = Client::allocated(&mut boxed, "198.51.100.7:1", "a");
        assert_eq!(boxed.shared.free_ports(), free - 1);
        end(&mut boxed, &mut client);
        boxed.assert_empty();
        assert_eq!(boxed.shared.free_ports(), free);
    }
    // And by requests that fail after the quota was granted.
    boxed.ports.borrow_mut().broken = true;
    assert_eq!(ask(&mut boxed, "198.51.100.7:1", "a").0, 508);
    boxed.ports.borrow_mut().broken = false;
    assert_eq!(ask(&mut boxed, "198.51.100.7:1", "a").0, 0);
    boxed.engines.clear();
    assert_eq!(
        (boxed.shared.allocations(), boxed.shared.free_ports()),
        (0, free)
    );
}

#[test]
fn a_new_configuration_changes_the_quotas() {
    let mut boxed = TestBox::with_settings(quotas(1, 9, 9));
    assert_eq!(ask(&mut boxed, "198.51.100.7:1", "a").0, 0);
    assert_eq!(ask(&mut boxed, "198.51.100.7:2", "a").0, 486);
    boxed.reload(quotas(2, 9, 9));
    assert_eq!(ask(&mut boxed, "198.51.100.7:2", "a").0, 0);
}

/// Payload bytes that pass in ten seconds of sending 1,000 bytes each way 100 times a second.
fn passed(settings: Settings, clients: u16) -> u64 {
    let mut boxed = TestBox::with_settings(settings);
    let mut pairs = Vec::new();
    for port in 1..=clients {
        let (mut client, relayed) =
            Client::allocated(&mut boxed, &format!("198.51.100.7:{port}"), "a");
        client.bind(&mut boxed, 0x4000, PEER).success();
        pairs.push((client, relayed));
    }
    for _ in 0..1_000 {
        boxed.advance(Duration::from_millis(10));
        for (client, relayed) in &pairs {
            client.channel(&mut boxed, 0x4000, &[0; 1_000]);
            boxed.peer_sends(*relayed, addr(PEER), &[0; 1_000]);
        }
    }
    let stats = boxed.stats();
    stats.to_peers.bytes + stats.to_clients.bytes
}

#[test]
fn rates_limit_both_directions_together() {
    let offered = 2 * 1_000_000;
    assert_eq!(passed(settings(), 1), offered);
    let roomy = Settings {
        max_rate: Some(1_000_000),
        ..settings()
    };
    assert_eq!(passed(roomy, 1), offered);
    // Ten seconds and a burst of one.
    let close = |bytes: u64, rate: u64| (rate * 11 - 3_000..=rate * 11 + 3_000).contains(&bytes);
    let tight = Settings {
        max_rate: Some(50_000),
        ..settings()
    };
    assert!(close(passed(tight.clone(), 1), 50_000));
    assert!(
        (2 * 545_000..=2 * 555_000).contains(&passed(tight, 2)),
        "per allocation"
    );
    let total = Settings {
        total_rate: Some(50_000),
        ..settings()
    };
    assert!(close(passed(total, 4), 50_000), "for the whole box");
}
