//! Topics and names.

use super::harness::{World, ice};
use super::*;
use crate::auth::{Grant, RoomPattern, RoomScope};
use crate::protocol::{
    Addressed, ClientMessage, Denied, ExchangeReply, ExchangeRequest, MessageType, Publication,
    Request, SubscriptionOptions, Takeover, Wish,
};

pub(super) const OPEN: ExchangeRequest = ExchangeRequest::Open {
    token: None,
    name: None,
};

pub(super) fn ask(world: &mut World, conn: u64, request: ExchangeRequest) {
    ask_as(world, conn, request, Ok(Grant::open()));
}

pub(super) fn ask_as(
    world: &mut World,
    conn: u64,
    request: ExchangeRequest,
    grant: Result<Grant, RequestError>,
) {
    let kind = match request {
        ExchangeRequest::Open { .. } => MessageType::Register,
        _ => MessageType::Message,
    };
    let request = Request::Exchange(request);
    let id = None;
    world.input(Input::Frame {
        conn: ConnId(conn),
        message: Ok(ClientMessage {
            id,
            kind,
            request,
            dialect: None,
        }),
        grant: Some(Box::new(grant)),
    });
}

pub(super) fn enter(world: &mut World, dialect: DialectKind) -> u64 {
    enter_from(world, "192.0.2.1", dialect)
}

fn enter_from(world: &mut World, client: &str, dialect: DialectKind) -> u64 {
    let conn = world.open_as(client, dialect);
    ask(world, conn, OPEN);
    assert_eq!(responses(world, conn), [ExchangeReply::Opened]);
    conn
}

#[test]
fn a_token_that_forbids_to_subscribe_holds_for_topics() {
    let mut world = World::new();
    let conn = world.open_as("192.0.2.1", DialectKind::YWebrtc);
    let grant = Grant {
        subscribe: false,
        ..Grant::open()
    };
    ask_as(&mut world, conn, OPEN, Ok(grant));
    events(&mut world, conn);
    assert_eq!(subscribe(&mut world, conn, "t"), Err(Denied::Forbidden));
}

pub(super) fn events(world: &mut World, conn: u64) -> Vec<Event> {
    world.exchanged.remove(&conn).unwrap_or_default()
}

pub(super) fn responses(world: &mut World, conn: u64) -> Vec<ExchangeReply> {
    let reply = |event| match event {
        Event::Exchange(reply) => Some(*reply),
        _ => None,
    };
    events(world, conn).into_iter().filter_map(reply).collect()
}

pub(super) fn subscribe(world: &mut World, conn: u64, topic: &str) -> Result<u8, Denied> {
    let topics = vec![Wish {
        topic: topic.into(),
        options: SubscriptionOptions::default(),
        room: None,
        is_refused: false,
    }];
    ask(world, conn, ExchangeRequest::Subscribe { id: 1, topics });
    match &responses(world, conn)[..] {
        [ExchangeReply::Subscribed { id: 1, codes }] => codes[0],
        other => panic!("{other:?}"),
    }
}

pub(super) fn publication(topic: &str, payload: &str) -> Arc<Publication> {
    Arc::new(Publication {
        topic: topic.into(),
        properties: [].into(),
        payload: payload.as_bytes().into(),
        qos: 0,
        room: None,
    })
}

