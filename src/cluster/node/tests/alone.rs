//! A node without Redis.

use super::*;

#[test]
fn a_node_that_cannot_listen_serves_alone() {
    let mut world = World::new(1);
    world.run(60);
    let mut effects = vec![];
    let alone = Settings {
        isolated: Isolated::Serve,
        ..settings()
    };
    let mut node = Node::new(alone, [9; 32], world.now, &mut effects);
    let (me, mut now) = (node.me(), world.now);
    let beat = world.store.beat(me, None, b"drawn");
    node.handle(now, Input::Listening(me), &mut effects);
    node.handle(now, Input::Beat(now, beat), &mut effects);
    // Redis ends: the subscription with it, and nobody can dial it again.
    node.handle(now, Input::Deaf, &mut effects);
    effects.clear();
    let mut tried = now;
    while now < world.now + LEASE + Duration::from_secs(4) {
        now += STEP;
        node.handle_timeout(now, &mut effects);
        if now >= tried + Duration::from_secs(1) {
            node.handle(now, Input::Unreached(tried), &mut effects);
            tried = now;
        }
    }
    let is_alone = |effect: &Effect| matches!(effect, Effect::Open(None));
    assert!(effects.iter().any(is_alone), "{effects:?}");
    assert!(node.gauges(now).isolated);
}
