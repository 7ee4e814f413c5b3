//! Signaling tokens: a JWT becomes a [`Grant`], or a refusal that says which claim failed.

mod keys;

pub use super::error::TokenError;
use super::invite::{self, Invitation, InviteKeys};
use super::{Grant, MAX_METADATA, MAX_NAME, Role, RoomPattern, RoomScope, is_name};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use keys::{Alg, Key};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt;

/// Checks tokens against the configured keys and claims.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<Key>,
    algorithms: Vec<Alg>,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: u64,
    enforce_exp: bool,
    invites: Option<InviteKeys>,
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
            enforce_exp: false,
            invites: None,
        }
    }

    /// Accepts invitations beside other tokens.
    pub fn accept_invites(&mut self, keys: InviteKeys) {
        self.invites = Some(keys);
    }

    /// Whether a grant ends with its token.
    pub fn enforce_exp(&mut self, enforce: bool) {
        self.enforce_exp = enforce;
    }

    /// Accepts HS256, HS384 and HS512 by a shared secret.
    pub fn add_secret(&mut self, secret: &SecretString) {
        let secret = secret.expose_secret().as_bytes();
        self.keys.push(Key::from_secret(secret));
    }

    /// Accepts the signatures of one RSA, EC or Ed25519 public key in PEM.
    ///
    /// # Errors
    /// The text is no public key of these kinds.
    pub fn add_pem(&mut self, pem: &str) -> Result<(), String> {
        let key =
            Key::from_pem(pem).ok_or("is not a valid RSA, EC or Ed25519 public key in PEM")?;
        self.keys.push(key);
        Ok(())
    }

    /// Accepts the signing keys of a JWK Set (RFC 7517), told apart by `kid`.
    ///
    /// # Errors
    /// The text is not a valid JWK Set, or none of its keys can verify.
    pub fn add_jwks(&mut self, json: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_str(json).map_err(|e| format!("is not a valid JWK Set: {e}"))?;
        let before = self.keys.len();
        // A set may hold keys for other uses and kinds of its issuer's choosing: they are skipped.
        self.keys.extend(set.keys.iter().filter_map(Key::from_jwk));
        if self.keys.len() == before {
            return Err("holds no key that can verify a signature".into());
        }
        Ok(())
    }

    /// Narrows what is accepted to the named algorithms; empty leaves all that the keys allow.
    ///
    /// # Errors
    /// The first name that is not a valid JWS algorithm, or that no key can use.
    pub fn restrict(&mut self, names: &[String]) -> Result<(), String> {
        for name in names {
            let algorithm = Alg::from_name(name)
                .ok_or_else(|| format!("{name:?} is not a valid JWS algorithm"))?;
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
        let Some((header, message, claims, signature)) = split(token) else {
            return Err(refused("the token is not a JWT"));
        };
        let header = Header::read(header)?;
        if header.key_id.as_deref() == Some(invite::KEY_ID)
            && let Some(invites) = &self.invites
            && invites.verify(message, signature)
        {
            let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
            return Invitation::grant(&claims, now, self.leeway);
        }
        let allowed = |alg: &Alg| self.algorithms.is_empty() || self.algorithms.contains(alg);
        let mut failure = refused("the token's algorithm (alg) fits no configured key");
        for key in &self.keys {
            if !key.algorithms.contains(&header.algorithm) || !allowed(&header.algorithm) {
                continue;
            }
            if let (Some(asked), Some(id)) = (&header.key_id, &key.id)
                && asked != id
            {
                failure = refused("the token's key (kid) is not among the configured ones");
                continue;
            }
            if key.verifies(header.algorithm, message.as_bytes(), signature) {
                let fields: Map<String, Value> = BASE64_URL_SAFE_NO_PAD
                    .decode(claims)
                    .ok()
                    .and_then(|json| serde_json::from_slice(&json).ok())
                    .ok_or_else(|| refused("the token's claims have a wrong form"))?;
                return self.grant(Claims::of(fields), now);
            }
            failure = refused("the token's signature does not match");
        }
        Err(failure)
    }

    fn grant(&self, mut claims: Claims, now: u64) -> Result<Grant, TokenError> {
        let absent = |claim: &str| TokenError::Refused(format!("the token has no {claim} claim"));
        if let Some(issuer) = &self.issuer {
            let given: String = claims.take("iss")?.ok_or_else(|| absent("iss"))?;
            if given != *issuer {
                return Err(refused("the token is of another issuer (iss)"));
            }
        }
        if !self.audience.is_empty() {
            let given: OneOrMany = claims.take("aud")?.ok_or_else(|| absent("aud"))?;
            if !given.list().iter().any(|name| self.audience.contains(name)) {
                return Err(refused("the token is for another audience (aud)"));
            }
        }
        let expiry = claims.date("exp")?.ok_or_else(|| absent("exp"))?;
        let ends = expiry.saturating_add(self.leeway);
        if now >= ends {
            return Err(TokenError::Expired(now.saturating_sub(expiry)));
        }
        if let Some(not_before) = claims.date("nbf")?
            && not_before > now.saturating_add(self.leeway)
        {
            return Err(refused("the token is not valid yet (nbf)"));
        }
        claims.into_grant(self.enforce_exp.then_some(ends))
    }
}

