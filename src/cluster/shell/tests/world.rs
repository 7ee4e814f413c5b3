//! Time, boxes, Redis and faults.

use super::super::super::node::Input;
use super::clients::{Client, Wire};
use super::judge::Room;
use super::machine::{Machine, now};
use super::planted::Plant;
use super::redis::{Ask, Call, PATIENCE, Store};
use super::*;
use crate::cluster::Incarnation;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

pub(super) const NODES: usize = 3;
/// How much of what happened is shown of a failure.
const STORY: usize = 400;
/// Steps of faults, and of the quiet behind them.
const FAULTS: u64 = 600;
const QUIET: u64 = steps(WINDOW) + 2 * steps(LEASE) + 100;

/// A user, and the expiry up to which its credentials are refused.
type Revoked = (String, Option<u64>);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All faults; a node without Redis stops.
    Stop,
    /// All faults; a node without Redis serves on.
    Serve,
    /// Nodes leave in order and come back, and sockets are cut.
    Deploy,
}

/// What was done in all.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) faults: u64,
    pub(super) joins: u64,
    pub(super) resumes: u64,
    pub(super) gaps: u64,
    pub(super) messages: u64,
    pub(super) kicks: u64,
    pub(super) refused: u64,
    pub(super) lost: u64,
    pub(super) takeovers: u64,
    pub(super) yields: u64,
    pub(super) handovers: u64,
    pub(super) resets: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.faults += other.faults;
        self.joins += other.joins;
        self.resumes += other.resumes;
        self.gaps += other.gaps;
        self.messages += other.messages;
        self.kicks += other.kicks;
        self.refused += other.refused;
        self.lost += other.lost;
        self.takeovers += other.takeovers;
        self.yields += other.yields;
        self.handovers += other.handovers;
        self.resets += other.resets;
    }

    /// Whether enough was tried for the result to say something.
    pub(super) fn are_of_use(&self, kind: Kind) -> bool {
        let moved = match kind {
            Kind::Deploy => return self.handovers > 5 && self.gaps == 0 && self.messages > 500,
            _ => self.takeovers > 20 && self.yields > 2 && self.gaps > 20 && self.resets > 20,
        };
        moved && self.resumes > 200 && self.messages > 5_000 && self.kicks > 5 && self.refused > 2
    }
}

pub(super) struct World {
    pub(super) kind: Kind,
    seed: u64,
    pub(super) rng: StdRng,
    runtime: tokio::runtime::Runtime,
    pub(super) step: u64,
    unix_ms: u64,
    pub(super) plant: Plant,
    pub(super) store: Store,
    /// As it was a moment ago: what a replica would have.
    pub(super) replica: Store,
    pub(super) redis_away_until: u64,
    pub(super) redis_frozen_until: u64,
    pub(super) boxes: Vec<Machine>,
    /// Until when each box is down.
    pub(super) down_until: Vec<u64>,
    pub(super) earlier: Vec<Vec<Incarnation>>,
    /// Requests of boxes that are gone.
    pub(super) orphans: Vec<(Instant, Ask)>,
    runs: u64,
    pub(super) wires: BTreeMap<u64, Wire>,
    pub(super) clients: Vec<Client>,
    pub(super) rooms: Vec<Room>,
    pub(super) next: u64,
    /// Peers that a host was about to kick.
    pub(super) kicked: BTreeSet<String>,
    /// Until when a store that has forgotten may have given a room to a second node.
    pub(super) unsettled_until: u64,
    /// Until when a home may find that Redis has another one for its room, and yield it.
    pub(super) conflicts_until: u64,
    pub(super) is_quiet: bool,
    pub(super) totals: Totals,
    revoked: Arc<Mutex<Vec<Revoked>>>,
    story: VecDeque<String>,
}

