//! Three nodes over a model of the store, with seeded faults: killed, frozen, cut from the store, and a
//! store that forgets.

use super::*;
use crate::cluster::seal::Secrets;
use crate::cluster::store::model::Model;
use crate::signal::hub::ConnId;
use crate::signal::{Found, NodeId, Sought, Word};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

mod alone;
mod forgets;
mod leaves;
mod seekers;
mod unsure;

const STEP: Duration = Duration::from_millis(100);
const LEASE: Duration = Duration::from_secs(10);
const ROOMS: [&str; 4] = ["a", "b", "c", "d"];

fn settings() -> Settings {
    Settings {
        secrets: Secrets::new(&["s".repeat(32).into()]).unwrap(),
        lease: LEASE,
        isolated: Isolated::Stop,
    }
}

/// A node with what stands for its hub.
struct Machine {
    node: Node,
    inbox: Option<Incarnation>,
    rooms: BTreeSet<Arc<str>>,
    changed: BTreeSet<Arc<str>>,
    is_open: bool,
    open_until: Option<Instant>,
    frozen: u32,
    cut: u32,
    asked: BTreeMap<u64, (Instant, Arc<str>)>,
    found: BTreeMap<u64, Found>,
    /// Words with their nodes, in the order in which they came, and how often links were lost.
    received: Vec<(Incarnation, u64)>,
    lost: u64,
    waiting: VecDeque<Input>,
    /// Answers that the node has not taken yet.
    answers: VecDeque<Input>,
}

