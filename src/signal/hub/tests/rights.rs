//! What the rights of a connection of topics and names reach: rules, rooms, the backend, invitations.

use super::exchange::{
    OPEN, ask, ask_as, claim, enter, events, got, publication, publish, received, responses,
    subscribe,
};
use super::harness::{World, ice};
use super::*;
use crate::auth::{Role, RoomPattern, RoomScope};
use crate::protocol::{
    Addressed, ClientMessage, Denied, ExchangeReply, ExchangeRequest, MessageType, Publication,
    Request, SubscriptionOptions, Wish,
};
use serde_json::json;

fn enter_by(world: &mut World, dialect: DialectKind, grant: Grant) -> u64 {
    let conn = world.open_as("192.0.2.1", dialect);
    ask_as(world, conn, OPEN, Ok(grant));
    assert_eq!(responses(world, conn), [ExchangeReply::Opened]);
    conn
}

fn named(world: &mut World, name: &str, team: Option<&str>) -> u64 {
    let grant = Grant {
        team: team.map(str::to_owned),
        ..Grant::open()
    };
    let conn = enter_by(world, DialectKind::PeerJs, grant);
    claim(world, conn, name, 1);
    events(world, conn);
    conn
}

/// Sends to a name; whether the sender is told that nobody has it.
fn signal(world: &mut World, conn: u64, kind: MessageType, to: &str) -> bool {
    let message = Arc::new(Addressed {
        kind: "X".into(),
        payload: Some("{}".into()),
    });
    let (to, parks) = (to.into(), true);
    let request = Request::Exchange(ExchangeRequest::Send { to, message, parks });
    world.input(Input::Frame {
        conn: ConnId(conn),
        message: Ok(ClientMessage {
            id: None,
            kind,
            request,
            dialect: None,
        }),
        grant: None,
    });
    let absent = |reply| matches!(reply, ExchangeReply::Absent { .. });
    responses(world, conn).into_iter().any(absent)
}

fn with(policy: Policy) -> World {
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    World::with(settings, ice(true))
}

fn calls(calls: Vec<CallRule>) -> World {
    with(Policy {
        calls,
        messages: vec![],
    })
}

#[test]
fn rules_of_calls_hold_between_names() {
    let mut world = calls(vec![CallRule {
        from: Some("agent-*".into()),
        ..CallRule::default()
    }]);
    let agent = named(&mut world, "agent-7", None);
    let [one, two] = ["user-1", "user-2"].map(|name| named(&mut world, name, None));
    for kind in [MessageType::Offer, MessageType::Candidate] {
        assert!(signal(&mut world, one, kind, "user-2"), "as if absent");
        assert!(!signal(&mut world, agent, kind, "user-2"));
    }
    assert!(signal(&mut world, one, MessageType::Offer, "agent-7"));
    // An answer goes the other way.
    assert!(!signal(&mut world, one, MessageType::Answer, "agent-7"));
    assert_eq!(got(&mut world, two).len(), 2);
    assert_eq!(got(&mut world, agent).len(), 1);
    assert_eq!(world.hub.counters().refused_calls, 3);
}

#[test]
fn a_team_calls_its_own_names_and_nobody_whose_team_is_unknown() {
    let mut world = calls(vec![CallRule {
        same_team: true,
        ..CallRule::default()
    }]);
    let ann = named(&mut world, "ann", Some("red"));
    let bob = named(&mut world, "bob", Some("red"));
    let eve = named(&mut world, "eve", Some("blue"));
    assert!(!signal(&mut world, ann, MessageType::Offer, "bob"));
    assert!(signal(&mut world, ann, MessageType::Offer, "eve"));
    assert!(signal(&mut world, ann, MessageType::Offer, "later"));
    let later = named(&mut world, "later", Some("blue"));
    assert_eq!(got(&mut world, bob).len(), 1);
    for conn in [eve, later] {
        assert_eq!(got(&mut world, conn), []);
    }
}

fn viewers_say_nothing() -> Policy {
    Policy {
        calls: vec![],
        messages: vec![MessageRule {
            role: Some(Role::Viewer),
            deny: vec![MessageType::Message, MessageType::Offer],
            ..MessageRule::default()
        }],
    }
}

