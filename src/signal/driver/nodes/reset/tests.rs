//! Two nodes over a link that a test resets: what the client of one sees whose room is at the other.

use super::*;
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::protocol::{DialectKind, FrameType, parse};
use crate::signal::dialect::Closing;
use crate::signal::driver::{Admission, ConnectionLimits, Driver};
use crate::signal::hub::{Locate, Settings};
use crate::signal::nodes::{Found, Nodes, Sought};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const EDGE: NodeId = NodeId(1);
const HOME: NodeId = NodeId(2);

/// What a node says and seeks, until the test carries it on.
#[derive(Default)]
struct Carrier {
    said: Mutex<VecDeque<Word>>,
    sought: Mutex<VecDeque<ConnId>>,
}

impl Nodes for Carrier {
    fn is_open(&self) -> bool {
        true
    }

    fn seek(&self, conn: ConnId, _: &Sought) {
        self.sought.lock().unwrap().push_back(conn);
    }

    fn say(&self, _: NodeId, word: Word) {
        self.said.lock().unwrap().push_back(word);
    }

    fn say_all(&self, word: &Word) {
        self.said.lock().unwrap().push_back(word.clone());
    }

    fn is_light(&self, _: NodeId) -> bool {
        true
    }

    fn changed(&self) {}
}

struct Box {
    driver: Arc<Driver>,
    carrier: Arc<Carrier>,
    name: NodeId,
}

impl Box {
    fn new(name: NodeId) -> Self {
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
            ttl: Duration::from_secs(60),
        };
        let limits = ConnectionLimits {
            per_ip: 1_000,
            total: 1_000,
            outbox: 1 << 20,
        };
        let revoke = std::boxed::Box::new(|_: &str, _, _| {});
        let driver = Arc::new(Driver::new(Settings::default(), ice, limits, revoke));
        let carrier = Arc::new(Carrier::default());
        driver.join_cluster(Arc::clone(&carrier) as Arc<dyn Nodes>);
        driver.locate(Locate::new(|_| [0; 16]));
        Self {
            driver,
            carrier,
            name,
        }
    }

    /// Takes what was said to this node, and what it has sought.
    fn takes(&self, from: &Self, found: Found) -> bool {
        let mut busy = false;
        while let Some(conn) = self.carrier.sought.lock().unwrap().pop_front() {
            busy = true;
            self.driver.found(conn, found);
        }
        loop {
            let Some(word) = from.carrier.said.lock().unwrap().pop_front() else {
                return busy;
            };
            busy = true;
            self.driver.received(from.name, word);
        }
    }
}

struct Client {
    admission: Admission,
    frames: Vec<(Option<u64>, FrameType, String)>,
    closed: Option<Closing>,
}

impl Client {
    fn of(at: &Box) -> Self {
        let client = [192, 0, 2, 1].into();
        let dialect = DialectKind::Native;
        let admission = at.driver.admit(client, dialect).unwrap();
        let conn = admission.conn;
        at.driver.input(Input::Connected {
            conn,
            client,
            dialect,
            lobby: None,
        });
        Self {
            admission,
            frames: vec![],
            closed: None,
        }
    }

    fn says(&self, text: &str) {
        self.admission.driver().input(Input::Frame {
            conn: self.admission.conn,
            message: parse(text),
            grant: None,
        });
    }

    fn reads(&mut self) {
        let frames = &mut self.frames;
        let closing = self.admission.outbox.take_all(|frame| {
            if let Event::Native(body) = &frame.event {
                frames.push((frame.seq, body.kind(), body.shared().to_string()));
            }
        });
        self.closed = closing;
    }

    /// The numbers of the session so far.
    fn numbers(&self) -> Vec<u64> {
        self.frames.iter().filter_map(|(seq, ..)| *seq).collect()
    }

    fn has(&self, kind: FrameType) -> bool {
        self.frames.iter().any(|(_, of, _)| *of == kind)
    }
}

struct World {
    edge: Box,
    home: Box,
    ann: Client,
    bob: Client,
}

