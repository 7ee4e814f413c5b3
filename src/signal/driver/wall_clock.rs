//! The time of an input. The wall clock is read now and then, and goes as the other clock does in
//! between: each reading costs as much as a look into a table, and messages come by the ten thousand.

use crate::signal::hub::Now;
use std::time::{Duration, Instant};

/// How old a reading may be. A clock that is set is noticed so much later; what is dated by it counts
/// in seconds.
const MAX_AGE: Duration = Duration::from_millis(5);

/// The last reading: the time since 1970, and when it was so.
#[derive(Debug, Default)]
pub(super) struct WallClock(Option<(Instant, Duration)>);

impl WallClock {
    /// Both clocks at `instant`, which is now; `read` gives the time since 1970.
    pub(super) fn at(&mut self, instant: Instant, read: impl FnOnce() -> Duration) -> Now {
        let recent = self.0.and_then(|(at, time)| {
            let passed = instant.checked_duration_since(at)?;
            (passed < MAX_AGE).then(|| time.saturating_add(passed))
        });
        let time = recent.unwrap_or_else(|| {
            let time = read();
            self.0 = Some((instant, time));
            time
        });
        Now {
            instant,
            unix_ms: time.as_millis().try_into().unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_goes_on_between_readings_and_is_read_again_soon() {
        let mut clock = WallClock::default();
        let start = Instant::now();
        let mut at = |passed, reads: Option<u64>| {
            let read = || Duration::from_millis(reads.expect("the reading is recent"));
            let now = clock.at(start + Duration::from_millis(passed), read);
            assert_eq!(now.instant, start + Duration::from_millis(passed));
            now.unix_ms
        };
        assert_eq!(at(0, Some(1_000)), 1_000);
        assert_eq!(at(3, None), 1_003);
        assert_eq!(at(4, None), 1_004);
        // Somebody has set it back meanwhile.
        assert_eq!(at(5, Some(200)), 200);
        assert_eq!(at(9, None), 204);
        // The earlier instant of another thread, and a box that was quiet for long.
        assert_eq!(at(4, Some(199)), 199);
        assert_eq!(at(60_000, Some(61_000)), 61_000);
    }
}
