//! The one task that sends events, and the handle by which the rest of the box queues them.

use super::queue::{Counts, Now, Outcome, Queue};
use super::{Settings, signature};
use crate::net::https::{HttpsClient, Limits};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

/// What one POST may take: the backend only has to store the events.
const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(10),
    body: 64 * 1024,
};
/// How long the last events may take when the box ends.
const LAST_ATTEMPT: Duration = Duration::from_secs(2);

/// Queues events. Clones share the queue.
#[derive(Clone)]
pub struct EventSender {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued, or the settings changed.
    wake: Notify,
}

impl EventSender {
    /// `node` names this box in each event; `run` is random.
    pub fn new(node: impl Into<String>, run: u64) -> Self {
        let queue = Mutex::new(Queue::new(node, run));
        let wake = Notify::new();
        Self {
            shared: Arc::new(Shared { queue, wake }),
        }
    }

    /// Queues an event. It costs a short lock and never waits.
    pub fn push(&self, kind: &str, fields: Map<String, Value>) {
        self.queue().push(now(), kind, fields);
        self.shared.wake.notify_one();
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Sums since the start.
    pub fn counts(&self) -> Counts {
        self.queue().counts()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        let queue = self.shared.queue.lock();
        queue.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends events in order for as long as it is polled.
    pub async fn deliver(self, client: HttpsClient, mut settings: watch::Receiver<Settings>) {
        let mut failing = false;
        loop {
            let current = settings.borrow_and_update().clone();
            let due = match current.url {
                Some(_) => self.queue().next_timeout(Instant::now()),
                None => None,
            };
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.shared.wake.notified() => continue,
                changed = settings.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            self.attempt(&client, &current, &mut failing).await;
        }
    }

    /// Sends what waits once more, without retries: the box ends.
    pub async fn flush(&self, client: &HttpsClient, settings: &Settings) {
        let all = async {
            let mut failing = false;
            while settings.url.is_some() && !failing && !self.queue().is_empty() {
                self.attempt(client, settings, &mut failing).await;
            }
        };
        let _ = tokio::time::timeout(LAST_ATTEMPT, all).await;
    }

    async fn attempt(&self, client: &HttpsClient, settings: &Settings, failing: &mut bool) {
        let Some(body) = self.queue().next_batch(now()) else {
            return;
        };
        // The task may be ended while the POST is under way: the batch then counts as failed.
        let mut under_way = UnderWay {
            sender: self,
            outcome: Outcome::Failed(None),
        };
        let answered = post(client, settings, settings.url.as_ref(), body).await;
        let problem = match answered {
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
                if std::mem::take(failing) {
                    tracing::info!("hooks.url takes events again");
                }
            }
            Some(problem) if !*failing => {
                *failing = true;
                tracing::warn!(%problem, "hooks.url does not take events; they wait and are sent again");
            }
            Some(problem) => tracing::debug!(%problem, "hooks.url still does not take events"),
        }
    }
}

/// Reports the outcome of a batch to the queue, whatever ends the attempt.
struct UnderWay<'a> {
    sender: &'a EventSender,
    outcome: Outcome,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let jitter = rand::random();
        self.sender.queue().finished(now(), self.outcome, jitter);
    }
}

/// An answer, as far as it matters here.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) cache_control: Option<String>,
    pub(super) body: Bytes,
}

/// Sends a signed POST.
pub(super) async fn post(
    client: &HttpsClient,
    settings: &Settings,
    url: Option<&hyper::Uri>,
    body: String,
) -> Result<Answered, String> {
    let url = url.ok_or("no URL is set")?.clone();
    let unix_s = now().unix_ms / 1000;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::USER_AGENT,
            concat!("callbox/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(secret) = &settings.secret {
        let secret = secret.expose_secret().as_bytes();
        request = request.header(
            signature::HEADER,
            signature::sign(secret, unix_s, body.as_bytes()),
        );
    }
    let request = request.body(Full::from(body)).map_err(|e| e.to_string())?;
    let limits = Limits {
        timeout: settings.timeout.unwrap_or(LIMITS.timeout),
        ..LIMITS
    };
    let response = client
        .send(request, limits)
        .await
        .map_err(|e| e.to_string())?;
    let text = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    Ok(Answered {
        status: response.status(),
        retry_after: text(header::RETRY_AFTER)
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
        cache_control: text(header::CACHE_CONTROL).map(str::to_owned),
        body: response.into_body(),
    })
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    Now {
        instant: Instant::now(),
        unix_ms: unix.map_or(0, |since| since.as_millis() as u64),
    }
}
