//! Invitations: tokens that a box mints for one room over a host's session, with a key of its own.
//!
//! The key is derived from the TURN secrets, so that a box which checks tokens by public keys can
//! invite too. Whether an invitation still holds is the room's to say.

use super::credential::TurnSecrets;
use super::error::TokenError;
use super::{Grant, Role, RoomPattern, RoomScope};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;

/// The `kid` of invitations.
pub(super) const KEY_ID: &str = "callbox-invite";
/// What the derived keys are for; a change of the format takes another text.
const CONTEXT: &[u8] = b"callbox invitation 1";

/// The keys that sign invitations: the first one mints, every one verifies.
#[derive(Clone)]
pub struct InviteKeys(Vec<[u8; 32]>);

/// What an invitation says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The only room that it is for.
    pub room: String,
    /// The role of its bearer.
    pub role: Role,
    /// Unix seconds.
    pub exp: u64,
    /// By which the room knows it.
    #[serde(rename = "jti")]
    pub id: String,
}

impl InviteKeys {
    /// Derives the keys from the secrets.
    pub fn new(secrets: &TurnSecrets) -> Self {
        let derive = |secret: &[u8]| mac(secret, CONTEXT).finalize().into_bytes().into();
        Self(
            secrets
                .all()
                .map(|s| derive(s.expose_secret().as_bytes()))
                .collect(),
        )
    }

    /// Signs an invitation as a JWT.
    pub fn sign(&self, invitation: &Invitation) -> String {
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let header = serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": KEY_ID });
        let claims = serde_json::to_string(invitation).expect("claims are plain data");
        let message = format!("{}.{}", part(header.to_string()), part(claims));
        let signature = mac(&self.0[0], message.as_bytes()).finalize().into_bytes();
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether `signature` (base64url) is over `message`.
    pub(super) fn verify(&self, message: &str, signature: &str) -> bool {
        BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| {
                let verified = |key| mac(key, message.as_bytes()).verify_slice(&signature);
                self.0.iter().any(|key| verified(key).is_ok())
            })
    }
}

impl Invitation {
    /// Reads verified claims.
    pub(super) fn grant(
        claims: &[u8],
        now: u64,
        leeway: u64,
        enforce_exp: bool,
    ) -> Result<Grant, TokenError> {
        let claims: Self = serde_json::from_slice(claims)
            .map_err(|_| TokenError::Refused("the invitation has a wrong form".into()))?;
        let ends = claims.exp.saturating_add(leeway);
        if now >= ends {
            return Err(TokenError::Expired(now.saturating_sub(claims.exp)));
        }
        Ok(Grant {
            chooses_identity: false,
            rooms: RoomScope::Matching(vec![RoomPattern::Exact(claims.room)]),
            role: Some(claims.role),
            call: false,
            invite: Some(claims.id),
            verified: true,
            ends: enforce_exp.then_some(ends),
            ..Grant::open()
        })
    }
}

/// The link to a room on the call page at `page`, with a token where one is needed. What is behind
/// `#` stays in the browser.
pub fn page_link(page: &str, room: &str, token: Option<&str>) -> String {
    let mut fragment = form_urlencoded::Serializer::new(String::new());
    if !room.is_empty() {
        fragment.append_pair("room", room);
    }
    if let Some(token) = token {
        fragment.append_pair("token", token);
    }
    format!("{page}#{}", fragment.finish())
}

/// Names no key material.
impl fmt::Debug for InviteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteKeys({})", self.0.len())
    }
}

fn mac(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac
}

#[cfg(test)]
mod tests {
    use super::super::token::Verifier;
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn secrets(list: &[&str]) -> TurnSecrets {
        TurnSecrets::new(list.iter().map(|s| (*s).into()).collect()).unwrap()
    }

    #[test]
    fn an_invitation_is_taken_beside_other_tokens_and_for_its_room_alone() {
        let invitation = Invitation {
            room: "team-*".into(),
            role: Role::Viewer,
            exp: NOW + 60,
            id: "7".into(),
        };
        let old = InviteKeys::new(&secrets(&["old"])).sign(&invitation);
        let mut verifier = Verifier::new(Some("issuer".into()), vec![], 0);
        verifier.add_secret(&"auth".into());
        assert!(verifier.verify(&old, NOW).is_err());
        verifier.accept_invites(InviteKeys::new(&secrets(&["new", "old"])));
        let grant = verifier.verify(&old, NOW).unwrap();
        assert!(grant.rooms.allows("team-*") && !grant.rooms.allows("team-1"));
        assert_eq!((grant.role, grant.call), (Some(Role::Viewer), false));
        assert_eq!(grant.invite.as_deref(), Some("7"));
        assert_eq!(verifier.verify(&old, NOW + 60), Err(TokenError::Expired(0)));
        assert_eq!(grant.ends, None);
        let mut ending = verifier.clone();
        ending.enforce_exp(true);
        assert_eq!(ending.verify(&old, NOW).unwrap().ends, Some(NOW + 60));
        let (message, _) = old.rsplit_once('.').unwrap();
        let forged = InviteKeys::new(&secrets(&["other"])).sign(&invitation);
        assert!(verifier.verify(&forged, NOW).is_err());
        assert!(verifier.verify(&format!("{message}."), NOW).is_err());
        // The secret itself, which programs that mint credentials know, signs no invitation.
        let mut plain = InviteKeys::new(&secrets(&["x"]));
        plain.0 = vec![*b"new00000000000000000000000000000"];
        assert!(verifier.verify(&plain.sign(&invitation), NOW).is_err());
    }
}
