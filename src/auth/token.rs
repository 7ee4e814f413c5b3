//! Signaling tokens: a JWT becomes a [`Grant`], or a refusal that says which claim failed.

use super::{Grant, Role, RoomScope};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, errors::ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `exp` has passed.
    #[error("the token expired {0} s ago")]
    Expired(u64),
    /// Anything else; the text names what failed and holds nothing of the token.
    #[error("{0}")]
    Refused(String),
}

/// Checks tokens against the configured keys and claims.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<Key>,
    algorithms: Vec<Algorithm>,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: u64,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Verifier {
    /// A verifier without keys: it refuses everything until some are added.
    ///
    /// `issuer` and `audience` are checked where given; `leeway` is seconds of clock difference.
    pub fn new(issuer: Option<String>, audience: Vec<String>, leeway: u64) -> Self {
        Self {
            keys: vec![],
            algorithms: vec![],
            issuer,
            audience,
            leeway,
        }
    }

    /// Accepts HS256, HS384 and HS512 by a shared secret.
    pub fn add_secret(&mut self, secret: &SecretString) {
        self.keys.push(Key {
            id: None,
            algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
            decoding: DecodingKey::from_secret(secret.expose_secret().as_bytes()),
        });
    }

    /// Accepts the signatures of one RSA, EC or Ed25519 public key in PEM.
    ///
    /// # Errors
    /// The text is no public key of these kinds.
    pub fn add_pem(&mut self, pem: &str) -> Result<(), String> {
        let bytes = pem.as_bytes();
        let (decoding, family) = [
            (DecodingKey::from_rsa_pem(bytes), AlgorithmFamily::Rsa),
            (DecodingKey::from_ec_pem(bytes), AlgorithmFamily::Ec),
            (DecodingKey::from_ed_pem(bytes), AlgorithmFamily::Ed),
        ]
        .into_iter()
        .find_map(|(key, family)| Some((key.ok()?, family)))
        .ok_or("is no RSA, EC or Ed25519 public key in PEM")?;
        self.keys.push(Key {
            id: None,
            algorithms: family.algorithms().to_vec(),
            decoding,
        });
        Ok(())
    }

    /// Accepts the signing keys of a JWK Set (RFC 7517), told apart by `kid`.
    ///
    /// # Errors
    /// The text is no JWK Set, or none of its keys can verify.
    pub fn add_jwks(&mut self, json: &str) -> Result<(), String> {
        let set: JwkSet = serde_json::from_str(json).map_err(|e| format!("is no JWK Set: {e}"))?;
        let before = self.keys.len();
        // A set may hold keys for other uses and kinds of its issuer's choosing: they are skipped.
        self.keys.extend(set.keys.iter().filter_map(jwk));
        if self.keys.len() == before {
            return Err("holds no key that can verify a signature".into());
        }
        Ok(())
    }

    /// Narrows what is accepted to the named algorithms; empty leaves all that the keys allow.
    ///
    /// # Errors
    /// The first name that is no JWS algorithm, or that no key can use.
    pub fn restrict(&mut self, names: &[String]) -> Result<(), String> {
        for name in names {
            let algorithm =
                Algorithm::from_str(name).map_err(|_| format!("{name:?} is no JWS algorithm"))?;
            if !self
                .keys
                .iter()
                .any(|key| key.algorithms.contains(&algorithm))
            {
                return Err(format!("{name:?} fits none of the configured keys"));
            }
            self.algorithms.push(algorithm);
        }
        Ok(())
    }

    /// Verifies `token` at `now` (Unix seconds).
    ///
    /// # Errors
    /// The token expired, or what else is wrong with it.
    pub fn verify(&self, token: &str, now: u64) -> Result<Grant, TokenError> {
        let refused = |text: &str| TokenError::Refused(text.into());
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| refused("the token is no JWT with a supported algorithm"))?;
        let allowed = |alg: &Algorithm| self.algorithms.is_empty() || self.algorithms.contains(alg);
        let mut failure = refused("the token's algorithm (alg) fits no configured key");
        for key in &self.keys {
            if !key.algorithms.contains(&header.alg) || !allowed(&header.alg) {
                continue;
            }
            if let (Some(asked), Some(id)) = (&header.kid, &key.id)
                && asked != id
            {
                failure = refused("the token's key (kid) is not among the configured ones");
                continue;
            }
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation(header.alg))
            {
                Ok(data) => return self.grant(data.claims, now),
                Err(error) => failure = worded(error.kind()),
            }
        }
        Err(failure)
    }

    /// Times are checked by [`Self::grant`]: the library would read the system's clock.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = !self.audience.is_empty();
        let mut required: Vec<&str> = vec![];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn grant(&self, claims: Claims, now: u64) -> Result<Grant, TokenError> {
        let expiry = match claims.exp {
            Some(date) => whole_seconds(date, "exp")?,
            None => return Err(worded(&ErrorKind::MissingRequiredClaim("exp".into()))),
        };
        if now >= expiry.saturating_add(self.leeway) {
            return Err(TokenError::Expired(now.saturating_sub(expiry)));
        }
        if let Some(not_before) = claims.nbf
            && whole_seconds(not_before, "nbf")? > now.saturating_add(self.leeway)
        {
            return Err(TokenError::Refused(
                "the token is not valid yet (nbf)".into(),
            ));
        }
        Ok(claims.into_grant())
    }
}

