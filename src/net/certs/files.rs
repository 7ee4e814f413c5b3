//! A PEM pair on disk, watched: a renewed pair is shown, a broken one is logged and passed over.

use super::{CertStore, Identity};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a renewed pair waits at most. Contents are compared, not times: renewals replace
/// files, links or whole directories, on file systems that all notify differently.
const POLL: Duration = Duration::from_secs(10);

/// `tls.cert` and `tls.key`.
pub struct PemFiles {
    cert: PathBuf,
    key: PathBuf,
    /// Of the contents last tried.
    fingerprint: [u8; 32],
}

impl PemFiles {
    /// Reads the pair for the first time and shows it.
    ///
    /// # Errors
    /// The pair cannot be read or used; the message names the file.
    pub fn open(cert: &Path, key: &Path, store: &CertStore) -> Result<Self, String> {
        let mut files = Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            fingerprint: [0; 32],
        };
        let (chain, key) = files.read()?;
        files.fingerprint = fingerprint(&chain, &key);
        store.install(files.parse(&chain, &key)?);
        Ok(files)
    }

    /// Follows changes, at once when `poke` is notified; ends with the runtime.
    pub async fn watch(mut self, store: &CertStore, poke: &Notify) {
        loop {
            let _ = tokio::time::timeout(POLL, poke.notified()).await;
            match self.look() {
                Ok(None) => {}
                Ok(Some(identity)) => {
                    for remark in &identity.remarks {
                        tracing::warn!("{}: {remark}", self.cert.display());
                    }
                    store.install(identity);
                    tracing::info!(cert = %self.cert.display(), "serving a renewed certificate");
                }
                Err(error) => {
                    store.count_failure();
                    tracing::error!("{error}; the certificate in use stays");
                }
            }
        }
    }

    /// The pair if it has changed since it was last tried.
    fn look(&mut self) -> Result<Option<Identity>, String> {
        let pair = self.read();
        // A pair that cannot be read is logged once, too, and tried again when it can be.
        let fingerprint = match &pair {
            Ok((chain, key)) => fingerprint(chain, key),
            Err(error) => fingerprint(error.as_bytes(), &[]),
        };
        if fingerprint == self.fingerprint {
            return Ok(None);
        }
        self.fingerprint = fingerprint;
        let (chain, key) = pair?;
        self.parse(&chain, &key).map(Some)
    }

    /// Files of a few KiB on a local disk: not worth a thread.
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let unreadable =
            |path: &Path, error: io::Error| format!("cannot read {}: {error}", path.display());
        let chain = std::fs::read(&self.cert).map_err(|error| unreadable(&self.cert, error))?;
        let key = std::fs::read(&self.key).map_err(|error| unreadable(&self.key, error))?;
        Ok((chain, key))
    }

    fn parse(&self, chain: &[u8], key: &[u8]) -> Result<Identity, String> {
        Identity::from_pem(chain, key).map_err(|error| {
            let (cert, key) = (self.cert.display(), self.key.display());
            format!("cannot use {cert} with {key}: {error}")
        })
    }
}

fn fingerprint(chain: &[u8], key: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(chain.len().to_be_bytes());
    hash.update(chain);
    hash.update(key);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Disk {
        dir: tempfile::TempDir,
        store: Arc<CertStore>,
    }

    impl Disk {
        fn new() -> Self {
            let disk = Self {
                dir: tempfile::tempdir().unwrap(),
                store: Arc::default(),
            };
            disk.renew("a.example");
            disk
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn renew(&self, name: &str) {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(self.path("cert"), made.cert.pem()).unwrap();
            std::fs::write(self.path("key"), made.signing_key.serialize_pem()).unwrap();
        }

        fn open(&self) -> Result<PemFiles, String> {
            PemFiles::open(&self.path("cert"), &self.path("key"), &self.store)
        }

        fn names(&self, host: &str) -> bool {
            self.store.current().unwrap().names(host)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_pair_is_shown_and_a_broken_one_is_not() {
        let disk = Disk::new();
        let files = disk.open().unwrap();
        let store = Arc::clone(&disk.store);
        let watcher = tokio::spawn(async move { files.watch(&store, &Notify::new()).await });
        assert!(disk.names("a.example"));

        disk.renew("b.example");
        tokio::time::advance(POLL).await;
        disk.store
            .watch()
            .wait_for(|i| i.as_ref().unwrap().names("b.example"))
            .await
            .unwrap();

        std::fs::write(disk.path("key"), "nonsense").unwrap();
        while disk.store.failures() == 0 {
            tokio::time::advance(POLL).await;
            tokio::task::yield_now().await;
        }
        assert!(disk.names("b.example"), "the old one stays");
        for _ in 0..5 {
            tokio::time::advance(POLL).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(
            disk.store.failures(),
            1,
            "the same broken pair is logged once"
        );

        disk.renew("c.example");
        let mut seen = disk.store.watch();
        seen.wait_for(|i| i.as_ref().unwrap().names("c.example"))
            .await
            .unwrap();
        watcher.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_poke_does_not_wait_for_the_poll() {
        let disk = Disk::new();
        let files = disk.open().unwrap();
        let poke = Arc::new(Notify::new());
        let (store, poked) = (Arc::clone(&disk.store), Arc::clone(&poke));
        let watcher = tokio::spawn(async move { files.watch(&store, &poked).await });
        disk.renew("b.example");
        let before = tokio::time::Instant::now();
        poke.notify_one();
        let mut seen = disk.store.watch();
        seen.wait_for(|i| i.as_ref().unwrap().names("b.example"))
            .await
            .unwrap();
        assert!(before.elapsed() < POLL);
        watcher.abort();
    }

    #[test]
    fn the_first_pair_has_to_be_good() {
        let disk = Disk::new();
        std::fs::remove_file(disk.path("key")).unwrap();
        let error = disk.open().err().unwrap();
        assert!(
            error.contains("cannot read") && error.contains("key"),
            "{error}"
        );
        std::fs::write(disk.path("key"), "").unwrap();
        let error = disk.open().err().unwrap();
        assert!(error.contains("cannot use"), "{error}");
        assert!(disk.store.current().is_none());
    }
}
