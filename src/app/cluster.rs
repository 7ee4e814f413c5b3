//! A box as a node of a cluster.

mod description;
mod look;
mod thread;

pub use description::Misfit;
use description::{describer, secrets_differ};
pub use look::{Finding, StoreLook, look_at_store};

use super::denied::Denied;
use super::relay;
use crate::auth::credential::REVOKED_FOR_GOOD;
use crate::clock;
use crate::cluster::Incarnation;
use crate::cluster::membership;
use crate::cluster::node::Settings;
use crate::cluster::redis::{Address, Certificates, Redis};
use crate::cluster::seal::Secrets;
use crate::cluster::shell::{Cluster, OnAsk, OnList, OnMeet, OnNoted, OnRevoke, Options, Stage};
use crate::cluster::store::Names;
use crate::config::{self, Config};
use crate::http::{
    self, AppState, AsyncQuery, Home, NodeRouter, NodesAdmin, Others, RelayAdmin, Reply,
};
use crate::protocol::{CloseCode, is_foreign_room};
use crate::relay::RelayHandle;
use crate::signal::hub::{OtherRoom, OtherRooms};
use crate::signal::{self, Driver};
use anyhow::{Context as _, Result};
use futures_util::future::{BoxFuture, join_all};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a start waits for Redis: whether the cluster's secret fits is known then.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a node is waited for that was asked something.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may take: requests of clients wait for messages meanwhile.
const ANSWER: Duration = Duration::from_secs(40);
/// Rooms of other nodes that are kept for a list: more than one reply holds.
const MAX_ROOMS: usize = 1_024;
/// How long giving up all rooms may take.
const LEAVE: Duration = Duration::from_secs(10);
/// Connections of a node that leaves are closed in so many steps, so that their clients do not come
/// back at once; a few are in one.
const CLOSINGS: usize = 8;
const CLOSING: Duration = Duration::from_millis(250);
const FEW: usize = 64;

/// What is made after the driver, and is needed by what the driver calls.
#[derive(Default)]
pub(super) struct Late {
    node: OnceLock<Arc<Cluster>>,
    /// What other nodes may ask for.
    router: OnceLock<NodeRouter>,
    config: OnceLock<watch::Receiver<Config>>,
    denied: OnceLock<Arc<Denied>>,
}

/// The node, once there is one: what revokes is made before it.
pub(super) type Cell = Arc<Late>;

impl Late {
    /// Answers other nodes from here on, and describes this one by that configuration, where it is a
    /// node.
    pub(super) fn serve(&self, context: &Arc<AppState>, config: watch::Receiver<Config>) {
        if self.node.get().is_some() {
            let _ = self.router.set(http::node_router(Arc::clone(context)));
            let _ = self.config.set(config);
        }
    }
}

/// Has all nodes refuse the same networks: `denied` learns what was noted before, and has its changes noted.
pub(super) fn share(denied: &Arc<Denied>, cell: &Cell) {
    let Some(node) = cell.node.get() else { return };
    let noting = Arc::downgrade(node);
    denied.on_change(Box::new(move |note| {
        if let Some(node) = noting.upgrade() {
            node.note(note);
        }
    }));
    let _ = cell.denied.set(Arc::clone(denied));
    node.look_at_notes();
}

/// Revokes what the hub asks for: at the relay of this box, and at all other nodes.
pub(super) fn on_revoke(
    relay: Option<Arc<RelayHandle>>,
    longest_ttl: &Arc<AtomicU64>,
    cell: &Cell,
) -> signal::OnRevoke {
    let (longest, cell) = (Arc::clone(longest_ttl), Arc::clone(cell));
    Box::new(move |user, until, network| {
        match (&relay, until) {
            (Some(relay), Some(until)) => relay.revoke_client(user, until, Some(network)),
            (Some(relay), None) => relay::revoke_all(relay, user, &longest, Some(network)),
            (None, _) => {}
        }
        revoke(&cell, user, until, relay.as_deref(), &longest);
    })
}

