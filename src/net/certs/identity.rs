//! One certificate with its key, read from PEM: whom it names and how long it is good.

use super::chain;
use super::error::IdentityError;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;
use x509_parser::parse_x509_certificate;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A certificate chain and its key, known to belong together.
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// Unix seconds from which the leaf is good.
    pub not_before: u64,
    /// Unix seconds after which the leaf is refused by clients.
    pub not_after: u64,
    /// What an operator should know of the files, each in words that follow their name.
    pub remarks: Vec<String>,
}

impl Identity {
    /// Reads a chain (leaf first) and its key.
    ///
    /// # Errors
    /// Either is missing or malformed, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain::Pair { key, remarks } = chain::read(chain, key)?;
        let leaf = key.cert.first().ok_or(IdentityError::Empty)?;
        let (_, parsed) = parse_x509_certificate(leaf)
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let validity = parsed.validity();
        let seconds = |time: x509_parser::time::ASN1Time| time.timestamp().try_into().unwrap_or(0);
        let (not_before, not_after) = (seconds(validity.not_before), seconds(validity.not_after));
        ParsedCertificate::try_from(leaf)
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        Ok(Self {
            key: Arc::new(key),
            remarks,
            not_before,
            not_after,
        })
    }

    /// Whether a client that asked for `host` (a name or an address) accepts this
    /// certificate as far as its names go.
    pub fn names(&self, host: &str) -> bool {
        let leaf = self.key.cert.first();
        let parsed = leaf.and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        match (parsed, ServerName::try_from(host)) {
            (Some(leaf), Ok(name)) => rustls::client::verify_server_name(&leaf, &name).is_ok(),
            _ => false,
        }
    }

    /// Whole days until the leaf expires, negative once it has.
    pub fn days_left(&self, unix_now: u64) -> i64 {
        let seconds = self.not_after.cast_signed() - unix_now.cast_signed();
        seconds.div_euclid(DAY.cast_signed())
    }

    /// Whether so little time is left that somebody should look: ten days, or a quarter of
    /// a life that is short by itself.
    pub fn expires_soon(&self, unix_now: u64) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_after.saturating_sub(unix_now) < (10 * DAY).min(life / 4)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn names_are_those_of_the_certificate() {
        let (cert, key) = pair(&[
            "call.example.org",
            "*.example.net",
            "192.0.2.7",
            "2001:db8::7",
        ]);
        let identity = Identity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        for named in [
            "call.example.org",
            "CALL.example.org",
            "a.example.net",
            "192.0.2.7",
            "2001:db8::7",
        ] {
            assert!(identity.names(named), "{named}");
        }
        for foreign in [
            "example.org",
            "example.net",
            "a.b.example.net",
            "192.0.2.8",
            "",
            "not a name",
        ] {
            assert!(!identity.names(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_with_the_reason() {
        let ((cert, key), (_, other)) = (pair(&["a.example"]), pair(&["a.example"]));
        let error = |cert: &str, key: &str| {
            Identity::from_pem(cert.as_bytes(), key.as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(error(&cert, &other).starts_with("certificate and key do not fit"));
        assert!(error(&cert, "").starts_with("the key file is empty"));
        assert!(error("", &key).contains("is empty"));
        assert!(error(&key, &key).contains("is a key"));
        assert!(error("nothing\n", &key).contains("holds no certificate"));
        let torn = &cert[..cert.len() / 2];
        assert!(error(torn, &key).contains("certificate"));
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(error(junk, &key).contains("cannot be read"));
    }

    #[test]
    fn the_time_left_is_told_in_days() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let identity = Identity::from_pem(cert.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let april = 1_775_001_600;
        assert_eq!(identity.not_after, april);
        assert_eq!(identity.days_left(april - 10 * DAY), 10);
        assert_eq!(identity.days_left(april - 1), 0);
        assert_eq!(identity.days_left(april + 1), -1);
        assert!(!identity.expires_soon(april - 10 * DAY));
        assert!(identity.expires_soon(april - 10 * DAY + 1));
        assert!(identity.expires_soon(april + 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(cert: Vec<u8>, key: Vec<u8>) {
            prop_assert!(Identity::from_pem(&cert, &key).is_err());
            let der = |bytes: &[u8], kind: &str| {
                use base64::Engine as _;
                let text = base64::prelude::BASE64_STANDARD.encode(bytes);
                format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
            };
            let pem = der(&cert, "CERTIFICATE");
            let pem_key = der(&key, "PRIVATE KEY");
            prop_assert!(Identity::from_pem(pem.as_bytes(), pem_key.as_bytes()).is_err());
        }
    }
}
