//! What the fuzz target of the splice runs: a client's frame becomes a relayed one.

use super::{ConnId, Event, Hub, Input, Now, Settings};
use crate::auth::credential::{IceIssuer, TurnSecrets};
use crate::protocol::{DialectKind, MAX_DEPTH, parse, write_frame};
use crate::signal::hub::Effect;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Names of the contract that no client writes into a relayed frame, but for the stamps.
const OWNED: [&str; 17] = [
    "id",
    "token",
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
    "target",
    "targetId",
];
const KINDS: [&str; 12] = [
    "offer",
    "answer",
    "candidate",
    "hangup",
    "message",
    "publish",
    "subscribe",
    "call",
    "accept",
    "reject",
    "mute",
    "unmute",
];

/// The fields of an object in their order, those with one name included.
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = vec![];
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Sends `bytes` as a frame of a member of a room that is also in a call, and judges every frame
/// that reaches the others by a JSON parser and by a decoder that ignores case.
///
/// # Panics
/// If a client's field stands where the server's belongs, a kept field has changed, or the frame
/// nests too deep.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // What is not a message reaches nobody, whatever the call's id is.
    if parse(&text.replace("CALLID", &"A".repeat(22))).is_err() {
        return;
    }
    let ice = IceIssuer {
        stun_urls: vec![],
        turn_urls: vec![],
        secrets: TurnSecrets::new(vec!["s".into()]).expect("there is one"),
        ttl: Duration::from_secs(60),
    };
    let mut hub = Hub::new(Settings::default(), ice, [7; 32]);
    for conn in 0..2 {
        let client = IpAddr::from(Ipv4Addr::LOCALHOST);
        let conn = ConnId(conn);
        let dialect = DialectKind::Native;
        let connected = Input::Connected {
            conn,
            client,
            dialect,
            lobby: None,
        };
        said(&mut hub, connected);
        say(
            &mut hub,
            conn.0,
            r#"{"type":"join","roomId":"r","identity":"x"}"#,
        );
    }
    let calling = say(&mut hub, 0, r#"{"type":"call","to":"x"}"#);
    let call = calling
        .iter()
        .find_map(|(_, frame)| frame.split_once(r#""callId":""#))
        .and_then(|(_, rest)| rest.get(..22))
        .expect("the call rings")
        .to_owned();
    // The call's id is not guessed by chance.
    let text = text.replace("CALLID", &call);
    for (to, frame) in say(&mut hub, 0, &text)
        .into_iter()
        .filter(|(to, _)| *to != 0)
    {
        assert_eq!(to, 1);
        judge(&text, &frame);
    }
    for (_, frame) in say(&mut hub, 1, &text)
        .into_iter()
        .filter(|(to, _)| *to == 0)
    {
        judge(&text, &frame);
    }
}

fn judge(sent: &str, frame: &str) {
    let Object(got) = serde_json::from_str(frame).expect("a frame is JSON");
    let folded_names: Vec<String> = got.iter().map(|(name, _)| folded(name)).collect();
    let value = |name: &str| {
        let mut alike = got
            .iter()
            .zip(&folded_names)
            .filter(|(_, other)| **other == folded(name));
        let first = alike
            .next()
            .map(|((other, raw), _)| (other.as_str(), raw.get()));
        assert!(alike.next().is_none(), "{name} stands twice: {frame}");
        first
    };
    let kind = value("type")
        .expect("a frame has a type")
        .1
        .trim_matches('"');
    if !KINDS.contains(&kind) {
        return;
    }
    for name in OWNED {
        assert_eq!(value(name), None, "{frame}");
    }
    let stamps = [
        "seq",
        "type",
        "from",
        "fromIdentity",
        "roomId",
        "callId",
        "ts",
    ];
    for (name, _) in stamps.iter().filter_map(|stamp| value(stamp)) {
        assert!(stamps.contains(&name), "{name} for a stamp: {frame}");
    }
    let names: Vec<_> = got.iter().map(|(name, _)| name.as_str()).collect();
    let from_server = value("from").is_none();
    assert!(names.starts_with(&["seq", "type"]));
    if from_server {
        return;
    }
    let (head, tail) = names.split_at(names.len() - 4);
    assert_eq!((tail[0], tail[1], tail[3]), ("from", "fromIdentity", "ts"));
    assert!(matches!(tail[2], "roomId" | "callId"));

    let Object(had) = serde_json::from_str(sent).expect("what was relayed is JSON");
    for (name, raw) in &got[2..head.len()] {
        let same =
            |(other, sent): &(String, Box<RawValue>)| other == name && sent.get() == raw.get();
        let cancelled = name == "reason" && raw.get() == "\"cancelled\"";
        assert!(cancelled || had.iter().any(same), "{name} changed: {frame}");
    }
    assert!(deepest(frame) <= MAX_DEPTH, "{frame}");
}

/// Case taken away by a longer way than the one under test, but for names in ASCII, of which that
/// way makes the same.
fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

/// By the parser, level by level.
fn deepest(json: &str) -> usize {
    let inner = |json: &str| -> Option<Vec<Box<RawValue>>> {
        if let Ok(Object(fields)) = serde_json::from_str(json) {
            return Some(fields.into_iter().map(|(_, raw)| raw).collect());
        }
        serde_json::from_str(json).ok()
    };
    let mut level = inner(json).unwrap_or_default();
    let mut depth = 1;
    while !level.is_empty() {
        let below: Vec<_> = level.iter().map(|raw| inner(raw.get())).collect();
        depth += usize::from(below.iter().any(Option::is_some));
        level = below.into_iter().flatten().flatten().collect();
    }
    depth
}

fn say(hub: &mut Hub, conn: u64, text: &str) -> Vec<(u64, String)> {
    let message = parse(text);
    let (conn, grant) = (ConnId(conn), None);
    said(
        hub,
        Input::Frame {
            conn,
            message,
            grant,
        },
    )
}

fn said(hub: &mut Hub, input: Input) -> Vec<(u64, String)> {
    let now = Now {
        instant: Instant::now(),
        unix_ms: 1_700_000_000_000,
    };
    let mut effects = vec![];
    hub.handle(now, input, &mut effects);
    let text = |seq, body| {
        let mut out = vec![];
        write_frame(&mut out, seq, body);
        String::from_utf8(out).expect("a frame is UTF-8")
    };
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send {
                conn,
                seq,
                event: Event::Native(body),
                ..
            } => Some((conn.0, text(*seq, body))),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn regressions_stay_fixed() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/splice");
        let mut inputs = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0);
    }

    proptest! {
        #[test]
        fn no_name_in_any_case_or_escape_takes_the_place_of_a_stamp(
            kind in prop::sample::select(KINDS.as_slice()),
            fields in prop::collection::vec((name(), "[0-9]|null|\"x\"|\\{\"From\":1\\}|\\[\\[\\]\\]"), 0..8),
        ) {
            let mut text = format!(r#"{{"sdp":"v","content":1,"tracks":1,"kind":"audio","to":null,"candidate":null,"type":"{kind}""#);
            for (name, value) in fields {
                text += &format!(",\"{name}\":{value}");
            }
            fuzz((text + "}").as_bytes());
        }
    }

    /// A name of the contract with some letters in another case, or escaped.
    fn name() -> impl Strategy<Value = String> {
        let names: Vec<&str> = OWNED[..15]
            .iter()
            .copied()
            .chain([
                "type",
                "seq",
                "from",
                "fromIdentity",
                "roomId",
                "ts",
                "reason",
                "content",
                "x",
            ])
            .collect();
        let letter = |(c, how): (char, u8)| match (how, c) {
            (0, c) => c.to_ascii_uppercase().to_string(),
            (1, 's' | 'S') => "ſ".into(),
            (1, 'k' | 'K') => "\u{212a}".into(),
            (2, c) => format!("\\u{:04x}", c as u32),
            (3, c) => format!("\\u{:04X}", c.to_ascii_uppercase() as u32),
            (_, c) => c.to_string(),
        };
        (
            prop::sample::select(names),
            prop::collection::vec(0_u8..8, 20),
        )
            .prop_map(move |(name, how)| name.chars().zip(how).map(letter).collect())
    }
}
