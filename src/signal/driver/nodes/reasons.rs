//! Why connections end, in the words of other nodes.

/// The reasons that hubs give, as connections keep them.
const REASONS: &[&str] = &[
    "kicked",
    "replaced",
    "room closed",
    "resumed on another connection",
    "the room has moved",
    "the session ends with its token",
    "rate limited",
    "unauthorized",
    "too many malformed frames",
    "refused by the operator",
    "the server shuts down",
];

/// The reason that another node has given.
pub(super) fn reason(text: &str) -> &'static str {
    let known = REASONS.iter().find(|known| **known == text);
    known.copied().unwrap_or_default()
}
