//! Keeps addresses out of session descriptions and candidates, for relay-only rooms.
//!
//! Line by line and on text: a parser would drop or reorder what it does not know, and browsers
//! differ in just that. What is unfamiliar stays, unless it is a line that carries candidates.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The text is no string that Rust can hold (lone surrogates), or nested where text belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Filters the value of `sdp`, a JSON string or an object with a string `sdp`; returns JSON.
///
/// # Errors
/// [`Unreadable`].
pub fn description(raw: &RawValue) -> Result<String, Unreadable> {
    #[derive(Deserialize, Serialize)]
    struct Description {
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        sdp: String,
    }
    if raw.get().starts_with('"') {
        let sdp: String = read(raw)?;
        Ok(Value::from(filter(&sdp)).to_string())
    } else {
        let mut description: Description = read(raw)?;
        description.sdp = filter(&description.sdp);
        serde_json::to_string(&description).map_err(|_| Unreadable)
    }
}

/// Filters the value of `candidate`: a JSON string, an object or `null`; returns JSON, or `None`
/// for a candidate to be kept back. Of an object only the fields of `RTCIceCandidateInit` stay.
///
/// # Errors
/// [`Unreadable`].
pub fn candidate(raw: &RawValue) -> Result<Option<String>, Unreadable> {
    let filtered = match read(raw)? {
        Value::String(text) => end_or_relayed(&text).map(Value::from),
        Value::Object(mut fields) => {
            fields.retain(|name, _| {
                matches!(
                    &**name,
                    "candidate" | "sdpMid" | "sdpMLineIndex" | "usernameFragment"
                )
            });
            match fields.get_mut("candidate") {
                Some(Value::String(text)) => match end_or_relayed(text) {
                    Some(filtered) => {
                        *text = filtered;
                        Some(Value::Object(fields))
                    }
                    None => None,
                },
                None | Some(Value::Null) => Some(Value::Object(fields)),
                Some(_) => return Err(Unreadable),
            }
        }
        other => Some(other),
    };
    Ok(filtered.map(|value| value.to_string()))
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
    let (kind, value) = line.split_once('=').unwrap_or((line, ""));
    match kind.trim() {
        "o" => Some(format!("o={}", origin(value)).into()),
        "c" => Some(format!("c={}", nowhere(value)).into()),
        "m" => Some(format!("m={}", media(value)).into()),
        "a" => attribute(line, value.trim()),
        _ => Some(line.into()),
    }
}

fn attribute<'a>(line: &'a str, value: &str) -> Option<Cow<'a, str>> {
    let (name, rest) = value.split_once(':').unwrap_or((value, ""));
    match name.trim().to_ascii_lowercase().as_str() {
        "candidate" => relayed(value).map(|candidate| format!("a={candidate}").into()),
        "remote-candidates" | "source-filter" => None,
        "rtcp" if rest.contains(' ') => Some(format!("a=rtcp:9 {}", nowhere(rest)).into()),
        "rtcp" => Some("a=rtcp:9".into()),
        _ => Some(line.into()),
    }
}

/// `<username> <sess-id> <sess-version> <nettype> <addrtype> <unicast-address>` (RFC 8866, 5.2).
fn origin(value: &str) -> String {
    match value.split_whitespace().collect::<Vec<_>>()[..] {
        [user, id, version, _, _, address] => format!("{user} {id} {version} {}", nowhere(address)),
        _ => format!("- 0 0 {}", nowhere(value)),
    }
}

/// `<media> <port>[/<count>] <proto> <fmt> …` (RFC 8866, 5.14). Port 0 means a rejected or
/// bundled section and stays; 9 (discard) is what trickling browsers write.
fn media(value: &str) -> String {
    let mut parts = value.splitn(3, ' ');
    let (kind, port) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let port = if port == "0" { "0" } else { "9" };
    match parts.next() {
        Some(rest) => format!("{kind} {port} {rest}"),
        None => format!("{kind} {port}"),
    }
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
/// pairs of names and values (RFC 8839, 5.1).
fn relayed(candidate: &str) -> Option<String> {
    if candidate.contains(['\r', '\n']) || !candidate.starts_with("candidate:") {
        return None;
    }
    let tokens: Vec<&str> = candidate.split_whitespace().collect();
    let (head, extensions) = tokens.split_at_checked(8)?;
    if !head[6].eq_ignore_ascii_case("typ") || !head[7].eq_ignore_ascii_case("relay") {
        return None;
    }
    let unspecified = if head[4].contains(':') {
        "::"
    } else {
        "0.0.0.0"
    };
    let mut out = head.join(" ");
    for pair in extensions.chunks(2) {
        let value = match pair[0].to_ascii_lowercase().as_str() {
            "raddr" => Some(unspecified),
            "rport" => Some("0"),
            "typ" => return None,
            _ => pair.get(1).copied(),
        };
        for token in [Some(pair[0]), value].into_iter().flatten() {
            out.push(' ');
            out.push_str(token);
        }
    }
    Some(out)
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, Unreadable> {
    serde_json::from_str(raw.get()).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests;
