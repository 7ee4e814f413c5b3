//! The long-term credential mechanism of RFC 8489 section 9.2 over TURN REST credentials.
//!
//! Decides who sent a request; what that user may do is decided elsewhere. Keeps nothing for
//! anyone: nonces are recognised by their HMAC, passwords follow from the username.

use super::codec::*;
use super::message::{Covered, Message};
use super::nonce;
use crate::credential::{SecretId, TurnSecrets, Username};
use crate::users::TurnUsers;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;

/// PASSWORD-ALGORITHMS as this server sends it, best first: SHA-256, MD5, without parameters
/// (RFC 8489 section 18.5).
pub(super) const PASSWORD_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// Bytes of USERNAME at most (RFC 8489 section 14.3: fewer than 509).
const MAX_USERNAME: usize = 508;

/// The key that username, realm and password make.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

impl Key {
    /// Whether username, realm and password make this key.
    pub(super) fn is_of(&self, username: &str, realm: &str, password: &str) -> bool {
        let algorithm = match self {
            Self::Md5(_) => Algorithm::Md5,
            Self::Sha256(_) => Algorithm::Sha256,
        };
        algorithm.key(username, realm, password) == *self
    }
}

/// Which integrity attribute a response bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureKind {
    Sha1,
    Sha256,
}

/// How the responses to one request are signed.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) key: Key,
    pub(super) kind: SignatureKind,
}

/// A request whose sender knows the password of `username`.
#[derive(Debug)]
pub(super) struct Authenticated<'a> {
    pub(super) username: &'a str,
    pub(super) rest: Username<'a>,
    /// What signed the credential; not known of a fixed password, and of an allocation's own user.
    pub(super) secret: Option<SecretId>,
    pub(super) signature: Signature,
}

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unauthenticated {
    /// No integrity attribute: every client's first request.
    Anonymous,
    /// Attributes are missing or contradict each other.
    Malformed,
    /// The username is none of ours, or the password is wrong.
    WrongCredentials,
    /// The password is right, the nonce is not.
    StaleNonce,
}

/// What verification needs to know.
pub(super) struct Verifier<'v> {
    pub(super) realm: &'v str,
    pub(super) secrets: &'v TurnSecrets,
    pub(super) users: &'v TurnUsers,
    pub(super) nonce_key: &'v [u8; 32],
    /// Username and key of the allocation on this five-tuple, which spare a derivation.
    pub(super) known: Option<(&'v str, &'v Key)>,
}

impl Verifier<'_> {
    /// Checks `request` in the order of RFC 8489 section 9.2.4.
    pub(super) fn verify<'a>(
        &self,
        request: &Message<'a>,
        client: SocketAddr,
        unix: u64,
    ) -> Result<Authenticated<'a>, Unauthenticated> {
        let proof = match (request.integrity_sha256(), request.integrity()) {
            (Some((covered, mac)), _) => Proof::Sha256(covered, mac),
            (None, Some((covered, mac))) => Proof::Sha1(covered, mac),
            (None, None) => return Err(Unauthenticated::Anonymous),
        };
        let username = request.get(ATTR_USERNAME);
        let nonce = request.get(ATTR_NONCE);
        let (Some(nonce), Some(_realm)) = (nonce, request.get(ATTR_REALM)) else {
            return Err(Unauthenticated::Malformed);
        };
        let Some(username) = username else {
            // USERHASH is not advertised: it is a username nobody has, not a malformed request.
            return Err(match request.get(ATTR_USER_HASH) {
                Some(_) => Unauthenticated::WrongCredentials,
                None => Unauthenticated::Malformed,
            });
        };
        let (algorithm, kind) = negotiated(request, nonce)?;
        let wrong = Unauthenticated::WrongCredentials;
        let username = std::str::from_utf8(username).map_err(|_| wrong)?;
        if username.len() > MAX_USERNAME {
            return Err(wrong);
        }
        let (rest, key) = match Username::parse(username) {
            Some(rest) => (rest, self.key(username, algorithm, &proof)),
            None if self.users.is_empty() => return Err(wrong),
            None => (
                Username::lasting(username),
                self.fixed_key(username, algorithm, &proof)
                    .map(|key| (key, None)),
            ),
        };
        let (key, secret) = key.ok_or(wrong)?;
        if !nonce::is_fresh(self.nonce_key, nonce, client, unix) {
            return Err(Unauthenticated::StaleNonce);
        }
        Ok(Authenticated {
            username,
            rest,
            secret,
            signature: Signature { key, kind },
        })
    }

    /// The key of a user with a fixed password. Whether there is such a user cannot be told from
    /// the time that it takes.
    fn fixed_key(&self, username: &str, algorithm: Algorithm, proof: &Proof<'_>) -> Option<Key> {
        let (password, exists) = self.users.password(username);
        let key = algorithm.key(username, self.realm, password);
        (proof.is_by(&key) & exists).then_some(key)
    }

    fn key(
        &self,
        username: &str,
        algorithm: Algorithm,
        proof: &Proof<'_>,
    ) -> Option<(Key, Option<SecretId>)> {
        let known = self
            .known
            .filter(|(name, key)| *name == username && algorithm.made(key));
        if let Some((_, key)) = known
            && proof.is_by(key)
        {
            return Some((key.clone(), None));
        }
        let key = |password: String| algorithm.key(username, self.realm, &password);
        let mut keys = self.secrets.passwords(username).map(key).enumerate();
        let (index, key) = keys.find(|(_, key)| proof.is_by(key))?;
        Some((key, self.secrets.ids().nth(index)))
    }
}

