//! When a worker with time to spare looks again: how long it lets datagrams come together, so that
//! one wake-up serves several. Pure.
//!
//! Falling asleep and waking up cost a worker more than a datagram does. What comes in a pause
//! waits for its end, at most as long as the operator grants; what comes alone does not, for pauses
//! follow datagrams and are made only while several are expected in one. A busy worker makes none:
//! there datagrams come together by themselves, and their time is worth more than the worker's.
//!
//! What a pause costs differs by more than ten between machines: in some virtual machines a timer
//! costs as much as two datagrams. A worker therefore compares the two ways by its own CPU time, for
//! a moment every ten seconds, and pauses only where that saves some.

use std::time::{Duration, Instant};

/// How long rate and load are observed before they are judged: some hundred datagrams at the least
/// rate that matters, and a blink of an eye.
const WINDOW: Duration = Duration::from_millis(5);
/// Datagrams that a pause is for: five in six wake-ups are saved, and more of them would save less
/// than they cost in time.
const GATHERED: u32 = 6;
/// Datagrams that must be expected in the longest pause and what goes with it: with fewer, waking up
/// for nothing costs more than is saved.
const WORTHWHILE: u32 = 2;
/// How long a worker is away beside its pause: it falls asleep, wakes up and works on what has come.
const AROUND: Duration = Duration::from_micros(25);
/// A worker that works for less than one part in so many has time to spare. Datagrams that come one
/// by one find cold caches: on a slow machine they cost more than a third of a core at the rates
/// that pauses are for.
const SPARE: u32 = 2;
/// Datagrams that follow each other more closely come together by themselves, while a worker falls
/// asleep and wakes up. What a core carries at half its capacity does on every machine.
const APART: Duration = Duration::from_micros(16);

/// Windows of a comparison, every other one with pauses: each way has some thousand datagrams.
const COMPARED: u32 = 40;
/// How long the outcome of a comparison holds.
const HOLDS: Duration = Duration::from_secs(10);
/// CPU time that pauses have to save, in percent: less would not be worth the time that datagrams wait.
const SAVES: u32 = 10;

/// Decides on the pauses of one worker.
#[derive(Debug)]
pub(in crate::relay) struct Coalescing {
    longest: Duration,
    since: Instant,
    busy: Duration,
    messages: u32,
    pause: Option<Duration>,
    comparison: Comparison,
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
            comparison: Comparison::default(),
        }
    }

    /// Notes a turn from `woke` to `done` that took `messages` in. `cpu` reads the CPU time of the
    /// worker's thread so far. Returns how long to pause before the next turn.
    pub(in crate::relay) fn after(
        &mut self,
        woke: Instant,
        done: Instant,
        messages: u32,
        cpu: impl FnOnce() -> Duration,
    ) -> Option<Duration> {
        self.busy += done.saturating_duration_since(woke);
        self.messages = self.messages.saturating_add(messages);
        let observed = done.saturating_duration_since(self.since);
        if observed >= WINDOW {
            let paused = self.pause.is_some();
            let possible = self.judge(observed);
            self.pause = match possible {
                Some(_) => {
                    let pauses = self.comparison.window(done, paused, self.messages, cpu);
                    possible.filter(|_| pauses)
                }
                None => {
                    self.comparison.interrupt();
                    None
                }
            };
            self.since = done;
            self.busy = Duration::ZERO;
            self.messages = 0;
        }
        self.pause.filter(|_| messages > 0)
    }

    fn judge(&self, observed: Duration) -> Option<Duration> {
        let gap = observed.checked_div(self.messages)?;
        let has_time = self.busy * SPARE <= observed;
        let worthwhile = gap >= APART && gap * WORTHWHILE <= self.longest + AROUND;
        (has_time && worthwhile && !self.longest.is_zero())
            .then(|| (gap * GATHERED).min(self.longest))
    }
}

/// What a datagram costs with pauses and without.
#[derive(Debug, Default)]
struct Comparison {
    /// The CPU time at the beginning of this window, where the window counts.
    began: Option<Duration>,
    windows: u32,
    /// CPU time and datagrams, without pauses and with them.
    spent: [(Duration, u32); 2],
    /// Whether pauses save CPU time, and until when that holds.
    outcome: Option<(bool, Instant)>,
}

impl Comparison {
    /// Takes the window that ends now, in which pauses were made if `paused`. Returns whether the next
    /// one has pauses.
    fn window(
        &mut self,
        now: Instant,
        paused: bool,
        messages: u32,
        cpu: impl FnOnce() -> Duration,
    ) -> bool {
        match self.outcome {
            Some((saves, until)) if now < until => return saves,
            Some(_) => *self = Self::default(),
            None => {}
        }
        let cpu = cpu();
        if let Some(began) = self.began.replace(cpu) {
            let (spent, datagrams) = &mut self.spent[usize::from(paused)];
            *spent += cpu.saturating_sub(began);
            *datagrams = datagrams.saturating_add(messages);
            self.windows += 1;
        }
        if self.windows < COMPARED {
            return self.windows % 2 == 1;
        }
        let [without, with] = self
            .spent
            .map(|(spent, datagrams)| spent.as_nanos() / u128::from(datagrams.max(1)));
        let saves = with * 100 <= without * u128::from(100 - SAVES);
        self.outcome = Some((saves, now + HOLDS));
        saves
    }

