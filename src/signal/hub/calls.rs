//! Direct calls: ringing, answering and ending, between sessions wherever they are.

use super::requests::{Answer, Requester};
use super::routing::Place;
use super::session::Session;
use super::timers::Timer;
use super::{Cx, Hub};
use crate::protocol::{
    Body, CallId, CallSignal, ErrorCode, MessageType, PeerId, RequestError, ServerMessage,
};
use rand::RngExt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a call rings, as the protocol promises.
const RING_TIME: Duration = Duration::from_secs(45);
/// Calls that one session may be in, and as many that it may be placing: beyond any honest use. Each
/// kind has slots of its own, so that a device at which many ring can still place and take calls.
const CALLS_PER_SESSION: usize = 16;
/// Calls that one session may ring with at one device: a second one where the first was forgotten.
const RINGING_PER_PAIR: usize = 2;
/// Calls that may ring at one device.
const RINGING_PER_DEVICE: usize = 64;
/// How many of those may be of callers from one network: the other half is for everybody else.
const RINGING_PER_NETWORK: usize = RINGING_PER_DEVICE / 2;
/// Devices of an identity that one call rings: bounds what one message sets off.
const DEVICES_PER_CALL: usize = 32;

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    caller: PeerId,
    stage: Stage,
}

/// Calls of one session by kind, those that ring at it aside.
#[derive(Debug, Default)]
struct Slots {
    placing: usize,
    answered: usize,
}

#[derive(Debug)]
enum Stage {
    /// These devices ring.
    Ringing { devices: Vec<PeerId>, ends: Instant },
    /// This one took it.
    Answered { callee: PeerId },
}

impl Hub {
    pub(super) fn call(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        to: &str,
        rest: &str,
    ) -> Result<Answer, RequestError> {
        let session = self.session(requester)?;
        if !session.may_call {
            return Err(RequestError::new(
                ErrorCode::Forbidden,
                "the token is not for calls",
            ));
        }
        let slots = self.slots(requester.peer, session);
        if slots.placing.max(slots.answered) >= CALLS_PER_SESSION
            || self.calls.len() >= self.settings.max_calls
        {
            return Err(RequestError::slow_down(RING_TIME));
        }
        let mut present = self.devices(requester.peer, to).peekable();
        if present.peek().is_none() {
            return Err(RequestError::new(
                ErrorCode::NoSuchPeer,
                "nobody of that name is here",
            ));
        }
        let network = session.network;
        let free = |device: &PeerId| {
            self.sessions
                .get(*device)
                .is_some_and(|session| self.may_ring(*device, session, requester.peer, network))
        };
        let devices: Vec<_> = present.filter(free).take(DEVICES_PER_CALL).collect();
        if devices.is_empty() {
            return Err(RequestError::slow_down(RING_TIME));
        }

        let id = CallId::from_bits(self.rng.random());
        let ends = cx.now.instant + RING_TIME;
        self.timers.set(ends, Timer::RingEnds(id));
        let ring = self.call_body(cx, MessageType::Call, requester, id, None, rest);
        for device in &devices {
            self.sessions.send(cx.effects, *device, ring.clone());
        }
        for party in devices.iter().chain([&requester.peer]) {
            if let Some(session) = self.sessions.get_mut(*party) {
                session.calls.push(id);
            }
        }
        let stage = Stage::Ringing { devices, ends };
        self.calls.insert(
            id,
            Call {
                caller: requester.peer,
                stage,
            },
        );
        Ok(Answer::Reply(Body::new(
            &ServerMessage::Calling { call_id: id },
            requester.id(),
        )))
    }

    pub(super) fn accept(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        signal: &CallSignal,
    ) -> Result<Answer, RequestError> {
        let (id, devices, caller) = self.ringing_at(requester, signal)?;
        if self
            .slots(requester.peer, self.session(requester)?)
            .answered
            >= CALLS_PER_SESSION
        {
            return Err(RequestError::slow_down(RING_TIME));
        }
        self.stop_ringing(
            id,
            Stage::Answered {
                callee: requester.peer,
            },
        );
        for other in devices
            .into_iter()
            .filter(|device| *device != requester.peer)
        {
            self.hang_up(cx, id, other, "answered-elsewhere");
        }
        let reason = signal.reason.as_deref();
        let body = self.call_body(cx, MessageType::Accept, requester, id, reason, &signal.rest);
        self.sessions.send(cx.effects, caller, body);
        Ok(match requester.id() {
            Some(_) => Answer::Reply(self.ice_ack(cx, requester)),
            None => Answer::Ack,
        })
    }

