//! The frames of one session that its client may not have: numbered, bounded, replayed on resume.

use crate::protocol::Body;
use std::collections::VecDeque;

/// Frames kept at most, whatever their size: bounds the time a replay takes.
const MAX_FRAMES: usize = 1024;
/// What a kept frame costs beside its text, bytes: the entry and the reference counts.
const FRAME_OVERHEAD: usize = 32;

/// Numbers and keeps frames. Number 1 is `joined` or `registered`: who lacks that one lacks the
/// token to resume with, so it is never kept and counting begins at 2.
#[derive(Debug)]
pub(super) struct Ring {
    frames: VecDeque<Body>,
    bytes: usize,
    next: u64,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            next: 2,
        }
    }

    /// Keeps `body` and returns its number. Drops the oldest frames while this ring exceeds
    /// `limit` bytes or all rings (of which `total` is the sum) exceed `total_limit`.
    pub(super) fn push(
        &mut self,
        body: Body,
        limit: usize,
        total: &mut usize,
        total_limit: usize,
    ) -> u64 {
        self.bytes += cost(&body);
        *total += cost(&body);
        self.frames.push_back(body);
        while self.bytes > limit || *total > total_limit || self.frames.len() > MAX_FRAMES {
            let Some(dropped) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= cost(&dropped);
            *total -= cost(&dropped);
        }
        self.next += 1;
        self.next - 1
    }

    /// Forgets everything up to `seq`. A number that was never sent is of the session before this
    /// one, confirmed while this one began, and says nothing.
    pub(super) fn confirm(&mut self, seq: u64, total: &mut usize) {
        if seq >= self.next {
            return;
        }
        let kept = (self.next - 1 - seq) as usize;
        for body in self.frames.drain(..self.frames.len().saturating_sub(kept)) {
            self.bytes -= cost(&body);
            *total -= cost(&body);
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// The frames after `seq` with their numbers, and whether some are missing before them;
    /// `None` if `seq` was never sent.
    pub(super) fn since(&self, seq: u64) -> Option<(Vec<(u64, Body)>, bool)> {
        if seq >= self.next {
            return None;
        }
        let wanted = seq.max(1) + 1;
        let oldest = self.oldest();
        let frames = (oldest..)
            .zip(self.frames.iter().cloned())
            .filter(|(seq, _)| *seq >= wanted)
            .collect();
        Some((frames, wanted < oldest))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn oldest(&self) -> u64 {
        self.next - self.frames.len() as u64
    }
}

fn cost(body: &Body) -> usize {
    body.len() + FRAME_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FrameType;

    fn body(n: u64) -> Body {
        Body::from_object(FrameType::Message, format!("{{\"n\":{n}}}"))
    }

    fn seqs(ring: &Ring, seq: u64) -> (Vec<u64>, bool) {
        let (frames, gap) = ring.since(seq).unwrap();
        (frames.iter().map(|(seq, _)| *seq).collect(), gap)
    }

    #[test]
    fn replays_what_was_not_confirmed() {
        let (mut ring, mut total) = (Ring::new(), 0);
        for n in 2..=6 {
            assert_eq!(ring.push(body(n), 1 << 20, &mut total, 1 << 20), n);
        }
        assert_eq!(seqs(&ring, 1), (vec![2, 3, 4, 5, 6], false));
        assert_eq!(seqs(&ring, 0), (vec![2, 3, 4, 5, 6], false));
        ring.confirm(3, &mut total);
        assert_eq!(seqs(&ring, 4), (vec![5, 6], false));
        assert_eq!(seqs(&ring, 2), (vec![4, 5, 6], true));
        assert_eq!(seqs(&ring, 6), (vec![], false));
        assert!(ring.since(7).is_none());
        ring.confirm(7, &mut total);
        assert_eq!(seqs(&ring, 4), (vec![5, 6], false));
        ring.confirm(6, &mut total);
        assert_eq!((ring.bytes(), total), (0, 0));
        assert_eq!(ring.push(body(7), 1 << 20, &mut total, 1 << 20), 7);
    }

    #[test]
    fn is_bounded_by_its_own_bytes_all_bytes_and_count() {
        let (mut ring, mut total) = (Ring::new(), 0);
        for n in 0..5000 {
            ring.push(body(n), usize::MAX, &mut total, usize::MAX);
        }
        assert_eq!(ring.frames.len(), MAX_FRAMES);
        assert_eq!(ring.bytes(), total);
        ring.push(body(0), 1000, &mut total, usize::MAX);
        assert!(ring.bytes() <= 1000);
        ring.push(body(0), 1000, &mut total, 100);
        assert!(total <= 100 && total > 0);
        ring.push(body(0), 10, &mut total, usize::MAX);
        assert_eq!((ring.bytes(), total), (0, 0));
        assert_eq!(ring.since(1).unwrap(), (vec![], true));
    }
}
