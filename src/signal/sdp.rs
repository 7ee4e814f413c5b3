//! Keeps addresses out of session descriptions and candidates, for relay-only rooms.
//!
//! Line by line and on text: a parser would drop or reorder what it does not know, and browsers
//! differ in just that. A line stays if every reader takes it for the same one and it carries no
//! candidate; what a lenient reader might take for more than it seems goes.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest `sdpMid` or `usernameFragment` that passes, bytes: what RFC 8839, 5.4 allows a fragment.
const MAX_LABEL: usize = 256;

/// The text is not a string that Rust can hold (lone surrogates), or nested where text belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Filters the value of `sdp`, a JSON string or an object with a string `sdp`; returns JSON. Of an
/// object only `type` and `sdp` stay.
///
/// # Errors
/// [`Unreadable`].
pub fn description(raw: &RawValue) -> Result<String, Unreadable> {
    #[derive(Deserialize, Serialize)]
    struct Description {
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<Value>,
        sdp: String,
    }
    if raw.get().starts_with('"') {
        let sdp: String = read(raw)?;
        Ok(Value::from(filter(&sdp)).to_string())
    } else {
        let mut description: Description = read(raw)?;
        description.sdp = filter(&description.sdp);
        description.kind = description.kind.filter(is_kind);
        serde_json::to_string(&description).map_err(|_| Unreadable)
    }
}

/// Whether that is the type of a description: a word, which native libraries for phones write in
/// capitals or as its number.
fn is_kind(kind: &Value) -> bool {
    const KINDS: [&str; 4] = ["offer", "answer", "pranswer", "rollback"];
    match kind {
        Value::String(word) => KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(word)),
        kind => kind
            .as_u64()
            .is_some_and(|number| number < KINDS.len() as u64),
    }
}

/// Filters the value of `candidate`: a JSON string, an object or `null`; returns JSON, or `None`
/// for a candidate to be kept back. Of an object only the fields of `RTCIceCandidateInit` stay, and
/// those that the native libraries for iOS and Android write in their place.
///
/// # Errors
/// [`Unreadable`].
pub fn candidate(raw: &RawValue) -> Result<Option<String>, Unreadable> {
    Ok(relayed_value(read(raw)?)?.map(|value| value.to_string()))
}

/// Parsing bounds the depth.
fn relayed_value(value: Value) -> Result<Option<Value>, Unreadable> {
    Ok(match value {
        Value::String(text) => end_or_relayed(&text).map(Value::from),
        Value::Object(mut fields) => {
            let texts = ["candidate", "sdp"].map(|name| (name, fields.remove(name)));
            let mut kept = labels(fields);
            for (name, text) in texts {
                match text {
                    None | Some(Value::Null) => {}
                    Some(text @ (Value::String(_) | Value::Object(_))) => {
                        let Some(filtered) = relayed_value(text)? else {
                            return Ok(None);
                        };
                        kept.insert(name.to_owned(), filtered);
                    }
                    Some(_) => return Err(Unreadable),
                }
            }
            Some(Value::Object(kept))
        }
        Value::Null => Some(Value::Null),
        _ => return Err(Unreadable),
    })
}

/// Filters what stands beside `sdp` or `candidate` in a message, as `,"key":value` text: `to` and
/// the labels of a candidate stay, as nothing else there has a meaning that peers agree on.
///
/// # Errors
/// [`Unreadable`].
pub fn beside(rest: &str) -> Result<String, Unreadable> {
    let object = format!("{{{}}}", rest.strip_prefix(',').unwrap_or(rest));
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(&object).map_err(|_| Unreadable)?;
    let readable = fields
        .into_iter()
        .filter_map(|(name, raw)| Some((name, read(raw).ok()?)))
        .collect::<Map<_, _>>();
    let to = readable.get("to").cloned();
    let mut kept = labels(readable);
    kept.extend(to.map(|to| ("to".to_owned(), to)));
    Ok(kept
        .iter()
        .map(|(name, value)| format!(",\"{name}\":{value}"))
        .collect())
}

/// The fields that say which section a candidate is for, where they hold nothing else.
fn labels(mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.retain(|name, value| match (&**name, value) {
        ("sdpMid" | "sdpMLineIndex" | "usernameFragment", Value::Null) => true,
        // `id` and `label` are the names that AppRTC gave to the first two.
        ("sdpMid" | "usernameFragment" | "id", Value::String(label)) => {
            label.len() <= MAX_LABEL && label.bytes().all(|byte| byte.is_ascii_graphic())
        }
        ("sdpMLineIndex" | "label", Value::Number(index)) => {
            index.as_u64().is_some_and(|index| index <= u16::MAX.into())
        }
        _ => false,
    });
    fields
}

/// Filters a session description, keeping its line ends: CRLF, LF, or a lone CR, which some
/// lenient readers take for one.
fn filter(sdp: &str) -> String {
    let mut out = String::with_capacity(sdp.len());
    let mut rest = sdp;
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.find(['\r', '\n']).unwrap_or(rest.len()));
        let (end, tail) = tail.split_at(if tail.starts_with("\r\n") {
            2
        } else {
            tail.len().min(1)
        });
        if let Some(filtered) = filter_line(line) {
            out.push_str(&filtered);
            out.push_str(end);
        }
        rest = tail;
    }
    out
}

