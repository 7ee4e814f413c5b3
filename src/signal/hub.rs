//! The signaling core: who is where, who may do what, and who is notified.
//!
//! One input, one call: [`Hub::handle`] turns it into [`Effect`]s, which the shell carries out in
//! order. Pure: no clock, socket, task, lock or ambient randomness in here or below.

mod admin;
mod admission;
mod calls;
mod claims;
mod clients;
mod clock;
mod credentials;
mod drain;
mod ended;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod interface;
mod invites;
mod lobby;
mod membership;
mod metadata;
mod moderation;
mod names;
mod nodes;
mod notice;
mod notices;
mod parked;
mod policy;
mod pressure;
mod rate;
mod registry;
mod requests;
mod response_cache;
mod resume;
mod ring;
mod ring_shares;
mod routing;
mod rules;
mod session;
mod snapshot;
mod stats;
mod timers;
mod topics;
mod views;

pub use admin::{DatedReport, MemberInfo, PeerInfo, RoomInfo, Standing};
pub use clients::ClientInfo;
pub(in crate::signal) use interface::granted;
pub use interface::{ConnId, Effect, Event, Granted, Input, Loss, Now, Settings, UniqueIdentity};
pub(in crate::signal) use lobby::lobby_room;
pub use nodes::{Change, Changes, Guest, Locate, OtherRoom, OtherRooms};
pub use notice::{Notice, Party, Subject};
pub use pressure::Congested;
pub use rules::{CallRule, MessageRule, Policy};
pub use snapshot::{HubSnapshot, MemberRecord, RoomImage, SettingsRecord, SnapshotError};
pub use stats::{Counters, Gauges};

use crate::auth::credential::IceIssuer;
use crate::network::NetworkCounts;
use crate::protocol::{
    Body, CallId, CloseCode, DialectKind, ErrorCode, LeaveReason, PROTOCOL_VERSION, PeerId,
    RequestError, ServerMessage,
};
use crate::signal::id_map::IdMap;
use crate::signal::room::Room;
use calls::Call;
use clock::Clocks;
use drain::Draining;
use ended::Ended;
pub use ended::EndedSession;
use exchange::Exchange;
use lobby::Lobbies;
use names::Names;
use notices::Watch;
use pressure::Pressure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rate::Attempts;
use session::{Conn, Sessions};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timers::{Timer, Timers};

/// All signaling state of the process.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    ice: IceIssuer,
    rng: StdRng,
    conns: IdMap<ConnId, Conn>,
    sessions: Sessions,
    /// Sessions by the digest of their resume token.
    tokens: HashMap<u128, PeerId>,
    ended: Ended,
    names: Names,
    rooms: BTreeMap<Arc<str>, Room>,
    /// How many rooms there are of the makers of each network; no more entries than three for a room.
    rooms_of: NetworkCounts,
    calls: IdMap<CallId, Call>,
    exchange: Exchange,
    attempts: Attempts,
    lobbies: Lobbies,
    pressure: Pressure,
    timers: Timers,
    clocks: Clocks,
    draining: Option<Draining>,
    cluster: Option<nodes::Cluster>,
    watch: Watch,
    counters: Counters,
    away: usize,
    members: usize,
}

/// The input at hand: when it came and what follows from it.
struct Cx<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
}

impl Hub {
    /// Starts empty. `seed` comes from the operating system: every id and token follows from it.
    pub fn new(settings: Settings, ice: IceIssuer, seed: [u8; 32]) -> Self {
        Self {
            sessions: Sessions::new(&settings),
            settings,
            ice,
            rng: StdRng::from_seed(seed),
            conns: IdMap::default(),
            tokens: HashMap::new(),
            ended: Ended::default(),
            names: Names::default(),
            rooms: BTreeMap::new(),
            rooms_of: NetworkCounts::default(),
            calls: IdMap::default(),
            exchange: Exchange::default(),
            attempts: Attempts::default(),
            lobbies: Lobbies::default(),
            pressure: Pressure::default(),
            timers: Timers::default(),
            clocks: Clocks::default(),
            draining: None,
            cluster: None,
            watch: Watch::default(),
            counters: Counters::default(),
            away: 0,
            members: 0,
        }
    }

