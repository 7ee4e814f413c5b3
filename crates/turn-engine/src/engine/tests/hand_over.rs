//! Clients of a box that goes on as another one.

use super::harness::*;
use crate::engine::*;
use crate::users::TurnUsers;
use std::time::Duration;
use stun::attributes::ATTR_EVEN_PORT;
use stun::message::METHOD_ALLOCATE;

const CLIENT: &str = "198.51.100.7:5000";

#[test]
fn nonce_permission_and_channel_are_good_and_end_when_they_would_have() {
    let mut boxed = TestBox::new();
    let (mut client, relayed) = Client::allocated(&mut boxed, CLIENT, "a");
    client.permit(&mut boxed, PEER).success();
    client.bind(&mut boxed, 0x4000, "8.8.4.4:9").success();
    boxed.advance(Duration::from_secs(200));
    let mut boxed = boxed.successor();
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"x").len(), 1);
    assert_eq!(boxed.peer_sends(relayed, addr("9.9.9.9:1"), b"x"), []);
    let (from, to, _) = sent(&client.channel(&mut boxed, 0x4000, b"y"));
    assert_eq!((from, to), (relayed, addr("8.8.4.4:9")));
    // The nonce is the one of before.
    client.refresh(&mut boxed, 600).success();
    boxed.advance(Duration::from_secs(99));
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"x").len(), 1);
    boxed.advance(Duration::from_secs(1));
    assert_eq!(boxed.peer_sends(relayed, addr(PEER), b"x"), []);
    boxed.advance(Duration::from_secs(500));
    boxed.assert_empty();
    assert_eq!(boxed.stats().allocations_opened, 1, "counters go on");
}

#[test]
fn relays_of_two_workers_find_each_other() {
    let mut boxed = TestBox::with(Options {
        workers: 2,
        ..Options::default()
    });
    let (mut a, at) = Client::allocated(&mut boxed, CLIENT, "a");
    let mut b = Client::new("198.51.100.8:5000", "b");
    b.worker = 1;
    b.challenge(&mut boxed);
    let bt = b.allocate(&mut boxed);
    a.permit(&mut boxed, &bt.to_string()).success();
    b.permit(&mut boxed, &at.to_string()).success();
    let mut boxed = boxed.successor();
    assert_eq!(a.send(&mut boxed, &bt.to_string(), b"x").len(), 1);
    assert_eq!(b.send(&mut boxed, &at.to_string(), b"x").len(), 1);
}

#[test]
fn quotas_reservations_and_revocations_hold() {
    let mut boxed = TestBox::with_settings(Settings {
        quotas: Quotas {
            user: 2,
            ip: 9,
            total: 9,
        },
        ..settings()
    });
    let mut client = Client::new(CLIENT, "a");
    client.challenge(&mut boxed);
    let even = client.request(METHOD_ALLOCATE).udp();
    let even = even.attr(ATTR_EVEN_PORT, &[0x80]);
    client.ask(&mut boxed, even).success();
    boxed.shared.revoke("b", UNIX + 100_000_000, UNIX);
    let mut boxed = boxed.successor();
    assert_eq!(boxed.shared.allocations(), 2, "the reserved port counts");
    let mut second = Client::new("198.51.100.8:5000", "a");
    second.challenge(&mut boxed);
    let refused = second.request(METHOD_ALLOCATE).udp();
    assert_eq!(second.ask(&mut boxed, refused).code(), 486);
    let mut revoked = Client::new("198.51.100.9:5000", "b");
    revoked.challenge(&mut boxed);
    let refused = revoked.request(METHOD_ALLOCATE).udp();
    assert_eq!(revoked.ask(&mut boxed, refused).code(), 401);
    boxed.advance(Duration::from_secs(30));
    second.allocate(&mut boxed);
}

#[test]
fn a_fixed_user_goes_on_and_one_without_that_password_does_not() {
    let users = TurnUsers::new([("cam".into(), "sesame".into())].into());
    let mut boxed = TestBox::with_settings(Settings {
        users,
        ..settings()
    });
    let mut cam = Client::new(CLIENT, "cam");
    (cam.username, cam.password) = ("cam".to_owned(), "sesame".to_owned());
    cam.challenge(&mut boxed);
    cam.allocate(&mut boxed);
    let mut boxed = boxed.successor();
    cam.refresh(&mut boxed, 600).success();

    let now = boxed.now;
    let changed = TurnUsers::new([("cam".into(), "another".into())].into());
    for users in [TurnUsers::default(), changed] {
        let snapshot = boxed.engines[0].snapshot(now.instant);
        let shared = boxed.shared.snapshot(now.instant);
        let shared = crate::shared::SharedState::restore(shared, now.instant, now.unix).unwrap();
        let sockets = TestBox::new();
        let settings = Settings {
            users,
            ..settings()
        };
        let restored = Engine::restore(
            WorkerId(0),
            settings.into(),
            shared,
            sockets.sockets(),
            snapshot,
            now.instant,
        );
        let (engine, lost) = restored.unwrap();
        assert_eq!((engine.allocations(now.instant).count(), lost), (0, 1));
    }
}
