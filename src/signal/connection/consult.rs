//! Questions to the operator's backend, before the hub sees a join, register or call.
//!
//! While a question is out, the connection is not read: later messages keep their order, and the
//! hub has no queue of newcomers.

use crate::auth::{Grant, Role};
use crate::protocol::{ClientMessage, ErrorCode, FrameError, Request, RequestError};
use crate::signal::hub::Standing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

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