struct World {
    rng: StdRng,
    now: Instant,
    store: Model,
    boxes: Vec<Machine>,
    next: u64,
    said: u64,
    /// Until when a store that has forgotten may have given a room to a second node.
    unsettled: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Instant::now(),
            store: Model::default(),
            boxes: vec![],
            next: 0,
            said: 0,
            unsettled: Instant::now(),
        };
        for _ in 0..3 {
            let fresh = world.start();
            world.boxes.push(fresh);
        }
        world
    }

    fn start(&mut self) -> Machine {
        self.start_with(settings())
    }

    fn start_with(&mut self, settings: Settings) -> Machine {
        let mut effects = vec![];
        let node = Node::new(settings, self.rng.random(), self.now, &mut effects);
        let inbox = node.me();
        Machine {
            node,
            inbox: Some(inbox),
            rooms: BTreeSet::new(),
            changed: BTreeSet::new(),
            is_open: false,
            open_until: None,
            frozen: 0,
            cut: 0,
            asked: BTreeMap::new(),
            found: BTreeMap::new(),
            received: vec![],
            lost: 0,
            waiting: VecDeque::new(),
            answers: VecDeque::from([Input::Listening(inbox)]),
        }
    }

    fn is_serving(&self, of: &Machine) -> bool {
        of.frozen == 0 && of.is_open && of.open_until.is_none_or(|until| self.now < until)
    }

    /// One step of time for all nodes.
    fn step(&mut self) {
        self.now += STEP;
        for index in 0..self.boxes.len() {
            let of = &mut self.boxes[index];
            of.cut = of.cut.saturating_sub(1);
            if of.frozen > 0 {
                of.frozen -= 1;
                continue;
            }
            let mut effects = vec![];
            of.node.handle_timeout(self.now, &mut effects);
            self.carry_out(index, effects);
            let inputs = std::mem::take(&mut self.boxes[index].answers);
            let waiting = std::mem::take(&mut self.boxes[index].waiting);
            for input in inputs.into_iter().chain(waiting) {
                self.input(index, input);
            }
            self.boxes[index]
                .asked
                .retain(|_, (until, _)| self.now < *until);
        }
        self.look();
    }

    fn input(&mut self, index: usize, input: Input) {
        let mut effects = vec![];
        let of = &mut self.boxes[index];
        of.node.handle(self.now, input, &mut effects);
        self.carry_out(index, effects);
    }

    fn carry_out(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.effect(index, effect);
        }
    }

    fn effect(&mut self, index: usize, effect: Effect) {
        let now = self.now;
        let is_cut = self.boxes[index].cut > 0;
        let of = &mut self.boxes[index];
        match effect {
            Effect::Listen(me) => {
                of.inbox = Some(me);
                of.answers.push_back(Input::Listening(me));
            }
            Effect::Beat { me, known, drawn } => of.answers.push_back(match is_cut {
                true => Input::BeatFailed(now),
                false => {
                    let beat = self.store.beat(me, known.as_deref(), &drawn);
                    Input::Beat(now, beat)
                }
            }),
            Effect::Bury(node, count, mark) => {
                let buried = (!is_cut).then(|| self.store.bury(node, count, &mark));
                of.answers.push_back(Input::Buried(node, buried));
            }
            Effect::Claim {
                ticket,
                me,
                room,
                expected,
            } => {
                let answer = (!is_cut).then(|| self.store.claim(&room, me, expected));
                of.answers.push_back(Input::Claimed(ticket, room, answer));
            }
            Effect::Take { fresh, .. } => {
                let mut changed = std::mem::take(&mut of.changed);
                changed.extend(fresh);
                let records = changed.into_iter().map(|room| Record {
                    exists: of.rooms.contains(&room),
                    fields: vec![(
                        SETTINGS.to_owned(),
                        Some(format!("{{\"room\":\"{room}\"}}").into_bytes()),
                    )],
                    room,
                });
                let records = records.collect();
                self.input(index, Input::Taken(records));
            }
            Effect::NoteAll(room) => {
                of.changed.insert(room);
            }
            Effect::Save { me, saves, .. } => {
                let saved = (!is_cut).then(|| {
                    let save = |save: crate::cluster::redis::Save| {
                        use crate::cluster::store::Fate;
                        match save.fate {
                            Fate::End => self.store.end(&save.room, me, save.epoch),
                            Fate::Give => self.store.give(&save.room, me, save.epoch),
                            Fate::Keep => {
                                let (set, removed) = (save.set, save.removed);
                                self.store.save(&save.room, me, save.epoch, set, &removed)
                            }
                        }
                    };
                    saves.into_iter().map(save).collect()
                });
                of.answers.push_back(Input::Saved(saved));
            }
            Effect::Publish { to, id, batch, era } => {
                if is_cut {
                    return of.answers.push_back(Input::PublishFailed(era));
                }
                let receiver = self.boxes.iter_mut().find(|other| other.inbox == Some(to));
                let listeners = match receiver {
                    Some(other) if other.cut == 0 => {
                        other.waiting.push_back(Input::Received(batch.to_vec()));
                        1
                    }
                    _ => 0,
                };
                let input = Input::Published(to, id, listeners);
                self.boxes[index].answers.push_back(input);
            }
            Effect::Found(conn, found) => {
                let Some((_, room)) = of.asked.remove(&conn.0) else {
                    return;
                };
                of.found.insert(conn.0, found);
                if found == Found::Here && of.rooms.insert(Arc::clone(&room)) {
                    of.changed.insert(room);
                    of.answers.push_back(Input::Changed);
                }
            }
            Effect::Restore { settings, .. } => {
                let settings: serde_json::Value = serde_json::from_slice(&settings).unwrap();
                of.rooms.insert(settings["room"].as_str().unwrap().into());
            }
            Effect::Yield(room) => {
                of.rooms.remove(&room);
            }
            Effect::Word(from, Word::Hold { ms, .. }) => of.received.push((from, ms)),
            Effect::Word(..) => {}
            Effect::Lost(_) | Effect::Reset { .. } => of.lost += 1,
            Effect::Open(until) => {
                of.is_open = true;
                of.open_until = until;
            }
            Effect::Shut => of.is_open = false,
            Effect::Stop => {}
            Effect::Located(_) | Effect::Joined | Effect::Familiar => {}
            Effect::Unreadable(_) => {}
            Effect::Foreign => panic!("one secret"),
        }
    }

    /// What holds at any time: no room is served by two.
    fn look(&self) {
        if self.now < self.unsettled {
            return;
        }
        for room in ROOMS {
            let serving = self.boxes.iter().filter(|of| {
                let key = of.node.room_key(Some(room));
                self.is_serving(of)
                    && of.rooms.contains(room)
                    && key.is_some_and(|key| of.node.owns(&key))
            });
            assert!(serving.count() <= 1, "{room} is served by two");
        }
    }

    fn seek(&mut self, index: usize, room: &str) -> u64 {
        let (conn, room): (u64, Arc<str>) = (self.next, room.into());
        self.next += 1;
        let until = self.now + Duration::from_secs(3);
        self.boxes[index]
            .asked
            .insert(conn, (until, Arc::clone(&room)));
        self.input(index, Input::Seek(ConnId(conn), Sought::Room(room)));
        conn
    }

    /// Whether a way leads to a node that lives and has yielded the room: that one says so.
    fn leads_astray(&mut self, index: usize, conn: u64, room: &str) -> bool {
        let Some(Found::There(NodeId(owner))) = self.boxes[index].found.get(&conn) else {
            return false;
        };
        let from = Incarnation::from_bits(*owner);
        let owner = self.boxes.iter().find(|of| of.node.me() == from);
        let Some(key) = owner.and_then(|of| of.node.room_key(Some(room)).zip(of.node.key)) else {
            return false;
        };
        if owner.is_some_and(|of| of.node.owns(&key.0)) {
            return false;
        }
        let (vconn, place) = (conn, locator(&key.1, Some(room)));
        let (node, mut effects) = (&mut self.boxes[index].node, vec![]);
        node.word(self.now, from, Word::Astray { vconn, place }, &mut effects);
        self.carry_out(index, effects);
        true
    }

    /// Says a number to another node, and the next one with the next call.
    fn say(&mut self, from: usize, to: usize) {
        self.said += 1;
        let (to, ms) = (self.boxes[to].node.me(), self.said);
        let word = Word::Hold { vconn: 0, ms };
        self.input(from, Input::Say(to, word));
    }

    fn fault(&mut self) {
        if self.now < self.unsettled {
            return;
        }
        let index = self.rng.random_range(0..3);
        match self.rng.random_range(0..40) {
            0 => {
                let fresh = self.start();
                self.boxes[index] = fresh;
            }
            1 => self.boxes[index].frozen = self.rng.random_range(1..200),
            2 => {
                let of = &mut self.boxes[index];
                of.cut = self.rng.random_range(1..150);
                // Its subscription ends as well.
                of.answers.push_back(Input::Deaf);
                let me = of.node.me();
                of.answers.push_back(Input::Listening(me));
            }
            3 => {
                let reconnected = [Input::Reconnected, Input::Deaf];
                let of = &mut self.boxes[index];
                of.answers.extend(reconnected);
                let me = of.node.me();
                of.answers.push_back(Input::Listening(me));
            }
            4 if self
                .boxes
                .iter()
                .all(|of| self.is_serving(of) && of.cut == 0) =>
            {
                self.store = Model::default();
                self.unsettled = self.now + LEASE + LEASE;
            }
            _ => {}
        }
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }
}

