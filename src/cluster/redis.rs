//! The one module that speaks to Redis: connections, the four scripts, and Pub/Sub.
//!
//! A connection that fails is given up, and the next call dials another one. To whom it matters, what
//! was lost with it, [`Redis::connections`] says that it is another one: an ambient reconnect would hide
//! that.

mod address;
mod commands;
mod look;

pub use address::{Address, AddressError, Certificates};
pub use look::{Look, Server};

use super::Incarnation;
use super::membership::Beat;
use super::ownership::{Claimed, Fields, Key};
use super::store::{BEAT, BURY, CLAIM, Fate, KEPT_MS, Names, SAVE};
use futures_util::StreamExt;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(1);
/// How long an answer may take. The library's half a second would make an outage of a small stall.
const ANSWER: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Why Redis gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not reached, or it refuses.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It did not answer in time.
    #[error("no answer within {} s", ANSWER.as_secs())]
    Slow,
    /// The connection is another one than the last beat was answered on, and perhaps another memory.
    #[error("the connection was replaced")]
    Replaced,
    /// It answered what no script of ours does.
    #[error("an answer that is not understood: is `cluster.prefix` used by another program?")]
    Strange,
}

impl StoreError {
    /// Whether another program has put something in the place of what was asked for.
    pub fn is_of_another_type(&self) -> bool {
        matches!(self, Self::Redis(error) if is_of_another_type(error))
    }
}

/// What is to be saved of one room.
#[derive(Debug, Clone)]
pub struct Save {
    /// What stands for the room.
    pub room: Key,
    /// What the claim gave.
    pub epoch: u64,
    /// What becomes of the room.
    pub fate: Fate,
    /// Fields with their sealed values.
    pub set: Fields,
    /// Fields that go.
    pub removed: Vec<String>,
}

/// Pauses between attempts: doubling, each between half and all of its length, so that nodes which
/// lost the same Redis do not come back as one.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// The next pause; `random` is any number.
    pub fn pause(&mut self, random: u32) -> Duration {
        let whole = (FIRST_PAUSE * 2u32.pow(self.0)).min(LAST_PAUSE);
        self.0 = (self.0 + 1).min(10);
        whole / 2 + whole / 2 * (random % 1024) / 1024
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

/// A script with the hash by which Redis knows it.
struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let mut hash = String::with_capacity(40);
        for byte in Sha1::digest(text.as_bytes()) {
            write!(hash, "{byte:02x}").expect("writing to a String succeeds");
        }
        Self { text, hash }
    }

    fn call(&self, keys: &[String]) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.hash).arg(keys.len()).arg(keys);
        cmd
    }
}

/// A Redis and the names of what is in it.
pub struct Redis {
    address: Address,
    names: Names,
    connection: Mutex<Option<MultiplexedConnection>>,
    connections: AtomicU64,
    seconds: Histogram,
    beat: Script,
    bury: Script,
    claim: Script,
    save: Script,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis({})", self.address)
    }
}

impl Redis {
    /// Knows where to dial; dials nothing yet.
    pub fn new(address: Address, names: Names) -> Self {
        Self {
            address,
            names,
            connection: Mutex::new(None),
            connections: AtomicU64::new(0),
            seconds: Histogram::new(exponential_buckets(0.000_1, 4.0, 9)),
            beat: Script::new(BEAT),
            bury: Script::new(BURY),
            claim: Script::new(CLAIM),
            save: Script::new(SAVE),
        }
    }

    /// How many connections for commands there were so far: another number, another connection, and
    /// perhaps another Redis.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How long answers take.
    pub fn seconds(&self) -> Histogram {
        self.seconds.clone()
    }

