//! Calls of Redis on behalf of a node: each brings its answer to the task of the node.

use super::super::Incarnation;
use super::super::link::BatchId;
use super::super::node::{IMAGE, Input};
use super::super::ownership::{Claimed, Key};
use super::super::redis::{Backoff, Redis, Save, StoreError};
use super::super::seal::Secrets;
use super::notes::{self, Note};
use super::{Asked, Shared};
use crate::clock;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Without anything in the inbox for so long, not even the own probes, the subscription is deaf.
const DEAF: Duration = Duration::from_secs(7);
/// Bytes of batches that have arrived and wait at most: with more, the node counts as deaf.
const MAX_ARRIVED: usize = 64 << 20;
/// Bytes of batches that wait to be published at most: with more, the next ones count as not published,
/// and go again a little later.
const MAX_UNPUBLISHED: usize = 64 << 20;
/// Answers to other nodes that are made at once; what is asked beyond gets none.
const MAX_ANSWERS: usize = 65_536;
/// Batches that go in one pipeline.
const MAX_BATCHES: usize = 256;

struct Batch {
    to: Incarnation,
    id: BatchId,
    batch: Arc<[u8]>,
    era: u64,
}

/// What calls Redis.
pub(super) struct Calls {
    redis: Arc<Redis>,
    answers: mpsc::UnboundedSender<Asked>,
    batches: mpsc::UnboundedSender<Batch>,
    /// Until somebody publishes them.
    waiting: Option<mpsc::UnboundedReceiver<Batch>>,
    name: String,
    secrets: Secrets,
    inbox: u64,
    listener: Option<AbortHandle>,
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
    /// Bytes that the publisher has not published.
    unpublished: Arc<AtomicUsize>,
    answers_made: Arc<Semaphore>,
}

impl Calls {
    pub(super) fn new(
        redis: Arc<Redis>,
        answers: mpsc::UnboundedSender<Asked>,
        name: String,
        secrets: Secrets,
        shared: Arc<Shared>,
    ) -> Self {
        let (batches, waiting) = mpsc::unbounded_channel();
        Self {
            redis,
            answers,
            batches,
            waiting: Some(waiting),
            name,
            secrets,
            inbox: 0,
            listener: None,
            tasks: JoinSet::new(),
            shared,
            unpublished: Arc::default(),
            answers_made: Arc::new(Semaphore::new(MAX_ANSWERS)),
        }
    }

