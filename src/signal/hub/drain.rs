//! Shutting down: no newcomers, then nobody.

use super::clock::Clocks;
use super::ended::Ended;
use super::exchange::Exchange;
use super::lobby::Lobbies;
use super::names::Names;
use super::rate::Attempts;
use super::session::Sessions;
use super::timers::{Timer, Timers};
use super::{ConnId, Cx, Effect, Event, Hub, Now, millis};
use crate::network::NetworkCounts;
use crate::protocol::{Body, CloseCode, LeaveReason, ServerMessage};
use rand::RngExt;
use std::time::Instant;

/// The same for clients of a box that goes on at once as another process.
const HANDOVER_JITTER_MS: u64 = 500;

/// Spread of `reconnectIn`, ms: keeps a full server's clients from all coming back at once.
const RECONNECT_JITTER_MS: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Draining {
    pub(super) grace_ends: Instant,
}

impl Hub {
    pub(super) fn drain(&mut self, cx: &mut Cx<'_>, grace_ends: Instant, alternate: bool) {
        if let Some(before) = self.draining.replace(Draining { grace_ends }) {
            self.timers.cancel(before.grace_ends, Timer::GraceEnds);
        }
        self.timers.set(grace_ends, Timer::GraceEnds);
        let remaining = grace_ends.saturating_duration_since(cx.now.instant);
        let at_least = if alternate { 0 } else { millis(remaining) };
        for conn in self.open_conns() {
            let reconnect_in = at_least + self.rng.random_range(0..RECONNECT_JITTER_MS);
            self.send_to_connection(
                cx,
                conn,
                Body::new(&ServerMessage::Draining { reconnect_in }, None),
            );
        }
    }

    /// Ends a drain before its grace does, or without one.
    pub fn end_all(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let grace_ends = now.instant;
        self.draining.get_or_insert(Draining { grace_ends });
        self.grace_ended(&mut Cx { now, effects });
    }

    /// Ends everything at once. Nobody is told of the others' leaving, and nothing is revoked:
    /// the relays end with the process.
    pub(super) fn grace_ended(&mut self, cx: &mut Cx<'_>) {
        self.notice_end(cx);
        for conn in self.open_conns() {
            let peer = self.conns[&conn].peer;
            self.send_own_leave(cx, peer, LeaveReason::Draining);
            let reason = "the server shuts down";
            cx.effects.push(Effect::Close {
                conn,
                code: CloseCode::Draining,
                reason,
            });
        }
        self.clear();
    }

    /// Closes every connection, for its client to resume with the process that goes on from a
    /// [`snapshot`](Self::snapshot), which is to be taken before. Nobody leaves.
    pub fn leave_to_successor(&mut self, effects: &mut Vec<Effect>) {
        for conn in self.open_conns() {
            let reconnect_in = self.rng.random_range(0..=HANDOVER_JITTER_MS);
            // Without a number: a session need not get this frame later.
            effects.push(Effect::Send {
                conn,
                peer: self.conns[&conn].peer,
                seq: None,
                event: Event::Native(Body::new(&ServerMessage::Draining { reconnect_in }, None)),
            });
            effects.push(Effect::Close {
                conn,
                code: CloseCode::Restart,
                reason: "the server is upgraded: resume",
            });
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.conns.clear();
        self.sessions = Sessions::new(&self.settings);
        self.tokens.clear();
        self.ended = Ended::default();
        self.names = Names::default();
        self.rooms.clear();
        self.rooms_of = NetworkCounts::default();
        self.calls.clear();
        self.exchange = Exchange::default();
        self.attempts = Attempts::default();
        self.lobbies = Lobbies::default();
        self.timers = Timers::default();
        self.clocks = Clocks::default();
        (self.away, self.members) = (0, 0);
    }

    /// Every connection, in an order that does not change from run to run.
    pub(super) fn open_conns(&self) -> Vec<ConnId> {
        let mut conns: Vec<_> = self.conns.keys().copied().collect();
        conns.sort_unstable();
        conns
    }
}
