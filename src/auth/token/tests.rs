use super::*;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
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
    let absent = video(
        json!({"roomJoin": true, "room": "r", "roomAdmin": null, "canPublish": null,
        "roomList": null}),
    );
    assert!(absent.rooms.allows("r") && !absent.list_rooms);
    assert_eq!(absent.role, Some(Role::Member), "a host needs roomAdmin");
    let role_of = |claims| verify(claims).unwrap().role;
    let exp = NOW + 60;
    assert_eq!(role_of(json!({"exp": exp, "room": "r"})), None);
    assert_eq!(role_of(json!({"exp": exp, "video": null})), None);
    let both = json!({"exp": exp, "role": "host", "video": {"roomJoin": true, "room": "r"}});
    assert_eq!(
        role_of(both),
        Some(Role::Host),
        "a role of its own goes first"
    );
    let deaf = video(json!({"roomJoin": true, "room": "r", "canSubscribe": false}));
    assert!(!deaf.subscribe && host.subscribe);
}

#[test]
fn a_livekit_admin_is_one_of_its_room_alone() {
    let roles = |claims: Value| {
        let grant = verify(claims).unwrap();
        ["x", "r"].map(|room| grant.role_in(room))
    };
    let exp = NOW + 60;
    let admin = json!({"roomJoin": true, "room": "x", "roomAdmin": true});
    let both = json!({"exp": exp, "room": "*", "video": admin});
    assert_eq!(roles(both), [Some(Role::Host), Some(Role::Member)]);
    let silent = json!({"roomJoin": true, "room": "x", "roomAdmin": true, "canPublish": false});
    let silent = json!({"exp": exp, "room": "*", "video": silent});
    assert_eq!(roles(silent), [Some(Role::Host), Some(Role::Viewer)]);
    let own = json!({"exp": exp, "room": "*", "role": "host", "video": {"room": "x"}});
    assert_eq!(roles(own), [Some(Role::Host); 2]);
    let unnamed = json!({"exp": exp, "room": ["x", "r"], "video": {"roomAdmin": true}});
    assert_eq!(roles(unnamed), [Some(Role::Host); 2]);
}

#[test]
fn a_livekit_room_is_a_name_and_not_a_glob() {
    let video = |room: &str| json!({"exp": NOW + 60, "video": {"roomJoin": true, "room": room}});
    for name in ["*", "team-*", r"\*"] {
        let grant = verify(video(name)).unwrap();
        assert!(grant.rooms.allows(name), "{name}");
        assert!(
            !grant.rooms.allows("team-42") && !grant.rooms.allows("*x"),
            "{name}"
        );
    }
    let escaped = verify(json!({"exp": NOW + 60, "room": [r"a\*", "b*"]})).unwrap();
    assert!(escaped.rooms.allows("a*") && escaped.rooms.allows("b1"));
    assert!(!escaped.rooms.allows("a1"));
}

#[test]
fn extensions_of_the_signature_are_refused() {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let with = |extra: Value| {
        let mut header = json!({"alg": "HS256", "typ": "JWT"});
        header
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let message = format!("{}.{}", part(header), part(json!({"exp": NOW + 60})));
        let key = EncodingKey::from_secret(b"north");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        verifier().verify(&format!("{message}.{}", signature.unwrap()), NOW)
    };
    assert!(with(json!({})).is_ok());
    assert!(with(json!({"b64": true, "kid": "any", "x": 1})).is_ok());
    for (extra, named) in [
        (json!({"crit": ["exp"], "exp": 1}), "crit"),
        (json!({"crit": []}), "crit"),
        (json!({"crit": null}), "crit"),
        (json!({"crit": ["b64"], "b64": true}), "crit"),
        (json!({"crit": ["b64"], "b64": false}), "crit"),
        (json!({"b64": false}), "b64"),
        (json!({"b64": null}), "b64"),
        (json!({"b64": "true"}), "b64"),
    ] {
        let told = with(extra.clone()).unwrap_err().to_string();
        assert!(told.contains(&format!("({named})")), "{extra}: {told}");
    }
}

/// Test key, made by `openssl ecparam -name secp521r1 -genkey`.
const P521_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQB8SkfUgl6fm5m4PuRI4DfYD5fHHNw\n\
    UuGJRY0DK1YvpKGA35aorxKBofezL8Bdis2UPB6WntL1VElad/3qeWAQJr0Bl/M1\n\
    gKispZWfUY92GOdHfkYsmr9vBc/I4UEVaj2TCcis+pynsCQHcvRXCVT1vA2YLVgt\n\
    MTR0Cu8myIJxVi2qgpU=\n-----END PUBLIC KEY-----\n";
