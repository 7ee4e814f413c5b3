//! Invitations: whom they let in, as what, and when they are void.

use super::harness::{World, ice};
use super::*;
use crate::auth::token::Verifier;
use crate::auth::{InviteKeys, Role};
use serde_json::{Value, json};

/// What the token of an `invited` grants, as a box that knows no other key sees it.
fn grant_of(world: &World, invited: &Value) -> Result<Grant, RequestError> {
    let mut verifier = Verifier::new(None, vec![], 0);
    verifier.accept_invites(InviteKeys::new(&ice(true).secrets));
    let token = invited["token"].as_str().unwrap();
    assert!(
        invited["url"]
            .as_str()
            .unwrap()
            .ends_with(&format!("#room=r+1&token={token}"))
    );
    verifier
        .verify(token, world.now.unix_ms / 1000)
        .map_err(|error| RequestError::new(ErrorCode::Unauthorized, error.to_string()))
}

fn enter(world: &mut World, invited: &Value) -> (u64, Value) {
    let grant = grant_of(world, invited);
    let conn = world.open();
    let join = json!({"type": "join", "roomId": "r 1", "identity": "chosen"});
    let answer = world.ask_as(conn, join, grant);
    (conn, answer)
}

#[test]
fn a_guest_comes_in_by_an_invitation_as_often_and_as_what_it_says() {
    let mut world = World::new();
    let [(host, _), (member, _)] = world.party("r 1");
    let invite = json!({"type": "invite", "ttl": 60, "role": "viewer", "uses": 2, "id": "i"});
    assert_eq!(world.ask(member, invite.clone())["code"], "forbidden");
    let invited = world.ask(host, invite.clone());
    assert_eq!(invited["expiresAt"], world.now.unix_ms / 1000 + 60);
    assert_eq!(
        world.ask(host, invite)["token"],
        invited["token"],
        "no second one"
    );
    for _ in 0..2 {
        let (guest, joined) = enter(&mut world, &invited);
        assert_eq!(
            (&joined["type"], &joined["role"]),
            (&json!("joined"), &json!("viewer"))
        );
        assert_eq!(joined["identity"], joined["peerId"]);
        world.ask(guest, json!({"type": "leave"}));
    }
    assert_eq!(
        enter(&mut world, &invited).1["code"],
        "unauthorized",
        "used up"
    );
    // For its room alone.
    let invited = world.ask(host, json!({"type": "invite"}));
    let grant = grant_of(&world, &invited);
    let conn = world.open();
    let elsewhere = json!({"type": "join", "roomId": "other"});
    assert_eq!(
        world.ask_as(conn, elsewhere, grant.clone())["code"],
        "forbidden"
    );
    assert_eq!(
        world.ask_as(conn, json!({"type": "register"}), grant)["code"],
        "forbidden"
    );
    let (_, joined) = enter(&mut world, &invited);
    assert_eq!(joined["role"], "member");
    world.pass(Duration::from_secs(3600));
    assert_eq!(
        enter(&mut world, &invited).1["code"],
        "unauthorized",
        "expired"
    );
}

#[test]
fn an_invitation_is_void_when_its_host_is_removed_or_its_room_ends() {
    let mut world = World::new();
    let [(a, _), (b, b_id)] = world.party("r 1");
    world.ask(a, json!({"type": "grant", "peerId": b_id, "role": "host"}));
    let by_a = world.ask(a, json!({"type": "invite"}));
    let by_b = world.ask(b, json!({"type": "invite"}));
    world.ask(
        a,
        json!({"type": "grant", "peerId": b_id, "role": "member"}),
    );
    assert_eq!(
        enter(&mut world, &by_b).1["code"],
        "unauthorized",
        "demoted"
    );
    world.ask(a, json!({"type": "grant", "peerId": b_id, "role": "host"}));
    let by_b = world.ask(b, json!({"type": "invite"}));
    world.ask(a, json!({"type": "kick", "peerId": b_id}));
    assert_eq!(enter(&mut world, &by_b).1["code"], "unauthorized", "kicked");
    let (guest, joined) = enter(&mut world, &by_a);
    assert_eq!(joined["type"], "joined");
    assert!(
        world
            .hub
            .holds(&grant_of(&world, &by_a).unwrap(), Some("r 1"))
    );
    for conn in [a, guest] {
        world.ask(conn, json!({"type": "leave"}));
    }
    assert!(
        !world
            .hub
            .holds(&grant_of(&world, &by_a).unwrap(), Some("r 1"))
    );
    assert_eq!(
        enter(&mut world, &by_a).1["code"],
        "unauthorized",
        "the room has ended"
    );
    let (again, _) = world.join("r 1", "a");
    assert_eq!(
        enter(&mut world, &by_a).1["code"],
        "unauthorized",
        "another room of that name"
    );
    world.ask(again, json!({"type": "leave"}));
    world.empties();
}

