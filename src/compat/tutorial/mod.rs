//! The WebSocket clients of four tutorials, told apart by what they say.
//!
//! Till a client has shown of which tutorial it is, it gets a superset of what all of them read:
//! each passes over types and fields that it does not know.

mod memory;
mod read;
mod write;

use crate::protocol::{DialectKind, PeerId};
use crate::signal::{Dialect, Incoming, Outgoing, Output};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long `peer-joined` is kept from a client of the first tutorial: the page sets its handlers
/// once it has camera and microphone, and would miss the answer to a quick offer.
const HOLD: Duration = Duration::from_secs(1);
/// Joins without an answer at most; what is older counts as answered.
const MAX_JOINING: usize = 16;
/// Held messages at most: more members than any mesh of calls has.
const MAX_HELD: usize = 256;

/// The form of a session description: each tutorial knows one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The room that it will be in once all that it asked for is answered: clients do not wait.
    heading: Option<String>,
    /// The name that it registered, for later joins.
    name: Option<String>,
    /// The form of the last description that it sent.
    form: Option<Form>,
    /// Who sent it the last description: the receiver of an answer that names nobody.
    partner: Option<String>,
    /// The `id`s of joins that are not answered yet, and whether the client gave each.
    joining: VecDeque<(String, bool)>,
    joins: u64,
    /// Whether it enters the lobby.
    entering: bool,
    /// What is kept back, by peer, until when.
    held: VecDeque<(Instant, String, String)>,
}

impl Tutorial {
    /// The join that an answer is to. One without an `id` is to the oldest, if there is any.
    fn answered(&mut self, id: Option<&str>) -> Option<(String, bool)> {
        let at = match id {
            Some(id) => self.joining.iter().position(|(join, _)| join == id)?,
            None => 0,
        };
        self.joining.remove(at)
    }

    /// A client that is known to be of one tutorial.
    pub fn of(speaks: DialectKind) -> Self {
        Self {
            speaks: Some(speaks),
            ..Self::default()
        }
    }
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

    fn memory(&self, now: Instant) -> Option<String> {
        self.to_memory(now)
    }
}

#[cfg(test)]
mod tests;
