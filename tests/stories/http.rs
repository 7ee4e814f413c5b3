//! The HTTP surface, spoken by hand.

use crate::harness::{Callbox, Client, Reachable, TIMEOUT};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends one request and returns status, head and body.
pub async fn send(
    callbox: &impl Reachable,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(callbox.http()).await.unwrap();
    let host = if headers.contains("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut response))
        .await
        .unwrap()
        .unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn get(callbox: &Callbox, path: &str, headers: &str) -> (u16, String, String) {
    send(callbox, "GET", path, headers, "").await
}

pub fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

/// Browsers fail a WebSocket whose subprotocols are not answered, and say no reason.
#[tokio::test]
async fn a_websocket_that_offers_subprotocols_gets_one_of_them() {
    let callbox = Callbox::start("").await;
    let offers = [("sec-websocket-protocol", "chat, superchat")];
    // The client refuses a handshake without one of them.
    let client = Client::connect_with(&callbox, "", &offers).await;
    assert!(!client.unwrap().peer_id.is_empty());
}

#[tokio::test]
async fn health_readiness_pages_and_nothing_else() {
    let callbox = Callbox::start("").await;
    assert_eq!(get(&callbox, "/healthz", "").await.0, 200);
    assert_eq!(get(&callbox, "/readyz", "").await.0, 200);
    let (status, head, body) = get(&callbox, "/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"));
    let assets: Vec<&str> = body
        .split('"')
        .filter(|s| s.starts_with("assets/"))
        .collect();
    assert!(assets.len() >= 2, "a script and a style sheet: {assets:?}");
    for asset in assets {
        assert_eq!(
            get(&callbox, &format!("/{asset}"), "").await.0,
            200,
            "{asset}"
        );
    }
    let (status, head, body) = get(&callbox, "/admin", "").await;
    assert_eq!(status, 404, "without an admin token there is no dashboard");
    assert!(head.contains("application/problem+json"));
    assert_eq!(json(&body)["status"], 404);

    let run = Callbox::start("[auth]\nadmin_token = \"an admin token of this test\"").await;
    let (status, _, page) = get(&run, "/admin", "").await;
    assert_eq!(status, 200, "the page asks for the token by itself");
    for asset in page.split('"').filter(|s| s.starts_with("assets/")) {
        assert_eq!(get(&run, &format!("/{asset}"), "").await.0, 200, "{asset}");
    }
    let bare = Callbox::start("[http]\npages = false").await;
    assert_eq!(get(&bare, "/", "").await.0, 404);
    assert_eq!(get(&bare, "/healthz", "").await.0, 200);
}

#[tokio::test]
async fn an_application_of_its_own_stands_at_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("index.html", "<title>app</title>");
    write("assets/call.js", "app();");
    write(".env", "hidden");
    write("check", "not reached");
    let toml = format!("[http]\nroot = {:?}", folder.path());
    let callbox = Callbox::start(&toml).await;
    let (status, head, body) = get(&callbox, "/", "").await;
    assert_eq!((status, body.as_str()), (200, "<title>app</title>"));
    assert!(!head.contains("content-security-policy"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"));
    let (_, _, body) = get(&callbox, "/assets/call.js", "").await;
    assert_eq!(body, "app();", "the application has /assets/ to itself");
    for path in ["/.env", "/nothing", "/../etc/passwd"] {
        assert_eq!(get(&callbox, path, "").await.0, 404, "{path}");
    }
    // The box's own paths stay, and the call page has moved.
    assert_eq!(get(&callbox, "/healthz", "").await.0, 200);
    for page in ["/call", "/check"] {
        let (status, _, body) = get(&callbox, page, "").await;
        assert_eq!(status, 200, "{page}");
        let assets: Vec<&str> = body
            .split('"')
            .filter(|part| part.starts_with("callbox-assets/"))
            .collect();
        assert!(assets.len() >= 2, "{page}: {assets:?}");
        for asset in assets {
            let (status, _, body) = get(&callbox, &format!("/{asset}"), "").await;
            assert!(status == 200 && body != "app();", "{asset}");
        }
    }
    let banner = callbox.banner.to_string();
    assert!(banner.contains("/call#room="), "{banner}");
    let foreign = get(&callbox, "/", "Host: evil.example\r\n").await;
    assert_eq!(foreign.0, 403, "the guard stands before files too");
}

#[tokio::test]
async fn ice_servers_are_handed_out_in_both_formats() {
    let callbox = Callbox::start("[turn]\nsecrets = [\"north\"]").await;
    let (status, head, body) = get(&callbox, "/v1/ice-servers", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("cache-control: no-store"));
    let port = callbox.udp[0].port();
    let servers = json(&body);
    assert_eq!(
        servers["iceServers"][0]["urls"][0],
        format!("stun:127.0.0.1:{port}")
    );
    let turn = &servers["iceServers"][1];
    assert_eq!(
        turn["urls"][0],
        format!("turn:127.0.0.1:{port}?transport=udp")
    );
    let username = turn["username"].as_str().unwrap();
    assert!(username.starts_with(&format!("{}:http-", servers["expiresAt"])));
    let rest = json(&get(&callbox, "/v1/ice-servers?format=rest", "").await.2);
    assert_eq!(rest["ttl"], 3600);
    assert!(rest["password"].is_string() && rest["uris"].is_array());
    let check = json(&get(&callbox, "/v1/ice-servers?format=check", "").await.2);
    assert_eq!(check["iceServers"][0], servers["iceServers"][0]);
    assert_eq!(check["natUrls"], json!([]), "one port tells no NATs apart");
    assert_eq!(get(&callbox, "/v1/ice-servers?format=xml", "").await.0, 400);

    let off = Callbox::start("[turn]\nenabled = false").await;
    assert_eq!(
        json(&get(&off, "/v1/ice-servers", "").await.2)["iceServers"],
        json!([])
    );
}

#[tokio::test]
async fn in_jwt_mode_a_token_is_asked_for() {
    let callbox = Callbox::start("[auth]\nmode = \"jwt\"\nsecret = \"north\"").await;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = |exp: u64| {
        let key = EncodingKey::from_secret(b"north");
        jsonwebtoken::encode(
            &Header::default(),
            &json!({"sub": "alice", "exp": exp}),
            &key,
        )
        .unwrap()
    };
    let (status, head, body) = get(&callbox, "/v1/ice-servers", "").await;
    assert_eq!(
        (status, &json(&body)["code"]),
        (401, &json!("unauthorized"))
    );
    assert!(head.contains("www-authenticate: bearer"));
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let (status, _, body) = get(&callbox, "/v1/ice-servers", &bearer(&token(now - 60))).await;
    assert_eq!(
        (status, &json(&body)["code"]),
        (401, &json!("token-expired"))
    );
    let (status, _, body) = get(&callbox, "/v1/ice-servers", &bearer(&token(now + 60))).await;
    assert_eq!(status, 200);
    let username = json(&body)["iceServers"][1]["username"].clone();
    assert!(username.as_str().unwrap().ends_with(":http-alice"));
    let path = format!("/v1/ice-servers?token={}", token(now + 60));
    assert_eq!(get(&callbox, &path, "").await.0, 200);
    // As Selkies asks: what else it says is passed over, and its key or the URI's token counts.
    let headers = "x-auth-user: selkies\r\nx-turn-protocol: tcp\r\nx-turn-tls: true\r\n";
    for name in ["key", "api", "token"] {
        let token = token(now + 60);
        let query = format!("format=rest&service=turn&username=selkies&{name}={token}");
        let path = format!("/v1/ice-servers?{query}");
        let (status, _, body) = get(&callbox, &path, headers).await;
        let answer = json(&body);
        assert_eq!(status, 200, "{name}: {body}");
        assert!(
            answer["username"]
                .as_str()
                .unwrap()
                .ends_with(":http-alice")
        );
        let fields: Vec<_> = answer.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["password", "ttl", "uris", "username"]);
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let callbox = Callbox::start("[http]\nallowed_origins = [\"https://app.example\"]").await;
    assert_eq!(
        get(&callbox, "/healthz", "Host: evil.example\r\n").await.0,
        403
    );
    let origin = |o: &str| format!("Origin: {o}\r\n");
    assert_eq!(
        get(&callbox, "/v1/ice-servers", &origin("https://evil.example"))
            .await
            .0,
        403
    );
    let (status, head, _) = get(&callbox, "/v1/ice-servers", &origin("https://app.example")).await;
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-origin: https://app.example"));
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let evil = format!("{}{upgrade}", origin("https://evil.example"));
    assert_eq!(get(&callbox, "/ws", &evil).await.0, 403);
}
