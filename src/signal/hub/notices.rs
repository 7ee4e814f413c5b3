//! What the application and the operator are told: who came and went, and, where it is asked for,
//! who says what to whom.
//!
//! Nothing is made where nobody listens.

use super::notice::{Notice, Party, Subject};
use super::requests::Requester;
use super::{Cx, Effect, Event, Hub};
use crate::protocol::{FrameType, LeaveReason, PeerId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Receivers of one message that a trace names; the rest is counted.
const NAMED_RECEIVERS: usize = 8;

/// Who listens to what.
#[derive(Debug, Default)]
pub(super) struct Watch {
    events: bool,
    /// How many listeners trace each subject.
    traced: BTreeMap<Subject, usize>,
}

impl Watch {
    pub(super) fn has_events(&self) -> bool {
        self.events
    }

    pub(super) fn has_traces(&self) -> bool {
        !self.traced.is_empty()
    }
}

impl Hub {
    /// Makes notices from here on, or none.
    pub fn watch(&mut self, events: bool) {
        self.watch.events = events;
    }

    /// Traces a subject for one listener more.
    pub fn trace(&mut self, subject: &Subject) {
        *self.watch.traced.entry(subject.clone()).or_default() += 1;
    }

    /// Traces a subject for one listener less.
    pub fn end_trace(&mut self, subject: &Subject) {
        if let Some(listeners) = self.watch.traced.get_mut(subject) {
            *listeners -= 1;
            if *listeners == 0 {
                self.watch.traced.remove(subject);
            }
        }
    }

    pub(super) fn notice(&self, cx: &mut Cx<'_>, make: impl FnOnce() -> Notice) {
        if self.watch.events {
            cx.effects.push(Effect::Notice(Box::new(make())));
        }
    }

    /// Who a session is, as others are told.
    pub(super) fn party(&self, peer: PeerId) -> Party {
        let session = self.sessions.get(peer);
        let identity = session.and_then(|session| session.identity.clone());
        Party {
            peer_id: peer,
            identity: identity.unwrap_or_else(|| peer.to_string().into()),
        }
    }

    pub(super) fn notice_joined(&self, cx: &mut Cx<'_>, room: &Arc<str>, peer: PeerId) {
        if !self.watch.events {
            return;
        }
        let Some(member) = self.rooms.get(room).and_then(|room| room.member(peer)) else {
            return;
        };
        let role = member.role;
        let Party { peer_id, identity } = self.party(peer);
        self.notice(cx, || Notice::PeerJoined {
            room: room.clone(),
            peer_id,
            identity,
            role,
        });
    }

    /// A room that began at `since` (Unix milliseconds) is over.
    pub(super) fn notice_room_ended(&self, cx: &mut Cx<'_>, room: &Arc<str>, since: u64) {
        let seconds = cx.now.unix_ms.saturating_sub(since) / 1000;
        self.notice(cx, || Notice::RoomEnded {
            room: room.clone(),
            seconds,
        });
    }

    /// The box ends, and all rooms and calls with it.
    pub(super) fn notice_end(&mut self, cx: &mut Cx<'_>) {
        if !self.watch.events {
            return;
        }
        let mut calls: Vec<_> = self.calls.keys().copied().collect();
        calls.sort_unstable();
        for call in calls {
            self.close_call(cx, call, "draining");
        }
        for room in self.rooms.values() {
            for member in room.members() {
                let Party { peer_id, identity } = self.party(member.peer);
                self.notice(cx, || Notice::PeerLeft {
                    room: room.id.clone(),
                    peer_id,
                    identity,
                    reason: LeaveReason::Draining,
                });
            }
            self.notice_room_ended(cx, &room.id, room.created_at);
        }
    }

    /// Tells what a request of `requester`, which was in `room` before, led to: the effects from
    /// `before` on.
    pub(super) fn trace_message(
        &self,
        cx: &mut Cx<'_>,
        requester: &Requester,
        room: Option<Arc<str>>,
        before: usize,
    ) {
        let session = self.sessions.get(requester.peer);
        let room = room.or_else(|| session.and_then(|session| session.room.clone()));
        let (mut to, mut receivers, mut size, mut refused) = (vec![], 0, 0, false);
        let mut last = None;
        for effect in cx.effects.get(before..).unwrap_or_default() {
            let Effect::Send { peer, event, .. } = effect else {
                continue;
            };
            if *peer == requester.peer {
                refused |= event.kind() == FrameType::Error;
                continue;
            }
            if last == Some(*peer) || matches!(event, Event::Probe) {
                continue;
            }
            last = Some(*peer);
            receivers += 1;
            size = size.max(event.cost());
            if to.len() < NAMED_RECEIVERS {
                to.push(*peer);
            }
        }
        let notice = Notice::Message {
            message: requester.kind,
            from: requester.peer,
            identity: self.party(requester.peer).identity,
            room,
            to,
            receivers,
            size,
            refused,
        };
        if self
            .watch
            .traced
            .keys()
            .any(|subject| subject.fits(&notice))
        {
            cx.effects.push(Effect::Notice(Box::new(notice)));
        }
    }
}
