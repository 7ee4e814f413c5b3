//! One signed POST to the backend.

use super::{PRIVATE_BACKEND, Settings, signature};
use crate::clock;
use crate::net::https::{HttpsClient, HttpsError, Limits};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode, Uri, header};
use secrecy::ExposeSecret;
use std::time::Duration;

/// Bytes of an answer: a decision with metadata.
const MAX_ANSWER: usize = 64 * 1024;
/// How long the body of an answer that nobody reads may keep its connection for the next request.
const MAX_REST: Duration = Duration::from_secs(1);

/// An answer, as far as it matters here.
#[derive(Debug)]
pub struct Answered {
    /// Of the response.
    pub status: StatusCode,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Sends a signed POST and reads the answer.
pub(super) async fn ask(
    client: &HttpsClient,
    settings: &Settings,
    url: Option<&Uri>,
    body: String,
    timeout: Duration,
) -> Result<Answered, String> {
    let limits = Limits {
        timeout,
        body: MAX_ANSWER,
    };
    let sent = client.send(signed(settings, url, body)?, limits).await;
    let (head, body) = sent.map_err(problem)?.into_parts();
    Ok(answered(&head, body))
}

/// Sends a signed POST whose answer is its status. What the body holds, and how large it is, does not matter.
pub(super) async fn notify(
    client: &HttpsClient,
    settings: &Settings,
    url: Option<&Uri>,
    body: String,
    timeout: Duration,
) -> Result<Answered, String> {
    let sent = client.open(signed(settings, url, body)?, timeout).await;
    let (head, body) = sent.map_err(problem)?.into_parts();
    // A connection whose answer was read to its end is used again.
    let rest = Limited::new(body, MAX_ANSWER).collect();
    let _ = tokio::time::timeout(MAX_REST, rest).await;
    Ok(answered(&head, Bytes::new()))
}

fn problem(error: HttpsError) -> String {
    match error {
        HttpsError::Refused(reason) => format!("{reason}: {PRIVATE_BACKEND}"),
        other => other.to_string(),
    }
}

fn signed(
    settings: &Settings,
    url: Option<&Uri>,
    body: String,
) -> Result<Request<Full<Bytes>>, String> {
    let url = url.ok_or("no URL is set")?.clone();
    let unix_s = clock::unix_now();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::USER_AGENT,
            concat!("callbox/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(secret) = &settings.secret {
        let secret = secret.expose_secret().as_bytes();
        request = request.header(
            signature::HEADER,
            signature::sign(secret, unix_s, body.as_bytes()),
        );
    }
    request.body(Full::from(body)).map_err(|e| e.to_string())
}

fn answered(head: &Parts, body: Bytes) -> Answered {
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    Answered {
        status: head.status,
        retry_after: text(header::RETRY_AFTER)
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
        cache_control: text(header::CACHE_CONTROL).map(str::to_owned),
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::https::trust;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A backend that gives that answer to every request, and then says no more.
    async fn backend(answer: Vec<u8>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = vec![];
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut read = [0; 4096];
                let _ = socket.read(&mut read).await;
                let _ = socket.write_all(&answer).await;
                held.push(socket);
            }
        });
        url.parse().unwrap()
    }

    fn client() -> HttpsClient {
        HttpsClient::new(trust(rustls::RootCertStore::empty()), None)
    }

    #[tokio::test]
    async fn the_answer_to_events_is_its_status_however_large_and_slow_its_body_is() {
        let (settings, soon) = (Settings::default(), Duration::from_secs(60));
        let large = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec(),
            vec![b'x'; 100_000],
        ];
        let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
        for answer in [large.concat(), endless.to_vec()] {
            let url = backend(answer).await;
            let sent = notify(&client(), &settings, Some(&url), "{}".into(), soon).await;
            assert_eq!(sent.unwrap().status, 200);
        }
    }

    #[tokio::test]
    async fn the_answer_to_a_question_is_bounded() {
        let settings = Settings::default();
        let large = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
        let url = backend(large).await;
        let soon = Duration::from_secs(60);
        let asked = ask(&client(), &settings, Some(&url), "{}".into(), soon).await;
        assert!(asked.unwrap_err().contains("larger than"));
    }
}
