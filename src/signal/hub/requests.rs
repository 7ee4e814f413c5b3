//! Requests and their answers: limits, one reply each, and no second effect for one sent twice.

use super::interface::granted;
use super::rate::Verdict;
use super::response_cache::{About, Remembered};
use super::{ConnId, Cx, Effect, Granted, Hub, millis};
use crate::protocol::{
    Body, ClientMessage, CloseCode, ErrorCode, ExchangeRequest, FrameError, MessageType, PeerId,
    Request, RequestError, Resumption, ServerMessage,
};

/// Malformed frames in a row that close a connection, as the protocol promises.
const MAX_MALFORMED: u8 = 10;

/// Frames that a connection of any dialect may send without ever having a session, a topic or a
/// name, and without publishing: a wrong password some times, an unknown type for a while. Silence is
/// not bounded by it.
const MAX_OUTSIDE: u32 = 200;

/// Who sent a request and how to answer it.
pub(super) struct Requester {
    pub(super) conn: ConnId,
    pub(super) peer: PeerId,
    id: Option<String>,
    pub(super) kind: MessageType,
}

impl Requester {
    /// Stands for a connection that is made to join without having asked.
    pub(super) fn unasked(conn: ConnId, peer: PeerId) -> Self {
        Self {
            conn,
            peer,
            id: None,
            kind: MessageType::Join,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// What a request leads to, if not to a [`RequestError`].
pub(super) enum Answer {
    /// `ack`, if an answer is wanted at all.
    Ack,
    /// The reply of its type.
    Reply(Body),
    /// The reply of its type, and what follows it.
    Parts(Body, Vec<Body>),
    /// The handler has answered: its reply had to go before or after something else.
    Sent,
}

/// A reply given again.
enum Regenerated {
    /// The request had no effect and may as well be done again.
    NotNeeded,
    /// This is to be said.
    Body(Body),
    /// It has been said.
    Sent,
}

impl Hub {
    pub(super) fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        message: Result<ClientMessage, FrameError>,
        grant: Granted,
    ) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        let now = cx.now.instant;
        let asks = asks_for(&message);
        if let Some(lobby) = &entry.lobby
            && asks == Asks::Something
        {
            self.lobbies.leave(lobby, conn);
        }
        let session = self.sessions.get_mut(entry.peer);
        let session = session.map(|session| session.is_used = true);
        let has_entered =
            entry.elsewhere || session.is_some() || self.exchange.has_entered(conn, entry.dialect);
        entry.outside = match (has_entered, asks) {
            (true, _) => 0,
            (false, Asks::NothingWhenDue) => entry.outside,
            (false, _) => entry.outside + 1,
        };
        if entry.outside > MAX_OUTSIDE {
            let why = "too many messages without a session";
            self.refuse(
                cx,
                conn,
                &RequestError::new(ErrorCode::Unauthorized, why),
                None,
            );
            return self.close_for_abuse(cx, conn, CloseCode::Unauthorized, why);
        }
        let verdict = match &message {
            Ok(message) if message.kind == MessageType::Candidate => {
                entry.candidates.charge(now, self.settings.candidate_rate)
            }
            _ => entry.frames.charge(now, self.settings.rate),
        };
        if let (Verdict::Pass, Ok(message)) = (&verdict, &message)
            && let Some(wait) = self.presses(now, conn, &message.request)
        {
            let id = message.id.as_deref();
            self.refuse(cx, conn, &RequestError::slow_down(wait), id);
            let until = now + wait;
            return cx.effects.push(Effect::Hold { conn, until });
        }
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        match (verdict, message) {
            (Verdict::Abuse, _) => {
                self.close_for_abuse(cx, conn, CloseCode::RateLimited, "rate limited")
            }
            (Verdict::Wait(wait), message) => {
                let id = message.map_or_else(|error| error.id, |message| message.id);
                self.refuse(cx, conn, &RequestError::slow_down(wait), id.as_deref());
            }
            (Verdict::Pass, Err(error)) => {
                entry.malformed = if error.malformed {
                    entry.malformed + 1
                } else {
                    0
                };
                let too_many = entry.malformed >= MAX_MALFORMED;
                let refusal = RequestError::new(error.code, error.message);
                self.refuse(cx, conn, &refusal, error.id.as_deref());
                if too_many {
                    self.close_for_abuse(
                        cx,
                        conn,
                        CloseCode::Malformed,
                        "too many malformed frames",
                    );
                }
            }
            (
                Verdict::Pass,
                Ok(ClientMessage {
                    id,
                    kind,
                    request,
                    dialect,
                }),
            ) => {
                entry.malformed = 0;
                if dialect.is_some() {
                    entry.shown = dialect;
                    if let Some(session) = self.sessions.get_mut(entry.peer) {
                        session.shown = dialect;
                    }
                }
                let requester = Requester {
                    conn,
                    peer: entry.peer,
                    id,
                    kind,
                };
                let before = cx.effects.len();
                let traced = self.watch.has_traces().then(|| {
                    let session = self.sessions.get(requester.peer);
                    session.and_then(|session| session.room.clone())
                });
                self.request(cx, &requester, request, grant);
                if let Some(room) = traced {
                    self.trace_message(cx, &requester, room, before);
                }
            }
        }
    }

    fn request(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        request: Request,
        grant: Granted,
    ) {
        self.counters.count_received(requester.kind);
        if self.answered_before(cx, requester) {
            return;
        }
        match self.dispatch(cx, requester, request, grant) {
            Ok(Answer::Ack) => self.ack(cx, requester),
            Ok(Answer::Reply(body)) => self.reply(cx, requester, body),
            Ok(Answer::Parts(body, rest)) => {
                self.reply(cx, requester, body);
                self.send_all(cx, requester.peer, rest);
            }
            Ok(Answer::Sent) => {}
            Err(refusal) => {
                let body = self.refuse(cx, requester.conn, &refusal, requester.id());
                // Waiting and asking again under the same id is what `rate-limited` asks for.
                if refusal.code != ErrorCode::RateLimited
                    && let (Some(id), Some(conn)) =
                        (requester.id(), self.conns.get_mut(&requester.conn))
                {
                    conn.responses.error(id, &body);
                }
                let bad_token = matches!(
                    refusal.code,
                    ErrorCode::Unauthorized | ErrorCode::TokenExpired
                );
                let elsewhere =
                    (self.conns.get(&requester.conn)).is_some_and(|conn| conn.elsewhere);
                if bad_token && !elsewhere && self.sessions.get(requester.peer).is_none() {
                    self.close_for_abuse(
                        cx,
                        requester.conn,
                        CloseCode::Unauthorized,
                        "unauthorized",
                    );
                }
            }
        }
    }

    fn dispatch(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        request: Request,
        grant: Granted,
    ) -> Result<Answer, RequestError> {
        match request {
            Request::Register { identity, .. } => {
                self.register(cx, requester, identity, granted(grant))
            }
            Request::Join(join) => self.join(cx, requester, *join, granted(grant)),
            Request::Lobby => self.enter_lobby(cx, requester, granted(grant)),
            Request::Resume { token, seq } => self.resume(cx, requester, &token, seq),
            Request::Leave => self.leave(cx, requester),
            Request::Forward(message) => self.forward(cx, requester, message),
            Request::Call { to, rest } => self.call(cx, requester, &to, &rest),
            Request::Accept(signal) => self.accept(cx, requester, &signal),
            Request::Reject(signal) => self.reject(cx, requester, &signal),
            Request::Hangup(signal) => self.hangup(cx, requester, &signal),
            Request::State(patch) => self.state(cx, requester, patch),
            Request::Mute {
                media,
                muted,
                to,
                rest,
            } => self.mute(cx, requester, media, muted, to, &rest),
            Request::List => self.list(requester),
            Request::Rooms => self.list_rooms(requester, granted(grant)),
            Request::IceServers => self.fresh_ice(cx, requester),
            Request::Kick { peer_id, reason } => self.kick(cx, requester, &peer_id, reason),
            Request::Room(patch) => self.change_room(cx, requester, *patch),
            Request::Grant { peer_id, role } => self.grant(cx, requester, &peer_id, role),
            Request::Exchange(request) => {
                if matches!(request, ExchangeRequest::Ice) {
                    self.watch_clock(cx);
                }
                self.exchange(cx, requester, request, grant)
            }
            Request::Invite(invite) => self.invite(cx, requester, invite),
            Request::Report(report) => self.report(cx, requester, report),
            Request::Ping { t } => {
                let pong = ServerMessage::Pong { t: t.as_deref() };
                Ok(Answer::Reply(Body::new(&pong, requester.id())))
            }
        }
    }

    /// Answers a request sent twice as it was answered the first time; returns whether it did.
    fn answered_before(&mut self, cx: &mut Cx<'_>, requester: &Requester) -> bool {
        let Some(id) = requester.id() else {
            return false;
        };
        let Some(conn) = self.conns.get(&requester.conn) else {
            return false;
        };
        let again = match conn.responses.get(id) {
            None => Ok(Regenerated::NotNeeded),
            Some(Remembered::Ack) => Ok(Regenerated::Body(ack_body(requester))),
            Some(Remembered::Error(body)) => Ok(Regenerated::Body(body.clone())),
            Some(Remembered::Short(body, about)) if self.still_holds(requester, *about) => {
                Ok(Regenerated::Body(body.clone()))
            }
            Some(&(Remembered::Short(_, about) | Remembered::Regenerate(about))) => {
                self.regenerate(cx, requester, about)
            }
        };
        match again {
            Ok(Regenerated::NotNeeded) => return false,
            Ok(Regenerated::Body(body)) => self.send_to_connection(cx, requester.conn, body),
            Ok(Regenerated::Sent) => {}
            Err(refusal) => {
                self.refuse(cx, requester.conn, &refusal, requester.id());
            }
        }
        true
    }

    /// Whether what a short reply said is still so: a `left` or a `pong` always, everything else
    /// within its session. The token, calls and credentials in it end with that.
    fn still_holds(&self, requester: &Requester, about: About) -> bool {
        matches!(about.kind, MessageType::Leave | MessageType::Ping)
            || (self.sessions.get(requester.peer).is_some()
                && self.conns[&requester.conn].sessions == about.session)
    }

    /// Makes a reply again, within its session and without the effects of its request.
    fn regenerate(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        long: About,
    ) -> Result<Regenerated, RequestError> {
        use MessageType as T;
        if let T::List | T::Rooms | T::IceServers | T::Ping = long.kind {
            return if requester.kind == long.kind {
                Ok(Regenerated::NotNeeded)
            } else {
                let message = "another request had this `id`";
                Err(RequestError::new(ErrorCode::InvalidMessage, message))
            };
        }
        self.session(requester)?;
        if self.conns[&requester.conn].sessions != long.session {
            let message = "the session in which that was answered is over";
            return Err(RequestError::new(ErrorCode::NotInRoom, message));
        }
        Ok(Regenerated::Body(match long.kind {
            T::Accept => self.ice_ack(cx, requester),
            T::Room => self.room_body(requester)?,
            _ => {
                let (body, rest) =
                    self.session_started_body(cx, requester.peer, long.resumption, requester.id());
                self.send_to_connection(cx, requester.conn, body);
                self.send_all(cx, requester.peer, rest);
                return Ok(Regenerated::Sent);
            }
        }))
    }

    fn ack(&mut self, cx: &mut Cx<'_>, requester: &Requester) {
        let Some(id) = requester.id() else { return };
        self.send_to_connection(cx, requester.conn, ack_body(requester));
        if let Some(conn) = self.conns.get_mut(&requester.conn) {
            conn.responses.ack(id);
        }
    }

    pub(super) fn reply(&mut self, cx: &mut Cx<'_>, requester: &Requester, body: Body) {
        self.remember(requester, &body, None);
        self.send_to_connection(cx, requester.conn, body);
    }

    pub(super) fn remember(
        &mut self,
        requester: &Requester,
        body: &Body,
        resumption: Option<Resumption>,
    ) {
        if let (Some(id), Some(conn)) = (requester.id(), self.conns.get_mut(&requester.conn)) {
            let about = About {
                kind: requester.kind,
                session: conn.sessions,
                resumption,
            };
            conn.responses.text(id, body, about);
        }
    }

    pub(super) fn refuse(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        refusal: &RequestError,
        id: Option<&str>,
    ) -> Body {
        self.counters.count_refused(refusal.code);
        let message = ServerMessage::Error {
            code: refusal.code,
            message: &refusal.message,
            retry_after: refusal.retry_after.map(millis),
        };
        let body = Body::new(&message, id);
        self.send_to_connection(cx, conn, body.clone());
        body
    }
}

/// What a frame asks for, as far as waiting in silence goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Something,
    Nothing,
    /// The protocol of its client calls for it while the client waits.
    NothingWhenDue,
}

fn asks_for(message: &Result<ClientMessage, FrameError>) -> Asks {
    match message.as_ref().map(|message| &message.request) {
        Ok(Request::Exchange(ExchangeRequest::Idle)) => Asks::Nothing,
        Ok(Request::Exchange(ExchangeRequest::Alive)) => Asks::NothingWhenDue,
        _ => Asks::Something,
    }
}

fn ack_body(requester: &Requester) -> Body {
    Body::new(&ServerMessage::Ack { ice: None }, requester.id())
}
