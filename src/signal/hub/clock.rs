//! Notices when the wall clock is set: credentials and tokens are dated by it. Clients hold credentials
//! that are dead, or soon will be, and tokens end at another time than it seemed.

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
    pub(super) last: Option<(Instant, u64)>,
    pub(super) due: Option<Instant>,
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
    /// Compares the clocks; after a step every session's credentials are renewed shortly, and what ends
    /// with its token does so by the new time.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        if self.clocks.stepped(now) {
            self.counters.clock_steps += 1;
            let mut at = now.instant;
            for peer in self.sessions.with_credentials() {
                self.set_refresh(peer, at);
                at += SPREAD;
            }
            let members = self.exchange.members.iter_mut();
            let mut minted: Vec<_> = members
                .filter_map(|(conn, member)| Some((*conn, member.minted.as_mut()?)))
                .collect();
            minted.sort_unstable_by_key(|(conn, _)| *conn);
            for (conn, (_, refresh)) in minted {
                self.timers.cancel(*refresh, Timer::RefreshMember(conn));
                *refresh = at;
                self.timers.set(at, Timer::RefreshMember(conn));
                at += SPREAD;
            }
            let sessions = self.sessions.iter();
            let ends: Vec<_> = sessions
                .filter_map(|(peer, session)| Some((peer, session.ends?.0)))
                .collect();
            for (peer, ends) in ends {
                self.end_with_token(now, peer, ends);
            }
            let members = self.exchange.members.iter();
            let ends: Vec<_> = members
                .filter_map(|(conn, member)| Some((*conn, member.ends?.0)))
                .collect();
            for (conn, ends) in ends {
                self.end_member_with_token(now, conn, ends);
            }
        }
    }

    /// Whether anybody may have credentials, which the wall clock dates.
    pub(super) fn has_dated(&self) -> bool {
        self.sessions.len() > 0 || !self.exchange.members.is_empty()
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
        if self.has_dated() {
            self.watch_clock(cx);
        }
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
