//! Notices when the wall clock is set: credentials are dated by it, and clients hold ones that are
//! dead, or soon will be.

use super::timers::Timer;
use super::{Cx, Hub, Now};
use crate::protocol::PeerId;
use std::time::{Duration, Instant};

/// How often the clocks are compared while there are sessions and nothing else is going on.
const INTERVAL: Duration = Duration::from_secs(10);
/// By how much they may drift apart between two looks: well above what NTP slews in any interval
/// between them, and well below the life of a credential.
const STEP_MS: u64 = 5_000;
/// Time between two renewals after a step: 10,000 sessions a second.
const SPREAD: Duration = Duration::from_micros(100);

/// Both clocks at the last look, and when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    last: Option<(Instant, u64)>,
    due: Option<Instant>,
}

impl Clocks {
    /// Whether the wall clock was set since the last look.
    fn stepped(&mut self, now: Now) -> bool {
        let last = self.last.replace((now.instant, now.unix_ms));
        last.is_some_and(|(instant, unix_ms)| {
            let passed = now.instant.saturating_duration_since(instant).as_millis();
            let expected = unix_ms.saturating_add(passed.try_into().unwrap_or(u64::MAX));
            now.unix_ms.abs_diff(expected) > STEP_MS
        })
    }
}

impl Hub {
    /// Compares the clocks; after a step every session's credentials are renewed shortly.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        if self.clocks.stepped(now) {
            self.counters.clock_steps += 1;
            let mut at = now.instant;
            for peer in self.sessions.with_credentials() {
                self.set_refresh(peer, at);
                at += SPREAD;
            }
        }
    }

    /// Has the clocks looked at from now on, while there are sessions.
    pub(super) fn watch_clock(&mut self, cx: &Cx<'_>) {
        if self.clocks.due.is_none() {
            let due = cx.now.instant + INTERVAL;
            self.clocks.due = Some(due);
            self.timers.set(due, Timer::LookAtClock);
        }
    }

    /// The look itself is at the beginning of every input.
    pub(super) fn clock_looked_at(&mut self, cx: &Cx<'_>) {
        self.clocks.due = None;
        self.watch_clock(cx);
    }

    /// Nobody is left whose credentials matter.
    pub(super) fn ignore_clock(&mut self) {
        if let Some(due) = self.clocks.due.take() {
            self.timers.cancel(due, Timer::LookAtClock);
        }
    }

    /// Sets when a session's credentials are renewed, in place of an earlier time.
    pub(super) fn set_refresh(&mut self, peer: PeerId, at: Instant) {
        let Some(session) = self.sessions.get_mut(peer) else {
            return;
        };
        if let Some(before) = session.refresh.replace(at) {
            self.timers.cancel(before, Timer::Refresh(peer));
        }
        self.timers.set(at, Timer::Refresh(peer));
    }
}
