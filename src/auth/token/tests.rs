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
