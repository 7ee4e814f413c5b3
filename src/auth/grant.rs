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
    /// Rooms matching one of these. Empty: no room at all, register and call only.
    Matching(Vec<RoomPattern>),
}

/// One entry of a [`RoomScope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomPattern {
    /// The room of that name.
    Exact(String),
    /// `*` stands for any run of characters, `\*` for an asterisk.
    Glob(String),
}

impl RoomScope {
    /// Tells whether the scope covers `room`.
    pub fn allows(&self, room: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.covers(room)),
        }
    }
}

impl RoomPattern {
    fn covers(&self, room: &str) -> bool {
        match self {
            Self::Exact(name) => name == room,
            Self::Glob(pattern) => glob(pattern, room),
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
    /// Whether `subscribe` may be sent.
    pub subscribe: bool,
    /// Metadata given by the token, used where the client sends none of its own.
    pub metadata: Option<Value>,
    /// When the token, and all that it allows, ends, Unix seconds with leeway; `None`: a session
    /// outlives its token.
    pub ends: Option<u64>,
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
            subscribe: true,
            metadata: None,
            ends: None,
        }
    }
}

/// Tells whether `text` is one of those that `pattern` stands for: `*` is any run of characters, and
/// a backslash takes that meaning from the asterisk behind it.
///
/// Linear in time: on a mismatch only the last `*` is tried again, so that a hostile pattern cannot
/// make it exponential.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern[p..] {
            [b'*', ..] => {
                retry = Some((p, t));
                p += 1;
                continue;
            }
            [b'\\', b'*', ..] if text.get(t) == Some(&b'*') => {
                p += 2;
                t += 1;
                continue;
            }
            // Not a literal backslash.
            [b'\\', b'*', ..] => {}
            [byte, ..] if text.get(t) == Some(&byte) => {
                p += 1;
                t += 1;
                continue;
            }
            [] if t == text.len() => return true,
            _ => {}
        }
        match retry {
            Some((star, from)) if from < text.len() => {
                retry = Some((star, from + 1));
                (p, t) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names_only() {
        let scope = |p: &str| RoomScope::Matching(vec![RoomPattern::Glob(p.into())]);
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

    #[test]
    fn a_backslash_escapes_an_asterisk_and_exact_names_have_none() {
        for (pattern, text, expected) in [
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\*", r"a\", false),
            (r"\**", "*anything", true),
            (r"\**", "anything", false),
            (r"*\*", "x*", true),
            (r"*\*", "x*y", false),
            (r"*\*b", "*a*b", true),
            (r"DOMAIN\user", r"DOMAIN\user", true),
            (r"a\\*", r"a\*", true),
            (r"a\\*", r"a\b", false),
            ("**", "", true),
            ("*a", "", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
        let exact = |name: &str| RoomScope::Matching(vec![RoomPattern::Exact(name.into())]);
        assert!(exact("team-*").allows("team-*"));
        assert!(!exact("team-*").allows("team-42"));
        assert!(!exact("*").allows("a") && !exact(r"\*").allows("*"));
    }
}
