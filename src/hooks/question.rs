//! What `hooks.authorize` is asked, what it may answer, and answers kept for a while.
//!
//! Pure: time is an argument.

use crate::auth::{MAX_METADATA, MAX_METADATA_DEPTH, Role, is_too_deep};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longest reason that reaches a client, bytes. The rest is cut off.
const MAX_REASON: usize = 256;
/// The longest time for which an answer is kept.
const LONGEST_KEPT: Duration = Duration::from_secs(3600);
/// Answers that are kept at most. The answer that ends first makes room.
const MAX_KEPT: usize = 10_000;

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Enter a room that exists.
    Join,
    /// Enter a room that does not exist yet.
    Create,
    /// Take a name without a room.
    Register,
    /// Ring an identity or a peer.
    Call,
}

/// One question, as the backend reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// What the client wants to do.
    pub action: Action,
    /// The name of the client: from its token, or its own choice in open mode.
    pub identity: Option<String>,
    /// The session's peer id.
    pub peer_id: String,
    /// The room, for `join` and `create`, and for a `call` out of a room.
    pub room: Option<String>,
    /// Whom a `call` rings.
    pub to: Option<String>,
    /// The claims of the verified token; `null` without one.
    pub claims: Value,
    /// The client's address.
    pub ip: Option<IpAddr>,
}

impl Question {
    /// The JSON body of the POST.
    pub fn body(&self) -> String {
        serde_json::to_string(self).expect("a question is plain data")
    }

    /// Equal for questions that differ in the peer id alone: a client that comes back has a new one.
    fn key(&self) -> Key {
        let anonymous = Self {
            peer_id: String::new(),
            ..self.clone()
        };
        Sha256::digest(anonymous.body()).into()
    }
}

/// What the backend answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether the client may go on.
    pub allow: bool,
    /// The role in the room, in place of the token's.
    pub role: Option<Role>,
    /// The metadata of the session, in place of the token's and the client's.
    pub metadata: Option<Value>,
    /// Why not: the client reads it in the `forbidden` error.
    pub reason: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    allow: bool,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    reason: Option<String>,
}

impl Answer {
    /// Reads the body of a 200.
    ///
    /// # Errors
    /// What is wrong with the body, for the operator's log.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(body)
            .map_err(|e| format!("the answer is not {{allow, role?, metadata?, reason?}}: {e}"))?;
        if let Some(metadata) = &wire.metadata
            && metadata.to_string().len() > MAX_METADATA
        {
            return Err(format!(
                "the answer's metadata is over {MAX_METADATA} bytes"
            ));
        }
        if wire.metadata.as_ref().is_some_and(is_too_deep) {
            return Err(format!(
                "the answer's metadata nests deeper than {MAX_METADATA_DEPTH} levels"
            ));
        }
        let reason = wire.reason.map(|text| {
            let text: String = text.chars().filter(|c| !c.is_control()).collect();
            text[..text.floor_char_boundary(MAX_REASON)].to_owned()
        });
        Ok(Self {
            allow: wire.allow,
            role: wire.role,
            metadata: wire.metadata,
            reason,
        })
    }
}

/// The time for which `Cache-Control` lets an answer be kept: `max-age` without `no-store` and
/// `no-cache` (RFC 9111 section 5.2.2).
pub fn kept_for(cache_control: &str) -> Option<Duration> {
    let mut age = None;
    for directive in cache_control.split(',') {
        let directive = directive.trim().to_ascii_lowercase();
        match directive.split_once('=') {
            None if directive == "no-store" || directive == "no-cache" => return None,
            Some(("max-age", seconds)) => age = seconds.trim_matches('"').parse().ok(),
            _ => {}
        }
    }
    let age = Duration::from_secs(age.filter(|seconds| *seconds > 0)?);
    Some(age.min(LONGEST_KEPT))
}

type Key = [u8; 32];

/// Answers that may be used again.
#[derive(Debug, Default)]
pub struct Kept {
    answers: HashMap<Key, (Instant, Answer)>,
    by_end: BTreeSet<(Instant, Key)>,
}

