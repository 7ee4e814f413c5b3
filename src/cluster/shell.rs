//! Runs a [`Node`]: one task that owns it, carries its effects out, and brings the answers of Redis.
//!
//! Signaling speaks to it through [`Cluster`], which only puts into a queue and reads flags, as it is
//! called under the lock of the hub.

mod calls;
mod handle;
mod namesakes;
mod notes;
mod questions;
mod queue;
mod records;
mod signaling;
mod upkeep;

use super::Incarnation;
use super::membership::Beat;
use super::node::{Effect, Gauges, Input, Node, Settings};
use super::redis::Redis;
use super::wire::Head;
use crate::clock;
use crate::signal::hub::ConnId;
use crate::signal::{NodeId, Sought, Word};
use calls::Calls;
use futures_util::future::BoxFuture;
pub use handle::Cluster;
use namesakes::Namesakes;
pub use notes::Note;
use questions::Questions;
use queue::Queues;
use serde_json::Value;
use signaling::{Carried, Signaling};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use upkeep::Known;

/// Inputs of signaling that may wait before clients are read less.
const LIGHT: usize = 10_000;
/// Inputs that are taken before the timers and what is shown are looked at.
const MAX_TAKEN: usize = 64;
/// The gate is open until something else is said.
const FOREVER: u64 = u64::MAX;
/// How often is looked whether a client has waited for too long.
const SEEKS: Duration = Duration::from_millis(250);

/// Called with a user whose relays end at all nodes, and the expiry up to which its credentials are
/// refused. What was revoked before may come again.
pub type OnRevoke = Box<dyn Fn(&str, u64) + Send + Sync>;

/// Called with what all nodes are to know, as Redis has it; returns what Redis lacks of it.
pub type OnNoted = Box<dyn Fn(Vec<String>) -> Vec<Note> + Send + Sync>;

/// Carries out what another node asks; `None`: there is no answer.
pub type OnAsk = Box<dyn Fn(String) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// Called at the start with what the nodes that live say of themselves; returns why this one may not join
/// them.
pub type OnMeet = Box<dyn Fn(&[Value]) -> Option<String> + Send + Sync>;

/// Called when clients want the rooms of all nodes.
pub type OnList = Box<dyn Fn() + Send + Sync>;

/// What a node is and where its Redis is.
pub struct Options {
    /// The store.
    pub redis: Redis,
    /// What the node runs by.
    pub settings: Settings,
    /// The name of the node.
    pub name: String,
    /// What it says of itself, as a JSON object.
    pub describe: Box<dyn Fn() -> Value + Send + Sync>,
    /// Revokes at this node what another one has revoked.
    pub on_revoke: OnRevoke,
    /// Learns what other nodes have noted.
    pub on_noted: OnNoted,
    /// Answers what another node asks.
    pub on_ask: OnAsk,
    /// Fetches the rooms of other nodes.
    pub on_list: OnList,
    /// Judges the nodes that live.
    pub on_meet: OnMeet,
}

/// How far a node has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It has not registered yet.
    Starting,
    /// It serves.
    Joined,
    /// It cannot: why.
    Failed(String),
    /// It has given up its rooms, and is not in the list of nodes any more.
    Left,
}

/// What the task and its users share.
#[derive(Debug, Default)]
struct Shared {
    /// Until when inputs are taken, as nanoseconds of [`clock::boot`].
    open_until: AtomicU64,
    /// The images of all rooms are taken, so that no inputs are any more: this node leaves.
    is_handing: AtomicBool,
    /// All connections were closed, and none is taken until Redis answers.
    has_stopped: AtomicBool,
    /// Inputs that wait.
    waiting: AtomicUsize,
    /// What signaling has said and the task has not taken.
    queues: Queues,
    /// Whether the task knows already that there are changes.
    changed: AtomicBool,
    /// Bytes of batches that have arrived and were not taken.
    arrived: AtomicUsize,
    questions: Questions,
    /// Words to other nodes and of them.
    said: AtomicU64,
    received: AtomicU64,
    /// Nodes for which much waits.
    heavy: Mutex<BTreeSet<u64>>,
    state: Mutex<Shown>,
    reconnects: AtomicU64,
}

/// What the task shows.
#[derive(Debug, Default)]
struct Shown {
    gauges: Gauges,
    living: Vec<Incarnation>,
    me: Option<Incarnation>,
}