#[test]
fn rules_of_messages_hold_for_topics_and_names_and_after_a_hand_over() {
    let mut world = with(viewers_say_nothing());
    let viewer = || Grant {
        role: Some(Role::Viewer),
        ..Grant::open()
    };
    let muted = enter_by(&mut world, DialectKind::YWebrtc, viewer());
    let member = enter(&mut world, DialectKind::YWebrtc);
    subscribe(&mut world, member, "t").unwrap();
    assert_eq!(publish(&mut world, muted, "t", "x"), Err(Denied::Forbidden));
    assert_eq!(received(&mut world, member), []);
    assert_eq!(publish(&mut world, member, "t", "x"), Ok(1));
    received(&mut world, member);
    named(&mut world, "callee", None);
    let caller = enter_by(&mut world, DialectKind::PeerJs, viewer());
    claim(&mut world, caller, "caller", 1);
    events(&mut world, caller);
    assert!(signal(&mut world, caller, MessageType::Offer, "callee"));
    assert_eq!(world.hub.counters().refused_messages, 2);

    let snapshot = serde_json::to_string(&world.hub.snapshot(world.now)).unwrap();
    let snapshot = serde_json::from_str(&snapshot).unwrap();
    let settings = Settings {
        policy: viewers_say_nothing(),
        ..Settings::default()
    };
    world.hub = Hub::restore(world.now, snapshot, settings, ice(true), [7; 32]).unwrap();
    assert_eq!(publish(&mut world, muted, "t", "x"), Err(Denied::Forbidden));
}

fn of_room(topic: &str, room: &str) -> Arc<Publication> {
    Arc::new(Publication {
        room: Some(room.into()),
        ..Arc::into_inner(publication(topic, "said")).unwrap()
    })
}

fn subscribe_room(world: &mut World, conn: u64, topic: &str, room: &str) -> Result<u8, Denied> {
    let topics = vec![Wish {
        topic: topic.into(),
        options: SubscriptionOptions::default(),
        room: Some(room.into()),
        is_refused: false,
    }];
    ask(world, conn, ExchangeRequest::Subscribe { id: 1, topics });
    match &responses(world, conn)[..] {
        [ExchangeReply::Subscribed { codes, .. }] => codes[0],
        other => panic!("{other:?}"),
    }
}

