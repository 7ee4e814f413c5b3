//! Signs tokens as `callbox token` and `callbox doctor` mint them: the counterpart of
//! [`Verifier`](super::token::Verifier) for the shared secret.

use super::Role;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Signs with a shared secret what a [`Verifier`](super::token::Verifier) of the same
/// configuration accepts.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Vec<String>,
}

/// What a new token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bearer {
    /// Who it is; empty: known by its peer id.
    #[serde(rename = "sub", skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Rooms or globs; none: the token is for registering and calling only.
    #[serde(rename = "room", skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// `None` lets the room decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether it may place calls; `None` leaves it to the rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<bool>,
    /// The password that it logged in with ([`People::mark`](super::passwords::People::mark)).
    #[serde(rename = "callbox_login", skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(flatten)]
    bearer: &'a Bearer,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    aud: &'a [String],
}

impl Signer {
    /// Signs with `secret` by the first HMAC algorithm of `algorithms` (HS256 where the list is
    /// empty); `None` where the list has none.
    pub fn new(
        secret: &SecretString,
        algorithms: &[String],
        issuer: Option<String>,
        audience: Vec<String>,
    ) -> Option<Self> {
        let algorithm = if algorithms.is_empty() {
            Algorithm::HS256
        } else {
            algorithms
                .iter()
                .filter_map(|name| Algorithm::from_str(name).ok())
                .find(|algorithm| AlgorithmFamily::Hmac.algorithms().contains(algorithm))?
        };
        Some(Self {
            key: EncodingKey::from_secret(secret.expose_secret().as_bytes()),
            algorithm,
            issuer,
            audience,
        })
    }

    /// Mints a token that is good from `now` (Unix seconds) for `ttl`; returns it with its expiry.
    pub fn sign(&self, bearer: &Bearer, now: u64, ttl: Duration) -> (String, u64) {
        let exp = now.saturating_add(ttl.as_secs());
        let claims = Claims {
            bearer,
            iat: now,
            exp,
            iss: self.issuer.as_deref(),
            aud: &self.audience,
        };
        let token = jsonwebtoken::encode(&Header::new(self.algorithm), &claims, &self.key)
            .expect("an HMAC key signs any claims");
        (token, exp)
    }
}

/// Names no key material.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token::{TokenError, Verifier};

    const NOW: u64 = 1_700_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn bearer() -> Bearer {
        Bearer {
            identity: "alice".into(),
            rooms: vec!["team-*".into()],
            role: Some(Role::Host),
            call: Some(true),
            login: None,
        }
    }

    #[test]
    fn what_is_signed_verifies_until_it_expires() {
        let secret = SecretString::from("0123456789abcdef0123456789abcdef");
        let (issuer, audience) = (Some("app".to_owned()), vec!["box".to_owned()]);
        let algorithms = ["RS256".to_owned(), "HS512".to_owned()];
        let mut verifier = Verifier::new(issuer.clone(), audience.clone(), 0);
        verifier.add_secret(&secret);
        verifier.restrict(&["HS512".to_owned()]).unwrap();
        let signer = Signer::new(&secret, &algorithms, issuer, audience).unwrap();
        let (token, expiry) = signer.sign(&bearer(), NOW, HOUR);
        assert_eq!(expiry, NOW + 3600);
        let grant = verifier.verify(&token, NOW).unwrap();
        assert_eq!(grant.identity.as_deref(), Some("alice"));
        assert!(grant.rooms.allows("team-42") && grant.call);
        assert_eq!(grant.role, Some(Role::Host));
        assert_eq!(verifier.verify(&token, expiry), Err(TokenError::Expired(0)));
    }

    #[test]
    fn a_secret_that_may_not_sign_makes_no_signer() {
        let secret = SecretString::from("s");
        assert!(Signer::new(&secret, &["ES256".to_owned()], None, vec![]).is_none());
    }

    #[test]
    fn no_secret_is_printed() {
        let signer = Signer::new(&"north".into(), &[], None, vec![]).unwrap();
        assert!(!format!("{signer:?}").contains("north"));
    }
}
