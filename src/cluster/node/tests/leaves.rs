//! A node that gives its rooms up.

use super::*;

#[test]
fn a_room_that_is_being_saved_is_given_up_with_all_of_it() {
    let mut world = World::new(5);
    world.run(60);
    world.seek(0, "a");
    world.run(10);
    let key = world.boxes[0].node.room_key(Some("a")).unwrap();
    assert!(world.store.owner(&key).is_some());
    // The answer to this save is still on its way when the node begins to leave.
    world.boxes[0].changed.insert("a".into());
    world.input(0, Input::Changed);
    world.input(0, Input::GiveUp);
    world.run(10);
    assert!(world.boxes[0].node.has_given_up());
    assert_eq!(world.store.owner(&key), None, "nobody's, and not its own");
}

#[test]
fn a_room_that_is_being_claimed_is_given_up_too() {
    let mut world = World::new(6);
    world.run(60);
    world.seek(1, "a");
    world.run(10);
    world.input(1, Input::GiveUp);
    world.run(10);
    let key = world.boxes[0].node.room_key(Some("a")).unwrap();
    assert_eq!(world.store.owner(&key), None);
    // Redis has carried the claim out, and the answer is on its way.
    world.seek(0, "a");
    assert!(world.store.owner(&key).is_some());
    world.input(0, Input::GiveUp);
    assert!(!world.boxes[0].node.has_given_up());
    world.run(10);
    assert!(world.boxes[0].node.has_given_up());
    assert_eq!(world.store.owner(&key), None);
    let conn = world.seek(2, "a");
    world.run(10);
    assert_eq!(world.boxes[2].found[&conn], Found::Here);
    assert_eq!(
        world.boxes[2].node.gauges(world.now).takeovers,
        1,
        "with its record"
    );
}
