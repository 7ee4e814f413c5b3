//! What the fuzz target of relay-only rooms runs: readers that are as lenient as any, which look for
//! addresses in what the filters let through.

use super::{beside, candidate, description};
use serde_json::Value;
use serde_json::value::RawValue;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Filters `bytes` as a description, as a candidate and as the rest of a message, and looks for
/// addresses in what is left.
///
/// # Panics
/// If an address of anything but a relayed candidate is left, what is left is not JSON, or filtering
/// once more changes it.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let quoted = Value::from(text).to_string();
    let in_object = |name: &str| format!(r#"{{"{name}":{quoted},"type":"offer"}}"#);
    for json in [text.to_owned(), quoted.clone(), in_object("sdp")] {
        let Ok(raw) = serde_json::from_str::<&RawValue>(&json) else {
            continue;
        };
        if let Ok(filtered) = description(raw) {
            judge(&filtered, Place::Description);
            let again = serde_json::from_str::<&RawValue>(&filtered).expect("it is JSON");
            assert_eq!(description(again).as_ref(), Ok(&filtered), "{json}");
        }
    }
    for json in [text, &quoted, &in_object("candidate"), &in_object("sdp")] {
        let Ok(raw) = serde_json::from_str::<&RawValue>(json) else {
            continue;
        };
        if let Ok(Some(filtered)) = candidate(raw) {
            judge(&filtered, Place::Candidate);
            let again = serde_json::from_str::<&RawValue>(&filtered).expect("it is JSON");
            assert_eq!(candidate(again), Ok(Some(filtered)), "{json}");
        }
    }
    if let Ok(filtered) = beside(text) {
        let object = format!("{{{}}}", filtered.strip_prefix(',').unwrap_or(&filtered));
        let fields: Value = serde_json::from_str(&object).expect("it is JSON");
        let known = [
            "to",
            "sdpMid",
            "sdpMLineIndex",
            "usernameFragment",
            "id",
            "label",
        ];
        let fields = fields.as_object().expect("it is an object");
        assert!(
            fields.keys().all(|name| known.contains(&&**name)),
            "{object}"
        );
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Description,
    Candidate,
}

/// Looks at every text of a JSON value.
fn judge(json: &str, place: Place) {
    fn texts(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::String(text) => out.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    // Labels name a section.
                    let is_label = ["sdpMid", "usernameFragment", "id", "type"].contains(&&**name);
                    if !is_label {
                        texts(value, out);
                    }
                }
            }
            _ => {}
        }
    }
    let value: Value = serde_json::from_str(json).expect("it is JSON");
    let mut found = vec![];
    texts(&value, &mut found);
    for text in found {
        match place {
            Place::Description => lines(&text).for_each(|line| judge_line(line, &text)),
            Place::Candidate if text.trim().is_empty() => {}
            Place::Candidate => judge_candidate(&text, &text),
        }
    }
}

/// The lines as the most lenient reader cuts them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// A line holds a relayed candidate, or no candidate and, where addresses stand, none of them.
fn judge_line(line: &str, whole: &str) {
    let lower = line.to_lowercase();
    if lower.contains("candidate:") {
        return judge_candidate(line, whole);
    }
    let is_place = ["o=", "c=", "a=rtcp:"]
        .iter()
        .any(|head| lower.starts_with(head));
    if is_place {
        let addresses = words(line).filter_map(address);
        for ip in addresses {
            assert!(ip.is_unspecified(), "{ip} in {whole:?}");
        }
    }
    if lower.starts_with("m=") {
        let port = words(line).nth(1);
        assert!(
            port.is_none_or(|port| matches!(port, "0" | "9")),
            "{whole:?}"
        );
        assert_eq!(words(line).find_map(address), None, "{whole:?}");
    }
    let forbidden = ["a=remote-candidates", "a=source-filter"];
    assert!(
        !forbidden.iter().any(|head| lower.starts_with(head)),
        "{whole:?}"
    );
}