pub(super) fn publish(
    world: &mut World,
    conn: u64,
    topic: &str,
    payload: &str,
) -> Result<u32, Denied> {
    let publication = publication(topic, payload);
    ask(world, conn, ExchangeRequest::Publish { id: 2, publication });
    let answer = world.exchanged.get_mut(&conn).and_then(Vec::pop);
    match answer {
        Some(Event::Exchange(reply)) => match *reply {
            ExchangeReply::Published { id: 2, clients } => clients,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// What a connection got from topics.
pub(super) fn received(world: &mut World, conn: u64) -> Vec<(String, u32)> {
    let text = |event| match event {
        Event::Published {
            publication,
            clients,
            ..
        } => {
            let text = String::from_utf8(publication.payload.to_vec()).unwrap();
            Some((text, clients))
        }
        _ => None,
    };
    events(world, conn).into_iter().filter_map(text).collect()
}

pub(super) fn claim(world: &mut World, conn: u64, name: &str, proof: u128) {
    let name = name.to_owned();
    let takeover = Takeover::Shared;
    ask(
        world,
        conn,
        ExchangeRequest::Claim {
            name,
            proof,
            takeover,
        },
    );
}

pub(super) fn send(world: &mut World, conn: u64, to: &str, payload: &str) {
    let message = Arc::new(Addressed {
        kind: "OFFER".into(),
        payload: Some(payload.into()),
    });
    let (to, parks) = (to.into(), true);
    ask(world, conn, ExchangeRequest::Send { to, message, parks });
}

/// What a connection got at its name: from whom, and what.
pub(super) fn got(world: &mut World, conn: u64) -> Vec<(String, String)> {
    let text = |event| match event {
        Event::Addressed { from, message } => Some((
            from.to_string(),
            message.payload.as_ref().unwrap().to_string(),
        )),
        _ => None,
    };
    events(world, conn).into_iter().filter_map(text).collect()
}

pub(super) fn claimed(name: &str) -> ExchangeReply {
    ExchangeReply::Claimed { name: name.into() }
}

#[test]
fn a_step_of_the_wall_clock_renews_the_credentials_of_members() {
    let mut world = World::new();
    let conn = enter(&mut world, DialectKind::Mqtt);
    ask(&mut world, conn, ExchangeRequest::Ice);
    events(&mut world, conn);
    world.pass(Duration::from_secs(15));
    assert!(events(&mut world, conn).is_empty());
    world.now.unix_ms += 3_600_000;
    world.pass(Duration::from_secs(15));
    let renewed = responses(&mut world, conn);
    assert!(
        matches!(renewed[..], [ExchangeReply::Ice(_)]),
        "{renewed:?}"
    );
    world.empties();
}

#[test]
fn a_publication_reaches_the_subscribers_of_its_topic_and_dialect() {
    let mut world = World::new();
    let a = enter(&mut world, DialectKind::YWebrtc);
    let b = enter(&mut world, DialectKind::YWebrtc);
    let stranger = enter(&mut world, DialectKind::Trystero);
    for conn in [a, b, stranger] {
        assert_eq!(subscribe(&mut world, conn, "doc"), Ok(0));
    }
    assert_eq!(publish(&mut world, a, "doc", "hello"), Ok(2));
    assert_eq!(received(&mut world, a), [("hello".to_owned(), 2)]);
    assert_eq!(received(&mut world, b), [("hello".to_owned(), 2)]);
    assert_eq!(received(&mut world, stranger), []);
    assert_eq!(publish(&mut world, a, "other", "hello"), Ok(0));
    let topics = vec!["doc".into(), "never".into()];
    ask(
        &mut world,
        b,
        ExchangeRequest::Unsubscribe { id: 3, topics },
    );
    let found = vec![true, false];
    assert_eq!(
        responses(&mut world, b),
        [ExchangeReply::Unsubscribed { id: 3, found }]
    );
    world.cut(a);
    assert_eq!(publish(&mut world, b, "doc", "anybody?"), Ok(0));
    assert_eq!(world.hub.gauges().subscriptions, 1, "the stranger's");
}

#[test]
fn nothing_is_done_before_rights_are_presented() {
    let mut world = World::new();
    let a = world.open_as("192.0.2.1", DialectKind::YWebrtc);
    let topics = vec!["doc".into()];
    ask(
        &mut world,
        a,
        ExchangeRequest::Unsubscribe { id: 1, topics },
    );
    assert_eq!(world.closed.get(&a), Some(&4001));
    let b = world.open_as("192.0.2.1", DialectKind::YWebrtc);
    let refusal = RequestError::new(ErrorCode::Unauthorized, "a token is needed");
    ask_as(&mut world, b, OPEN, Err(refusal));
    assert_eq!(world.closed.get(&b), Some(&4001));
    let silent = world.open_as("192.0.2.1", DialectKind::Mqtt);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.closed.get(&silent), Some(&4001));
}

#[test]
fn a_token_opens_its_own_topics_only() {
    let mut world = World::new();
    let a = world.open_as("192.0.2.1", DialectKind::YWebrtc);
    let grant = Grant {
        rooms: RoomScope::Matching(vec![RoomPattern::Glob("team-*".into())]),
        ..Grant::open()
    };
    ask_as(&mut world, a, OPEN, Ok(grant));
    events(&mut world, a);
    assert_eq!(subscribe(&mut world, a, "other"), Err(Denied::Forbidden));
    assert_eq!(subscribe(&mut world, a, "team-1"), Ok(0));
    assert_eq!(publish(&mut world, a, "other", "x"), Err(Denied::Forbidden));
    assert_eq!(publish(&mut world, a, "team-1", "x"), Ok(1));
}

#[test]
fn deliveries_are_what_is_limited() {
    let settings = Settings {
        rate: 10,
        ..Settings::default()
    };
    let mut world = World::with(settings, ice(true));
    let publisher = enter(&mut world, DialectKind::YWebrtc);
    for _ in 0..100 {
        let conn = enter(&mut world, DialectKind::YWebrtc);
        subscribe(&mut world, conn, "loud").unwrap();
    }
    // Ten messages a second make 200 deliveries a second and a burst of 2,000.
    let passed = (0..30).filter(|_| publish(&mut world, publisher, "loud", "x").is_ok());
    assert_eq!(passed.count(), 20);
    assert_eq!(publish(&mut world, publisher, "quiet", "x"), Ok(0));
}

#[test]
fn names_are_reached_and_wait_for_their_bearers() {
    let mut world = World::new();
    let ann = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, ann, "ann", 1);
    assert_eq!(responses(&mut world, ann), [claimed("ann")]);
    send(&mut world, ann, "bob", "one");
    send(&mut world, ann, "bob", "two");
    send(&mut world, ann, "nobody", "three");
    let bob = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, bob, "bob", 2);
    let sent = |text: &str| ("ann".to_owned(), text.to_owned());
    assert_eq!(got(&mut world, bob), [sent("one"), sent("two")]);
    send(&mut world, ann, "bob", "four");
    assert_eq!(got(&mut world, bob), [sent("four")]);
    send(&mut world, ann, "ann", "to myself");
    assert_eq!(got(&mut world, ann), [sent("to myself")]);
    send(&mut world, ann, "nobody", "again");
    world.pass(Duration::from_secs(6));
    let absent = ExchangeReply::Absent {
        name: "nobody".into(),
        own: "ann".into(),
    };
    assert_eq!(responses(&mut world, ann), [absent], "once for both");
    assert_eq!(world.hub.gauges().parked_bytes, 0);
    // A name is free as soon as its bearer is gone; a dialect's names are its own.
    world.cut(bob);
    let other = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, other, "bob", 3);
    assert_eq!(responses(&mut world, other), [claimed("bob")]);
    ask(&mut world, other, ExchangeRequest::Release);
    assert_eq!(world.hub.gauges().claimed_names, 1);
    send(&mut world, other, "ann", "without a name");
    assert_eq!(got(&mut world, ann), []);
}