impl World {
    /// Ann is at the home, and Bob, whose socket is at the edge, is in her room.
    fn new() -> Self {
        let (edge, home) = (Box::new(EDGE), Box::new(HOME));
        let (ann, bob) = (Client::of(&home), Client::of(&edge));
        let mut world = Self {
            edge,
            home,
            ann,
            bob,
        };
        for client in [&world.ann, &world.bob] {
            client.says(r#"{"type":"join","roomId":"r","id":"j"}"#);
            world.carry();
        }
        world.look();
        assert!(world.bob.has(FrameType::Joined), "{:?}", world.bob.frames);
        world
    }

    fn carry(&self) {
        while self.home.takes(&self.edge, Found::Here)
            | self.edge.takes(&self.home, Found::There(HOME))
        {}
    }

    fn look(&mut self) {
        self.carry();
        self.ann.reads();
        self.bob.reads();
    }

    fn ann_says(&self, what: &str) {
        let text = format!(r#"{{"type":"message","content":"{what}"}}"#);
        self.ann.says(&text);
    }

    /// The link loses what is on the way and is reset.
    fn reset(&mut self) {
        for of in [&self.edge, &self.home] {
            of.carrier.said.lock().unwrap().clear();
        }
        self.home.driver.link_reset(EDGE, 2);
        self.edge.driver.link_reset(HOME, 2);
        self.look();
    }
}

#[test]
fn a_reset_with_nothing_on_the_way_is_silent() {
    let mut world = World::new();
    world.ann_says("before");
    world.look();
    let before = (world.ann.frames.len(), world.bob.frames.len());
    world.reset();
    assert_eq!((world.ann.frames.len(), world.bob.frames.len()), before);
    world.ann_says("after");
    world
        .bob
        .says(r#"{"type":"message","content":"too","id":"t"}"#);
    world.look();
    assert!(world.bob.closed.is_none() && world.ann.closed.is_none());
    assert!(world.bob.has(FrameType::Ack) && world.ann.has(FrameType::Message));
    assert!(!world.ann.has(FrameType::PeerState), "nobody was away");
    let numbers = world.bob.numbers();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn frames_of_the_session_that_were_on_the_way_come_again() {
    let mut world = World::new();
    for what in ["one", "two", "three"] {
        world.ann_says(what);
    }
    world.reset();
    world.look();
    assert!(world.bob.closed.is_none());
    let numbers = world.bob.numbers();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(world.bob.frames.last().unwrap().2.contains("three"));
}

#[test]
fn what_a_client_had_on_the_way_has_it_resume() {
    let mut world = World::new();
    world.bob.says(r#"{"type":"message","content":"lost"}"#);
    world.reset();
    let code = world.bob.closed.as_ref().map(|closing| closing.code);
    assert_eq!(code, Some(CloseCode::Restart));
    assert!(world.ann.has(FrameType::PeerState), "Bob is away");
    assert!(!world.ann.has(FrameType::PeerLeft));
}

#[test]
fn an_answer_that_was_on_the_way_comes_again() {
    let mut world = World::new();
    world
        .bob
        .says(r#"{"type":"message","content":"heard","id":"h"}"#);
    world.home.takes(&world.edge, Found::Here);
    world.reset();
    world.look();
    assert!(world.bob.closed.is_none() && world.bob.has(FrameType::Ack));
    assert!(world.ann.has(FrameType::Message));
}

#[test]
fn who_was_kicked_while_away_stays_out_at_every_node() {
    let mut world = World::new();
    let joined = world.bob.frames.iter();
    let joined = joined.filter(|(_, kind, _)| *kind == FrameType::Joined);
    let joined: Vec<serde_json::Value> = joined
        .map(|(.., text)| serde_json::from_str(text).unwrap())
        .collect();
    let (peer, token) = (&joined[0]["peerId"], &joined[0]["resumeToken"]);
    let conn = world.bob.admission.conn;
    let loss = Loss::Disconnected;
    world.edge.driver.input(Input::Closed { conn, loss });
    world.carry();
    let kick = format!(r#"{{"type":"kick","peerId":{peer},"id":"k"}}"#);
    world.ann.says(&kick);
    world.look();
    assert!(world.ann.has(FrameType::Ack), "{:?}", world.ann.frames);
    let resume = format!(r#"{{"type":"resume","resumeToken":{token},"seq":1}}"#);
    let code = |client: &Client| client.closed.as_ref().map(|closing| closing.code);
    // A node that was not there asks the one that has the room.
    let late = Box::new(NodeId(3));
    let mut comes = Client::of(&late);
    comes.says(&resume);
    while world.home.takes(&late, Found::Here) | late.takes(&world.home, Found::There(HOME)) {}
    comes.reads();
    assert_eq!(code(&comes), Some(CloseCode::Kicked));
    // One that was there knows it, and needs nobody: the room may be gone.
    world.ann.says(r#"{"type":"leave"}"#);
    world.look();
    let mut comes = Client::of(&world.edge);
    comes.says(&resume);
    assert!(world.edge.carrier.sought.lock().unwrap().is_empty());
    comes.reads();
    assert_eq!(code(&comes), Some(CloseCode::Kicked));
}

#[test]
fn a_connection_that_ended_during_a_reset_is_not_left_behind() {
    let mut world = World::new();
    let conn = world.bob.admission.conn;
    let loss = Loss::Disconnected;
    world.edge.driver.input(Input::Closed { conn, loss });
    world.reset();
    assert_eq!(world.home.driver.remote().home, 0);
    assert!(world.ann.has(FrameType::PeerState), "Bob is away");
}

#[test]
fn many_are_closed_over_two_seconds() {
    let mut doomed = Doomed::default();
    let doom = |n| Doom {
        conn: ConnId(n),
        node: HOME,
        code: CloseCode::Restart,
        reason: RESET,
    };
    let at_once = (0..20_000).filter(|n| doomed.goes(doom(*n))).count();
    assert_eq!(at_once, AT_ONCE);
    let shares: Vec<_> = (0..TICKS + 2).map(|_| doomed.tick().len()).collect();
    assert_eq!(at_once + shares.iter().sum::<usize>(), 20_000);
    assert!(shares[..TICKS].iter().all(|share| *share <= 2_500));
    assert_eq!(shares[TICKS..], [0, 0]);
    assert!(doomed.goes(doom(0)), "the next few go at once");
}

#[test]
fn a_node_that_is_lost_takes_its_connections_along() {
    let mut world = World::new();
    world.edge.driver.lost_node(HOME);
    world.home.driver.lost_node(EDGE);
    world.look();
    assert_eq!(world.home.driver.remote().home, 0);
    assert!(world.bob.closed.is_some() && world.ann.has(FrameType::PeerState));
}
