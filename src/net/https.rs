//! The one HTTPS client: system roots, a deadline, a bounded body, and a say on target addresses.
//!
//! Redirects are not followed: an answer of 3xx is the caller's to judge.

use super::certs::provider;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tower::Service;

/// Idle connections that are kept to one host, so that a burst of requests shares them.
const IDLE_PER_HOST: usize = 32;
/// How long an idle connection is kept. Servers commonly close theirs after 60 s or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether the client may connect to an address.
pub type Judge = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first connect to the last byte of the body.
    pub timeout: Duration,
    /// Bytes of the body.
    pub body: usize,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The deadline passed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The body is over [`Limits::body`].
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The name has only addresses that the judge refuses.
    #[error("{0}")]
    Refused(String),
    /// The connection, TLS or HTTP failed.
    #[error("{0}")]
    Failed(String),
}

/// Trusts the certificate authorities of the system, or those of `SSL_CERT_FILE`, as they are now.
///
/// # Errors
/// The system trusts none; the message names the package that brings them.
pub fn system_trust() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system trusts no certificate authority: \
                    install the package ca-certificates, or set SSL_CERT_FILE"
            .into());
    }
    Ok(trust(roots))
}

/// Trusts `roots` alone.
pub fn trust(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

type Pool = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// An HTTP/1.1 client for `https:` and `http:` URLs. It keeps idle connections; clones share them.
#[derive(Clone)]
pub struct HttpsClient {
    connector: HttpsConnector<Connector>,
    pool: Arc<RwLock<Pool>>,
}

impl HttpsClient {
    /// Connects with `tls`; `judge` has a say on every address.
    pub fn new(tls: ClientConfig, judge: Option<Judge>) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector { judge });
        let pool = Arc::new(RwLock::new(pool(connector.clone())));
        Self { connector, pool }
    }

    /// Closes the idle connections, and uses those of requests under way for these alone: the judge
    /// decides otherwise from here on.
    pub fn judge_anew(&self) {
        let fresh = pool(self.connector.clone());
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn request(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        pool.request(request)
    }

    /// Sends `request`, whose URI is absolute, and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// No whole answer came within `limits`.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Response<Bytes>, HttpsError> {
        let exchange = async {
            let response = self.request(request).await.map_err(failure)?;
            let (parts, body) = response.into_parts();
            // A length over the limit is refused before its bytes come.
            if body.size_hint().lower() > limits.body as u64 {
                return Err(HttpsError::TooLarge(limits.body));
            }
            let body = Limited::new(body, limits.body).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => HttpsError::TooLarge(limits.body),
                false => HttpsError::Failed(error.to_string()),
            })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::time::timeout(limits.timeout, exchange)
            .await
            .unwrap_or(Err(HttpsError::Timeout(limits.timeout)))
    }

    /// Sends `request`, whose URI is absolute, and hands over an answer whose body is read as it
    /// comes. `timeout` is for its head.
    ///
    /// # Errors
    /// No head came in time.
    pub async fn open(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, HttpsError> {
        tokio::time::timeout(timeout, self.request(request))
            .await
            .map_err(|_| HttpsError::Timeout(timeout))?
            .map_err(failure)
    }

    /// Asks for `url`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn get(&self, url: &Uri, limits: Limits) -> Result<Response<Bytes>, HttpsError> {
        let request = Request::get(url.clone()).body(Full::default());
        let request = request.map_err(|error| HttpsError::Failed(error.to_string()))?;
        self.send(request, limits).await
    }
}

fn pool(connector: HttpsConnector<Connector>) -> Pool {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// The innermost cause says what happened; the outer ones say "client error".
fn failure(error: hyper_util::client::legacy::Error) -> HttpsError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return HttpsError::Refused(refused.0.clone());
        }
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && let Some(refused) = io.get_ref().and_then(|e| e.downcast_ref::<Refused>())
        {
            return HttpsError::Refused(refused.0.clone());
        }
        cause = inner;
    }
    HttpsError::Failed(cause.to_string())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Resolves and connects; the judge sees literal addresses and resolved ones alike.
#[derive(Clone)]
struct Connector {
    judge: Option<Judge>,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let judge = self.judge.clone();
        Box::pin(async move { connect(&uri, judge).await })
    }
}

async fn connect(uri: &Uri, judge: Option<Judge>) -> io::Result<Stream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let default = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = uri.port_u16().unwrap_or(default);
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => lookup_host((host, port)).await?.collect(),
    };
    let may_connect = |address: &SocketAddr| judge.as_ref().is_none_or(|judge| judge(address.ip()));
    let mut last = io::Error::other(Refused(match found.first() {
        Some(first) if host.parse() == Ok(first.ip()) => format!("{host} is not a public address"),
        Some(first) => format!("{host} is at {}, which is not a public address", first.ip()),
        None => format!("{host} has no address"),
    }));
    for address in found.into_iter().filter(may_connect) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(Stream(TokioIo::new(stream)));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

struct Stream(TokioIo<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const LIMITS: Limits = Limits {
        timeout: Duration::from_secs(20),
        body: 1000,
    };

    fn client(judge: Option<Judge>) -> HttpsClient {
        HttpsClient::new(trust(RootCertStore::empty()), judge)
    }

    /// Answers each connection with `answer` and leaves it open.
    async fn server(answer: &'static str) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut open = vec![];
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                open.push(stream);
            }
        });
        format!("http://localhost:{port}/path").parse().unwrap()
    }

    #[tokio::test]
    async fn an_answer_comes_whole_with_its_status() {
        let url = server("HTTP/1.1 404 Nope\r\ncontent-length: 2\r\n\r\nno").await;
        let response = client(None).get(&url, LIMITS).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (404, &b"no"[..])
        );
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let url =
            server("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n")
                .await;
        let response = client(None).get(&url, LIMITS).await.unwrap();
        assert_eq!(response.status().as_u16(), 302);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let url = server("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n").await;
        let limits = Limits { body: 10, ..LIMITS };
        let error = client(None).get(&url, limits).await.unwrap_err();
        assert!(matches!(error, HttpsError::TooLarge(10)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_meets_the_deadline() {
        let url = server("").await;
        let error = client(None).get(&url, LIMITS).await.unwrap_err();
        assert!(matches!(error, HttpsError::Timeout(_)), "{error}");
    }

    /// A connection that was kept would pass the judge by.
    #[tokio::test]
    async fn a_judge_that_changes_its_mind_is_asked_about_connections_that_are_kept() {
        let url = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let is_open = Arc::new(AtomicBool::new(true));
        let judged = Arc::clone(&is_open);
        let client = client(Some(Arc::new(move |_| judged.load(Ordering::Relaxed))));
        client.get(&url, LIMITS).await.unwrap();
        is_open.store(false, Ordering::Relaxed);
        client.clone().judge_anew();
        let error = client.get(&url, LIMITS).await.unwrap_err();
        assert!(matches!(error, HttpsError::Refused(_)), "{error}");
    }

    #[tokio::test]
    async fn the_judge_refuses_names_and_literals() {
        let url = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let literal = format!("http://127.0.0.1:{}/", url.port_u16().unwrap())
            .parse()
            .unwrap();
        let judge: Judge = Arc::new(|ip: IpAddr| !ip.is_loopback());
        for url in [url, literal] {
            let error = client(Some(Arc::clone(&judge)))
                .get(&url, LIMITS)
                .await
                .unwrap_err();
            assert!(matches!(error, HttpsError::Refused(_)), "{error}");
        }
    }
}
