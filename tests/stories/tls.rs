//! One TLS port: pages, WebSocket and TURN side by side, and certificates exchanged under them.

use crate::harness::{Callbox, Client, TIMEOUT};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite;

/// A box with a certificate for `names`, and the directory that it lives in.
pub struct TlsBox {
    pub callbox: Callbox,
    dir: tempfile::TempDir,
    roots: rustls::RootCertStore,
}

impl TlsBox {
    pub async fn start(names: &[&str], toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(renew(dir.path(), names)).unwrap();
        let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
        let tls = format!("listen = [\"127.0.0.1:0\"]\ncert = {cert:?}\nkey = {key:?}\n");
        let toml = format!("[tls]\n{tls}{toml}");
        Self {
            callbox: Callbox::start(&toml).await,
            dir,
            roots,
        }
    }

    /// Puts another certificate in place, and waits until the box shows it.
    async fn renew(&mut self, names: &[&str]) {
        self.roots.add(renew(self.dir.path(), names)).unwrap();
        let mut shown = self.callbox.certificates.as_ref().unwrap().watch();
        self.callbox.reload_certificates();
        let is_new = shown.wait_for(|i| i.as_ref().unwrap().names(names[0]));
        timeout(TIMEOUT, is_new).await.unwrap().unwrap();
    }

    async fn connect(&self, name: &str, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.callbox.https[0]).await?;
        self.connect_over(stream, name, alpn).await
    }

    async fn connect_over(
        &self,
        stream: TcpStream,
        name: &str,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    async fn get(&self, name: &str, path: &str, alpn: &[&str]) -> String {
        let mut stream = self.connect(name, alpn).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = vec![];
        let read = timeout(TIMEOUT, stream.read_to_end(&mut response)).await;
        read.unwrap().unwrap();
        String::from_utf8(response).unwrap()
    }

    /// The TURN URLs that a client is handed.
    async fn turn_urls(&self, name: &str) -> Vec<String> {
        let response = self.get(name, "/v1/ice-servers", &[]).await;
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        serde_json::from_value(body["iceServers"][1]["urls"].clone()).unwrap()
    }

    async fn websocket(&self, name: &str) -> Client<TlsStream<TcpStream>> {
        let stream = self.connect(name, &["http/1.1"]).await.unwrap();
        Client::over(stream, "wss://localhost/ws").await.unwrap()
    }
}

