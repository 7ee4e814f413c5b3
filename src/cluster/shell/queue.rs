//! What waits between signaling and the task of the node, counted in bytes.
//!
//! Signaling speaks under the lock of the hub and never waits. So each node has a bound: what exceeds
//! it is dropped, and the link to that node is reset, by which everybody at its other end learns that
//! something is lost.

use super::lock;
use crate::signal::Word;
use std::collections::HashMap;
use std::sync::Mutex;

/// Bytes for one node that wait for the task at most.
pub(super) const MOST: usize = 8 << 20;
/// Bytes above which clients are read less.
const LIGHT: usize = 1 << 20;
/// What a word takes beside its texts.
const WORD: usize = 128;

/// The queues by node; no more than nodes to which something waits.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<u64, Queue>>);

#[derive(Debug, Default)]
struct Queue {
    bytes: usize,
    is_full: bool,
}

/// What becomes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It waits, and takes so many bytes.
    Waits(usize),
    /// It is the first that has no room: the link has to be reset.
    Overflows,
    /// The link is about to be reset.
    Dropped,
}

impl Queues {
    /// Makes room for a word.
    pub(super) fn put(&self, node: u64, word: &Word) -> Put {
        let bytes = bytes_of(word);
        let mut queues = lock(&self.0);
        let queue = queues.entry(node).or_default();
        if queue.is_full {
            return Put::Dropped;
        }
        if queue.bytes + bytes > MOST {
            queue.is_full = true;
            return Put::Overflows;
        }
        queue.bytes += bytes;
        Put::Waits(bytes)
    }

    /// A word does not wait any more.
    pub(super) fn taken(&self, node: u64, bytes: usize) {
        self.change(node, |queue| {
            queue.bytes = queue.bytes.saturating_sub(bytes)
        });
    }

    /// The link is reset from here on.
    pub(super) fn reset(&self, node: u64) {
        self.change(node, |queue| queue.is_full = false);
    }

    fn change(&self, node: u64, change: impl FnOnce(&mut Queue)) {
        let mut queues = lock(&self.0);
        if let Some(queue) = queues.get_mut(&node) {
            change(queue);
            if queue.bytes == 0 && !queue.is_full {
                queues.remove(&node);
            }
        }
    }

    /// Whether so little waits that more may be said.
    pub(super) fn is_light(&self, node: u64) -> bool {
        let queues = lock(&self.0);
        queues
            .get(&node)
            .is_none_or(|queue| queue.bytes <= LIGHT && !queue.is_full)
    }

    /// All bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.0).values().map(|queue| queue.bytes).sum()
    }
}

fn bytes_of(word: &Word) -> usize {
    let frame = |frame: &crate::signal::Frame| {
        let parts = [&frame.room, &frame.grant];
        frame.text.len() + parts.into_iter().flatten().map(String::len).sum::<usize>()
    };
    WORD + match word {
        Word::Enter { frame: of, .. } | Word::Frame { frame: of, .. } => frame(of),
        Word::Send { text, to, .. } => text.len() + size_of_val(&**to),
        Word::Published { publication, .. } => publication.cost(),
        Word::Ask { question: text, .. }
        | Word::Answer { answer: text, .. }
        | Word::Event { text, .. } => text.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: usize) -> Word {
        Word::Answer {
            id: 0,
            answer: "x".repeat(bytes),
        }
    }

    #[test]
    fn what_waits_for_a_node_is_bounded_and_its_overflow_is_said_once() {
        let queues = Queues::default();
        let big = word((1 << 20) - WORD);
        for _ in 0..8 {
            assert_eq!(queues.put(1, &big), Put::Waits(1 << 20));
        }
        assert!(!queues.is_light(1) && queues.is_light(2));
        assert_eq!(queues.put(1, &Word::Settled), Put::Overflows);
        queues.taken(1, 1 << 20);
        // In order or not at all: nothing slips through before the reset.
        assert_eq!(queues.put(1, &Word::Settled), Put::Dropped);
        assert_eq!(queues.put(2, &Word::Settled), Put::Waits(WORD));
        assert_eq!(queues.bytes(), (7 << 20) + WORD);
        queues.reset(1);
        assert_eq!(queues.put(1, &Word::Settled), Put::Waits(WORD));
        for (node, bytes) in [(1, 7 << 20), (1, WORD), (2, WORD)] {
            queues.taken(node, bytes);
        }
        assert!(lock(&queues.0).is_empty());
    }
}
