//! Other living nodes of this one's name: they are looked for after a start, and after others have buried this node.

use std::time::{Duration, Instant};

/// By then an earlier run of this node is buried.
const FIRST: Duration = Duration::from_secs(4);
/// The longest time between two looks, and between two lines of the log.
const LONGEST: Duration = Duration::from_secs(60);

/// When to look.
#[derive(Debug, Default)]
pub(super) struct Namesakes {
    next: Option<Instant>,
    pause: Duration,
}

impl Namesakes {
    /// Looks soon, and then ever more seldom for as long as there is one.
    pub(super) fn begin(&mut self, now: Instant) {
        self.pause = FIRST;
        self.next = Some(now + FIRST);
    }

    /// Whether to look now; that is asked with each beat.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.next.take_if(|next| now >= *next).is_some()
    }

    /// There is one: when it is looked again, in seconds.
    pub(super) fn found(&mut self, now: Instant) -> u64 {
        self.pause = (self.pause * 2).min(LONGEST);
        self.next = Some(now + self.pause);
        self.pause.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_double_up_to_a_minute_and_end_where_nobody_is_found() {
        let (mut namesakes, mut now) = (Namesakes::default(), Instant::now());
        assert!(!namesakes.is_due(now));
        namesakes.begin(now);
        let mut pauses = vec![];
        for _ in 0..6 {
            assert!(!namesakes.is_due(now));
            now += namesakes.pause;
            assert!(namesakes.is_due(now) && !namesakes.is_due(now));
            pauses.push(namesakes.found(now));
        }
        assert_eq!(pauses, [8, 16, 32, 60, 60, 60]);
        now += LONGEST;
        assert!(namesakes.is_due(now));
        assert!(!namesakes.is_due(now + LONGEST));
    }
}
