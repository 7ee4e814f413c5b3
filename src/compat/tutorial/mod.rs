//! The WebSocket clients of four tutorials, told apart by what they say.
//!
//! Till a client has shown of which tutorial it is, it gets a superset of what all of them read:
//! each passes over types and fields that it does not know.

mod read;
mod write;

use crate::protocol::{DialectKind, PeerId};
use crate::signal::{Dialect, Incoming, Outgoing, Output};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long `peer-joined` is kept from a client of the first tutorial: the page sets its handlers
/// once it has camera and microphone, and would miss the answer to a quick offer.
const HOLD: Duration = Duration::from_secs(1);
/// Held messages at most: more members than any mesh of calls has.
const MAX_HELD: usize = 256;

/// The form of a session description: each tutorial knows one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The bare text.
    Text,
    /// `{type, sdp}`.
    Object,
}

/// What is remembered of one client.
#[derive(Debug, Default)]
pub struct Tutorial {
    /// Of which tutorial it is, once it has shown that.
    speaks: Option<DialectKind>,
    peer: Option<PeerId>,
    room: Option<String>,
    /// The name that it registered, for later joins.
    name: Option<String>,
    /// The form of the last description that it sent.
    form: Option<Form>,
    /// From whom it heard the last description: whom it answers where it names nobody.
    partner: Option<String>,
    /// The `id` of a join that is not answered yet, and whether the client gave it.
    joining: Option<(String, bool)>,
    joins: u64,
    /// Whether it enters the lobby.
    entering: bool,
    /// What is kept back, by peer, until when.
    held: VecDeque<(Instant, String, String)>,
}

impl Dialect for Tutorial {
    fn decode(&mut self, message: Incoming<'_>, _: Instant, out: &mut Output<'_>) {
        self.read(message, out);
    }

    fn encode(&mut self, outgoing: &Outgoing, now: Instant, out: &mut Output<'_>) {
        self.write(outgoing, now, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.held.front().map(|(at, _, _)| *at)
    }

    fn timed_out(&mut self, now: Instant, out: &mut Output<'_>) {
        while let Some((_, _, text)) = self.held.pop_front_if(|(at, _, _)| *at <= now) {
            out.text(&text);
        }
    }
}

#[cfg(test)]
mod tests;
