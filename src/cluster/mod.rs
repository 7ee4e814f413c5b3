//! Several nodes as one service: who lives, who owns which room, and what nodes send each other.
//!
//! A room lives whole in one node, its home. Any node takes any connection; one that is not the home
//! is an edge, which carries frames to the home and back. Redis is all that nodes share: it decides
//! who is home, keeps what a crash must not lose, and carries the frames. docs/cluster.md says what
//! follows from that. The modules here decide, and `redis` alone speaks to the server.

pub mod link;
pub mod membership;
pub mod node;
pub mod ownership;
pub mod redis;
pub mod seal;
pub mod shell;
pub mod store;
pub mod wire;

use std::fmt;

/// One run of a node: a new one with each start, so that nobody takes a node that came back for the
/// one that went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Wraps bits drawn by the caller, who answers for their randomness.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Reads the form that keys and fields of Redis hold; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