impl Kept {
    /// The answer to the same question, if it is still good.
    pub fn get(&mut self, now: Instant, question: &Question) -> Option<Answer> {
        while let Some(&(end, key)) = self.by_end.first()
            && end <= now
        {
            self.by_end.pop_first();
            self.answers.remove(&key);
        }
        self.answers
            .get(&question.key())
            .map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer for `time`.
    pub fn put(&mut self, now: Instant, question: &Question, answer: Answer, time: Duration) {
        let (key, end) = (question.key(), now + time);
        if let Some((old, _)) = self.answers.insert(key, (end, answer)) {
            self.by_end.remove(&(old, key));
        }
        self.by_end.insert((end, key));
        if self.by_end.len() > MAX_KEPT
            && let Some((_, key)) = self.by_end.pop_first()
        {
            self.answers.remove(&key);
        }
    }

    /// Forgets every answer: the configuration has changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(room: &str) -> Question {
        Question {
            action: Action::Join,
            identity: Some("ann".into()),
            peer_id: "p1".into(),
            room: Some(room.into()),
            to: None,
            claims: json!({"sub": "ann"}),
            ip: Some(IpAddr::from([127, 0, 0, 1])),
        }
    }

    fn yes() -> Answer {
        Answer::parse(br#"{"allow":true}"#).unwrap()
    }

    #[test]
    fn a_question_has_the_fields_of_the_contract() {
        let body: Value = serde_json::from_str(&question("r").body()).unwrap();
        let expected = json!({"action": "join", "identity": "ann", "peerId": "p1", "room": "r",
            "to": null, "claims": {"sub": "ann"}, "ip": "127.0.0.1"});
        assert_eq!(body, expected);
    }

    #[test]
    fn answers_are_read_and_nonsense_is_refused() {
        let text = br#"{"allow":true,"role":"viewer","metadata":{"a":1},"more":2}"#;
        let answer = Answer::parse(text).unwrap();
        assert_eq!((answer.allow, answer.role), (true, Some(Role::Viewer)));
        assert_eq!(answer.metadata, Some(json!({"a": 1})));
        let long = json!({"allow": false, "reason": "é\n".repeat(500)}).to_string();
        let reason = Answer::parse(long.as_bytes()).unwrap().reason.unwrap();
        assert_eq!(reason.len(), 256);
        assert!(!reason.contains('\n'));
        let big = json!({"allow": true, "metadata": "x".repeat(MAX_METADATA)}).to_string();
        let deep = (1..MAX_METADATA_DEPTH + 1).fold(json!([]), |inner, _| json!([inner]));
        let deep = json!({"allow": true, "metadata": deep}).to_string();
        for nonsense in [
            "",
            "true",
            "{}",
            r#"{"allow":"yes"}"#,
            r#"{"allow":true,"role":"king"}"#,
            &big,
            &deep,
        ] {
            assert!(
                Answer::parse(nonsense.as_bytes()).is_err(),
                "{nonsense:.40}"
            );
        }
    }

    #[test]
    fn cache_control_says_how_long_an_answer_is_kept() {
        let seconds = |text| kept_for(text).map(|kept| kept.as_secs());
        assert_eq!(seconds("private, max-age=60"), Some(60));
        assert_eq!(seconds("max-age=999999"), Some(3600));
        for none in [
            "",
            "max-age=0",
            "max-age=60, no-store",
            "no-cache, max-age=9",
            "max-age=-1",
        ] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }

    #[test]
    fn an_answer_is_kept_for_the_same_question_of_another_session_and_ends() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        kept.put(now, &question("r"), yes(), Duration::from_secs(10));
        let again = Question {
            peer_id: "p2".into(),
            ..question("r")
        };
        assert_eq!(kept.get(now, &again), Some(yes()));
        assert_eq!(kept.get(now, &question("s")), None);
        let other_ip = Question {
            ip: Some(IpAddr::from([127, 0, 0, 2])),
            ..question("r")
        };
        assert_eq!(kept.get(now, &other_ip), None);
        assert_eq!(kept.get(now + Duration::from_secs(10), &again), None);
        assert!(kept.answers.is_empty() && kept.by_end.is_empty());
    }

    #[test]
    fn kept_answers_are_bounded() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        for n in 0..MAX_KEPT + 100 {
            let time = Duration::from_secs(10 + n as u64);
            kept.put(now, &question(&n.to_string()), yes(), time);
        }
        assert_eq!(
            (kept.answers.len(), kept.by_end.len()),
            (MAX_KEPT, MAX_KEPT)
        );
        assert_eq!(kept.get(now, &question("0")), None);
    }
}
