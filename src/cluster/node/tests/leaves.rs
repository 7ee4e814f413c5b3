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

#[test]
fn an_image_is_that_of_the_home_before_and_of_no_earlier_one() {
    for others in [0, 1] {
        let mut world = World::new(7);
        world.run(60);
        world.seek(0, "a");
        world.run(10);
        let (now, key) = (world.now, world.boxes[0].node.room_key(Some("a")).unwrap());
        let (mut effects, text) = (vec![], b"all of it".to_vec());
        let node = &mut world.boxes[0].node;
        let (me, epoch) = (node.me(), node.ownership.epoch(&key).unwrap());
        node.handle(now, Input::GiveUp, &mut effects);
        let settings = br#"{"room":"a"}"#.to_vec();
        let fields = [(SETTINGS, settings), (IMAGE, text.clone())];
        let fields = fields.map(|(field, value)| (field.to_owned(), Some(value)));
        let record = Record {
            room: "a".into(),
            exists: true,
            fields: fields.into(),
        };
        node.handle(now, Input::Taken(vec![record]), &mut effects);
        let image = effects.into_iter().find_map(|effect| match effect {
            Effect::Save { mut images, .. } => images.pop(),
            _ => None,
        });
        let image = image.expect("it is kept beside the record").1;
        assert!(world.store.give(&key, me, epoch));

        let mut owner = None;
        for other in 0..others {
            let other = Incarnation::from_bits(other);
            world.store.claim(&key, other, None);
            owner = Some(other);
        }
        let (node, mut effects) = (&mut world.boxes[1].node, vec![]);
        let sought = Sought::Room("a".into());
        node.handle(now, Input::Seek(ConnId(1_000), sought), &mut effects);
        let ticket = effects.iter().find_map(|effect| match effect {
            Effect::Claim { ticket, .. } => Some(*ticket),
            _ => None,
        });
        let mut claimed = world.store.claim(&key, node.me(), owner);
        let crate::cluster::ownership::Claimed::Mine { fields, .. } = &mut claimed else {
            panic!("{claimed:?}");
        };
        fields.insert(IMAGE.to_owned(), image);
        let input = Input::Claimed(ticket.unwrap(), key, Some(claimed));
        node.handle(now, input, &mut effects);
        let restored = effects.into_iter().find_map(|effect| match effect {
            Effect::Restore { image, .. } => Some(image),
            _ => None,
        });
        assert_eq!(restored, Some((others == 0).then_some(text)));
    }
}
