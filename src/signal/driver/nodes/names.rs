//! Clients with names (PeerJS) between nodes.
//!
//! All names are at one node, which is the one that has those who are registered. The token of a client and
//! its credentials are the concern of the node of its socket. What the client says to names goes to the node
//! of the names.

use super::super::{Driver, Outgoing};
use crate::protocol::{
    Addressed, ClientMessage, ErrorCode, ExchangeReply, ExchangeRequest, MessageType, PeerId,
    Request, RequestError, Takeover,
};
use crate::signal::hub::{ConnId, Event, Input};
use crate::signal::nodes::NodeId;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// What a client says to names. It has this field alone: every message of the native protocol has a `type` before
/// the fields that its client chooses.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped<'a> {
    names: Said<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Said<'a> {
    Claim {
        name: Cow<'a, str>,
        /// The halves of the proof, as JSON knows no numbers of 128 bits.
        proof: (u64, u64),
    },
    Send {
        kind: MessageType,
        to: Arc<str>,
        message: Arc<Addressed>,
        parks: bool,
    },
    Release,
    Alive,
}

/// Whether a request takes a name that clients of all nodes share.
pub(super) fn is_claim(request: &Request) -> bool {
    let shared = Takeover::Shared;
    matches!(request, Request::Exchange(ExchangeRequest::Claim { takeover, .. }) if *takeover == shared)
}

/// Whether a request concerns such a name.
pub(super) fn concerns_names(request: &Request) -> bool {
    use ExchangeRequest::{Release, Send};
    is_claim(request) || matches!(request, Request::Exchange(Send { .. } | Release))
}

/// A message as the node of the names reads it; `None` for one that does not concern names.
pub(super) fn text(message: &ClientMessage) -> Option<String> {
    let Request::Exchange(request) = &message.request else {
        return None;
    };
    written(match request {
        ExchangeRequest::Claim {
            name,
            proof,
            takeover: Takeover::Shared,
        } => Said::Claim {
            name: name.into(),
            proof: ((proof >> 64) as u64, *proof as u64),
        },
        ExchangeRequest::Send {
            to,
            message: addressed,
            parks,
        } => Said::Send {
            kind: message.kind,
            to: Arc::clone(to),
            message: Arc::clone(addressed),
            parks: *parks,
        },
        ExchangeRequest::Release => Said::Release,
        _ => return None,
    })
}

/// A sign of life as the node of the names reads it.
pub(super) fn alive() -> Option<String> {
    written(Said::Alive)
}

fn written(names: Said<'_>) -> Option<String> {
    serde_json::to_string(&Wrapped { names }).ok()
}

/// What a client of another node says to names, as an input of its connection here.
pub(super) fn read(conn: ConnId, text: &str) -> Option<Input> {
    let Wrapped { names } = serde_json::from_str(text).ok()?;
    let (kind, request) = match names {
        Said::Alive => return Some(Input::Alive { conn }),
        Said::Claim {
            name,
            proof: (high, low),
        } => (
            MessageType::Message,
            ExchangeRequest::Claim {
                name: name.into_owned(),
                proof: u128::from(high) << 64 | u128::from(low),
                takeover: Takeover::Shared,
            },
        ),
        Said::Send {
            kind,
            to,
            message,
            parks,
        } => (kind, ExchangeRequest::Send { to, message, parks }),
        Said::Release => (MessageType::Message, ExchangeRequest::Release),
    };
    let message = ClientMessage {
        dialect: None,
        id: None,
        kind,
        request: Request::Exchange(request),
    };
    let refused = || RequestError::new(ErrorCode::Unauthorized, "the rights come with the claim");
    Some(Input::Frame {
        conn,
        message: Ok(message),
        grant: Some(Box::new(Err(refused()))),
    })
}

impl Driver {
    /// The node of the names has something for a client here.
    pub(super) fn deliver_event(&self, node: NodeId, conn: ConnId, peer: PeerId, text: &str) {
        let Ok(event) = serde_json::from_str::<Event>(text) else {
            return;
        };
        let mut state = self.lock();
        state.inputs += 1;
        let input = state.inputs;
        let links = state.links.as_mut();
        // The count holds for what nothing is done with, too.
        if !links
            .and_then(|links| links.there(conn, node))
            .is_some_and(|there| there.end.takes(None))
        {
            return;
        }
        if let Event::Exchange(reply) = &event
            && let ExchangeReply::Claimed { name } = &**reply
        {
            state.hub.named_elsewhere(conn, name);
        }
        state.sent.0[event.kind() as usize] += 1;
        if let Some(outbox) = state.outboxes.get(&conn) {
            let seq = None;
            self.push(input, outbox, Outgoing { peer, seq, event });
        }
    }
}

#[cfg(test)]
mod tests;
