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

impl TokenError {
    /// The name on the wire: `token-expired` or `unauthorized`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired(_) => "token-expired",
            Self::Refused(_) => "unauthorized",
        }
    }
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
mod tests;
