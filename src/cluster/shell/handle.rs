//! A node, as the rest of the program sees it: it puts into the queue of the task, reads what the task
//! shows, and waits for answers.

use super::super::Incarnation;
use super::super::node::Input;
use super::super::node::{Gauges, Node, hex};
use super::super::redis::{Redis, StoreError};
use super::super::seal::Secrets;
use super::calls::{Calls, read};
use super::namesakes::Namesakes;
use super::notes::Note;
use super::queue::Put;
use super::signaling::Signaling;
use super::{Asked, LIGHT, OnList, Options, Shared, Stage, Task, lock};
use crate::clock;
use crate::protocol::Locator;
use crate::signal::hub::ConnId;
use crate::signal::{Driver, NodeId, Nodes, Sought, Word};
use prometheus_client::metrics::histogram::Histogram;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// No connection has this number: who seeks a room for an operator.
const NOBODY: ConnId = ConnId(u64::MAX);
/// How often is looked whether a room is taken over.
const LOOK: Duration = Duration::from_millis(50);

/// A node, as the rest of the program sees it.
pub struct Cluster {
    inputs: mpsc::UnboundedSender<Asked>,
    shared: Arc<Shared>,
    redis: Arc<Redis>,
    secrets: Secrets,
    stage: watch::Receiver<Stage>,
    on_list: OnList,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({:?})", self.redis)
    }
}

impl Nodes for Cluster {
    fn is_open(&self) -> bool {
        self.shared.is_open_at(clock::boot)
    }

    fn has_stopped(&self) -> bool {
        self.shared.has_stopped.load(Ordering::Relaxed)
    }

    fn has_handed(&self) -> bool {
        self.shared.is_handing.load(Ordering::Relaxed)
    }

    fn seek(&self, conn: ConnId, sought: &Sought) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.inputs.send(Asked::Seek(conn, sought.clone()));
    }

    fn unsought(&self, conn: ConnId) {
        let _ = self.inputs.send(Asked::Input(Input::Unsought(conn)));
    }

    fn say(&self, node: NodeId, word: Word) {
        let asked = match self.shared.queues.put(node.0, &word) {
            Put::Waits(bytes) => {
                self.shared.waiting.fetch_add(1, Ordering::Relaxed);
                Asked::Said(node, word, bytes)
            }
            Put::Overflows => Asked::Full(node),
            Put::Dropped => return,
        };
        let _ = self.inputs.send(asked);
    }

    fn say_all(&self, word: &Word) {
        for node in self.others() {
            self.say(NodeId(node.bits()), word.clone());
        }
    }

    fn is_light(&self, node: NodeId) -> bool {
        let heavy = || lock(&self.shared.heavy).contains(&node.0);
        self.shared.waiting.load(Ordering::Relaxed) < LIGHT
            && self.shared.queues.is_light(node.0)
            && !heavy()
    }

    fn changed(&self) {
        if !self.shared.changed.swap(true, Ordering::Relaxed) {
            let _ = self.inputs.send(Asked::Changed);
        }
    }

    fn list_rooms(&self) {
        (self.on_list)();
    }
}

impl Cluster {
    /// Starts a node; the future runs it until it has left.
    pub fn start(options: Options, driver: Arc<Driver>) -> (Arc<Self>, impl Future<Output = ()>) {
        let (inputs, asked) = mpsc::unbounded_channel();
        let (stage, seen) = watch::channel(Stage::Starting);
        let shared = Arc::new(Shared::default());
        let redis = Arc::new(options.redis);
        let secrets = options.settings.secrets.clone();
        let cluster = Arc::new(Self {
            inputs: inputs.clone(),
            shared: Arc::clone(&shared),
            redis: Arc::clone(&redis),
            secrets: secrets.clone(),
            stage: seen,
            on_list: options.on_list,
        });
        driver.join_cluster(Arc::clone(&cluster) as Arc<dyn Nodes>);
        let mut effects = vec![];
        let node = Node::new(
            options.settings,
            rand::random(),
            clock::boot_instant(),
            &mut effects,
        );
        let task = Task {
            node,
            effects: effects.into(),
            calls: Calls::new(
                Arc::clone(&redis),
                inputs,
                options.name,
                secrets,
                Arc::clone(&shared),
            ),
            signaling: Signaling::new(driver, Arc::clone(&shared)),
            shared,
            describe: options.describe,
            on_revoke: options.on_revoke,
            on_noted: options.on_noted,
            on_ask: options.on_ask,
            stage,
            connection: 0,
            unsent: VecDeque::new(),
            unkept: BTreeMap::new(),
            namesakes: Namesakes::default(),
            unfailed: None,
            on_meet: options.on_meet,
            misses: false,
            leaving: false,
            abandoned: false,
        };
        (cluster, task.run(asked))
    }

