//! Questions to the operator's backend, before the hub sees a join, register or call.
//!
//! While a question is out, the connection is not read: later messages keep their order, and the
//! hub has no queue of newcomers.

use super::{Carrier, Connection, REQUESTS};
use crate::auth::{Grant, Role};
use crate::protocol::{ClientMessage, ErrorCode, FrameError, Request, RequestError};
use crate::signal::dialect::{Asked, Dialect};
use crate::signal::hub::{Input, Standing};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Decides whether a request may reach the hub.
pub trait Consult: Send + Sync {
    /// Tells whether there is somebody to ask at the moment.
    fn is_on(&self) -> bool;
    /// Asks.
    fn ask(&self, inquiry: Inquiry<'_>) -> Consulting;
}

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
    /// The token that the grant was read from.
    pub token: Option<&'a str>,
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
}

/// A request that waits for its answer.
pub(super) struct Pending {
    pub(super) message: ClientMessage,
    pub(super) grant: Grant,
    pub(super) answer: Consulting,
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
            if role.is_some() {
                grant.role = role;
            }
            if metadata.is_some() {
                grant.metadata = metadata;
                if let Request::Join(join) = &mut message.request {
                    join.metadata = None;
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

/// Asks about `message`, if it is one to ask about and there is somebody to ask.
pub(super) fn ask(
    consult: &Arc<dyn Consult>,
    standing: impl FnOnce(Option<&str>) -> Option<(Standing, bool)>,
    message: &ClientMessage,
    grant: &Grant,
    token: Option<&SecretString>,
    client: IpAddr,
) -> Option<Consulting> {
    if !consult.is_on() {
        return None;
    }
    let (room, claimed) = match &message.request {
        Request::Join(join) => (Some(join.room_id.as_str()), join.identity.as_deref()),
        Request::Register { identity, .. } => (None, identity.as_deref()),
        Request::Call { .. } => (None, None),
        _ => return None,
    };
    let (standing, room_exists) = standing(room)?;
    let request = match &message.request {
        Request::Join(join) => Consulted::Join {
            room: &join.room_id,
            creates: !room_exists,
        },
        Request::Call { to, .. } => Consulted::Call { to },
        _ => Consulted::Register,
    };
    let chosen = claimed.filter(|_| grant.chooses_identity);
    let own = standing.identity.clone();
    let identity = match request {
        Consulted::Call { .. } => own.as_deref(),
        _ => grant.identity.as_deref().or(chosen),
    };
    Some(consult.ask(Inquiry {
        request,
        standing,
        identity,
        token: token.map(ExposeSecret::expose_secret),
        client,
    }))
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

    fn ask_for(&mut self, message: Asked) {
        let token = |message: &ClientMessage| message.token().or(self.token.as_ref()).cloned();
        let grant = match &message {
            Ok(message) if message.wants_grant() => self.authorize(token(message).as_ref()),
            _ => Ok(Grant::open()),
        };
        let out = match (&self.settings.consult, &message, &grant) {
            (Some(consult), Ok(asked), Ok(granted)) => {
                let standing = |room: Option<&str>| {
                    self.driver().with_hub(|hub, _, _| {
                        let standing = hub.standing(self.admission.conn)?;
                        Some((standing, room.is_some_and(|room| hub.room(room).is_some())))
                    })
                };
                let (token, client) = (token(asked), self.admission.client);
                ask(consult, standing, asked, granted, token.as_ref(), client)
            }
            _ => None,
        };
        match (out, message, grant) {
            (Some(answer), Ok(message), Ok(grant)) => {
                self.pending = Some(Box::new(Pending {
                    message,
                    grant,
                    answer,
                }));
            }
            (_, message, grant) => self.input(message, grant),
        }
    }

    fn input(&self, message: Asked, grant: Result<Grant, RequestError>) {
        self.driver().input(Input::Frame {
            conn: self.admission.conn,
            message,
            grant,
        });
    }

    /// Goes on with the request whose answer has come, and with those behind it.
    pub(super) fn poll_consent(&mut self, cx: &mut Context<'_>) {
        while let Some(mut pending) = self.pending.take() {
            let Poll::Ready(consent) = pending.answer.as_mut().poll(cx) else {
                self.pending = Some(pending);
                return;
            };
            let Pending { message, grant, .. } = *pending;
            let (message, grant) = judged(message, grant, consent);
            self.input(message, grant);
            while self.pending.is_none()
                && let Some(message) = self.deferred.pop_front()
            {
                self.ask_for(message);
            }
        }
    }
}
