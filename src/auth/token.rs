//! Signaling tokens: a JWT becomes a [`Grant`], or a refusal that says which claim failed.

mod key_set;
mod keys;

pub use super::error::TokenError;
use super::invite::{self, Invitation, InviteKeys};
use super::passwords::People;
use super::{
    Grant, MAX_METADATA, MAX_METADATA_DEPTH, MAX_NAME, Role, RoomPattern, RoomScope, is_name,
    is_too_deep,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
pub use key_set::KeySet;
use keys::{Alg, Key};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
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
    people: People,
    fetches_keys: bool,
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
            people: People::default(),
            fetches_keys: false,
        }
    }

    /// Accepts invitations beside other tokens.
    pub fn accept_invites(&mut self, keys: InviteKeys) {
        self.invites = Some(keys);
    }

    /// Knows who logs in: the token of a login is good for as long as the password is.
    pub fn accept_logins(&mut self, people: People) {
        self.people = people;
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
    /// The text is not a public key of these kinds.
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
        self.keys.extend(key_set::read(json)?);
        Ok(())
    }

    /// Accepts the keys of a fetched [`KeySet`] beside those at hand.
    pub fn fetch_keys(&mut self) {
        self.fetches_keys = true;
    }

    /// Narrows what is accepted to the named algorithms; empty leaves all that the keys allow.
    ///
    /// # Errors
    /// The first name that is not a valid JWS algorithm, or that no key can use.
    pub fn restrict(&mut self, names: &[String]) -> Result<(), String> {
        for name in names {
            let algorithm = Alg::from_name(name)
                .ok_or_else(|| format!("{name:?} is not a valid JWS algorithm"))?;
            let mut keys = self.keys.iter();
            let may_come = self.fetches_keys && !algorithm.takes_shared_secret();
            if !may_come && !keys.any(|key| key.algorithms.contains(&algorithm)) {
                return Err(format!("{name:?} fits none of the configured keys"));
            }
            self.algorithms.push(algorithm);
        }
        Ok(())
    }

    /// Whether `token` names a key that another fetch may bring. That is judged by its header
    /// alone.
    pub fn misses_key(&self, token: &str, fetched: Option<&KeySet>) -> bool {
        if !self.fetches_keys {
            return false;
        }
        let Some(Ok(header)) = split(token).map(|(header, ..)| Header::read(header)) else {
            return false;
        };
        if header.algorithm.takes_shared_secret() || !self.allows(header.algorithm) {
            return false;
        }
        match (fetched, &header.key_id) {
            (None, _) => true,
            (Some(set), Some(key_id)) => {
                let own = |key: &Key| key.id.as_ref() == Some(key_id);
                !set.may_know(key_id) && !self.keys.iter().any(own)
            }
            (Some(_), None) => false,
        }
    }

    fn allows(&self, algorithm: Alg) -> bool {
        self.algorithms.is_empty() || self.algorithms.contains(&algorithm)
    }

    /// Verifies `token` at `now` (Unix seconds).
    ///
    /// # Errors
    /// The token expired, or what else is wrong with it.
    pub fn verify(&self, token: &str, now: u64) -> Result<Grant, TokenError> {
        self.verify_with(token, now, None)
    }

    /// As [`Verifier::verify`], with the keys that were fetched.
    ///
    /// # Errors
    /// As [`Verifier::verify`], or the keys have not been fetched yet.
    pub fn verify_with(
        &self,
        token: &str,
        now: u64,
        fetched: Option<&KeySet>,
    ) -> Result<Grant, TokenError> {
        let Some((header, message, claims, signature)) = split(token) else {
            return Err(refused("the token is not a JWT"));
        };
        let header = Header::read(header)?;
        if header.key_id.as_deref() == Some(invite::KEY_ID)
            && let Some(invites) = &self.invites
            && invites.verify(message, signature)
        {
            let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
            let grant = Invitation::grant(&claims, now, self.leeway, self.enforce_exp);
            return grant.map(|grant| borne(grant, message));
        }
        let fetched = fetched.filter(|_| self.fetches_keys);
        let mut failure = refused("the token's algorithm (alg) fits no configured key");
        let known = fetched.map(KeySet::keys).unwrap_or_default();
        for key in self.keys.iter().chain(known) {
            if !key.algorithms.contains(&header.algorithm) || !self.allows(header.algorithm) {
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
                let grant = self.grant(Claims::of(fields), now);
                return grant.map(|grant| borne(grant, message));
            }
            failure = refused("the token's signature does not match");
        }
        if fetched.is_none() && self.misses_key(token, None) {
            return Err(TokenError::KeysAwaited);
        }
        Err(failure)
    }

    fn grant(&self, mut claims: Claims, now: u64) -> Result<Grant, TokenError> {
        let absent = |claim: &str| TokenError::Refused(format!("the token has no {claim} claim"));
        if let Some(login) = claims.take::<String>("callbox_login")? {
            let name = claims.fields.get("sub").and_then(Value::as_str);
            if name.and_then(|name| self.people.mark(name)) != Some(login) {
                return Err(refused(
                    "the user is gone or has another password: log in again",
                ));
            }
        }
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

/// Names the bearer of a grant, by the token where that gives no name. The signature is left out: some
/// kinds have several for one message.
fn borne(mut grant: Grant, message: &str) -> Grant {
    grant.bearer = Some(grant.identity.clone().unwrap_or_else(|| {
        let digest: [u8; 32] = Sha256::digest(message).into();
        BASE64_URL_SAFE_NO_PAD.encode(&digest[..18])
    }));
    grant
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
            rooms.extend(video_room.clone().map(RoomPattern::Exact));
        }
        let is_admin = video.flag("roomAdmin")?;
        let may_publish = video.take("canPublish")?.unwrap_or(true);
        let may_subscribe = video.take("canSubscribe")?.unwrap_or(true);
        let no_admin = match may_publish {
            true => Role::Member,
            false => Role::Viewer,
        };
        let own_role = self.take("role")?;
        // `roomAdmin` is for the room that `video` names, whatever other rooms the token opens.
        let role_for = video_room.filter(|_| is_admin && own_role.is_none());
        let role_for = role_for.map(|room| (room, no_admin));
        let role = own_role.or(match is_admin {
            _ if !has_video => None,
            true => Some(Role::Host),
            false => Some(no_admin),
        });
        let team = self.take("team")?;
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
        if metadata.as_ref().is_some_and(is_too_deep) {
            let what = format!("nests deeper than {MAX_METADATA_DEPTH} levels");
            return Err(self.wrong("metadata", &what));
        }
        Ok(Grant {
            identity,
            bearer: None,
            chooses_identity: false,
            call: self.take("call")?.unwrap_or(rooms.is_empty()),
            rooms: RoomScope::Matching(rooms),
            role,
            role_for,
            list_rooms: video.flag("roomList")?,
            subscribe: may_subscribe,
            team,
            verified: true,
            claims: None,
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
