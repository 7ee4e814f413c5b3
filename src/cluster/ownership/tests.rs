//! Two nodes and a model of the scripts, in every order in which things can happen.

use super::super::store::model::Model;
use super::*;
use std::collections::VecDeque;

const ROOM: &str = "room";

fn room() -> Key {
    ROOM.into()
}

#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Claim {
        ticket: u64,
        me: Incarnation,
        expected: Option<Incarnation>,
    },
    Save {
        me: Incarnation,
        epoch: u64,
        value: u64,
    },
}

#[derive(Debug, Clone)]
enum Answered {
    Claim(u64, Claimed),
    Save(bool),
}

#[derive(Debug, Clone)]
struct Node {
    me: Incarnation,
    ownership: Ownership,
    asked: VecDeque<Asked>,
    answered: VecDeque<Answered>,
    /// Whether its hub has the room, and what it holds there.
    home: Option<u64>,
    /// What is left to do of its own accord.
    program: VecDeque<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Seek,
    Write,
    /// It finds that it was buried, if it was.
    Beat,
    /// It buries the other one.
    Bury,
    Reconnect,
}

#[derive(Debug, Clone)]
struct World {
    store: Model,
    nodes: [Node; 2],
    buried: Vec<Incarnation>,
    next: u64,
}

impl World {
    fn new(programs: [&[Step]; 2]) -> Self {
        let node = |(bits, program): (u64, &[Step])| {
            let me = Incarnation::from_bits(bits);
            Node {
                me,
                ownership: Ownership::new(me),
                asked: VecDeque::new(),
                answered: VecDeque::new(),
                home: None,
                program: program.iter().copied().collect(),
            }
        };
        let [a, b] = programs;
        Self {
            store: Model::default(),
            nodes: [node((1, a)), node((2, b))],
            buried: vec![],
            next: 3,
        }
    }

    /// What can happen next: a node does something, Redis answers one, or a node takes an answer.
    fn choices(&self) -> Vec<(usize, u8)> {
        let mut choices = vec![];
        for (n, node) in self.nodes.iter().enumerate() {
            let possible = [
                !node.program.is_empty(),
                !node.asked.is_empty(),
                !node.answered.is_empty(),
            ];
            choices.extend(
                (0..3)
                    .filter(|kind| possible[usize::from(*kind)])
                    .map(|k| (n, k)),
            );
        }
        choices
    }

    fn choose(&mut self, (n, kind): (usize, u8)) {
        match kind {
            0 => {
                let step = self.nodes[n].program.pop_front().unwrap();
                self.act(n, step);
            }
            1 => self.execute(n),
            _ => self.take(n),
        }
    }

    fn act(&mut self, n: usize, step: Step) {
        let other = self.nodes[1 - n].me;
        let node = &mut self.nodes[n];
        let mut commands = vec![];
        match step {
            Step::Seek => {
                node.ownership.seek(&room(), &mut commands);
            }
            Step::Write => {
                if let Some(value) = &mut node.home {
                    *value += 1;
                    let value = *value;
                    self.save(n, value);
                    return;
                }
            }
            Step::Beat if self.buried.contains(&node.me) => {
                node.me = Incarnation::from_bits(self.next);
                self.next += 1;
                node.ownership.reborn(node.me, &mut commands);
            }
            Step::Beat => {}
            Step::Bury => {
                self.buried.push(other);
                node.ownership.buried(other, |_| true, &mut commands);
            }
            Step::Reconnect => {
                node.asked.clear();
                node.answered.clear();
                node.ownership.reconnected(&mut commands);
            }
        }
        self.ask(n, commands);
    }

    fn save(&mut self, n: usize, value: u64) {
        let node = &mut self.nodes[n];
        if let Some(epoch) = node.ownership.epoch(ROOM) {
            let me = node.me;
            node.asked.push_back(Asked::Save { me, epoch, value });
        }
    }