/// Writes a fresh self-signed pair.
fn renew(dir: &Path, names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("cert"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

#[tokio::test]
async fn pages_and_websockets_share_the_port_with_and_without_alpn() {
    let tls = TlsBox::start(&["localhost"], "").await;
    for alpn in [&[][..], &["http/1.1"], &["foo", "http/1.1"]] {
        let page = tls.get("localhost", "/", alpn).await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(page.contains("strict-transport-security: max-age=15552000\r\n"));
    }
    let mut alice = tls.websocket("localhost").await;
    let joined = alice
        .request(json!({"type": "join", "roomId": "r", "identity": "alice"}))
        .await;
    assert_eq!(joined["type"], "joined", "{joined}");
    let unknown = tls.connect("localhost", &["foo"]).await;
    assert!(unknown.is_err(), "nothing in common to speak");
}

/// Asks for a STUN binding (RFC 8489 section 6) and returns the type of the answer.
async fn binding(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<[u8; 2]> {
    let request = *b"\x00\x01\x00\x00\x21\x12\xa4\x42callbox-test";
    stream.write_all(&request).await.ok()?;
    let mut answer = [0; 20];
    let read = timeout(TIMEOUT, stream.read_exact(&mut answer));
    read.await.unwrap().ok()?;
    assert_eq!(answer[8..], request[8..], "the same transaction");
    Some([answer[0], answer[1]])
}

#[tokio::test]
async fn turn_shares_the_port_with_and_without_alpn() {
    let tls = TlsBox::start(&["localhost"], "").await;
    for alpn in [&[][..], &["stun.turn"], &["http/1.1", "stun.turn"]] {
        let mut stream = tls.connect("localhost", alpn).await.unwrap();
        assert_eq!(binding(&mut stream).await, Some([1, 1]), "{alpn:?}");
    }
    let mut http = tls.connect("localhost", &["http/1.1"]).await.unwrap();
    assert_eq!(binding(&mut http).await, None, "HTTP was agreed on");

    let off = TlsBox::start(&["localhost"], "[turn]\nenabled = false").await;
    let mut stream = off.connect("localhost", &[]).await.unwrap();
    assert_eq!(binding(&mut stream).await, None, "a box without TURN");
}

#[tokio::test]
async fn http_and_turn_share_a_plain_port_that_both_name() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let callbox = Callbox::start_on("", &address, &address).await;
    let (_alice, joined) = Client::join(&callbox, "room", "alice").await;
    let urls = joined["iceServers"][1]["urls"].as_array().unwrap();
    assert!(
        urls.contains(&json!(format!("turn:{address}?transport=tcp"))),
        "{urls:?}"
    );
    let mut stream = TcpStream::connect(&address).await.unwrap();
    assert_eq!(binding(&mut stream).await, Some([1, 1]));
}

#[tokio::test]
async fn pages_are_served_over_http2_and_the_guard_knows_its_host() {
    let tls = TlsBox::start(&["localhost"], "").await;
    let ask = async |uri: &str, origin: &str| {
        let stream = tls.connect("localhost", &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(uri).header("origin", origin);
        let response = sender
            .send_request(request.body(String::new()).unwrap())
            .await;
        response.unwrap().status().as_u16()
    };
    let own = "https://localhost/v1/ice-servers";
    assert_eq!(ask(own, "https://localhost").await, 200);
    assert_eq!(ask(own, "https://evil.example").await, 403);
    assert_eq!(
        ask("https://evil.example/", "https://evil.example").await,
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_exchanged_under_load_without_a_failed_request() {
    let mut tls = TlsBox::start(&["localhost", "first.example"], "").await;
    let mut alice = tls.websocket("localhost").await;
    // Clients trust what is to come: nothing but the box may fail them.
    let pairs: Vec<tempfile::TempDir> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    for (round, pair) in pairs.iter().enumerate() {
        let name = format!("round{round}.example");
        tls.roots
            .add(renew(pair.path(), &[&name, "localhost"]))
            .unwrap();
    }
    let tls = Arc::new(tls);
    let (served, over) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (tls, served, over) = (Arc::clone(&tls), Arc::clone(&served), Arc::clone(&over));
        load.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let answer = tls.get("localhost", "/healthz", &[]).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut shown = tls.callbox.certificates.as_ref().unwrap().watch();
    for (round, pair) in pairs.iter().enumerate() {
        let enough = served.load(Ordering::Relaxed) + 20;
        while served.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        for file in ["cert", "key"] {
            std::fs::rename(pair.path().join(file), tls.dir.path().join(file)).unwrap();
        }
        tls.callbox.reload_certificates();
        let name = format!("round{round}.example");
        let is_new = shown.wait_for(|i| i.as_ref().unwrap().names(&name));
        timeout(TIMEOUT, is_new).await.unwrap().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    while let Some(client) = load.join_next().await {
        client.unwrap();
    }
    assert!(
        tls.connect("round4.example", &[]).await.is_ok(),
        "the last one is shown"
    );
    assert!(tls.connect("first.example", &[]).await.is_err());
    assert_eq!(
        alice.request(json!({"type": "ping"})).await["type"],
        "pong",
        "an old connection"
    );
}

#[tokio::test]
async fn turns_is_handed_out_while_the_certificate_names_the_host() {
    let host = "[public]\nhost = \"call.example\"\n[auth]\nmode = \"open\"";
    let mut tls = TlsBox::start(&["call.example"], host).await;
    let turns = format!(
        "turns:call.example:{}?transport=tcp",
        tls.callbox.https[0].port()
    );
    assert!(tls.turn_urls("call.example").await.contains(&turns));

    tls.renew(&["other.example"]).await;
    let urls = tls.turn_urls("other.example").await;
    assert!(!urls.is_empty() && !urls.contains(&turns), "{urls:?}");
    let mut alice = tls.websocket("other.example").await;
    let joined = alice.request(json!({"type": "join", "roomId": "r"})).await;
    assert_eq!(
        joined["iceServers"][1]["urls"],
        json!(urls),
        "signaling follows, too"
    );

    tls.renew(&["call.example"]).await;
    assert!(tls.turn_urls("call.example").await.contains(&turns));
}

#[tokio::test]
async fn a_broken_pair_is_counted_and_the_old_one_kept() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = free.local_addr().unwrap();
    drop(free);
    let toml = format!("[metrics]\nlisten = \"{metrics}\"");
    let tls = TlsBox::start(&["localhost"], &toml).await;
    let ask = async |host: &str| -> String {
        let mut stream = TcpStream::connect(metrics).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let scrape = async |wanted: &str| -> bool {
        let text = ask("localhost").await;
        text.lines().any(|line| line.starts_with(wanted))
    };
    let foreign = ask("rebound.example").await;
    assert!(foreign.starts_with("HTTP/1.1 403 ") && !foreign.contains("callbox_tls"));
    assert!(scrape("callbox_tls_certificate_days_left ").await);
    assert!(scrape("callbox_tls_certificate_failures_total 0").await);

    std::fs::write(tls.dir.path().join("key"), "nonsense").unwrap();
    tls.callbox.reload_certificates();
    let counted = async {
        while !scrape("callbox_tls_certificate_failures_total 1").await {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, counted)
        .await
        .expect("the failure is counted");
    assert!(
        tls.get("localhost", "/healthz", &[])
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn a_proxy_header_names_the_client() {
    let toml = "proxy_protocol = true\n[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
                [signal]\nconnections_per_ip = 1";
    let tls = TlsBox::start(&["localhost"], toml).await;
    let websocket = async |client: &str| {
        let mut stream = TcpStream::connect(tls.callbox.https[0]).await.unwrap();
        let header = format!("PROXY TCP4 {client} 198.51.100.1 1000 443\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        let stream = tls.connect_over(stream, "localhost", &[]).await.unwrap();
        Client::over(stream, "wss://localhost/ws").await
    };
    let _alice = websocket("192.0.2.1").await.unwrap();
    let _bob = websocket("192.0.2.2").await.unwrap();
    match websocket("192.0.2.1").await.err() {
        Some(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 429),
        other => panic!("a second connection of one client: {other:?}"),
    }
    assert!(
        tls.connect("localhost", &[]).await.is_err(),
        "no header, no connection"
    );
}

#[tokio::test]
async fn a_cookie_is_for_tls_alone_where_its_client_came_by_tls() {
    let toml = "[compat]\nenabled = [\"tutorials\"]\n[http]\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let tls = TlsBox::start(&["localhost"], toml).await;
    let secure = |head: &str| {
        let cookie = head.lines().find(|line| line.starts_with("set-cookie: "));
        cookie.unwrap().ends_with("; secure")
    };
    let path = "/api/messages";
    assert!(secure(
        &tls.get("localhost", path, &[]).await.to_lowercase()
    ));
    for (headers, is_secure) in [("", false), ("X-Forwarded-Proto: https\r\n", true)] {
        let (_, head, _) = crate::http::send(&tls.callbox, "GET", path, headers, "").await;
        assert_eq!(secure(&head), is_secure, "{headers}");
    }
}
