//! The two ends of a connection whose socket is at one node and whose session is at another, through
//! resets of the link between the two nodes.
//!
//! Both ends count what the link carries and nobody could repeat: what the client says, and frames
//! without a place in the session's ring. After a reset the edge says how far it is. Where the counts
//! agree, nothing was on the way but numbered frames; the home repeats those from the ring, and the
//! client notices nothing. Pure: numbers in, decisions out.

/// Frames that wait at a home for a connection to attach again; with more, the connection ends.
const MAX_HELD: usize = 64;

/// The end of the node that has the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EdgeEnd {
    /// The last number of the session that went to the client.
    seq: u64,
    /// Frames that no ring keeps and that went to the client.
    received: u64,
    /// Frames of the client that went to the home.
    said: u64,
    /// Whether the home has not answered since the link was reset.
    is_attaching: bool,
}

/// How far an edge is with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) generation: u32,
    pub(super) seq: u64,
    pub(super) received: u64,
    pub(super) said: u64,
}

/// Whether no ring keeps a frame: it has no number, or begins the session.
fn is_unkept(seq: Option<u64>) -> bool {
    matches!(seq, None | Some(1))
}

impl EdgeEnd {
    /// A client that has everything up to `seq` of the session that it enters.
    pub(super) fn new(seq: u64) -> Self {
        Self {
            seq,
            ..Self::default()
        }
    }

    /// Counts a frame of the client, and returns its number.
    pub(super) fn says(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    /// Whether a frame goes to the client: it has come before, or comes again in its place, otherwise.
    pub(super) fn takes(&mut self, seq: Option<u64>) -> bool {
        if is_unkept(seq) {
            self.received += 1;
        }
        let Some(seq) = seq else {
            return true;
        };
        let goes = match self.is_attaching {
            _ if seq == 1 => true,
            true => seq == self.seq + 1,
            false => seq > self.seq,
        };
        if goes {
            self.seq = seq;
        }
        goes
    }

    /// The link was reset: how far this end is.
    pub(super) fn reset(&mut self, generation: u32) -> Position {
        self.is_attaching = true;
        Position {
            generation,
            seq: self.seq,
            received: self.received,
            said: self.said,
        }
    }

    /// The home goes on from there.
    pub(super) fn attached(&mut self) {
        self.is_attaching = false;
    }
}

/// The end of the node that has the session.
#[derive(Debug)]
pub(super) struct HomeEnd<F> {
    /// Frames of the client that were taken.
    said: u64,
    /// Frames that no ring keeps and that went to the edge.
    received: u64,
    /// Frames that no ring keeps, since the link was reset; `None`: the edge is attached.
    held: Option<Vec<F>>,
    /// What the last reset has begun.
    generation: u32,
    is_broken: bool,
}

impl<F> HomeEnd<F> {
    pub(super) fn new() -> Self {
        Self {
            said: 0,
            received: 0,
            held: None,
            generation: 0,
            is_broken: false,
        }
    }

    /// Whether a frame goes to the edge now. Numbered ones are in the ring, others wait here.
    pub(super) fn sends(&mut self, seq: Option<u64>, frame: impl FnOnce() -> F) -> bool {
        match &mut self.held {
            Some(held) if is_unkept(seq) => {
                self.is_broken |= held.len() >= MAX_HELD;
                if !self.is_broken {
                    held.push(frame());
                }
                false
            }
            Some(_) => false,
            None => {
                self.received += u64::from(is_unkept(seq));
                true
            }
        }
    }

    /// Whether the client's frame with that number is taken: one before it was lost otherwise.
    pub(super) fn takes(&mut self, number: u64) -> bool {
        let is_next = number == self.said + 1;
        self.said += u64::from(is_next);
        is_next
    }

    /// The link was reset.
    pub(super) fn reset(&mut self, generation: u32) {
        self.generation = generation;
        self.held.get_or_insert_default();
    }

    /// Whether the edge has not said how far it is since that reset.
    pub(super) fn is_detached_since(&self, generation: u32) -> bool {
        self.held.is_some() && self.generation == generation
    }

    /// Whether the edge has said so before it knew of the last reset: it will say so again.
    pub(super) fn is_stale(&self, at: Position) -> bool {
        self.held.is_some() && self.generation != at.generation
    }

    /// The edge says how far it is; returns what waits to be sent, or `None` where something is lost that
    /// nobody can repeat.
    pub(super) fn attach(&mut self, at: Position) -> Option<Vec<F>> {
        if self.is_broken || (at.said, at.received) != (self.said, self.received) {
            return None;
        }
        Some(self.held.take().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
