//! Keys that verify the signatures of tokens, and the algorithms that each of them is for.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde_json::Value;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a coordinate on P-521: 521 bits, rounded up (RFC 7518 section 6.2.1.2).
const P521_COORDINATE: usize = 66;

/// A JWS algorithm (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alg {
    /// One that the JWT library knows.
    Common(Algorithm),
    /// ECDSA on P-521, which the JWT library does not know.
    Es512,
}

impl Alg {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "ES512" => Some(Self::Es512),
            _ => Algorithm::from_str(name).ok().map(Self::Common),
        }
    }

    /// Whether who verifies could sign as well.
    pub(super) fn takes_shared_secret(self) -> bool {
        use Algorithm::{HS256, HS384, HS512};
        matches!(self, Self::Common(HS256 | HS384 | HS512))
    }
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    /// The `kid` of a JWK.
    pub(super) id: Option<String>,
    pub(super) algorithms: Vec<Alg>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Common(DecodingKey),
    P521(Arc<ParsedPublicKey>),
}

impl Key {
    pub(super) fn from_secret(secret: &[u8]) -> Self {
        Self {
            id: None,
            algorithms: common(AlgorithmFamily::Hmac),
            material: Material::Common(DecodingKey::from_secret(secret)),
        }
    }

    /// Reads an RSA, EC or Ed25519 public key.
    pub(super) fn from_pem(pem: &str) -> Option<Self> {
        if let Some(key) = der(pem).and_then(|der| p521(&der)) {
            return Some(key);
        }
        let bytes = pem.as_bytes();
        let (decoding, family) = [
            (DecodingKey::from_rsa_pem(bytes), AlgorithmFamily::Rsa),
            (DecodingKey::from_ec_pem(bytes), AlgorithmFamily::Ec),
            (DecodingKey::from_ed_pem(bytes), AlgorithmFamily::Ed),
        ]
        .into_iter()
        .find_map(|(key, family)| Some((key.ok()?, family)))?;
        Some(Self {
            id: None,
            algorithms: common(family),
            material: Material::Common(decoding),
        })
    }

    /// Reads a JWK; `None` for one that verifies no signature, or is of a kind unknown here.
    pub(super) fn from_jwk(json: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
        let params = &jwk.common;
        let other_use = |key_use: &PublicKeyUse| *key_use != PublicKeyUse::Signature;
        let no_verifying = |ops: &Vec<KeyOperations>| !ops.contains(&KeyOperations::Verify);
        if params.public_key_use.as_ref().is_some_and(other_use)
            || params.key_operations.as_ref().is_some_and(no_verifying)
        {
            return None;
        }
        // The library's own field knows no ES512.
        let named = match json.get("alg").and_then(Value::as_str) {
            Some(name) => Some(Alg::from_name(name)?),
            None => None,
        };
        let mut key = if json.get("crv").and_then(Value::as_str) == Some("P-521") {
            p521(&point(json)?)?
        } else {
            let family = match &jwk.algorithm {
                AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
                AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
                AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
                AlgorithmParameters::OctetKey(_) => AlgorithmFamily::Hmac,
                _ => return None,
            };
            Self {
                id: None,
                algorithms: common(family),
                material: Material::Common(DecodingKey::from_jwk(&jwk).ok()?),
            }
        };
        key.id = params.key_id.clone();
        if let Some(named) = named {
            key.algorithms.retain(|algorithm| *algorithm == named);
        }
        (!key.algorithms.is_empty()).then_some(key)
    }

    pub(super) fn is_shared_secret(&self) -> bool {
        self.algorithms.iter().any(|alg| alg.takes_shared_secret())
    }

    /// Whether `signature` (base64url) is this key's over `message`. The caller has seen that the
    /// algorithm is one of the key's.
    pub(super) fn verifies(&self, algorithm: Alg, message: &[u8], signature: &str) -> bool {
        match (&self.material, algorithm) {
            (Material::Common(key), Alg::Common(algorithm)) => {
                crypto::verify(signature, message, key, algorithm).unwrap_or(false)
            }
            (Material::P521(key), Alg::Es512) => BASE64_URL_SAFE_NO_PAD
                .decode(signature)
                .is_ok_and(|signature| key.verify_sig(message, &signature).is_ok()),
            _ => false,
        }
    }
}

fn common(family: AlgorithmFamily) -> Vec<Alg> {
    family
        .algorithms()
        .iter()
        .copied()
        .map(Alg::Common)
        .collect()
}

/// A key on P-521, as a SubjectPublicKeyInfo or a point.
fn p521(bytes: &[u8]) -> Option<Key> {
    let key = ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, bytes).ok()?;
    Some(Key {
        id: None,
        algorithms: vec![Alg::Es512],
        material: Material::P521(Arc::new(key)),
    })
}

/// The uncompressed point of a JWK (SEC 1 section 2.3.3).
fn point(jwk: &Value) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = BASE64_URL_SAFE_NO_PAD
            .decode(jwk.get(name)?.as_str()?)
            .ok()?;
        let padding = P521_COORDINATE.checked_sub(coordinate.len())?;
        point.resize(point.len() + padding, 0);
        point.extend(coordinate);
    }
    Some(point)
}

/// What is between the lines of a `PUBLIC KEY` in PEM.
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.split_whitespace().collect();
    BASE64_STANDARD.decode(body).ok()
}