    /// Begins to publish, where the caller runs.
    pub(super) fn begin(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let publisher = Publisher {
                redis: Arc::clone(&self.redis),
                answers: self.answers.clone(),
                unpublished: Arc::clone(&self.unpublished),
            };
            self.tasks.spawn(publisher.run(waiting));
        }
    }

    /// The number of the inbox that is listened to.
    pub(super) fn inbox(&self) -> u64 {
        self.inbox
    }

    /// Makes a call; its answer, if any, is an input.
    fn call<F: Future<Output = Option<Input>> + Send + 'static>(
        &mut self,
        call: impl FnOnce(Arc<Redis>) -> F,
    ) {
        let (answers, call) = (self.answers.clone(), call(Arc::clone(&self.redis)));
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            if let Some(input) = call.await {
                let _ = answers.send(Asked::Input(input));
            }
        });
    }

    pub(super) fn listen(&mut self, me: Incarnation) {
        self.inbox += 1;
        if let Some(before) = self.listener.take() {
            before.abort();
        }
        let (redis, answers, inbox) = (Arc::clone(&self.redis), self.answers.clone(), self.inbox);
        let shared = Arc::clone(&self.shared);
        let listener = self.tasks.spawn(async move {
            let say = |input| {
                let _ = answers.send(Asked::Inbox(inbox, input));
            };
            let mut backoff = Backoff::default();
            loop {
                let tried = clock::boot_instant();
                match redis.listen(me).await {
                    Ok(mut received) => {
                        backoff.reset();
                        say(Input::Listening(me));
                        while let Ok(Some(batch)) = timeout(DEAF, received.next()).await {
                            // A probe has no text.
                            if batch.is_empty() {
                                continue;
                            }
                            let before = shared.arrived.fetch_add(batch.len(), Ordering::Relaxed);
                            let is_too_much = before > MAX_ARRIVED;
                            say(Input::Received(batch));
                            if is_too_much {
                                break;
                            }
                        }
                        say(Input::Deaf);
                    }
                    Err(error) => {
                        complain(&error);
                        say(Input::Unreached(tried));
                    }
                }
                sleep(backoff.pause(rand::random())).await;
            }
        });
        self.listener = Some(listener);
    }

    pub(super) fn beat(&mut self, me: Incarnation, known: Option<Vec<u8>>, drawn: Vec<u8>) {
        let (sent, answers) = (clock::boot_instant(), self.answers.clone());
        self.call(|redis| async move {
            match redis.beat(me, known.as_deref(), &drawn).await {
                Ok((beat, connection)) => {
                    let _ = redis.publish(me, b"").await;
                    let _ = answers.send(Asked::Beat(sent, beat, connection));
                    None
                }
                Err(error) => {
                    complain(&error);
                    Some(Input::BeatFailed(sent))
                }
            }
        });
    }

    pub(super) fn describe(&mut self, me: Incarnation, mut description: Value) {
        if let Value::Object(fields) = &mut description {
            fields.insert("name".into(), self.name.clone().into());
        }
        let place = me.to_string();
        let text = description.to_string();
        let sealed = self.secrets.records(me).seal(
            rand::random(),
            &[b"node", place.as_bytes()],
            text.as_bytes(),
        );
        self.call(|redis| async move {
            let _ = redis.describe(me, &sealed).await;
            None
        });
    }

    /// Learns what the other nodes say of themselves.
    pub(super) fn meet(&mut self, me: Incarnation, living: Vec<Incarnation>) {
        let (secrets, answers) = (self.secrets.clone(), self.answers.clone());
        self.call(move |redis| async move {
            let mut others = vec![];
            for node in living.into_iter().filter(|node| *node != me) {
                if let Ok(Some(sealed)) = redis.description(node).await {
                    others.extend(read(&secrets, node, &sealed));
                }
            }
            let _ = answers.send(Asked::Met(others));
            None
        });
    }

    /// Buries earlier runs of this node at once: they do not come back.
    pub(super) fn look_for_namesakes(&mut self, me: Incarnation, living: Vec<Incarnation>) {
        for node in living.into_iter().filter(|node| *node != me) {
            let (name, secrets) = (self.name.clone(), self.secrets.clone());
            self.call(move |redis| async move {
                let sealed = redis.description(node).await.ok()??;
                let said = read(&secrets, node, &sealed)?;
                let count = redis.count(node).await.ok()??;
                (said["name"] == *name).then_some(Input::Namesake(node, count))
            });
        }
    }

    pub(super) fn bury(&mut self, node: Incarnation, count: u64, mark: Vec<u8>) {
        self.call(|redis| async move {
            let buried = redis.bury(node, count, &mark).await.ok();
            Some(Input::Buried(node, buried))
        });
    }

    pub(super) fn claim(
        &mut self,
        ticket: u64,
        me: Incarnation,
        room: Key,
        expected: Option<Incarnation>,
        connection: u64,
    ) {
        self.call(|redis| async move {
            let mut answer = redis.claim(&room, me, expected, connection).await;
            if let Ok(Claimed::Mine {
                already: false,
                fields,
                ..
            }) = &mut answer
                && !fields.is_empty()
                && let Ok(Some(image)) = redis.image(&room).await
            {
                fields.insert(IMAGE.to_owned(), image);
            }
            match answer {
                Err(error) if error.is_of_another_type() => {
                    tracing::warn!(
                        "cluster.redis: {room} is not the record of a room: another program writes to keys \
                         of cluster.prefix"
                    );
                    Some(Input::Unclaimable(ticket, room))
                }
                answer => Some(Input::Claimed(ticket, room, answer.ok())),
            }
        });
    }

    pub(super) fn save(&mut self, me: Incarnation, saves: Vec<Save>, images: Vec<(Key, Vec<u8>)>) {
        self.call(|redis| async move {
            // Without its image, a room goes on with gaps.
            let _ = redis.keep_images(&images).await;
            let saved = redis.save(me, &saves).await;
            Some(Input::Saved(saved.inspect_err(complain).ok()))
        });
    }

    pub(super) fn publish(&self, to: Incarnation, id: BatchId, batch: Arc<[u8]>, era: u64) {
        let bytes = batch.len();
        if self.unpublished.load(Ordering::Relaxed) + bytes > MAX_UNPUBLISHED {
            let _ = self.answers.send(Asked::Input(Input::PublishFailed(era)));
            return;
        }
        self.unpublished.fetch_add(bytes, Ordering::Relaxed);
        let _ = self.batches.send(Batch { to, id, batch, era });
    }

    /// Says to a node what it has asked, once that is known. Without room for it the node gets no
    /// answer, as from a node that is down.
    pub(super) fn answer(
        &mut self,
        to: Incarnation,
        id: u64,
        answer: BoxFuture<'static, Option<String>>,
    ) {
        let Ok(permit) = Arc::clone(&self.answers_made).try_acquire_owned() else {
            return;
        };
        self.call(|_| async move {
            let answer = answer.await;
            drop(permit);
            Some(Input::Answer(to, id, answer?))
        });
    }

    /// Has Redis keep revocations; those that it does not take come back.
    pub(super) fn revoke(&mut self, users: Vec<(String, u64)>) {
        if users.is_empty() {
            return;
        }
        let (secrets, answers) = (self.secrets.clone(), self.answers.clone());
        self.call(|redis| async move {
            let key = secrets.records(Incarnation::from_bits(0));
            let sealed = users.iter().map(|(user, until)| {
                let text = serde_json::to_vec(&(user, until)).unwrap_or_default();
                (*until, key.seal(rand::random(), &[b"revoked"], &text))
            });
            let sealed: Vec<_> = sealed.collect();
            if let Err(error) = redis.revoke(clock::unix_now(), &sealed).await {
                complain(&error);
                let _ = answers.send(Asked::Unsent(users));
            }
            None
        });
    }

    /// Has Redis keep notes; those that it does not take come back.
    pub(super) fn keep_notes(&mut self, notes: Vec<Note>) {
        if notes.is_empty() {
            return;
        }
        let (secrets, answers) = (self.secrets.clone(), self.answers.clone());
        self.call(|redis| async move {
            if let Err(error) = notes::keep(&redis, &secrets, &notes).await {
                complain(&error);
                let _ = answers.send(Asked::Unkept(notes));
            }
            None
        });
    }

    /// Finds other living nodes of this one's name.
    pub(super) fn count_namesakes(&mut self, me: Incarnation, living: Vec<Incarnation>) {
        let (name, secrets) = (self.name.clone(), self.secrets.clone());
        let answers = self.answers.clone();
        self.call(move |redis| async move {
            let mut namesakes = vec![];
            for node in living.into_iter().filter(|node| *node != me) {
                if let Ok(Some(sealed)) = redis.description(node).await
                    && let Some(said) = read(&secrets, node, &sealed)
                    && said["name"] == *name
                {
                    namesakes.push(node);
                }
            }
            if !namesakes.is_empty() {
                let _ = answers.send(Asked::Namesakes(name, namesakes));
            }
            None
        });
    }

    /// Learns what was revoked and noted before this node came, or while it was not reached.
    pub(super) fn load_revocations(&mut self) {
        let (secrets, answers) = (self.secrets.clone(), self.answers.clone());
        self.call(|redis| async move {
            let noted = notes::load(&redis, &secrets).await.ok();
            let read = |sealed: Vec<u8>| {
                let text = secrets.open_record(&[b"revoked"], &sealed)?;
                serde_json::from_slice(&text).ok()
            };
            let sealed = redis.revoked(clock::unix_now()).await.ok();
            // One that does not open is of another cluster's time, and says nothing.
            let users = sealed.map(|sealed| sealed.into_iter().filter_map(read).collect());
            let _ = answers.send(Asked::Revoked(users.zip(noted)));
            None
        });
    }

    /// Takes the node out of the list.
    pub(super) async fn leave(mut self, me: Incarnation) {
        let _ = self.redis.leave(me).await;
        self.tasks.shutdown().await;
    }
}

