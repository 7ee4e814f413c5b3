//! What the hub counts.

use crate::protocol::{ErrorCode, MessageType};

/// Sums since the start.
#[derive(Debug, Clone)]
pub struct Counters {
    received: [u64; MessageType::ALL.len()],
    refused: [u64; ErrorCode::ALL.len()],
    /// Sessions taken over by another connection.
    pub resumes: u64,
    /// Those of them that had lost frames.
    pub gaps: u64,
    /// Candidates that a relay-only room kept back.
    pub withheld_candidates: u64,
    /// Times that the wall clock was set.
    pub clock_steps: u64,
    /// Messages that `policy.messages` refused.
    pub refused_messages: u64,
    /// Calls that `policy.calls` refused.
    pub refused_calls: u64,
    /// Subscriptions of topics that were refused, for want of a place or of a right.
    pub refused_subscriptions: u64,
    /// Publications that were refused, because there were too many or for want of a right.
    pub refused_publications: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: [0; MessageType::ALL.len()],
            refused: [0; ErrorCode::ALL.len()],
            resumes: 0,
            gaps: 0,
            withheld_candidates: 0,
            clock_steps: 0,
            refused_messages: 0,
            refused_calls: 0,
            refused_subscriptions: 0,
            refused_publications: 0,
        }
    }
}

impl Counters {
    /// Well-formed messages by type.
    pub fn received(&self) -> impl Iterator<Item = (MessageType, u64)> {
        MessageType::ALL.iter().copied().zip(self.received)
    }

    /// Errors sent by code, malformed frames included.
    pub fn refused(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        ErrorCode::ALL.iter().copied().zip(self.refused)
    }

    /// Goes on from what another process counted of a type.
    pub(super) fn set_received(&mut self, kind: MessageType, count: u64) {
        self.received[kind as usize] = count;
    }

    /// Goes on from what another process counted of a code.
    pub(super) fn set_refused(&mut self, code: ErrorCode, count: u64) {
        self.refused[code as usize] = count;
    }

    pub(super) fn count_received(&mut self, kind: MessageType) {
        self.received[kind as usize] += 1;
    }

    pub(super) fn count_refused(&mut self, code: ErrorCode) {
        self.refused[code as usize] += 1;
    }
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauges {
    /// Open sockets.
    pub connections: usize,
    /// Sessions, in rooms and registered, online and away.
    pub sessions: usize,
    /// Sessions without a socket.
    pub away: usize,
    /// Rooms.
    pub rooms: usize,
    /// Members of rooms.
    pub peers: usize,
    /// Different names.
    pub identities: usize,
    /// Calls, ringing and answered.
    pub calls: usize,
    /// Bytes of frames kept for resumes.
    pub ring_bytes: usize,
    /// Networks with wrong passwords of late.
    pub guessers: usize,
    /// Timers set.
    pub timers: usize,
    /// Topics with a subscriber.
    pub topics: usize,
    /// Subscriptions of topics.
    pub subscriptions: usize,
    /// Names that a connection of a dialect with names has.
    pub claimed_names: usize,
    /// Bytes of messages for names that nobody has yet.
    pub parked_bytes: usize,
    /// Frames numbered since the start.
    pub sent: u64,
}
