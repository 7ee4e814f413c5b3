//! Rooms of which Redis has yet to say whether they are over, or still their node's.

use super::*;
use crate::protocol::{DialectKind, Locator, PeerId};
use crate::signal::Frame;

/// A node is the home of a room that has just lost its last member: Redis knows, and the node does not
/// know that it does.
fn room_ends(world: &mut World) {
    world.run(60);
    let conn = world.seek(0, "a");
    world.run(10);
    assert_eq!(world.boxes[0].found[&conn], Found::Here);
    world.boxes[0].rooms.clear();
    world.boxes[0].changed.insert("a".into());
    world.input(0, Input::Changed);
    let key = world.boxes[0].node.room_key(Some("a")).unwrap();
    assert_eq!(world.store.owner(&key), None);
}

fn home(world: &World, index: usize) -> Found {
    Found::There(NodeId(world.boxes[index].node.me().bits()))
}

#[test]
fn who_wants_a_room_whose_end_is_not_answered_waits() {
    let mut world = World::new(3);
    room_ends(&mut world);
    let late = world.seek(0, "a");
    assert!(
        !world.boxes[0].found.contains_key(&late),
        "it would be a second room"
    );
    let first = world.seek(1, "a");
    world.run(10);
    assert_eq!(world.boxes[1].found[&first], Found::Here);
    assert_eq!(world.boxes[0].found[&late], home(&world, 1));
    assert!(!world.boxes[0].rooms.contains("a"));
}

#[test]
fn who_waits_for_the_end_of_a_room_has_it_where_nobody_else_wants_it() {
    let mut world = World::new(3);
    room_ends(&mut world);
    let conn = world.seek(0, "a");
    world.run(10);
    assert_eq!(world.boxes[0].found[&conn], Found::Here);
    let key = world.boxes[0].node.room_key(Some("a")).unwrap();
    assert_eq!(world.store.owner(&key), Some(world.boxes[0].node.me()));
    assert!(
        world.store.fields(&key).contains_key(SETTINGS),
        "it is saved"
    );
}

/// What the first node does as a connection of the second one wants the room.
fn enters(world: &mut World) -> Vec<Effect> {
    let place: Locator = locator(&world.boxes[0].node.key.unwrap(), Some("a"));
    let enter = Word::Enter {
        vconn: 7,
        peer: PeerId::from_bits(1),
        client: [192, 0, 2, 1].into(),
        dialect: DialectKind::Native,
        revoked_until: None,
        place,
        frame: Frame {
            text: String::new(),
            room: None,
            dialect: None,
            grant: None,
        },
    };
    let (now, from, mut effects) = (world.now, world.boxes[1].node.me(), vec![]);
    world.boxes[0].node.word(now, from, enter, &mut effects);
    effects
}

#[test]
fn a_room_that_was_claimed_and_not_answered_is_asked_for_by_who_is_its_home() {
    let mut world = World::new(3);
    world.run(60);
    let me = world.boxes[0].node.me();
    let key = world.boxes[0].node.room_key(Some("a")).unwrap();
    world.store.claim(&key, me, None);
    let known = world.seek(1, "a");
    world.run(10);
    assert_eq!(world.boxes[1].found[&known], home(&world, 0));
    let effects = enters(&mut world);
    assert_eq!(claims(&effects, &key), 1, "{effects:?}");
    world.carry_out(0, effects);
    world.run(10);
    let again = world.seek(1, "a");
    world.run(10);
    assert_eq!(
        world.boxes[1].found[&again],
        Found::Here,
        "nobody was in it"
    );
}

#[test]
fn a_connection_of_another_node_waits_for_the_end_of_a_room_too() {
    let mut world = World::new(3);
    world.run(60);
    world.seek(0, "a");
    world.run(10);
    let known = world.seek(1, "a");
    world.run(10);
    assert_eq!(world.boxes[1].found[&known], home(&world, 0));
    room_ends(&mut world);
    let effects = enters(&mut world);
    assert!(effects.is_empty(), "{effects:?}");
    // It is told to seek again once Redis has answered.
    world.run(10);
    let again = world.seek(1, "a");
    world.run(10);
    assert_eq!(world.boxes[1].found[&again], Found::Here);
}

/// What a node does as a beat is answered on another connection.
fn reconnects(world: &mut World, index: usize) -> Vec<Effect> {
    let (now, mut effects) = (world.now, vec![]);
    let node = &mut world.boxes[index].node;
    node.handle(now, Input::Reconnected, &mut effects);
    let (me, drawn) = (node.me(), node.draw_mark());
    let beat = world.store.beat(me, node.mark.as_deref(), &drawn);
    node.handle(now, Input::Beat(now, beat), &mut effects);
    effects
}

fn claims(effects: &[Effect], of: &Key) -> usize {
    let is_one = |effect: &&Effect| matches!(effect, Effect::Claim { room, .. } if room == of);
    effects.iter().filter(is_one).count()
}

#[test]
fn what_was_sought_before_redis_forgot_waits_for_the_others() {
    let mut world = World::new(4);
    world.run(60);
    world.seek(0, "a");
    world.seek(1, "b");
    world.run(10);
    let key = |world: &World, room| world.boxes[0].node.room_key(Some(room)).unwrap();
    let (theirs, own) = (key(&world, "a"), key(&world, "b"));
    world.boxes[1].cut = 1;
    world.seek(1, "a");
    world.store = Model::default();
    let effects = reconnects(&mut world, 1);
    assert_eq!(claims(&effects, &own), 1, "it is asserted, and once");
    assert_eq!(
        claims(&effects, &theirs),
        0,
        "its home is about to assert it"
    );
}

#[test]
fn who_wants_a_room_that_is_being_asserted_waits_for_the_answer() {
    let mut world = World::new(4);
    world.run(60);
    world.seek(0, "a");
    world.run(10);
    let effects = reconnects(&mut world, 0);
    world.carry_out(0, effects);
    let conn = world.seek(0, "a");
    assert!(!world.boxes[0].found.contains_key(&conn));
    world.run(1);
    assert_eq!(world.boxes[0].found[&conn], Found::Here);
}
