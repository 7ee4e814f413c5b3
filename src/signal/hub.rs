//! The signaling core: who is where, who may do what, and who hears of it.
//!
//! One input, one call: [`Hub::handle`] turns it into [`Effect`]s, which the shell carries out in
//! order. Pure: no clock, socket, task, lock or ambient randomness in here or below.

mod admin;
mod calls;
mod interface;
mod membership;
mod moderation;
mod rate;
mod replies;
mod resume;
mod ring;
mod routing;
mod session;
mod stats;
mod timers;

pub use admin::{PeerInfo, RoomInfo};
pub use interface::{ConnId, Effect, Input, Loss, Now, Settings, UniqueIdentity};
pub use rate::network;
pub use stats::{Counters, Gauges};

use crate::auth::Grant;
use crate::auth::credential::IceIssuer;
use crate::protocol::{
    Body, CallId, ClientMessage, CloseCode, ErrorCode, FrameError, Ice, LeaveReason, MessageType,
    PROTOCOL_VERSION, PeerId, Refusal, Request, Resumption, ServerMessage, TransportPolicy,
};
use crate::signal::room::Room;
use calls::Call;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rate::{Attempts, Bucket, Verdict};
use replies::{Remembered, Replies};
use session::{Conn, Sessions};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timers::{Timer, Timers};

/// Malformed frames in a row that close a connection, as the protocol promises.
const MAX_MALFORMED: u8 = 10;
/// Spread of `reconnectIn`, ms: keeps a full server's clients from all coming back at once.
const RECONNECT_JITTER_MS: u64 = 5_000;

/// All signaling state of the process.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    ice: IceIssuer,
    rng: StdRng,
    conns: HashMap<ConnId, Conn>,
    sessions: Sessions,
    /// Sessions by the digest of their resume token.
    tokens: HashMap<u128, PeerId>,
    /// Sessions by name, in the order in which they took it.
    identities: BTreeMap<Arc<str>, Vec<PeerId>>,
    rooms: BTreeMap<Arc<str>, Room>,
    calls: HashMap<CallId, Call>,
    attempts: Attempts,
    timers: Timers,
    draining: Option<Draining>,
    counters: Counters,
    away: usize,
    seated: usize,
}

#[derive(Debug)]
struct Draining {
    grace_ends: Instant,
}

/// The input at hand: when it came and what follows from it.
struct Cx<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
}

/// Who sent a request and how to answer it.
struct Asker {
    conn: ConnId,
    peer: PeerId,
    id: Option<String>,
    kind: MessageType,
}

impl Asker {
    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// What a request leads to, if not to a [`Refusal`].
enum Answer {
    /// `ack`, if an answer is wanted at all.
    Ack,
    /// The reply of its type.
    Reply(Body),
    /// The handler has answered: its reply had to go before or after something else.
    Sent,
}

impl Hub {
    /// Starts empty. `seed` comes from the operating system: every id and token follows from it.
    pub fn new(settings: Settings, ice: IceIssuer, seed: [u8; 32]) -> Self {
        Self {
            sessions: Sessions::new(&settings),
            settings,
            ice,
            rng: StdRng::from_seed(seed),
            conns: HashMap::new(),
            tokens: HashMap::new(),
            identities: BTreeMap::new(),
            rooms: BTreeMap::new(),
            calls: HashMap::new(),
            attempts: Attempts::default(),
            timers: Timers::default(),
            draining: None,
            counters: Counters::default(),
            away: 0,
            seated: 0,
        }
    }

    /// Takes one input and appends what follows from it. Inputs of connections that the hub has
    /// closed, or never knew, do nothing.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let cx = &mut Cx { now, effects };
        match input {
            Input::Connected { conn, client } => self.connected(cx, conn, client),
            Input::Frame {
                conn,
                message,
                grant,
            } => self.frame(cx, conn, message, grant),
            Input::Confirmed { conn, seq } => {
                if let Some(conn) = self.conns.get(&conn) {
                    self.sessions.confirm(conn.peer, seq);
                }
            }
            Input::Closed { conn, loss } => {
                let reason = match loss {
                    Loss::Disconnected => LeaveReason::Disconnected,
                    Loss::Timeout => LeaveReason::Timeout,
                };
                self.lost(cx, conn, reason);
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
        let cx = &mut Cx { now, effects };
        while let Some(timer) = self.timers.pop_due(now.instant) {
            match timer {
                Timer::JoinDeadline(conn) => {
                    let refusal =
                        Refusal::new(ErrorCode::Unauthorized, "neither joined nor registered");
                    self.refuse(cx, conn, &refusal, None);
                    self.shut(
                        cx,
                        conn,
                        CloseCode::Unauthorized,
                        "neither joined nor registered",
                    );
                }
                Timer::WindowEnds(peer) => self.window_ended(cx, peer),
                Timer::RingEnds(call) => self.ring_ended(cx, call),
                Timer::Refresh(peer) => self.push_ice(cx, peer),
                Timer::Forgive(guesser) => self.attempts.expire(&guesser),
                Timer::GraceEnds => self.grace_ended(cx),
            }
        }
    }

    /// Takes new settings. Rooms keep their seats and sessions their credentials until the next
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
            peers: self.seated,
            identities: self.identities.len(),
            calls: self.calls.len(),
            ring_bytes: self.sessions.ring_bytes(),
            guessers: self.attempts.len(),
            timers: self.timers.len(),
            sent: self.sessions.sent,
        }
    }

