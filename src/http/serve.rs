//! One HTTP connection: bounded in the time that a slow or silent client may take.

use super::problem::Problem;
use crate::address::shown_socket;
use crate::net::{Full, Place};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Version as HttpVersion, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tower::ServiceExt;

/// How long a client may take to send a request's head, and then sit idle before the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take from its head to its answer: a body that trickles in, mostly.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head: a token in a query is the longest thing in it.
const MAX_HEAD: u16 = 16 * 1024;
/// What a client is answered on a connection that is one too many of its network: supervisors ask
/// from the machine where the crowd may be.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Requests of one HTTP/2 connection at once: further ones of a page wait for those before them.
const MAX_STREAMS: u32 = 8;
/// Bytes that a client may send beyond what is read, on one HTTP/2 connection and on one stream of it.
const WINDOW: u32 = 64 * 1024;
/// Bytes of answers that wait on one stream.
const MAX_SEND_BUFFER: usize = 16 * 1024;
/// What a body that does not say its length is charged for: by default no handler takes more.
const UNKNOWN_BODY: u64 = 128 * 1024;

/// The version that a client was found to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, the one that WebSocket needs.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Whose requests a connection carries.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client, or the proxy that speaks for it.
    pub client: SocketAddr,
    /// The address that was connected to.
    pub local: SocketAddr,
    /// Kept as long as the connection is used, by its WebSocket too.
    pub place: Arc<Place>,
}

/// Ends the connection of a request, whatever waits on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending(pub(super) Arc<Notify>);

/// Marks an answer whose body goes on for as long as the client reads it.
#[derive(Clone)]
pub(super) struct LongLived;

/// Serves `router` to `caller` until either side ends the connection; a WebSocket goes on by
/// itself.
pub async fn serve<S>(stream: S, caller: Caller, version: Version, router: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    let client = caller.client;
    let ending = Ending::default();
    let end = Arc::clone(&ending.0);
    let served = async {
        match version {
            Version::Http1 => {
                let service = service_fn(move |request| {
                    answer(router.clone(), caller.clone(), ending.clone(), request)
                });
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(MAX_HEAD.into())
                    .serve_connection(stream, service)
                    .with_upgrades()
                    .await
            }
            Version::Http2 => serve_http2(stream, caller, ending, router).await,
        }
    };
    let served = tokio::select! {
        served = served => served,
        () = end.notified() => {
            tracing::debug!(client = shown_socket(client), "a file is not read: connection ended");
            return;
        }
    };
    if let Err(error) = served {
        tracing::debug!(client = shown_socket(client), "connection ended: {error}");
    }
}

/// hyper has no idle timeout for HTTP/2: a connection without a new request for as long as one may
/// take is shut down, politely first.
async fn serve_http2<S>(
    stream: TokioIo<S>,
    caller: Caller,
    ending: Ending,
    router: Router,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    // Answers that go on hold a clone.
    let going_on = Arc::new(());
    let held = Arc::clone(&going_on);
    let service = service_fn(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        let answered = answer(router.clone(), caller.clone(), ending.clone(), request);
        let held = Arc::clone(&held);
        async move { answered.await.map(|response| hold_open(response, held)) }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD.into())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .serve_connection(stream, service)
    );
    let mut seen = 0;
    let mut patience = HEADER_TIMEOUT;
    loop {
        if let Ok(served) = timeout(patience, connection.as_mut()).await {
            return served;
        }
        let count = requests.load(Ordering::Relaxed);
        // Two are here and in the service.
        if count == seen && Arc::strong_count(&going_on) <= 2 {
            break;
        }
        seen = count;
        patience = REQUEST_TIMEOUT;
    }
    connection.as_mut().graceful_shutdown();
    timeout(HEADER_TIMEOUT, connection).await.unwrap_or(Ok(()))
}

/// Lets an answer that goes on hold `held` until its end.
fn hold_open(mut response: Response, held: Arc<()>) -> Response {
    if response.extensions_mut().remove::<LongLived>().is_none() {
        return response;
    }
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &held;
            frame
        }))
    })
}

