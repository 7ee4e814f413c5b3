//! Requests and answers between nodes, as text.

use super::problem::Problem;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The largest answer of another node: several of these fit into what may wait for a node.
const MAX_ANSWER: usize = 4 << 20;
/// What the node of a connection needs of the headers of a request.
const HEADERS: [HeaderName; 2] = [header::CONTENT_TYPE, header::COOKIE];

/// A body: text goes as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Whole {
    #[serde(rename = "t")]
    Text(String),
    #[serde(rename = "b")]
    Bytes(String),
}

impl Whole {
    fn of(body: &[u8]) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(BASE64_STANDARD.encode(body)),
        }
    }

    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.into_bytes()),
            Self::Bytes(text) => BASE64_STANDARD.decode(text).ok(),
        }
    }
}

/// What a node asks of another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Question {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: Whole,
    /// Whose request it is; `None`: an operator's.
    client: Option<IpAddr>,
}

impl Question {
    /// A request of this node's operator, as text.
    pub(super) fn of_operator(method: &Method, uri: &Uri, body: String) -> String {
        let question = Self {
            method: method.to_string(),
            uri: path(uri),
            headers: vec![],
            body: Whole::Text(body),
            client: None,
        };
        question.text()
    }

    /// A request of a client.
    pub(super) fn of(parts: &Parts, body: &Bytes, client: IpAddr) -> Self {
        let header = |name: HeaderName| {
            let value = parts.headers.get(&name)?.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        };
        Self {
            method: parts.method.to_string(),
            uri: path(&parts.uri),
            headers: HEADERS.into_iter().filter_map(header).collect(),
            body: Whole::of(body),
            client: Some(client),
        }
    }

    /// A `GET` on behalf of a client.
    pub(super) fn get(uri: String, client: IpAddr) -> Self {
        Self {
            method: Method::GET.to_string(),
            uri,
            headers: vec![],
            body: Whole::Text(String::new()),
            client: Some(client),
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    pub(super) fn request(self) -> Option<Request> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            headers.insert(name, HeaderValue::from_str(value).ok()?);
        }
        let mut request = Request::builder()
            .method(Method::from_bytes(self.method.as_bytes()).ok()?)
            .uri(self.uri)
            .body(Body::from(self.body.bytes()?))
            .ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }
}

fn path(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned()
}

/// What came of a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    status: u16,
    kind: Option<String>,
    body: Whole,
}

impl Answer {
    /// A response as text.
    pub(super) async fn of(response: Response) -> Option<String> {
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let body = to_bytes(body, MAX_ANSWER).await.ok();
        let answer = body.map(|body| Self {
            status: parts.status.as_u16(),
            kind,
            body: Whole::of(&body),
        });
        let text = answer.and_then(|answer| serde_json::to_string(&answer).ok());
        // Escapes and base64 make it larger.
        text.filter(|text| text.len() <= MAX_ANSWER).or_else(|| {
            let too_large = Self {
                status: StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
                kind: None,
                body: Whole::Text(String::new()),
            };
            serde_json::to_string(&too_large).ok()
        })
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn is_absent(&self) -> bool {
        self.status == StatusCode::NOT_FOUND.as_u16()
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.body {
            Whole::Text(text) => Some(text),
            Whole::Bytes(_) => None,
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let is_empty = self.body == Whole::Text(String::new());
        if status == StatusCode::PAYLOAD_TOO_LARGE && is_empty {
            let detail =
                "the answer of another node is over 4 MiB: ask that node itself (GET /v1/nodes)";
            return Problem::new(status, "too-large", detail).into_response();
        }
        let mut response = (status, self.body.bytes().unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.kind.and_then(|kind| HeaderValue::from_str(&kind).ok()) {
            Some(kind) => headers.insert(header::CONTENT_TYPE, kind),
            None => headers.remove(header::CONTENT_TYPE),
        };
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_and_answers_arrive_as_they_were() {
        for body in [&b"text \xc3\xa9"[..], &b"\xff\x00bytes"[..], b""] {
            let request = Request::post("/socket.io/?sid=1")
                .header(header::CONTENT_TYPE, "a/b")
                .header("x", "y");
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let client = "192.0.2.1".parse().unwrap();
            let text = Question::of(&parts, &Bytes::copy_from_slice(body), client).text();
            let question = Question::read(&text).unwrap();
            assert_eq!(question.client(), Some(client));
            let request = question.request().unwrap();
            assert_eq!(
                (request.method(), request.uri().path()),
                (&Method::POST, "/socket.io/")
            );
            assert_eq!(request.headers().len(), 1);
            assert_eq!(request.headers()[header::CONTENT_TYPE], "a/b");
            let read = to_bytes(request.into_body(), 100).await.unwrap();
            assert_eq!(read, body);

            let response = (StatusCode::ACCEPTED, body.to_vec()).into_response();
            let answer = Answer::read(&Answer::of(response).await.unwrap()).unwrap();
            assert!(answer.is_good());
            let response = answer.into_response();
            assert_eq!(response.status(), StatusCode::ACCEPTED);
            assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), body);
        }
        let large = Answer::of(vec![b'"'; MAX_ANSWER - 10].into_response())
            .await
            .unwrap();
        let response = Answer::read(&large).unwrap().into_response();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
