//! What one process gives to the next: the hub as data, and a hub made of it again.
//!
//! Times are kept as what is left of them, as no clock is the same in two processes. A snapshot is
//! read as distrustfully as any input: what does not fit together is refused, and nothing panics.

mod build;
mod image;
mod parts;
mod record;

pub use image::RoomImage;
pub use record::{MemberRecord, SettingsRecord};

use super::rate::Guesser;
use super::{ConnId, Cx, Effect, Hub, Now, Settings};
use crate::auth::credential::IceIssuer;
use crate::protocol::{Body, CallId, LeaveReason, PeerId};
use build::Builder;
use parts::{
    CallPart, ConnPart, EndedPart, ExchangeMemberPart, Left, NamePart, QueuePart, RoomPart,
    SessionPart,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The version that is written; another one is refused.
const VERSION: u32 = 1;

/// All signaling state of a process, but for its settings, its secrets and a drain: what continues
/// it serves.
#[derive(Clone, Serialize, Deserialize)]
pub struct HubSnapshot {
    version: u32,
    /// Frames of all rings: most are in many of them.
    bodies: Vec<Body>,
    conns: Vec<(u64, ConnPart)>,
    sessions: Vec<(PeerId, SessionPart)>,
    rooms: Vec<RoomPart>,
    calls: Vec<(CallId, CallPart)>,
    members: Vec<(u64, ExchangeMemberPart)>,
    names: Vec<NamePart>,
    parked: Vec<QueuePart>,
    guessers: Vec<(Guesser, Left)>,
    lobbies: Vec<(Arc<str>, Vec<u64>)>,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    pressure: Vec<(IpAddr, Left)>,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    ended: Vec<EndedPart>,
    clock: Option<(Left, u64)>,
    clock_due: Option<Left>,
    counters: CounterPart,
    sent: u64,
}

/// Sums by name: a type that the reader does not know is not counted there.
#[derive(Clone, Default, Serialize, Deserialize)]
struct CounterPart {
    received: Vec<(String, u64)>,
    refused: Vec<(String, u64)>,
    resumes: u64,
    gaps: u64,
    withheld_candidates: u64,
    clock_steps: u64,
    /// Absent in what earlier versions wrote, as are the next ones.
    #[serde(default)]
    refused_messages: u64,
    #[serde(default)]
    refused_calls: u64,
    #[serde(default)]
    refused_subscriptions: u64,
    #[serde(default)]
    refused_publications: u64,
}

/// Snapshots hold tokens, and what people say to each other.
impl fmt::Debug for HubSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sessions, rooms) = (self.sessions.len(), self.rooms.len());
        write!(f, "HubSnapshot({sessions} sessions, {rooms} rooms)")
    }
}