#[test]
fn no_host_makes_more_than_it_is() {
    let mut world = World::new();
    let [(first, _)] = world.party("r 1");
    let by_token = Grant {
        role: Some(Role::Host),
        ..Grant::open()
    };
    let ruler = world.open();
    let joined = world.ask_as(
        ruler,
        json!({"type": "join", "roomId": "r 1"}),
        Ok(by_token),
    );
    let ruler_id = &joined["peerId"];
    let kick = json!({"type": "kick", "peerId": ruler_id});
    let invited = world.ask(first, json!({"type": "invite", "role": "host"}));
    let (guest, joined) = enter(&mut world, &invited);
    assert_eq!(joined["role"], "host");
    assert_eq!(world.ask(guest, kick.clone())["code"], "forbidden");
    let invited = world.ask(ruler, json!({"type": "invite", "role": "host"}));
    let (guest, _) = enter(&mut world, &invited);
    assert_eq!(world.ask(guest, kick)["type"], "ack");
}

#[test]
fn in_open_mode_an_invitation_is_the_rooms_link_and_bad_wishes_are_refused() {
    let mut world = World::new();
    world.hub.settings.invite_tokens = false;
    let [(host, _)] = world.party("r 1");
    let invited = world.ask(host, json!({"type": "invite"}));
    assert!(invited.get("token").is_none());
    assert_eq!(invited["url"], "http://localhost/#room=r+1");
    for wish in [
        json!({"type": "invite", "ttl": 86_401}),
        json!({"type": "invite", "ttl": 0}),
        json!({"type": "invite", "uses": 0}),
        json!({"type": "invite", "role": "king"}),
    ] {
        assert_eq!(world.ask(host, wish)["code"], "invalid-message");
    }
}

#[test]
fn reports_are_counted_and_nonsense_is_refused() {
    let mut world = World::new();
    let [(a, _), (b, b_id)] = world.party("r");
    let whole = json!({"type": "report", "to": b_id, "path": "relay", "transport": "tls",
        "connectMs": 812, "rttMs": 41.5, "loss": 0.5});
    assert_eq!(world.ask(a, whole.clone())["type"], "ack");
    assert_eq!(
        world.ask(
            a,
            json!({"type": "report", "callId": "c", "path": "failed"})
        )["type"],
        "ack"
    );
    for (field, value) in [
        ("path", json!("tunnel")),
        ("transport", json!("quic")),
        ("loss", json!(1.5)),
        ("loss", json!(-1)),
        ("connectMs", json!("soon")),
        ("rttMs", json!(1e9)),
        ("to", Value::Null),
    ] {
        let mut bad = whole.clone();
        bad[field] = value;
        assert_eq!(world.ask(a, bad)["code"], "invalid-message", "{field}");
    }
    let outside = world.open();
    assert_eq!(world.ask(outside, whole)["code"], "not-in-room");
    assert!(world.take(b).is_empty(), "nobody else gets it");
    assert_eq!(world.reports, 2);
    // The operator sees the last one of each member; a member that told nothing has none.
    let told = json!({"path": "failed", "ts": world.now.unix_ms});
    let look = |world: &World| {
        let seen = serde_json::to_string(&world.hub.room("r")).unwrap();
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["members"][0]["report"], told);
        assert_eq!(seen["members"][1].get("report"), None);
    };
    look(&world);
    // Members do not.
    let listed = world.ask(b, json!({"type": "list"}));
    assert!(listed["peers"][0]["peerId"].is_string(), "{listed}");
    assert_eq!(listed["peers"][0].get("report"), None, "{listed}");
    // A new process knows it too.
    let snapshot = serde_json::to_string(&world.hub.snapshot(world.now)).unwrap();
    let snapshot = serde_json::from_str(&snapshot).unwrap();
    let settings = world.hub.settings.clone();
    world.hub = Hub::restore(world.now, snapshot, settings, ice(true), [3; 32]).unwrap();
    look(&world);
}
