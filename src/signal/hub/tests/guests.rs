//! Connections of other nodes.

use super::harness::World;
use super::*;
use crate::protocol::parse;
use serde_json::{Value, json};

const GUEST: ConnId = ConnId(1_000_000);

fn receive(world: &mut World, peer: PeerId) {
    world.hub.receive(Guest {
        conn: GUEST,
        peer,
        client: [192, 0, 2, 9].into(),
        dialect: DialectKind::Native,
        revoked_until: None,
    });
}

/// The guest joins; returns whether it has got an answer. It is not connected here.
fn joins(world: &mut World, room: &str) -> bool {
    let mut effects = vec![];
    let message = parse(&json!({"type": "join", "roomId": room}).to_string());
    let input = Input::Frame {
        conn: GUEST,
        message,
        grant: None,
    };
    world.hub.handle(world.now, input, &mut effects);
    let is_its = |effect: &Effect| matches!(effect, Effect::Send { conn, .. } if *conn == GUEST);
    let is_answered = effects.iter().any(is_its);
    effects.retain(|effect| !is_its(effect));
    world.deliver(effects);
    is_answered
}

fn peer(joined: &Value) -> PeerId {
    PeerId::parse(joined["peerId"].as_str().unwrap()).unwrap()
}

#[test]
fn a_late_connection_takes_no_session_that_has_lost_it() {
    let mut world = World::new();
    let (a, joined) = world.join("r", "ann");
    let asked = json!({"type": "message", "id": "once", "content": 1});
    world.ask(a, asked.clone());
    world.cut(a);
    let (peer, now) = (peer(&joined), world.now);
    let mut effects = vec![];
    assert!(!world.hub.admits(now, peer, &mut effects) && effects.is_empty());
    // Even if it were taken: as it ends, it is not the one that the session waits for.
    receive(&mut world, peer);
    assert!(!world.hub.has_session(GUEST));
    let loss = Loss::Disconnected;
    world.input(Input::Closed { conn: GUEST, loss });
    assert_eq!(world.hub.gauges().away, 1);
    let conn = world.open();
    let token = &joined["resumeToken"];
    world.ask(
        conn,
        json!({"type": "resume", "resumeToken": token, "seq": 2}),
    );
    world.clear();
    world.send(conn, asked);
    assert_eq!(world.types(conn), ["ack"], "it was answered before");
    world.empties();
}

#[test]
fn a_session_that_its_client_never_got_ends_at_once_and_revokes_nothing() {
    let mut world = World::new();
    let (a, _) = world.join("r", "ann");
    let peer = PeerId::from_bits(77);
    receive(&mut world, peer);
    assert!(joins(&mut world, "r"));
    let (now, mut effects) = (world.now, vec![]);
    world.hub.cancelled(now, GUEST, &mut effects);
    world.deliver(effects);
    assert_eq!(world.types(a).last().unwrap(), "peer-left");
    assert!(world.revoked.is_empty() && !world.hub.has_session(GUEST));
    // The same, where nobody was there to be told.
    receive(&mut world, peer);
    assert!(joins(&mut world, "r"));
    let mut effects = vec![];
    let loss = Loss::Disconnected;
    world
        .hub
        .handle(now, Input::Closed { conn: GUEST, loss }, &mut effects);
    assert!(world.hub.admits(now, peer, &mut effects), "it makes way");
    world.deliver(effects);
    assert!(world.revoked.is_empty());
    assert_eq!(world.hub.gauges().away, 0);
    world.empties();
}
