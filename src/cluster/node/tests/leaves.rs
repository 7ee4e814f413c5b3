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