    fn connected(&mut self, cx: &mut Cx<'_>, conn: ConnId, client: IpAddr) {
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
        let deadline = cx.now.instant + self.settings.join_deadline;
        self.timers.set(deadline, Timer::JoinDeadline(conn));
        self.conns.insert(
            conn,
            Conn {
                peer,
                client,
                floor: None,
                deadline: Some(deadline),
                malformed: 0,
                frames: Bucket::default(),
                candidates: Bucket::default(),
                replies: Replies::default(),
            },
        );
        let welcome = ServerMessage::Welcome {
            peer_id: peer,
            protocol: PROTOCOL_VERSION,
            heartbeat: self.settings.heartbeat.as_secs(),
            server_time: cx.now.unix_ms,
        };
        self.say(cx, conn, Body::new(&welcome, None));
    }

    fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        message: Result<ClientMessage, FrameError>,
        grant: Result<Grant, Refusal>,
    ) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        let now = cx.now.instant;
        let verdict = match &message {
            Ok(message) if message.kind == MessageType::Candidate => {
                entry.candidates.charge(now, self.settings.candidate_rate)
            }
            _ => entry.frames.charge(now, self.settings.rate),
        };
        match (verdict, message) {
            (Verdict::Abuse, _) => self.shut(cx, conn, CloseCode::RateLimited, "rate limited"),
            (Verdict::Wait(wait), message) => {
                let id = message.map_or_else(|error| error.id, |message| message.id);
                self.refuse(cx, conn, &Refusal::slow_down(wait), id.as_deref());
            }
            (Verdict::Pass, Err(error)) => {
                entry.malformed += 1;
                let too_many = entry.malformed >= MAX_MALFORMED;
                let refusal = Refusal::new(error.code, error.message);
                self.refuse(cx, conn, &refusal, error.id.as_deref());
                if too_many {
                    self.shut(cx, conn, CloseCode::Malformed, "too many malformed frames");
                }
            }
            (Verdict::Pass, Ok(ClientMessage { id, kind, request })) => {
                entry.malformed = 0;
                let asker = Asker {
                    conn,
                    peer: entry.peer,
                    id,
                    kind,
                };
                self.request(cx, &asker, request, grant);
            }
        }
    }

    fn request(
        &mut self,
        cx: &mut Cx<'_>,
        asker: &Asker,
        request: Request,
        grant: Result<Grant, Refusal>,
    ) {
        self.counters.count_received(asker.kind);
        if self.answered_before(cx, asker) {
            return;
        }
        match self.dispatch(cx, asker, request, grant) {
            Ok(Answer::Ack) => self.ack(cx, asker),
            Ok(Answer::Reply(body)) => self.reply(cx, asker, body),
            Ok(Answer::Sent) => {}
            Err(refusal) => {
                let body = self.refuse(cx, asker.conn, &refusal, asker.id());
                // Waiting and asking again under the same id is what `rate-limited` asks for.
                if refusal.code != ErrorCode::RateLimited {
                    self.remember(asker, &body);
                }
                let bad_token = matches!(
                    refusal.code,
                    ErrorCode::Unauthorized | ErrorCode::TokenExpired
                );
                if bad_token && self.sessions.get(asker.peer).is_none() {
                    self.shut(cx, asker.conn, CloseCode::Unauthorized, "unauthorized");
                }
            }
        }
    }

    fn dispatch(
        &mut self,
        cx: &mut Cx<'_>,
        asker: &Asker,
        request: Request,
        grant: Result<Grant, Refusal>,
    ) -> Result<Answer, Refusal> {
        match request {
            Request::Register { identity, .. } => self.register(cx, asker, identity, grant),
            Request::Join(join) => self.join(cx, asker, *join, grant),
            Request::Resume { token, seq } => self.resume(cx, asker, &token, seq),
            Request::Leave => self.leave(cx, asker),
            Request::Relay(relay) => self.relay(cx, asker, relay),
            Request::Call { to, rest } => self.call(cx, asker, &to, &rest),
            Request::Accept(signal) => self.accept(cx, asker, &signal),
            Request::Reject(signal) => self.reject(cx, asker, &signal),
            Request::Hangup(signal) => self.hangup(cx, asker, &signal),
            Request::State(patch) => self.state(cx, asker, patch),
            Request::Mute { media, muted, to } => self.mute(cx, asker, media, muted, to),
            Request::List => self.list(asker),
            Request::Rooms => self.list_rooms(asker, grant),
            Request::IceServers => self.fresh_ice(cx, asker),
            Request::Kick { peer_id, reason } => self.kick(cx, asker, &peer_id, reason),
            Request::Room(patch) => self.change_room(cx, asker, *patch),
            Request::Grant { peer_id, role } => self.grant(cx, asker, &peer_id, role),
            Request::Ping { t } => {
                let pong = ServerMessage::Pong { t: t.as_deref() };
                Ok(Answer::Reply(Body::new(&pong, asker.id())))
            }
        }
    }

    /// Answers a request sent twice as it was answered the first time.
    fn answered_before(&mut self, cx: &mut Cx<'_>, asker: &Asker) -> bool {
        let (Some(id), Some(conn)) = (asker.id(), self.conns.get(&asker.conn)) else {
            return false;
        };
        let body = match conn.replies.get(id) {
            None => return false,
            Some(Remembered::Ack) => ack_body(asker),
            Some(Remembered::Text(body)) => body.clone(),
            Some(&Remembered::Long(kind)) => match self.answer_anew(cx, asker, kind) {
                Some(body) => body,
                None => return false,
            },
        };
        self.say(cx, asker.conn, body);
        true
    }

    /// Makes a long reply again, without the effects of its request; `None` where there is
    /// nothing left to tell, as with a `join` once the room was left.
    fn answer_anew(&mut self, cx: &mut Cx<'_>, asker: &Asker, kind: MessageType) -> Option<Body> {
        let answer = match kind {
            MessageType::Join | MessageType::Register | MessageType::Resume => {
                self.sessions.get(asker.peer)?;
                let resumption = (kind == MessageType::Resume).then_some(Resumption {
                    replayed: 0,
                    gap: false,
                });
                Ok(Answer::Reply(self.entry(
                    cx,
                    asker.peer,
                    resumption,
                    asker.id(),
                )))
            }
            MessageType::List => self.list(asker),
            MessageType::IceServers => self.fresh_ice(cx, asker),
            MessageType::Accept => self.ack_with_ice(cx, asker),
            MessageType::Room => self.room_body(asker.peer, asker.id()).map(Answer::Reply),
            _ => return None,
        };
        match answer {
            Ok(Answer::Reply(body)) => Some(body),
            _ => None,
        }
    }

    fn ack(&mut self, cx: &mut Cx<'_>, asker: &Asker) {
        let Some(id) = asker.id() else { return };
        self.say(cx, asker.conn, ack_body(asker));
        if let Some(conn) = self.conns.get_mut(&asker.conn) {
            conn.replies.ack(id);
        }
    }

    fn reply(&mut self, cx: &mut Cx<'_>, asker: &Asker, body: Body) {
        self.remember(asker, &body);
        self.say(cx, asker.conn, body);
    }

    fn remember(&mut self, asker: &Asker, body: &Body) {
        if let (Some(id), Some(conn)) = (asker.id(), self.conns.get_mut(&asker.conn)) {
            conn.replies.text(id, asker.kind, body);
        }
    }

    fn refuse(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        refusal: &Refusal,
        id: Option<&str>,
    ) -> Body {
        self.counters.count_refused(refusal.code);
        let message = ServerMessage::Error {
            code: refusal.code,
            message: &refusal.message,
            retry_after: refusal.retry_after.map(millis),
        };
        let body = Body::new(&message, id);
        self.say(cx, conn, body.clone());
        body
    }

    /// Sends to a connection, numbered if it has a session.
    fn say(&mut self, cx: &mut Cx<'_>, conn: ConnId, body: Body) {
        let Some(entry) = self.conns.get(&conn) else {
            return;
        };
        if self.sessions.get(entry.peer).is_some() {
            self.sessions.send(cx.effects, entry.peer, body);
        } else {
            cx.effects.push(Effect::Send {
                conn,
                seq: None,
                body,
            });
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
    fn shut(&mut self, cx: &mut Cx<'_>, conn: ConnId, code: CloseCode, reason: &'static str) {
        cx.effects.push(Effect::Close { conn, code, reason });
        self.lost(cx, conn, LeaveReason::Disconnected);
    }

    /// Forgets a connection whose session, if any, is elsewhere or ended.
    fn forget(&mut self, conn: ConnId) -> Option<Conn> {
        let entry = self.conns.remove(&conn)?;
        if let Some(deadline) = entry.deadline {
            self.timers.cancel(deadline, Timer::JoinDeadline(conn));
        }
        Some(entry)
    }

    fn fresh_ice(&mut self, cx: &mut Cx<'_>, asker: &Asker) -> Result<Answer, Refusal> {
        self.session(asker)?;
        let ice = self.mint(cx, asker.peer);
        Ok(Answer::Reply(Body::new(
            &ServerMessage::IceServers(ice),
            asker.id(),
        )))
    }

    fn push_ice(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        let ice = self.mint(cx, peer);
        let body = Body::new(&ServerMessage::IceServers(ice), None);
        self.sessions.send(cx.effects, peer, body);
    }

    /// Mints credentials for a session and sets the time of their renewal.
    fn mint(&mut self, cx: &Cx<'_>, peer: PeerId) -> Ice {
        let policy = self.policy(peer);
        let session = self
            .sessions
            .get_mut(peer)
            .expect("credentials are minted for sessions");
        let servers = self
            .ice
            .issue(&peer.to_string(), cx.now.unix_ms / 1000, session.floor);
        if let Some(before) = session.refresh.take() {
            self.timers.cancel(before, Timer::Refresh(peer));
        }
        if self.ice.has_relay() {
            session.minted = session.minted.max(Some(servers.expires_at));
            let refresh = cx.now.instant + Duration::from_secs(servers.ttl) * 3 / 4;
            session.refresh = Some(refresh);
            self.timers.set(refresh, Timer::Refresh(peer));
        }
        Ice { servers, policy }
    }

    /// How a session has to use ICE: what it is told, and what holds for all it sends.
    fn policy(&self, peer: PeerId) -> TransportPolicy {
        let room = self.sessions.get(peer).and_then(|s| s.room.as_ref());
        match room.and_then(|room| self.rooms.get(room)) {
            Some(room) if room.relay_only => TransportPolicy::Relay,
            _ => TransportPolicy::All,
        }
    }

    fn drain(&mut self, cx: &mut Cx<'_>, grace_ends: Instant, alternate: bool) {
        if let Some(before) = self.draining.replace(Draining { grace_ends }) {
            self.timers.cancel(before.grace_ends, Timer::GraceEnds);
        }
        self.timers.set(grace_ends, Timer::GraceEnds);
        let remaining = grace_ends.saturating_duration_since(cx.now.instant);
        let at_least = if alternate { 0 } else { millis(remaining) };
        for conn in self.open_conns() {
            let reconnect_in = at_least + self.rng.random_range(0..RECONNECT_JITTER_MS);
            self.say(
                cx,
                conn,
                Body::new(&ServerMessage::Draining { reconnect_in }, None),
            );
        }
    }

    /// Ends everything at once. Nobody is told of the others' leaving, and nothing is revoked:
    /// the relays end with the process.
    fn grace_ended(&mut self, cx: &mut Cx<'_>) {
        for conn in self.open_conns() {
            let peer = self.conns[&conn].peer;
            self.send_own_leave(cx, peer, LeaveReason::Draining);
            let reason = "the server shuts down";
            cx.effects.push(Effect::Close {
                conn,
                code: CloseCode::Draining,
                reason,
            });
        }
        self.conns.clear();
        self.sessions = Sessions::new(&self.settings);
        self.tokens.clear();
        self.identities.clear();
        self.rooms.clear();
        self.calls.clear();
        self.attempts = Attempts::default();
        self.timers = Timers::default();
        (self.away, self.seated) = (0, 0);
    }

    /// Every connection, in an order that does not change from run to run.
    fn open_conns(&self) -> Vec<ConnId> {
        let mut conns: Vec<_> = self.conns.keys().copied().collect();
        conns.sort_unstable();
        conns
    }
}

fn ack_body(asker: &Asker) -> Body {
    Body::new(&ServerMessage::Ack { ice: None }, asker.id())
}

fn millis(duration: Duration) -> u64 {
    // Rounded up: waiting that long must be enough.
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
