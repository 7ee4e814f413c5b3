//! The program's own log: where lines go, how they look, and the level, which a reload may change.
//!
//! Under systemd the journal stamps the time and keeps the severity by itself: lines leave out
//! the one and carry the other as the `<N>` of sd-daemon(3).
//!
//! A line that is written again and again is written seldom (`log/limited.rs`), also where a client provokes it.

mod limited;
mod warnings;

pub use warnings::warnings;

use crate::config::{Log, LogFormat, LogLevel};
use limited::Limited;
use std::fmt;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};
use warnings::Warnings;

/// Changes the level of the running log.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Writes lines of `level` and above from here on.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only where the subscriber is gone, and then nobody reads lines either.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts logging to stderr; to be called once.
pub fn start(log: &Log) -> LogHandle {
    let (level, handle) = reload::Layer::new(filter(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match (log.format, is_journal()) {
        (LogFormat::Text, true) => lines
            .with_ansi(false)
            .event_format(prioritised().with_target(false))
            .map_event_format(Prioritised)
            .map_event_format(Limited::new)
            .boxed(),
        (LogFormat::Json, true) => lines
            .json()
            .event_format(prioritised().json())
            .map_event_format(Prioritised)
            .map_event_format(Limited::new)
            .boxed(),
        (LogFormat::Text, false) => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .map_event_format(Limited::new)
            .boxed(),
        (LogFormat::Json, false) => lines.json().map_event_format(Limited::new).boxed(),
    };
    tracing_subscriber::registry()
        .with(level)
        .with(lines)
        .with(Warnings::new())
        .init();
    LogHandle(handle)
}

fn prioritised()
-> tracing_subscriber::fmt::format::Format<tracing_subscriber::fmt::format::Full, ()> {
    tracing_subscriber::fmt::format()
        .without_time()
        .with_level(false)
}

/// What an operator did is written at every level.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let audit = level.max(LevelFilter::INFO);
    // Libraries warn of what clients do to them in words that say nothing to an operator.
    let libraries = match level {
        LevelFilter::DEBUG | LevelFilter::TRACE => level,
        _ => LevelFilter::ERROR,
    };
    Targets::new()
        .with_default(libraries)
        .with_target("callbox", level)
        .with_target("turn_engine", level)
        .with_target("callbox::audit", audit)
}

/// systemd.exec(5): `$JOURNAL_STREAM` is the device and inode of the journal's socket, to be
/// compared with stderr's own, which a shell in between may have redirected.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Puts the severity of sd-daemon(3) in front of a line.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journal_lines_carry_the_severity_and_no_time_and_the_level_changes_live() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (level, handle) = reload::Layer::new(filter(LogLevel::Info));
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(prioritised().with_target(false))
            .map_event_format(Prioritised);
        let subscriber = tracing_subscriber::registry().with(level).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("unheard");
            tracing::warn!(port = 3478, "hello");
            tracing::warn!(target: "h2::proto::streams", "unheard: provoked by a client");
            let handle = LogHandle(handle);
            handle.set_level(LogLevel::Debug);
            tracing::debug!("again");
            handle.set_level(LogLevel::Error);
            tracing::warn!("unheard");
            tracing::info!(target: "callbox::audit", "audit");
        });
        let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written, "<4>hello port=3478\n<7>again\n<6>audit\n");
    }
}