    fn ask(&mut self, n: usize, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Claim {
                    ticket,
                    me,
                    expected,
                    ..
                } => self.nodes[n].asked.push_back(Asked::Claim {
                    ticket,
                    me,
                    expected,
                }),
                Command::SaveAll(_) => {
                    if let Some(value) = self.nodes[n].home {
                        self.save(n, value);
                    }
                }
            }
        }
    }

    fn execute(&mut self, n: usize) {
        let asked = self.nodes[n].asked.pop_front().unwrap();
        let answer = match asked {
            Asked::Claim {
                ticket,
                me,
                expected,
            } => Answered::Claim(ticket, self.store.claim(ROOM, me, expected)),
            Asked::Save { me, epoch, value } => {
                let value = value.to_string().into_bytes();
                let set = [("v".to_owned(), value)];
                Answered::Save(self.store.save(ROOM, me, epoch, set.into(), &[]))
            }
        };
        self.nodes[n].answered.push_back(answer);
    }

    fn take(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let (mut commands, mut outcomes) = (vec![], vec![]);
        match node.answered.pop_front().unwrap() {
            Answered::Claim(ticket, claimed) => {
                let ownership = &mut node.ownership;
                ownership.claimed(ticket, &room(), claimed, &mut commands, &mut outcomes);
            }
            Answered::Save(true) => {}
            Answered::Save(false) => node.ownership.fenced(&room(), &mut commands),
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Home(_, fields) => {
                    let value = fields
                        .get("v")
                        .map(|v| String::from_utf8(v.clone()).unwrap());
                    assert_eq!(node.home, None, "made home twice");
                    node.home = Some(value.map_or(0, |value| value.parse().unwrap()));
                }
                Outcome::Away(_, owner) => {
                    assert_eq!(node.home, None);
                    // An owner that this node knows to be buried has left the room to others.
                    if self.buried.contains(&owner) {
                        node.ownership.inherit(&room(), owner, &mut commands);
                    }
                }
                Outcome::Yield(_, owner) => {
                    assert!(node.home.take().is_some());
                    assert_ne!(owner, node.me);
                }
            }
        }
        self.ask(n, commands);
    }

    /// Runs to the end in one order, then lets both find out what is so.
    fn settle(&mut self) {
        while let Some(choice) = self.choices().first().copied() {
            self.choose(choice);
        }
        for step in [Step::Beat, Step::Write, Step::Seek] {
            for n in 0..2 {
                self.act(n, step);
                while let Some(choice) = self.choices().first().copied() {
                    self.choose(choice);
                }
            }
        }
    }

    fn check(&self) {
        let homes = self.nodes.iter().filter(|node| node.home.is_some());
        let [home] = homes.collect::<Vec<_>>()[..] else {
            panic!("not one home: {self:?}");
        };
        assert_eq!(self.store.owner(ROOM), Some(home.me));
        let saved = self.store.fields(ROOM).remove("v");
        let value = home.home.unwrap().to_string().into_bytes();
        assert_eq!(saved, Some(value), "what the home holds is saved");
        let other = self.nodes.iter().find(|node| node.me != home.me).unwrap();
        let way = other.ownership.clone().seek(&room(), &mut vec![]);
        assert_eq!(way, Way::Away(home.me));
    }
}

/// Visits every order; returns how many there are.
fn explore(world: &World, depth: usize) -> usize {
    // Unfenced homes: those that Redis would take a save of.
    let unfenced = (world.nodes.iter()).filter(|node| {
        let epoch = node.ownership.epoch(ROOM);
        epoch.is_some_and(|epoch| world.store.is_owned(ROOM, node.me, epoch))
    });
    assert!(unfenced.count() <= 1);
    let choices = world.choices();
    if choices.is_empty() || depth == 0 {
        let mut end = world.clone();
        end.settle();
        end.check();
        return 1;
    }
    let next = choices.into_iter().map(|choice| {
        let mut next = world.clone();
        next.choose(choice);
        explore(&next, depth - 1)
    });
    next.sum()
}

#[test]
fn in_every_order_of_claims_burials_and_saves_one_home_is_left() {
    use Step::*;
    let orders = [
        explore(&World::new([&[Seek, Write], &[Seek, Write]]), 12),
        explore(&World::new([&[Seek, Write, Write], &[Seek, Bury]]), 12),
        explore(
            &World::new([&[Seek, Write, Beat, Write], &[Seek, Bury, Write]]),
            10,
        ),
        explore(
            &World::new([&[Seek, Write, Reconnect], &[Seek, Reconnect]]),
            11,
        ),
    ];
    assert!(orders.iter().all(|orders| *orders > 500), "{orders:?}");
}

