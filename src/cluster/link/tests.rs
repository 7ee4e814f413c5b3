//! Two ends over a carrier that loses, repeats, delays, overtakes and reconnects.

use super::*;
use proptest::prelude::*;

const A: Incarnation = Incarnation::from_bits(1);
const B: Incarnation = Incarnation::from_bits(2);

fn secrets() -> Secrets {
    Secrets::new(&["s".repeat(32).into()]).unwrap()
}

fn pair() -> [Link; 2] {
    let secrets = secrets();
    [Link::new(&secrets, A, B), Link::new(&secrets, B, A)]
}

fn frame(text: String) -> crate::signal::Frame {
    crate::signal::Frame {
        text,
        room: None,
        dialect: None,
        grant: None,
    }
}

/// What is said: the generation in which it was, and its place there.
fn entry(generation: u32, n: u64) -> Entry {
    Entry::Frame {
        vconn: n,
        number: 1,
        frame: frame(generation.to_string()),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Say(usize),
    /// The oldest batch on the way to an end arrives, or a later one overtakes it.
    Arrive(usize, usize),
    Lose(usize),
    Repeat(usize),
    /// The oldest PUBLISH of an end is answered.
    Answer(usize, bool),
    Reconnect(usize),
    Deafen(usize),
    Pass,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = 0usize..2;
    let step = prop_oneof![
        8 => end.clone().prop_map(Step::Say),
        9 => end.clone().prop_map(|end| Step::Arrive(end, 0)),
        1 => (end.clone(), 0usize..4).prop_map(|(end, place)| Step::Arrive(end, place)),
        1 => end.clone().prop_map(Step::Lose),
        1 => end.clone().prop_map(Step::Repeat),
        9 => (end.clone(), prop::bool::weighted(0.97)).prop_map(|(end, received)| Step::Answer(end, received)),
        1 => end.clone().prop_map(Step::Reconnect),
        1 => end.prop_map(Step::Deafen),
        4 => Just(Step::Pass),
    ];
    prop::collection::vec(step, 0..300)
}

struct World {
    now: Instant,
    ends: [Link; 2],
    /// On the way to each end.
    ways: [VecDeque<Arc<[u8]>>; 2],
    /// Of each end: what Redis has not answered.
    unanswered: [VecDeque<BatchId>; 2],
    /// How much each end has said, and was told, in its generation.
    said: [(u32, u64); 2],
    told: [(u32, u64); 2],
    resets: usize,
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            ends: pair(),
            ways: Default::default(),
            unanswered: Default::default(),
            said: [(1, 0); 2],
            told: [(1, 0); 2],
            resets: 0,
        }
    }

    fn carry_out(&mut self, end: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Publish(id, batch) => {
                    self.unanswered[end].push_back(id);
                    self.ways[1 - end].push_back(batch);
                }
                Effect::Reset(_) => {
                    self.resets += 1;
                    // What is said or told from here on is of a later generation.
                    self.said[end] = (0, 0);
                    self.told[end] = (0, 0);
                }
                Effect::Deliver(entries) => {
                    let generation = self.ends[end].generation();
                    if self.told[end].0 == 0 {
                        self.told[end] = (generation, 0);
                    }
                    for received in entries {
                        let (of, next) = &mut self.told[end];
                        assert_eq!(received, entry(*of, *next), "in order and once");
                        *next += 1;
                    }
                }
            }
        }
    }

    fn act(&mut self, end: usize, call: impl FnOnce(&mut Link, Instant, &mut Vec<Effect>)) {
        let mut effects = vec![];
        call(&mut self.ends[end], self.now, &mut effects);
        self.carry_out(end, effects);
    }

    fn say(&mut self, end: usize) {
        let generation = self.ends[end].generation();
        if self.said[end].0 != generation {
            self.said[end] = (generation, 0);
        }
        let said = entry(generation, self.said[end].1);
        self.said[end].1 += 1;
        self.act(end, |link, now, effects| link.say(now, &said, effects));
    }

    fn answer(&mut self, end: usize, listeners: u64) {
        if let Some(id) = self.unanswered[end].pop_front() {
            self.act(end, |link, now, effects| {
                link.published(now, id, listeners, effects)
            });
        }
    }

    fn arrive(&mut self, end: usize, place: usize) {
        let place = place.min(self.ways[end].len().saturating_sub(1));
        if let Some(batch) = self.ways[end].remove(place) {
            self.act(end, |link, _, effects| {
                link.received(&batch, effects).unwrap()
            });
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(end) => self.say(end),
            Step::Arrive(end, place) => self.arrive(end, place),
            Step::Lose(end) => {
                self.ways[end].pop_front();
            }
            Step::Repeat(end) => {
                if let Some(batch) = self.ways[end].front().cloned() {
                    self.ways[end].push_back(batch);
                }
            }
            Step::Answer(end, received) => self.answer(end, u64::from(received)),
            Step::Reconnect(end) => {
                self.unanswered[end].clear();
                self.act(end, |link, _, effects| link.reconnected(effects));
            }
            Step::Deafen(end) => {
                self.ways[end].clear();
                self.act(end, |link, _, effects| link.deafened(effects));
            }
            Step::Pass => {
                self.now += Duration::from_millis(300);
                for end in 0..2 {
                    self.act(end, |link, now, effects| link.flush(now, effects));
                }
            }
        }
    }

    /// Everything arrives and is answered until nothing is on its way.
    fn calm(&mut self) {
        for _ in 0..200 {
            self.step(&Step::Pass);
            for end in 0..2 {
                self.arrive(end, 0);
                self.answer(end, 1);
            }
        }
        assert!(self.ways.iter().all(VecDeque::is_empty), "it settles");
        assert!(self.ends.iter().all(|link| link.bytes() == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// In each generation an end is told what the other has said in it, from the first entry on,
    /// in order and once; and once the carrier works, nothing is lost and nothing is reset.
    #[test]
    fn what_arrives_is_in_order_and_once_or_the_link_is_reset(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.calm();
        // A loss at the very end shows with the next batch.
        for end in 0..2 {
            world.say(end);
        }
        world.calm();
        let resets = world.resets;
        let generations = world.ends.each_ref().map(Link::generation);
        prop_assert_eq!(generations[0], generations[1]);
        let before = world.told;
        for _ in 0..5 {
            world.say(0);
            world.say(1);
            world.step(&Step::Pass);
        }
        world.calm();
        prop_assert_eq!(world.resets, resets);
        for end in 0..2 {
            let (generation, told) = world.told[end];
            prop_assert_eq!(generation, generations[end]);
            let earlier = if before[end].0 == generation { before[end].1 } else { 0 };
            prop_assert!(told >= earlier + 5);
            prop_assert_eq!(world.said[1 - end], (generation, told));
        }
    }
}

#[test]
fn what_waits_for_redis_is_bounded_and_read_less_before() {
    let mut world = World::new();
    let big = Entry::Frame {
        vconn: 1,
        number: 1,
        frame: frame("x".repeat(64 << 10)),
    };
    let mut effects = vec![];
    while world.ends[0].is_light() {
        world.ends[0].say(world.now, &big, &mut effects);
    }
    assert!((LIGHT..MOST).contains(&world.ends[0].bytes()));
    while world.ends[0].generation() == 1 {
        world.ends[0].say(world.now, &big, &mut effects);
        assert!(world.ends[0].bytes() <= MOST);
    }
    assert!(effects.contains(&Effect::Reset(Reset::Full)));
}

#[test]
fn entries_gather_while_a_batch_is_on_its_way() {
    let [mut a, mut b] = pair();
    let (now, mut effects) = (Instant::now(), vec![]);
    for n in 0..10 {
        a.say(now, &entry(1, n), &mut effects);
    }
    assert_eq!(effects.len(), 1, "the first goes at once");
    assert_eq!(a.next_timeout(), Some(now + FLUSH));
    let Effect::Publish(id, _) = effects[0] else {
        panic!()
    };
    a.published(now, id, 1, &mut effects);
    assert_eq!((effects.len(), a.next_timeout()), (2, None));
    let mut told = vec![];
    for effect in &effects {
        let Effect::Publish(_, batch) = effect else {
            panic!()
        };
        b.received(batch, &mut told).unwrap();
    }
    let all: Vec<_> = (0..10).map(|n| entry(1, n)).collect();
    let expected = [
        Effect::Deliver(all[..1].to_vec()),
        Effect::Deliver(all[1..].to_vec()),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_node_that_nobody_hears_is_tried_once_a_second() {
    let mut world = World::new();
    world.say(0);
    world.answer(0, 0);
    assert_eq!(world.resets, 1);
    world.say(0);
    assert!(world.unanswered[0].is_empty(), "not at once");
    assert_eq!(world.ends[0].next_timeout(), Some(world.now + SILENCE));
    for _ in 0..4 {
        world.step(&Step::Pass);
    }
    assert_eq!(world.unanswered[0].len(), 1);
}

#[test]
fn batches_of_strangers_change_nothing() {
    let [mut a, _] = pair();
    let other = Secrets::new(&["x".repeat(32).into()]).unwrap();
    let mut stranger = Link::new(&other, B, A);
    let (now, mut effects) = (Instant::now(), vec![]);
    stranger.say(now, &entry(1, 0), &mut effects);
    let Some(Effect::Publish(_, batch)) = effects.pop() else {
        panic!()
    };
    assert_eq!(a.received(&batch, &mut effects), Err(WireError::Seal));
    let mut third = Link::new(&secrets(), Incarnation::from_bits(3), A);
    third.say(now, &entry(1, 0), &mut effects);
    let Some(Effect::Publish(_, batch)) = effects.pop() else {
        panic!()
    };
    assert_eq!(a.received(&batch, &mut effects), Err(WireError::Malformed));
    assert!(effects.is_empty() && a.expected == 1);
}
