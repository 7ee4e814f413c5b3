//! Questions to the operator's backend, before the hub sees a join, register or call, or what is one
//! in a foreign protocol.
//!
//! While a question is out, the connection is not read: later messages keep their order, and the
//! hub has no queue of newcomers.

use super::{Carrier, Connection, Fetching, REQUESTS};
use crate::auth::{Grant, Role};
use crate::protocol::{
    ClientMessage, ErrorCode, ExchangeRequest, FrameError, Request, RequestError, Wish, room_name,
    room_of_lobby,
};
use crate::signal::dialect::{Asked, Dialect};
use crate::signal::hub::{Granted, Input, Standing, lobby_room};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Decides whether a request may reach the hub.
pub trait Consult: Send + Sync {
    /// Whether there is somebody to ask at the moment.
    fn is_on(&self) -> bool;
    /// Asks.
    fn ask(&self, inquiry: Inquiry<'_>) -> Consulting;
}

/// Topics of one request that somebody is asked about; the others are refused.
const MAX_TOPICS: usize = 16;

/// A question that is out.
pub type Consulting = Pin<Box<dyn Future<Output = Consent> + Send>>;

/// What a client is about to do.
#[derive(Debug)]
pub struct Inquiry<'a> {
    /// What it asks of the hub.
    pub request: Consulted<'a>,
    /// The session's peer id, name and room.
    pub standing: Standing,
    /// The name that the request would have.
    pub identity: Option<&'a str>,
    /// The claims of the token that the client's rights come from; nothing in open mode.
    pub claims: Option<&'a Value>,
    /// The far end, proxies seen through.
    pub client: IpAddr,
}

/// A request that somebody may be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consulted<'a> {
    /// Enters a room.
    Join {
        /// Its name.
        room: &'a str,
        /// Whether the room does not exist yet.
        creates: bool,
    },
    /// Takes a name without a room.
    Register,
    /// Rings somebody.
    Call {
        /// The callee, as the caller names it.
        to: &'a str,
    },
}

/// What a question came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Consent {
    /// The request goes to the hub.
    Granted {
        /// The role, in place of the token's.
        role: Option<Role>,
        /// The metadata, in place of the token's and the client's.
        metadata: Option<Value>,
    },
    /// The client gets this error.
    Refused(RequestError),
    /// Of each topic of a subscription, whether it is refused.
    Topics(Vec<bool>),
}

/// A request that waits.
pub(super) enum Pending {
    /// For the answer of the backend.
    Consent {
        message: ClientMessage,
        grant: Grant,
        /// Whether the question was about a room that there is.
        about_room: bool,
        answer: Consulting,
    },
    /// Nothing was asked yet: a silent client that others would call into the lobby.
    Lobby { grant: Grant, answer: Consulting },
    /// For the key that its token names.
    Key {
        message: ClientMessage,
        fetched: Fetching,
    },
}

/// The claims of a token that was verified.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?.trim_end_matches('=');
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The message that `consent` lets through to the hub, or the error in its place.
pub(super) fn judged(
    mut message: ClientMessage,
    mut grant: Grant,
    consent: Consent,
) -> (
    Result<ClientMessage, FrameError>,
    Result<Grant, RequestError>,
) {
    match consent {
        Consent::Granted { role, metadata } => {
            if let Some(role) = role {
                grant.set_role(role);
            }
            if metadata.is_some() {
                grant.metadata = metadata;
                if let Request::Join(join) = &mut message.request {
                    join.metadata = None;
                }
            }
            (Ok(message), Ok(grant))
        }
        Consent::Topics(refused) => {
            if let Request::Exchange(ExchangeRequest::Subscribe { topics, .. }) =
                &mut message.request
            {
                for (wish, is_refused) in topics.iter_mut().zip(refused) {
                    wish.is_refused |= is_refused;
                }
            }
            (Ok(message), Ok(grant))
        }
        Consent::Refused(error) if message.wants_grant() => (Ok(message), Err(error)),
        Consent::Refused(error) => {
            let error = FrameError {
                code: error.code,
                message: error.message,
                id: message.id,
                malformed: false,
            };
            (Err(error), Ok(grant))
        }
    }
}