fn publish_room(world: &mut World, conn: u64, topic: &str, room: &str) -> Result<u32, Denied> {
    let publication = of_room(topic, room);
    ask(world, conn, ExchangeRequest::Publish { id: 2, publication });
    match &responses(world, conn)[..] {
        [ExchangeReply::Published { clients, .. }] => *clients,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_topic_of_a_room_is_for_its_members_and_the_rooms_name_counts() {
    let mut world = World::new();
    let grant = || Grant {
        rooms: RoomScope::Matching(vec![RoomPattern::Exact("r".into())]),
        ..Grant::open()
    };
    let conn = enter_by(&mut world, DialectKind::Mqtt, grant());
    let topic = "room/r/signaling";
    let refused = Err(Denied::Forbidden);
    assert_eq!(subscribe_room(&mut world, conn, topic, "r"), refused);
    assert_eq!(
        publish_room(&mut world, conn, topic, "r").err(),
        refused.err()
    );
    world.send_as(conn, json!({"type": "join", "roomId": "r"}), Ok(grant()));
    assert_eq!(
        publish_room(&mut world, conn, topic, "r"),
        Ok(0),
        "a member publishes, and need not have subscribed"
    );
    assert_eq!(subscribe_room(&mut world, conn, topic, "r"), Ok(0));
    assert_eq!(publish_room(&mut world, conn, topic, "r"), Ok(1));
    assert_eq!(
        subscribe_room(&mut world, conn, "room/s/signaling", "s"),
        refused
    );
    assert_eq!(subscribe(&mut world, conn, "beside"), refused);
    // A will goes where its client was subscribed.
    world.clear();
    let other = enter(&mut world, DialectKind::Mqtt);
    world.send(other, json!({"type": "join", "roomId": "r"}));
    let will = of_room(topic, "r");
    ask(
        &mut world,
        other,
        ExchangeRequest::Will(Some(Arc::clone(&will))),
    );
    world.cut(other);
    events(&mut world, conn);
    let other = enter(&mut world, DialectKind::Mqtt);
    world.send(other, json!({"type": "join", "roomId": "r"}));
    assert_eq!(subscribe_room(&mut world, other, topic, "r"), Ok(0));
    ask(&mut world, other, ExchangeRequest::Will(Some(will)));
    assert_eq!(received(&mut world, conn), []);
    world.cut(other);
    assert_eq!(received(&mut world, conn).len(), 1);
}

#[test]
fn where_the_room_is_at_another_node_the_dialect_has_seen_to_it() {
    let mut world = World::new();
    let conn = enter(&mut world, DialectKind::Mqtt);
    let mut effects = vec![];
    world
        .hub
        .went_elsewhere(world.now, ConnId(conn), &mut effects);
    assert_eq!(subscribe_room(&mut world, conn, "room/r/x", "r"), Ok(0));
}

#[test]
fn what_the_backend_refuses_is_refused_and_a_refused_connection_ends() {
    let mut world = World::new();
    let conn = enter(&mut world, DialectKind::YWebrtc);
    let wish = |topic: &str, is_refused| Wish {
        topic: topic.into(),
        options: SubscriptionOptions::default(),
        room: None,
        is_refused,
    };
    let topics = vec![wish("a", false), wish("b", true)];
    ask(
        &mut world,
        conn,
        ExchangeRequest::Subscribe { id: 1, topics },
    );
    let codes = vec![Ok(0), Err(Denied::Forbidden)];
    assert_eq!(
        responses(&mut world, conn),
        [ExchangeReply::Subscribed { id: 1, codes }]
    );
    let refused = world.open_as("192.0.2.1", DialectKind::PeerJs);
    let error = RequestError::new(ErrorCode::Forbidden, "not on your plan");
    ask_as(&mut world, refused, OPEN, Err(error));
    assert_eq!(
        world.take(refused).last().unwrap()["message"],
        "not on your plan"
    );
    assert_eq!(world.closed.get(&refused), Some(&4001));
}

#[test]
fn a_client_that_the_operator_removes_loses_what_its_token_opened() {
    let mut world = World::new();
    let grant = Grant {
        identity: Some("user-1".into()),
        ..Grant::open()
    };
    let conn = enter_by(&mut world, DialectKind::PeerJs, grant);
    let peer = world.hub.clients(9).0[0].peer_id.to_string();
    let mut effects = vec![];
    world
        .hub
        .remove_client(world.now, &peer, &mut effects)
        .unwrap();
    world.deliver(effects);
    assert_eq!(world.closed.get(&conn), Some(&4002));
    assert_eq!(world.revoked, [("user-1".to_owned(), 0)]);
}

#[test]
fn an_invitation_opens_its_room_alone_and_only_while_it_holds() {
    let mut world = World::new();
    let (host, _) = world.join("r", "host");
    world.ask(host, json!({"type": "invite", "uses": 1}));
    let id = world.hub.rooms["r"].invites.keys().next().unwrap().clone();
    let grant = || Grant {
        rooms: RoomScope::Matching(vec![RoomPattern::Exact("r".into())]),
        invite: Some(id.clone()),
        call: false,
        ..Grant::open()
    };
    let conn = enter_by(&mut world, DialectKind::Mqtt, grant());
    assert_eq!(subscribe(&mut world, conn, "r"), Err(Denied::Forbidden));
    assert_eq!(publish(&mut world, conn, "r", "x"), Err(Denied::Forbidden));
    world.send_as(conn, json!({"type": "join", "roomId": "r"}), Ok(grant()));
    assert_eq!(subscribe_room(&mut world, conn, "room/r/x", "r"), Ok(0));
    // That was its only use.
    let late = world.open_as("192.0.2.1", DialectKind::YWebrtc);
    ask_as(&mut world, late, OPEN, Ok(grant()));
    assert_eq!(world.closed.get(&late), Some(&4001));
    // What came by it ends with the room.
    let mut effects = vec![];
    world.hub.close_room(world.now, "r", &mut effects).unwrap();
    world.deliver(effects);
    assert!(!world.is_open(conn));
}
