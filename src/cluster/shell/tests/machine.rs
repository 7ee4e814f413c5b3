//! One box: a node, its hub and its driver, and what waits between them and Redis.

use super::super::signaling::{Carried, Signaling};
use super::planted::Plant;
use super::redis::{Ask, Call};
use super::*;
use crate::cluster::Incarnation;
use crate::cluster::seal::Secrets;
use crate::signal::hub::Settings as HubSettings;
use crate::signal::{ConnectionLimits, Driver, Nodes, seeded};
use rand::RngExt;
use rand::rngs::StdRng;

/// Now, of the clock that the simulation moves.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What signaling says to its node.
enum Said {
    Seek(ConnId, Sought),
    Word(NodeId, Word),
}

/// The queue between signaling and its node.
pub(super) struct Post {
    shared: Arc<Shared>,
    said: Mutex<VecDeque<Said>>,
}

impl Nodes for Post {
    fn is_open(&self) -> bool {
        self.shared
            .is_open_at(|| crate::clock::boot_nanos_at(now()))
    }
    fn has_stopped(&self) -> bool {
        self.shared.has_stopped.load(Ordering::Relaxed)
    }
    fn has_handed(&self) -> bool {
        self.shared.is_handing.load(Ordering::Relaxed)
    }
    fn seek(&self, conn: ConnId, sought: &Sought) {
        lock(&self.said).push_back(Said::Seek(conn, sought.clone()));
    }
    fn say(&self, node: NodeId, word: Word) {
        lock(&self.said).push_back(Said::Word(node, word));
    }
    fn is_light(&self, _: NodeId) -> bool {
        true
    }
    fn changed(&self) {
        self.shared.changed.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Machine {
    /// Which run of all this is.
    pub(super) run: u64,
    pub(super) node: Node,
    effects: Vec<Effect>,
    signaling: Signaling,
    pub(super) shared: Arc<Shared>,
    pub(super) driver: Arc<Driver>,
    post: Arc<Post>,
    /// To Redis: commands, and batches, which have a connection of their own.
    pub(super) calls: VecDeque<Call>,
    pub(super) batches: VecDeque<Call>,
    /// Of Redis, with the steps at which they come: answers, and what the inbox brings.
    pub(super) answers: VecDeque<(u64, Input)>,
    pub(super) arriving: VecDeque<(u64, Input)>,
    pub(super) inbox: Incarnation,
    pub(super) is_subscribed: bool,
    /// When it tries to subscribe again.
    pub(super) listens_at: Option<u64>,
    pub(super) frozen_until: u64,
    pub(super) cut_until: u64,
    /// The number of its connection to Redis, of the one that has carried the last beat, and of the one
    /// that has brought the last answer to a beat: claims go on that one.
    pub(super) connection: u64,
    pub(super) beat_on: u64,
    answered_on: u64,
    failed_era: Option<u64>,
    pub(super) joined: bool,
    /// Since when it gives its rooms up.
    pub(super) leaving: Option<u64>,
    /// When its node wants to be called.
    due: Option<Instant>,
    pub(super) plant: Plant,
    /// What planted faults count.
    pub(super) words: u64,
    pub(super) saved: BTreeSet<String>,
}

impl Machine {
    pub(super) fn new(
        run: u64,
        isolated: Isolated,
        plant: Plant,
        rng: &mut StdRng,
        on_revoke: crate::signal::OnRevoke,
    ) -> Self {
        let settings = HubSettings {
            rate: 0,
            candidate_rate: 0,
            byte_rate: 0,
            resume_window: WINDOW,
            ..HubSettings::default()
        };
        let limits = ConnectionLimits {
            per_ip: 1_000,
            total: 1_000,
            outbox: 1 << 20,
        };
        let driver = seeded(settings, ice(), limits, rng.random(), on_revoke);
        let shared = Arc::new(Shared::default());
        let post = Arc::new(Post {
            shared: Arc::clone(&shared),
            said: Mutex::default(),
        });
        driver.join_cluster(Arc::clone(&post) as Arc<dyn Nodes>);
        let settings = Settings {
            secrets: Secrets::new(&["s".repeat(32).into()]).unwrap(),
            lease: LEASE,
            isolated,
        };
        let mut effects = vec![];
        let node = Node::new(settings, rng.random(), now(), &mut effects);
        let mut machine = Self {
            run,
            inbox: node.me(),
            node,
            effects,
            signaling: Signaling::new(Arc::clone(&driver), Arc::clone(&shared)),
            shared,
            driver,
            post,
            calls: VecDeque::new(),
            batches: VecDeque::new(),
            answers: VecDeque::new(),
            arriving: VecDeque::new(),
            is_subscribed: false,
            listens_at: None,
            frozen_until: 0,
            cut_until: 0,
            connection: 1,
            beat_on: 1,
            answered_on: 0,
            failed_era: None,
            joined: false,
            leaving: None,
            due: None,
            plant,
            words: 0,
            saved: BTreeSet::new(),
        };
        machine.pump(0, &[]);
        machine
    }

    pub(super) fn is_open(&self) -> bool {
        self.post.is_open()
    }

    /// One turn of its task; inputs in the order in which they come.
    pub(super) fn turn(&mut self, step: u64, earlier: &[Incarnation], rng: &mut StdRng) {
        let at = now();
        if self.due.is_none_or(|due| due <= at) {
            self.node.handle_timeout(at, &mut self.effects);
            self.pump(step, earlier);
        }
        let first_answers = rng.random_bool(0.5);
        for answers in [first_answers, !first_answers] {
            let next = |machine: &mut Self| {
                let queue = match answers {
                    true => &mut machine.answers,
                    false => &mut machine.arriving,
                };
                let is_due = queue.front().is_some_and(|(due, _)| *due <= step);
                is_due.then(|| queue.pop_front())?
            };
            while let Some((_, input)) = next(self) {
                if let Input::Beat(..) = &input
                    && std::mem::replace(&mut self.answered_on, self.beat_on) != self.beat_on
                {
                    self.input(step, Input::Reconnected, earlier);
                }
                self.input(step, input, earlier);
            }
        }
        if self.is_open() {
            self.driver.with_hub(|hub, now, effects| {
                if hub.next_timeout().is_some_and(|due| due <= now.instant) {
                    hub.handle_timeout(now, effects);
                }
            });
        }
        if step.is_multiple_of(3) {
            self.driver.tick();
        }
        self.pump(step, earlier);
    }

    pub(super) fn input(&mut self, step: u64, input: Input, earlier: &[Incarnation]) {
        self.handle(step, input);
        self.pump(step, earlier);
    }

    fn handle(&mut self, step: u64, input: Input) {
        if !matches!(input, Input::Received(_)) {
            trace(step, || format!("run {} <- {input:?}", self.run));
        }
        self.node.handle(now(), input, &mut self.effects);
    }

    /// Carries everything out that waits between the node and its signaling.
    pub(super) fn pump(&mut self, step: u64, earlier: &[Incarnation]) {
        loop {
            for effect in std::mem::take(&mut self.effects) {
                let Some(effect) = self.plant_in(effect) else {
                    continue;
                };
                if !matches!(effect, Effect::Publish { .. }) {
                    trace(step, || format!("run {} -> {effect:?}", self.run));
                }
                match self.signaling.carry_out(effect) {
                    Carried::Done => {}
                    Carried::Answered(input) => self.handle(step, input),
                    Carried::Other(effect) => self.call(step, effect, earlier),
                }
            }
            if !self.effects.is_empty() {
                continue;
            }
            let said = lock(&self.post.said).pop_front();
            let input = match said {
                Some(Said::Seek(conn, sought)) => Input::Seek(conn, sought),
                Some(Said::Word(node, word)) => Input::Say(Incarnation::from_bits(node.0), word),
                None if self.shared.changed.swap(false, Ordering::Relaxed) => Input::Changed,
                None => break,
            };
            self.handle(step, input);
        }
        self.due = self.node.next_timeout(now());
    }

    fn call(&mut self, step: u64, effect: Effect, earlier: &[Incarnation]) {
        let ask = match effect {
            Effect::Listen(me) => {
                self.inbox = me;
                self.is_subscribed = false;
                self.arriving.clear();
                self.listens_at = Some(step + 1);
                return;
            }
            Effect::Joined => {
                self.joined = true;
                let me = self.node.me();
                let asks = earlier.iter().filter(|node| **node != me);
                let asks: Vec<_> = asks.map(|node| Ask::Count(*node)).collect();
                return asks.into_iter().for_each(|ask| self.ask(step, ask));
            }
            Effect::Beat { me, known, drawn } => Ask::Beat(me, known, drawn),
            Effect::Bury(node, count, mark) => Ask::Bury(node, count, mark),
            Effect::Claim {
                ticket,
                me,
                room,
                expected,
            } => Ask::Claim(ticket, me, room, expected),
            Effect::Save { me, saves, images } => Ask::Save(me, saves, images),
            Effect::Publish { to, id, batch, era } => {
                // Behind one that has failed, all of its era fail.
                if self.failed_era.is_none_or(|failed| failed < era) {
                    let ask = Ask::Publish(to, id, batch, era);
                    self.batches.push_back(call(step, ask));
                }
                return;
            }
            Effect::Foreign => panic!("there is one secret"),
            _ => return,
        };
        self.ask(step, ask);
    }

    fn ask(&mut self, step: u64, ask: Ask) {
        let ask = self.plant_into(ask);
        let on = matches!(ask, Ask::Claim(..)).then_some(self.answered_on);
        self.calls.push_back(Call {
            on,
            ..call(step, ask)
        });
    }

    /// A request gets no answer.
    pub(super) fn fails(&mut self, step: u64, failed: &Call) {
        if let Ask::Publish(.., era) = &failed.ask {
            let era = *era;
            self.failed_era = self.failed_era.max(Some(era));
            self.batches
                .retain(|call| !matches!(call.ask, Ask::Publish(.., other) if other <= era));
        }
        if let Some(input) = failed.failure().filter(|_| !failed.given_up) {
            self.answers.push_back((step, input));
        }
    }

    /// The subscription ends, and begins again when Redis is reached.
    pub(super) fn deafen(&mut self, step: u64, again: u64) {
        if std::mem::take(&mut self.is_subscribed) {
            self.arriving.push_back((step, Input::Deaf));
        }
        self.connection += 1;
        self.listens_at = Some(again);
    }
}

fn call(step: u64, ask: Ask) -> Call {
    Call {
        ask,
        sent: now(),
        at: step,
        due: step + 1,
        on: None,
        given_up: false,
    }
}