/// Whether a message has rights of its own, or the backend may be asked about it.
fn concerns_others(message: &ClientMessage) -> bool {
    message.wants_grant()
        || matches!(
            message.request,
            Request::Join(_)
                | Request::Register { .. }
                | Request::Call { .. }
                | Request::Exchange(
                    ExchangeRequest::Open { .. } | ExchangeRequest::Subscribe { .. }
                )
        )
}

/// The message with the room that a lobby is to the bearer of the token.
fn settled(mut message: ClientMessage, grant: &Result<Grant, RequestError>) -> ClientMessage {
    if let Request::Join(join) = &mut message.request {
        let own = grant.as_ref().ok().and_then(|grant| grant.rooms.single());
        if let Some(room) = room_of_lobby(&join.room_id, own.as_deref()) {
            join.room_id = room;
        }
    }
    message
}

/// Asks about `message`, if it is one to ask about and there is somebody to ask.
pub(super) fn ask(
    consult: &Arc<dyn Consult>,
    standing: impl FnOnce(Option<&str>) -> Option<(Standing, bool)>,
    message: &ClientMessage,
    grant: &Grant,
    client: IpAddr,
) -> Option<(bool, Consulting)> {
    let (room, claimed) = match &message.request {
        Request::Lobby => {
            let (room, _) = lobby_room(&grant.rooms)?;
            return ask_about_lobby(consult, standing, &room, grant, client);
        }
        Request::Join(join) => (Some(join.room_id.as_str()), join.identity.as_deref()),
        Request::Register { identity, .. } => (None, identity.as_deref()),
        Request::Exchange(ExchangeRequest::Open { name, .. }) => (None, name.as_deref()),
        Request::Exchange(ExchangeRequest::Subscribe { topics, .. }) => {
            let (standing, _) = standing(None)?;
            let asking = ask_about_topics(consult, standing, topics, client)?;
            return Some((false, asking));
        }
        Request::Call { .. } => (None, None),
        _ => return None,
    };
    let (standing, room_exists) = standing(room)?;
    let request = match &message.request {
        Request::Join(join) => Consulted::Join {
            room: room_name(&join.room_id),
            creates: !room_exists,
        },
        Request::Call { to, .. } => Consulted::Call { to },
        _ => Consulted::Register,
    };
    let chosen = claimed.filter(|_| grant.chooses_identity);
    let (own, theirs) = (standing.identity.clone(), standing.claims.clone());
    // A call brings no token along: its rights are those of the session.
    let (identity, claims) = match request {
        Consulted::Call { .. } => (own.as_deref(), theirs.as_deref()),
        _ => (
            grant.identity.as_deref().or(chosen),
            grant.claims.as_deref(),
        ),
    };
    let about_room = matches!(request, Consulted::Join { creates: false, .. });
    let answer = consult.ask(Inquiry {
        request,
        standing,
        identity,
        claims,
        client,
    });
    Some((about_room, answer))
}

/// Asks about the room that the lobby is to a client.
fn ask_about_lobby(
    consult: &Arc<dyn Consult>,
    standing: impl FnOnce(Option<&str>) -> Option<(Standing, bool)>,
    room: &str,
    grant: &Grant,
    client: IpAddr,
) -> Option<(bool, Consulting)> {
    let (standing, exists) = standing(Some(room))?;
    let answer = consult.ask(Inquiry {
        request: Consulted::Join {
            room,
            creates: !exists,
        },
        standing,
        identity: grant.identity.as_deref(),
        claims: grant.claims.as_deref(),
        client,
    });
    Some((exists, answer))
}

