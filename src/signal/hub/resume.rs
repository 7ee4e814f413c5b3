//! Losing a connection and coming back: away, replay, and the end of the window.

use super::requests::{Answer, Requester};
use super::session::{Away, Conn, Link};
use super::timers::Timer;
use super::{ConnId, Cx, Effect, Event, Hub};
use crate::network::network_of;
use crate::protocol::{
    CloseCode, ErrorCode, LeaveReason, PeerId, RequestError, ResumeToken, Resumption,
};
use secrecy::{ExposeSecret, SecretString};
use std::mem;
use std::net::IpAddr;

impl Hub {
    /// A connection is gone; its session, if any, waits for another.
    pub(super) fn lost(&mut self, cx: &mut Cx<'_>, conn: ConnId, reason: LeaveReason) {
        let id = conn;
        let Some(conn) = self.remove_connection(conn) else {
            return;
        };
        let peer = conn.peer;
        self.withhold_will(cx.now.instant, id, conn.client);
        self.exchange_left(cx, id, peer);
        if !self.has_dated() {
            self.ignore_clock();
        }
        let session = self.sessions.get(peer);
        let Some(session) = session.filter(|session| session.conn() == Some(id)) else {
            return;
        };
        // While the box drains, calls outlive their signaling, whatever dialect it speaks.
        if !session.dialect.is_resumable() && self.draining.is_none() {
            self.end(cx, peer, reason);
            return;
        }
        self.set_away(cx, peer, conn, reason);
        self.broadcast_peer_state(cx, peer, Some(peer));
    }

    /// Has a session wait for another connection.
    pub(super) fn set_away(&mut self, cx: &Cx<'_>, peer: PeerId, conn: Conn, reason: LeaveReason) {
        let Some(session) = self.sessions.get_mut(peer) else {
            return;
        };
        let until = cx.now.instant + self.settings.resume_window;
        session.link = Link::Away(Box::new(Away {
            until,
            reason,
            conn,
        }));
        self.away += 1;
        self.timers.set(until, Timer::WindowEnds(peer));
    }

    pub(super) fn resume(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        token: &SecretString,
        seq: u64,
    ) -> Result<Answer, RequestError> {
        let failed = |message| RequestError::new(ErrorCode::ResumeFailed, message);
        if self.sessions.get(requester.peer).is_some() {
            return Err(failed("this connection has a session"));
        }
        let token = ResumeToken::parse(token.expose_secret()).map(|token| token.digest());
        let Some(peer) = token.and_then(|token| self.tokens.get(&token).copied()) else {
            let ended = token.and_then(|token| self.ended_by(cx, token));
            let (code, reason) = ended.ok_or_else(|| failed("the session is gone"))?;
            let conn = requester.conn;
            cx.effects.push(Effect::Close { conn, code, reason });
            self.lost(cx, conn, LeaveReason::Disconnected);
            return Ok(Answer::Sent);
        };
        let session = self
            .sessions
            .get_mut(peer)
            .expect("a token belongs to a session");
        session.is_used = true;
        session.ring.find(seq);
        let (frames, gap) = session
            .ring
            .since(seq)
            .ok_or_else(|| failed("`seq` was never sent"))?;

        let (was_away, lost) = match mem::replace(&mut session.link, Link::Online(requester.conn)) {
            Link::Online(old) => {
                cx.effects.push(Effect::Close {
                    conn: old,
                    code: CloseCode::Replaced,
                    reason: "resumed on another connection",
                });
                let lost = self
                    .remove_connection(old)
                    .expect("an online session has a connection");
                (false, lost)
            }
            Link::Away(away) => {
                self.timers.cancel(away.until, Timer::WindowEnds(peer));
                self.away -= 1;
                (true, away.conn)
            }
        };
        let new = self
            .remove_connection(requester.conn)
            .expect("who asks is connected");
        let conn = Conn {
            client: new.client,
            deadline: None,
            outside: 0,
            malformed: 0,
            is_guest: new.is_guest,
            ..lost
        };
        self.relocate(peer, network_of(conn.client));
        self.conns.insert(requester.conn, conn);
        self.sessions.confirm(peer, seq);
        self.note_session(peer);
        self.counters.resumes += 1;
        self.counters.gaps += u64::from(gap);

        let resumption = Resumption {
            replayed: frames.len(),
            gap,
        };
        let (body, rest) = self.session_started_body(cx, peer, Some(resumption), requester.id());
        self.remember(requester, &body, Some(resumption));
        let send = |seq, body| Effect::Send {
            conn: requester.conn,
            peer,
            seq,
            event: Event::Native(body),
        };
        cx.effects.push(send(None, body));
        cx.effects
            .extend(frames.into_iter().map(|(seq, body)| send(Some(seq), body)));
        self.send_all(cx, peer, rest);
        if was_away {
            self.broadcast_peer_state(cx, peer, Some(peer));
        }
        Ok(Answer::Sent)
    }

    /// Counts a session on another network, as its client has moved.
    fn relocate(&mut self, peer: PeerId, network: IpAddr) {
        let session = self.sessions.get(peer);
        if let Some((name, before)) = session.and_then(|s| Some((s.identity.clone()?, s.network))) {
            self.names.remove(&name, before, peer);
            self.names.insert(name, network, peer);
        }
        self.sessions.relocate(peer, network);
    }

    /// While the server drains, calls live on without their signaling until the grace ends.
    pub(super) fn window_ended(&mut self, cx: &mut Cx<'_>, peer: PeerId) {
        if self.draining.is_some() {
            return;
        }
        if let Some(Link::Away(away)) = self.sessions.get(peer).map(|session| &session.link) {
            let reason = away.reason;
            self.end(cx, peer, reason);
        }
    }
}
