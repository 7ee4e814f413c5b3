//! What the TLS port shows: one certificate, exchanged while connections run, and the short-lived
//! ones that prove a name to an ACME authority.

mod chain;
mod error;
mod files;
mod form;
mod identity;
mod provider;

pub use error::IdentityError;
pub use files::PemFiles;
pub use identity::Identity;
pub(super) use provider::provider;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// RFC 8737 section 6.2: the protocol under which an authority asks for its challenge.
pub(super) const ACME_ALPN: &[u8] = b"acme-tls/1";
/// How often the expiry is looked at.
const EXPIRY_CHECK: Duration = Duration::from_secs(12 * 3600);

/// The certificates of the TLS port.
#[derive(Default)]
pub struct CertStore {
    current: watch::Sender<Option<Arc<Identity>>>,
    /// By domain; at most as many as `tls.acme.domains`, for the length of one order.
    challenges: Mutex<HashMap<String, Arc<CertifiedKey>>>,
    failures: AtomicU64,
}

impl CertStore {
    /// Shows `identity` to every connection that comes from here on.
    pub fn install(&self, identity: Identity) {
        self.current.send_replace(Some(Arc::new(identity)));
    }

    /// What is shown, if there is anything yet.
    pub fn current(&self) -> Option<Arc<Identity>> {
        self.current.borrow().clone()
    }

    /// Announces every [`CertStore::install`].
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.current.subscribe()
    }

    /// Pairs refused and orders failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Goes on from what an earlier process counted.
    pub fn add_failures(&self, earlier: u64) {
        self.failures.fetch_add(earlier, Ordering::Relaxed);
    }

    /// The TLS side of the port: versions and suites are rustls's defaults.
    pub(super) fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> ServerConfig {
        let resolver: Arc<Self> = Arc::clone(self);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for the default versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// Warns while the certificate is about to expire, or has; ends with the runtime.
    pub async fn watch_expiry(&self, unix_now: impl Fn() -> u64) {
        let mut seen = self.watch();
        loop {
            if let Some(identity) = self.current().filter(|i| i.expires_soon(unix_now())) {
                match identity.days_left(unix_now()) {
                    days @ 0.. => tracing::warn!(days, "the TLS certificate expires soon"),
                    days => tracing::error!(days, "the TLS certificate has expired"),
                }
            }
            let _ = tokio::time::timeout(EXPIRY_CHECK, seen.changed()).await;
        }
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answer_challenge(&self, domain: &str, key: CertifiedKey) {
        self.challenges()
            .insert(domain.to_lowercase(), Arc::new(key));
    }

    pub(super) fn forget_challenges(&self) {
        self.challenges().clear();
    }

    fn challenges(&self) -> MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737 section 3: an authority offers `acme-tls/1` and nothing else.
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.next() == Some(ACME_ALPN) && offered.next().is_none() {
            let domain = hello.server_name()?.to_lowercase();
            return self.challenges().get(&domain).cloned();
        }
        self.current().map(|identity| Arc::clone(&identity.key))
    }
}

impl fmt::Debug for CertStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertStore")
            .field("current", &*self.current.borrow())
            .finish_non_exhaustive()
    }
}