    /// The window that ends now is not like the others.
    fn interrupt(&mut self) {
        self.began = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(200);

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// As [`second_at`], where a pause costs nothing.
    fn second(longest: Duration, gap: Duration, work: Duration) -> (Duration, u32, Duration) {
        second_at(Duration::ZERO, longest, gap, work)
    }

    /// A second of datagrams every `gap`, each of which takes `work`: the longest that one waited
    /// in the second half, how many turns there were in it, and the last pause. A wake-up costs 5 µs
    /// of CPU time beside, a pause `dear`.
    fn second_at(
        dear: Duration,
        longest: Duration,
        gap: Duration,
        work: Duration,
    ) -> (Duration, u32, Duration) {
        let mut cpu = Duration::ZERO;
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
            cpu += work * messages + micros(5);
            let pause = coalescing.after(woke, now, messages, || cpu);
            cpu += pause.map_or(Duration::ZERO, |_| dear);
            last = pause.unwrap_or_default();
            now += last;
        }
        (waited, turns, last)
    }

    #[test]
    fn a_worker_with_time_to_spare_serves_several_at_a_time() {
        // 40,000 a second, 3 µs each.
        let (waited, turns, pause) = second(LONGEST, micros(25), micros(3));
        assert!(pause > micros(140) && pause <= micros(151), "{pause:?}");
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
    fn the_default_saves_turns_and_none_waits_for_more_than_a_pause() {
        let default = crate::config::Config::load(None, std::iter::empty()).unwrap();
        let longest = default.turn.coalesce;
        assert_eq!(longest, micros(30));
        let (waited, turns, pause) = second(longest, micros(25), micros(3));
        assert_eq!(pause, longest);
        assert!(waited <= longest + micros(3) * 3, "{waited:?}");
        // Nothing falls asleep or wakes up here: on a machine a round takes two gaps and more.
        assert!(turns * 4 <= 20_000 * 3, "{turns}");
    }

    #[test]
    fn nothing_waits_longer_than_the_operator_grants() {
        // 16,000 a second: six of them would take longer.
        let (waited, _, pause) = second(LONGEST, micros(62), micros(3));
        assert_eq!(pause, LONGEST);
        assert!(waited <= LONGEST + micros(3) * 5, "{waited:?}");
    }

    /// In some virtual machines a timer costs as much as two datagrams.
    #[test]
    fn where_a_pause_costs_more_than_it_saves_nothing_waits() {
        let (waited, turns, pause) = second_at(micros(15), micros(30), micros(25), micros(3));
        assert_eq!((waited, pause), (Duration::ZERO, Duration::ZERO));
        assert!(turns >= 20_000, "{turns}");
    }

    #[test]
    fn the_two_ways_are_compared_again() {
        let (mut comparison, now) = (Comparison::default(), Instant::now());
        let (mut cpu, mut paused, mut changes) = (Duration::ZERO, false, vec![]);
        for window in 0..10_000 {
            // A pause costs half in the first quarter of a minute, and double afterwards.
            let dear = if window < 3_000 { 1 } else { 4 };
            cpu += micros(100) * if paused { dear } else { 2 };
            let now = now + WINDOW * window;
            let next = comparison.window(now, paused, 100, || cpu);
            if next != paused {
                changes.push(window);
            }
            paused = next;
        }
        assert!(!paused);
        // A comparison changes from window to window, and its outcome holds for ten seconds.
        let holds = changes.windows(2).filter(|two| two[1] - two[0] > 100);
        assert!((2..=5).contains(&holds.count()), "{changes:?}");
    }

    #[test]
    fn few_datagrams_and_a_busy_worker_do_not_wait() {
        let (waited, _, pause) = second(LONGEST, micros(120), micros(3));
        assert_eq!((waited, pause), (Duration::ZERO, Duration::ZERO));
        // More than half of its time.
        let (_, _, pause) = second(LONGEST, micros(25), micros(13));
        assert_eq!(pause, Duration::ZERO);
        // 100,000 a second: they come together by themselves.
        let (_, _, pause) = second(LONGEST, micros(10), micros(3));
        assert_eq!(pause, Duration::ZERO);
    }

    /// Alone, a datagram costs a slow machine half as much again as with others: pauses that it
    /// has once made must not be what lets it make the next ones.
    #[test]
    fn a_slow_machine_begins_to_pause() {
        let (_, _, pause) = second(LONGEST, micros(25), micros(9));
        assert!(pause > micros(140), "{pause:?}");
    }

    #[test]
    fn a_pause_follows_datagrams_only_and_ends_with_their_rate() {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(LONGEST, start);
        let at = |micros| start + Duration::from_micros(micros);
        let (mut cpu, mut paused, mut now) = (Duration::ZERO, false, 0);
        // Long enough for a comparison, in which a datagram costs less with pauses.
        for _ in 0..15_000 {
            cpu += Duration::from_micros(if paused { 2 } else { 8 });
            paused = coalescing.after(at(now), at(now + 2), 1, || cpu).is_some();
            now += 20;
        }
        assert!(paused);
        let free = || Duration::ZERO;
        assert_eq!(coalescing.after(at(now + 10), at(now + 11), 0, free), None);
        let next = coalescing.after(at(now + 20), at(now + 22), 1, free);
        assert!(next.is_some());
        // A second of silence, then one: its rate is judged with the silence.
        now += 1_000_000;
        assert_eq!(coalescing.after(at(now), at(now + 2), 1, free), None);
    }
}
