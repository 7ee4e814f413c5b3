//! A hub that is made of a snapshot does what the one of the snapshot does, and what does not fit
//! together is refused.

mod history;
mod image;

use super::harness::{World, ice};
use super::*;
use history::{Shell, input, ops, settings};
use proptest::prelude::*;
use serde_json::{Value, json};

const SEED: [u8; 32] = [9; 32];
fn start() -> Now {
    Now {
        instant: Instant::now(),
        unix_ms: 1_700_000_000_000,
    }
}

fn copied(snapshot: &HubSnapshot) -> HubSnapshot {
    let json = serde_json::to_string(snapshot).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn again(hub: &Hub, now: Now) -> Hub {
    let snapshot = copied(&hub.snapshot(now));
    Hub::restore(now, snapshot, settings(), ice(true), SEED).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// For any history, any later inputs and any moment between them.
    #[test]
    fn a_restored_hub_does_what_the_first_one_does(before in ops(), after in ops()) {
        let (mut now, mut shell) = (start(), Shell::default());
        let mut first = Hub::new(settings(), ice(true), [1; 32]);
        for op in &before {
            shell.step(op, &mut now, &mut [&mut first]);
        }
        let mut second = again(&first, now);
        let text = |hub: &Hub| serde_json::to_string(&hub.snapshot(now)).unwrap();
        prop_assert_eq!(text(&first), text(&second));
        // What is random is the same from here on.
        first.rng = StdRng::from_seed(SEED);
        for op in &after {
            shell.step(op, &mut now, &mut [&mut first, &mut second]);
        }
    }

    /// Whatever is changed in a snapshot: it is refused, or the hub lives with it.
    #[test]
    fn a_broken_snapshot_is_refused_or_lived_with(
        before in ops(),
        after in ops(),
        breaks in prop::collection::vec((any::<prop::sample::Index>(), 0u8..6), 1..4),
    ) {
        let (mut now, mut shell) = (start(), Shell::default());
        let mut hub = Hub::new(settings(), ice(true), [1; 32]);
        for op in &before {
            shell.step(op, &mut now, &mut [&mut hub]);
        }
        let mut json = serde_json::to_value(hub.snapshot(now)).unwrap();
        for (index, how) in breaks {
            let mut places = vec![];
            leaves(&json, String::new(), &mut places);
            if places.is_empty() {
                continue;
            }
            let (other, place) = (index.index(places.len() * 7) % places.len(), index.get(&places));
            let other = json.pointer(&places[other]).cloned().unwrap();
            let value = json.pointer_mut(place).unwrap();
            *value = match (how, &*value) {
                (0, Value::Number(_)) => json!(u64::MAX),
                (1, Value::Number(_)) => json!(0),
                (2, Value::Number(n)) => json!(n.as_i64().unwrap_or(0).saturating_add(1)),
                (3, Value::Array(list)) => json!(list.iter().skip(1).collect::<Vec<_>>()),
                (4, Value::Array(list)) => json!(list.iter().chain(list).collect::<Vec<_>>()),
                _ => other,
            };
        }
        let Ok(snapshot) = serde_json::from_value::<HubSnapshot>(json) else {
            return Ok(());
        };
        let Ok(mut hub) = Hub::restore(now, snapshot, settings(), ice(true), SEED) else {
            return Ok(());
        };
        for op in &after {
            let mut effects = vec![];
            let Some(conn) = shell.conn(op) else {
                continue;
            };
            match input(op, conn, &shell.received) {
                Some(Input::Connected { conn, .. }) if hub.conns.contains_key(&conn) => {}
                Some(input) => hub.handle(now, input, &mut effects),
                None => {
                    now.instant += Duration::from_secs(5);
                    hub.handle_timeout(now, &mut effects);
                }
            }
            shell.received.take(&effects);
        }
    }
}

/// Pointers to all that may be changed: single values and lists.
fn leaves(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves(value, format!("{at}/{name}"), places);
            }
        }
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                leaves(value, format!("{at}/{n}"), places);
            }
            places.push(at);
        }
        _ => places.push(at),
    }
}

pub(super) fn restored(world: &World) -> Hub {
    let snapshot = copied(&world.hub.snapshot(world.now));
    let settings = world.hub.settings.clone();
    Hub::restore(world.now, snapshot, settings, ice(true), SEED).unwrap()
}

#[test]
fn sessions_of_cut_connections_wait_and_only_who_stays_is_notified() {
    let mut world = World::new();
    let [(a, _), (b, _), (c, _)] = world.party("r");
    world.hub = restored(&world);
    let mut effects = vec![];
    let cut = |conn| conn != ConnId(a);
    world.hub.cut(world.now, cut, &mut effects);
    world.deliver(effects);
    let told = world.take(a);
    let away: Vec<_> = told.iter().map(|frame| &frame["connection"]).collect();
    assert_eq!(away, ["away", "away"]);
    assert!(world.take(b).is_empty() && world.take(c).is_empty());
    assert_eq!(world.hub.gauges().away, 2);
    assert!(world.revoked.is_empty());
    world.pass(Duration::from_secs(31));
    assert_eq!(world.types(a), ["peer-left", "peer-left"]);
}

