//! The one task that sends events to `hooks.url`: a batch at a time, in order, again until the
//! backend takes it.

use super::Settings;
use super::events::{Events, now};
use super::queue::Outcome;
use super::request::{Answered, notify};
use crate::net::https::HttpsClient;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the backend may take to store a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last events may take when the box ends.
const LAST_ATTEMPT: Duration = Duration::from_secs(2);

/// Where batches go. Tests put a backend in its place that fails as they want.
pub trait Backend: Send + Sync {
    /// Sends one signed batch.
    fn deliver(
        &self,
        settings: &Settings,
        body: String,
    ) -> impl Future<Output = Result<Answered, String>> + Send;
}

impl Backend for HttpsClient {
    async fn deliver(&self, settings: &Settings, body: String) -> Result<Answered, String> {
        notify(self, settings, settings.url.as_ref(), body, TIMEOUT).await
    }
}

impl Events {
    /// Sends events for as long as it is polled.
    pub async fn deliver(self, backend: impl Backend, mut settings: watch::Receiver<Settings>) {
        let mut is_failing = false;
        loop {
            let current = settings.borrow_and_update().clone();
            let due = match current.url {
                Some(_) => self.queue().next_timeout(now().instant),
                None => None,
            };
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.shared().wake.notified() => continue,
                changed = settings.changed() => match changed {
                    // Perhaps the address or the secret was wrong.
                    Ok(()) => {
                        self.queue().retry_now();
                        continue;
                    }
                    Err(_) => return,
                },
            }
            self.attempt(&backend, &current, &mut is_failing).await;
        }
    }

    /// Sends what waits once more, without a pause: the box ends.
    pub async fn flush(&self, backend: &impl Backend, settings: &Settings) {
        let all = async {
            let mut is_failing = false;
            self.queue().retry_now();
            while settings.url.is_some() && !is_failing && !self.queue().is_empty() {
                self.attempt(backend, settings, &mut is_failing).await;
            }
        };
        let _ = tokio::time::timeout(LAST_ATTEMPT, all).await;
        let left = self.queue().len();
        if settings.url.is_some() && left > 0 {
            tracing::warn!("{left} events are lost: hooks.url does not take them");
        }
    }

    async fn attempt(&self, backend: &impl Backend, settings: &Settings, is_failing: &mut bool) {
        let Some(body) = self.queue().next_batch(now()) else {
            return;
        };
        // The task may be ended while the POST is under way: the batch then counts as failed.
        let mut under_way = UnderWay {
            events: self,
            outcome: Outcome::Failed(None),
        };
        let problem = match backend.deliver(settings, body).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => {
                under_way.outcome = Outcome::Failed(answer.retry_after);
                Some(format!("it answered {}", answer.status))
            }
            Err(error) => Some(error),
        };
        match problem {
            None => {
                under_way.outcome = Outcome::Delivered;
                if std::mem::take(is_failing) {
                    tracing::info!("hooks.url takes events again");
                }
            }
            Some(problem) if !*is_failing => {
                *is_failing = true;
                tracing::warn!(%problem, "hooks.url does not take events; they wait and are sent again");
            }
            Some(problem) => tracing::debug!(%problem, "hooks.url still does not take events"),
        }
    }
}

/// Reports the outcome of a batch to the queue, whatever ends the attempt.
struct UnderWay<'a> {
    events: &'a Events,
    outcome: Outcome,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let jitter = rand::random();
        self.events.queue().finished(now(), self.outcome, jitter);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
