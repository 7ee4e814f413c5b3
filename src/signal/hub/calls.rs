//! Direct calls: ringing, answering and ending, between sessions wherever they are.

mod ringing;

use super::requests::{Answer, Requester};
use super::routing;
use super::session::Session;
use super::timers::Timer;
use super::{Cx, Hub, Notice, Party};
use crate::protocol::{
    Body, CallId, CallSignal, DialectKind, ErrorCode, MessageType, PeerId, RequestError,
    ServerMessage,
};
use rand::RngExt;
use ringing::Place;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a call rings, as the protocol promises.
const RING_TIME: Duration = Duration::from_secs(45);
/// Calls that one session may be in, and as many that it may be placing: beyond any honest use. Each
/// kind has slots of its own, so that a device at which many ring can still place and take calls.
const CALLS_PER_SESSION: usize = 16;
/// Devices of an identity that one call rings: bounds what one message sets off.
const DEVICES_PER_CALL: usize = 32;
/// Devices that are looked at for that.
const DEVICES_LOOKED_AT: usize = 1_024;

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: PeerId,
    pub(super) stage: Stage,
    /// Who that is to the application.
    pub(super) from: Party,
    /// Whom the call asked for.
    pub(super) to: Arc<str>,
}

/// Calls of one session by kind, those that ring at it aside.
#[derive(Debug, Default)]
struct Slots {
    placing: usize,
    answered: usize,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// These devices ring.
    Ringing { devices: Vec<PeerId>, ends: Instant },
    /// This one took it.
    Answered {
        callee: PeerId,
        /// Unix milliseconds.
        since: u64,
        /// Who that is to the application.
        by: Party,
    },
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
        let network = session.network;
        let (mut is_present, mut is_allowed) = (false, false);
        let (mut devices, mut displaced) = (vec![], vec![]);
        let near = self.devices(requester.peer, to).take(DEVICES_LOOKED_AT);
        for device in near {
            if !self.can_be_called(device) {
                continue;
            }
            is_present = true;
            if !self.may_reach(requester.peer, device) {
                continue;
            }
            is_allowed = true;
            match self.place_for(device, requester.peer, network) {
                Place::Free => {}
                Place::Of(call) => displaced.push((call, device)),
                Place::None => continue,
            }
            devices.push(device);
            if devices.len() == DEVICES_PER_CALL {
                break;
            }
        }
        if !is_present {
            return Err(RequestError::new(
                ErrorCode::NoSuchPeer,
                "nobody of that name is here",
            ));
        }
        if !is_allowed {
            self.counters.refused_calls += 1;
            let message = "the policy of this server does not allow this call";
            return Err(RequestError::new(ErrorCode::Forbidden, message));
        }
        if devices.is_empty() {
            return Err(RequestError::slow_down(RING_TIME));
        }
        for (call, device) in displaced {
            self.displace(cx, call, device);
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
        let (from, to): (_, Arc<str>) = (self.party(requester.peer), to.into());
        self.notice(cx, || Notice::CallStarted {
            call_id: id,
            from: from.clone(),
            to: to.clone(),
        });
        self.calls.insert(
            id,
            Call {
                caller: requester.peer,
                stage,
                from,
                to,
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
                since: cx.now.unix_ms,
                by: self.party(requester.peer),
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
        self.drop_device(cx, id, requester.peer);
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
        let why = if cancels { "cancelled" } else { "hangup" };
        for party in self.close_call(cx, id, why) {
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
                self.drop_device(cx, id, peer);
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
                Stage::Answered { callee, .. } => {
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
        self.stamped(
            cx,
            kind,
            requester.peer,
            &routing::Place::Call(id),
            reason,
            rest,
        )
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

    /// Whom a call to that peer id or identity rings, those of one network by turns with the others.
    fn devices(&self, caller: PeerId, to: &str) -> impl Iterator<Item = PeerId> {
        let by_id = PeerId::parse(to).filter(|peer| self.sessions.get(*peer).is_some());
        let by_name = by_id
            .is_none()
            .then(|| self.names.bearers_by_turns(to))
            .into_iter()
            .flatten();
        by_id
            .into_iter()
            .chain(by_name)
            .filter(move |device| *device != caller)
    }

    fn can_be_called(&self, peer: PeerId) -> bool {
        let session = self.sessions.get(peer);
        session.is_some_and(|session| session.shown.is_none_or(DialectKind::can_be_called))
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
    pub(super) fn drop_device(&mut self, cx: &mut Cx<'_>, id: CallId, device: PeerId) {
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
            self.close_call(cx, id, "rejected");
        }
    }

    /// Ends a call, telling everyone in it.
    pub(super) fn finish_call(&mut self, cx: &mut Cx<'_>, id: CallId, reason: &'static str) {
        for party in self.close_call(cx, id, reason) {
            self.hang_up(cx, id, party, reason);
        }
    }

    /// Everyone in a call, the caller first.
    pub(super) fn parties(call: &Call) -> impl Iterator<Item = PeerId> {
        let others = match &call.stage {
            Stage::Ringing { devices, .. } => devices.as_slice(),
            Stage::Answered { callee, .. } => std::slice::from_ref(callee),
        };
        std::iter::once(call.caller).chain(others.iter().copied())
    }

    /// Removes a call; returns who was in it, the caller first.
    pub(super) fn close_call(
        &mut self,
        cx: &mut Cx<'_>,
        id: CallId,
        reason: &'static str,
    ) -> Vec<PeerId> {
        let Some((call, parties)) = self.remove_call(id) else {
            return Vec::new();
        };
        let (answered_by, seconds) = match call.stage {
            Stage::Ringing { .. } => (None, 0),
            Stage::Answered { since, by, .. } => {
                (Some(by), cx.now.unix_ms.saturating_sub(since) / 1000)
            }
        };
        self.notice(cx, || Notice::CallEnded {
            call_id: id,
            from: call.from,
            to: call.to,
            answered_by,
            seconds,
            reason,
        });
        parties
    }

    /// Removes a call without a word; returns who was in it as well.
    pub(super) fn remove_call(&mut self, id: CallId) -> Option<(Call, Vec<PeerId>)> {
        let call = self.calls.remove(&id)?;
        if let Stage::Ringing { ends, .. } = call.stage {
            self.timers.cancel(ends, Timer::RingEnds(id));
        }
        let parties: Vec<PeerId> = Self::parties(&call).collect();
        for party in &parties {
            self.unlink(id, *party);
        }
        Some((call, parties))
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
    pub(super) fn hang_up(
        &mut self,
        cx: &mut Cx<'_>,
        id: CallId,
        party: PeerId,
        reason: &'static str,
    ) {
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