/// Revokes a user at all other nodes, where there are some: up to an expiry that is said, so that what
/// is minted later is refused nowhere.
fn revoke(
    cell: &Cell,
    user: &str,
    until: Option<u64>,
    relay: Option<&RelayHandle>,
    longest: &AtomicU64,
) {
    if let Some(cluster) = cell.node.get() {
        let here = || relay.and_then(|relay| relay.shared().revoked_until(user));
        let all = || clock::unix_now() + longest.load(Ordering::Relaxed);
        cluster.revoke(user, until.or_else(here).unwrap_or_else(all));
    }
}

/// What an operator does with relays, with revocations at all nodes.
pub(super) fn admin(
    relay: Option<Arc<RelayHandle>>,
    longest_ttl: &Arc<AtomicU64>,
    cell: &Cell,
    config: watch::Receiver<Config>,
) -> RelayAdmin {
    let mut relays = relay::admin(relay.clone(), Arc::clone(longest_ttl));
    let (here, cell, longest) = (relays.revoke, Arc::clone(cell), Arc::clone(longest_ttl));
    relays.revoke = Box::new(move |user| {
        // A fixed password comes first: its relays end by the name, and must not begin anew.
        if let Some(password) = config.borrow().turn.users.revocable(user) {
            if let Some(relay) = &relay {
                relay.revoke_client(&password, REVOKED_FOR_GOOD, None);
            }
            revoke(
                &cell,
                &password,
                Some(REVOKED_FOR_GOOD),
                relay.as_deref(),
                &longest,
            );
        }
        here(user);
        revoke(&cell, user, None, relay.as_deref(), &longest);
    });
    relays
}

