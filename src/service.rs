//! The service manager: readiness, a status line and the watchdog of sd_notify(3).
//!
//! Without systemd every call does nothing.

use sd_notify::NotifyState;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What closing listeners and relays may take after the drain, on a machine that is busy.
const CLOSING: Duration = Duration::from_secs(15);

/// How often systemd is asked to wait on.
const EXTENSION: Duration = Duration::from_secs(600);

/// The folder that systemd keeps for the unit's state (StateDirectory=).
pub fn state_directory() -> Option<PathBuf> {
    let folders = std::env::var_os("STATE_DIRECTORY")?;
    // Of several, separated by colons, the first one.
    std::env::split_paths(&folders)
        .next()
        .filter(|folder| folder.is_absolute())
}

/// Everything serves; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The drain begins, and takes `grace` at most: systemd is asked to wait that long, whatever
/// TimeoutStopSec= says, and again, as one request reaches no further than 71 minutes. Never ends.
pub async fn stopping(grace: Duration) {
    let ends = Instant::now() + grace + CLOSING;
    tell(&[NotifyState::Stopping]);
    let mut turns = tokio::time::interval(EXTENSION);
    loop {
        turns.tick().await;
        let left = ends.saturating_duration_since(Instant::now());
        let micros = u32::try_from(left.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }
}

/// Feeds the watchdog for ever, as long as `status` comes back with the line to show: whoever
/// hangs in it is restarted by systemd.
pub async fn watchdog<F: Future<Output = String>>(status: impl Fn() -> F) {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // sd_watchdog_enabled(3) recommends half the time; a third forgives one late turn.
    let mut turns = tokio::time::interval((deadline / 3).max(Duration::from_millis(100)));
    loop {
        turns.tick().await;
        let status = status().await;
        tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}
