//! Passwords of people as they are kept: Argon2id, in the PHC string format.
//!
//! Hashing takes some twenty milliseconds and 19 MiB, on purpose: callers do it on a thread of its
//! own.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest password, bytes: what is hashed is bounded.
pub const MAX_PASSWORD: usize = 1_024;
/// The most memory that a hash may ask for, KiB: what is verified is bounded as well.
const MAX_MEMORY: u32 = 64 * 1024;
/// The most passes.
const MAX_PASSES: u32 = 16;

/// A hash that no password has, for names that nobody has: both take the same time.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$\
    AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// People who log in, by name, with the hashes of their passwords.
#[derive(Debug, Clone, Default)]
pub struct People(Arc<BTreeMap<String, SecretString>>);

impl People {
    /// Wraps the configured people.
    pub fn new(people: BTreeMap<String, SecretString>) -> Self {
        Self(people.into())
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells the present password of `name` from an earlier one, without showing either.
    pub fn mark(&self, name: &str) -> Option<String> {
        let hash = self.0.get(name)?.expose_secret();
        let digest = Sha256::digest(hash.as_bytes());
        Some(BASE64_URL_SAFE_NO_PAD.encode(&digest[..12]))
    }

    /// [`Self::mark`] of everybody.
    pub fn marks(&self) -> BTreeMap<String, String> {
        let marks = self
            .0
            .keys()
            .filter_map(|name| Some((name.clone(), self.mark(name)?)));
        marks.collect()
    }

    /// Names of an earlier process that are gone, or have another password; `earlier` are its marks.
    pub fn ended_since(&self, earlier: BTreeMap<String, String>) -> Vec<String> {
        let is_other = |name: &str, mark: &str| self.mark(name).as_deref() != Some(mark);
        let ended = earlier
            .into_iter()
            .filter(|(name, mark)| is_other(name, mark));
        ended.map(|(name, _)| name).collect()
    }

    /// Names that are gone, or have another password, in `now`.
    pub fn ended_in<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| self.mark(name) != now.mark(name))
    }

    /// Whether that is the password of `name`. It takes as long for a name that nobody has.
    pub fn verify(&self, name: &str, password: &str) -> bool {
        let hash = self.0.get(name).map(ExposeSecret::expose_secret);
        verify(password, hash.unwrap_or(NOBODY)) && hash.is_some()
    }
}

/// Hashes a password with the parameters that OWASP recommends (19 MiB, two passes).
pub fn hash(password: &str, salt: [u8; 16]) -> String {
    Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .expect("the default parameters take any password and a salt of 16 bytes")
        .to_string()
}

/// Why a text is not a hash that is taken; `None`: it is one.
pub fn fault(hash: &str) -> Option<&'static str> {
    let Ok(parsed) = PasswordHash::new(hash) else {
        return Some("is not an Argon2id hash");
    };
    if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() {
        return Some("is not an Argon2id hash");
    }
    match Params::try_from(&parsed) {
        Ok(params) if params.m_cost() <= MAX_MEMORY && params.t_cost() <= MAX_PASSES => None,
        _ => Some("asks for more than 64 MiB or 16 passes"),
    }
}

fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        let verified = Argon2::default().verify_password(password.as_bytes(), &hash);
        verified.is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_verified_by_its_hash_and_only_by_that() {
        let ann = hash("correct horse", [7; 16]);
        assert_eq!(fault(&ann), None);
        assert_eq!(fault(NOBODY), None);
        let people = People::new([("ann".to_owned(), ann.into())].into());
        assert!(people.verify("ann", "correct horse"));
        assert!(!people.verify("ann", "correct horsf"));
        assert!(!people.verify("bob", "correct horse"));
        assert!(!people.verify("bob", ""));
        assert_ne!(hash("x", [1; 16]), hash("x", [2; 16]));
    }

    #[test]
    fn who_is_gone_or_has_another_password_since_an_earlier_process_is_named() {
        let of = |people: &[(&str, &str)]| {
            let people = people
                .iter()
                .map(|(name, hash)| ((*name).to_owned(), (*hash).into()));
            People::new(people.collect())
        };
        let earlier = of(&[("ann", "1"), ("ben", "2"), ("cat", "3")]).marks();
        let now = of(&[("ann", "1"), ("ben", "4"), ("dan", "5")]);
        assert_eq!(now.ended_since(earlier), ["ben", "cat"]);
        assert!(now.ended_since(now.marks()).is_empty());
    }

    /// Made by the reference implementation:
    /// `printf sesame | argon2 somesaltsomesalt -id -t 2 -k 19456 -p 1 -e`.
    #[test]
    fn hashes_of_the_reference_implementation_are_taken() {
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$HxVFw+aKWINLDjXMNdQoWVf/mnvW6WGFJgmv8EvSGGw";
        assert_eq!(fault(hash), None);
        assert!(verify("sesame", hash) && !verify("sesam", hash));
    }

    #[test]
    fn what_is_not_an_argon2id_hash_or_a_costly_one_is_named() {
        for bad in [
            "",
            "password",
            "$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=1048576,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=19456,t=99,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
