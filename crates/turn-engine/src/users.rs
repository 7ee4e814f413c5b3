//! Long-term credentials by name, for clients that can hold no credentials that expire.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Users with a fixed password each. A name has no colon and not digits alone: those are usernames
/// of the REST scheme.
#[derive(Debug, Clone, Default)]
pub struct TurnUsers(Arc<BTreeMap<Arc<str>, SecretString>>);

impl TurnUsers {
    /// Wraps the configured users.
    pub fn new(users: BTreeMap<Arc<str>, SecretString>) -> Self {
        Self(users.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is a user of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Those whose password `next` does not have: they are gone, or have another one.
    pub fn dropped<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        let stays = |name: &str, password: &SecretString| {
            let next = next.0.get(name).map(ExposeSecret::expose_secret);
            next == Some(password.expose_secret())
        };
        let users = self.0.iter();
        users
            .filter(move |(name, password)| !stays(name, password))
            .map(|(name, _)| name)
    }

    /// What stands for the present password of a user in a table of revocations: another password is
    /// not revoked with it. Only who knows the password can make it.
    pub fn revocable(&self, name: &str) -> Option<String> {
        let password = self.0.get(name)?.expose_secret();
        let digest = Sha256::new_with_prefix(name)
            .chain_update("\0")
            .chain_update(password)
            .finalize();
        let digest: [u8; 32] = digest.into();
        let digest = u128::from_be_bytes(digest[..16].try_into().ok()?);
        Some(format!("{name} {digest:032x}"))
    }

    /// The password of a user, and whether there is such a user: without one, a password that
    /// nobody has, so that both take the same time.
    pub(crate) fn password(&self, name: &str) -> (&str, bool) {
        match self.0.get(name) {
            Some(password) => (password.expose_secret(), true),
            None => ("\0", false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(list: &[(&str, &str)]) -> TurnUsers {
        let users = list.iter().map(|(n, p)| ((*n).into(), (*p).into()));
        TurnUsers::new(users.collect())
    }

    #[test]
    fn who_is_removed_or_has_another_password_is_dropped() {
        let before = users(&[("stays", "a"), ("gone", "b"), ("changed", "c")]);
        let after = users(&[("stays", "a"), ("changed", "d"), ("new", "e")]);
        let dropped: Vec<_> = before.dropped(&after).map(|name| &**name).collect();
        assert_eq!(dropped, ["changed", "gone"]);
        assert_eq!(before.dropped(&before).count(), 0);
    }

    #[test]
    fn passwords_are_never_printed() {
        assert!(!format!("{:?}", users(&[("cam", "sesame")])).contains("sesame"));
    }
}
