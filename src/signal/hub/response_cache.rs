//! What was answered to the last requests, so that one sent twice takes effect once.

use crate::protocol::{Body, MessageType, Resumption};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Requests remembered, as the protocol promises.
const REMEMBERED: usize = 64;
/// Longest reply kept as text, bytes. Longer ones (lists, credentials) can be made anew, and
/// keeping them would be most of what an idle session costs.
const KEPT_TEXT: usize = 256;

/// The answer to a request seen before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Remembered {
    /// A plain `ack`.
    Ack,
    /// An error's text, true for ever.
    Error(Body),
    /// This very text, as long as its session lasts.
    Short(Body, About),
    /// A long reply, to be made anew.
    Regenerate(About),
}

/// What a reply told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The type of the request.
    pub(super) kind: MessageType,
    /// The session it was made in, as the connection counts them.
    pub(super) session: u32,
    /// What a `resumed` said of the ring.
    pub(super) resumption: Option<Resumption>,
}

/// Answers by the hash of the request's `id`. A client that finds a collision only fools itself.
#[derive(Debug, Default)]
pub(super) struct ResponseCache(VecDeque<(u64, Remembered)>);

impl ResponseCache {
    pub(super) fn get(&self, id: &str) -> Option<&Remembered> {
        let hash = hash(id);
        self.0
            .iter()
            .find(|(other, _)| *other == hash)
            .map(|(_, reply)| reply)
    }

    pub(super) fn ack(&mut self, id: &str) {
        self.push(id, Remembered::Ack);
    }

    /// Remembers an error, whatever its length: nothing else could be made of it again.
    pub(super) fn error(&mut self, id: &str, body: &Body) {
        self.push(id, Remembered::Error(body.clone()));
    }

    pub(super) fn text(&mut self, id: &str, body: &Body, about: About) {
        // Another invitation would be a second effect.
        let reply = if body.len() <= KEPT_TEXT || about.kind == MessageType::Invite {
            Remembered::Short(body.clone(), about)
        } else {
            Remembered::Regenerate(about)
        };
        self.push(id, reply);
    }

    /// What is remembered, the oldest first.
    pub(super) fn entries(&self) -> Vec<(u64, Remembered)> {
        self.0.iter().cloned().collect()
    }

    /// Remembers what another process did; `None` where that is more than is ever remembered.
    pub(super) fn from_entries(entries: Vec<(u64, Remembered)>) -> Option<Self> {
        (entries.len() <= REMEMBERED).then(|| Self(entries.into()))
    }

    fn push(&mut self, id: &str, reply: Remembered) {
        let hash = hash(id);
        self.0.retain(|(other, _)| *other != hash);
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((hash, reply));
    }
}

/// FNV-1a: the same in every build, as a successor of this process looks up what is remembered here.
fn hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FrameType;

    #[test]
    fn the_last_64_are_remembered() {
        let mut responses = ResponseCache::default();
        for n in 0..65 {
            responses.ack(&n.to_string());
        }
        assert_eq!(responses.get("0"), None);
        assert_eq!(responses.get("1"), Some(&Remembered::Ack));
        assert_eq!(responses.get("64"), Some(&Remembered::Ack));
    }

    #[test]
    fn the_hash_is_the_same_in_every_build() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn long_texts_are_not_kept() {
        let mut responses = ResponseCache::default();
        let body = |text| Body::from_object(FrameType::Pong, text);
        let short = body(format!("{{\"a\":\"{}\"}}", "x".repeat(100)));
        let long = body(format!("{{\"a\":\"{}\"}}", "x".repeat(KEPT_TEXT)));
        let about = About {
            kind: MessageType::Join,
            session: 1,
            resumption: None,
        };
        responses.text("s", &short, about);
        responses.text("l", &long, about);
        responses.error("e", &long);
        assert_eq!(responses.get("s"), Some(&Remembered::Short(short, about)));
        assert_eq!(responses.get("l"), Some(&Remembered::Regenerate(about)));
        assert_eq!(responses.get("e"), Some(&Remembered::Error(long)));
    }
}