    /// Takes one input and appends what follows from it. Inputs of connections that the hub has
    /// closed, or never knew, do nothing.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.look_at_clock(now);
        let cx = &mut Cx { now, effects };
        match input {
            Input::Connected {
                conn,
                client,
                dialect,
                lobby,
            } => self.connected(cx, conn, client, dialect, lobby),
            Input::Frame {
                conn,
                message,
                grant,
            } => self.charged(cx, conn, |hub, cx| hub.frame(cx, conn, message, grant)),
            Input::Confirmed { conn, peer, seq } => {
                if self.conns.get(&conn).is_some_and(|conn| conn.peer == peer) {
                    self.sessions.confirm(peer, seq);
                }
            }
            Input::Alive { conn } => self.alive(cx, conn),
            Input::Closed { conn, loss } => {
                let reason = match loss {
                    Loss::Disconnected => LeaveReason::Disconnected,
                    Loss::Timeout => LeaveReason::Timeout,
                };
                self.charged(cx, conn, |hub, cx| hub.lost(cx, conn, reason));
            }
            Input::Drain {
                grace_ends,
                alternate,
            } => self.drain(cx, grace_ends, alternate),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.look_at_clock(now);
        let cx = &mut Cx { now, effects };
        while let Some(timer) = self.timers.pop_due(now.instant) {
            match timer {
                Timer::JoinDeadline(conn) => {
                    let refusal =
                        RequestError::new(ErrorCode::Unauthorized, "neither joined nor registered");
                    self.refuse(cx, conn, &refusal, None);
                    self.close_for_abuse(
                        cx,
                        conn,
                        CloseCode::Unauthorized,
                        "neither joined nor registered",
                    );
                }
                Timer::WindowEnds(peer) => self.window_ended(cx, peer),
                Timer::TokenEnds(peer) => self.token_ended(cx, peer),
                Timer::RingEnds(call) => self.ring_ended(cx, call),
                Timer::Refresh(peer) => self.push_ice(cx, peer),
                Timer::ContestEnds(name) => self.contest_ends(cx, &name),
                Timer::ParkedEnds(name) => self.parked_ends(cx, &name),
                Timer::RefreshMember(conn) => self.mint_for_member(cx, conn),
                Timer::MemberEnds(conn) => self.member_ends(cx, conn),
                Timer::Forgive(guesser) => self.attempts.expire(&guesser),
                Timer::LookAtClock => self.clock_looked_at(cx),
                Timer::GraceEnds => self.grace_ended(cx),
            }
        }
    }

    /// Takes new settings. Rooms keep their members and sessions their credentials until the next
    /// change or renewal.
    pub fn reconfigure(&mut self, settings: Settings, ice: IceIssuer) {
        self.sessions.reconfigure(&settings);
        self.settings = settings;
        self.ice = ice;
    }

    /// Sums since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How much there is of everything; costs nothing.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.conns.len(),
            sessions: self.sessions.len(),
            away: self.away,
            rooms: self.rooms.len(),
            peers: self.members,
            identities: self.names.distinct(),
            calls: self.calls.len(),
            ring_bytes: self.sessions.ring_bytes(),
            guessers: self.attempts.len(),
            timers: self.timers.len(),
            topics: self.exchange.topics.len(),
            subscriptions: self.exchange.topics.subscriptions(),
            claimed_names: self.exchange.registry.len(),
            parked_bytes: self.exchange.parked.bytes(),
            sent: self.sessions.sent,
        }
    }

    fn connected(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        client: IpAddr,
        dialect: DialectKind,
        lobby: Option<Arc<str>>,
    ) {
        if self.draining.is_some() {
            let reason = "the server shuts down";
            cx.effects.push(Effect::Close {
                conn,
                code: CloseCode::Draining,
                reason,
            });
            return;
        }
        let peer = PeerId::from_bits(self.rng.random());
        let deadline = dialect
            .has_join_deadline()
            .then(|| cx.now.instant + self.settings.join_deadline);
        if let Some(deadline) = deadline {
            self.timers.set(deadline, Timer::JoinDeadline(conn));
        }
        if let Some(lobby) = &lobby {
            self.lobbies.wait(lobby, conn);
        }
        self.conns.insert(
            conn,
            Conn {
                lobby: lobby.clone(),
                deadline,
                ..Conn::new(peer, client, dialect)
            },
        );
        let welcome = ServerMessage::Welcome {
            peer_id: peer,
            protocol: PROTOCOL_VERSION,
            heartbeat: self.settings.heartbeat.as_secs(),
            server_time: cx.now.unix_ms,
        };
        self.send_to_connection(cx, conn, Body::new(&welcome, None));
    }

    /// Sends to a connection, numbered if it has a session.
    fn send_to_connection(&mut self, cx: &mut Cx<'_>, conn: ConnId, body: Body) {
        let Some(entry) = self.conns.get(&conn) else {
            return;
        };
        if self.sessions.get(entry.peer).is_some() {
            self.sessions.send(cx.effects, entry.peer, body);
        } else {
            cx.effects.push(Effect::Send {
                conn,
                peer: entry.peer,
                seq: None,
                event: Event::Native(body),
            });
        }
    }

    /// Sends one after the other to a session.
    fn send_all(&mut self, cx: &mut Cx<'_>, peer: PeerId, bodies: Vec<Body>) {
        for body in bodies {
            self.sessions.send(cx.effects, peer, body);
        }
    }

    /// Sends to every member of `room` but `except`.
    fn broadcast(&mut self, cx: &mut Cx<'_>, room: &str, except: Option<PeerId>, body: &Body) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        for member in room.members().iter().filter(|m| Some(m.peer) != except) {
            self.sessions.send(cx.effects, member.peer, body.clone());
        }
    }

    /// Closes a connection for its behaviour; its session may resume.
    fn close_for_abuse(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        code: CloseCode,
        reason: &'static str,
    ) {
        cx.effects.push(Effect::Close { conn, code, reason });
        self.lost(cx, conn, LeaveReason::Disconnected);
    }

    /// Forgets a connection whose session, if any, is elsewhere or ended.
    fn remove_connection(&mut self, conn: ConnId) -> Option<Conn> {
        let entry = self.conns.remove(&conn)?;
        if let Some(lobby) = &entry.lobby {
            self.lobbies.leave(lobby, conn);
        }
        if let Some(deadline) = entry.deadline {
            self.timers.cancel(deadline, Timer::JoinDeadline(conn));
        }
        Some(entry)
    }
}

fn millis(duration: Duration) -> u64 {
    // Rounded up: waiting that long must be enough.
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