#[test]
fn the_same_proof_takes_a_name_over_and_the_old_connection_goes_on() {
    let mut world = World::new();
    let old = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, old, "ann", 1);
    let new = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, new, "ann", 1);
    assert_eq!(responses(&mut world, new), [claimed("ann")]);
    let bob = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, bob, "bob", 2);
    events(&mut world, bob);
    send(&mut world, old, "bob", "still here");
    assert_eq!(got(&mut world, bob).len(), 1);
    world.cut(old);
    send(&mut world, bob, "ann", "x");
    assert_eq!(
        got(&mut world, new).len(),
        1,
        "the old one's end changes nothing"
    );
}

#[test]
fn a_name_is_taken_from_a_holder_that_gives_no_sign_of_life() {
    let mut world = World::new();
    let old = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, old, "ann", 1);
    events(&mut world, old);
    // The holder answers: the newcomer is refused.
    let new = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, new, "ann", 2);
    assert_eq!(events(&mut world, old), [Event::Probe]);
    assert_eq!(events(&mut world, new), []);
    let third = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, third, "ann", 3);
    assert_eq!(responses(&mut world, third), [ExchangeReply::Taken]);
    world.input(Input::Alive { conn: ConnId(old) });
    assert_eq!(responses(&mut world, new), [ExchangeReply::Taken]);
    // It does not: the newcomer has the name.
    claim(&mut world, new, "ann", 2);
    world.pass(Duration::from_secs(6));
    assert_eq!(responses(&mut world, new), [claimed("ann")]);
    assert_eq!(world.closed.get(&old), Some(&4005));
    // It goes by itself, and a newcomer that waits and goes leaves nothing.
    claim(&mut world, third, "ann", 3);
    world.cut(new);
    assert_eq!(responses(&mut world, third), [claimed("ann")]);
    let last = enter(&mut world, DialectKind::PeerJs);
    claim(&mut world, last, "ann", 4);
    world.cut(last);
    world.pass(Duration::from_secs(6));
    assert!(!world.closed.contains_key(&third));
    world.cut(third);
    let gauges = world.hub.gauges();
    assert_eq!((gauges.claimed_names, gauges.timers), (0, 0));
}

