//! The signing keys of an identity provider: fetched from its `jwks_uri`, kept, and fetched again.
//!
//! The last good set stays while the provider cannot be reached. A key that is not in the set has
//! it fetched anew, at most once each [`COOLDOWN`].

use super::https::{HttpsClient, HttpsError, Judge, Limits};
use crate::auth::token::KeySet;
use hyper::header::{CACHE_CONTROL, HeaderMap, LOCATION};
use hyper::{StatusCode, Uri};
use rustls::ClientConfig;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What one fetch may take. A set of a hundred RSA keys of 4,096 bits has less than 128 KiB.
const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(5),
    body: 256 << 10,
};
/// How long a set is used before it is fetched again, where `Cache-Control` does not say.
const MAX_AGE: Duration = Duration::from_secs(600);
/// The least and the most that `Cache-Control: max-age` can ask for. A key that the provider
/// revoked is good here for an hour at most.
const SHORTEST_AGE: Duration = Duration::from_secs(60);
const LONGEST_AGE: Duration = Duration::from_secs(3600);
/// Between two fetches that unknown keys ask for: strangers can name any key.
const COOLDOWN: Duration = Duration::from_secs(10);
/// The first pause after a failed fetch; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest such pause.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// What to say where keys are awaited.
pub const NO_KEYS: &str = "the keys of auth.jwks have not been fetched yet, so that no token of theirs can be checked; \
     the log says why";

/// Makes the TLS side of the client, by the authorities that are trusted at that moment.
pub type Trust = Arc<dyn Fn() -> Result<ClientConfig, String> + Send + Sync>;

/// The keys of `auth.jwks` where it is a URL; clones share them.
#[derive(Clone)]
pub struct RemoteKeys {
    state: watch::Sender<State>,
    asked: Arc<Notify>,
    trust: Trust,
    cooldown: Duration,
}

#[derive(Debug, Clone)]
struct State {
    url: Option<Uri>,
    set: Option<Arc<KeySet>>,
    /// Fetches that have ended.
    fetches: u64,
    /// A fetch is under way, or about to begin.
    is_fetching: bool,
    /// Until then unknown keys ask for nothing.
    quiet_until: Instant,
}

impl RemoteKeys {
    /// Holds no key until [`RemoteKeys::run`] has fetched some from `url`.
    pub fn new(url: Option<Uri>, trust: Trust) -> Self {
        Self {
            state: watch::Sender::new(State {
                is_fetching: url.is_some(),
                url,
                set: None,
                fetches: 0,
                quiet_until: Instant::now(),
            }),
            asked: Arc::default(),
            trust,
            cooldown: COOLDOWN,
        }
    }

    /// Takes another URL; the keys of the one before are dropped.
    pub fn set_url(&self, url: Option<Uri>) {
        self.state.send_if_modified(|state| {
            let is_new = state.url != url;
            if is_new {
                state.is_fetching = url.is_some();
                state.url = url;
                state.set = None;
            }
            is_new
        });
    }

    /// The last good set.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().set.clone()
    }

    /// Whether there is a URL, and no set came from it yet.
    pub fn are_awaited(&self) -> bool {
        let state = self.state.borrow();
        state.url.is_some() && state.set.is_none()
    }

    /// Has the set fetched for a key that it lacks. The future ends with the fetch. `None`: the set
    /// was fetched just now, or is not to be fetched yet.
    pub fn refresh(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut seen = self.state.subscribe();
        let before = {
            let state = self.state.borrow();
            let is_quiet = Instant::now() < state.quiet_until;
            if state.url.is_none() || !state.is_fetching && is_quiet {
                return None;
            }
            if !state.is_fetching {
                self.asked.notify_one();
            }
            state.fetches
        };
        Some(async move {
            let ended = seen.wait_for(|state| state.fetches != before);
            // The fetch has its own deadline; this one is for a task that has ended.
            let _ = tokio::time::timeout(LIMITS.timeout * 2, ended).await;
        })
    }

    /// Fetches whenever it is due; ends with the runtime.
    pub async fn run(self) {
        let mut seen = self.state.subscribe();
        let mut failures = 0;
        let mut last_problem = String::new();
        loop {
            let Some(url) = seen.borrow_and_update().url.clone() else {
                if seen.wait_for(|state| state.url.is_some()).await.is_err() {
                    return;
                }
                continue;
            };
            self.state.send_modify(|state| state.is_fetching = true);
            let fetched = fetch(&url, &self.trust).await;
            let is_current = self.state.borrow().url.as_ref() == Some(&url);
            let pause = match &fetched {
                Ok((_, age)) => {
                    failures = 0;
                    last_problem.clear();
                    *age
                }
                Err(problem) => {
                    if is_current && *problem != last_problem {
                        let kept = match self.current() {
                            Some(_) => "the keys in use stay",
                            None => "tokens signed with its keys are refused",
                        };
                        tracing::warn!("cannot use auth.jwks {url}: {problem}; {kept}");
                        last_problem.clone_from(problem);
                    }
                    failures += 1;
                    retry(failures - 1)
                }
            };
            let quiet = match fetched {
                Ok(_) => self.cooldown,
                Err(_) => pause,
            };
            self.state.send_modify(|state| {
                state.is_fetching = false;
                state.fetches += 1;
                state.quiet_until = Instant::now() + quiet;
                if let (true, Ok((set, _))) = (is_current, fetched) {
                    state.set = Some(Arc::new(set));
                }
            });
            if !is_current {
                failures = 0;
                continue;
            }
            let moved = async {
                let other = seen.wait_for(|state| state.url.as_ref() != Some(&url));
                other.await.is_ok()
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked.notified() => {}
                is_alive = moved => match is_alive {
                    true => failures = 0,
                    false => return,
                },
            }
        }
    }
}

/// How long to wait after `failures` failed fetches and one more.
fn retry(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(LAST_RETRY)
}

/// One set, and how long it may be used.
async fn fetch(url: &Uri, trust: &Trust) -> Result<(KeySet, Duration), String> {
    // Without TLS anybody on the way could put keys in: then only this machine is asked.
    let judge: Option<Judge> = match url.scheme_str() {
        Some("https") => None,
        _ => Some(Arc::new(|ip: IpAddr| ip.is_loopback())),
    };
    let client = HttpsClient::new(trust()?, judge);
    let answer = client.get(url, LIMITS).await.map_err(|error| match error {
        HttpsError::Refused(_) => "plain http is for loopback addresses only".to_owned(),
        other => other.to_string(),
    })?;
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            let target = answer.headers().get(LOCATION);
            let target = target.and_then(|target| target.to_str().ok());
            return Err(format!(
                "it redirects to {}: name that URL",
                target.unwrap_or("another place")
            ));
        }
        status => return Err(format!("the answer is {status}")),
    }
    let text = std::str::from_utf8(answer.body()).map_err(|_| "the answer is not UTF-8")?;
    let set = KeySet::parse(text).map_err(|reason| format!("the answer {reason}"))?;
    Ok((set, max_age(answer.headers())))
}

/// `max-age` of RFC 9111 section 5.2.2.1, within bounds.
fn max_age(headers: &HeaderMap) -> Duration {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    let seconds = directives.find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        let is_age = name.eq_ignore_ascii_case("max-age");
        is_age.then(|| value.trim_matches('"').parse().ok())?
    });
    seconds.map_or(MAX_AGE, |seconds| {
        Duration::from_secs(seconds).clamp(SHORTEST_AGE, LONGEST_AGE)
    })
}

#[cfg(test)]
mod tests;