/// Names no key material.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

fn jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    if common
        .public_key_use
        .as_ref()
        .is_some_and(|u| *u != PublicKeyUse::Signature)
        || common
            .key_operations
            .as_ref()
            .is_some_and(|ops| !ops.contains(&KeyOperations::Verify))
    {
        return None;
    }
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
        AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
        AlgorithmParameters::OctetKey(_) => AlgorithmFamily::Hmac,
        _ => return None,
    };
    let algorithms = match common.key_algorithm {
        Some(named) => vec![Algorithm::from_str(&named.to_string()).ok()?],
        None => family.algorithms().to_vec(),
    };
    Some(Key {
        id: common.key_id.clone(),
        algorithms,
        decoding: DecodingKey::from_jwk(jwk).ok()?,
    })
}

fn worded(error: &ErrorKind) -> TokenError {
    TokenError::Refused(match error {
        ErrorKind::InvalidSignature => "the token's signature does not match".into(),
        ErrorKind::InvalidIssuer => "the token is of another issuer (iss)".into(),
        ErrorKind::InvalidAudience => "the token is for another audience (aud)".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token has no {claim} claim"),
        ErrorKind::InvalidClaimFormat(claim) => format!("the token's {claim} claim is malformed"),
        ErrorKind::Json(_) => "the token's claims have a wrong form".into(),
        _ => "the token is malformed".into(),
    })
}

/// RFC 7519 section 2 lets a NumericDate have a fraction.
fn whole_seconds(date: f64, claim: &str) -> Result<u64, TokenError> {
    if !date.is_finite() || date < 0.0 {
        return Err(TokenError::Refused(format!(
            "the token's {claim} claim is no date"
        )));
    }
    Ok(date as u64)
}

#[derive(Debug, Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    sub: Option<String>,
    room: Option<Rooms>,
    role: Option<Role>,
    call: Option<bool>,
    name: Option<String>,
    metadata: Option<Value>,
    video: Option<VideoGrant>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rooms {
    One(String),
    Many(Vec<String>),
}

/// The part of LiveKit's access token that has a meaning here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VideoGrant {
    room_join: bool,
    room: Option<String>,
    room_admin: bool,
    can_publish: Option<bool>,
    room_list: bool,
}

impl Claims {
    fn into_grant(self) -> Grant {
        let video = self.video.unwrap_or_default();
        let mut rooms = match self.room {
            Some(Rooms::One(room)) => vec![room],
            Some(Rooms::Many(rooms)) => rooms,
            None => vec![],
        };
        if video.room_join {
            rooms.extend(video.room);
        }
        let role = self.role.or(match (video.room_admin, video.can_publish) {
            (true, _) => Some(Role::Host),
            (false, Some(false)) => Some(Role::Viewer),
            _ => None,
        });
        Grant {
            identity: self.sub.filter(|sub| !sub.is_empty()),
            call: self.call.unwrap_or(rooms.is_empty()),
            rooms: RoomScope::Matching(rooms),
            role,
            list_rooms: video.room_list,
            metadata: with_name(self.metadata, self.name),
        }
    }
}