/// Makes the box a node, where it is to be one.
///
/// # Errors
/// What `cluster` says is not to be used, or other nodes have another secret.
pub(super) async fn start(
    config: &Config,
    driver: &Arc<Driver>,
    relay: Option<&Arc<RelayHandle>>,
    cell: &Cell,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Arc<Cluster>>> {
    let Some(cluster) = &config.cluster else {
        return Ok(None);
    };
    let revoking = relay.cloned();
    // What is known already is not revoked again: that would end what was allocated since.
    let on_revoke: OnRevoke = Box::new(move |user, until| {
        let Some(relay) = &revoking else { return };
        if (relay.shared().revoked_until(user)).is_none_or(|known| known < until) {
            relay.revoke_client(user, until, None);
        }
    });
    let knowing = Arc::clone(cell);
    let on_noted: OnNoted = Box::new(move |texts| {
        let denied = knowing.denied.get();
        denied
            .map(|denied| denied.learn(&texts))
            .unwrap_or_default()
    });
    let describe = describer(config, driver, cell);
    let own: Vec<_> = config.turn.secrets.ids().map(|id| id.to_string()).collect();
    let name = cluster.node.clone();
    let turns = config.turn.enabled;
    let on_meet: OnMeet =
        Box::new(move |others| turns.then(|| secrets_differ(&own, &name, others)).flatten());
    let answering = Arc::clone(cell);
    // What is asked for may last, as a connection over HTTP does: it belongs to the program.
    let program = Handle::current();
    let on_ask: OnAsk = Box::new(move |question| {
        let router = answering.router.get().cloned();
        let program = program.clone();
        Box::pin(async move {
            let answer = http::answer(router?, question);
            program.spawn(timeout(ANSWER, answer)).await.ok()?.ok()?
        })
    });
    let (lists, asking) = (Arc::downgrade(driver), Arc::clone(cell));
    let on_list: OnList = Box::new(move || {
        let (driver, others) = (Weak::clone(&lists), others(&asking, &lists));
        tokio::spawn(async move {
            let rooms = other_rooms(others).await;
            if let Some(driver) = driver.upgrade() {
                driver.other_rooms(rooms);
            }
        });
    });
    let options = Options {
        redis: Redis::new(
            address(cluster).map_err(|error| Misfit(format!("{error:#}")))?,
            Names::new(&cluster.prefix),
        ),
        settings: Settings {
            secrets: Secrets::new(&cluster.secrets).context("cluster.secret")?,
            lease: cluster.lease,
            isolated: match cluster.isolated {
                config::Isolated::Serve => membership::Isolated::Serve,
                config::Isolated::Stop => membership::Isolated::Stop,
            },
        },
        name: cluster.node.clone(),
        describe,
        on_revoke,
        on_noted,
        on_ask,
        on_list,
        on_meet,
    };
    let (node, run) = Cluster::start(options, Arc::clone(driver));
    let _ = cell.node.set(Arc::clone(&node));
    tasks.spawn(thread::beside(run)?);
    let mut stage = node.stage();
    let known = stage.wait_for(|stage| *stage != Stage::Starting);
    if let Ok(Ok(stage)) = tokio::time::timeout(FIRST_ANSWER, known).await
        && let Stage::Failed(why) = &*stage
    {
        return Err(Misfit(why.clone()).into());
    }
    Ok(Some(node))
}

fn address(cluster: &config::Cluster) -> Result<Address> {
    let address = Address::parse(cluster.redis.expose_secret()).context("cluster.redis")?;
    let certificates = Certificates {
        ca: cluster.ca.as_ref().map(|pem| pem.clone().into_bytes()),
        client: cluster.client.as_ref().map(|(cert, key)| {
            let key = key.expose_secret().to_owned();
            (cert.clone().into_bytes(), key.into_bytes())
        }),
    };
    Ok(address.with_certificates(certificates))
}

/// Why a node does not serve yet.
pub(super) fn not_ready(node: Option<&Arc<Cluster>>) -> Option<(&'static str, &'static str)> {
    let node = node?;
    if node.has_stopped() {
        let why = "this node is without cluster.redis, and cluster.isolated is \"stop\"";
        return Some(("isolated", why));
    }
    let stage = node.stage();
    let is_starting = *stage.borrow() != Stage::Joined;
    is_starting.then_some((
        "no-cluster",
        "this node has not registered with cluster.redis yet",
    ))
}

/// Gives all rooms to the other nodes and closes all connections: their clients resume there.
pub(super) async fn leave(node: &Cluster, driver: &Driver) {
    driver.admit_nobody();
    let mut stage = node.stage();
    node.leave();
    let left = stage.wait_for(|stage| *stage == Stage::Left);
    if tokio::time::timeout(LEAVE, left).await.is_err() {
        node.abandon();
    }
    let why = "this node leaves: resume";
    let mut left = driver.close_some(FEW, CloseCode::Restart, why);
    let share = left.div_ceil(CLOSINGS).max(FEW);
    while left > 0 {
        tokio::time::sleep(CLOSING).await;
        left = driver.close_some(share, CloseCode::Restart, why);
    }
}

/// The nodes, for an operator; nothing without a cluster.
pub(super) fn nodes(config: &Config, driver: &Arc<Driver>, cell: &Cell) -> Option<NodesAdmin> {
    let node = Arc::clone(cell.node.get()?);
    let shown = Arc::clone(&node);
    let describe = describer(config, driver, cell);
    let own = describer(config, driver, cell);
    let list: AsyncQuery<Result<String, String>> = Box::new(move || {
        let (node, own) = (Arc::clone(&node), own());
        Box::pin(async move {
            let me = node.me();
            let others = node.others();
            let asked = others.iter().map(|other| look_at(&node, *other));
            let mut rows = join_all(asked).await;
            if let Some(me) = me {
                let mut row = own;
                row["id"] = json!(me.to_string());
                row["self"] = json!(true);
                row["answers"] = json!(true);
                rows.push(row);
            }
            rows.sort_by_key(|row| row["name"].as_str().map(str::to_owned));
            match node.gauges().up || !rows.is_empty() {
                true => Ok(json!({ "nodes": rows }).to_string()),
                false => Err("this node has not registered yet".to_owned()),
            }
        })
    });
    Some(NodesAdmin {
        list,
        describe: Box::new(move || describe().to_string()),
        me: Box::new(move || Some(shown.me()?.to_string())),
        others: others(cell, &Arc::downgrade(driver)),
    })
}

/// What another node says of itself now, or has said of late.
async fn look_at(node: &Cluster, other: Incarnation) -> Value {
    let began = Instant::now();
    let answer = node.ask(other, http::describe(), TIMEOUT).await;
    let took = began.elapsed();
    let now = clock::unix_now_ms();
    let mut row = match answer.as_deref().and_then(http::described) {
        Some(mut row) => {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            // Half of the way there and back has passed since it looked at its clock.
            let ahead = row["clockMs"]
                .as_i64()
                .zip(i64::try_from(now.saturating_sub(ms / 2)).ok());
            row["clockAheadMs"] = json!(ahead.map(|(its, own)| its - own));
            row["ms"] = json!(ms);
            row["answers"] = json!(true);
            row
        }
        None => {
            let mut row = (node.description(other).await).unwrap_or_else(|| json!({"name": null}));
            row["answers"] = json!(false);
            row
        }
    };
    row["id"] = json!(other.to_string());
    row["self"] = json!(false);
    row
}

/// The way to the other nodes.
struct Way {
    cell: Cell,
    driver: Weak<Driver>,
}

fn others(cell: &Cell, driver: &Weak<Driver>) -> Arc<dyn Others> {
    Arc::new(Way {
        cell: Arc::clone(cell),
        driver: Weak::clone(driver),
    })
}

/// Asks a node, whose name is looked up where it does not answer.
async fn ask(node: &Cluster, of: Incarnation, question: String) -> Reply {
    let answer = node.ask(of, question, TIMEOUT).await;
    let name = match &answer {
        Some(_) => None,
        None => node
            .description(of)
            .await
            .and_then(|said| said["name"].as_str().map(str::to_owned)),
    };
    Reply {
        node: name.unwrap_or_else(|| of.to_string()),
        answer,
    }
}

impl Others for Way {
    fn ask_all(&self, question: String) -> BoxFuture<'static, Vec<Reply>> {
        let node = self.cell.node.get().cloned();
        Box::pin(async move {
            let Some(node) = node else { return vec![] };
            let others = node.others();
            join_all(
                others
                    .into_iter()
                    .map(|other| ask(&node, other, question.clone())),
            )
            .await
        })
    }

    fn has(&self, node: &str) -> bool {
        let cluster = self.cell.node.get();
        let node = Incarnation::parse(node);
        cluster
            .zip(node)
            .is_some_and(|(cluster, node)| cluster.has(node))
    }

    fn ask_node(
        &self,
        node: &str,
        question: String,
        patience: Duration,
    ) -> BoxFuture<'static, Option<String>> {
        let (cluster, node) = (self.cell.node.get().cloned(), Incarnation::parse(node));
        Box::pin(async move { cluster?.ask(node?, question, patience).await })
    }

    fn ask_home(&self, room: &str, question: String) -> BoxFuture<'static, Home> {
        let node = self.cell.node.get().cloned();
        let driver = self.driver.upgrade();
        let place = driver.and_then(|driver| driver.with_hub(|hub, _, _| hub.locator(Some(room))));
        let room: Arc<str> = room.into();
        Box::pin(async move {
            let (Some(node), Some(place)) = (node, place) else {
                return Home::Nowhere;
            };
            match node.home_of(&place).await {
                Ok(Some(home)) if node.others().contains(&home) => {
                    Home::There(ask(&node, home, question).await)
                }
                Ok(Some(home)) if node.me() != Some(home) => {
                    // That node is gone, and nobody has wanted the room since.
                    match node.take_over(&room, &place, TIMEOUT).await {
                        true => Home::Nowhere,
                        false => Home::Unknown(
                            "the room is being taken over from a node that is gone".to_owned(),
                        ),
                    }
                }
                Ok(_) => Home::Nowhere,
                Err(error) => Home::Unknown(error.to_string()),
            }
        })
    }
}

/// What `GET /v1/rooms` of a node says.
#[derive(Deserialize)]
struct Listed {
    rooms: Vec<OtherRoom>,
    next: Option<String>,
}

/// The rooms of all other nodes.
async fn other_rooms(others: Arc<dyn Others>) -> OtherRooms {
    let (texts, partial) = http::rooms_of(others).await;
    let mut all = OtherRooms {
        partial,
        ..OtherRooms::default()
    };
    for text in texts {
        if let Ok(listed) = serde_json::from_str::<Listed>(&text) {
            all.truncated |= listed.next.is_some();
            all.rooms.extend(listed.rooms);
        }
    }
    all.rooms.retain(|room| !is_foreign_room(room.name()));
    all.rooms.sort_by(|a, b| a.name().cmp(b.name()));
    if all.rooms.len() > MAX_ROOMS {
        all.rooms.truncate(MAX_ROOMS);
        all.truncated = true;
    }
    all
}
