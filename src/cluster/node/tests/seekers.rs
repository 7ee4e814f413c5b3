//! What connections seek that do not wait any more, and more of them than may wait.

use super::*;

fn sought(room: u64) -> Sought {
    Sought::Room(format!("r{room}").into())
}

#[test]
fn what_nobody_waits_for_is_not_asked_again() {
    let mut world = World::new(5);
    world.run(60);
    world.seek(0, "a");
    world.run(10);
    world.boxes[0].cut = 30;
    for conn in 0..300 {
        world.input(0, Input::Seek(ConnId(conn), sought(conn)));
    }
    world.run(5);
    // Of two who wait for one room, one goes.
    world.input(0, Input::Seek(ConnId(1_000), sought(7)));
    for conn in 0..300 {
        world.input(0, Input::Unsought(ConnId(conn)));
    }
    let rooms = &world.boxes[0].node.rooms;
    assert_eq!((rooms.seekers.len(), rooms.waits.len()), (1, 1));
    assert_eq!(rooms.names.len(), 2, "that one and the own room");
    world.run(60);
    let node = &world.boxes[0].node;
    let owner = |world: &World, room: u64| {
        let key = node.room_key(Some(&format!("r{room}"))).unwrap();
        world.store.owner(&key)
    };
    assert_eq!(owner(&world, 8), None, "nobody has asked for it");
    assert!(node.rooms.seekers.is_empty() && node.rooms.waits.is_empty());
    let key = node.room_key(Some("a")).unwrap();
    assert_eq!(world.store.owner(&key), Some(node.me()), "it stays");
}

#[test]
fn more_than_may_wait_come_again_later_and_own_rooms_are_found_all_the_same() {
    let (mut world, mut effects) = (World::new(6), vec![]);
    world.run(60);
    world.seek(0, "a");
    world.run(10);
    let now = world.now;
    let node = &mut world.boxes[0].node;
    while !node.has_many_seekers() {
        let conn = 1_000 + node.rooms.waits.len() as u64;
        node.handle(now, Input::Seek(ConnId(conn), sought(conn)), &mut effects);
    }
    let mut found = |conn: u64, sought: Sought| {
        effects.clear();
        node.handle(now, Input::Seek(ConnId(conn), sought), &mut effects);
        let found = |effect: &Effect| match effect {
            Effect::Found(ConnId(of), found) if *of == conn => Some(*found),
            _ => None,
        };
        effects.iter().find_map(found)
    };
    assert_eq!(found(1, sought(1)), Some(Found::Nowhere));
    assert_eq!(found(2, Sought::Room("a".into())), Some(Found::Here));
    node.handle(now, Input::Unsought(ConnId(1_000)), &mut effects);
    assert!(!node.has_many_seekers());
}
