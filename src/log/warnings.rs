//! Warnings and errors of this process, as texts for those who follow them.

use super::limited::Limited;
use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that a follower may lag behind. A slower follower loses the oldest.
const LAG: usize = 64;

static LINES: LazyLock<broadcast::Sender<Arc<str>>> = LazyLock::new(|| broadcast::channel(LAG).0);

/// Follows the warnings and errors of this process from here on.
pub fn warnings() -> broadcast::Receiver<Arc<str>> {
    LINES.subscribe()
}

/// Passes warnings and errors on, those that clients provoke no more often than the log has them.
pub(super) struct Warnings(Limited<()>);

impl Warnings {
    pub(super) fn new() -> Self {
        Self(Limited::new(()))
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN || LINES.receiver_count() == 0 {
            return;
        }
        let Some(left_out) = self.0.admit(event.metadata(), Instant::now()) else {
            return;
        };
        let mut line = Line(String::new());
        event.record(&mut line);
        if left_out > 0 {
            let _ = write!(line.0, " left_out={left_out}");
        }
        // It fails where the last follower has just gone.
        let _ = LINES.send(line.0.into());
    }
}

/// The message, and behind it what else the event says.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => {
                let rest = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{rest}")
            }
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn warnings_and_errors_are_passed_on_and_nothing_else() {
        let mut lines = warnings();
        let subscriber = || tracing_subscriber::registry().with(Warnings::new());
        tracing::subscriber::with_default(subscriber(), || {
            tracing::info!("unheard");
            tracing::warn!(port = 3478, "the port is taken");
        });
        assert_eq!(&*lines.try_recv().unwrap(), "the port is taken port=3478");
        tracing::subscriber::with_default(subscriber(), || {
            (0..60).for_each(|n| tracing::warn!("provoked {n}"));
        });
        let provoked = std::iter::from_fn(|| lines.try_recv().ok()).count();
        assert_eq!(provoked, 10, "as many as the log has");
        assert!(lines.try_recv().is_err());
    }
}