/// What is asked of the task.
#[derive(Debug)]
enum Asked {
    Input(Input),
    /// A beat that was sent then was answered, by the connection to Redis with that number.
    Beat(Instant, Beat, u64),
    /// A connection seeks something.
    Seek(ConnId, Sought),
    /// Signaling says something that takes so many bytes.
    Said(NodeId, Word, usize),
    /// Too much waits for a node.
    Full(NodeId),
    /// Signaling has changes.
    Changed,
    /// The inbox with that number has something to say.
    Inbox(u64, Input),
    Revoke(String, u64),
    /// What the nodes that live say of themselves, at the start of this one.
    Met(Vec<Value>),
    /// Redis does not have these revocations yet.
    Unsent(Vec<(String, u64)>),
    /// What Redis has of revocations, and notes; `None`: it gave no answer.
    Revoked(Option<Known>),
    /// Something that all nodes are to know.
    Note(Note),
    Look,
    Unkept(Vec<Note>),
    /// Other nodes that live have this one's name.
    Namesakes(String, Vec<Incarnation>),
    /// Whether a room is this node's, once all before is carried out.
    Owns(String, oneshot::Sender<bool>),
    Leave,
    /// What was not given up stays as Redis has it.
    Abandon,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Task {
    node: Node,
    effects: VecDeque<Effect>,
    calls: Calls,
    shared: Arc<Shared>,
    signaling: Signaling,
    describe: Box<dyn Fn() -> Value + Send + Sync>,
    on_revoke: OnRevoke,
    on_noted: OnNoted,
    on_ask: OnAsk,
    stage: watch::Sender<Stage>,
    /// The number of the connection on which the last beat was answered. Claims go on no other one: on
    /// another one Redis may have forgotten, which the next beat says.
    connection: u64,
    /// Revocations that Redis does not have yet.
    unsent: VecDeque<(String, u64)>,
    /// Notes that Redis does not have yet, the newest of each.
    unkept: BTreeMap<String, Note>,
    namesakes: Namesakes,
    /// How far the node had come before it failed.
    unfailed: Option<Stage>,
    on_meet: OnMeet,
    /// Set while what other nodes have revoked may be unknown here.
    misses: bool,
    leaving: bool,
    abandoned: bool,
}

impl Task {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Asked>) {
        let mut seeks = tokio::time::interval(SEEKS);
        seeks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.calls.begin();
        let mut taken = vec![];
        loop {
            self.carry_out();
            self.show();
            if self.abandoned {
                self.shared.is_handing.store(true, Ordering::Relaxed);
                self.calls.leave(self.node.me()).await;
                return;
            }
            if self.leaving && self.node.has_given_up() {
                // Connections that are left are closed, and nothing more is read from them.
                self.shared.is_handing.store(true, Ordering::Relaxed);
                self.calls.leave(self.node.me()).await;
                self.stage.send_replace(Stage::Left);
                return;
            }
            let now = clock::boot_instant();
            let next = self.node.next_timeout(now);
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep(at.saturating_duration_since(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = asked.recv_many(&mut taken, MAX_TAKEN) => {
                    for asked in taken.drain(..) {
                        self.take(asked);
                        self.carry_out();
                    }
                }
                () = wait => self.timeout(),
                _ = seeks.tick() => self.signaling.driver.tick(),
            }
        }
    }

    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Input(input) => self.input(input),
            Asked::Beat(sent, beat, connection) => self.beat(sent, beat, connection),
            Asked::Seek(conn, sought) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.input(Input::Seek(conn, sought));
            }
            Asked::Said(node, word, bytes) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.shared.queues.taken(node.0, bytes);
                self.shared.said.fetch_add(1, Ordering::Relaxed);
                self.input(Input::Say(Incarnation::from_bits(node.0), word));
            }
            // What is said from here on goes over the link that follows.
            Asked::Full(node) => {
                self.shared.queues.reset(node.0);
                self.input(Input::Full(Incarnation::from_bits(node.0)));
            }
            Asked::Changed => {
                self.shared.changed.store(false, Ordering::Relaxed);
                self.input(Input::Changed);
            }
            Asked::Inbox(inbox, input) => {
                if let Input::Received(batch) = &input {
                    if let Err(error) = Head::read(batch) {
                        tracing::warn!("another node is not understood: {error}");
                    }
                    let arrived = &self.shared.arrived;
                    arrived.fetch_sub(batch.len(), Ordering::Relaxed);
                }
                if inbox == self.calls.inbox() {
                    self.input(input);
                }
            }
            Asked::Revoke(user, until) => {
                let word = Word::Revoke {
                    user: user.clone(),
                    until,
                };
                self.input(Input::SayAll(word));
                self.keep_unsent(vec![(user, until)]);
                self.send_revocations();
            }
            Asked::Unsent(users) => self.keep_unsent(users),
            Asked::Revoked(None) => self.misses = true,
            Asked::Met(others) => match (self.on_meet)(&others) {
                Some(why) => self.fail(why),
                None => self.calls.load_revocations(),
            },
            Asked::Note(note) => {
                self.keep_later(vec![note], true);
                self.keep_notes();
            }
            Asked::Look => self.calls.load_revocations(),
            Asked::Owns(room, answer) => {
                let _ = answer.send(self.node.owns(&room));
            }
            Asked::Unkept(notes) => self.keep_later(notes, false),
            Asked::Namesakes(name, others) => self.has_namesakes(&name, &others),
            Asked::Revoked(Some((users, noted))) => self.learn(users, noted),
            Asked::Leave => {
                self.leaving = true;
                self.input(Input::GiveUp);
            }
            Asked::Abandon => self.abandoned = true,
        }
    }

    fn beat(&mut self, sent: Instant, beat: Beat, connection: u64) {
        if std::mem::replace(&mut self.connection, connection) != connection {
            let reconnects = connection.saturating_sub(1);
            self.shared.reconnects.store(reconnects, Ordering::Relaxed);
            // It may be another memory, which lacks what was noted.
            self.misses |= *self.stage.borrow() == Stage::Joined;
            self.input(Input::Reconnected);
        }
        self.input(Input::Beat(sent, beat));
        let description = (self.describe)();
        self.calls.describe(self.node.me(), description);
        if std::mem::take(&mut self.misses) {
            self.calls.load_revocations();
        }
        self.look_for_namesakes();
        self.keep_notes();
        self.send_revocations();
    }

    fn input(&mut self, input: Input) {
        let mut effects = vec![];
        self.node.handle(clock::boot_instant(), input, &mut effects);
        self.effects.extend(effects);
    }

    fn timeout(&mut self) {
        let mut effects = vec![];
        self.node
            .handle_timeout(clock::boot_instant(), &mut effects);
        self.effects.extend(effects);
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match &effect {
            Effect::Lost(node) | Effect::Reset { node, .. } if !self.signaling.is_handing() => {
                self.missed(*node);
            }
            Effect::Word(..) => {
                self.shared.received.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        match self.signaling.carry_out(effect) {
            Carried::Done => {}
            Carried::Answered(input) => self.input(input),
            Carried::Other(effect) => self.call(effect),
        }
    }

    /// Carries out an effect that is not one of signaling.
    fn call(&mut self, effect: Effect) {
        match effect {
            Effect::Listen(me) => {
                if self.calls.inbox() > 0 {
                    tracing::warn!(
                        "the other nodes have given this one up: it begins anew as {me}"
                    );
                    self.namesakes.begin(clock::boot_instant());
                }
                self.calls.listen(me);
            }
            Effect::Beat { me, known, drawn } => self.calls.beat(me, known, drawn),
            Effect::Bury(node, count, mark) => self.calls.bury(node, count, mark),
            Effect::Claim {
                ticket,
                me,
                room,
                expected,
            } => (self.calls).claim(ticket, me, room, expected, self.connection),
            Effect::Save { me, saves, images } => self.calls.save(me, saves, images),
            Effect::Publish { to, id, batch, era } => self.calls.publish(to, id, batch, era),
            Effect::Word(_, Word::Revoke { user, until }) => (self.on_revoke)(&user, until),
            Effect::Word(from, Word::Ask { id, question }) => {
                let answer = (self.on_ask)(question);
                self.calls.answer(from, id, answer);
            }
            Effect::Word(from, Word::Answer { id, answer }) => {
                self.shared.questions.answered(from, id, answer);
            }
            Effect::Joined => {
                let (me, living): (_, Vec<_>) = (self.node.me(), self.node.living().collect());
                self.calls.look_for_namesakes(me, living.clone());
                self.namesakes.begin(clock::boot_instant());
                self.calls.meet(me, living);
            }
            Effect::Foreign => {
                let why = "cluster.secret does not open what other nodes have written to this Redis: \
                           give all nodes the same secret, or this cluster another cluster.prefix";
                tracing::warn!("{why}");
                self.fail(why.to_owned());
            }
            Effect::Familiar => {
                if let Some(stage) = self.unfailed.take() {
                    self.stage.send_replace(stage);
                }
            }
            _ => {}
        }
    }

    fn fail(&mut self, why: String) {
        let before = self.stage.send_replace(Stage::Failed(why));
        if !matches!(before, Stage::Failed(_)) {
            self.unfailed = Some(before);
        }
    }

    fn show(&self) {
        let gauges = self.node.gauges(clock::boot_instant());
        let heavy = self.node.heavy().map(Incarnation::bits).collect();
        *lock(&self.shared.heavy) = heavy;
        let mut shown = lock(&self.shared.state);
        shown.gauges = gauges;
        shown.me = Some(self.node.me());
        if !self.node.living().eq(shown.living.iter().copied()) {
            shown.living = self.node.living().collect();
        }
    }
}

#[cfg(test)]
mod tests;
