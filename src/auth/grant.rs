//! What a verified token (or open mode) lets its bearer do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest `roomId`, `identity` or `to`, bytes of UTF-8.
pub const MAX_NAME: usize = 128;
/// Largest `metadata` and largest `state` of a peer, bytes of JSON.
pub const MAX_METADATA: usize = 8 * 1024;

/// Whether a room or someone may be called that.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// What a peer may do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the room: kicks, grants roles, changes the room.
    Host,
    /// Sends and receives.
    Member,
    /// Receives, negotiates and talks; has nothing to `publish`, and nothing of a host's.
    Viewer,
}

/// Which rooms a bearer may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomScope {
    /// Every room: open mode.
    Any,
    /// Rooms matching one of these names or globs (`*` stands for any run of characters).
    /// Empty: no room at all, register and call only.
    Matching(Vec<String>),
}

impl RoomScope {
    /// Tells whether the scope covers `room`.
    pub fn allows(&self, room: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Matching(patterns) => {
                patterns.iter().any(|p| glob(p.as_bytes(), room.as_bytes()))
            }
        }
    }
}

/// The rights that come with a join or register.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The name that overrides whatever the client claims.
    pub identity: Option<String>,
    /// Whether the client may choose its name: a token that gives none leaves it the peer id, lest
    /// its bearer takes the name of another.
    pub chooses_identity: bool,
    /// Rooms that may be joined.
    pub rooms: RoomScope,
    /// The role given by the token; `None` lets the room decide.
    pub role: Option<Role>,
    /// Whether direct calls may be placed.
    pub call: bool,
    /// Whether `rooms` may be listed, beside the configuration's own permission.
    pub list_rooms: bool,
    /// Metadata given by the token, used where the client sends none of its own.
    pub metadata: Option<Value>,
}

impl Grant {
    /// The grant of open mode: anyone may join anything under any name.
    pub fn open() -> Self {
        Self {
            identity: None,
            chooses_identity: true,
            rooms: RoomScope::Any,
            role: None,
            call: true,
            list_rooms: false,
            metadata: None,
        }
    }
}

/// Linear-time glob: on a mismatch only the last `*` is retried, so a hostile pattern cannot
/// make it exponential.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names_only() {
        let scope = |p: &str| RoomScope::Matching(vec![p.into()]);
        assert!(scope("team-*").allows("team-42"));
        assert!(scope("team-*").allows("team-"));
        assert!(!scope("team-*").allows("my-team-42"));
        assert!(scope("*-red").allows("team-red-red"));
        assert!(!scope("*-red").allows("team-red-2"));
        assert!(scope("a*b*c").allows("a1b2b3c"));
        assert!(!scope("a").allows("ab"));
        assert!(!scope("").allows("a"));
        assert!(!RoomScope::Matching(vec![]).allows("a"));
        assert!(RoomScope::Any.allows("anything"));
    }
}