/// What a node says of itself.
pub(super) fn read(secrets: &Secrets, node: Incarnation, sealed: &[u8]) -> Option<Value> {
    let place = node.to_string();
    let text = secrets.open_record(&[b"node", place.as_bytes()], sealed)?;
    serde_json::from_slice(&text).ok()
}

/// Publishes batches in order, and says of each who listened.
struct Publisher {
    redis: Arc<Redis>,
    answers: mpsc::UnboundedSender<Asked>,
    unpublished: Arc<AtomicUsize>,
}

impl Publisher {
    async fn run(self, mut waiting: mpsc::UnboundedReceiver<Batch>) {
        let mut failed = None;
        let mut batches = vec![];
        while waiting.recv_many(&mut batches, MAX_BATCHES).await > 0 {
            let bytes = batches.iter().map(|batch| batch.batch.len()).sum();
            batches.retain(|batch: &Batch| failed.is_none_or(|failed| batch.era > failed));
            if let Some(era) = batches.last().map(|batch| batch.era)
                && !self.publish(&mut batches, era).await
            {
                failed = Some(era);
            }
            batches.clear();
            self.unpublished.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether Redis has answered.
    async fn publish(&self, batches: &mut Vec<Batch>, era: u64) -> bool {
        let all: Vec<_> = batches.iter().map(|b| (b.to, &*b.batch)).collect();
        let say = |input| {
            let _ = self.answers.send(Asked::Input(input));
        };
        match self.redis.publish_all(&all).await {
            Ok(listeners) => {
                for (batch, listeners) in batches.drain(..).zip(listeners) {
                    say(Input::Published(batch.to, batch.id, listeners));
                }
                true
            }
            Err(error) => {
                complain(&error);
                say(Input::PublishFailed(era));
                false
            }
        }
    }
}

fn complain(error: &StoreError) {
    tracing::warn!("cluster.redis: {error}");
}
