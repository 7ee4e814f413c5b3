//! When a worker with time to spare looks again: how long it lets datagrams come together, so that
//! one wake-up serves several. Pure.
//!
//! Falling asleep and waking up cost a worker more than a datagram does. What comes in a pause
//! waits for its end, at most as long as the operator grants; what comes alone does not, for pauses
//! follow datagrams and are made only while several are expected in one. A busy worker makes none:
//! there datagrams come together by themselves, and their time is worth more than the worker's.

use std::time::{Duration, Instant};

/// How long rate and load are observed before they are judged: some hundred datagrams at the least
/// rate that matters, and a blink of an eye.
const WINDOW: Duration = Duration::from_millis(5);
/// Datagrams that a pause is for: five in six wake-ups are saved, and more of them would save less
/// than they cost in time.
const GATHERED: u32 = 6;
/// Datagrams that must be expected in the longest pause: with fewer, waking up for nothing costs
/// more than is saved.
const WORTHWHILE: u32 = 2;
/// A worker that works for less than one part in so many has time to spare. Half of what a core
/// carries is well beyond it.
const SPARE: u32 = 4;

/// Decides on the pauses of one worker.
#[derive(Debug)]
pub(in crate::relay) struct Coalescing {
    longest: Duration,
    since: Instant,
    busy: Duration,
    messages: u32,
    pause: Option<Duration>,
}

impl Coalescing {
    /// `longest` is the longest pause; zero means none at all.
    pub(in crate::relay) fn new(longest: Duration, now: Instant) -> Self {
        Self {
            longest,
            since: now,
            busy: Duration::ZERO,
            messages: 0,
            pause: None,
        }
    }

    /// Notes a turn from `woke` to `done` that took `messages` in. Returns how long to pause before
    /// the next one.
    pub(in crate::relay) fn after(
        &mut self,
        woke: Instant,
        done: Instant,
        messages: u32,
    ) -> Option<Duration> {
        self.busy += done.saturating_duration_since(woke);
        self.messages = self.messages.saturating_add(messages);
        let observed = done.saturating_duration_since(self.since);
        if observed >= WINDOW {
            self.pause = self.judge(observed);
            self.since = done;
            self.busy = Duration::ZERO;
            self.messages = 0;
        }
        self.pause.filter(|_| messages > 0)
    }

    fn judge(&self, observed: Duration) -> Option<Duration> {
        let gap = observed.checked_div(self.messages)?;
        let has_time = self.busy * SPARE <= observed;
        let worthwhile = gap * WORTHWHILE <= self.longest;
        (has_time && worthwhile).then(|| (gap * GATHERED).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(200);

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// A second of datagrams every `gap`, each of which takes `work`: the longest that one waited
    /// in the second half, how many turns there were in it, and the last pause.
    fn second(longest: Duration, gap: Duration, work: Duration) -> (Duration, u32, Duration) {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(longest, start);
        let (mut now, mut next) = (start, start);
        let (mut waited, mut turns, mut last) = (Duration::ZERO, 0, Duration::ZERO);
        while now < start + Duration::from_secs(1) {
            now = now.max(next);
            let woke = now;
            let mut messages = 0;
            while next <= woke {
                if woke > start + Duration::from_millis(500) {
                    waited = waited.max(woke - next);
                }
                messages += 1;
                next += gap;
                now += work;
            }
            if woke > start + Duration::from_millis(500) {
                turns += 1;
            }
            last = coalescing.after(woke, now, messages).unwrap_or_default();
            now += last;
        }
        (waited, turns, last)
    }

    #[test]
    fn a_worker_with_time_to_spare_serves_several_at_a_time() {
        // 40,000 a second, 3 µs each.
        let (waited, turns, pause) = second(LONGEST, micros(25), micros(3));
        assert!(pause > micros(140) && pause <= micros(150), "{pause:?}");
        // The work on those before it aside.
        assert!(waited <= pause + micros(3) * 7, "{waited:?}");
        assert!(turns < 20_000 / 6, "{turns}");
        // The same without leave.
        let (waited, turns, pause) = second(Duration::ZERO, micros(25), micros(3));
        assert_eq!((waited, pause), (Duration::ZERO, Duration::ZERO));
        assert!(turns >= 20_000, "{turns}");
    }

    /// An echo crosses two workers' pauses: more would show beside a server that never waits.
    #[test]
    fn the_default_serves_three_at_a_time_and_none_waits_for_more_than_a_pause() {
        let default = crate::config::Config::load(None, std::iter::empty()).unwrap();
        let longest = default.turn.coalesce;
        assert_eq!(longest, micros(65));
        let (waited, turns, pause) = second(longest, micros(25), micros(3));
        assert_eq!(pause, longest);
        assert!(waited <= longest + micros(3) * 3, "{waited:?}");
        // With the work on them, a round takes three gaps.
        assert!(turns * 14 <= 20_000 * 5, "{turns}");
    }

    #[test]
    fn nothing_waits_longer_than_the_operator_grants() {
        // 16,000 a second: six of them would take longer.
        let (waited, _, pause) = second(LONGEST, micros(62), micros(3));
        assert_eq!(pause, LONGEST);
        assert!(waited <= LONGEST + micros(3) * 5, "{waited:?}");
    }

    #[test]
    fn few_datagrams_and_a_busy_worker_do_not_wait() {
        let (waited, _, pause) = second(LONGEST, micros(110), micros(3));
        assert_eq!((waited, pause), (Duration::ZERO, Duration::ZERO));
        // 100,000 a second, 3 µs each: three tenths of its time.
        let (_, _, pause) = second(LONGEST, micros(10), micros(3));
        assert_eq!(pause, Duration::ZERO);
    }

    #[test]
    fn a_pause_follows_datagrams_only_and_ends_with_their_rate() {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(LONGEST, start);
        let at = |micros| start + Duration::from_micros(micros);
        for index in 0..300 {
            coalescing.after(at(20 * index), at(20 * index + 2), 1);
        }
        assert_eq!(coalescing.after(at(6_010), at(6_011), 0), None);
        assert!(coalescing.after(at(6_020), at(6_022), 1).is_some());
        // A second of silence, then one: its rate is judged with the silence.
        assert_eq!(coalescing.after(at(1_006_020), at(1_006_022), 1), None);
    }
}
