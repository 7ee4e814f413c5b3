//! Messages from peer to peer: who receives them, and what the server stamps on them.

use super::requests::{Answer, Requester};
use super::{Cx, Hub};
use crate::auth::Role;
use crate::protocol::{
    Body, CallId, ErrorCode, Forward, FrameType, MessageType, Payload, PeerId, RequestError,
    TransportPolicy, write_json_str,
};
use crate::signal::sdp;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

/// What lets a message pass from one peer to another.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// They are in this room.
    Room(Arc<str>),
    /// They are in this call.
    Call(CallId),
}

impl Hub {
    pub(super) fn forward(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        message: Forward,
    ) -> Result<Answer, RequestError> {
        let may_subscribe = self.session(requester)?.may_subscribe;
        let (place, to) = match &message.to {
            Some(to) => {
                let (place, peer) = self.reach(requester.peer, to)?;
                (place, Some(peer))
            }
            None => (Place::Room(self.room_of(requester.peer)?.id.clone()), None),
        };
        match requester.kind {
            MessageType::Publish if self.role_of(requester) == Some(Role::Viewer) => {
                let message = "viewers do not publish";
                return Err(RequestError::new(ErrorCode::Forbidden, message));
            }
            MessageType::Subscribe if !may_subscribe => {
                let message = "the token does not allow to subscribe";
                return Err(RequestError::new(ErrorCode::Forbidden, message));
            }
            _ => {}
        }
        self.may_send(requester, || message.size())?;
        let relay_only = self.policy(requester.peer) == TransportPolicy::Relay;
        let payload = match &message.payload {
            Payload::Opaque => None,
            Payload::Sdp(raw) if relay_only => Some((
                "sdp",
                Cow::Owned(sdp::description(raw).map_err(unreadable)?),
            )),
            Payload::Candidate(raw) if relay_only => {
                let Some(text) = sdp::candidate(raw).map_err(unreadable)? else {
                    self.counters.withheld_candidates += 1;
                    return Ok(Answer::Ack);
                };
                Some(("candidate", Cow::Owned(text)))
            }
            Payload::Sdp(raw) => Some(("sdp", Cow::Borrowed(raw.get()))),
            Payload::Candidate(raw) => Some(("candidate", Cow::Borrowed(raw.get()))),
        };
        let rest = match payload {
            Some(_) if relay_only => Cow::Owned(sdp::beside(&message.rest).map_err(unreadable)?),
            _ => Cow::Borrowed(&*message.rest),
        };
        let payload = payload.as_ref().map(|(name, text)| (*name, text.as_ref()));
        let body = self.stamped(cx, requester.kind, requester.peer, &place, payload, &rest);
        match (to, &place) {
            (Some(to), _) => self.sessions.send(cx.effects, to, body),
            (None, Place::Room(room)) => self.broadcast(cx, room, Some(requester.peer), &body),
            (None, Place::Call(_)) => unreachable!("a call is reached by peer id"),
        }
        Ok(Answer::Ack)
    }

    /// Finds whom `from` may send to by that peer id, and why it may.
    pub(super) fn reach(&self, from: PeerId, to: &str) -> Result<(Place, PeerId), RequestError> {
        self.place_of(from, to)
            .ok_or_else(|| RequestError::new(ErrorCode::NoSuchPeer, "no such peer within reach"))
    }

    /// The text of a relayed message. The server's stamps are the only fields of their names, in any
    /// case: parsing has dropped the client's.
    pub(super) fn stamped(
        &self,
        cx: &Cx<'_>,
        kind: MessageType,
        from: PeerId,
        place: &Place,
        payload: Option<(&str, &str)>,
        rest: &str,
    ) -> Body {
        let session = self.sessions.get(from).expect("who sends has a session");
        // 256 bytes hold the stamps with usual names.
        let payload_len = payload.map_or(0, |(_, text)| text.len());
        let mut text = String::with_capacity(256 + payload_len + rest.len());
        write!(text, r#"{{"type":"{}""#, kind.as_str()).expect("writing to a String succeeds");
        if let Some((name, payload)) = payload {
            write!(text, r#","{name}":{payload}"#).expect("writing to a String succeeds");
        }
        text.push_str(rest);
        // Last: of fields with one name, decoders take the last one.
        write!(text, r#","from":"{from}","fromIdentity":"#).expect("writing to a String succeeds");
        write_json_str(&mut text, &session.name(from));
        match place {
            Place::Room(room) => {
                text.push_str(r#","roomId":"#);
                write_json_str(&mut text, room);
            }
            Place::Call(call) => {
                write!(text, r#","callId":"{call}""#).expect("writing to a String succeeds");
            }
        }
        write!(text, r#","ts":{}}}"#, cx.now.unix_ms).expect("writing to a String succeeds");
        let kind = FrameType::relayed(kind).expect("only what is relayed is stamped");
        Body::from_object(kind, text).sent_by(session.shown)
    }

    fn place_of(&self, from: PeerId, to: &str) -> Option<(Place, PeerId)> {
        let peer = PeerId::parse(to).filter(|peer| *peer != from)?;
        let (sender, target) = (self.sessions.get(from)?, self.sessions.get(peer)?);
        match (&sender.room, &target.room) {
            (Some(room), Some(other)) if room == other => Some((Place::Room(room.clone()), peer)),
            _ => self
                .call_between(sender, from, peer)
                .map(|call| (Place::Call(call), peer)),
        }
    }
}

fn unreadable(_: sdp::Unreadable) -> RequestError {
    RequestError::new(
        ErrorCode::InvalidMessage,
        "the description or candidate is not readable text",
    )
}
