//! Requests and their answers: limits, one reply each, and no second effect for one sent twice.

use super::rate::Verdict;
use super::replies::{About, Remembered};
use super::{ConnId, Cx, Hub, millis};
use crate::auth::Grant;
use crate::protocol::{
    Body, ClientMessage, CloseCode, ErrorCode, FrameError, MessageType, PeerId, Refusal, Request,
    Resumption, ServerMessage,
};

/// Malformed frames in a row that close a connection, as the protocol promises.
const MAX_MALFORMED: u8 = 10;

/// Frames that a connection may send without ever having a session: a wrong password some times, an
/// unknown dialect for a while. Silence has its own deadline.
const MAX_OUTSIDE: u32 = 200;

/// Who sent a request and how to answer it.
pub(super) struct Asker {
    pub(super) conn: ConnId,
    pub(super) peer: PeerId,
    id: Option<String>,
    pub(super) kind: MessageType,
}

impl Asker {
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// What a request leads to, if not to a [`Refusal`].
pub(super) enum Answer {
    /// `ack`, if an answer is wanted at all.
    Ack,
    /// The reply of its type.
    Reply(Body),
    /// The handler has answered: its reply had to go before or after something else.
    Sent,
}

impl Hub {
    pub(super) fn frame(
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
        let is_outside = self.sessions.get(entry.peer).is_none();
        entry.outside = if is_outside { entry.outside + 1 } else { 0 };
        if entry.outside > MAX_OUTSIDE {
            let why = "too many messages without a session";
            self.refuse(cx, conn, &Refusal::new(ErrorCode::Unauthorized, why), None);
            return self.shut(cx, conn, CloseCode::Unauthorized, why);
        }
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
                entry.malformed = if error.malformed {
                    entry.malformed + 1
                } else {
                    0
                };
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
                if refusal.code != ErrorCode::RateLimited
                    && let (Some(id), Some(conn)) = (asker.id(), self.conns.get_mut(&asker.conn))
                {
                    conn.replies.error(id, &body);
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
            Request::Mute {
                media,
                muted,
                to,
                rest,
            } => self.mute(cx, asker, media, muted, to, &rest),
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

    /// Answers a request sent twice as it was answered the first time; tells whether it did.
    fn answered_before(&mut self, cx: &mut Cx<'_>, asker: &Asker) -> bool {
        let (Some(id), Some(conn)) = (asker.id(), self.conns.get(&asker.conn)) else {
            return false;
        };
        let body = match conn.replies.get(id) {
            None => Ok(None),
            Some(Remembered::Ack) => Ok(Some(ack_body(asker))),
            Some(Remembered::Error(body)) => Ok(Some(body.clone())),
            Some(Remembered::Short(body, about)) if self.still_holds(asker, *about) => {
                Ok(Some(body.clone()))
            }
            Some(&(Remembered::Short(_, about) | Remembered::Long(about))) => {
                self.made_anew(cx, asker, about)
            }
        };
        match body {
            Ok(None) => return false,
            Ok(Some(body)) => self.say(cx, asker.conn, body),
            Err(refusal) => {
                self.refuse(cx, asker.conn, &refusal, asker.id());
            }
        }
        true
    }

    /// Whether what a short reply said is still so: a `left` or a `pong` always, everything else
    /// within its session. The token, calls and credentials in it end with that.
    fn still_holds(&self, asker: &Asker, about: About) -> bool {
        matches!(about.kind, MessageType::Leave | MessageType::Ping)
            || (self.sessions.get(asker.peer).is_some()
                && self.conns[&asker.conn].sessions == about.session)
    }

    /// Makes a reply again, within its session and without the effects of its request; `None` where
    /// the request had none and may as well be done again.
    fn made_anew(
        &mut self,
        cx: &mut Cx<'_>,
        asker: &Asker,
        long: About,
    ) -> Result<Option<Body>, Refusal> {
        use MessageType as T;
        if let T::List | T::Rooms | T::IceServers | T::Ping = long.kind {
            return if asker.kind == long.kind {
                Ok(None)
            } else {
                let message = "another request had this `id`";
                Err(Refusal::new(ErrorCode::InvalidMessage, message))
            };
        }
        self.session(asker)?;
        if self.conns[&asker.conn].sessions != long.session {
            let message = "the session in which that was answered is over";
            return Err(Refusal::new(ErrorCode::NotInRoom, message));
        }
        Ok(Some(match long.kind {
            T::Accept => self.ice_ack(cx, asker),
            T::Room => self.room_body(asker)?,
            _ => self.entry(cx, asker.peer, long.resumption, asker.id()),
        }))
    }

    fn ack(&mut self, cx: &mut Cx<'_>, asker: &Asker) {
        let Some(id) = asker.id() else { return };
        self.say(cx, asker.conn, ack_body(asker));
        if let Some(conn) = self.conns.get_mut(&asker.conn) {
            conn.replies.ack(id);
        }
    }

    pub(super) fn reply(&mut self, cx: &mut Cx<'_>, asker: &Asker, body: Body) {
        self.remember(asker, &body, None);
        self.say(cx, asker.conn, body);
    }

    pub(super) fn remember(&mut self, asker: &Asker, body: &Body, resumption: Option<Resumption>) {
        if let (Some(id), Some(conn)) = (asker.id(), self.conns.get_mut(&asker.conn)) {
            let about = About {
                kind: asker.kind,
                session: conn.sessions,
                resumption,
            };
            conn.replies.text(id, body, about);
        }
    }

    pub(super) fn refuse(
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
}

fn ack_body(asker: &Asker) -> Body {
    Body::new(&ServerMessage::Ack { ice: None }, asker.id())
}
