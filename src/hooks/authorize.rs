//! Asks `hooks.authorize`: bounded in number and time, answers kept for as long as they say.

use super::Settings;
use super::question::{Answer, Kept, Question, kept_for};
use super::request::{self, Answered};
use crate::auth::Role;
use crate::net::https::HttpsClient;
use crate::network::NetworkCounts;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Questions under way at most. A question beyond them is answered `rate-limited` at once.
const MAX_QUESTIONS: usize = 1_024;
/// Those of one network's clients among them ([`NetworkCounts`]).
const MAX_OF_NETWORK: u32 = 128;
/// How long the backend may take to answer.
const TIMEOUT: Duration = Duration::from_millis(2_800);

/// What a question comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The client may go on.
    Allow {
        /// The role in the room, in place of the token's.
        role: Option<Role>,
        /// The metadata, in place of the token's and the client's.
        metadata: Option<Value>,
    },
    /// The client may not; the reason reaches it.
    Deny(String),
    /// Too many questions are under way: the client may try again.
    Busy,
}

/// What the authorizer has counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions that the backend or a kept answer allowed.
    pub allowed: AtomicU64,
    /// Questions that the backend or a kept answer denied.
    pub denied: AtomicU64,
    /// Questions without a usable answer.
    pub failed: AtomicU64,
    /// Questions that were not asked: too many were under way.
    pub busy: AtomicU64,
}

impl Counters {
    /// Allowed, denied, failed and busy ones.
    pub fn all(&self) -> [u64; 4] {
        self.each().map(|count| count.load(Ordering::Relaxed))
    }

    /// Goes on from what an earlier process counted.
    pub fn add(&self, earlier: [u64; 4]) {
        for (count, earlier) in self.each().into_iter().zip(earlier) {
            count.fetch_add(earlier, Ordering::Relaxed);
        }
    }

    fn each(&self) -> [&AtomicU64; 4] {
        [&self.allowed, &self.denied, &self.failed, &self.busy]
    }
}

/// Asks `hooks.authorize`.
pub struct Authorizer {
    client: HttpsClient,
    settings: watch::Receiver<Settings>,
    kept: Mutex<Kept>,
    slots: Semaphore,
    networks: Mutex<NetworkCounts>,
    failing: AtomicBool,
    counters: Counters,
}

impl Authorizer {
    /// Asks through `client` at the URL of the current settings.
    pub fn new(client: HttpsClient, settings: watch::Receiver<Settings>) -> Self {
        Self {
            client,
            settings,
            kept: Mutex::default(),
            slots: Semaphore::new(MAX_QUESTIONS),
            networks: Mutex::default(),
            failing: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Whether there is somebody to ask.
    pub fn is_on(&self) -> bool {
        self.settings.borrow().authorize.is_some()
    }

    /// Sums since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Forgets kept answers: the settings have changed.
    pub fn clear(&self) {
        self.kept().clear();
    }

    /// Asks about what `client` wants, unless the answer is still known.
    pub async fn ask(&self, client: IpAddr, question: &Question) -> Decision {
        let settings = self.settings.borrow().clone();
        if settings.authorize.is_none() {
            return decision(Answer {
                allow: true,
                role: None,
                metadata: None,
                reason: None,
            });
        }
        let kept = self.kept().get(Instant::now(), question);
        let answer = match kept {
            Some(answer) => answer,
            None => {
                let Some(_slot) = self.slot(client) else {
                    self.counters.busy.fetch_add(1, Ordering::Relaxed);
                    return Decision::Busy;
                };
                match self.fetch(&settings, question).await {
                    Ok(answer) => answer,
                    Err(problem) => return self.without_answer(&settings, &problem),
                }
            }
        };
        let counter = match answer.allow {
            true => &self.counters.allowed,
            false => &self.counters.denied,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        decision(answer)
    }

    /// A place among the questions under way, charged to the client's network.
    fn slot(&self, client: IpAddr) -> Option<Slot<'_>> {
        let place = self.slots.try_acquire().ok()?;
        let networks = &self.networks;
        let is_free = locked(networks).take(client, MAX_OF_NETWORK, MAX_QUESTIONS as u32);
        is_free.then_some(Slot {
            _place: place,
            networks,
            client,
        })
    }

    async fn fetch(&self, settings: &Settings, question: &Question) -> Result<Answer, String> {
        let url = settings.authorize.clone();
        let Answered {
            status,
            cache_control,
            body,
            ..
        } = request::ask(
            &self.client,
            settings,
            url.as_ref(),
            question.body(),
            TIMEOUT,
        )
        .await?;
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        let answer = Answer::parse(&body)?;
        // An answer that was under way while the settings changed says nothing of the new ones.
        let is_present = self.settings.borrow().authorize == settings.authorize;
        if let Some(time) = cache_control
            .as_deref()
            .and_then(kept_for)
            .filter(|_| is_present)
        {
            self.kept()
                .put(Instant::now(), question, answer.clone(), time);
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("hooks.authorize answers again");
        }
        Ok(answer)
    }

    fn without_answer(&self, settings: &Settings, problem: &str) -> Decision {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(%problem, "hooks.authorize gives no answer");
        } else {
            let then = match settings.fail_open {
                true => "everybody is let in (hooks.fail_open)",
                false => "newcomers are refused",
            };
            tracing::warn!(%problem, "hooks.authorize gives no answer: {then}");
        }
        match settings.fail_open {
            true => Decision::Allow {
                role: None,
                metadata: None,
            },
            false => Decision::Deny("the application does not answer".into()),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question under way.
struct Slot<'a> {
    _place: SemaphorePermit<'a>,
    networks: &'a Mutex<NetworkCounts>,
    client: IpAddr,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        locked(self.networks).give_back(self.client);
    }
}

fn locked(networks: &Mutex<NetworkCounts>) -> MutexGuard<'_, NetworkCounts> {
    networks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decision(answer: Answer) -> Decision {
    match answer.allow {
        true => Decision::Allow {
            role: answer.role,
            metadata: answer.metadata,
        },
        false => Decision::Deny(
            answer
                .reason
                .unwrap_or_else(|| "the application refuses this".into()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::https::trust;

    #[test]
    fn the_questions_of_one_network_leave_places_to_others() {
        let client = HttpsClient::new(trust(rustls::RootCertStore::empty()), None);
        let (_settings, settings) = watch::channel(Settings::default());
        let authorizer = Authorizer::new(client, settings);
        let ip = |text: &str| text.parse().unwrap();
        let mut held = vec![];
        while let Some(slot) = authorizer.slot(ip("192.0.2.1")) {
            held.push(slot);
        }
        assert_eq!(held.len(), 128);
        assert!(authorizer.slot(ip("198.51.100.1")).is_some());
        held.clear();
        assert!(authorizer.slot(ip("192.0.2.1")).is_some());
    }
}