#[test]
fn nodes_agree_whatever_happens() {
    for seed in 0..120 {
        let mut world = World::new(seed);
        world.run(60);
        for _ in 0..600 {
            world.fault();
            let index = world.rng.random_range(0..3);
            if world.rng.random_bool(0.2) && world.is_serving(&world.boxes[index]) {
                let room = ROOMS[world.rng.random_range(0..ROOMS.len())];
                world.seek(index, room);
            }
            world.step();
        }
        // The faults end, and within lease and settling all agree.
        for of in &mut world.boxes {
            (of.frozen, of.cut) = (0, 0);
        }
        world.run(400);
        for room in ROOMS {
            let mut conns: Vec<_> = (0..3).map(|index| world.seek(index, room)).collect();
            world.run(40);
            for (index, conn) in conns.iter_mut().enumerate() {
                if world.leads_astray(index, *conn, room) {
                    *conn = world.seek(index, room);
                }
            }
            world.run(40);
            let homes: BTreeSet<_> = (conns.iter().enumerate())
                .map(|(index, conn)| {
                    let of = &world.boxes[index];
                    assert!(
                        world.is_serving(of),
                        "seed {seed}: node {index} does not serve"
                    );
                    match of.found.get(conn) {
                        Some(Found::Here) => NodeId(of.node.me().bits()),
                        Some(Found::There(node)) => *node,
                        other => panic!("seed {seed}: {room} is {other:?} at {index}"),
                    }
                })
                .collect();
            assert_eq!(homes.len(), 1, "seed {seed}: {room}");
        }
    }
}

