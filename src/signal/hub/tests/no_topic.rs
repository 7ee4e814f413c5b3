//! Topics that have no place, where the protocol cannot say so.

use super::exchange::{ask, enter, publish, subscribe};
use super::harness::World;
use super::*;
use crate::protocol::{Denied, ExchangeRequest, SubscriptionOptions, Wish};

/// The protocol has no words for it: the operator learns of it, and the client goes on.
#[test]
fn what_cannot_be_told_to_a_client_is_told_to_the_operator() {
    let mut world = World::new();
    let subscribe_silently = |world: &mut World, topic: &str| {
        let conn = enter(world, DialectKind::YWebrtc);
        let topics = vec![Wish {
            topic: topic.into(),
            options: SubscriptionOptions::default(),
            room: None,
            is_refused: false,
        }];
        ask(world, conn, ExchangeRequest::Subscribe { id: 0, topics });
        assert!(world.is_open(conn));
        conn
    };
    for n in 1..=203_usize {
        subscribe_silently(&mut world, "full");
        assert_eq!(world.without_topic, n.saturating_sub(200), "{n}");
    }
    let refused = |world: &World| {
        let counters = world.hub.counters();
        (
            counters.refused_subscriptions,
            counters.refused_publications,
        )
    };
    assert_eq!(refused(&world), (3, 0));
    let conn = subscribe_silently(&mut world, "other");
    assert_eq!(subscribe(&mut world, conn, "full"), Err(Denied::Full));
    assert_eq!((world.without_topic, refused(&world)), (3, (4, 0)));
    let passed = (0..110).filter(|_| publish(&mut world, conn, "full", "x").is_ok());
    let passed = passed.count() as u64;
    assert!(passed < 110);
    assert_eq!(refused(&world), (4, 110 - passed));
}