const P521_PRIVATE: &str = "MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBomdHw9YqXC6ddaQa\
    8ctaQ+wWlclGfe7yqyE8KqlW2TvrVBgLx22DM7iQBHIk9+rFySUvFH5EK8tV15CdJZVVT8OhgYkDgYYABAHxKR9SCXp+\
    bmbg+5EjgN9gPl8cc3BS4YlFjQMrVi+koYDflqivEoGh97MvwF2KzZQ8Hpae0vVUSVp3/ep5YBAmvQGX8zWAqKyllZ9R\
    j3YY50d+Riyav28Fz8jhQRVqPZMJyKz6nKewJAdy9FcJVPW8DZgtWC0xNHQK7ybIgnFWLaqClQ==";

#[test]
fn es512_verifies_by_pem_and_by_jwk() {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::prelude::BASE64_STANDARD;

    let private = BASE64_STANDARD.decode(P521_PRIVATE).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &private).unwrap();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let token = |alg: &str| {
        let header = part(json!({"alg": alg, "kid": "k"}));
        let message = format!("{header}.{}", part(json!({"exp": NOW + 60, "sub": "a"})));
        let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    };
    let mut by_pem = Verifier::new(None, vec![], 0);
    by_pem.add_pem(P521_PUBLIC).unwrap();
    by_pem.restrict(&["ES512".into()]).unwrap();
    assert!(by_pem.restrict(&["ES256".into()]).is_err());

    let point = pair.public_key().as_ref();
    let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({"kty": "EC", "crv": "P-521", "kid": "k", "alg": "ES512", "use": "sig",
        "x": coordinate(&point[1..67]), "y": coordinate(&point[67..])});
    let mut by_jwk = Verifier::new(None, vec![], 0);
    by_jwk
        .add_jwks(&json!({"keys": [jwk, {"kty": "X"}]}).to_string())
        .unwrap();

    for verifier in [&by_pem, &by_jwk] {
        let good = token("ES512");
        assert_eq!(
            verifier.verify(&good, NOW).unwrap().identity.as_deref(),
            Some("a")
        );
        let (message, signature) = good.rsplit_once('.').unwrap();
        let flipped = if &signature[40..41] == "x" { "y" } else { "x" };
        let other = format!(
            "{message}.{}{flipped}{}",
            &signature[..40],
            &signature[41..]
        );
        assert!(verifier.verify(&other, NOW).is_err());
        assert!(verifier.verify(&token("ES256"), NOW).is_err());
        assert!(verifier.verify(&token("HS256"), NOW).is_err());
    }
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
fn a_session_ends_with_its_token_only_where_that_is_asked_for() {
    let token = sign(Algorithm::HS256, "north", &json!({"exp": NOW + 60}));
    let mut verifier = Verifier::new(None, vec![], 5);
    verifier.add_secret(&"north".into());
    assert_eq!(verifier.verify(&token, NOW).unwrap().ends, None);
    verifier.enforce_exp(true);
    let grant = verifier.verify(&token, NOW).unwrap();
    assert_eq!(grant.ends, Some(NOW + 65), "the expiry and the leeway");
}

#[test]
fn what_failed_is_named() {
    let text = |claims| verify(claims).unwrap_err().to_string();
    assert!(text(json!({"sub": "a"})).contains("exp"));
    let long = "x".repeat(8 * 1024);
    for (claim, value) in [
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("nbf", json!({})),
        ("role", json!("admin")),
        ("room", json!([1])),
        ("sub", json!(7)),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("sub", json!("x".repeat(129))),
        ("call", json!("yes")),
        ("metadata", json!(long)),
        ("name", json!(1)),
        ("video", json!([])),
    ] {
        let mut claims = json!({"exp": NOW + 60});
        claims[claim] = value;
        let told = text(claims);
        assert!(told.contains(&format!("{claim} claim")), "{claim}: {told}");
    }
    for (claim, value) in [
        ("canPublish", json!(1)),
        ("room", json!(1)),
        ("roomList", json!("")),
    ] {
        let told = text(json!({"exp": NOW + 60, "video": {claim: value}}));
        assert!(told.contains(&format!("video.{claim} claim")), "{told}");
    }
    assert!(text(json!({"exp": NOW + 60, "name": long})).contains("metadata"));
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

#[test]
fn a_token_without_a_name_has_a_bearer_all_the_same() {
    let bearer = |claims| verify(claims).unwrap().bearer.unwrap();
    let nameless = bearer(json!({"exp": NOW + 60, "room": "a"}));
    assert_eq!(nameless, bearer(json!({"exp": NOW + 60, "room": "a"})));
    assert_ne!(nameless, bearer(json!({"exp": NOW + 61, "room": "a"})));
    assert_eq!(bearer(json!({"exp": NOW + 60, "sub": "ann"})), "ann");
}

#[test]
fn metadata_of_a_token_nests_no_deeper_than_others_read() {
    let nested = |levels: usize| {
        let metadata = (1..levels).fold(json!([]), |inner, _| json!([inner]));
        verify(json!({"sub": "a", "exp": NOW + 60, "metadata": metadata}))
    };
    assert!(nested(MAX_METADATA_DEPTH).is_ok());
    let refused = nested(MAX_METADATA_DEPTH + 1).unwrap_err();
    assert!(refused.to_string().contains("metadata"), "{refused}");
}
