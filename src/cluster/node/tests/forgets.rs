//! A store that forgets while all nodes live.

use super::*;

#[test]
fn a_store_that_forgets_takes_no_node_for_gone() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        // Some do not know of all others yet.
        world.run(5 + seed as u32);
        let resets = |world: &World| world.boxes[1].lost;
        world.say(0, 1);
        world.run(5);
        world.store = Model::default();
        world.unsettled = world.now + LEASE + LEASE;
        world.run(60);
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2)] {
            let before = world.boxes[to].received.len();
            world.say(from, to);
            world.run(5);
            let received = world.boxes[to].received.len();
            assert_eq!(received, before + 1, "seed {seed}: from {from} to {to}");
        }
        assert_eq!(resets(&world), 0, "seed {seed}: nobody was lost");
    }
}

/// A node is killed together with the store's memory, and comes back before the others reach the store.
fn newcomer_comes_first(seed: u64) -> World {
    let mut world = World::new(seed);
    world.run(60);
    let home = world.seek(0, "a");
    world.run(10);
    assert_eq!(world.boxes[0].found[&home], Found::Here);
    for index in [0, 1] {
        world.boxes[index].cut = 8;
    }
    world.store = Model::default();
    world.unsettled = world.now + LEASE + LEASE;
    let fresh = world.start();
    world.boxes[2] = fresh;
    world
}

#[test]
fn rooms_are_found_in_the_same_way_whoever_comes_first_to_an_empty_store() {
    for seed in 0..20 {
        let mut world = newcomer_comes_first(seed);
        let before = world.boxes[0].node.room_key(Some("a"));
        world.run(60);
        for of in &world.boxes {
            assert_eq!(of.node.room_key(Some("a")), before, "tokens lead there");
        }
    }
}

#[test]
fn a_newcomer_leaves_rooms_to_those_who_had_them_before_the_store_forgot() {
    for seed in 0..20 {
        let mut world = newcomer_comes_first(seed);
        world.run(4);
        let home = NodeId(world.boxes[0].node.me().bits());
        let conn = world.seek(2, "a");
        world.run(60);
        if let Some(found) = world.boxes[2].found.get(&conn) {
            assert_eq!(*found, Found::There(home), "seed {seed}");
        }
        let again = world.seek(2, "a");
        world.run(10);
        assert_eq!(
            world.boxes[2].found.get(&again),
            Some(&Found::There(home)),
            "seed {seed}"
        );
        assert!(world.boxes[0].rooms.contains("a"), "seed {seed}");
        assert!(world.is_serving(&world.boxes[2]));
    }
}

fn rotated(secrets: &[&str]) -> Settings {
    let secrets: Vec<_> = secrets
        .iter()
        .map(|secret| secret.repeat(32).into())
        .collect();
    Settings {
        secrets: Secrets::new(&secrets).unwrap(),
        ..settings()
    }
}

#[test]
fn a_secret_rotates_by_three_rolling_restarts() {
    let mut world = World::new(5);
    world.run(60);
    let before = world.boxes[0].node.room_key(Some("a"));
    for secrets in [&["s", "t"][..], &["t", "s"], &["t"]] {
        for index in 0..3 {
            let conn = world.seek(index, "a");
            world.run(10);
            assert!(world.boxes[index].found.contains_key(&conn));
            let fresh = world.start_with(rotated(secrets));
            world.boxes[index] = fresh;
            world.run(140);
            assert!(world.is_serving(&world.boxes[index]), "{secrets:?}");
            assert_eq!(world.boxes[index].node.room_key(Some("a")), before);
            let conn = world.seek(index, "a");
            world.run(10);
            assert!(world.boxes[index].found.contains_key(&conn));
        }
    }
    let takeovers = |of: &Machine| of.node.gauges(world.now).takeovers;
    assert!(
        world.boxes.iter().map(takeovers).sum::<u64>() > 0,
        "records open"
    );
    assert!(world.boxes.iter().any(|of| of.rooms.contains("a")));
}

#[test]
fn a_room_that_is_entered_while_its_end_waits_is_kept() {
    let mut world = World::new(8);
    world.run(60);
    let key = world.boxes[0].node.key.unwrap();
    // Tokens of sessions that are gone lead here: rooms are claimed that nobody can enter, and end.
    for room in ["a", "b"] {
        let conn = ConnId(world.next);
        world.next += 1;
        let sought = Sought::Located(locator(&key, Some(room)));
        world.input(0, Input::Seek(conn, sought));
    }
    world.step();
    assert!(ROOMS[..2].iter().all(|room| {
        let key = world.boxes[0].node.room_key(Some(room)).unwrap();
        world.boxes[0].node.owns(&key)
    }));
    // The end of the first is being saved and that of the second waits, and both are entered.
    for room in ["a", "b"] {
        world.seek(0, room);
    }
    world.run(20);
    for room in ["a", "b"] {
        let key = world.boxes[0].node.room_key(Some(room)).unwrap();
        assert!(world.boxes[0].rooms.contains(room));
        assert!(world.boxes[0].node.owns(&key), "{room} is its node's");
        assert!(
            world.store.fields(&key).contains_key(SETTINGS),
            "{room} is saved"
        );
    }
}