    /// The `ack` of an `accept`.
    pub(super) fn ice_ack(&mut self, cx: &mut Cx<'_>, requester: &Requester) -> Body {
        let ice = Some(self.mint(cx, requester.peer));
        Body::new(&ServerMessage::Ack { ice }, requester.id())
    }

    pub(super) fn reject(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        signal: &CallSignal,
    ) -> Result<Answer, RequestError> {
        let (id, devices, caller) = self.ringing_at(requester, signal)?;
        if devices.len() == 1 {
            let reason = signal.reason.as_deref();
            let body = self.call_body(cx, MessageType::Reject, requester, id, reason, &signal.rest);
            self.sessions.send(cx.effects, caller, body);
        }
        self.drop_device(id, requester.peer);
        Ok(Answer::Ack)
    }

    pub(super) fn hangup(
        &mut self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        signal: &CallSignal,
    ) -> Result<Answer, RequestError> {
        let id = self.call_of(requester, signal)?;
        let call = &self.calls[&id];
        let cancels = matches!(call.stage, Stage::Ringing { .. });
        if cancels && call.caller != requester.peer {
            return self.reject(cx, requester, signal);
        }
        let reason = if cancels {
            Some(r#""cancelled""#)
        } else {
            signal.reason.as_deref()
        };
        let body = self.call_body(cx, MessageType::Hangup, requester, id, reason, &signal.rest);
        for party in self.close_call(id) {
            if party != requester.peer {
                self.sessions.send(cx.effects, party, body.clone());
            }
        }
        Ok(Answer::Ack)
    }

    pub(super) fn ring_ended(&mut self, cx: &mut Cx<'_>, id: CallId) {
        self.finish_call(cx, id, "timeout");
    }

    /// A party's session has ended.
    pub(super) fn party_left(&mut self, cx: &mut Cx<'_>, id: CallId, peer: PeerId) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        match &call.stage {
            Stage::Ringing { devices, .. } if call.caller != peer && devices.len() > 1 => {
                self.drop_device(id, peer);
            }
            _ => self.finish_call(cx, id, "disconnected"),
        }
    }

    /// The answered call that lets two peers talk.
    pub(super) fn call_between(
        &self,
        session: &Session,
        one: PeerId,
        other: PeerId,
    ) -> Option<CallId> {
        session.calls.iter().copied().find(|id| {
            self.calls.get(id).is_some_and(|call| match call.stage {
                Stage::Answered { callee } => {
                    (call.caller, callee) == (one, other) || (call.caller, callee) == (other, one)
                }
                Stage::Ringing { .. } => false,
            })
        })
    }

    /// What one party of a call tells the others; `reason` is JSON text.
    fn call_body(
        &self,
        cx: &Cx<'_>,
        kind: MessageType,
        requester: &Requester,
        id: CallId,
        reason: Option<&str>,
        rest: &str,
    ) -> Body {
        let reason = reason.map(|text| ("reason", text));
        self.stamped(cx, kind, requester.peer, &Place::Call(id), reason, rest)
    }

    /// How many calls of each kind a session has.
    fn slots(&self, peer: PeerId, session: &Session) -> Slots {
        let mut slots = Slots::default();
        for call in session.calls.iter().filter_map(|id| self.calls.get(id)) {
            match call.stage {
                Stage::Answered { .. } => slots.answered += 1,
                Stage::Ringing { .. } if call.caller == peer => slots.placing += 1,
                Stage::Ringing { .. } => {}
            }
        }
        slots
    }