fn filter_line(line: &str) -> Option<Cow<'_, str>> {
    let kind = line.chars().next()?;
    let value = line[kind.len_utf8()..].strip_prefix('=')?;
    if !kind.is_ascii_lowercase() || line.contains(breaks_lines) {
        return None;
    }
    match kind {
        'o' => Some(format!("o={}", origin(value)).into()),
        'c' => Some(format!("c={}", nowhere(value)).into()),
        'm' => Some(format!("m={}", media(value)).into()),
        'a' => attribute(line, value),
        _ => without_candidate(line),
    }
}

/// Whether some reader takes the character for the end of a line: Python's `splitlines` knows
/// eleven of them.
fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn attribute<'a>(line: &'a str, value: &str) -> Option<Cow<'a, str>> {
    let (name, rest) = value.split_once(':').unwrap_or((value, ""));
    if !name.bytes().all(is_token) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    // A reader that looks at how the line begins takes a longer name for the same.
    if ["remote-candidates", "source-filter"]
        .iter()
        .any(|head| name.starts_with(head))
    {
        return None;
    }
    match name.as_str() {
        "candidate" => relayed(value).map(|candidate| format!("a={candidate}").into()),
        "rtcp" if rest.contains(' ') => Some(format!("a=rtcp:9 {}", nowhere(rest)).into()),
        "rtcp" => Some("a=rtcp:9".into()),
        _ => without_candidate(line),
    }
}

/// `token-char` of RFC 8866, 9: what the name of an attribute is made of.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte)
}

fn without_candidate(text: &str) -> Option<Cow<'_, str>> {
    let carries = text.to_ascii_lowercase().contains("candidate:");
    (!carries).then_some(text.into())
}

/// `<username> <sess-id> <sess-version> <nettype> <addrtype> <unicast-address>` (RFC 8866, 5.2).
/// The user goes: some write the name of their host.
fn origin(value: &str) -> String {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match value.split_whitespace().collect::<Vec<_>>()[..] {
        [_, id, version, _, _, address] if number(id) && number(version) => {
            format!("- {id} {version} {}", nowhere(address))
        }
        _ => format!("- 0 0 {}", nowhere(value)),
    }
}

/// `<media> <port>[/<count>] <proto> <fmt> …` (RFC 8866, 5.14). Port 0 means a rejected or
/// bundled section and stays; 9 (discard) is what trickling browsers write. What is neither a token nor
/// a protocol goes: a candidate might hide in it.
fn media(value: &str) -> String {
    // An address has a dot or a colon, whatever a reader cuts off around it; formats of WebRTC have neither.
    let is_part = |part: &&str| {
        part.bytes()
            .all(|byte| byte != b'.' && (is_token(byte) || byte == b'/'))
    };
    let mut parts: Vec<_> = value.split_whitespace().filter(is_part).collect();
    if let Some(port) = parts.get_mut(1).filter(|port| **port != "0") {
        *port = "9";
    }
    parts.join(" ")
}

/// The unspecified address of the family that is in `value`.
fn nowhere(value: &str) -> &'static str {
    if value.contains(':') || value.contains("IP6") {
        "IN IP6 ::"
    } else {
        "IN IP4 0.0.0.0"
    }
}

/// An empty string ends the candidates of a generation and stays.
fn end_or_relayed(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return Some(String::new());
    }
    relayed(text.strip_prefix("a=").unwrap_or(text))
}

/// `candidate:<foundation> <component> <transport> <priority> <address> <port> typ <type>`, then
/// pairs of names and values (RFC 8839, 5.1). Readers differ in where they look for the names, so
/// one of an address counts wherever it stands.
fn relayed(candidate: &str) -> Option<String> {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if !candidate.bytes().all(plain) {
        return None;
    }
    without_candidate(candidate.strip_prefix("candidate:")?)?;
    let tokens: Vec<&str> = candidate.split_whitespace().collect();
    let (head, extensions) = tokens.split_at_checked(8)?;
    if !head[6].eq_ignore_ascii_case("typ") || !head[7].eq_ignore_ascii_case("relay") {
        return None;
    }
    // A reader that looks for the names anywhere would find them here first.
    let is_name = |word: &&str| {
        ["typ", "raddr", "rport"]
            .iter()
            .any(|n| word.eq_ignore_ascii_case(n))
    };
    if head[..6].iter().any(is_name) {
        return None;
    }
    let unspecified = if head[4].contains(':') {
        "::"
    } else {
        "0.0.0.0"
    };
    let mut out = head.join(" ");
    let mut before = "";
    for token in extensions {
        out.push(' ');
        out.push_str(match before.to_ascii_lowercase().as_str() {
            "raddr" => unspecified,
            "rport" => "0",
            _ => token,
        });
        if token.eq_ignore_ascii_case("typ") {
            return None;
        }
        before = token;
    }
    Some(out)
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, Unreadable> {
    serde_json::from_str(raw.get()).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests;
