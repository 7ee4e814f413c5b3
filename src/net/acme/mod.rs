//! Certificates by ACME (RFC 8555): ordered, cached on disk, renewed ahead of time.
//!
//! A name is proven by TLS-ALPN-01 (RFC 8737) on the TLS port itself. Every failure is logged,
//! counted and tried again; the certificate in use stays.

mod cache;
mod https;
mod order;

use super::certs::{CertStore, Identity};
use crate::clock::unix_now;
use crate::config::Acme;
use cache::Cache;
use rand::RngExt;
use std::time::Duration;

/// The first pause after a failed order; each further one is twice as long. Let's Encrypt allows
/// five failed validations an hour for an account and a name.
const FIRST_RETRY: Duration = Duration::from_secs(120);
/// The longest such pause.
const LAST_RETRY: Duration = Duration::from_secs(6 * 3600);
/// The longest sleep at once: a suspended machine's clock jumps.
const MAX_SLEEP: Duration = Duration::from_secs(3600);
/// How long one order may take, from the account to the certificate.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);

/// The certificates of one box at one authority.
pub struct AcmeOrders {
    acme: Acme,
    cache: Cache,
}

impl AcmeOrders {
    /// Prepares the cache, and shows the certificate in it if there is a good one.
    ///
    /// # Errors
    /// The cache cannot be used; the message says why.
    pub fn open(acme: &Acme, store: &CertStore) -> Result<Self, String> {
        let cache = Cache::open(&acme.cache, &acme.directory, &acme.domains)?;
        if let Some(pem) = cache.certificate() {
            match Identity::from_pem(&pem, &pem) {
                Ok(identity) if identity.not_after > unix_now() => store.install(identity),
                Ok(_) => tracing::warn!("the cached certificate has expired"),
                Err(error) => tracing::warn!("the cached certificate cannot be used: {error}"),
            }
        }
        Ok(Self {
            acme: acme.clone(),
            cache,
        })
    }

    /// Orders a certificate whenever one is due; ends with the runtime.
    pub async fn run(self, store: &CertStore) {
        // Boxes that were set up together do not ask together.
        let jitter: f64 = rand::rng().random();
        let mut failures = 0;
        loop {
            if let Some(shown) = store.current() {
                let due = renewal(&shown, jitter);
                while unix_now() < due {
                    tokio::time::sleep(MAX_SLEEP.min(Duration::from_secs(due - unix_now()))).await;
                }
            }
            match self.order(store).await {
                Ok(identity) => {
                    failures = 0;
                    let days = identity.days_left(unix_now());
                    tracing::info!(domains = ?self.acme.domains, days, "certificate ordered");
                    store.install(identity);
                }
                Err(error) => {
                    store.count_failure();
                    let pause = retry(failures, jitter);
                    failures += 1;
                    tracing::error!(
                        domains = ?self.acme.domains,
                        again_in = %humantime::format_duration(pause),
                        "no certificate from {}: {error}", self.acme.directory
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn order(&self, store: &CertStore) -> Result<Identity, String> {
        let ordered = tokio::time::timeout(ORDER_TIMEOUT, self.order_pem(store)).await;
        store.forget_challenges();
        let pem = ordered.map_err(|_| "it took too long")??;
        let identity =
            Identity::from_pem(pem.as_bytes(), pem.as_bytes()).map_err(|e| e.to_string())?;
        if let Err(error) = self.cache.save_certificate(&pem) {
            tracing::warn!("{error}; the next start will order another certificate");
        }
        Ok(identity)
    }

    async fn order_pem(&self, store: &CertStore) -> Result<String, String> {
        let domains = &self.acme.domains;
        if let Some(credentials) = self.cache.account() {
            let ordered = match order::restore(https::client()?, credentials).await {
                Ok(account) => order::place(&account, domains, store).await,
                Err(error) => Err(error),
            };
            match ordered {
                Err(error) if order::is_unknown_account(&error) => {
                    tracing::warn!(
                        "the authority does not know the cached account; making another"
                    );
                }
                ordered => return ordered.map_err(|error| order::words(&error)),
            }
        }
        let registered = order::register(https::client()?, &self.acme).await;
        let (account, credentials) = registered.map_err(|error| order::words(&error))?;
        self.cache.save_account(&credentials)?;
        let ordered = order::place(&account, domains, store).await;
        ordered.map_err(|error| order::words(&error))
    }
}

/// When to renew (Unix seconds): at two thirds of the certificate's life as Let's Encrypt advises,
/// or up to a twentieth of it sooner. `jitter` is between 0 and 1.
fn renewal(identity: &Identity, jitter: f64) -> u64 {
    let life = identity.not_after.saturating_sub(identity.not_before);
    let sooner = (life as f64 / 20.0 * jitter) as u64;
    identity.not_before + life * 2 / 3 - sooner
}

/// How long to wait after `failures` failed orders and one more. `jitter` is between 0 and 1.
fn retry(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures));
    let pause = doubled.min(LAST_RETRY).mul_f64(1.0 + jitter / 4.0);
    Duration::from_secs(pause.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn pem(domains: &[String], not_after: i32) -> String {
        let mut params = rcgen::CertificateParams::new(domains).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
    }

    fn acme(cache: &Path) -> Acme {
        Acme {
            email: None,
            directory: "https://acme.example/directory".into(),
            cache: cache.to_owned(),
            domains: vec!["call.example.org".into()],
        }
    }

    #[test]
    fn a_cached_certificate_is_shown_at_once_if_it_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(dir.path());
        let shown = |pem: Option<String>| {
            let store = CertStore::default();
            let orders = AcmeOrders::open(&acme, &store).unwrap();
            if let Some(pem) = pem {
                orders.cache.save_certificate(&pem).unwrap();
                AcmeOrders::open(&acme, &store).unwrap();
            }
            store.current().is_some()
        };
        assert!(!shown(None));
        assert!(!shown(Some(pem(&acme.domains, 2021))), "expired");
        assert!(!shown(Some("nonsense".into())));
        assert!(shown(Some(pem(&acme.domains, 2100))));
    }

    #[test]
    fn pauses_double_up_to_six_hours() {
        assert_eq!(retry(0, 0.0), FIRST_RETRY);
        assert_eq!(retry(3, 0.0), FIRST_RETRY * 8);
        assert_eq!(retry(u32::MAX, 0.0), LAST_RETRY);
        assert_eq!(retry(0, 1.0), FIRST_RETRY + FIRST_RETRY / 4);
    }

    proptest! {
        #[test]
        fn renewal_comes_in_the_last_third_or_shortly_before(jitter in 0.0..1.0) {
            let pem = pem(&["a.example".into()], 2021);
            let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
            let life = identity.not_after - identity.not_before;
            let used = (renewal(&identity, jitter) - identity.not_before) as f64 / life as f64;
            prop_assert!((0.61..=0.67).contains(&used), "{used}");
        }
    }
}