    /// Revokes a user at all other nodes, and at those that are away for the moment.
    pub fn revoke(&self, user: &str, until: u64) {
        let _ = self.inputs.send(Asked::Revoke(user.to_owned(), until));
    }

    /// Has all nodes know something that come later, or are away for the moment.
    pub fn note(&self, note: Note) {
        let _ = self.inputs.send(Asked::Note(note));
    }

    /// Has the notes looked at again: who learns them was not there before.
    pub fn look_at_notes(&self) {
        let _ = self.inputs.send(Asked::Look);
    }

    /// How far the node has come.
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.clone()
    }

    /// What the node shows.
    pub fn gauges(&self) -> Gauges {
        lock(&self.shared.state).gauges
    }

    /// Bytes for other nodes that have not come to a link yet.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.queues.bytes()
    }

    /// Words to other nodes and of them so far.
    pub fn frames(&self) -> (u64, u64) {
        let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        (count(&self.shared.said), count(&self.shared.received))
    }

    /// How long Redis takes to answer.
    pub fn redis_seconds(&self) -> Histogram {
        self.redis.seconds()
    }

    /// The incarnation of this node.
    pub fn me(&self) -> Option<Incarnation> {
        lock(&self.shared.state).me
    }

    /// How often Redis was connected to anew.
    pub fn reconnects(&self) -> u64 {
        self.shared.reconnects.load(Ordering::Relaxed)
    }

    /// Gives all rooms up and takes the node out of the list; the future of [`Self::start`] ends then.
    pub fn leave(&self) {
        let _ = self.inputs.send(Asked::Leave);
    }

    /// Whether the node serves nobody, as it is without Redis.
    pub fn has_stopped(&self) -> bool {
        self.shared.has_stopped.load(Ordering::Relaxed)
    }

    /// Becomes the home of a room whose node is gone, as if somebody wanted to enter it; whether it has
    /// become so within that time.
    pub async fn take_over(&self, room: &Arc<str>, place: &Locator, patience: Duration) -> bool {
        let sought = Sought::Room(Arc::clone(room));
        let _ = self.inputs.send(Asked::Input(Input::Seek(NOBODY, sought)));
        let is_taken = async {
            // Redis says so before the room is made.
            while !self.owns(place).await {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, is_taken).await.is_ok()
    }

    async fn owns(&self, place: &Locator) -> bool {
        let (answer, answered) = oneshot::channel();
        let _ = self.inputs.send(Asked::Owns(hex(place), answer));
        answered.await.unwrap_or_default()
    }

    /// Ends the node where it stands: what it has not given up by now stays as Redis has it.
    pub fn abandon(&self) {
        let _ = self.inputs.send(Asked::Abandon);
    }

    /// Whether that is another node that lives.
    pub fn has(&self, node: Incarnation) -> bool {
        let shown = lock(&self.shared.state);
        Some(node) != shown.me && shown.living.contains(&node)
    }

    /// Asks another node; `None`: no answer came in that time, or too much waits for that node.
    pub async fn ask(
        &self,
        node: Incarnation,
        question: String,
        patience: Duration,
    ) -> Option<String> {
        if !self.is_light(NodeId(node.bits())) {
            return None;
        }
        let mut waiting = self.shared.questions.expect(node)?;
        let id = waiting.id;
        self.say(NodeId(node.bits()), Word::Ask { id, question });
        tokio::time::timeout(patience, waiting.answer())
            .await
            .ok()?
    }

    /// Nodes that live, beside this one.
    pub fn others(&self) -> Vec<Incarnation> {
        let shown = lock(&self.shared.state);
        let others = shown.living.iter().copied();
        others.filter(|node| Some(*node) != shown.me).collect()
    }

    /// The home of a room, by what stands for it; `None`: it is nobody's.
    ///
    /// # Errors
    /// Redis gives no answer.
    pub async fn home_of(&self, place: &Locator) -> Result<Option<Incarnation>, StoreError> {
        self.redis.owner(&hex(place)).await
    }

    /// What a node says of itself; `None` of one that has not said anything of late.
    pub async fn description(&self, node: Incarnation) -> Option<Value> {
        let sealed = self.redis.description(node).await.ok()??;
        read(&self.secrets, node, &sealed)
    }

    /// What each node says of itself; `None` of one that has not said anything of late.
    ///
    /// # Errors
    /// Redis gives no answer.
    pub async fn nodes(&self) -> Result<Vec<(Incarnation, Option<Value>)>, StoreError> {
        let living = lock(&self.shared.state).living.clone();
        let mut nodes = vec![];
        for node in living {
            let sealed = self.redis.description(node).await?;
            nodes.push((
                node,
                sealed.and_then(|sealed| read(&self.secrets, node, &sealed)),
            ));
        }
        Ok(nodes)
    }
}
