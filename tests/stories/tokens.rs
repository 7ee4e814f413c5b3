//! Tokens: good, expired, forged; and where they may stand.

use crate::harness::{Callbox, Client};
use crate::http::{json, send};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use callbox::config::Config;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const JWT: &str =
    "[auth]\nmode = \"jwt\"\nsecret = \"north\"\naudience = \"calls\"\n[rooms]\nmax_peers = 10";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn sign(algorithm: Algorithm, secret: &str, mut claims: Value) -> String {
    claims["aud"] = claims.get("aud").cloned().unwrap_or(json!("calls"));
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap()
}

fn token(claims: Value) -> String {
    sign(Algorithm::HS256, "north", claims)
}

#[tokio::test]
async fn a_token_says_who_one_is_and_where_one_may_go() {
    let callbox = Callbox::start(JWT).await;
    let good = token(json!({"sub": "alice", "exp": now() + 60, "room": "team-*", "role": "host"}));
    let join = json!({"type": "join", "roomId": "team-1", "identity": "mallory", "token": good});
    let mut client = Client::connect(&callbox).await;
    let joined = client.request(join).await;
    assert_eq!(
        (&joined["identity"], &joined["role"]),
        (&json!("alice"), &json!("host"))
    );
    let elsewhere = json!({"type": "join", "roomId": "other", "token": good});
    assert_eq!(client.refused(elsewhere).await, "forbidden");

    let bearer = format!("Bearer {good}");
    for (query, headers) in [
        (String::new(), vec![("authorization", bearer.as_str())]),
        (format!("?token={good}"), vec![]),
    ] {
        let mut client = Client::connect_with(&callbox, &query, &headers)
            .await
            .unwrap();
        let joined = client
            .request(json!({"type": "join", "roomId": "team-2"}))
            .await;
        assert_eq!(joined["identity"], "alice", "{joined}");
    }
}

#[tokio::test]
async fn a_key_set_rotates_by_a_reload() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let holds = |kid: &str, secret: &str| {
        let k = BASE64_URL_SAFE_NO_PAD.encode(secret);
        let set = json!({"keys": [{"kty": "oct", "k": k, "kid": kid, "alg": "HS256"}]});
        std::fs::write(keys.path(), set.to_string()).unwrap();
    };
    let join = |kid: &str, secret: &str| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.into());
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token =
            jsonwebtoken::encode(&header, &json!({"exp": now() + 60, "room": "r"}), &key).unwrap();
        json!({"type": "join", "roomId": "r", "token": token})
    };
    let toml = format!("[auth]\nmode = \"jwt\"\njwks = {:?}", keys.path());
    holds("2026-1", "north");
    let callbox = Callbox::start(&toml).await;
    let (old, new) = (join("2026-1", "north"), join("2026-2", "south"));
    let mut client = Client::connect(&callbox).await;
    assert_eq!(client.request(old.clone()).await["type"], "joined");
    let mut early = Client::connect(&callbox).await;
    assert_eq!(early.refused(new.clone()).await, "unauthorized");

    holds("2026-2", "south");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, toml.as_bytes()).unwrap();
    callbox.reload(Config::load(Some(file.path()), std::iter::empty()).unwrap());
    let mut newcomer = Client::connect(&callbox).await;
    assert_eq!(newcomer.request(new).await["type"], "joined");
    let mut late = Client::connect(&callbox).await;
    assert_eq!(late.refused(old).await, "unauthorized");
    let pong = client.request(json!({"type": "ping"})).await;
    assert_eq!(pong["type"], "pong", "who is in stays in");
}

/// Who signs tokens may have a clock that is ahead of this one by some seconds.
#[tokio::test]
async fn a_token_of_the_next_seconds_is_taken_by_default() {
    let callbox = Callbox::start(JWT).await;
    let soon = token(json!({"sub": "a", "room": "r", "nbf": now() + 3, "exp": now() + 60}));
    let mut client = Client::connect(&callbox).await;
    let joined = client
        .request(json!({"type": "join", "roomId": "r", "token": soon}))
        .await;
    assert_eq!(joined["type"], "joined", "{joined}");
}

#[tokio::test]
async fn what_does_not_verify_is_refused_with_its_reason() {
    let callbox = Callbox::start(JWT).await;
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": "a", "exp": now() + 60, "room": "r", "aud": "calls"});
    let none = format!("{}.{}.", part(json!({"alg": "none"})), part(claims.clone()));
    let rs256 = format!(
        "{}.{}.AAAA",
        part(json!({"alg": "RS256"})),
        part(claims.clone())
    );
    let with = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        token(claims)
    };
    for (name, token, code) in [
        ("expired", with("exp", json!(now() - 5)), "token-expired"),
        ("future nbf", with("nbf", json!(now() + 60)), "unauthorized"),
        ("wrong aud", with("aud", json!("other")), "unauthorized"),
        (
            "forged",
            sign(Algorithm::HS256, "south", claims.clone()),
            "unauthorized",
        ),
        ("alg none", none, "unauthorized"),
        ("alg confusion", rs256, "unauthorized"),
        ("garbage", "a.b.c".into(), "unauthorized"),
        (
            "another room",
            with("room", json!(["x", "rr*"])),
            "forbidden",
        ),
    ] {
        let mut client = Client::connect(&callbox).await;
        let join = json!({"type": "join", "roomId": "r", "token": token});
        assert_eq!(client.refused(join).await, code, "{name}");
    }
    let mut client = Client::connect(&callbox).await;
    assert_eq!(
        client.refused(json!({"type": "join", "roomId": "r"})).await,
        "unauthorized"
    );
}

