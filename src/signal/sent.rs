//! Counts frames by type on their way out.

use crate::protocol::Body;

/// Every type that a client may receive; the last one stands for what is not in the list.
const TYPES: [&str; 32] = [
    "ack",
    "candidate",
    "message",
    "offer",
    "answer",
    "peer-state",
    "peer-joined",
    "peer-left",
    "pong",
    "error",
    "ice-servers",
    "welcome",
    "joined",
    "registered",
    "resumed",
    "left",
    "call",
    "calling",
    "accept",
    "reject",
    "hangup",
    "publish",
    "subscribe",
    "mute",
    "unmute",
    "peers",
    "rooms",
    "room-updated",
    "notify",
    "kicked",
    "draining",
    "other",
];

/// Frames handed to connections since the start.
#[derive(Debug, Clone, Default)]
pub struct SentByType([u64; TYPES.len()]);

impl SentByType {
    pub(super) fn count(&mut self, body: &Body) {
        // Bodies begin with their type, whoever made them.
        let kind = body
            .as_str()
            .strip_prefix("{\"type\":\"")
            .and_then(|rest| rest.split('"').next());
        let index = TYPES.iter().position(|known| Some(*known) == kind);
        self.0[index.unwrap_or(TYPES.len() - 1)] += 1;
    }

    /// Every type with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TYPES.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_read_off_the_front() {
        let mut sent = SentByType::default();
        for text in [
            "{\"type\":\"left\"}",
            "{\"type\":\"offer\",\"sdp\":\"\"}",
            "{\"x\":1}",
        ] {
            sent.count(&Body::from_object(text.into()));
        }
        let counted: Vec<_> = sent.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("offer", 1), ("left", 1), ("other", 1)]);
    }
}
