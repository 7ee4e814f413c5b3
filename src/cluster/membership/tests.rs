//! Nodes that freeze, lose Redis and have clocks of their own, against a model of the two scripts.

use super::super::store::model::Model;
use super::*;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum Event {
    /// A node does nothing for so long.
    Freeze(usize, u64),
    /// Redis answers a node nothing for so long.
    Cut(usize, u64),
    /// Redis forgets everything.
    Forget,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0usize..3, 0u64..25_000).prop_map(|(node, ms)| Event::Freeze(node, ms)),
        3 => (0usize..3, 0u64..25_000).prop_map(|(node, ms)| Event::Cut(node, ms)),
        1 => Just(Event::Forget),
        6 => (0u64..20_000).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 0..25)
}

/// A beat on its way: executed at one time, answered at another.
struct Flight {
    sent: Instant,
    mark: Option<Vec<u8>>,
    runs_at: u64,
    answer_at: u64,
    answer: Option<Beat>,
}

struct Node {
    membership: Membership,
    /// How fast its clock runs, thousandths.
    rate: u64,
    frozen_until: u64,
    cut_until: u64,
    flight: Option<Flight>,
    /// Burials on their way, and when they are executed.
    burials: Vec<(u64, Incarnation, u64, Vec<u8>)>,
}

struct World {
    start: Instant,
    ms: u64,
    nodes: Vec<Node>,
    store: Model,
    graves: BTreeMap<Incarnation, u64>,
    /// When each count last rose.
    beaten: BTreeMap<Incarnation, u64>,
    mark: u8,
    next: u64,
    delays: u64,
    isolated: Isolated,
}

impl World {
    fn new(rates: [u64; 3], isolated: Isolated) -> Self {
        let start = Instant::now();
        let node = |(n, rate)| Node {
            membership: Membership::new(Incarnation::from_bits(n), LEASE, isolated, start),
            rate,
            frozen_until: 0,
            cut_until: 0,
            flight: None,
            burials: vec![],
        };
        Self {
            start,
            ms: 0,
            nodes: (1..).zip(rates).map(node).collect(),
            store: Model::default(),
            graves: BTreeMap::new(),
            beaten: BTreeMap::new(),
            mark: 0,
            next: 10,
            delays: 7,
            isolated,
        }
    }

    fn clock(&self, node: usize) -> Instant {
        self.start + Duration::from_micros(self.ms * self.nodes[node].rate)
    }

    fn delay(&mut self) -> u64 {
        // Mostly short, sometimes almost as long as an answer may take.
        self.delays = self
            .delays
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        match self.delays >> 60 {
            0 => 900,
            other => other,
        }
    }

    fn beat(&mut self, me: Incarnation, known: Option<&[u8]>) -> Beat {
        let beat = self.store.beat(me, known, &[self.mark]);
        if known.is_none() {
            // It never held a lease: that its first beat was executed and buried, and the answer
            // lost, takes nothing from anyone.
            self.graves.remove(&me);
        }
        if beat.count > 0 {
            self.beaten.insert(me, self.ms);
        }
        beat
    }

    fn bury(&mut self, node: Incarnation, seen: u64, mark: &[u8]) -> bool {
        let lived = self.store.lives(node);
        let buried = self.store.bury(node, seen, mark);
        if lived && buried {
            let still = self.ms - self.beaten[&node];
            assert!(still >= 9_000, "{node} has beaten {still} ms ago");
            self.graves.insert(node, self.ms);
        }
        buried
    }

    fn step(&mut self) {
        self.ms += 10;
        for n in 0..self.nodes.len() {
            let (now, ms) = (self.clock(n), self.ms);
            // What Redis executes is executed whether or not the node runs.
            if let Some(mut flight) = self.nodes[n].flight.take() {
                if flight.runs_at <= ms && flight.answer.is_none() {
                    let me = self.nodes[n].membership.me();
                    flight.answer = Some(self.beat(me, flight.mark.as_deref()));
                }
                self.nodes[n].flight = Some(flight);
            }
            if self.nodes[n].frozen_until > ms {
                continue;
            }
            // An input comes: the gate is asked first.
            let (gate, me) = {
                let membership = &mut self.nodes[n].membership;
                (membership.gate(now), membership.me())
            };
            let buried = self.graves.contains_key(&me);
            assert!(
                !buried || gate != Gate::Open,
                "{me} is buried and takes inputs"
            );
            assert!(self.isolated == Isolated::Serve || gate != Gate::Isolated);
            self.run_node(n, now);
        }
    }