    /// Counts the own beat; `known` is the mark under which this node has registered, and `drawn` a
    /// random one for a store that has none. Says which connection has answered: what it says of the
    /// store's memory holds for that one.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn beat(
        &self,
        me: Incarnation,
        known: Option<&[u8]>,
        drawn: &[u8],
    ) -> Result<(Beat, u64), StoreError> {
        let mut cmd = self.beat.call(&[self.names.nodes(), self.names.mark()]);
        let known = known.unwrap_or_default();
        cmd.arg(me.to_string()).arg(known).arg(drawn);
        let (answer, connection) = self.run(&self.beat, cmd, None).await?;
        let (mark, count, counts): (Vec<u8>, u64, BTreeMap<String, String>) = read(answer)?;
        // What is not a node was put there by another program.
        let counts = (counts.into_iter())
            .filter_map(|(node, count)| Some((Incarnation::parse(&node)?, count.parse().ok()?)))
            .collect();
        let beat = Beat {
            mark,
            count,
            counts,
        };
        Ok((beat, connection))
    }

    /// Buries a node if its count is still that one, in the memory of that mark; returns whether it is
    /// buried.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn bury(
        &self,
        node: Incarnation,
        count: u64,
        mark: &[u8],
    ) -> Result<bool, StoreError> {
        let mut cmd = self.bury.call(&[self.names.nodes(), self.names.mark()]);
        cmd.arg(node.to_string()).arg(count).arg(mark);
        read(self.run(&self.bury, cmd, None).await?.0)
    }

    /// Takes a node of this name, or this node itself, out of the list at once.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn leave(&self, node: Incarnation) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(self.names.nodes()).arg(node.to_string());
        read(self.ask(&cmd).await?)
    }

    /// Claims a room, on that connection and no other: on another one Redis may have forgotten, and the
    /// room's home may be about to claim it again.
    ///
    /// # Errors
    /// Redis gave no answer, or was not asked.
    pub async fn claim(
        &self,
        room: &str,
        me: Incarnation,
        expected: Option<Incarnation>,
        connection: u64,
    ) -> Result<Claimed, StoreError> {
        let mut cmd = self.claim.call(&[self.names.room(room)]);
        let expected = expected.map(|expected| expected.to_string());
        cmd.arg(me.to_string())
            .arg(expected.unwrap_or_default())
            .arg(KEPT_MS);
        let (answer, _) = self.run(&self.claim, cmd, Some(connection)).await?;
        let Value::Array(parts) = &answer else {
            return Err(StoreError::Strange);
        };
        match parts.first() {
            Some(Value::Int(0)) => {
                let (_, owner): (u64, String) = read(answer)?;
                let owner = Incarnation::parse(&owner).ok_or(StoreError::Strange)?;
                Ok(Claimed::Theirs(owner))
            }
            _ => {
                let (won, epoch, mut fields): (u64, u64, Fields) = read(answer)?;
                fields.retain(|field, _| !["o", "e"].contains(&field.as_str()));
                Ok(Claimed::Mine {
                    epoch,
                    already: won == 1,
                    fields,
                })
            }
        }
    }

    /// Saves rooms in one go; tells of each whether this node is still its home.
    ///
    /// # Errors
    /// Redis gave no answer: what of it was done is not known.
    pub async fn save(&self, me: Incarnation, saves: &[Save]) -> Result<Vec<bool>, StoreError> {
        if saves.is_empty() {
            return Ok(vec![]);
        }
        let mut pipeline = Pipeline::with_capacity(saves.len());
        for save in saves {
            let mut cmd = self.save.call(&[self.names.room(&save.room)]);
            cmd.arg(me.to_string())
                .arg(save.epoch)
                .arg(save.fate.as_str())
                .arg(KEPT_MS)
                .arg(save.set.len());
            for (field, value) in &save.set {
                cmd.arg(field).arg(value);
            }
            for field in &save.removed {
                cmd.arg(field);
            }
            pipeline.add_command(cmd);
        }
        let mut answers = self.run_all(&self.save, &pipeline, saves.len()).await?;
        for answer in &mut answers {
            // Of what is not a room's record this node is not the home.
            if server_error(answer).is_some() {
                *answer = Value::Int(0);
            }
        }
        read(Value::Array(answers))
    }

    /// Listens on the inbox of a node, on a connection of its own.
    ///
    /// # Errors
    /// Redis is not reached, or it refuses.
    pub async fn listen(&self, me: Incarnation) -> Result<Inbox, StoreError> {
        let dial = async {
            let mut subscription = self.client().await?.get_async_pubsub().await?;
            subscription.subscribe(self.names.inbox(me)).await?;
            Ok(Inbox(subscription.into_on_message()))
        };
        timeout(CONNECT + ANSWER, dial)
            .await
            .or(Err(StoreError::Slow))?
    }

    async fn client(&self) -> Result<redis::Client, StoreError> {
        if self.address.is_tls() {
            // The library asks for the process' default; who has set another one keeps it.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        Ok(self.address.client().await?)
    }

    /// The connection for commands with its number; dials where there is none.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok((connection.clone(), self.connections()));
        }
        let dial = async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(ANSWER));
            let client = self.client().await?;
            Ok(client
                .get_multiplexed_async_connection_with_config(&config)
                .await?)
        };
        // In a box, as all calls hold this one.
        let dialed: Result<_, StoreError> = timeout(CONNECT + ANSWER, Box::pin(dial))
            .await
            .or(Err(StoreError::Slow))?;
        let dialed: MultiplexedConnection = dialed?;
        *connection = Some(dialed.clone());
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        Ok((dialed, before + 1))
    }

    /// Gives up a connection that failed, unless it was replaced already.
    async fn give_up(&self, of: u64, error: &RedisError) {
        // A server that became a replica, or is loading, will not do: the next dial finds another.
        let refuses = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
            )
        );
        let is_answer = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        if refuses || !is_answer {
            let mut connection = self.connection.lock().await;
            if self.connections() == of {
                *connection = None;
            }
        }
    }

    async fn ask(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        Ok(self.ask_on(cmd, None).await?.0)
    }

    /// Asks on that connection, or on any; says on which.
    async fn ask_on(&self, cmd: &Cmd, on: Option<u64>) -> Result<(Value, u64), StoreError> {
        let (mut connection, of) = self.connection().await?;
        if on.is_some_and(|on| on != of) {
            return Err(StoreError::Replaced);
        }
        let began = Instant::now();
        let answer = connection.send_packed_command(cmd).await;
        self.seconds.observe(began.elapsed().as_secs_f64());
        let error = match answer {
            Ok(answer) => match server_error(&answer) {
                None => return Ok((answer, of)),
                Some(error) => error,
            },
            Err(error) => error,
        };
        self.give_up(of, &error).await;
        Err(error.into())
    }

    async fn run(
        &self,
        script: &Script,
        cmd: Cmd,
        on: Option<u64>,
    ) -> Result<(Value, u64), StoreError> {
        match self.ask_on(&cmd, on).await {
            Err(StoreError::Redis(error)) if is_unknown(&error) => {
                self.load(script).await?;
                self.ask_on(&cmd, on).await
            }
            answer => answer,
        }
    }

    async fn run_all(
        &self,
        script: &Script,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Value>, StoreError> {
        // A script that Redis lacks is missed by all calls of the pipeline: none has done anything.
        for is_last in [false, true] {
            let (mut connection, of) = self.connection().await?;
            let began = Instant::now();
            let answers = connection.send_packed_commands(pipeline, 0, count).await;
            self.seconds.observe(began.elapsed().as_secs_f64());
            let error = match answers {
                Ok(answers) => {
                    let mut errors = answers.iter().filter_map(server_error);
                    match errors.find(|error| !is_of_another_type(error)) {
                        None => return Ok(answers),
                        Some(error) => error,
                    }
                }
                Err(error) => error,
            };
            if is_last || !is_unknown(&error) {
                self.give_up(of, &error).await;
                return Err(error.into());
            }
            self.load(script).await?;
        }
        Err(StoreError::Strange)
    }

    async fn load(&self, script: &Script) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(script.text);
        let hash: String = read(self.ask(&cmd).await?)?;
        match hash == script.hash {
            true => Ok(()),
            false => Err(StoreError::Strange),
        }
    }
}

/// What arrives for a node.
pub struct Inbox(PubSubStream);

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    /// The next batch; `None` once the subscription has ended, and with it whatever came since.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let message = self.0.next().await?;
        Some(message.get_payload_bytes().to_vec())
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether another program has put something in the place of a record. What a script meets is quoted in its
/// error.
fn is_of_another_type(error: &RedisError) -> bool {
    error.to_string().contains("WRONGTYPE")
}

fn server_error(answer: &Value) -> Option<RedisError> {
    match answer {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

fn read<T: redis::FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    T::from_redis_value(answer).or(Err(StoreError::Strange))
}

#[cfg(test)]
mod tests;
