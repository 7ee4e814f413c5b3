//! The certificate that the box shows, and the names it is good for.

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A certificate and what TLS servers do with it.
#[derive(Clone)]
pub struct Identity {
    /// For accepting connections.
    pub config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
}

/// Why a certificate cannot be used; names the key and the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TlsError {
    #[error("tls.cert names {path}, which could not be read: {reason}")]
    Certificate { path: PathBuf, reason: String },
    #[error("tls.key names {path}, which could not be read: {reason}")]
    Key { path: PathBuf, reason: String },
    #[error("tls.cert and tls.key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
}

impl Identity {
    /// Reads a certificate chain and its key from PEM files.
    ///
    /// # Errors
    /// A file cannot be read, holds nothing of its kind, or the key is another one's.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let unreadable = |reason: String| TlsError::Certificate {
            path: cert.into(),
            reason,
        };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(error.to_string()))?;
        let leaf = chain.first().cloned();
        let leaf = leaf.ok_or_else(|| unreadable("it holds no certificate".into()))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key {
            path: key.into(),
            reason: error.to_string(),
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self {
            config: Arc::new(config),
            leaf,
        })
    }

    /// Tells whether a client that asks for `host` accepts the certificate's name.
    pub fn names(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else {
            return false;
        };
        ParsedCertificate::try_from(&self.leaf)
            .is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pair(names: &[&str]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (cert, key) = (
            directory.path().join("cert.pem"),
            directory.path().join("key.pem"),
        );
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.key_pair.serialize_pem()).unwrap();
        (directory, cert, key)
    }

    #[test]
    fn a_certificate_is_good_for_the_names_it_bears() {
        let (_directory, cert, key) = pair(&["call.example.org", "192.0.2.1"]);
        let identity = Identity::load(&cert, &key).unwrap();
        assert!(identity.names("call.example.org"));
        assert!(identity.names("192.0.2.1"));
        assert!(!identity.names("example.org"));
        assert!(!identity.names("192.0.2.2"));
        assert!(!identity.names("not a name"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (_directory, cert, key) = pair(&["a.example"]);
        let (_other_directory, _, other_key) = pair(&["a.example"]);
        let error = |cert: &Path, key: &Path| Identity::load(cert, key).err().unwrap().to_string();
        assert!(error(Path::new("/nonexistent"), &key).starts_with("tls.cert names /nonexistent"));
        assert!(error(&cert, &cert).starts_with("tls.key names "));
        assert!(error(&key, &key).contains("holds no certificate"));
        assert!(error(&cert, &other_key).starts_with("tls.cert and tls.key"));
    }
}