async fn answer(
    router: Router,
    caller: Caller,
    ending: Ending,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let is_open = OPEN_PATHS.contains(&request.uri().path());
    if !is_open && caller.place.is_turned_away() {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let detail = Full::Network.to_string();
        let mut refusal = Problem::new(status, "rate-limited", detail).into_response();
        // RFC 9113 section 8.2.2 has no such header.
        if request.version() < HttpVersion::HTTP_2 {
            let headers = refusal.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        return Ok(refusal);
    }
    // The body is read whole before it is looked at.
    let length = request.body().size_hint().upper().unwrap_or(UNKNOWN_BODY);
    let _lease = match length {
        0 => None,
        _ => match caller.place.lease_body(length) {
            Some(lease) => Some(lease),
            None => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let detail = "too many requests of this network are being read: ask again later";
                return Ok(Problem::new(status, "rate-limited", detail).into_response());
            }
        },
    };
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(ending);
    // RFC 9113 section 8.3.1: HTTP/2 names the host in `:authority`.
    if !request.headers().contains_key(header::HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let answered = timeout(REQUEST_TIMEOUT, router.oneshot(request)).await;
    answered.unwrap_or_else(|_| {
        let status = StatusCode::REQUEST_TIMEOUT;
        Ok(Problem::new(status, "too-slow", "the request took too long").into_response())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ConnectionCaps, Connections};
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    /// RFC 9113 section 3.4: the preface, then an empty SETTINGS frame.
    const HTTP2_HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    fn now() -> std::time::Instant {
        Instant::now().into_std()
    }

    fn connections(per_network: u32) -> Arc<Connections> {
        Connections::new(ConnectionCaps {
            per_network,
            total: 1_000,
        })
    }

    fn connect(version: Version) -> DuplexStream {
        connect_among(&connections(100), version)
    }

    fn connect_among(connections: &Arc<Connections>, version: Version) -> DuplexStream {
        let host = async |headers: axum::http::HeaderMap| headers[header::HOST].as_bytes().to_vec();
        let echo = async |body: String| body;
        let router = Router::new()
            .route("/", get(host).post(echo))
            .route("/healthz", get(async || "alive"));
        let (client, server) = duplex(64 * 1024);
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        let place = connections.enter(Some(address.ip()), now()).unwrap();
        let caller = Caller {
            client: address,
            local: address,
            place: Arc::new(place),
        };
        tokio::spawn(serve(server, caller, version, router));
        client
    }

    /// Says `bytes`, then waits in silence until the connection ends.
    async fn until_closed(version: Version, bytes: &[u8]) -> (Vec<u8>, Duration) {
        let mut client = connect(version);
        let began = Instant::now();
        client.write_all(bytes).await.unwrap();
        let mut received = vec![];
        client.read_to_end(&mut received).await.unwrap();
        (received, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_cut_off() {
        let (_, waited) = until_closed(Version::Http1, b"GET / HTTP/1.1\r\nHost: a\r\n").await;
        assert_eq!(waited.as_secs(), HEADER_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
        let (received, waited) = until_closed(Version::Http1, head).await;
        assert!(received.starts_with(b"HTTP/1.1 408 "));
        assert!(waited >= REQUEST_TIMEOUT && waited < 2 * REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn bodies_that_do_not_come_are_few_for_one_network() {
        for (length, most) in [
            ("Content-Length: 65536", 128),
            // As large as some clients of Socket.IO send them, and as the operator allows.
            ("Content-Length: 131072", 64),
            ("Content-Length: 4194304", 2),
            ("Content-Length: 99999999", 1),
            ("Transfer-Encoding: chunked", 64),
        ] {
            let connections = connections(1_000);
            let mut kept = vec![];
            let mut refused = 0;
            for _ in 0..=most {
                let mut client = connect_among(&connections, Version::Http1);
                let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n1");
                client.write_all(head.as_bytes()).await.unwrap();
                kept.push(client);
            }
            for client in &mut kept {
                let mut received = [0; 12];
                let read = timeout(Duration::from_millis(20), client.read_exact(&mut received));
                if let Ok(Ok(_)) = read.await {
                    assert_eq!(&received, b"HTTP/1.1 429");
                    refused += 1;
                }
            }
            assert_eq!(refused, 1, "{length}");
        }
    }

    #[tokio::test]
    async fn a_kept_connection_counts_and_one_too_many_is_told() {
        let connections = connections(2);
        let ask = async |client: &mut DuplexStream, path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut received = vec![0; 4096];
            let length = client.read(&mut received).await.unwrap();
            String::from_utf8_lossy(&received[..length]).into_owned()
        };
        let mut kept = vec![];
        for _ in 0..2 {
            let mut client = connect_among(&connections, Version::Http1);
            assert!(ask(&mut client, "/").await.starts_with("HTTP/1.1 200 "));
            kept.push(client);
        }
        let mut third = connect_among(&connections, Version::Http1);
        assert!(
            ask(&mut third, "/healthz")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        let refused = ask(&mut third, "/").await.to_lowercase();
        assert!(refused.starts_with("http/1.1 429 ") && refused.contains("connection: close"));
        assert_eq!(third.read(&mut [0]).await.unwrap(), 0);
        drop(kept);
        while connections.total() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_client_without_requests_is_shut_down() {
        for said in [&HTTP2_HELLO[..10], HTTP2_HELLO] {
            let (_, waited) = until_closed(Version::Http2, said).await;
            assert!(
                waited >= HEADER_TIMEOUT && waited <= 2 * HEADER_TIMEOUT,
                "{waited:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_http2_client_is_told_how_few_requests_and_bytes_there_may_be() {
        let mut client = connect(Version::Http2);
        client.write_all(HTTP2_HELLO).await.unwrap();
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[3], 4, "SETTINGS come first (RFC 9113 section 3.4)");
        let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        client.read_exact(&mut settings).await.unwrap();
        let value = |id: u16| {
            let mut known = settings
                .chunks(6)
                .filter(|one| one[..2] == id.to_be_bytes());
            let value = known.next().unwrap_or_default().get(2..6);
            value.map(|value| u32::from_be_bytes(value.try_into().unwrap()))
        };
        // SETTINGS_MAX_CONCURRENT_STREAMS and SETTINGS_INITIAL_WINDOW_SIZE of section 6.5.2.
        let (streams, window) = (value(3), value(4));
        assert!(streams.is_some_and(|streams| streams <= 8), "{streams:?}");
        // Windows are 65,535 bytes where nothing is said (section 6.9.2).
        assert!(window.is_none_or(|window| window <= 1 << 16), "{window:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_client_that_asks_is_kept() {
        let stream = TokioIo::new(connect(Version::Http2));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        for _ in 0..5 {
            let request = Request::get("http://call.example.org/").body(String::new());
            let response = sender.send_request(request.unwrap()).await.unwrap();
            let body = axum::body::Body::new(response.into_body());
            let host = axum::body::to_bytes(body, 100).await.unwrap();
            assert_eq!(host, "call.example.org", "the authority stands in for Host");
            tokio::time::sleep(HEADER_TIMEOUT - Duration::from_secs(1)).await;
        }
    }
}