/// Whatever order a reader takes the words in: one `typ`, which is `relay`, and every related
/// address unspecified.
fn judge_candidate(line: &str, whole: &str) {
    let words: Vec<String> = words(line).map(str::to_lowercase).collect();
    let after = |name: &str| -> Vec<&str> {
        let pairs = words.windows(2).filter(|pair| pair[0] == name);
        pairs.map(|pair| pair[1].as_str()).collect()
    };
    let starts = line.to_lowercase().matches("candidate:").count();
    assert_eq!(starts, 1, "one candidate a line: {whole:?}");
    assert_eq!(after("typ"), ["relay"], "{whole:?}");
    for related in after("raddr") {
        let ip = address(related).expect("a related address is an address");
        assert!(ip.is_unspecified(), "{related} in {whole:?}");
    }
    for port in after("rport") {
        assert_eq!(port, "0", "{whole:?}");
    }
    // Between the connection address and the extensions there is room for no other.
    let head = words.iter().take_while(|word| *word != "typ").count();
    assert_eq!(head, 6, "{whole:?}");
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(char::is_whitespace)
        .filter(|word| !word.is_empty())
}

/// An address in the forms that readers know, a prefix length aside.
fn address(word: &str) -> Option<IpAddr> {
    let word = word.trim_matches(['[', ']']);
    let word = word.split(['/', '%']).next().unwrap_or_default();
    let v4 = word.parse::<Ipv4Addr>().map(IpAddr::from);
    v4.or_else(|_| word.parse::<Ipv6Addr>().map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn regressions_stay_fixed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/sdp");
        let mut inputs = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0);
    }

    /// The oracle has to find what it looks for.
    #[test]
    fn an_address_that_is_left_is_found() {
        let found = |json: &str, place| std::panic::catch_unwind(|| judge(json, place)).is_err();
        for line in [
            "c=IN IP4 203.0.113.7",
            "o=- 1 1 IN IP6 2001:db8::7",
            "a=rtcp:9 IN IP4 203.0.113.7",
            "m=audio 54609 RTP 0",
            "m=audio 9 RTP 0 203.0.113.7",
            "a=remote-candidates:1 203.0.113.7 5000",
            "a=candidate:1 1 udp 1 203.0.113.7 5000 typ host",
            "s=x\\u2028a=candidate:1 1 udp 1 203.0.113.7 5000 typ srflx",
            "a=candidate:1 1 udp 1 198.51.100.9 5000 typ relay raddr 203.0.113.7 rport 0",
        ] {
            let json = format!("\"v=0\\r\\n{line}\\r\\n\"");
            assert!(found(&json, Place::Description), "{line}");
        }
        let good = "candidate:1 1 udp 1 198.51.100.9 5000 typ relay raddr 0.0.0.0 rport 0";
        assert!(!found(&format!("\"{good}\""), Place::Candidate));
        let nested = format!(
            "{{\"candidate\":{{\"sdp\":\"{}\"}}}}",
            good.replace("relay", "host")
        );
        assert!(found(&nested, Place::Candidate));
    }

    proptest! {
        #[test]
        fn no_address_is_left_of_lines_put_together_from_what_readers_know(
            pieces in prop::collection::vec(prop::sample::select(PIECES.as_slice()), 0..30),
        ) {
            fuzz(pieces.concat().as_bytes());
        }
    }

    const PIECES: [&str; 32] = [
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "\u{2028}",
        "\u{85}",
        "a=",
        "A=",
        "c=IN IP4 ",
        "o=- 1 1 IN IP4 ",
        "m=audio 5000 RTP/AVP 0",
        "a=rtcp:5000 IN IP4 ",
        "203.0.113.7",
        "2001:db8::7",
        "candidate:",
        "1 1 udp 1 ",
        " 5000 typ ",
        "host",
        "relay",
        "srflx",
        " raddr ",
        " rport 5000",
        " generation 0",
        "a=remote-candidates:1 ",
        "a=source-filter: incl IN IP4 * ",
        "typ",
        "a=mid:0",
        "x",
        "\"",
        ",\"to\":1",
        "a=candidate:1 1 udp 1 198.51.100.9 5000 typ relay",
    ];
}
