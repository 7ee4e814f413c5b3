//! What of an image does not fit the hub that takes it costs that member, and nobody else.

use super::*;
use crate::signal::hub::Locate;

/// A hub that takes rooms of others.
fn taker() -> World {
    let mut world = World::new();
    world.hub = Hub::new(Settings::default(), ice(true), SEED);
    world.hub.join_cluster(Locate::new(|_| [0; 16]));
    world
}

/// A connection of the taker, with the peer id of a member.
fn open_as(world: &mut World, joined: &Value) -> (u64, PeerId) {
    let (conn, peer) = (world.open(), peer(joined));
    world.hub.conns.get_mut(&ConnId(conn)).unwrap().peer = peer;
    (conn, peer)
}

fn peer(joined: &Value) -> PeerId {
    PeerId::parse(joined["peerId"].as_str().unwrap()).unwrap()
}

fn resume(world: &mut World, joined: &Value) -> (u64, Value) {
    let conn = world.open();
    let token = &joined["resumeToken"];
    let resumed = world.ask(
        conn,
        json!({"type": "resume", "resumeToken": token, "seq": 1}),
    );
    (conn, resumed)
}

/// A room of three as JSON, and what each got as it joined; two of them talk.
fn image() -> (Value, [Value; 3]) {
    let mut old = World::new();
    let (a, ann) = old.join("r", "ann");
    let (b, bob) = old.join("r", "bob");
    let (_, cid) = old.join("r", "cid");
    let calling = old.ask(a, json!({"type": "call", "to": "bob"}));
    old.ask(b, json!({"type": "accept", "callId": calling["callId"]}));
    let image = old.hub.image(old.now, "r").unwrap();
    (serde_json::to_value(image).unwrap(), [ann, bob, cid])
}

fn restore(world: &mut World, image: Value) {
    let mut effects = vec![];
    let image = serde_json::from_value(image).unwrap();
    world
        .hub
        .restore_room(world.now, image, &mut effects)
        .unwrap();
    world.deliver(effects);
}

#[test]
fn who_has_moved_on_is_left_out_and_the_others_resume_without_a_gap() {
    let (image, [ann, bob, cid]) = image();
    let mut new = taker();
    let (a, moved) = open_as(&mut new, &ann);
    new.ask(a, json!({"type": "join", "roomId": "elsewhere"}));
    new.hub.take_changes();
    restore(&mut new, image);
    let gauges = new.hub.gauges();
    assert_eq!((gauges.away, gauges.peers, gauges.calls), (2, 3, 0));
    let (b, resumed) = resume(&mut new, &bob);
    assert_eq!(
        (&resumed["gap"], &resumed["role"]),
        (&json!(false), &json!("host"))
    );
    let told = new.types(b);
    assert!(
        told.contains(&"hangup".to_owned()) && told.contains(&"peer-left".to_owned()),
        "{told:?}"
    );
    assert_eq!(resume(&mut new, &cid).1["gap"], false);
    let changes = new.hub.take_changes();
    let members = &changes["r"].members;
    assert!(
        members.contains(&moved) && members.contains(&peer(&bob)),
        "{changes:?}"
    );
    assert!(new.is_open(a) && new.hub.has_room("elsewhere"));
    new.empties();
}

#[test]
fn a_room_whose_last_member_has_moved_on_is_at_its_end() {
    let mut old = World::new();
    let (_, ann) = old.join("r", "ann");
    let image = old.hub.image(old.now, "r").unwrap();
    let mut new = taker();
    let (a, moved) = open_as(&mut new, &ann);
    new.ask(a, json!({"type": "join", "roomId": "elsewhere"}));
    new.hub.take_changes();
    restore(&mut new, serde_json::to_value(image).unwrap());
    assert!(!new.hub.has_room("r"));
    let changes = new.hub.take_changes();
    assert!(changes["r"].settings && changes["r"].members.contains(&moved));
    new.empties();
}

#[test]
fn a_connection_whose_session_comes_with_an_image_is_closed() {
    let (image, [_, bob, _]) = image();
    let mut new = taker();
    let (b, _) = open_as(&mut new, &bob);
    restore(&mut new, image);
    assert_eq!(new.closed[&b], 1012);
    assert_eq!(
        (new.hub.gauges().away, new.hub.gauges().connections),
        (3, 0)
    );
    let (conn, resumed) = resume(&mut new, &bob);
    assert_eq!(
        (&resumed["gap"], &resumed["replayed"]),
        (&json!(false), &json!(3))
    );
    assert!(!new.types(conn).contains(&"peer-left".to_owned()));
    new.empties();
}

