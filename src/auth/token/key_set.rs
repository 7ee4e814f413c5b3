//! JWK Sets (RFC 7517): the keys in a file, and those that an identity provider serves.

use super::keys::Key;
use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// Keys that one set may hold. Providers publish two to ten.
const MAX_KEYS: usize = 100;

/// The public keys that an identity provider publishes at its `jwks_uri`.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Reads the body of an answer. Shared secrets are left out: everybody can read them there.
    ///
    /// # Errors
    /// The text is not a valid JWK Set, holds too many keys, or none that can verify.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut keys = read(json)?;
        keys.retain(|key| !key.is_shared_secret());
        if keys.is_empty() {
            return Err("holds no public key that can verify a signature".into());
        }
        Ok(Self { keys })
    }

    /// Whether a key of the set goes by this `kid`, or by none.
    pub(super) fn may_know(&self, key_id: &str) -> bool {
        let mut ids = self.keys.iter().map(|key| key.id.as_deref());
        ids.any(|id| id.is_none_or(|id| id == key_id))
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| key.id.as_deref()))
            .finish()
    }
}

/// The keys of a set that can verify. A set may hold keys for other uses and of other kinds: they
/// are left out.
pub(super) fn read(json: &str) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set =
        serde_json::from_str(json).map_err(|error| format!("is not a valid JWK Set: {error}"))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("holds more than {MAX_KEYS} keys"));
    }
    let keys: Vec<Key> = set.keys.iter().filter_map(Key::from_jwk).collect();
    if keys.is_empty() {
        return Err("holds no key that can verify a signature".into());
    }
    Ok(keys)
}