/// Asks about all topics at once, about each as about a room: a backend that does not answer holds the
/// client no longer than one question does. A topic that is a room was asked about when the client
/// joined the room.
fn ask_about_topics(
    consult: &Arc<dyn Consult>,
    standing: Standing,
    topics: &[Wish],
    client: IpAddr,
) -> Option<Consulting> {
    let is_asked = |wish: &Wish| wish.room.is_none() && !wish.is_refused;
    if !topics.iter().any(is_asked) {
        return None;
    }
    let mut left = MAX_TOPICS;
    let ask = |wish: &Wish| match is_asked(wish) {
        false => (false, None),
        true if left == 0 => (true, None),
        true => {
            left -= 1;
            let asking = consult.ask(Inquiry {
                request: Consulted::Join {
                    room: &wish.topic,
                    creates: false,
                },
                standing: standing.clone(),
                identity: standing.identity.as_deref(),
                claims: standing.claims.as_deref(),
                client,
            });
            (false, Some(asking))
        }
    };
    let asked: Vec<_> = topics.iter().map(ask).collect();
    let is_refused = |(surplus, asking): (bool, Option<Consulting>)| async move {
        match asking {
            Some(asking) => matches!(asking.await, Consent::Refused(_)),
            None => surplus,
        }
    };
    let answers = join_all(asked.into_iter().map(is_refused));
    Some(Box::pin(async move { Consent::Topics(answers.await) }))
}

impl Consent {
    /// Refuses with `forbidden` and the reason.
    pub fn forbidden(reason: String) -> Self {
        Self::Refused(RequestError::new(ErrorCode::Forbidden, reason))
    }
}

impl<C: Carrier, D: Dialect> Connection<C, D> {
    /// Hands the hub what the dialect asks of it.
    pub(super) fn ask(&mut self) {
        REQUESTS.with_borrow_mut(|requests| {
            for message in requests.drain(..) {
                match self.pending {
                    Some(_) => self.deferred.push_back(message),
                    None => self.ask_for(message),
                }
            }
        });
    }

    /// Has the key of the message's token fetched first, where it is absent.
    fn ask_for(&mut self, message: Asked) {
        match message {
            Ok(message) => match self.fetch_key(&message) {
                Some(fetched) => self.pending = Some(Box::new(Pending::Key { message, fetched })),
                None => self.consult(Ok(message)),
            },
            Err(error) => self.consult(Err(error)),
        }
    }

    /// The lobby in which the client waits without a question.
    pub(super) fn free_lobby(&self) -> Option<Arc<str>> {
        let lobby = self.admission.lobby.clone();
        lobby.filter(|_| self.backend().is_none())
    }

    fn backend(&self) -> Option<&Arc<dyn Consult>> {
        self.settings.consult.as_ref().filter(|c| c.is_on())
    }

    /// Asks whether others may call the silent client into the lobby, before it says anything.
    pub(super) fn ask_for_lobby(&mut self) {
        let (Some(consult), Some(_)) = (self.backend(), &self.admission.lobby) else {
            return;
        };
        let Ok(grant) = self.authorize(self.token.as_ref()) else {
            return;
        };
        // The bearer of a token for rooms is called by nobody.
        let Some((Cow::Borrowed(room), true)) = lobby_room(&grant.rooms) else {
            return;
        };
        let standing = |room: Option<&str>| self.driver().standing(self.admission.conn, room);
        let asked = ask_about_lobby(consult, standing, room, &grant, self.admission.client);
        let answer = asked.map(|(_, answer)| answer);
        self.pending = answer.map(|answer| Box::new(Pending::Lobby { grant, answer }));
    }

    fn wait_in_lobby(&self, mut grant: Grant, consent: Consent) {
        let (Consent::Granted { role, metadata }, Some(lobby)) = (consent, &self.admission.lobby)
        else {
            return;
        };
        if let Some(role) = role {
            grant.set_role(role);
        }
        grant.metadata = metadata.or(grant.metadata.take());
        let (conn, lobby) = (self.admission.conn, Arc::clone(lobby));
        self.driver()
            .with_hub(|hub, _, _| hub.wait_in_lobby(conn, lobby, grant));
    }

