//! What a verified token (or open mode) lets its bearer do.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// Longest `roomId`, `identity` or `to`, bytes of UTF-8.
pub const MAX_NAME: usize = 128;
/// Largest `metadata` and largest `state` of a peer, bytes of JSON.
pub const MAX_METADATA: usize = 8 * 1024;

/// How deep `metadata` and `state` nest at most. What is sent puts them a few levels deeper, and stays
/// within what every decoder reads.
pub const MAX_METADATA_DEPTH: usize = 60;

/// Whether a value nests deeper than [`MAX_METADATA_DEPTH`].
pub fn is_too_deep(metadata: &Value) -> bool {
    fn is_deeper(value: &Value, left: usize) -> bool {
        let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
            Value::Array(list) => Box::new(list.iter()),
            Value::Object(fields) => Box::new(fields.values()),
            _ => return false,
        };
        left == 0 || inner.any(|value| is_deeper(value, left - 1))
    }
    is_deeper(metadata, MAX_METADATA_DEPTH)
}

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoomScope {
    /// Every room: open mode.
    Any,
    /// Rooms matching one of these. Empty: no room at all, register and call only.
    Matching(Vec<RoomPattern>),
}

/// One entry of a [`RoomScope`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoomPattern {
    /// The room of that name.
    Exact(String),
    /// `*` stands for any run of characters, `\*` for an asterisk.
    Glob(String),
}

impl RoomScope {
    /// Whether the scope covers `room`.
    pub fn allows(&self, room: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.covers(room)),
        }
    }

    /// The one room that the scope covers, where it covers no other.
    pub fn single(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Matching(patterns) => match &patterns[..] {
                [pattern] => pattern.name(),
                _ => None,
            },
            Self::Any => None,
        }
    }

    /// The first room that the scope names as it is.
    pub fn exact(&self) -> Option<&str> {
        let Self::Matching(patterns) = self else {
            return None;
        };
        patterns.iter().find_map(|pattern| match pattern {
            RoomPattern::Exact(name) => Some(name.as_str()),
            RoomPattern::Glob(_) => None,
        })
    }
}

impl RoomPattern {
    /// The name that the pattern is, where it stands for no other.
    fn name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Exact(name) => Some(name.into()),
            Self::Glob(pattern) if !pattern.contains('*') => Some(pattern.into()),
            Self::Glob(pattern) => {
                let is_name = !pattern.replace("\\*", "").contains('*');
                is_name.then(|| pattern.replace("\\*", "*").into())
            }
        }
    }

    fn covers(&self, room: &str) -> bool {
        match self {
            Self::Exact(name) => name == room,
            Self::Glob(pattern) => glob(pattern, room),
        }
    }
}

/// The rights that come with a join or register.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// The name that overrides whatever the client claims.
    pub identity: Option<String>,
    /// Who takes credentials over HTTP with the same token: its `sub`, or else a digest of the token.
    /// `None`: nobody can be found again.
    #[serde(default)]
    pub bearer: Option<String>,
    /// Whether the client may choose its name: a token that gives none leaves it the peer id, lest
    /// its bearer takes the name of another.
    pub chooses_identity: bool,
    /// Rooms that may be joined.
    pub rooms: RoomScope,
    /// The role given by the token; `None` lets the room decide.
    pub role: Option<Role>,
    /// Where the role counts in one room alone: that room, and the role in others.
    #[serde(default)]
    pub role_for: Option<(String, Role)>,
    /// Whether direct calls may be placed.
    pub call: bool,
    /// Whether `rooms` may be listed, beside the configuration's own permission.
    pub list_rooms: bool,
    /// Whether `subscribe` may be sent.
    pub subscribe: bool,
    /// The team that `policy.calls` goes by.
    pub team: Option<String>,
    /// Whether a token gave these rights, and not open mode.
    #[serde(default)]
    pub verified: bool,
    /// The claims of that token, where somebody is to be shown them.
    #[serde(default)]
    pub claims: Option<std::sync::Arc<Value>>,
    /// The id of the invitation that this is, if it is one: its room says whether it holds.
    pub invite: Option<String>,
    /// Metadata given by the token: its keys go before those that the client sends.
    pub metadata: Option<Value>,
    /// When the token, and all that it allows, ends, Unix seconds with leeway; `None`: a session
    /// outlives its token.
    pub ends: Option<u64>,
}

impl Grant {
    /// The name of the TURN credentials that the bearer takes over HTTP.
    pub fn http_name(&self) -> Option<&str> {
        self.bearer.as_deref().or(self.identity.as_deref())
    }

    /// The role that the token gives in `room`.
    pub fn role_in(&self, room: &str) -> Option<Role> {
        match &self.role_for {
            Some((own, elsewhere)) if own != room => Some(*elsewhere),
            _ => self.role,
        }
    }

    /// The role that the token gives where no room does.
    pub fn role_outside(&self) -> Option<Role> {
        match &self.role_for {
            Some((_, elsewhere)) => Some(*elsewhere),
            None => self.role,
        }
    }

    /// Has another role count in every room.
    pub fn set_role(&mut self, role: Role) {
        self.role = Some(role);
        self.role_for = None;
    }

    /// The grant of open mode: anyone may join anything under any name.
    pub fn open() -> Self {
        Self {
            identity: None,
            bearer: None,
            chooses_identity: true,
            rooms: RoomScope::Any,
            role: None,
            role_for: None,
            call: true,
            list_rooms: false,
            subscribe: true,
            team: None,
            verified: false,
            claims: None,
            invite: None,
            metadata: None,
            ends: None,
        }
    }
}

/// Whether `text` is one of those that `pattern` stands for: `*` is any run of characters, and
/// a backslash takes that meaning from the asterisk behind it.
///
/// Linear in time: on a mismatch only the last `*` is tried again, so that a hostile pattern cannot
/// make it exponential.
pub fn glob(pattern: &str, text: &str) -> bool {
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
    fn a_pattern_without_a_wildcard_is_a_name() {
        let single = |p: &str| {
            let scope = RoomScope::Matching(vec![RoomPattern::Glob(p.into())]);
            let name = scope.single().map(Cow::into_owned);
            assert!(name.as_deref().is_none_or(|name| scope.allows(name)), "{p}");
            name
        };
        assert_eq!(single("r").as_deref(), Some("r"));
        assert_eq!(single(r"a\b\*c").as_deref(), Some(r"a\b*c"));
        for pattern in ["*", "team-*", r"\**"] {
            assert_eq!(single(pattern), None, "{pattern}");
        }
        let exact = |name: &str| RoomPattern::Exact(name.into());
        let one = RoomScope::Matching(vec![exact("a*")]);
        assert_eq!(one.single().as_deref(), Some("a*"));
        for none in [vec![], vec![exact("a"), exact("b")]] {
            assert_eq!(RoomScope::Matching(none).single(), None);
        }
        assert_eq!(RoomScope::Any.single(), None);
    }

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