/// The password algorithm of `request`, and how its responses are to be signed: with SHA-256,
/// unless the client shows that it knows nothing of algorithms (RFC 8489 section 9.2.4).
fn negotiated(
    request: &Message<'_>,
    nonce: &[u8],
) -> Result<(Algorithm, SignatureKind), Unauthenticated> {
    if !nonce.starts_with(nonce::COOKIE.as_bytes()) {
        return Ok((Algorithm::Md5, SignatureKind::Sha1));
    }
    match (
        request.get(ATTR_PASSWORD_ALGORITHM),
        request.get(ATTR_PASSWORD_ALGORITHMS),
    ) {
        (None, None) => Ok((Algorithm::Md5, SignatureKind::Sha1)),
        // A request without the list, or without an entry of it, is a bid-down attack.
        (Some(chosen), Some(list)) if list == PASSWORD_ALGORITHMS => {
            let algorithm = match chosen {
                [0, 2, 0, 0] => Algorithm::Sha256,
                [0, 1, 0, 0] => Algorithm::Md5,
                _ => return Err(Unauthenticated::Malformed),
            };
            Ok((algorithm, SignatureKind::Sha256))
        }
        _ => Err(Unauthenticated::Malformed),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn key(self, username: &str, realm: &str, password: &str) -> Key {
        match self {
            Self::Md5 => Key::Md5(md5_key(username, realm, password)),
            Self::Sha256 => {
                let mut hash = Sha256::new();
                for part in [username, ":", realm, ":", password] {
                    hash.update(part);
                }
                Key::Sha256(hash.finalize().into())
            }
        }
    }

    fn made(self, key: &Key) -> bool {
        match key {
            Key::Md5(_) => self == Self::Md5,
            Key::Sha256(_) => self == Self::Sha256,
        }
    }
}

/// What a request offers as proof of its sender's key.
enum Proof<'a> {
    Sha1(Covered<'a>, &'a [u8]),
    Sha256(Covered<'a>, &'a [u8]),
}

impl Proof<'_> {
    /// Compares in constant time. Truncated values are refused: TURN does not provide for them
    /// (RFC 8489 section 14.6).
    fn is_by(&self, key: &Key) -> bool {
        match self {
            Self::Sha1(covered, value) => {
                mac::<Hmac<Sha1>>(key.bytes(), covered).verify_slice(value)
            }
            Self::Sha256(covered, value) => {
                mac::<Hmac<Sha256>>(key.bytes(), covered).verify_slice(value)
            }
        }
        .is_ok()
    }
}

/// The HMAC that an integrity attribute should bear.
pub(super) fn mac<M: Mac + KeyInit>(key: &[u8], covered: &Covered<'_>) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(&covered.head);
    mac.update(covered.rest);
    mac
}

impl Key {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Md5(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }

    /// The value of MESSAGE-INTEGRITY-SHA256 over `message`.
    pub(super) fn sha256(&self, message: &[u8]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes a key of any length");
        mac.update(message);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