#[test]
fn a_dead_nodes_rooms_go_on_at_another() {
    let mut world = World::new(7);
    world.run(60);
    let conn = world.seek(0, "a");
    world.run(10);
    assert_eq!(world.boxes[0].found[&conn], Found::Here);
    let dead = world.boxes[0].node.me();
    let there = world.seek(1, "a");
    world.run(10);
    assert_eq!(
        world.boxes[1].found[&there],
        Found::There(NodeId(dead.bits()))
    );
    let fresh = world.start();
    world.boxes[0] = fresh;
    world.run(130);
    let again = world.seek(1, "a");
    world.run(10);
    assert_eq!(world.boxes[1].found[&again], Found::Here);
    assert!(
        world.boxes[1].rooms.contains("a"),
        "restored from its record"
    );
    assert_eq!(world.boxes[1].node.gauges(world.now).takeovers, 1);
}

#[test]
fn words_arrive_in_order_and_once() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.run(60);
        for _ in 0..400 {
            world.fault();
            if world.boxes[0].frozen == 0 {
                world.say(0, 1);
            }
            world.step();
            let received = &world.boxes[1].received;
            assert!(received.is_sorted_by(|(_, a), (_, b)| a < b), "seed {seed}");
            // What a node had to say when it was killed is lost with it.
            let is_hole = |pair: &[(Incarnation, u64)]| {
                let [(from, before), (again, next)] = pair else {
                    return false;
                };
                from == again && *next != before + 1
            };
            let has_hole = received.windows(2).any(is_hole);
            assert!(
                !has_hole || world.boxes[1].lost > 0,
                "seed {seed}: a loss is told"
            );
        }
    }
}

#[test]
fn a_room_that_is_given_up_is_taken_at_once() {
    let mut world = World::new(3);
    world.run(60);
    world.seek(0, "a");
    world.run(10);
    world.input(0, Input::GiveUp);
    world.run(10);
    assert!(world.boxes[0].node.has_given_up());
    assert!(!world.boxes[0].rooms.contains("a"), "yielded");
    let conn = world.seek(1, "a");
    world.run(5);
    assert_eq!(world.boxes[1].found[&conn], Found::Here);
    assert!(world.boxes[1].rooms.contains("a"));
}

#[test]
fn a_store_of_another_secret_is_foreign() {
    let mut world = World::new(1);
    world.run(60);
    let mut effects = vec![];
    let other = Settings {
        secrets: Secrets::new(&["t".repeat(32).into()]).unwrap(),
        ..settings()
    };
    let mut node = Node::new(other, [9; 32], world.now, &mut effects);
    let beat = world.store.beat(node.me(), None, b"drawn");
    let me = node.me();
    node.handle(world.now, Input::Listening(me), &mut effects);
    node.handle(world.now, Input::Beat(world.now, beat), &mut effects);
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Foreign))
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Joined))
    );
}