#[test]
fn a_session_resumes_behind_a_snapshot_without_a_gap() {
    let mut world = World::new();
    let (a, joined) = world.join("r", "ann");
    let (b, _) = world.join("r", "bob");
    let asked = json!({"type": "message", "id": "once", "content": 1});
    world.ask(a, asked.clone());
    world.send(b, json!({"type": "message", "content": 2}));
    world.hub = restored(&world);
    let mut effects = vec![];
    world.hub.cut(world.now, |_| true, &mut effects);
    assert_eq!(effects, [], "nobody is there to be told");
    let conn = world.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    let resumed = world.ask(conn, resume);
    assert_eq!(
        (&resumed["type"], &resumed["gap"]),
        (&json!("resumed"), &json!(false))
    );
    assert_eq!(world.types(conn), ["peer-joined", "ack", "message"]);
    world.send(conn, asked);
    assert_eq!(
        world.types(conn),
        ["ack"],
        "it was answered before the snapshot"
    );
    let (b_ring, _) = world
        .hub
        .sessions
        .iter()
        .find(|(_, s)| s.identity.as_deref() == Some("bob"))
        .map(|(_, s)| s.ring.parts())
        .map(|(frames, next)| (frames.count(), next))
        .unwrap();
    assert_eq!(
        b_ring, 2,
        "a message, and that ann is back; not a second message"
    );
}

#[test]
fn another_version_is_refused() {
    let world = World::new();
    let mut json = serde_json::to_value(world.hub.snapshot(world.now)).unwrap();
    json["version"] = json!(2);
    let snapshot = serde_json::from_value(json).unwrap();
    let refused = Hub::restore(world.now, snapshot, Settings::default(), ice(true), SEED);
    assert_eq!(refused.err(), Some(SnapshotError::Version(2)));
}

#[test]
fn a_room_moves_to_another_hub_with_its_calls_and_rings() {
    let mut old = World::new();
    let (a, joined) = old.join("r", "ann");
    let (b, _) = old.join("r", "bob");
    let (stranger, _) = old.join("other", "eve");
    let calling = old.ask(a, json!({"type": "call", "to": "bob"}));
    old.ask(b, json!({"type": "accept", "callId": calling["callId"]}));
    old.ask(a, json!({"type": "call", "to": "eve"}));
    old.clear();
    let image = old.hub.image(old.now, "r").unwrap();
    assert_eq!((image.room(), image.members()), (Some("r"), 2));
    let text = serde_json::to_string(&image).unwrap();

    let mut effects = vec![];
    assert!(old.hub.give_up_room(old.now, "r", &mut effects));
    old.deliver(effects);
    assert_eq!((old.closed[&a], old.closed[&b]), (1012, 1012));
    assert!(old.revoked.is_empty() && old.take(a).is_empty() && old.take(b).is_empty());
    assert_eq!(
        old.types(stranger),
        ["hangup"],
        "the caller is elsewhere now"
    );
    assert!(old.hub.image(old.now, "r").is_none());
    assert_eq!(old.hub.gauges().calls, 0);

    let mut new = World::new();
    new.hub = Hub::new(Settings::default(), ice(true), SEED);
    let image = || serde_json::from_str::<RoomImage>(&text).unwrap();
    let effects = &mut vec![];
    new.hub.restore_room(new.now, image(), effects).unwrap();
    let here = new.hub.restore_room(new.now, image(), effects);
    assert_eq!(here, Err(SnapshotError::Present("the room")));
    let gauges = new.hub.gauges();
    assert_eq!((gauges.away, gauges.calls, gauges.peers), (2, 1, 2));
    let conn = new.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 1});
    let resumed = new.ask(conn, resume);
    assert_eq!(
        (&resumed["type"], &resumed["gap"]),
        (&json!("resumed"), &json!(false))
    );
    assert_eq!(resumed["role"], "host");
    new.empties();
    old.empties();
}

#[test]
fn who_is_registered_moves_to_another_hub_with_calls() {
    let mut old = World::new();
    let (a, b) = (old.open(), old.open());
    let registered = old.ask(a, json!({"type": "register", "identity": "ann"}));
    old.ask(b, json!({"type": "register", "identity": "bob"}));
    let (in_room, _) = old.join("r", "eve");
    let calling = old.ask(a, json!({"type": "call", "to": "bob"}));
    old.ask(b, json!({"type": "accept", "callId": calling["callId"]}));
    old.clear();
    let image = old.hub.people_image(old.now).unwrap();
    assert_eq!((image.room(), image.members()), (None, 2));
    let text = serde_json::to_string(&image).unwrap();

    let mut effects = vec![];
    old.hub.give_up_people(old.now, &mut effects);
    old.deliver(effects);
    assert_eq!((old.closed[&a], old.closed[&b]), (1012, 1012));
    assert!(!old.closed.contains_key(&in_room) && old.revoked.is_empty());
    assert!(old.hub.people_image(old.now).is_none());

    let mut new = World::new();
    new.hub = Hub::new(Settings::default(), ice(true), SEED);
    let image = serde_json::from_str(&text).unwrap();
    new.hub.restore_room(new.now, image, &mut vec![]).unwrap();
    let conn = new.open();
    let token = &registered["resumeToken"];
    let resumed = new.ask(
        conn,
        json!({"type": "resume", "resumeToken": token, "seq": 1}),
    );
    assert_eq!(
        (&resumed["type"], &resumed["gap"]),
        (&json!("resumed"), &json!(false))
    );
    let ended = new.ask(conn, json!({"type": "hangup", "callId": calling["callId"]}));
    assert_ne!(ended["type"], "error", "the call goes on");
    new.empties();
    old.empties();
}