    fn run_node(&mut self, n: usize, now: Instant) {
        let ms = self.ms;
        let cut = self.nodes[n].cut_until > ms;
        let due: Vec<_> = self.nodes[n]
            .burials
            .extract_if(.., |b| b.0 <= ms)
            .collect();
        for (_, node, count, mark) in due {
            if !cut && self.bury(node, count, &mark) {
                self.nodes[n].membership.buried(node);
            }
        }
        match self.nodes[n].flight.take() {
            Some(flight) if flight.answer_at <= ms => match flight.answer {
                Some(beat) if !cut => self.answered(n, flight.sent, now, beat),
                _ => self.nodes[n].membership.failed(flight.sent),
            },
            Some(flight) => self.nodes[n].flight = Some(flight),
            None if self.nodes[n].membership.next_beat() <= now => {
                let (to, back) = (self.delay(), self.delay());
                self.nodes[n].membership.sent(now);
                let mark = self.nodes[n].membership.mark().map(<[u8]>::to_vec);
                let never = u64::MAX;
                self.nodes[n].flight = Some(Flight {
                    sent: now,
                    mark,
                    runs_at: if cut { never } else { ms + to },
                    answer_at: if cut { ms + 2_000 } else { ms + to + back },
                    answer: None,
                });
            }
            None => {}
        }
    }

    fn answered(&mut self, n: usize, sent: Instant, now: Instant, beat: Beat) {
        let mut acts = vec![];
        self.nodes[n]
            .membership
            .answered(sent, now, beat, &mut acts);
        for act in acts {
            match act {
                Act::Bury(node, count, mark) => {
                    let at = self.ms + self.delay();
                    self.nodes[n].burials.push((at, node, count, mark));
                }
                Act::Reborn => {
                    self.next += 1;
                    let me = Incarnation::from_bits(self.next);
                    self.nodes[n].membership.reborn(me, now);
                }
                Act::Forgotten => {}
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.step();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nobody is buried who has beaten within the lease, no gate is open past its node's burial, and
    /// in the end all live.
    #[test]
    fn nobody_who_beats_is_buried_and_nobody_buried_takes_inputs(
        events in events(),
        rates in prop::array::uniform3(970u64..1030),
        serve: bool,
    ) {
        let isolated = if serve { Isolated::Serve } else { Isolated::Stop };
        let mut world = World::new(rates, isolated);
        world.pass(3_000);
        for event in &events {
            match *event {
                Event::Freeze(n, ms) => world.nodes[n].frozen_until = world.ms + ms,
                Event::Cut(n, ms) => world.nodes[n].cut_until = world.ms + ms,
                Event::Forget => {
                    world.store = Model::default();
                    world.mark += 1;
                }
                Event::Pass(ms) => world.pass(ms),
            }
        }
        world.pass(60_000);
        for n in 0..3 {
            let now = world.clock(n);
            prop_assert_eq!(world.nodes[n].membership.gate(now), Gate::Open);
            prop_assert_eq!(world.nodes[n].membership.others().count(), 2);
        }
    }
}

#[test]
fn a_dead_node_is_buried_within_the_lease_and_some_beats() {
    let mut world = World::new([1000; 3], Isolated::Serve);
    world.pass(5_000);
    world.nodes[1].frozen_until = u64::MAX;
    let died = world.ms;
    while world.graves.is_empty() {
        world.step();
        assert!(world.ms < died + 14_000, "L, a beat and what is on its way");
    }
    assert!(world.ms >= died + 9_000);
}

#[test]
fn who_wakes_finds_its_gate_shut_and_who_has_no_redis_serves_on() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let me = Incarnation::from_bits(1);
    let beat = |count| Beat {
        mark: vec![1],
        count,
        counts: BTreeMap::from([(me, count)]),
    };
    for isolated in [Isolated::Serve, Isolated::Stop] {
        let mut node = Membership::new(me, LEASE, isolated, start);
        assert_eq!(node.gate(start), Gate::Shut, "before the first answer");
        node.sent(at(0));
        node.answered(at(0), at(1), beat(1), &mut vec![]);
        assert_eq!(node.gate(at(7)), Gate::Open);
        assert_eq!(node.lease_left(at(7)), Duration::from_secs(1));
        // It sleeps, and wakes.
        assert_eq!(node.gate(at(30)), Gate::Shut);
        node.failed(at(7));
        assert_eq!(node.gate(at(32)), Gate::Shut, "that beat is from before");
        node.failed(at(31));
        let served = match isolated {
            Isolated::Serve => Gate::Isolated,
            Isolated::Stop => Gate::Shut,
        };
        assert_eq!(node.gate(at(32)), served);
        let mut acts = vec![];
        node.answered(at(33), at(33), beat(2), &mut acts);
        assert_eq!((node.gate(at(33)), acts.len()), (Gate::Open, 0));
        let forgotten = Beat {
            mark: vec![2],
            ..beat(0)
        };
        node.answered(at(35), at(35), forgotten, &mut acts);
        assert_eq!(acts, [Act::Forgotten, Act::Reborn]);
    }
}
