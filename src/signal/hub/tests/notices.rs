//! What the application is told, in which order, and what is traced.

use super::harness::World;
use super::*;
use serde_json::{Value, json};

/// The notices since the last look, as their JSON.
fn told(world: &mut World) -> Vec<Value> {
    let notices = std::mem::take(&mut world.notices);
    let json = notices.iter().map(|n| serde_json::to_value(n).unwrap());
    json.collect()
}

fn kinds(world: &mut World) -> Vec<String> {
    let told = told(world);
    let kinds = told.iter().map(|n| match n["reason"].as_str() {
        Some(reason) => format!("{} {reason}", n["type"].as_str().unwrap()),
        None => n["type"].as_str().unwrap().to_owned(),
    });
    kinds.collect()
}

fn watched() -> World {
    let mut world = World::new();
    world.hub.watch(true);
    world
}

fn join(world: &mut World, room: &str, name: &str) -> u64 {
    let conn = world.open();
    world.send(
        conn,
        json!({"type": "join", "roomId": room, "identity": name}),
    );
    conn
}

fn call(world: &mut World, from: u64, to: &str) -> Value {
    world.take(from);
    let calling = world.ask(from, json!({"type": "call", "to": to}));
    calling["callId"].clone()
}

#[test]
fn a_room_is_told_from_its_first_member_to_its_last() {
    let mut world = watched();
    let ann = join(&mut world, "r", "ann");
    let bob = join(&mut world, "r", "bob");
    let first = told(&mut world);
    assert_eq!(first[0], json!({"type": "room-started", "room": "r"}));
    assert_eq!(first[1]["identity"], "ann");
    assert_eq!(
        (&first[2]["type"], &first[2]["role"], &first[2]["room"]),
        (&json!("peer-joined"), &json!("member"), &json!("r"))
    );
    assert_eq!(first[2]["peerId"], world.peers[&bob].to_string());
    assert_eq!(first.len(), 3);
    world.send(bob, json!({"type": "leave"}));
    world.pass(Duration::from_secs(70));
    world.send(ann, json!({"type": "leave"}));
    let then = told(&mut world);
    assert_eq!(then[0]["identity"], "bob");
    assert_eq!(then[1]["reason"], "left");
    assert_eq!(
        then[2],
        json!({"type": "room-ended", "room": "r", "seconds": 70})
    );
}

#[test]
fn an_only_member_that_comes_back_does_not_end_its_room() {
    let mut world = watched();
    let ann = join(&mut world, "r", "ann");
    told(&mut world);
    world.send(ann, json!({"type": "join", "roomId": "r"}));
    assert_eq!(kinds(&mut world), ["peer-left left", "peer-joined"]);
    world.send(ann, json!({"type": "join", "roomId": "s"}));
    let kinds = kinds(&mut world);
    assert_eq!(
        kinds,
        [
            "peer-left left",
            "room-ended",
            "room-started",
            "peer-joined"
        ]
    );
}

#[test]
fn an_operator_and_the_end_of_the_box_end_rooms_as_well() {
    let mut world = watched();
    for name in ["ann", "bob"] {
        join(&mut world, "r", name);
    }
    told(&mut world);
    let (mut effects, now) = (vec![], world.now);
    world.hub.close_room(now, "r", &mut effects).unwrap();
    world.deliver(effects);
    let ended = [
        "peer-left room-closed",
        "peer-left room-closed",
        "room-ended",
    ];
    assert_eq!(kinds(&mut world), ended);

    let ann = join(&mut world, "s", "ann");
    join(&mut world, "s", "bob");
    call(&mut world, ann, "bob");
    told(&mut world);
    let mut effects = vec![];
    world.hub.end_all(now, &mut effects);
    world.deliver(effects);
    let ended = [
        "call-ended draining",
        "peer-left draining",
        "peer-left draining",
        "room-ended",
    ];
    assert_eq!(kinds(&mut world), ended);
}

#[test]
fn a_call_is_told_with_its_parties_and_how_it_ended() {
    let mut world = watched();
    let ann = join(&mut world, "r", "ann");
    let bob = join(&mut world, "s", "bob");
    let id = call(&mut world, ann, "bob");
    world.send(bob, json!({"type": "accept", "callId": id}));
    world.pass(Duration::from_secs(5));
    world.send(ann, json!({"type": "hangup", "callId": id}));
    let mut told = told(&mut world).split_off(4);
    let ended = told.pop().unwrap();
    assert_eq!(
        told,
        [json!({"type": "call-started", "callId": id, "to": "bob",
            "from": {"peerId": world.peers[&ann], "identity": "ann"}})]
    );
    assert_eq!(ended["answeredBy"]["identity"], "bob");
    assert_eq!(
        (&ended["seconds"], &ended["reason"]),
        (&json!(5), &json!("hangup"))
    );

    let reasons = |world: &mut World, end: &dyn Fn(&mut World, &Value)| {
        let id = call(world, ann, "bob");
        end(world, &id);
        kinds(world).pop().unwrap()
    };
    let rejected = reasons(&mut world, &|world, id| {
        world.send(bob, json!({"type": "reject", "callId": id}));
    });
    let cancelled = reasons(&mut world, &|world, id| {
        world.send(ann, json!({"type": "hangup", "callId": id}));
    });
    let timeout = reasons(&mut world, &|world, _| {
        world.pass(Duration::from_secs(46));
    });
    assert_eq!(
        [rejected, cancelled, timeout],
        ["rejected", "cancelled", "timeout"].map(|reason| format!("call-ended {reason}"))
    );
    call(&mut world, ann, "bob");
    world.send(ann, json!({"type": "leave"}));
    assert!(kinds(&mut world).contains(&"call-ended disconnected".to_owned()));
}

#[test]
fn a_trace_names_sender_receivers_and_size_and_ends_with_its_listener() {
    let mut world = World::new();
    let ann = join(&mut world, "r", "ann");
    let bob = join(&mut world, "r", "bob");
    let eve = join(&mut world, "s", "eve");
    let room = Subject::Room("r".into());
    world.hub.trace(&room);
    world.send(ann, json!({"type": "offer", "sdp": "secret"}));
    world.send(bob, json!({"type": "answer", "sdp": "x", "to": "nobody"}));
    world.send(eve, json!({"type": "message", "content": 1}));
    let told = told(&mut world);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(
        (&told[0]["message"], &told[0]["identity"], &told[0]["room"]),
        (&json!("offer"), &json!("ann"), &json!("r"))
    );
    assert_eq!(told[0]["to"], json!([world.peers[&bob]]));
    assert!(told[0]["size"].as_u64().unwrap() > 50);
    assert!(!told[0].to_string().contains("secret"));
    assert_eq!(
        (&told[1]["refused"], &told[1]["receivers"]),
        (&json!(true), &json!(0))
    );

    let peer = Subject::Peer("eve".into());
    world.hub.trace(&peer);
    world.hub.end_trace(&room);
    world.send(ann, json!({"type": "message", "content": 1}));
    world.send(eve, json!({"type": "message", "content": 1}));
    assert_eq!(kinds(&mut world), ["message"]);
    world.hub.end_trace(&peer);
    world.send(eve, json!({"type": "message", "content": 1}));
    assert!(kinds(&mut world).is_empty());
}

#[test]
fn nothing_is_told_where_nobody_listens() {
    let mut world = World::new();
    let ann = join(&mut world, "r", "ann");
    world.send(ann, json!({"type": "leave"}));
    assert!(world.notices.is_empty());
}
