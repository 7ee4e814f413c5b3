//! Field names that only the server writes in a relayed message, compared as lenient decoders do.
//!
//! Some decoders ignore case (Go's `encoding/json` folds by Unicode), so that a client's `From`
//! would take the place of the server's `from`.

/// Names that a relayed message does not keep at its top level. `to` stays: it says that the
/// message was meant for one receiver alone.
const SERVER_OWNED: [&str; 22] = [
    "type",
    "id",
    "token",
    "seq",
    "from",
    "fromIdentity",
    "roomId",
    "callId",
    "ts",
    "peerId",
    "iceServers",
    "iceTransportPolicy",
    "ttl",
    "expiresAt",
    "resumeToken",
    "resumeWindow",
    "peers",
    "peer",
    "room",
    "role",
    "code",
    "retryAfter",
];

/// Whether the server alone writes that field, in whatever case.
pub(super) fn is_server_owned(name: &str) -> bool {
    if name.is_ascii() {
        // Nearly every name has another length than most of these.
        return SERVER_OWNED
            .iter()
            .any(|owned| owned.len() == name.len() && owned.eq_ignore_ascii_case(name));
    }
    SERVER_OWNED.iter().any(|owned| folds_to(name, owned))
}

/// Whether `name` is `ascii` for a decoder that ignores case.
pub fn folds_to(name: &str, ascii: &str) -> bool {
    // Nearly every name is ASCII and has another length, which is what is compared first.
    name.eq_ignore_ascii_case(ascii)
        || !name.is_ascii() && name.chars().map(folded).eq(ascii.chars().map(folded))
}

/// Simple case folding as far as its result is ASCII: two letters beyond ASCII fold into it. The
/// dotless and the dotted I fold in Java's `equalsIgnoreCase` alone.
fn folded(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        c => c.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_owned_in_every_case_and_others_are_not() {
        for name in [
            "from",
            "From",
            "FROM",
            "ROOMID",
            "\u{17f}eq",
            "\u{17f}EQ",
            "to\u{212a}en",
            "ıd",
            "İD",
            "T\u{17f}",
            "retryafter",
        ] {
            assert!(is_server_owned(name), "{name}");
        }
        for name in [
            "", "to", "fro", "fromm", "from ", "content", "reason", "ſ", "ﬀrom", "іd",
        ] {
            assert!(!is_server_owned(name), "{name}");
        }
    }

    /// Of all characters, no other one becomes ASCII by any mapping of its case.
    #[test]
    fn every_letter_that_folds_into_ascii_is_known() {
        for c in ('\0'..=char::MAX).filter(|c| !c.is_ascii()) {
            let mapped = c.to_lowercase().chain(c.to_uppercase());
            let single = c.to_lowercase().count() == 1 && c.to_uppercase().count() == 1;
            if single && mapped.into_iter().any(|m| m.is_ascii_alphabetic()) {
                assert!(folded(c).is_ascii(), "{c:?}");
            }
        }
    }
}