/// A display name travels in the metadata, where clients look for it.
fn with_name(metadata: Option<Value>, name: Option<String>) -> Option<Value> {
    match (metadata, name) {
        (Some(Value::Object(mut object)), Some(name)) => {
            object.entry("name").or_insert(Value::String(name));
            Some(Value::Object(object))
        }
        (None, Some(name)) => Some(serde_json::json!({ "name": name })),
        (metadata, _) => metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    const NOW: u64 = 1_700_000_000;

    fn verifier() -> Verifier {
        let mut verifier = Verifier::new(None, vec![], 0);
        verifier.add_secret(&"north".into());
        verifier
    }

    fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn verify(claims: Value) -> Result<Grant, TokenError> {
        verifier().verify(&sign(Algorithm::HS256, "north", &claims), NOW)
    }

    #[test]
    fn claims_become_a_grant() {
        let grant = verify(json!({
            "sub": "alice", "exp": NOW + 60, "room": ["a", "team-*"], "role": "viewer",
            "name": "Alice", "metadata": {"team": 7}
        }))
        .unwrap();
        assert_eq!(grant.identity.as_deref(), Some("alice"));
        assert!(grant.rooms.allows("a") && grant.rooms.allows("team-9"));
        assert!(!grant.rooms.allows("b"));
        assert_eq!(grant.role, Some(Role::Viewer));
        assert!(!grant.call, "a room token calls nobody unless it says so");
        assert_eq!(grant.metadata, Some(json!({"team": 7, "name": "Alice"})));
    }

    #[test]
    fn a_token_without_a_room_registers_and_calls_only() {
        let grant = verify(json!({"sub": "alice", "exp": NOW + 60})).unwrap();
        assert!(!grant.rooms.allows("a"));
        assert!(grant.call);
        assert!(
            verify(json!({"exp": NOW + 60, "room": "a", "call": true}))
                .unwrap()
                .call
        );
    }

    #[test]
    fn livekit_tokens_are_understood() {
        let video = |video| verify(json!({"sub": "a", "exp": NOW + 60, "video": video})).unwrap();
        let host = video(json!({"roomJoin": true, "room": "r", "roomAdmin": true}));
        assert!(host.rooms.allows("r"));
        assert_eq!(host.role, Some(Role::Host));
        let viewer = video(json!({"roomJoin": true, "room": "r", "canPublish": false}));
        assert_eq!(viewer.role, Some(Role::Viewer));
        assert!(!video(json!({"room": "r"})).rooms.allows("r"));
        assert!(video(json!({"roomList": true})).list_rooms);
    }

    #[test]
    fn times_are_checked_with_the_configured_leeway() {
        assert_eq!(verify(json!({"exp": NOW})), Err(TokenError::Expired(0)));
        assert_eq!(verify(json!({"exp": NOW - 9})), Err(TokenError::Expired(9)));
        assert!(verify(json!({"exp": NOW + 1})).is_ok());
        assert!(verify(json!({"exp": NOW as f64 + 0.5})).is_err());
        let future = verify(json!({"exp": NOW + 60, "nbf": NOW + 5})).unwrap_err();
        assert!(future.to_string().contains("nbf"));
        let mut lenient = Verifier::new(None, vec![], 10);
        lenient.add_secret(&"north".into());
        let token = sign(
            Algorithm::HS512,
            "north",
            &json!({"exp": NOW - 9, "nbf": NOW + 9}),
        );
        assert!(lenient.verify(&token, NOW).is_ok());
    }

    #[test]
    fn what_failed_is_named() {
        let text = |claims| verify(claims).unwrap_err().to_string();
        assert!(text(json!({"sub": "a"})).contains("exp"));
        assert!(text(json!({"exp": "soon"})).contains("form"));
        assert!(text(json!({"exp": NOW + 1, "role": "king"})).contains("form"));
        let forged = verifier().verify(
            &sign(Algorithm::HS256, "south", &json!({"exp": NOW + 1})),
            NOW,
        );
        assert!(forged.unwrap_err().to_string().contains("signature"));
        for garbage in ["", "a", "a.b.c", "....", &"x".repeat(10_000)] {
            assert!(verifier().verify(garbage, NOW).is_err());
        }
    }

    #[test]
    fn issuer_and_audience_are_asked_for_once_configured() {
        let mut strict = Verifier::new(Some("me".into()), vec!["you".into()], 0);
        strict.add_secret(&"north".into());
        let text = |claims: Value| {
            strict
                .verify(&sign(Algorithm::HS256, "north", &claims), NOW)
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        let exp = NOW + 60;
        assert_eq!(
            text(json!({"exp": exp, "iss": "me", "aud": ["x", "you"]})),
            Ok(())
        );
        assert!(
            text(json!({"exp": exp, "iss": "me"}))
                .unwrap_err()
                .contains("aud")
        );
        assert!(
            text(json!({"exp": exp, "aud": "you"}))
                .unwrap_err()
                .contains("iss")
        );
        assert!(
            text(json!({"exp": exp, "iss": "him", "aud": "you"}))
                .unwrap_err()
                .contains("iss")
        );
        assert!(
            text(json!({"exp": exp, "iss": "me", "aud": "him"}))
                .unwrap_err()
                .contains("aud")
        );
    }

    /// Test key, made by `openssl genpkey -algorithm ed25519`.
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEApksDIdprndk4iyr4J2lSTUr9EUtZLEKzI3QOUKoxIC0=\n-----END PUBLIC KEY-----\n";
    const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEICY2QfQnY4EcfX/qWGENfgbKiynmryKf75i4nNZ2blBv\n-----END PRIVATE KEY-----\n";

    #[test]
    fn public_keys_verify_their_own_family_only() {
        let mut verifier = Verifier::new(None, vec![], 0);
        verifier.add_pem(ED25519_PUBLIC).unwrap();
        let claims = json!({"exp": NOW + 60});
        let key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
        let good = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        assert!(verifier.verify(&good, NOW).is_ok());
        // The classic confusion: the public key's text used as an HMAC secret.
        let confused = sign(Algorithm::HS256, ED25519_PUBLIC, &claims);
        assert!(
            verifier
                .verify(&confused, NOW)
                .unwrap_err()
                .to_string()
                .contains("alg")
        );
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let unsigned = format!("{}.{}.", part(json!({"alg": "none"})), part(claims));
        assert!(verifier.verify(&unsigned, NOW).is_err());
        assert!(verifier.add_pem("not a key").is_err());
    }

    #[test]
    fn a_jwk_set_tells_its_keys_apart_by_kid() {
        let x = "pksDIdprndk4iyr4J2lSTUr9EUtZLEKzI3QOUKoxIC0";
        let jwks = json!({"keys": [
            {"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode("old"), "kid": "1", "alg": "HS256"},
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "2", "use": "sig"},
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "3", "use": "enc"},
        ]});
        let mut verifier = Verifier::new(None, vec![], 0);
        verifier.add_jwks(&jwks.to_string()).unwrap();
        let token = |kid: &str, alg, key: &EncodingKey| {
            let mut header = Header::new(alg);
            header.kid = Some(kid.into());
            jsonwebtoken::encode(&header, &json!({"exp": NOW + 60}), key).unwrap()
        };
        let ed = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
        let old = EncodingKey::from_secret(b"old");
        assert!(
            verifier
                .verify(&token("1", Algorithm::HS256, &old), NOW)
                .is_ok()
        );
        assert!(
            verifier
                .verify(&token("2", Algorithm::EdDSA, &ed), NOW)
                .is_ok()
        );
        assert!(
            verifier
                .verify(&token("1", Algorithm::HS512, &old), NOW)
                .is_err()
        );
        assert!(
            verifier
                .verify(&token("3", Algorithm::EdDSA, &ed), NOW)
                .is_err(),
            "an encryption key signs nothing"
        );
        assert!(verifier.add_jwks("{\"keys\":[]}").is_err());
    }

    #[test]
    fn algorithms_can_be_narrowed() {
        let mut verifier = verifier();
        verifier.restrict(&["HS512".into()]).unwrap();
        let claims = json!({"exp": NOW + 60});
        assert!(
            verifier
                .verify(&sign(Algorithm::HS512, "north", &claims), NOW)
                .is_ok()
        );
        assert!(
            verifier
                .verify(&sign(Algorithm::HS256, "north", &claims), NOW)
                .is_err()
        );
        assert!(verifier.restrict(&["none".into()]).is_err());
        assert!(verifier.restrict(&["RS256".into()]).is_err());
    }
}
