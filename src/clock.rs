//! The wall clock, read in one place. Pure modules take its readings as arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The time since 1970. A clock that is set to an earlier time reads as zero.
pub fn since_epoch() -> Duration {
    now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whole seconds since 1970.
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// Milliseconds since 1970.
pub fn unix_now_ms() -> u64 {
    since_epoch().as_millis().try_into().unwrap_or(u64::MAX)
}
