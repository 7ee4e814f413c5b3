//! The frames of one session that its client may not have: numbered, bounded, replayed on resume.

use super::ring_shares::RingShare;
use crate::protocol::Body;
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames kept at most, whatever their size: bounds the time a replay takes.
const MAX_FRAMES: usize = 1024;
/// The highest next number that a snapshot may hold: what every JSON reader takes as it is.
const MAX_NEXT: u64 = 1 << 53;
/// Once all rings hold one part in so many of what they may, what one ring may keep shrinks with what is
/// left: who fills thousands of rings leaves the same to every other one.
const SCARCE: usize = 2;
/// What a kept frame costs beside its text, bytes: the entry and the reference counts.
const FRAME_OVERHEAD: usize = 32;

/// Numbers and keeps frames. Number 1 is `joined` or `registered`: who lacks that one lacks the
/// token to resume with, so it is never kept and counting begins at 2.
///
/// The ring of a session whose node has died is lost: it does not know its numbers, and goes on from
/// where its client says that it is. One number is left out for the frames that are lost, so that a
/// client which does not get the answer learns of them with the next one. What the ring has kept since
/// then comes next.
#[derive(Debug)]
pub(super) struct Ring {
    frames: VecDeque<Body>,
    bytes: usize,
    /// What its network holds, where networks have shares.
    share: Option<Arc<RingShare>>,
    /// The number of the next frame; [`LOST`] where that is not known.
    next: u64,
}

/// In place of the next number: the ring is lost.
const LOST: u64 = 0;

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            share: None,
            next: 2,
        }
    }

    /// Keeps `body` and returns its number. Drops the oldest frames while this ring exceeds
    /// `limit` bytes, or less where all rings (of which `total` is the sum) come near `total_limit`,
    /// which they never exceed, and while those of its network exceed their share.
    pub(super) fn push(
        &mut self,
        body: Body,
        limit: usize,
        total: &mut usize,
        total_limit: usize,
    ) -> u64 {
        self.bytes += cost(&body);
        *total += cost(&body);
        if let Some(share) = &self.share {
            share.add(cost(&body));
        }
        self.frames.push_back(body);
        while self.bytes > share(limit, *total, total_limit)
            || *total > total_limit
            || self.frames.len() > MAX_FRAMES
            || (self.share.as_ref()).is_some_and(|share| share.is_exceeded(total_limit))
        {
            let Some(dropped) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= cost(&dropped);
            *total -= cost(&dropped);
            if let Some(share) = &self.share {
                share.give_back(cost(&dropped));
            }
        }
        if self.next == LOST {
            return LOST;
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
            if let Some(share) = &self.share {
                share.give_back(cost(&body));
            }
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// Lets a lost ring go on behind the number that its client has.
    pub(super) fn find(&mut self, seq: u64) {
        if self.next == LOST {
            let last = (MAX_NEXT - 2).saturating_sub(self.frames.len() as u64);
            self.next = seq.clamp(1, last) + 2 + self.frames.len() as u64;
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

    /// The frames, and the number of the next one.
    pub(super) fn parts(&self) -> (impl Iterator<Item = &Body>, u64) {
        (self.frames.iter(), self.next)
    }

    /// Puts a ring together again; `None` where no ring ever had so many frames or such a number.
    pub(super) fn from_parts(frames: Vec<Body>, next: u64) -> Option<Self> {
        let is_lost = next == LOST && frames.len() <= MAX_FRAMES;
        let is_possible = is_lost
            || (2..=MAX_NEXT).contains(&next)
                && frames.len() <= MAX_FRAMES
                && frames.len() as u64 <= next - 2;
        is_possible.then(|| Self {
            bytes: frames.iter().map(cost).sum(),
            frames: frames.into(),
            share: None,
            next,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges what it holds to `share`, in place of another one.
    pub(super) fn charge_to(&mut self, share: Option<Arc<RingShare>>) {
        if let Some(before) = self.share.take() {
            before.give_back(self.bytes);
        }
        if let Some(share) = &share {
            share.add(self.bytes);
        }
        self.share = share;
    }

    fn oldest(&self) -> u64 {
        self.next - self.frames.len() as u64
    }
}

fn cost(body: &Body) -> usize {
    body.len() + FRAME_OVERHEAD
}

/// What one ring may keep of `limit` bytes while all of them hold `total`.
fn share(limit: usize, total: usize, total_limit: usize) -> usize {
    let free = total_limit.saturating_sub(total) as u128;
    let scarce = (total_limit / SCARCE).max(1) as u128;
    usize::try_from(limit as u128 * free / scarce).map_or(limit, |share| share.min(limit))
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

    #[test]
    fn who_fills_thousands_of_rings_leaves_a_share_to_others() {
        const LIMIT: usize = 64 << 10;
        const TOTAL: usize = 256 << 20;
        let mut total = 0;
        let text = "x".repeat(1000);
        let large = || Body::from_object(FrameType::Message, format!("{{\"x\":\"{text}\"}}"));
        let mut rings: Vec<Ring> = (0..4_000).map(|_| Ring::new()).collect();
        // Each has as much sent as it may keep.
        for ring in &mut rings {
            for _ in 0..64 {
                ring.push(large(), LIMIT, &mut total, TOTAL);
            }
        }
        assert!(total <= TOTAL && total > TOTAL / 10 * 7, "{total}");
        for _ in 0..200 {
            let mut other = Ring::new();
            let first = other.push(large(), LIMIT, &mut total, TOTAL);
            for _ in 0..7 {
                other.push(large(), LIMIT, &mut total, TOTAL);
            }
            let (frames, gap) = other.since(first - 1).unwrap();
            assert_eq!((frames.len(), gap), (8, false));
            rings.push(other);
        }
        assert!(total <= TOTAL);
    }

    #[test]
    fn a_lost_ring_keeps_what_comes_before_its_client_does() {
        let (mut ring, mut total) = (Ring::from_parts(vec![], LOST).unwrap(), 0);
        for n in 0..3 {
            ring.push(body(n), 1 << 20, &mut total, 1 << 20);
        }
        let frames = ring.parts().0.cloned().collect();
        let mut ring = Ring::from_parts(frames, LOST).expect("it may move once more");
        for seq in [40, 40, 39] {
            ring.find(seq);
            let expected = (vec![42, 43, 44], true);
            assert_eq!(
                seqs(&ring, seq),
                expected,
                "a client may not get the answer"
            );
        }
        assert_eq!(ring.push(body(3), 1 << 20, &mut total, 1 << 20), 45);
        assert_eq!(seqs(&ring, 43), (vec![44, 45], false), "it has got it");
        let (mut ring, last) = (Ring::from_parts(vec![], LOST).unwrap(), MAX_NEXT);
        ring.find(last);
        assert!(Ring::from_parts(vec![], ring.next).is_some());
    }
}