impl World {
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        Self::with(kind, seed, Plant::Nothing)
    }

    pub(super) fn with(kind: Kind, seed: u64, plant: Plant) -> Self {
        let start = Instant::now();
        crate::clock::boot_nanos_at(start);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let mut world = Self {
            kind,
            seed,
            rng: StdRng::seed_from_u64(seed),
            runtime,
            step: 0,
            unix_ms: 1_700_000_000_000,
            store: Store::new(plant),
            plant,
            replica: Store::new(plant),
            redis_away_until: 0,
            redis_frozen_until: 0,
            boxes: vec![],
            down_until: vec![0; NODES],
            earlier: vec![vec![]; NODES],
            orphans: vec![],
            runs: 0,
            wires: BTreeMap::new(),
            clients: (0..CLIENTS).map(Client::new).collect(),
            rooms: ROOMS.map(Room::new).into(),
            next: 0,
            kicked: BTreeSet::new(),
            unsettled_until: 0,
            conflicts_until: 0,
            is_quiet: false,
            totals: Totals::default(),
            revoked: Arc::default(),
            story: VecDeque::new(),
        };
        let handle = world.runtime.handle().clone();
        let _guard = handle.enter();
        crate::clock::simulate(world.unix_ms);
        for _ in 0..NODES {
            let fresh = world.start();
            world.boxes.push(fresh);
        }
        world
    }

    fn start(&mut self) -> Machine {
        self.runs += 1;
        let isolated = match self.kind {
            Kind::Serve => Isolated::Serve,
            _ => Isolated::Stop,
        };
        let revoked = Arc::clone(&self.revoked);
        let on_revoke = Box::new(move |user: &str, until: Option<u64>, _| {
            lock(&revoked).push((user.to_owned(), until));
        });
        Machine::new(self.runs, isolated, self.plant, &mut self.rng, on_revoke)
    }

    /// Notes what happens, for the story of a failure.
    pub(super) fn tell(&mut self, what: impl Into<String>) {
        if self.story.len() >= STORY {
            self.story.pop_front();
        }
        let seconds = self.step as f64 * STEP.as_secs_f64();
        let what = what.into();
        trace(self.step, || what.clone());
        self.story.push_back(format!("{seconds:6.1} s  {what}"));
    }

    /// Something is not as it has to be.
    pub(super) fn fail(&self, why: impl std::fmt::Display) -> ! {
        let story: Vec<_> = self.story.iter().map(String::as_str).collect();
        let seconds = self.step as f64 * STEP.as_secs_f64();
        panic!(
            "\n{}\n{seconds:6.1} s  {why}\n({:?}, seed {}: CALLBOX_SEEDS={}..{})\n",
            story.join("\n"),
            self.kind,
            self.seed,
            self.seed,
            self.seed + 1
        );
    }

    pub(super) fn is_up(&self, index: usize) -> bool {
        self.down_until[index] <= self.step
    }

    pub(super) fn is_running(&self, index: usize) -> bool {
        self.is_up(index) && self.boxes[index].frozen_until <= self.step
    }

    pub(super) fn is_serving(&self, index: usize) -> bool {
        self.is_running(index) && self.boxes[index].is_open()
    }

    /// Whether a box reaches Redis.
    pub(super) fn is_connected(&self, index: usize) -> bool {
        self.boxes[index].cut_until <= self.step
            && self.redis_away_until <= self.step
            && self.redis_frozen_until <= self.step
    }

    /// All of it: faults, quiet, and the end.
    pub(super) fn run(mut self) -> Totals {
        let handle = self.runtime.handle().clone();
        let _guard = handle.enter();
        for _ in 0..60 {
            self.step();
        }
        for _ in 0..FAULTS {
            self.fault();
            self.step();
        }
        self.quiet();
        for _ in 0..QUIET {
            self.step();
        }
        self.last_words();
        for _ in 0..40 {
            self.step();
        }
        self.judge_quiet();
        self.everybody_leaves();
        for _ in 0..steps(WINDOW) + 60 {
            self.step();
        }
        self.judge_empty();
        for of in &self.boxes {
            let gauges = of.node.gauges(now());
            self.totals.takeovers += gauges.takeovers;
            self.totals.yields += gauges.yields;
            self.totals.handovers += gauges.handovers;
            self.totals.resets += gauges.resets.iter().sum::<u64>();
        }
        self.totals
    }

    pub(super) fn step(&mut self) {
        self.step += 1;
        self.unix_ms += STEP.as_millis() as u64;
        crate::clock::simulate(self.unix_ms);
        self.runtime.block_on(tokio::time::advance(STEP));
        if self.step.is_multiple_of(10) && self.redis_away_until <= self.step {
            self.replica = self.store.clone();
        }
        for (sent, ask) in std::mem::take(&mut self.orphans) {
            self.store.carry_out(self.step, sent, ask);
        }
        for index in 0..NODES {
            if self.down_until[index] == self.step {
                self.tell(format!("node {index} starts"));
                self.boxes[index] = self.start();
            }
            if self.is_up(index) {
                self.serve_redis(index);
            }
            if self.is_running(index) {
                self.turn(index);
            }
        }
        self.act();
        self.look();
        let revoked = std::mem::take(&mut *lock(&self.revoked));
        for (user, until) in revoked {
            self.judge_revoked(&user, until);
        }
    }

    fn turn(&mut self, index: usize) {
        let step = self.step;
        let of = &mut self.boxes[index];
        of.turn(step, &self.earlier[index], &mut self.rng);
        self.move_along(index);
        let of = &mut self.boxes[index];
        of.pump(step, &self.earlier[index]);
        if let Some(since) = of.leaving
            && (of.node.has_given_up() || step > since + 100)
        {
            of.shared.is_handing.store(true, Ordering::Relaxed);
            self.store.model.leave(self.boxes[index].node.me());
            let why = "this node leaves: resume";
            self.boxes[index].driver.close_all(CloseCode::Restart, why);
            self.move_along(index);
            self.tell(format!("node {index} has left"));
            self.end(index, 20);
        }
    }

    /// A box has ended, and starts again after a while.
    pub(super) fn end(&mut self, index: usize, pause: u64) {
        let gauges = self.boxes[index].node.gauges(now());
        self.totals.takeovers += gauges.takeovers;
        self.totals.yields += gauges.yields;
        self.totals.handovers += gauges.handovers;
        self.totals.resets += gauges.resets.iter().sum::<u64>();
        self.down_until[index] = self.step + 1 + self.rng.random_range(0..pause);
        let of = &mut self.boxes[index];
        self.earlier[index].push(of.node.me());
        for call in of.calls.drain(..).chain(of.batches.drain(..)) {
            if self.rng.random_bool(0.5) && !matches!(call.ask, Ask::Publish(..)) {
                self.orphans.push((call.sent, call.ask));
            }
        }
        self.cut_wires_of(index);
    }

    fn serve_redis(&mut self, index: usize) {
        let step = self.step;
        let is_frozen = self.redis_frozen_until > step;
        let is_cut = self.boxes[index].cut_until > step || self.redis_away_until > step;
        self.listen(index, is_frozen, is_cut);
        for are_batches in [false, true] {
            self.give_up_late(index, are_batches);
            while !is_frozen && let Some(call) = self.next_call(index, are_batches) {
                if call.given_up {
                    // It has waited in the server's buffer.
                    self.execute(index, call);
                } else if is_cut {
                    let of = &mut self.boxes[index];
                    of.fails(step, &call);
                    of.connection += 1;
                    if self.redis_away_until <= step && self.rng.random_bool(0.5) {
                        // Its answer is lost on the way back.
                        let given_up = true;
                        self.execute(index, Call { given_up, ..call });
                    }
                } else {
                    self.execute(index, call);
                }
            }
        }
    }

    fn next_call(&mut self, index: usize, are_batches: bool) -> Option<Call> {
        let of = &mut self.boxes[index];
        let queue = match are_batches {
            true => &mut of.batches,
            false => &mut of.calls,
        };
        let is_due = queue.front().is_some_and(|call| call.due <= self.step);
        is_due.then(|| queue.pop_front())?
    }

    /// Requests that have waited for too long.
    fn give_up_late(&mut self, index: usize, are_batches: bool) {
        let step = self.step;
        loop {
            let of = &mut self.boxes[index];
            let queue = match are_batches {
                true => &mut of.batches,
                false => &mut of.calls,
            };
            let is_late = |call: &Call| !call.given_up && step > call.at + PATIENCE;
            let late = queue.iter().position(is_late);
            let Some(call) = late.and_then(|at| queue.remove(at)) else {
                return;
            };
            of.fails(step, &call);
            of.connection += 1;
            if self.rng.random_bool(0.5) && !matches!(call.ask, Ask::Publish(..)) {
                let given_up = true;
                of.calls.push_back(Call { given_up, ..call });
            }
        }
    }

    fn listen(&mut self, index: usize, is_frozen: bool, is_cut: bool) {
        let step = self.step;
        let of = &mut self.boxes[index];
        if of.listens_at.is_some_and(|at| at <= step) {
            if is_frozen || is_cut {
                of.listens_at = Some(step + 10);
                of.answers.push_back((step, Input::Unreached(now())));
                return;
            }
            of.listens_at = None;
            of.is_subscribed = true;
            of.arriving.push_back((step, Input::Listening(of.inbox)));
        }
    }

    fn execute(&mut self, index: usize, call: Call) {
        let step = self.step;
        let delay = step + self.rng.random_range(0..3);
        let of = &mut self.boxes[index];
        if call.on.is_some_and(|on| on != of.connection) && !call.given_up {
            return of.fails(step, &call);
        }
        if let Ask::Beat(..) = call.ask
            && !call.given_up
        {
            of.beat_on = of.connection;
        }
        if let Ask::Publish(to, id, batch, _) = call.ask {
            let listeners = self.publish(to, &batch);
            if !call.given_up {
                let answer = Input::Published(to, id, listeners);
                self.boxes[index].answers.push_back((delay, answer));
            }
            return;
        }
        let answer = self.store.carry_out(step, call.sent, call.ask);
        if let Some(answer) = answer.filter(|_| !call.given_up) {
            self.boxes[index].answers.push_back((delay, answer));
        }
    }

    fn publish(&mut self, to: Incarnation, batch: &[u8]) -> u64 {
        let step = self.step;
        let delay = step + self.rng.random_range(0..3);
        let dice = match self.kind {
            Kind::Deploy => 9,
            _ if self.is_quiet => 9,
            _ => self.rng.random_range(0..1_000),
        };
        let receiver = (0..NODES).find(|index| {
            let of = &self.boxes[*index];
            self.is_up(*index) && of.inbox == to && of.is_subscribed
        });
        let Some(receiver) = receiver else { return 0 };
        let arriving = &mut self.boxes[receiver].arriving;
        let input = || Input::Received(batch.to_vec());
        // Redis itself loses, repeats and exchanges nothing; a link has to bear it all the same.
        match dice {
            0 => {}
            1 => arriving.extend([(delay, input()), (delay, input())]),
            2 => {
                let at = arriving.len().saturating_sub(1);
                arriving.insert(at, (delay, input()));
            }
            _ => arriving.push_back((delay, input())),
        }
        1
    }
}