    /// Whether one more call of `caller`, which is in `network`, may ring at `device`.
    fn may_ring(&self, device: PeerId, session: &Session, caller: PeerId, network: IpAddr) -> bool {
        let (mut all, mut of_pair, mut of_network) = (0, 0, 0);
        for call in session.calls.iter().filter_map(|id| self.calls.get(id)) {
            if call.caller == device || !matches!(call.stage, Stage::Ringing { .. }) {
                continue;
            }
            let from = self.sessions.get(call.caller);
            all += 1;
            of_pair += usize::from(call.caller == caller);
            of_network += usize::from(from.is_some_and(|from| from.network == network));
        }
        all < RINGING_PER_DEVICE && of_pair < RINGING_PER_PAIR && of_network < RINGING_PER_NETWORK
    }

    /// Whom a call to that peer id or identity rings.
    fn devices(&self, caller: PeerId, to: &str) -> impl Iterator<Item = PeerId> {
        let by_id = PeerId::parse(to).filter(|peer| self.sessions.get(*peer).is_some());
        let by_name = by_id
            .is_none()
            .then(|| self.names.bearers(to))
            .into_iter()
            .flatten();
        by_id
            .into_iter()
            .chain(by_name)
            .filter(move |device| *device != caller)
    }

    /// The call, where the asker is one of its parties.
    fn call_of(&self, requester: &Requester, signal: &CallSignal) -> Result<CallId, RequestError> {
        let session = self.session(requester)?;
        CallId::parse(&signal.call_id)
            .filter(|id| session.calls.contains(id))
            .ok_or_else(|| RequestError::new(ErrorCode::NoSuchCall, "no such call"))
    }

    /// The call with its devices and caller, where it rings at the asker.
    fn ringing_at(
        &self,
        requester: &Requester,
        signal: &CallSignal,
    ) -> Result<(CallId, Vec<PeerId>, PeerId), RequestError> {
        let id = self.call_of(requester, signal)?;
        let call = &self.calls[&id];
        match &call.stage {
            Stage::Ringing { devices, .. } if call.caller != requester.peer => {
                Ok((id, devices.clone(), call.caller))
            }
            _ => Err(RequestError::new(
                ErrorCode::NoSuchCall,
                "the call does not ring here",
            )),
        }
    }

    /// Takes one device out of a ringing call; without devices the call is over.
    fn drop_device(&mut self, id: CallId, device: PeerId) {
        let Some(Call {
            stage: Stage::Ringing { devices, .. },
            ..
        }) = self.calls.get_mut(&id)
        else {
            return;
        };
        devices.retain(|other| *other != device);
        let over = devices.is_empty();
        self.unlink(id, device);
        if over {
            self.close_call(id);
        }
    }

    /// Ends a call, telling everyone in it.
    fn finish_call(&mut self, cx: &mut Cx<'_>, id: CallId, reason: &'static str) {
        for party in self.close_call(id) {
            self.hang_up(cx, id, party, reason);
        }
    }

    /// Removes a call; returns who was in it, the caller first.
    fn close_call(&mut self, id: CallId) -> Vec<PeerId> {
        let Some(call) = self.calls.remove(&id) else {
            return Vec::new();
        };
        let mut parties = vec![call.caller];
        match call.stage {
            Stage::Ringing { devices, ends } => {
                self.timers.cancel(ends, Timer::RingEnds(id));
                parties.extend(devices);
            }
            Stage::Answered { callee } => parties.push(callee),
        }
        for party in &parties {
            self.unlink(id, *party);
        }
        parties
    }

    fn stop_ringing(&mut self, id: CallId, next: Stage) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if let Stage::Ringing { ends, .. } = std::mem::replace(&mut call.stage, next) {
            self.timers.cancel(ends, Timer::RingEnds(id));
        }
    }

    /// Tells one party that the call is over for it, on the server's own account.
    fn hang_up(&mut self, cx: &mut Cx<'_>, id: CallId, party: PeerId, reason: &'static str) {
        self.unlink(id, party);
        let hangup = ServerMessage::Hangup {
            call_id: id,
            reason,
            ts: cx.now.unix_ms,
        };
        self.sessions
            .send(cx.effects, party, Body::new(&hangup, None));
    }

    fn unlink(&mut self, id: CallId, party: PeerId) {
        if let Some(session) = self.sessions.get_mut(party) {
            session.calls.retain(|other| *other != id);
        }
    }
}
