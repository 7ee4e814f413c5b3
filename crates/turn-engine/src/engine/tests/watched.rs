//! The events of permissions and channels: what was installed and is not gone is what lives.

use super::harness::*;
use crate::engine::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use stun::message::{METHOD_ALLOCATE, METHOD_CREATE_PERMISSION, METHOD_REFRESH};

const CLIENT: &str = "198.51.100.7:5000";

/// What was installed and is not gone.
#[derive(Debug, Default)]
pub(super) struct Tally {
    permissions: Vec<(FiveTuple, IpAddr)>,
    channels: Vec<(FiveTuple, u16, SocketAddr)>,
    /// Events of permissions and channels until now.
    events: usize,
}

fn add<T: PartialEq + std::fmt::Debug>(list: &mut Vec<T>, new: T) {
    assert!(!list.contains(&new), "{new:?} was here already");
    list.push(new);
}

fn take<T: PartialEq + std::fmt::Debug>(list: &mut Vec<T>, gone: &T) {
    let at = list.iter().position(|one| one == gone);
    list.remove(at.unwrap_or_else(|| panic!("{gone:?} was not here")));
}

impl Tally {
    pub(super) fn count(&mut self, outs: &[Out]) {
        for event in events(outs) {
            match *event {
                Event::PermissionInstalled { five_tuple, peer } => {
                    add(&mut self.permissions, (five_tuple, peer));
                }
                Event::PermissionGone { five_tuple, peer } => {
                    take(&mut self.permissions, &(five_tuple, peer));
                }
                Event::ChannelBound {
                    five_tuple,
                    number,
                    peer,
                } => add(&mut self.channels, (five_tuple, number, peer)),
                Event::ChannelGone {
                    five_tuple,
                    number,
                    peer,
                } => take(&mut self.channels, &(five_tuple, number, peer)),
                // Nothing outlives its allocation.
                Event::Closed { ref five_tuple, .. } => {
                    assert_eq!(self.of(five_tuple), Default::default());
                    continue;
                }
                _ => continue,
            }
            self.events += 1;
        }
    }

    /// The permissions and channels of one client.
    pub(super) fn of(&self, of: &FiveTuple) -> (BTreeSet<IpAddr>, BTreeSet<(u16, SocketAddr)>) {
        let permissions = self.permissions.iter().filter(|p| p.0 == *of);
        let channels = self.channels.iter().filter(|c| c.0 == *of);
        (
            permissions.map(|p| p.1).collect(),
            channels.map(|c| (c.1, c.2)).collect(),
        )
    }
}

impl TestBox {
    /// The events agree with what the engines show.
    #[track_caller]
    pub(super) fn assert_tally(&self) {
        let (mut permissions, mut channels) = (0, 0);
        for engine in &self.engines {
            for view in engine.allocations(self.now.instant) {
                let (permitted, bound) = self.tally.of(&view.five_tuple);
                assert_eq!(
                    (permitted.len(), bound.len()),
                    (view.permissions, view.channels)
                );
                permissions += view.permissions;
                channels += view.channels;
            }
        }
        assert_eq!(
            (self.tally.permissions.len(), self.tally.channels.len()),
            (permissions, channels)
        );
    }
}

#[test]
fn what_is_installed_and_bound_is_said_once_and_its_end_when_it_runs_out() {
    let mut boxed = TestBox::new();
    boxed.watch();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let started = boxed.now.instant;
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.permit(&mut boxed, PEER).success();
    let refused = client.request(METHOD_CREATE_PERMISSION);
    let refused = refused.peer("9.9.9.9:1").peer("10.0.0.1:1");
    assert_eq!(client.ask(&mut boxed, refused).code(), 403);
    assert_eq!(
        boxed.tally.events, 2,
        "one permission, one channel, no refresh"
    );
    boxed.assert_tally();

    // Its timer is that of the permission, then that of the channel, then that of the allocation.
    for (seconds, left) in [(300, (0, 1)), (600, (0, 0))] {
        let due = boxed.engines[0].next_timeout().unwrap();
        assert_eq!(due - started, Duration::from_secs(seconds));
        boxed.advance(due - boxed.now.instant - Duration::from_millis(1));
        boxed.assert_tally();
        client.refresh(&mut boxed, 3_600).success();
        boxed.advance(Duration::from_millis(1));
        let (permissions, channels) = boxed.tally.of(&client.five_tuple);
        assert_eq!((permissions.len(), channels.len()), left);
    }
    assert_eq!(boxed.tally.events, 4);
    let due = boxed.engines[0].next_timeout().unwrap();
    assert!(due - boxed.now.instant > Duration::from_secs(3_000));
}

#[test]
fn who_does_not_watch_gets_no_event_and_no_timer() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    let before = boxed.engines[0].next_timeout();
    client.bind(&mut boxed, 0x4000, PEER).success();
    assert_eq!(boxed.engines[0].next_timeout(), before);
    assert_eq!(boxed.tally.events, 0);

    // Who watches later learns of what lives, and not of what has run out.
    boxed.advance(Duration::from_secs(300));
    client.permit(&mut boxed, "9.9.9.9:1").success();
    boxed.watch();
    assert_eq!(boxed.tally.events, 2);
    boxed.assert_tally();
    boxed.watch();
    assert_eq!(boxed.tally.events, 0, "an engine is watched once");
}

#[test]
fn they_go_with_a_family_a_policy_and_an_allocation() {
    let mut boxed = TestBox::new();
    boxed.watch();
    let mut client = Client::challenged(&mut boxed, CLIENT, "a");
    let both = client.request(METHOD_ALLOCATE).udp().additional(2);
    client.ask(&mut boxed, both).success();
    for (number, peer) in [(0x4000, PEER), (0x4001, PEER6), (0x4002, "9.9.9.9:1")] {
        client.bind(&mut boxed, number, peer).success();
    }
    assert_eq!(boxed.tally.events, 6);
    let half = client.request(METHOD_REFRESH).family(2).lifetime(0);
    client.ask(&mut boxed, half).success();
    assert_eq!(boxed.tally.events, 8);
    boxed.assert_tally();

    let denied = vec!["9.9.0.0/16".parse().unwrap()];
    boxed.reload(Settings {
        policy: PeerPolicy::new(vec![], denied, vec![]),
        ..settings()
    });
    assert_eq!(
        boxed.tally.events, 9,
        "the channel stays, and leads nowhere"
    );
    boxed.assert_tally();

    boxed.revoke("a");
    assert_eq!(boxed.tally.events, 12);
    boxed.assert_tally();
    boxed.assert_empty();
}

#[test]
fn a_successor_is_told_what_it_has_taken_over() {
    let mut boxed = TestBox::new();
    let (mut client, _) = Client::allocated(&mut boxed, CLIENT, "a");
    client.bind(&mut boxed, 0x4000, PEER).success();
    client.permit(&mut boxed, "9.9.9.9:1").success();
    let mut boxed = boxed.successor();
    boxed.watch();
    assert_eq!(boxed.tally.events, 3);
    boxed.assert_tally();
    boxed.advance(Duration::from_secs(600));
    assert_eq!(boxed.tally.events, 6);
    boxed.assert_empty();
}