#[test]
fn a_part_that_contradicts_itself_costs_its_member() {
    let breaks: [fn(&mut Value, Value); 4] = [
        |session, _| session["state"] = json!("[]"),
        |session, other| session["token"] = other["token"].clone(),
        |session, _| session["ring"] = json!([[77_777], 9]),
        |session, _| session["room"] = json!("other"),
    ];
    for (n, spoil) in breaks.into_iter().enumerate() {
        let (mut image, joined) = image();
        let place = |joined: &Value| {
            let sessions = image["sessions"].as_array().unwrap();
            let is_it = |session: &Value| session[0] == joined["peerId"];
            sessions.iter().position(is_it).unwrap()
        };
        // Both are in the call.
        let (one, two) = (place(&joined[0]), place(&joined[1]));
        let (first, bad) = (one.min(two), one.max(two));
        let other = image["sessions"][first][1].clone();
        let of = image["sessions"][bad][0].clone();
        spoil(&mut image["sessions"][bad][1], other);
        let mut new = taker();
        restore(&mut new, image);
        for joined in joined {
            let (_, resumed) = resume(&mut new, &joined);
            match joined["peerId"] == of {
                true => assert_eq!(resumed["code"], "resume-failed", "{n}"),
                false => assert_eq!(resumed["gap"], false, "{n}: {resumed}"),
            }
        }
        let gauges = new.hub.gauges();
        assert_eq!((gauges.peers, gauges.calls), (2, 0));
        let gone = PeerId::parse(of.as_str().unwrap()).unwrap();
        assert!(new.hub.take_changes()["r"].members.contains(&gone));
        new.empties();
    }
}

#[test]
fn a_record_that_contradicts_itself_costs_its_member() {
    let mut old = World::new();
    let (_, ann) = old.join("r", "ann");
    let (_, bob) = old.join("r", "bob");
    let settings = old.hub.settings_record("r").unwrap();
    let record = |joined| old.hub.member_record(old.now, "r", peer(joined)).unwrap();
    let mut broken = serde_json::to_value(record(&ann)).unwrap();
    broken["session"]["metadata"] = json!("{");
    let members = vec![serde_json::from_value(broken).unwrap(), record(&bob)];
    let mut new = taker();
    let effects = &mut vec![];
    (new.hub.restore_records(new.now, settings, members, effects)).unwrap();
    assert_eq!(resume(&mut new, &ann).1["code"], "resume-failed");
    assert_eq!(resume(&mut new, &bob).1["type"], "resumed");
    new.empties();
}

#[test]
fn of_two_sessions_the_one_counts_that_its_client_knows() {
    for is_known in [false, true] {
        let (image, [ann, ..]) = image();
        let mut new = taker();
        let (a, peer) = open_as(&mut new, &ann);
        new.ask(a, json!({"type": "join", "roomId": "elsewhere"}));
        if is_known {
            new.ask(a, json!({"type": "list"}));
        }
        new.cut(a);
        new.clear();
        restore(&mut new, image);
        let user = (peer.to_string(), 0);
        let is_revoked = new.revoked.iter().any(|(revoked, _)| *revoked == user.0);
        assert_eq!(is_revoked, is_known, "what nobody was given is not revoked");
        let (_, resumed) = resume(&mut new, &ann);
        match is_known {
            true => assert_eq!(resumed["code"], "resume-failed"),
            false => assert_eq!(resumed["gap"], false),
        }
        assert_eq!(new.hub.has_room("elsewhere"), is_known);
        new.empties();
    }
}

#[test]
fn who_is_away_is_not_waited_for_anew_each_time_a_room_moves() {
    let mut old = World::new();
    let (_, ann) = old.join("r", "ann");
    let (b, bob) = old.join("r", "bob");
    old.cut(b);
    old.pass(Duration::from_secs(20));
    let image = old.hub.image(old.now, "r").unwrap();
    let mut new = taker();
    restore(&mut new, serde_json::to_value(image).unwrap());
    new.pass(Duration::from_secs(9));
    assert_eq!(new.hub.gauges().away, 2);
    new.pass(Duration::from_secs(2));
    assert_eq!(new.hub.gauges().away, 1);
    assert_eq!(resume(&mut new, &bob).1["code"], "resume-failed");
    assert_eq!(resume(&mut new, &ann).1["gap"], false);
    new.empties();
}
