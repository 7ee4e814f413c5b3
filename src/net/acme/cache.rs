//! The account and the certificate on disk, readable by this user only.
//!
//! Files are named by what they belong to, so that another authority (a staging one) or other
//! names never meet them.

use crate::file;
use instant_acme::AccountCredentials;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(super) struct Cache {
    account: PathBuf,
    certificate: PathBuf,
}

impl Cache {
    /// Makes the directory if need be, and makes sure that it can be written to: an order whose
    /// certificate cannot be kept is one that counts against the authority's limits in vain.
    pub(super) fn open(dir: &Path, directory: &str, domains: &[String]) -> Result<Self, String> {
        let unusable = |error| {
            let dir = dir.display();
            format!(
                "cannot use the cache {dir}: {error}; make it writable for this user, or set tls.acme.cache"
            )
        };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(unusable)?;
        let mut names = domains.to_vec();
        names.sort();
        let cache = Self {
            account: dir.join(format!("account-{}.json", digest(&[directory]))),
            certificate: dir.join(format!(
                "certificate-{}.pem",
                digest(&[directory, &names.join(",")])
            )),
        };
        file::beside(&dir.join(".writable"))
            .and_then(|(_, probe)| fs::remove_file(probe))
            .map_err(unusable)?;
        Ok(cache)
    }

    /// Key and chain, PEM.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        fs::read(&self.certificate).ok()
    }

    pub(super) fn save_certificate(&self, pem: &str) -> Result<(), String> {
        save(&self.certificate, pem.as_bytes())
    }

    pub(super) fn account(&self) -> Option<AccountCredentials> {
        let json = fs::read(&self.account).ok()?;
        serde_json::from_slice(&json)
            .inspect_err(|error| tracing::warn!("the cached ACME account is unreadable: {error}"))
            .ok()
    }

    pub(super) fn save_account(&self, credentials: &AccountCredentials) -> Result<(), String> {
        let json = serde_json::to_vec(credentials).expect("credentials are plain data");
        save(&self.account, &json)
    }
}

fn digest(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\n"));
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), String> {
    replace(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, beside) = file::beside(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_belong_to_one_authority_and_set_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/cache");
        let open = |directory: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            Cache::open(&path, directory, &names).unwrap()
        };
        open("https://a", &["x", "y"])
            .save_certificate("one")
            .unwrap();
        open("https://a", &["x", "y"])
            .save_certificate("two")
            .unwrap();
        assert_eq!(
            open("https://a", &["y", "x"]).certificate().unwrap(),
            b"two"
        );
        assert!(open("https://b", &["x", "y"]).certificate().is_none());
        assert!(open("https://a", &["x"]).certificate().is_none());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let files: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(mode(&files[0]), 0o600);
    }

    #[test]
    fn a_cache_that_cannot_be_used_is_told_of() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Cache::open(&file.path().join("x"), "https://a", &[])
            .err()
            .unwrap();
        assert!(error.contains("tls.acme.cache"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "https://a", &[]).unwrap();
        fs::write(&cache.account, "nonsense").unwrap();
        assert!(cache.account().is_none());
    }
}
