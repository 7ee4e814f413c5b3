//! One signed POST to the backend.

use super::{Settings, signature};
use crate::clock;
use crate::net::https::{HttpsClient, Limits};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header};
use secrecy::ExposeSecret;
use std::time::Duration;

/// Bytes of an answer: a decision with metadata.
const MAX_ANSWER: usize = 64 * 1024;

/// An answer, as far as it matters here.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) cache_control: Option<String>,
    pub(super) body: Bytes,
}

/// Sends a signed POST.
pub(super) async fn post(
    client: &HttpsClient,
    settings: &Settings,
    url: Option<&hyper::Uri>,
    body: String,
    timeout: Duration,
) -> Result<Answered, String> {
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
    let request = request.body(Full::from(body)).map_err(|e| e.to_string())?;
    let limits = Limits {
        timeout,
        body: MAX_ANSWER,
    };
    let response = client
        .send(request, limits)
        .await
        .map_err(|e| e.to_string())?;
    let text = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    Ok(Answered {
        status: response.status(),
        cache_control: text(header::CACHE_CONTROL).map(str::to_owned),
        body: response.into_body(),
    })
}
