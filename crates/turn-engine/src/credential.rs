//! TURN REST credentials: minted for clients, and turned back into passwords for the relay.
//!
//! The scheme is the one of draft-uberti-behave-turn-rest-00 as coturn, Synapse and Jitsi use it:
//! `username = "<unix expiry>:<user>"`, `password = base64(HMAC-SHA1(secret, username))`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The `<user>` of credentials that `identity` takes over HTTP, outside of a session.
pub fn http_user(identity: &str) -> String {
    format!("http-{identity}")
}

/// The secrets that sign TURN credentials: the first one mints, every one verifies.
#[derive(Debug, Clone)]
pub struct TurnSecrets(Arc<[SecretString]>);

/// Names a secret in accounts without giving it away: the first four bytes of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretId(u32);

impl SecretId {
    fn of(secret: &SecretString) -> Self {
        let hash: [u8; 32] = Sha256::digest(secret.expose_secret()).into();
        let [a, b, c, d, ..] = hash;
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One `username`/`password` pair of the TURN REST scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// `<unix expiry>:<user>`.
    pub username: String,
    /// Base64 of the HMAC-SHA1 over the username.
    pub password: String,
}

/// What a REST username says, before anything proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Username<'a> {
    /// Unix seconds after which no new allocation is granted.
    pub expiry: u64,
    /// Whose quota and revocation apply: the part behind the colon, or the whole of a bare expiry.
    pub user: &'a str,
}

/// The expiry of a credential that has none.
const NEVER: u64 = u64::MAX;
/// Until when a fixed password is revoked: long after any clock, and far from where times overflow.
pub const REVOKED_FOR_GOOD: u64 = 1 << 40;

impl<'a> Username<'a> {
    /// The username of somebody with a fixed password.
    pub(crate) fn lasting(user: &'a str) -> Self {
        let expiry = NEVER;
        Self { expiry, user }
    }

    /// Whether it is of somebody with a fixed password.
    pub(crate) fn is_lasting(&self) -> bool {
        self.expiry == NEVER
    }

    /// The expiry that a revocation of the user has to reach. A fixed password is refused by taking
    /// it out of the configuration, or by a revocation of its own.
    pub(crate) fn revocable_expiry(&self) -> u64 {
        match self.expiry {
            NEVER => 0,
            expiry => expiry,
        }
    }

    /// Reads `<unix expiry>` or `<unix expiry>:<anything>`; `None` for any other form.
    pub fn parse(username: &'a str) -> Option<Self> {
        let (expiry, user) = match username.split_once(':') {
            Some((expiry, user)) => (expiry, user),
            None => (username, username),
        };
        // `u64::from_str` also takes a leading plus sign, which nobody mints.
        if !expiry.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let expiry = expiry.parse().ok().filter(|expiry| *expiry != NEVER)?;
        Some(Self { expiry, user })
    }
}

impl TurnSecrets {
    /// Wraps the configured secrets, newest first; `None` if there are none.
    pub fn new(secrets: Vec<SecretString>) -> Option<Self> {
        (!secrets.is_empty()).then(|| Self(secrets.into()))
    }

    /// Every secret, newest first.
    pub fn all(&self) -> impl Iterator<Item = &SecretString> {
        self.0.iter()
    }

    /// The name of every secret, newest first.
    pub fn ids(&self) -> impl Iterator<Item = SecretId> {
        self.0.iter().map(SecretId::of)
    }

    /// Mints a credential for `user`, good for new allocations until `expiry` (Unix seconds).
    pub fn mint(&self, user: &str, expiry: u64) -> Credential {
        let username = format!("{expiry}:{user}");
        let password = password(&self.0[0], &username);
        Credential { username, password }
    }

    /// The passwords that `username` may have been handed out with, newest secret first.
    pub fn passwords(&self, username: &str) -> impl Iterator<Item = String> {
        self.0.iter().map(move |secret| password(secret, username))
    }
}

fn password(secret: &SecretString, username: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(username.as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

/// One entry of a browser's `RTCConfiguration.iceServers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// URLs that share one credential, best first.
    pub urls: Vec<String>,
    /// Present for TURN only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// Present for TURN only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<String>,
}

/// The `iceServers` of one client and how long they are good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceServers {
    /// At most one entry for STUN and one for TURN.
    pub ice_servers: Vec<IceServer>,
    /// Seconds from minting to expiry.
    pub ttl: u64,
    /// Unix seconds.
    pub expires_at: u64,
}

/// Hands out `iceServers` with fresh credentials.
#[derive(Debug, Clone)]
pub struct IceIssuer {
    /// `stun:` URLs, best first.
    pub stun_urls: Vec<String>,
    /// `turn:` and `turns:` URLs, best first; empty where the relay is off.
    pub turn_urls: Vec<String>,
    /// What signs the credentials.
    pub secrets: TurnSecrets,
    /// How long a credential may make new allocations.
    pub ttl: Duration,
}