#[test]
fn a_tokens_identity_is_the_name_and_its_proof() {
    let mut world = World::new();
    let with = |identity: Option<&str>, call| Grant {
        identity: identity.map(str::to_owned),
        chooses_identity: false,
        call,
        ..Grant::open()
    };
    let enter = |world: &mut World, grant| {
        let conn = world.open_as("192.0.2.1", DialectKind::PeerJs);
        ask_as(world, conn, OPEN, Ok(grant));
        events(world, conn);
        conn
    };
    let ann = enter(&mut world, with(Some("ann"), true));
    claim(&mut world, ann, "bob", 1);
    assert_eq!(events(&mut world, ann), []);
    assert_eq!(world.hub.gauges().claimed_names, 0);
    claim(&mut world, ann, "ann", 1);
    let again = enter(&mut world, with(Some("ann"), true));
    claim(&mut world, again, "ann", 2);
    assert_eq!(
        responses(&mut world, again),
        [claimed("ann")],
        "a renewed token"
    );
    for grant in [with(None, true), with(Some("eve"), false)] {
        let conn = enter(&mut world, grant);
        claim(&mut world, conn, "eve", 1);
        assert_eq!(events(&mut world, conn), []);
    }
    assert_eq!(world.hub.gauges().claimed_names, 1);
}

#[test]
fn private_names_are_taken_over_within_a_network_and_wills_are_published() {
    let mut world = World::new();
    let enter = |world: &mut World, client: &str| {
        let conn = enter_from(world, client, DialectKind::Mqtt);
        let (name, takeover) = ("sensor".to_owned(), Takeover::Private);
        ask(
            world,
            conn,
            ExchangeRequest::Claim {
                name,
                proof: 0,
                takeover,
            },
        );
        assert_eq!(responses(world, conn), [claimed("sensor")]);
        conn
    };
    let old = enter(&mut world, "192.0.2.1");
    let elsewhere = enter(&mut world, "192.0.2.2");
    subscribe(&mut world, elsewhere, "left").unwrap();
    let will = Some(publication("left", "sensor is gone"));
    ask(&mut world, old, ExchangeRequest::Will(will));
    enter(&mut world, "192.0.2.1");
    assert_eq!(world.closed.get(&old), Some(&4004));
    assert!(!world.closed.contains_key(&elsewhere));
    assert_eq!(
        received(&mut world, elsewhere),
        [("sensor is gone".to_owned(), 1)]
    );
}

#[test]
fn credentials_of_a_connection_are_renewed_and_end_with_it() {
    let mut world = World::new();
    let conn = enter(&mut world, DialectKind::Mqtt);
    let peer = world.peers[&conn];
    ask(&mut world, conn, ExchangeRequest::Ice);
    world.pass(Duration::from_secs(2_800));
    let minted = responses(&mut world, conn);
    assert_eq!(
        minted.len(),
        2,
        "once more after three quarters of the hour"
    );
    let ExchangeReply::Ice(servers) = &minted[1] else {
        panic!()
    };
    world.cut(conn);
    assert_eq!(world.revoked, [(peer.to_string(), servers.expires_at)]);
    assert_eq!(world.hub.gauges().timers, 0);
}

#[test]
fn a_connection_ends_with_its_token_where_that_is_asked_for() {
    let mut world = World::new();
    let conn = world.open_as("192.0.2.1", DialectKind::PeerJs);
    let grant = Grant {
        ends: Some(world.now.unix_ms / 1000 + 60),
        ..Grant::open()
    };
    ask_as(&mut world, conn, OPEN, Ok(grant));
    world.pass(Duration::from_secs(59));
    assert!(world.is_open(conn));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.closed.get(&conn), Some(&4001));
    assert_eq!(world.hub.gauges().timers, 0);

    // By the wall clock: it was wrong when the connection began.
    let conn = world.open_as("192.0.2.1", DialectKind::PeerJs);
    let grant = Grant {
        ends: Some(world.now.unix_ms / 1000 + 3 * 24 * 3600),
        ..Grant::open()
    };
    ask_as(&mut world, conn, OPEN, Ok(grant));
    ask_as(&mut world, conn, ExchangeRequest::Ice, Ok(Grant::open()));
    world.pass(Duration::from_secs(60));
    assert!(world.is_open(conn));
    world.now.unix_ms += 4 * 24 * 3600 * 1000;
    world.pass(Duration::from_secs(11));
    assert_eq!(world.closed.get(&conn), Some(&4001));
    assert_eq!(world.hub.gauges().timers, 0);
}