/// The header, what is signed, the claims and the signature of a JWS (RFC 7515 section 7.1).
fn split(token: &str) -> Option<(&str, &str, &str, &str)> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    (!claims.contains('.')).then_some((header, message, claims, signature))
}

/// What the header of a token asks for.
struct Header {
    algorithm: Alg,
    key_id: Option<String>,
}

impl Header {
    fn read(part: &str) -> Result<Self, TokenError> {
        let fields: Map<String, Value> = BASE64_URL_SAFE_NO_PAD
            .decode(part)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| refused("the token is not a JWT"))?;
        // RFC 7515 section 4.1.11: who does not understand an extension refuses the token. RFC 7797
        // would have the claims signed in another form.
        if fields.contains_key("crit") {
            return Err(refused(
                "the token's header names critical extensions (crit), and none is known here",
            ));
        }
        if fields
            .get("b64")
            .is_some_and(|b64| *b64 != Value::Bool(true))
        {
            return Err(refused("the token's claims are not in base64url (b64)"));
        }
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        Ok(Self {
            algorithm: text("alg")
                .and_then(Alg::from_name)
                .ok_or_else(|| refused("the token is not a JWT with a supported algorithm"))?,
            key_id: text("kid").map(str::to_owned),
        })
    }
}

fn refused(text: &str) -> TokenError {
    TokenError::Refused(text.into())
}

/// Names no key material.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// The claims of a verified token, each read by its name so that a wrong one can be named. `null`
/// counts as absent.
struct Claims {
    fields: Map<String, Value>,
    /// What goes before the names that are shown.
    within: &'static str,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl Claims {
    fn of(fields: Map<String, Value>) -> Self {
        Self { fields, within: "" }
    }

    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, TokenError> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|_| self.wrong(name, "has a wrong form")),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool, TokenError> {
        Ok(self.take(name)?.unwrap_or(false))
    }

    /// Whole seconds: RFC 7519 section 2 lets a NumericDate have a fraction.
    fn date(&mut self, name: &str) -> Result<Option<u64>, TokenError> {
        match self.take::<f64>(name)? {
            Some(date) if date.is_finite() && date >= 0.0 => Ok(Some(date as u64)),
            Some(_) => Err(self.wrong(name, "is not a valid date")),
            None => Ok(None),
        }
    }

    fn wrong(&self, name: &str, what: &str) -> TokenError {
        TokenError::Refused(format!("the token's {}{name} claim {what}", self.within))
    }

    fn into_grant(mut self, ends: Option<u64>) -> Result<Grant, TokenError> {
        // The part of LiveKit's access token that has a meaning here.
        let video: Option<Map<String, Value>> = self.take("video")?;
        let has_video = video.is_some();
        let mut video = Self {
            fields: video.unwrap_or_default(),
            within: "video.",
        };
        let rooms: Option<OneOrMany> = self.take("room")?;
        let rooms = rooms.map_or(vec![], OneOrMany::list);
        let mut rooms: Vec<_> = rooms.into_iter().map(RoomPattern::Glob).collect();
        let video_room: Option<String> = video.take("room")?;
        if video.flag("roomJoin")? {
            rooms.extend(video_room.map(RoomPattern::Exact));
        }
        let is_admin = video.flag("roomAdmin")?;
        let may_publish = video.take("canPublish")?.unwrap_or(true);
        let may_subscribe = video.take("canSubscribe")?.unwrap_or(true);
        let role = self.take("role")?.or(match (is_admin, may_publish) {
            _ if !has_video => None,
            (true, _) => Some(Role::Host),
            (false, false) => Some(Role::Viewer),
            (false, true) => Some(Role::Member),
        });
        let identity: Option<String> = self.take("sub")?;
        if identity.as_deref().is_some_and(|sub| !is_name(sub)) {
            let what = format!("has 1 to {MAX_NAME} bytes, none of them controls");
            return Err(self.wrong("sub", &what));
        }
        let metadata = with_name(self.take("metadata")?, self.take("name")?);
        if metadata
            .as_ref()
            .is_some_and(|json| json.to_string().len() > MAX_METADATA)
        {
            let what = format!("has, with the name, at most {MAX_METADATA} bytes");
            return Err(self.wrong("metadata", &what));
        }
        Ok(Grant {
            identity,
            chooses_identity: false,
            call: self.take("call")?.unwrap_or(rooms.is_empty()),
            rooms: RoomScope::Matching(rooms),
            role,
            list_rooms: video.flag("roomList")?,
            subscribe: may_subscribe,
            invite: None,
            metadata,
            ends,
        })
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
