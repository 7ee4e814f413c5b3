//! The wall clock, read in one place. Pure modules take its readings as arguments.

use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of day.
pub fn now() -> SystemTime {
    #[cfg(test)]
    if let Some(ms) = SIMULATED.get() {
        return UNIX_EPOCH + Duration::from_millis(ms);
    }
    SystemTime::now()
}

#[cfg(test)]
thread_local! {
    /// What a simulation on this thread reads in place of the clock.
    static SIMULATED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Lets this thread read that time of day from here on, in milliseconds since 1970.
#[cfg(test)]
pub(crate) fn simulate(ms: u64) {
    SIMULATED.set(Some(ms));
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

/// Nanoseconds of the clock that [`Instant`] reads. All processes share it until the next boot.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::try_from(now).unwrap_or_default();
    now.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Nanoseconds of the clock that counts a suspended machine in.
pub fn boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::try_from(now).unwrap_or_default();
    now.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Where both clocks were when the first was asked for.
fn boot_base() -> (Instant, u64) {
    static BASE: OnceLock<(Instant, u64)> = OnceLock::new();
    *BASE.get_or_init(|| (Instant::now(), boot()))
}

/// Now, as a moment of the clock that counts a suspended machine in. Such moments are compared with
/// each other alone.
pub fn boot_instant() -> Instant {
    let (instant, nanos) = boot_base();
    instant + Duration::from_nanos(boot().saturating_sub(nanos))
}

/// What [`boot`] reads at such a moment.
pub fn boot_nanos_at(at: Instant) -> u64 {
    let (instant, nanos) = boot_base();
    let since = at.saturating_duration_since(instant).as_nanos();
    nanos.saturating_add(since.try_into().unwrap_or(u64::MAX))
}

/// The moment at which [`monotonic`] was `nanos`, or now for one that is yet to come.
pub fn instant_at(nanos: u64) -> Instant {
    let passed = Duration::from_nanos(monotonic().saturating_sub(nanos));
    let now = Instant::now();
    now.checked_sub(passed).unwrap_or(now)
}
