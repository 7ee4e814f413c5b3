//! Coming and going: register, join, leave, and the end of a session for whatever reason.

use super::interface::UniqueIdentity;
use super::moderation::no_relay;
use super::rate::Guesser;
use super::ring::Ring;
use super::session::{Link, Session};
use super::timers::Timer;
use super::{Answer, Asker, Cx, Effect, Hub, network};
use crate::auth::{Grant, Role};
use crate::protocol::{
    Body, CloseCode, Entry, ErrorCode, Join, LeaveReason, PeerId, PeerView, Refusal, ResumeToken,
    Resumption, RoomPatch, ServerMessage, StateView,
};
use crate::signal::room::{Member, PasswordHash, Room};
use rand::RngExt;
use secrecy::SecretString;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// When a server full of sessions may be asked again: about when resume windows have ended.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// What a client brings to its session.
struct Profile {
    identity: Option<Arc<str>>,
    room: Option<Arc<str>>,
    metadata: Option<Box<RawValue>>,
}

impl Hub {
    pub(super) fn register(
        &mut self,
        cx: &mut Cx<'_>,
        asker: &Asker,
        identity: Option<String>,
        grant: Result<Grant, Refusal>,
    ) -> Result<Answer, Refusal> {
        let grant = self.admissible(asker, grant)?;
        if self
            .sessions
            .get(asker.peer)
            .is_some_and(|s| s.room.is_some())
        {
            return Err(Refusal::new(ErrorCode::Forbidden, "leave the room first"));
        }
        let older = self.supersede(cx, asker.peer);
        let identity = grant.identity.clone().or(identity).map(Arc::from);
        self.open_session(
            asker,
            &grant,
            Profile {
                identity,
                room: None,
                metadata: None,
            },
            older,
        );
        self.enter(cx, asker);
        Ok(Answer::Sent)
    }

