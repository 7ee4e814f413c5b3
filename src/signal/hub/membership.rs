//! Coming and going: register, join, leave, and the end of a session for whatever reason.

use super::metadata;
use super::moderation::{cannot_be_filtered, no_relay};
use super::requests::{Answer, Requester};
use super::ring::Ring;
use super::session::{Link, Session};
use super::timers::Timer;
use super::{Cx, Effect, Event, Hub, Notice, Now};
use crate::auth::{Grant, Role};
use crate::network::network_of;
use crate::protocol::{
    Body, CloseCode, ErrorCode, Join, LeaveReason, PeerId, RequestError, ResumeToken, RoomPatch,
    ServerMessage, room_name,
};
use crate::signal::room::Room;
use rand::RngExt;
use serde_json::value::RawValue;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

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
        requester: &Requester,
        identity: Option<String>,
        grant: Result<Grant, RequestError>,
    ) -> Result<Answer, RequestError> {
        let grant = self.check_capacity(requester, grant)?;
        if grant.invite.is_some() {
            let message = "an invitation is for its room alone";
            return Err(RequestError::new(ErrorCode::Forbidden, message));
        }
        if self
            .sessions
            .get(requester.peer)
            .is_some_and(|s| s.room.is_some())
        {
            return Err(RequestError::new(
                ErrorCode::Forbidden,
                "leave the room first",
            ));
        }
        let (older, _) = self.supersede(cx, requester.peer);
        let identity = name(&grant, identity);
        self.open_session(
            cx,
            requester,
            &grant,
            Profile {
                identity,
                room: None,
                metadata: None,
            },
            older,
        );
        self.send_session_started(cx, requester);
        Ok(Answer::Sent)
    }

    pub(super) fn join(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        join: Join,
        grant: Result<Grant, RequestError>,
    ) -> Result<Answer, RequestError> {
        let grant = self.check_capacity(requester, grant)?;
        if !grant.rooms.allows(room_name(&join.room_id)) {
            return Err(RequestError::new(
                ErrorCode::Forbidden,
                "the token is not for this room",
            ));
        }
        let dialect = self.conns[&requester.conn].dialect;
        let room = self.rooms.get(join.room_id.as_str());
        if room.is_some_and(|room| room.relay_only) && !dialect.can_be_filtered() {
            return Err(cannot_be_filtered());
        }
        let before = || {
            self.sessions
                .get(requester.peer)?
                .identity
                .as_deref()
                .map(str::to_owned)
        };
        let mut grant = grant;
        grant.role = grant.role_in(room_name(&join.room_id));
        let invite = self.invitation(&join.room_id, &grant)?;
        // No host gives more than it has: one without a token makes hosts of its own kind.
        let becomes_host =
            invite.is_some_and(|invite| !invite.by_token) && grant.role == Some(Role::Host);
        if becomes_host {
            grant.role = None;
        }
        let identity = name(&grant, join.identity.or_else(before));
        let namesakes = self.namesakes(&join.room_id, requester.peer, identity.as_deref());
        let password = join.password.as_ref();
        let creates = self.may_enter(
            cx,
            requester,
            &join.room_id,
            password,
            grant.role,
            &namesakes,
        )?;
        let rules_new_room = matches!(grant.role, None | Some(Role::Host));
        let metadata = metadata::merged(join.metadata, grant.metadata.as_ref())?;
        let wants_relay = rules_new_room && join.create.relay_only == Some(true);
        if creates && wants_relay && !self.ice.has_relay() {
            return Err(no_relay());
        }

        let (older, left) = self.supersede(cx, requester.peer);
        match left {
            // Its only member comes back to it.
            Some(room) if *room.id == *join.room_id => {
                self.insert_room(room);
            }
            Some(room) => self.notice_room_ended(cx, &room.id, room.created_at),
            None => {}
        }
        let network = network_of(self.conns[&requester.conn].client);
        let newcomer = (requester.peer, network);
        let room = self.add_member(cx, newcomer, join.room_id, join.create, grant.role);
        self.use_invitation(&room, &grant);
        if becomes_host && let Some(room) = self.rooms.get_mut(&room) {
            // A newcomer is not the last host of a room.
            let _ = room.set_role(requester.peer, Role::Host);
        }
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
        let profile = Profile {
            identity,
            room: Some(room.clone()),
            metadata,
        };
        self.open_session(cx, requester, &grant, profile, older);
        self.send_session_started(cx, requester);

        let member = self.rooms[&room]
            .member(requester.peer)
            .expect("the newcomer is a member");
        let peer = self.peer_view(member);
        let identity = peer.identity.clone();
        let body = Body::new(
            &ServerMessage::PeerJoined {
                peer_id: requester.peer,
                identity,
                peer,
            },
            None,
        );
        self.broadcast(cx, &room, Some(requester.peer), &body);
        self.notice_joined(cx, &room, requester.peer);
        Ok(Answer::Sent)
    }

    pub(super) fn leave(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
    ) -> Result<Answer, RequestError> {
        self.session(requester)?;
        self.reply(
            cx,
            requester,
            Body::new(&ServerMessage::Left, requester.id()),
        );
        self.end(cx, requester.peer, LeaveReason::Left);
        Ok(Answer::Sent)
    }

    pub(super) fn list(&self, requester: &Requester) -> Result<Answer, RequestError> {
        let room = self.room_of(requester.peer)?;
        let (body, rest) = self.peers(room, requester);
        Ok(Answer::Parts(body, rest))
    }

    /// Ends a session and tells everyone concerned; the client itself is told by the caller.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: LeaveReason) {
        if let Some(room) = self.end_session(cx, peer, reason) {
            self.notice_room_ended(cx, &room.id, room.created_at);
        }
    }

    /// As [`Self::end`]. Returns the room if it ends as well: the caller says so, or fills it again.
    fn end_session(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: LeaveReason) -> Option<Room> {
        let session = self.close_session(peer)?;
        match session.link {
            Link::Online(conn) => {
                if let Some(entry) = self.conns.get_mut(&conn) {
                    entry.revoked_until = session.minted.max(session.revoked_until);
                    if entry.dialect.has_join_deadline() {
                        let deadline = cx.now.instant + self.settings.join_deadline;
                        entry.deadline = Some(deadline);
                        self.timers.set(deadline, Timer::JoinDeadline(conn));
                    }
                }
            }
            Link::Away(_) => self.away -= 1,
        }
        for call in &session.calls {
            self.party_left(cx, *call, peer);
        }
        let room = session.room.as_ref();
        let ended = room.and_then(|room| self.remove_from_room(cx, room, peer, &session, reason));
        if let Some(revoked_until) = session.minted {
            cx.effects.push(Effect::Revoke {
                user: peer,
                revoked_until,
                network: session.network,
            });
        }
        ended
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
        self.note_ended(cx, peer, code);
        self.end(cx, peer, reason);
        if let Some(conn) = conn {
            self.remove_connection(conn);
            self.exchange_left(cx, conn, peer);
            cx.effects.push(Effect::Close {
                conn,
                code,
                reason: text,
            });
        }
    }

    /// Makes way for another session on the same connection. Leaving a room ends everything, and
    /// the room is handed back if that ends as well; a registration is handed back, as its calls
    /// and credentials go on.
    fn supersede(&mut self, cx: &mut Cx<'_>, peer: PeerId) -> (Option<Session>, Option<Room>) {
        match self.sessions.get(peer) {
            Some(session) if session.room.is_some() => {
                (None, self.end_session(cx, peer, LeaveReason::Left))
            }
            _ => (self.close_session(peer), None),
        }
    }

    /// Takes a session out of every index but its room's and its calls'.
    pub(super) fn close_session(&mut self, peer: PeerId) -> Option<Session> {
        let session = self.sessions.remove(peer)?;
        if !self.has_dated() {
            self.ignore_clock();
        }
        self.tokens.remove(&session.token.digest());
        if let Some((_, timer)) = session.ends {
            self.timers.cancel(timer, Timer::TokenEnds(peer));
        }
        if let Some(refresh) = session.refresh {
            self.timers.cancel(refresh, Timer::Refresh(peer));
        }
        if let Link::Away(away) = &session.link {
            self.timers.cancel(away.until, Timer::WindowEnds(peer));
        }
        if let Some(name) = &session.identity {
            self.names.remove(name, session.network, peer);
        }
        Some(session)
    }

    /// The token of a session has ended, and the session with it.
    pub(super) fn token_ended(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        let Some((ends, _)) = self.sessions.get(peer).and_then(|session| session.ends) else {
            return;
        };
        if cx.now.unix_ms / 1000 < ends {
            // The wall clock was set back.
            return self.end_with_token(cx.now, peer, ends);
        }
        if let Some(conn) = self.sessions.get(peer).and_then(Session::conn) {
            let refusal =
                RequestError::new(ErrorCode::TokenExpired, "the session ends with its token");
            self.refuse(cx, conn, &refusal, None);
        }
        let (reason, code) = (LeaveReason::Disconnected, CloseCode::Unauthorized);
        self.evict(cx, peer, reason, code, "the session ends with its token");
    }

    /// Sets the timer for the end of a session's token, in place of an earlier one.
    pub(super) fn end_with_token(&mut self, now: Now, peer: PeerId, ends: u64) {
        let left = ends.saturating_mul(1000).saturating_sub(now.unix_ms);
        // A timer beyond a year would only outlive the process.
        let left = Duration::from_millis(left).min(Duration::from_secs(365 * 24 * 3600));
        let at = now.instant + left;
        if let Some(session) = self.sessions.get_mut(peer) {
            if let Some((_, before)) = session.ends.replace((ends, at)) {
                self.timers.cancel(before, Timer::TokenEnds(peer));
            }
            self.timers.set(at, Timer::TokenEnds(peer));
        }
    }

    fn open_session(
        &mut self,
        cx: &Cx<'_>,
        requester: &Requester,
        grant: &Grant,
        profile: Profile,
        older: Option<Session>,
    ) {
        let token = ResumeToken::from_bits(self.rng.random());
        let token = self.located(token, profile.room.as_deref());
        let conn = self
            .conns
            .get_mut(&requester.conn)
            .expect("who asks is connected");
        if let Some(deadline) = conn.deadline.take() {
            self.timers
                .cancel(deadline, Timer::JoinDeadline(requester.conn));
        }
        conn.sessions += 1;
        let (calls, minted, revoked_until) = match older {
            Some(older) => (older.calls, older.minted, older.revoked_until),
            None => (Vec::new(), None, conn.revoked_until),
        };
        if let Some(name) = &profile.identity {
            let network = network_of(conn.client);
            self.names.insert(name.clone(), network, requester.peer);
        }
        self.tokens.insert(token.digest(), requester.peer);
        self.sessions.insert(
            requester.peer,
            Session {
                link: Link::Online(requester.conn),
                dialect: conn.dialect,
                shown: conn.shown,
                network: network_of(conn.client),
                identity: profile.identity,
                bearer: grant.http_name().map(Arc::from),
                room: profile.room,
                role: grant.role_outside(),
                may_call: grant.call,
                may_list_rooms: grant.list_rooms,
                may_subscribe: grant.subscribe,
                team: grant.team.as_deref().map(Arc::from),
                claims: grant.claims.clone(),
                state: None,
                metadata: profile.metadata,
                token,
                ring: Ring::new(),
                minted,
                revoked_until,
                ends: None,
                refresh: None,
                calls,
                is_used: false,
                report: None,
            },
        );
        if let Some(ends) = grant.ends {
            self.end_with_token(cx.now, requester.peer, ends);
        }
    }

    /// Adds a newcomer, to a new room if there is none. What the newcomer wishes for a new room
    /// counts where it becomes its host.
    fn add_member(
        &mut self,
        cx: &mut Cx<'_>,
        (peer, network): (PeerId, IpAddr),
        name: String,
        create: RoomPatch,
        token_role: Option<Role>,
    ) -> Arc<str> {
        let mut room = match self.remove_room(&name) {
            Some(room) => room,
            None => {
                let max_peers = self.settings.max_peers;
                let mut room = Room::new(name.into(), max_peers, cx.now.unix_ms, network);
                if matches!(token_role, None | Some(Role::Host)) {
                    self.apply(&mut room, create);
                }
                self.notice(cx, || Notice::RoomStarted {
                    room: room.id.clone(),
                });
                room
            }
        };
        room.add(peer, token_role, cx.now.unix_ms);
        self.members += 1;
        let name = room.id.clone();
        self.insert_room(room);
        self.note_room(&name);
        self.note_member(&name, peer);
        name
    }

    fn remove_from_room(
        &mut self,
        cx: &mut Cx<'_>,
        name: &Arc<str>,
        peer: PeerId,
        session: &Session,
        reason: LeaveReason,
    ) -> Option<Room> {
        self.note_room(name);
        self.note_member(name, peer);
        let room = self.rooms.get_mut(name).expect("a session's room exists");
        let heir = room.remove(peer);
        self.members -= 1;
        let is_empty = room.members().is_empty();
        self.notice(cx, || Notice::PeerLeft {
            room: name.clone(),
            peer_id: peer,
            identity: session.shared_name(peer),
            reason,
        });
        if is_empty {
            return self.remove_room(name);
        }
        let left = ServerMessage::PeerLeft {
            peer_id: peer,
            identity: session.name(peer),
            reason,
        };
        self.broadcast(cx, name, None, &Body::new(&left, None));
        if let Some(heir) = heir {
            self.note_member(name, heir);
            self.broadcast_peer_state(cx, heir, None);
        }
        None
    }

    /// Sends the first frame of a session, number 1, which no ring keeps.
    fn send_session_started(&mut self, cx: &mut Cx<'_>, requester: &Requester) {
        let (body, rest) = self.session_started_body(cx, requester.peer, None, requester.id());
        self.remember(requester, &body, None);
        cx.effects.push(Effect::Send {
            conn: requester.conn,
            peer: requester.peer,
            seq: Some(1),
            event: Event::Native(body),
        });
        self.send_all(cx, requester.peer, rest);
    }
}

/// The token's name, or, without a token, the chosen one; `None`: the peer id serves.
fn name(grant: &Grant, chosen: Option<String>) -> Option<Arc<str>> {
    let chosen = chosen.filter(|_| grant.chooses_identity);
    grant.identity.clone().or(chosen).map(Arc::from)
}
