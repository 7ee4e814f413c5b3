//! Shutting down: no newcomers, then nobody.

use super::clock::Clocks;
use super::exchange::Exchange;
use super::names::Names;
use super::rate::Attempts;
use super::session::Sessions;
use super::timers::{Timer, Timers};
use super::{ConnId, Cx, Effect, Hub, Now, millis};
use crate::protocol::{Body, CloseCode, LeaveReason, ServerMessage};
use rand::RngExt;
use std::time::Instant;

/// Spread of `reconnectIn`, ms: keeps a full server's clients from all coming back at once.
const RECONNECT_JITTER_MS: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Draining {
    grace_ends: Instant,
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
        self.conns.clear();
        self.sessions = Sessions::new(&self.settings);
        self.tokens.clear();
        self.names = Names::default();
        self.rooms.clear();
        self.calls.clear();
        self.exchange = Exchange::default();
        self.attempts = Attempts::default();
        self.timers = Timers::default();
        self.clocks = Clocks::default();
        (self.away, self.members) = (0, 0);
    }

    /// Every connection, in an order that does not change from run to run.
    fn open_conns(&self) -> Vec<ConnId> {
        let mut conns: Vec<_> = self.conns.keys().copied().collect();
        conns.sort_unstable();
        conns
    }
}