#[tokio::test]
async fn a_viewer_receives_and_sends_nothing_of_its_own() {
    let callbox = Callbox::start(JWT).await;
    let claims = |sub: &str, role: &str| {
        token(json!({"sub": sub, "exp": now() + 60, "room": "r", "role": role}))
    };
    let mut host = Client::connect(&callbox).await;
    let join = |token: String| json!({"type": "join", "roomId": "r", "token": token});
    host.request(join(claims("h", "host"))).await;
    let mut viewer = Client::connect(&callbox).await;
    assert_eq!(
        viewer.request(join(claims("v", "viewer"))).await["role"],
        "viewer"
    );
    assert_eq!(
        viewer
            .refused(json!({"type": "publish", "tracks": []}))
            .await,
        "forbidden"
    );
    host.request(json!({"type": "publish", "tracks": [1]}))
        .await;
    assert_eq!(viewer.until("publish").await["tracks"], json!([1]));
}

/// Test key, made by `openssl genpkey -algorithm ed25519`.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEApksDIdprndk4iyr4J2lSTUr9EUtZLEKzI3QOUKoxIC0=\n-----END PUBLIC KEY-----\n";

#[tokio::test]
async fn a_public_key_is_not_a_shared_secret() {
    let toml = format!("[auth]\nmode = \"jwt\"\npublic_key = \"\"\"\n{PUBLIC_KEY}\"\"\"");
    let callbox = Callbox::start(&toml).await;
    let mut client = Client::connect(&callbox).await;
    let claims = json!({"sub": "mallory", "exp": now() + 60, "room": "r"});
    let confused = sign(Algorithm::HS256, PUBLIC_KEY, claims);
    let join = json!({"type": "join", "roomId": "r", "token": confused});
    assert_eq!(client.refused(join).await, "unauthorized");
}

/// Test key, made by `openssl genpkey -algorithm ed25519`, and the `x` of its JWK.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKVcIaft0r9sBGUmxNu1eWJznOymGNAfHeYkN8QLsYET\n-----END PRIVATE KEY-----\n";
const PUBLIC_X: &str = "v5tgDHUGF3ALhD0_lZlM-hreVb6a8A_TeMyLgAMcVYA";

#[tokio::test]
async fn keys_of_an_identity_provider_are_fetched_and_a_join_waits_for_them() {
    let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", provider.local_addr().unwrap());
    let callbox = Callbox::start(&format!("[auth]\nmode = \"jwt\"\njwks = {url:?}")).await;
    // The box asks, and is not answered yet.
    let (mut asked, _) = provider.accept().await.unwrap();
    let mut request = [0; 1024];
    let length = asked.read(&mut request).await.unwrap();
    assert!(request[..length].starts_with(b"GET /jwks "));
    let (status, _, body) = send(&callbox, "GET", "/readyz", "", "").await;
    assert_eq!((status, &json(&body)["code"]), (503, &json!("no-keys")));

    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("2026-1".into());
    let key = EncodingKey::from_ed_pem(PRIVATE_KEY.as_bytes()).unwrap();
    let claims = json!({"sub": "alice", "exp": now() + 60, "room": "r"});
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let mut early = Client::connect(&callbox).await;
    early
        .send(json!({"type": "join", "roomId": "r", "token": token}))
        .await;
    // What is sent behind a join that waits keeps its place.
    early.send(json!({"type": "list", "id": "l"})).await;
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": PUBLIC_X, "kid": "2026-1"}]});
    let (set, length) = (set.to_string(), set.to_string().len());
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{set}");
    let path = format!("/v1/ice-servers?token={token}");
    let (ice, written) = tokio::join!(
        send(&callbox, "GET", &path, "", ""),
        asked.write_all(answer.as_bytes())
    );
    written.unwrap();
    assert_eq!(ice.0, 200, "{}", ice.2);
    assert_eq!(early.until("joined").await["identity"], "alice");
    assert_eq!(early.until("peers").await["id"], "l");
    assert_eq!(send(&callbox, "GET", "/readyz", "", "").await.0, 200);

    // A key that the set lacks is refused at once where the set is as new as this.
    header.kid = Some("2026-2".into());
    let unknown = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let mut client = Client::connect(&callbox).await;
    let join = json!({"type": "join", "roomId": "r", "token": unknown});
    assert_eq!(client.refused(join).await, "unauthorized");
    let shared = sign(Algorithm::HS256, PUBLIC_X, claims);
    let mut client = Client::connect(&callbox).await;
    let join = json!({"type": "join", "roomId": "r", "token": shared});
    assert_eq!(client.refused(join).await, "unauthorized");
}