/// Why a snapshot is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another version of the program wrote it.
    #[error("the snapshot has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// Its parts contradict each other.
    #[error("the snapshot contradicts itself: {0}")]
    Contradiction(&'static str),
    /// What it would bring is here already.
    #[error("{0} is here already")]
    Present(&'static str),
}

impl HubSnapshot {
    fn empty() -> Self {
        Self {
            version: VERSION,
            bodies: vec![],
            conns: vec![],
            sessions: vec![],
            rooms: vec![],
            calls: vec![],
            members: vec![],
            names: vec![],
            parked: vec![],
            guessers: vec![],
            lobbies: vec![],
            pressure: vec![],
            ended: vec![],
            clock: None,
            clock_due: None,
            counters: CounterPart::default(),
            sent: 0,
        }
    }

    /// How many sessions it holds.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many rooms it holds.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// The connection with the highest number.
    pub fn highest_connection(&self) -> Option<ConnId> {
        self.conns.iter().map(|(conn, _)| ConnId(*conn)).max()
    }

    /// Bytes of the frames that its sessions may still ask for, each counted once.
    pub fn ring_bytes(&self) -> usize {
        self.bodies.iter().map(Body::len).sum()
    }
}

/// The frames of all rings while a snapshot is taken: each text once, however many rings hold it.
#[derive(Default)]
struct Bodies {
    list: Vec<Body>,
    places: HashMap<*const u8, u32>,
}

impl Bodies {
    fn place(&mut self, body: &Body) -> u32 {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        *self
            .places
            .entry(body.as_str().as_ptr())
            .or_insert_with(|| {
                self.list.push(body.clone());
                next
            })
    }
}

impl Hub {
    /// Everything that there is, in an order that does not change from run to run.
    pub fn snapshot(&self, now: Now) -> HubSnapshot {
        let mut bodies = Bodies::default();
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable_by_key(|(peer, _)| *peer);
        let sessions = sessions
            .into_iter()
            .map(|(peer, session)| (peer, SessionPart::of(session, now, &mut bodies)))
            .collect();
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_unstable_by_key(|(id, _)| **id);
        let members = self.conns_in_order(|conn| self.exchange.members.contains_key(conn));
        let members = members.into_iter().map(|conn| {
            let topics = self.exchange.topics.of(conn);
            let member = &self.exchange.members[&conn];
            (conn.0, ExchangeMemberPart::of(member, topics, now))
        });
        let mut names: Vec<_> = self.exchange.registry.holders().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut queues: Vec<_> = self.exchange.parked.queues().collect();
        queues.sort_unstable_by_key(|(name, _)| *name);
        let mut lobbies: Vec<_> = self.lobbies.iter().collect();
        lobbies.sort_unstable_by_key(|(lobby, _)| *lobby);
        let mut pressure: Vec<_> = self.pressure.until.iter().collect();
        pressure.sort_unstable();
        let counted = |(name, count): (&str, u64)| (count > 0).then(|| (name.to_owned(), count));
        let counters = CounterPart {
            received: (self.counters.received())
                .filter_map(|(kind, count)| counted((kind.as_str(), count)))
                .collect(),
            refused: (self.counters.refused())
                .filter_map(|(code, count)| counted((code.as_str(), count)))
                .collect(),
            resumes: self.counters.resumes,
            gaps: self.counters.gaps,
            withheld_candidates: self.counters.withheld_candidates,
            clock_steps: self.counters.clock_steps,
            refused_messages: self.counters.refused_messages,
            refused_calls: self.counters.refused_calls,
            refused_subscriptions: self.counters.refused_subscriptions,
            refused_publications: self.counters.refused_publications,
        };
        HubSnapshot {
            version: VERSION,
            conns: (self.conns_in_order(|_| true).into_iter())
                .map(|conn| (conn.0, ConnPart::of(&self.conns[&conn], now)))
                .collect(),
            sessions,
            bodies: bodies.list,
            rooms: self.rooms.values().map(RoomPart::of).collect(),
            calls: (calls.into_iter())
                .map(|(id, call)| (*id, CallPart::of(call, now)))
                .collect(),
            members: members.collect(),
            names: (names.into_iter())
                .map(|(name, holder)| NamePart::of(name, holder, now))
                .collect(),
            parked: (queues.into_iter())
                .map(|(name, queue)| QueuePart::of(name, queue, now))
                .collect(),
            guessers: (self.attempts.iter())
                .map(|(guesser, until)| (guesser.clone(), Left::of(until, now)))
                .collect(),
            lobbies: (lobbies.into_iter())
                .map(|(lobby, conns)| (lobby.clone(), conns.iter().map(|conn| conn.0).collect()))
                .collect(),
            pressure: pressure
                .into_iter()
                .map(|(network, until)| (*network, Left::of(*until, now)))
                .collect(),
            ended: (self.ended.entries())
                .map(|(entry, code)| EndedPart::of(entry, code, now))
                .collect(),
            clock: (self.clocks.last).map(|(instant, unix_ms)| (Left::of(instant, now), unix_ms)),
            clock_due: self.clocks.due.map(|due| Left::of(due, now)),
            counters,
            sent: self.sessions.sent,
        }
    }

    /// Makes a hub that does with every later input what the one of the snapshot would have done.
    /// The times of the snapshot count from `now`: when it was taken, where that is known. `seed` is
    /// as for [`Hub::new`].
    ///
    /// # Errors
    /// Another version wrote the snapshot, or it contradicts itself.
    pub fn restore(
        now: Now,
        snapshot: HubSnapshot,
        settings: Settings,
        ice: IceIssuer,
        seed: [u8; 32],
    ) -> Result<Self, SnapshotError> {
        if snapshot.version != VERSION {
            return Err(SnapshotError::Version(snapshot.version));
        }
        Builder::new(Self::new(settings, ice, seed), now).build(snapshot)
    }

    /// Takes note that connections ended with the process before this one. Their sessions are away
    /// from now on, and only sessions that are still connected get it: the others get a whole list
    /// when they resume. Nothing is revoked, as calls outlive their signaling.
    pub fn cut(&mut self, now: Now, is_cut: impl Fn(ConnId) -> bool, effects: &mut Vec<Effect>) {
        let (before, reason) = (effects.len(), LeaveReason::Disconnected);
        let cx = &mut Cx { now, effects };
        let mut away = vec![];
        for id in self.conns_in_order(|conn| is_cut(*conn)) {
            let Some(conn) = self.remove_connection(id) else {
                continue;
            };
            let peer = conn.peer;
            self.exchange_left(cx, id, peer);
            let resumable = self.sessions.get(peer).map(|s| s.dialect.is_resumable());
            match resumable {
                Some(true) => {
                    self.set_away(cx, peer, conn, reason);
                    away.push(peer);
                }
                Some(false) => {
                    self.end(cx, peer, reason);
                }
                None => {}
            }
        }
        for peer in away {
            self.tell_online_of(cx, peer);
        }
        let mut index = 0;
        effects.retain(|effect| {
            index += 1;
            index <= before || !matches!(effect, Effect::Revoke { .. })
        });
    }

    /// The connections for which `is_wanted`, in an order that does not change from run to run.
    fn conns_in_order(&self, is_wanted: impl Fn(&ConnId) -> bool) -> Vec<ConnId> {
        let mut conns = self.open_conns();
        conns.retain(is_wanted);
        conns
    }
}
