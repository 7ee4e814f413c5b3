use super::*;
use crate::net::certs::provider;
use crate::net::https::trust;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An identity provider on loopback.
struct Provider {
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicU32>,
    trust: Trust,
    port: u16,
}

impl Provider {
    async fn start(tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, roots) = authority();
        let answer = Arc::new(Mutex::new(String::new()));
        let asked = Arc::new(AtomicU32::new(0));
        let (said, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match tls {
                    true => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, &said, &count).await;
                        }
                    }
                    false => serve(stream, &said, &count).await,
                }
            }
        });
        Self {
            answer,
            asked,
            trust: Arc::new(move || Ok(trust(roots.clone()))),
            port,
        }
    }

    fn answers(&self, head: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
    }

    fn keys(&self, ids: &[&str]) {
        self.answers("200 OK", &set(ids));
    }

    fn url(&self, scheme: &str) -> Option<Uri> {
        let port = self.port;
        Some(format!("{scheme}://localhost:{port}/jwks").parse().unwrap())
    }

    /// Keys without a pause between fetches.
    fn remote(&self) -> RemoteKeys {
        let mut keys = RemoteKeys::new(self.url("https"), Arc::clone(&self.trust));
        keys.cooldown = Duration::ZERO;
        tokio::spawn(keys.clone().run());
        keys
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &Mutex<String>,
    count: &AtomicU32,
) {
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await.unwrap_or(0);
    if length == 0 {
        return;
    }
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    assert!(request.starts_with("GET /jwks HTTP/1.1"), "{request}");
    count.fetch_add(1, Ordering::Relaxed);
    let answer = answer.lock().unwrap().clone();
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A server for `localhost`, and the authority that certifies it.
fn authority() -> (TlsAcceptor, RootCertStore) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::from(key))
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), roots)
}

/// A set of Ed25519 keys; the key is of RFC 8037 appendix A.
fn set(ids: &[&str]) -> String {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = |id| serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id});
    serde_json::json!({"keys": ids.iter().map(key).collect::<Vec<_>>()}).to_string()
}

/// The ids of the keys in use.
fn ids(keys: &RemoteKeys) -> String {
    keys.current()
        .map_or_else(String::new, |set| format!("{set:?}"))
}

async fn wait_for(keys: &RemoteKeys, reached: impl Fn(&State) -> bool) {
    let mut seen = keys.state.subscribe();
    let _ = seen.wait_for(|state| reached(state)).await.unwrap();
}

#[tokio::test]
async fn keys_come_over_tls_and_an_unknown_one_brings_the_next_set() {
    let provider = Provider::start(true).await;
    provider.keys(&["one"]);
    let keys = provider.remote();
    assert!(keys.are_awaited());
    wait_for(&keys, |state| state.set.is_some()).await;
    assert!(!keys.are_awaited());
    assert_eq!(ids(&keys), r#"[Some("one")]"#);

    provider.keys(&["two", "three"]);
    keys.refresh().unwrap().await;
    assert_eq!(ids(&keys), r#"[Some("two"), Some("three")]"#);
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn the_last_good_set_stays_whatever_the_provider_answers() {
    let provider = Provider::start(true).await;
    provider.keys(&["one"]);
    let keys = provider.remote();
    wait_for(&keys, |state| state.set.is_some()).await;
    let secret = r#"{"keys": [{"kty": "oct", "k": "AAAA", "kid": "s"}]}"#;
    let large = format!("{}{}", set(&["one"]), " ".repeat(LIMITS.body));
    let many: Vec<_> = (0..101).map(|n| n.to_string()).collect();
    let many = set(&many.iter().map(String::as_str).collect::<Vec<_>>());
    for (head, body, reason) in [
        ("500 Broken", "", "the answer is 500"),
        ("200 OK", "<html>", "is not a valid JWK Set"),
        ("200 OK", r#"{"keys": []}"#, "no key"),
        ("200 OK", secret, "no public key"),
        ("200 OK", &large, "larger than"),
        ("200 OK", &many, "more than 100 keys"),
        (
            "302 Found\r\nlocation: https://elsewhere.example/jwks",
            "",
            "redirects to https://elsewhere.example/jwks: name that URL",
        ),
    ] {
        provider.answers(head, body);
        let url = provider.url("https").unwrap();
        let problem = fetch(&url, &provider.trust).await.unwrap_err();
        assert!(problem.contains(reason), "{problem}");
        // After a failure, unknown keys wait for the next attempt.
        if let Some(ended) = keys.refresh() {
            ended.await;
        }
        assert!(keys.refresh().is_none(), "{reason}");
        assert_eq!(ids(&keys), r#"[Some("one")]"#, "{reason}");
    }
}

#[tokio::test]
async fn strangers_cannot_have_the_provider_asked_again_and_again() {
    let provider = Provider::start(true).await;
    provider.keys(&["one"]);
    let keys = RemoteKeys::new(provider.url("https"), Arc::clone(&provider.trust));
    let before: Vec<_> = (0..100).filter_map(|_| keys.refresh()).collect();
    tokio::spawn(keys.clone().run());
    for ended in before {
        ended.await;
    }
    wait_for(&keys, |state| state.set.is_some()).await;
    assert!((0..100).all(|_| keys.refresh().is_none()));
}

#[tokio::test]
async fn a_certificate_that_no_authority_signed_brings_no_keys() {
    let provider = Provider::start(true).await;
    provider.keys(&["one"]);
    let stranger: Trust = Arc::new(|| Ok(trust(RootCertStore::empty())));
    let problem = fetch(&provider.url("https").unwrap(), &stranger).await;
    let problem = problem.unwrap_err();
    assert!(problem.contains("certificate"), "{problem}");
    assert_eq!(provider.asked(), 0);
}

#[tokio::test]
async fn plain_http_is_for_loopback_alone() {
    let provider = Provider::start(false).await;
    provider.keys(&["one"]);
    assert!(
        fetch(&provider.url("http").unwrap(), &provider.trust)
            .await
            .is_ok()
    );
    let outside = "http://192.0.2.1/jwks".parse().unwrap();
    let problem = fetch(&outside, &provider.trust).await.unwrap_err();
    assert!(problem.contains("loopback"), "{problem}");
}

#[tokio::test]
async fn another_url_drops_the_keys_of_the_one_before() {
    let (one, two) = (Provider::start(true).await, Provider::start(false).await);
    one.keys(&["one"]);
    two.keys(&["two"]);
    let keys = one.remote();
    wait_for(&keys, |state| state.set.is_some()).await;
    keys.set_url(two.url("http"));
    assert!(keys.are_awaited());
    wait_for(&keys, |state| state.set.is_some()).await;
    assert_eq!(ids(&keys), r#"[Some("two")]"#);
    keys.set_url(None);
    assert!(keys.current().is_none() && !keys.are_awaited());
    assert!(keys.refresh().is_none());
}

#[test]
fn the_age_of_a_set_is_bounded() {
    let age = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, value.parse().unwrap());
        max_age(&headers).as_secs()
    };
    assert_eq!(max_age(&HeaderMap::new()), MAX_AGE);
    for (value, seconds) in [
        ("public, max-age=900, must-revalidate", 900),
        ("Max-Age=\"120\"", 120),
        ("max-age=0", 60),
        ("no-store, max-age=999999999999", 3600),
        ("max-age=soon", 600),
        ("no-cache", 600),
    ] {
        assert_eq!(age(value), seconds, "{value}");
    }
    assert_eq!(retry(0), FIRST_RETRY);
    assert_eq!(retry(3), FIRST_RETRY * 8);
    assert_eq!(retry(u32::MAX), LAST_RETRY);
}
