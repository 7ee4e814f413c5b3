//! What is due when, in order.

use super::interface::ConnId;
use super::rate::Guesser;
use super::registry::Name;
use crate::protocol::{CallId, PeerId};
use std::collections::BTreeSet;
use std::time::Instant;

/// What to do when the time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The connection has no session yet.
    JoinDeadline(ConnId),
    /// The session was away for too long.
    WindowEnds(PeerId),
    /// The session's token ends.
    TokenEnds(PeerId),
    /// Nobody took the call.
    RingEnds(CallId),
    /// Three quarters of the credentials' life are over.
    Refresh(PeerId),
    /// The guesser is back within its rate.
    Forgive(Guesser),
    /// The holder of a name had time for a sign of life.
    ContestEnds(Name),
    /// A name that messages wait for had time to be taken.
    ParkedEnds(Name),
    /// Three quarters of the life of a connection's credentials are over.
    RefreshMember(ConnId),
    /// The token of a connection ends.
    MemberEnds(ConnId),
    /// The wall clock is compared with the other one.
    LookAtClock,
    /// The drain is over.
    GraceEnds,
}

/// The queue. The owner of a timer remembers its instant, to cancel it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }

    /// Takes over all timers of another queue.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