    pub(super) fn join(
        &mut self,
        cx: &mut Cx<'_>,
        asker: &Asker,
        join: Join,
        grant: Result<Grant, Refusal>,
    ) -> Result<Answer, Refusal> {
        let grant = self.admissible(asker, grant)?;
        if !grant.rooms.allows(&join.room_id) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the token is not for this room",
            ));
        }
        let identity: Option<Arc<str>> = grant
            .identity
            .clone()
            .or(join.identity)
            .map(Arc::from)
            .or_else(|| {
                self.sessions
                    .get(asker.peer)
                    .and_then(|session| session.identity.clone())
            });
        let namesakes = self.same_name_in(&join.room_id, asker.peer, identity.as_deref());
        let password = join.password.as_ref();
        let creates = self.may_enter(cx, asker, &join.room_id, password, grant.role, &namesakes)?;
        if creates && join.create.relay_only == Some(true) && !self.ice.has_relay() {
            return Err(no_relay());
        }

        let older = self.supersede(cx, asker.peer);
        let room = self.seat(cx, asker.peer, join.room_id, join.create, grant.role);
        // Seated first, so that the room outlives its only member's replacement.
        for peer in namesakes {
            self.evict(
                cx,
                peer,
                LeaveReason::Replaced,
                CloseCode::Replaced,
                "replaced",
            );
        }
        let metadata = join.metadata.or_else(|| {
            grant
                .metadata
                .as_ref()
                .and_then(|value| serde_json::value::to_raw_value(value).ok())
        });
        let profile = Profile {
            identity,
            room: Some(room.clone()),
            metadata,
        };
        self.open_session(asker, &grant, profile, older);
        self.enter(cx, asker);

        let member = self.rooms[&room]
            .member(asker.peer)
            .expect("the newcomer is seated");
        let peer = self.peer_view(member);
        let identity = peer.identity.clone();
        let body = Body::new(
            &ServerMessage::PeerJoined {
                peer_id: asker.peer,
                identity,
                peer,
            },
            None,
        );
        self.broadcast(cx, &room, Some(asker.peer), &body);
        Ok(Answer::Sent)
    }

    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, asker: &Asker) -> Result<Answer, Refusal> {
        self.session(asker)?;
        self.reply(cx, asker, Body::new(&ServerMessage::Left, asker.id()));
        self.end(cx, asker.peer, LeaveReason::Left);
        Ok(Answer::Sent)
    }

    pub(super) fn list(&self, asker: &Asker) -> Result<Answer, Refusal> {
        let room = self.room_of(asker.peer)?;
        let peers = self.others(room, asker.peer);
        Ok(Answer::Reply(Body::new(
            &ServerMessage::Peers { peers },
            asker.id(),
        )))
    }

    /// Ends a session and tells everyone concerned; the client itself is told by the caller.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: LeaveReason) {
        let Some(session) = self.close_session(peer) else {
            return;
        };
        match session.link {
            Link::Online(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.floor = session.minted.max(session.floor);
                }
            }
            Link::Away(_) => self.away -= 1,
        }
        for call in &session.calls {
            self.party_left(cx, *call, peer, reason);
        }
        if let Some(room) = &session.room {
            self.unseat(cx, room, peer, &session, reason);
        }
        if let Some(floor) = session.minted {
            cx.effects.push(Effect::Revoke { user: peer, floor });
        }
    }

    /// Ends a session and closes its connection.
    pub(super) fn evict(
        &mut self,
        cx: &mut Cx<'_>,
        peer: PeerId,
        reason: LeaveReason,
        code: CloseCode,
        text: &'static str,
    ) {
        let conn = self.sessions.get(peer).and_then(Session::conn);
        self.end(cx, peer, reason);
        if let Some(conn) = conn {
            self.forget(conn);
            cx.effects.push(Effect::Close {
                conn,
                code,
                reason: text,
            });
        }
    }

    /// Tells a session that it is itself out, where nobody stays to tell the others.
    pub(super) fn send_own_leave(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: LeaveReason) {
        let Some(session) = self.sessions.get(peer) else {
            return;
        };
        let left = ServerMessage::PeerLeft {
            peer_id: peer,
            identity: session.name(peer),
            reason,
        };
        let body = Body::new(&left, None);
        self.sessions.send(cx.effects, peer, body);
    }

    /// The text of `joined`, `registered` or `resumed`, with fresh credentials.
    pub(super) fn entry(
        &mut self,
        cx: &mut Cx<'_>,
        peer: PeerId,
        resumption: Option<Resumption>,
        id: Option<&str>,
    ) -> Body {
        let ice = self.mint(cx, peer);
        let session = self
            .sessions
            .get(peer)
            .expect("an entry is made for a session");
        let room = session.room.as_ref().map(|room| &self.rooms[room]);
        let entry = Entry {
            room_id: session.room.as_deref(),
            peer_id: peer,
            identity: session.name(peer),
            role: room
                .and_then(|room| room.member(peer))
                .map(|member| member.role),
            peers: room.map(|room| self.others(room, peer)),
            room: room.map(Room::view),
            ice,
            resume_token: session.token,
            resume_window: self.settings.resume_window.as_secs(),
            resumption,
        };
        let message = match (&entry.resumption, &entry.room) {
            (Some(_), _) => ServerMessage::Resumed(entry),
            (None, Some(_)) => ServerMessage::Joined(entry),
            (None, None) => ServerMessage::Registered(entry),
        };
        Body::new(&message, id)
    }

    pub(super) fn session(&self, asker: &Asker) -> Result<&Session, Refusal> {
        self.sessions
            .get(asker.peer)
            .ok_or_else(|| Refusal::new(ErrorCode::NotInRoom, "join or register first"))
    }

    pub(super) fn room_of(&self, peer: PeerId) -> Result<&Room, Refusal> {
        self.sessions
            .get(peer)
            .and_then(|session| session.room.as_ref())
            .map(|room| &self.rooms[room])
            .ok_or_else(|| Refusal::new(ErrorCode::NotInRoom, "join a room first"))
    }

    /// Whoever is in `room` beside `peer`.
    pub(super) fn others<'a>(&'a self, room: &Room, peer: PeerId) -> Vec<PeerView<'a>> {
        room.others(peer)
            .map(|member| self.peer_view(member))
            .collect()
    }

    pub(super) fn peer_view(&self, member: &Member) -> PeerView<'_> {
        let session = self
            .sessions
            .get(member.peer)
            .expect("a member has a session");
        PeerView {
            peer_id: member.peer,
            identity: session.name(member.peer),
            role: member.role,
            state: StateView(session.state.as_deref()),
            metadata: session.metadata.as_deref(),
            joined_at: member.joined_at,
            connection: session.presence(),
        }
    }

    /// Tells the room of a peer's state, role and presence.
    pub(super) fn show_state(&mut self, cx: &mut Cx<'_>, peer: PeerId, except: Option<PeerId>) {
        let Ok(room) = self.room_of(peer) else { return };
        let (Some(member), room) = (room.member(peer), room.id.clone()) else {
            return;
        };
        let view = self.peer_view(member);
        let message = ServerMessage::PeerState {
            peer_id: peer,
            identity: view.identity,
            role: view.role,
            state: view.state,
            connection: view.connection,
        };
        let body = Body::new(&message, None);
        self.broadcast(cx, &room, except, &body);
    }

    /// Hashes a password for a room.
    pub(super) fn hash(&mut self, password: &SecretString) -> PasswordHash {
        PasswordHash::new(password, self.rng.random())
    }

    fn admissible(&self, asker: &Asker, grant: Result<Grant, Refusal>) -> Result<Grant, Refusal> {
        if self.draining.is_some() {
            return Err(Refusal::new(ErrorCode::Draining, "the server shuts down"));
        }
        let full = self.sessions.len() >= self.settings.max_sessions;
        if full && self.sessions.get(asker.peer).is_none() {
            return Err(Refusal::slow_down(FULL_RETRY));
        }
        grant
    }

    /// Sessions of that name in the room, the asker's own aside, where names are to be unique.
    fn same_name_in(&self, room: &str, asker: PeerId, identity: Option<&str>) -> Vec<PeerId> {
        let (UniqueIdentity::Replace | UniqueIdentity::Reject, Some(identity)) =
            (self.settings.unique_identity, identity)
        else {
            return Vec::new();
        };
        let of_that_name = self.identities.get(identity).map_or(&[][..], Vec::as_slice);
        let here = |peer: &PeerId| {
            *peer != asker
                && self
                    .sessions
                    .get(*peer)
                    .is_some_and(|s| s.room.as_deref() == Some(room))
        };
        of_that_name.iter().copied().filter(here).collect()
    }

    /// Whether the asker may enter, and if so, whether that makes the room anew.
    fn may_enter(
        &mut self,
        cx: &Cx<'_>,
        asker: &Asker,
        name: &str,
        password: Option<&SecretString>,
        token_role: Option<Role>,
        namesakes: &[PeerId],
    ) -> Result<bool, Refusal> {
        let rejoins = self.room_of(asker.peer).is_ok_and(|room| &*room.id == name);
        let Some(room) = self
            .rooms
            .get(name)
            .filter(|r| r.members().len() > usize::from(rejoins))
        else {
            if self.rooms.len() >= self.settings.max_rooms && !rejoins {
                return Err(Refusal::new(
                    ErrorCode::RoomFull,
                    "the server has no room left",
                ));
            }
            return Ok(true);
        };
        if let Some(hash) = room.password.clone() {
            let id = room.id.clone();
            self.check_password(cx, asker, id, &hash, password)?;
        }
        if !namesakes.is_empty() && self.settings.unique_identity == UniqueIdentity::Reject {
            return Err(Refusal::new(
                ErrorCode::IdentityTaken,
                "the identity is in the room",
            ));
        }
        let leaving = usize::from(rejoins) + namesakes.len();
        self.rooms[name]
            .admit(token_role, leaving)
            .map_err(|code| {
                let message = match code {
                    ErrorCode::RoomLocked => "the room is locked",
                    _ => "the room is full",
                };
                Refusal::new(code, message)
            })?;
        Ok(false)
    }

    fn check_password(
        &mut self,
        cx: &Cx<'_>,
        asker: &Asker,
        room: Arc<str>,
        hash: &PasswordHash,
        password: Option<&SecretString>,
    ) -> Result<(), Refusal> {
        let refusal = |message| Err(Refusal::new(ErrorCode::BadPassword, message));
        let Some(password) = password else {
            return refusal("the room has a password");
        };
        let guesser: Guesser = (network(self.conns[&asker.conn].client), room);
        let now = cx.now.instant;
        self.attempts
            .check(now, &guesser)
            .map_err(Refusal::slow_down)?;
        if hash.verify(password) {
            return Ok(());
        }
        let (before, until) = self.attempts.charge(now, guesser.clone());
        if let Some(before) = before {
            self.timers.cancel(before, Timer::Forgive(guesser.clone()));
        }
        self.timers.set(until, Timer::Forgive(guesser));
        refusal("the password is wrong")
    }

    /// Makes way for another session on the same connection. Leaving a room ends everything; a
    /// registration is handed back, as its calls and credentials go on.
    fn supersede(&mut self, cx: &mut Cx<'_>, peer: PeerId) -> Option<Session> {
        if self
            .sessions
            .get(peer)
            .is_some_and(|session| session.room.is_some())
        {
            self.end(cx, peer, LeaveReason::Left);
        }
        self.close_session(peer)
    }

    /// Takes a session out of every index but its room's and its calls'.
    fn close_session(&mut self, peer: PeerId) -> Option<Session> {
        let session = self.sessions.remove(peer)?;
        self.tokens.remove(&session.token.digest());
        if let Some(refresh) = session.refresh {
            self.timers.cancel(refresh, Timer::Refresh(peer));
        }
        if let Link::Away(away) = &session.link {
            self.timers.cancel(away.until, Timer::WindowEnds(peer));
        }
        if let Some(identity) = &session.identity
            && let Some(peers) = self.identities.get_mut(identity)
        {
            peers.retain(|other| *other != peer);
            if peers.is_empty() {
                self.identities.remove(identity);
            }
        }
        Some(session)
    }

    fn open_session(
        &mut self,
        asker: &Asker,
        grant: &Grant,
        profile: Profile,
        older: Option<Session>,
    ) {
        let conn = self
            .conns
            .get_mut(&asker.conn)
            .expect("who asks is connected");
        if let Some(deadline) = conn.deadline.take() {
            self.timers
                .cancel(deadline, Timer::JoinDeadline(asker.conn));
        }
        let token = ResumeToken::from_bits(self.rng.random());
        let (calls, minted, floor) = match older {
            Some(older) => (older.calls, older.minted, older.floor),
            None => (Vec::new(), None, conn.floor),
        };
        if let Some(identity) = &profile.identity {
            self.identities
                .entry(identity.clone())
                .or_default()
                .push(asker.peer);
        }
        self.tokens.insert(token.digest(), asker.peer);
        self.sessions.insert(
            asker.peer,
            Session {
                link: Link::Online(asker.conn),
                identity: profile.identity,
                room: profile.room,
                may_call: grant.call,
                may_list_rooms: grant.list_rooms,
                state: None,
                metadata: profile.metadata,
                token,
                ring: Ring::new(),
                minted,
                floor,
                refresh: None,
                calls,
            },
        );
    }

    /// Seats a newcomer, in a new room if there is none. What the newcomer wishes for a new room
    /// counts unless a token makes it a viewer.
    fn seat(
        &mut self,
        cx: &Cx<'_>,
        peer: PeerId,
        name: String,
        create: RoomPatch,
        token_role: Option<Role>,
    ) -> Arc<str> {
        let mut room = match self.rooms.remove(name.as_str()) {
            Some(room) => room,
            None => {
                let mut room = Room::new(name.into(), self.settings.max_peers, cx.now.unix_ms);
                if token_role != Some(Role::Viewer) {
                    self.apply(&mut room, create);
                }
                room
            }
        };
        room.add(peer, token_role, cx.now.unix_ms);
        self.seated += 1;
        let name = room.id.clone();
        self.rooms.insert(name.clone(), room);
        name
    }

    fn unseat(
        &mut self,
        cx: &mut Cx<'_>,
        name: &Arc<str>,
        peer: PeerId,
        session: &Session,
        reason: LeaveReason,
    ) {
        let room = self.rooms.get_mut(name).expect("a session's room exists");
        let heir = room.remove(peer);
        self.seated -= 1;
        if room.members().is_empty() {
            self.rooms.remove(name);
            return;
        }
        let left = ServerMessage::PeerLeft {
            peer_id: peer,
            identity: session.name(peer),
            reason,
        };
        self.broadcast(cx, name, None, &Body::new(&left, None));
        if let Some(heir) = heir {
            self.show_state(cx, heir, None);
        }
    }

    /// Sends the first frame of a session, number 1, which no ring keeps.
    fn enter(&mut self, cx: &mut Cx<'_>, asker: &Asker) {
        let body = self.entry(cx, asker.peer, None, asker.id());
        self.remember(asker, &body);
        cx.effects.push(Effect::Send {
            conn: asker.conn,
            seq: Some(1),
            body,
        });
    }
}