#[test]
fn an_image_that_is_no_room_changes_nothing() {
    let mut world = World::new();
    let _: [_; 2] = world.party("r");
    let whole = serde_json::to_value(world.hub.snapshot(world.now)).unwrap();
    let mut other = World::new();
    let image = serde_json::from_value(whole).unwrap();
    let refused = other.hub.restore_room(other.now, image, &mut vec![]);
    assert!(refused.is_err());
    assert_eq!(other.hub.gauges(), Gauges::default());
}

#[test]
fn a_room_outlives_its_node_by_its_records() {
    let mut old = World::new();
    let (a, joined) = old.join("r", "ann");
    old.pass(Duration::from_millis(1));
    let (b, _) = old.join("r", "bob");
    old.pass(Duration::from_millis(1));
    let (_, late) = old.join("r", "cid");
    let patch = json!({"type": "room", "password": "pw", "metadata": {"topic": 1}});
    old.ask(a, patch);
    old.ask(b, json!({"type": "state", "state": {"hand": true}}));
    let (room, now) = ("r", old.now);
    let settings = old.hub.settings_record(room).unwrap();
    let peer = |joined: &Value| PeerId::parse(joined["peerId"].as_str().unwrap()).unwrap();
    let peers: Vec<_> = old.hub.rooms[room]
        .members()
        .iter()
        .map(|m| m.peer)
        .collect();
    let records: Vec<_> = (peers.iter().rev())
        .map(|peer| old.hub.member_record(now, room, *peer).unwrap())
        .collect();
    assert!(old.hub.member_record(now, "other", peers[0]).is_none());
    let text = serde_json::to_string(&(settings, records)).unwrap();

    let mut new = World::new();
    new.hub = Hub::new(Settings::default(), ice(true), SEED);
    let (settings, records): (SettingsRecord, Vec<MemberRecord>) =
        serde_json::from_str(&text).unwrap();
    let effects = &mut vec![];
    let nobody = new
        .hub
        .restore_records(new.now, settings.clone(), vec![], effects);
    assert!(nobody.is_err() && new.hub.gauges() == Gauges::default());
    let twice = records.iter().chain(&records[..1]).cloned().collect();
    new.hub
        .restore_records(new.now, settings, twice, effects)
        .unwrap();
    assert_eq!(*effects, []);
    assert_eq!(new.hub.gauges().away, 3);

    let conn = new.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 7});
    let resumed = new.ask(conn, resume);
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    assert_eq!(
        (&resumed["gap"], &resumed["role"]),
        (&json!(true), &json!("host"))
    );
    assert_eq!(resumed["room"]["hasPassword"], true);
    let states: Vec<_> = (resumed["peers"].as_array().unwrap().iter())
        .map(|peer| (peer["state"].to_string(), peer["connection"].to_string()))
        .collect();
    let away = "\"away\"".to_owned();
    let expected = [
        (r#"{"hand":true}"#.to_owned(), away.clone()),
        ("{}".to_owned(), away),
    ];
    assert_eq!(states, expected);
    // Its client says again that it is at 7: it has not got that frames are missing.
    new.cut(conn);
    let conn = new.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 7});
    assert_eq!(new.ask(conn, resume)["gap"], true);
    // It is numbered from where the client was, and from here on nothing is missing.
    let stranger = new.open();
    let join = json!({"type": "join", "roomId": "r", "identity": "dee"});
    assert_eq!(new.ask(stranger, join.clone())["code"], "bad-password");
    let mut join = join;
    join["password"] = json!("pw");
    assert_eq!(new.ask(stranger, join)["type"], "joined");
    let told = new.take(conn);
    assert_eq!(
        (&told[0]["type"], &told[0]["seq"]),
        (&json!("peer-joined"), &json!(9))
    );
    new.ask(conn, json!({"type": "list"}));
    new.cut(conn);
    let conn = new.open();
    let resume = json!({"type": "resume", "resumeToken": joined["resumeToken"], "seq": 9});
    let resumed = new.ask(conn, resume);
    assert_eq!(
        (&resumed["gap"], &resumed["replayed"]),
        (&json!(false), &json!(1))
    );
    // Who does not come back leaves when its window ends.
    new.clear();
    new.pass(Duration::from_secs(31));
    assert_eq!(new.types(conn), ["peer-left", "peer-left"]);
    assert!(new.hub.sessions.get(peer(&late)).is_none());
    new.empties();
}