impl IceIssuer {
    /// Whether a relay is on offer.
    pub fn has_relay(&self) -> bool {
        !self.turn_urls.is_empty()
    }

    /// Mints for `user` at `now` (Unix seconds). The expiry exceeds `above`, the highest one that
    /// a revocation refuses, so that a user revoked within this second can come back.
    pub fn issue(&self, user: &str, now: u64, above: Option<u64>) -> IceServers {
        self.issue_until(user, now, above, None)
    }

    /// As [`Self::issue`], for a bearer whose token ends at `until` (Unix seconds).
    pub fn issue_until(
        &self,
        user: &str,
        now: u64,
        above: Option<u64>,
        until: Option<u64>,
    ) -> IceServers {
        let wished = now + self.ttl.as_secs();
        let expires_at = until
            .map_or(wished, |until| wished.min(until))
            .max(above.map_or(0, |revoked| revoked.saturating_add(1)));
        let mut ice_servers = Vec::with_capacity(2);
        if !self.stun_urls.is_empty() {
            ice_servers.push(IceServer {
                urls: self.stun_urls.clone(),
                username: None,
                credential: None,
            });
        }
        if self.has_relay() {
            let Credential { username, password } = self.secrets.mint(user, expires_at);
            ice_servers.push(IceServer {
                urls: self.turn_urls.clone(),
                username: Some(username),
                credential: Some(password),
            });
        }
        IceServers {
            ice_servers,
            ttl: expires_at.saturating_sub(now),
            expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(list: &[&str]) -> TurnSecrets {
        TurnSecrets::new(list.iter().map(|s| SecretString::from(*s)).collect()).unwrap()
    }

    /// Computed with `openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn passwords_are_those_of_other_rest_implementations() {
        let credential = secrets(&["north"]).mint("alice", 1_700_000_000);
        assert_eq!(credential.username, "1700000000:alice");
        assert_eq!(credential.password, "Cd/49soE35ICqcJF/bCTn8Z4OyE=");
    }

    /// By `printf %s north | sha256sum`.
    #[test]
    fn a_secret_is_named_by_the_head_of_its_hash() {
        let ids: Vec<_> = secrets(&["north", "south"]).ids().collect();
        assert_eq!(ids[0].to_string(), "dc365e79");
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn the_first_secret_mints_and_every_one_verifies() {
        let old = secrets(&["old"]).mint("a", 10);
        let rotated = secrets(&["new", "old"]);
        assert!(rotated.passwords(&old.username).any(|p| p == old.password));
        assert_ne!(rotated.mint("a", 10).password, old.password);
        assert!(
            !secrets(&["new"])
                .passwords(&old.username)
                .any(|p| p == old.password)
        );
    }

    #[test]
    fn usernames_of_other_programs_are_understood() {
        let parse = |s| Username::parse(s).map(|u| (u.expiry, u.user));
        assert_eq!(parse("17:alice"), Some((17, "alice")));
        assert_eq!(parse("17:@u:example.org"), Some((17, "@u:example.org")));
        assert_eq!(parse("17"), Some((17, "17")));
        assert_eq!(parse("17:"), Some((17, "")));
        for bad in [
            "",
            "alice",
            "alice:17",
            "+17:a",
            "-1:a",
            ":a",
            "99999999999999999999:a",
            "18446744073709551615:a",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_mint_after_a_revocation_exceeds_it() {
        let issuer = IceIssuer {
            stun_urls: vec!["stun:h:3478".into()],
            turn_urls: vec!["turn:h:3478?transport=udp".into()],
            secrets: secrets(&["s"]),
            ttl: Duration::from_secs(60),
        };
        assert_eq!(issuer.issue("u", 100, None).expires_at, 160);
        assert_eq!(issuer.issue("u", 100, Some(160)).expires_at, 161);
        assert_eq!(issuer.issue("u", 300, Some(160)).expires_at, 360);
        let until = |above| issuer.issue_until("u", 100, above, Some(130)).expires_at;
        assert_eq!((until(None), until(Some(160))), (130, 161));
    }

    #[test]
    fn without_a_relay_only_stun_is_handed_out() {
        let issuer = IceIssuer {
            stun_urls: vec!["stun:h:3478".into()],
            turn_urls: vec![],
            secrets: secrets(&["s"]),
            ttl: Duration::from_secs(60),
        };
        let json = serde_json::to_value(issuer.issue("u", 1, None)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"iceServers": [{"urls": ["stun:h:3478"]}], "ttl": 60, "expiresAt": 61})
        );
    }

    #[test]
    fn secrets_are_never_printed() {
        assert!(!format!("{:?}", secrets(&["north"])).contains("north"));
    }
}
