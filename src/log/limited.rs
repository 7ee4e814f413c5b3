//! Bounds how often one line of the program is written, so that nobody can fill a disk with it.
//!
//! A line is known by its place in the program, which is its cause. Lines of `debug` and `trace`
//! are asked for and not bounded; neither are those of the program's main file, which only its
//! operator provokes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How many lines of one place are written together, and how long each takes to be forgotten.
const WARNINGS: Bound = Bound {
    burst: 10,
    each: Duration::from_secs(10),
};
/// The same for `info`: one line at the end of each relayed call is welcome.
const NOTES: Bound = Bound {
    burst: 100,
    each: Duration::from_secs(1),
};
/// The module path of the main file.
const MAIN: &str = env!("CARGO_CRATE_NAME");
/// What operators do is never left out, and nobody else provokes it.
const AUDIT: &str = "callbox::audit";

#[derive(Debug, Clone, Copy)]
struct Bound {
    burst: u32,
    each: Duration,
}

/// Formats events that are not too many, and says how many were left out before.
pub(super) struct Limited<F> {
    format: F,
    causes: Mutex<HashMap<Identifier, Cause>>,
}

/// A bucket that empties with time.
#[derive(Debug)]
struct Cause {
    /// When it will be empty.
    empty_at: Instant,
    left_out: u64,
}

impl<F> Limited<F> {
    pub(super) fn new(format: F) -> Self {
        Self {
            format,
            causes: Mutex::default(),
        }
    }

    /// `None`: the line is one too many. Otherwise how many were left out since the last one.
    pub(super) fn admit(&self, metadata: &Metadata<'_>, now: Instant) -> Option<u64> {
        let bound = match *metadata.level() {
            _ if [MAIN, AUDIT].contains(&metadata.target()) => return Some(0),
            Level::ERROR | Level::WARN => WARNINGS,
            Level::INFO => NOTES,
            _ => return Some(0),
        };
        // As many entries as the program has places that log.
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = causes.entry(metadata.callsite()).or_insert(Cause {
            empty_at: now,
            left_out: 0,
        });
        let empty_at = cause.empty_at.max(now) + bound.each;
        if empty_at > now + bound.each * bound.burst {
            cause.left_out += 1;
            return None;
        }
        cause.empty_at = empty_at;
        Some(std::mem::take(&mut cause.left_out))
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(left_out) = self.admit(event.metadata(), Instant::now()) else {
            return Ok(());
        };
        if left_out > 0 {
            say_left_out(*event.metadata().level(), left_out);
        }
        self.format.format_event(context, writer, event)
    }
}

/// In a line of its own, as each format frames lines differently; at the level of the line that it speaks of, so that it is
/// written wherever that one is; and of the main file, so that it is not left out itself.
fn say_left_out(level: Level, left_out: u64) {
    const SAID: &str = "lines like the next one were left out";
    match level {
        Level::ERROR => tracing::error!(target: MAIN, left_out, "{SAID}"),
        Level::WARN => tracing::warn!(target: MAIN, left_out, "{SAID}"),
        _ => tracing::info!(target: MAIN, left_out, "{SAID}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing::subscriber::with_default;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    /// Asks a bound at a time that a test moves.
    #[derive(Clone)]
    struct Asked {
        limited: Arc<Limited<()>>,
        now: Arc<Mutex<Instant>>,
        answers: Arc<Mutex<Vec<Option<u64>>>>,
    }

    impl<S: Subscriber> Layer<S> for Asked {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let answer = self
                .limited
                .admit(event.metadata(), *self.now.lock().unwrap());
            self.answers.lock().unwrap().push(answer);
        }
    }

    impl Asked {
        fn during(&self, story: impl FnOnce()) -> Vec<Option<u64>> {
            with_default(tracing_subscriber::registry().with(self.clone()), story);
            std::mem::take(&mut *self.answers.lock().unwrap())
        }
    }

    fn asked() -> Asked {
        Asked {
            limited: Arc::new(Limited::new(())),
            now: Arc::new(Mutex::new(Instant::now())),
            answers: Arc::default(),
        }
    }

    fn accept_fails(times: usize) {
        for _ in 0..times {
            tracing::warn!("cannot accept a connection");
        }
    }

    #[test]
    fn a_flood_of_one_line_is_a_few_lines_and_a_count() {
        let asked = asked();
        let answers = asked.during(|| accept_fails(1_000));
        assert_eq!(answers.iter().flatten().count(), 10);
        *asked.now.lock().unwrap() += WARNINGS.each;
        assert_eq!(asked.during(|| accept_fails(2)), [Some(990), None]);
        *asked.now.lock().unwrap() += WARNINGS.each * 1_000;
        let answers = asked.during(|| accept_fails(11));
        assert_eq!(answers.iter().flatten().count(), 10);
        assert_eq!(answers[0], Some(1));
    }

    #[test]
    fn another_line_has_a_bound_of_its_own_and_some_have_none() {
        let asked = asked();
        asked.during(|| accept_fails(20));
        let other = asked.during(|| tracing::warn!("another cause"));
        assert_eq!(other, [Some(0)]);
        let answers = asked.during(|| {
            for _ in 0..1_000 {
                tracing::debug!("asked for");
                tracing::warn!(target: "callbox", "of the operator");
            }
        });
        assert!(answers.iter().all(|answer| *answer == Some(0)));
    }
}