#[test]
fn a_room_that_redis_lost_is_written_again_by_its_home() {
    let mut world = World::new([&[Step::Seek, Step::Write], &[]]);
    world.settle();
    assert!(world.nodes[0].home > Some(0));
    world.store = Model::default();
    world.act(0, Step::Write);
    world.settle();
    world.check();
}

#[test]
fn each_room_is_claimed_again_within_an_hour_and_yielded_where_it_is_anothers() {
    let me = Incarnation::from_bits(1);
    let mut ownership = Ownership::new(me);
    let rooms: Vec<Key> = (0..5_000).map(|n| format!("{n:04}").into()).collect();
    let mine = |epoch, already| Claimed::Mine {
        epoch,
        already,
        fields: Fields::new(),
    };
    for (ticket, room) in (0..).zip(&rooms) {
        ownership.seek(room, &mut vec![]);
        ownership.claimed(ticket, room, mine(1, false), &mut vec![], &mut vec![]);
    }
    let (mut renewed, mut most) = (BTreeSet::new(), 0);
    for _ in 0..1_800 {
        let mut commands = vec![];
        ownership.renew(&mut commands);
        most = most.max(commands.len());
        for command in commands {
            let Command::Claim {
                ticket,
                room,
                expected,
                ..
            } = command
            else {
                panic!("{command:?}");
            };
            assert_eq!(expected, Some(me));
            let (mut saves, mut outcomes) = (vec![], vec![]);
            ownership.claimed(ticket, &room, mine(1, true), &mut saves, &mut outcomes);
            assert!(saves.is_empty() && outcomes.is_empty());
            renewed.insert(room);
        }
    }
    assert_eq!((renewed.len(), most), (5_000, 3));

    let other = Incarnation::from_bits(2);
    let (mut commands, mut outcomes) = (vec![], vec![]);
    ownership.renew(&mut commands);
    let Some(Command::Claim { ticket, room, .. }) = commands.pop() else {
        panic!("nothing is renewed");
    };
    ownership.claimed(
        ticket,
        &room,
        Claimed::Theirs(other),
        &mut vec![],
        &mut outcomes,
    );
    assert_eq!(outcomes, [Outcome::Yield(room, other)]);
}

#[test]
fn a_room_in_whose_place_another_program_writes_is_dropped() {
    let mut ownership = Ownership::new(Incarnation::from_bits(1));
    let room = room();
    ownership.seek(&room, &mut vec![]);
    assert!(!ownership.unclaimable(0, &room), "it was not this node's");
    let mine = Claimed::Mine {
        epoch: 1,
        already: false,
        fields: Fields::new(),
    };
    ownership.seek(&room, &mut vec![]);
    ownership.claimed(1, &room, mine, &mut vec![], &mut vec![]);
    ownership.fenced(&room, &mut vec![]);
    assert!(!ownership.has_settled());
    assert!(ownership.unclaimable(2, &room) && ownership.has_settled());
}

#[test]
fn after_redis_has_forgotten_unknown_rooms_wait_for_the_others() {
    let (now, lease) = (Instant::now(), Duration::from_secs(10));
    let node = Incarnation::from_bits;
    let mut ownership = Ownership::new(node(1));
    let mut commands = vec![];
    ownership.forgotten(now, lease, [node(2), node(3)].into_iter(), &mut commands);
    assert!(ownership.has_settled());
    assert_eq!(ownership.seek(&room(), &mut commands), Way::Sought);
    ownership.settled(node(2), now, &mut commands);
    assert!(commands.is_empty(), "one is missing");
    ownership.buried(node(3), |_| true, &mut commands);
    ownership.handle_timeout(now, &mut commands);
    assert!(matches!(&commands[..], [Command::Claim { room, .. }] if &**room == ROOM));
    assert_eq!(ownership.next_timeout(), None);

    let mut ownership = Ownership::new(node(1));
    ownership.forgotten(now, lease, [node(2)].into_iter(), &mut vec![]);
    assert_eq!(ownership.next_timeout(), Some(now + lease));
    let mut commands = vec![];
    ownership.seek(&ROOM.into(), &mut commands);
    ownership.handle_timeout(now + lease, &mut commands);
    assert_eq!(commands.len(), 1, "longer than a lease it does not wait");
}