    fn fetch_key(&self, message: &ClientMessage) -> Option<Fetching> {
        let fetch = self.settings.fetch_key.as_ref()?;
        let token = message.token().or(self.token.as_ref())?;
        match message.wants_grant() {
            true => fetch(token.expose_secret()),
            false => None,
        }
    }

    fn consult(&mut self, message: Asked) {
        // What has no rights of its own, and what nobody is asked about, is the hub's alone.
        if !message.as_ref().is_ok_and(concerns_others) {
            return self.input(message, None);
        }
        let consult = self.backend();
        let grant = match &message {
            Ok(message) if message.wants_grant() => {
                let token = message.token().or(self.token.as_ref());
                self.authorize(token).map(|mut grant| {
                    if let (Some(_), true, Some(token)) = (consult, grant.verified, token) {
                        grant.claims = claims(token.expose_secret()).map(Arc::new);
                    }
                    grant
                })
            }
            _ => Ok(Grant::open()),
        };
        let message = message.map(|message| settled(message, &grant));
        let out = match (consult, &message, &grant) {
            (Some(consult), Ok(asked), Ok(granted)) => {
                let standing = |room: Option<&str>| {
                    let (driver, conn) = (self.driver(), self.admission.conn);
                    driver.standing(conn, room)
                };
                ask(consult, standing, asked, granted, self.admission.client)
            }
            _ => None,
        };
        match (out, message, grant) {
            (Some((about_room, answer)), Ok(message), Ok(grant)) => {
                self.pending = Some(Box::new(Pending::Consent {
                    message,
                    grant,
                    about_room,
                    answer,
                }));
            }
            (_, message, grant) => self.input(message, Some(Box::new(grant))),
        }
    }

    /// Whether the room of a join has ended while the question was out.
    fn room_ended(&self, message: &ClientMessage, grant: &Grant) -> bool {
        let room = match &message.request {
            Request::Join(join) => Some(Cow::Borrowed(join.room_id.as_str())),
            Request::Lobby => lobby_room(&grant.rooms).map(|(room, _)| room),
            _ => None,
        };
        let Some(room) = room else { return false };
        let (driver, conn) = (self.driver(), self.admission.conn);
        let standing = driver.standing(conn, Some(&room));
        standing.is_some_and(|(_, room_exists)| !room_exists)
    }

    fn input(&self, message: Asked, grant: Granted) {
        self.driver().input(Input::Frame {
            conn: self.admission.conn,
            message,
            grant,
        });
    }

    /// Goes on with the request whose answer has come, and with those behind it.
    pub(super) fn poll_consent(&mut self, cx: &mut Context<'_>) {
        while let Some(mut pending) = self.pending.take() {
            let ready = match &mut *pending {
                Pending::Consent { answer, .. } | Pending::Lobby { answer, .. } => {
                    answer.as_mut().poll(cx).map(Some)
                }
                Pending::Key { fetched, .. } => fetched.as_mut().poll(cx).map(|()| None),
            };
            let Poll::Ready(consent) = ready else {
                self.pending = Some(pending);
                return;
            };
            match (*pending, consent) {
                // Who may join the room may not have been allowed to make one.
                (
                    Pending::Consent {
                        message,
                        grant,
                        about_room: true,
                        ..
                    },
                    Some(Consent::Granted { .. }),
                ) if self.room_ended(&message, &grant) => self.consult(Ok(message)),
                (Pending::Lobby { grant, .. }, Some(consent)) => self.wait_in_lobby(grant, consent),
                (Pending::Lobby { .. }, None) => {}
                (Pending::Consent { message, grant, .. }, Some(consent)) => {
                    let (message, grant) = judged(message, grant, consent);
                    self.input(message, Some(Box::new(grant)));
                }
                // Whatever the fetch brought: the token is judged now.
                (Pending::Consent { message, .. } | Pending::Key { message, .. }, _) => {
                    self.consult(Ok(message));
                }
            }
            while self.pending.is_none()
                && let Some(message) = self.deferred.pop_front()
            {
                self.ask_for(message);
            }
        }
    }
}
