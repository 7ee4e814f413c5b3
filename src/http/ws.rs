//! `GET /ws`: admission, then the upgrade (RFC 6455 section 4.2).

use super::AppState;
use super::access::token_of;
use super::guard::{ClientAddr, Held};
use super::problem::Problem;
use crate::protocol::DialectKind;
use crate::signal::{self, ConnectError, Native};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use std::sync::Arc;
use tungstenite::handshake::derive_accept_key;

pub(super) async fn upgrade(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let token = token_of(&parts).map(SecretString::from);
    let (Some(accept), Some(upgrade)) =
        (accept_key(&parts), parts.extensions.remove::<OnUpgrade>())
    else {
        return Ok(not_a_websocket());
    };
    let admission = context.driver.admit(client, DialectKind::Native)?;
    let sessions = context.sessions.clone();
    let held = Held::of(&mut parts);
    tokio::spawn(async move {
        let _held = held;
        match upgrade.await {
            Ok(socket) => {
                let carrier = TokioIo::new(socket);
                signal::run(carrier, Native, admission, token, sessions).await;
            }
            Err(error) => tracing::debug!(%client, "upgrade failed: {error}"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response();
    if let Some(subprotocol) = subprotocol(&parts.headers) {
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(response)
}

/// The first subprotocol that is offered. The frames are the same under every name, and a browser
/// fails a connection whose offer nobody takes up (RFC 6455 section 4.1).
pub(super) fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_token = |name: &&str| {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !name.is_empty() && name.bytes().all(is_word)
    };
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    HeaderValue::from_str(offered.find(is_token)?).ok()
}

/// RFC 9110 section 15.5.22 and RFC 6455 section 4.4: what would be one.
fn not_a_websocket() -> Response {
    let detail = "this path speaks WebSocket (RFC 6455, version 13)";
    let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "not-a-websocket", detail);
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        ),
    ];
    (headers, problem).into_response()
}

/// The answer to a proper handshake.
fn accept_key(request: &Parts) -> Option<HeaderValue> {
    let has = |name: HeaderName, word: &str| {
        let lines = request.headers.get_all(name);
        let mut words = lines
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        words.any(|w| w.trim().eq_ignore_ascii_case(word))
    };
    let is_handshake = request.method == Method::GET
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers.get(header::SEC_WEBSOCKET_KEY)?;
    // Section 4.1: sixteen bytes in base64.
    let has_key = STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    if !(is_handshake && has_key) {
        return None;
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        let (status, code) = match error {
            ConnectError::PerIp => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            ConnectError::Total => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            ConnectError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        };
        Self::new(status, code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_offered_subprotocols_is_chosen() {
        let chosen = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                let line = HeaderValue::from_static(line);
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, line);
            }
            subprotocol(&headers).map(|name| name.to_str().unwrap().to_owned())
        };
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["callbox"]).as_deref(), Some("callbox"));
        assert_eq!(chosen(&["a.b, c"]).as_deref(), Some("a.b"));
        assert_eq!(chosen(&["a, b", "c"]).as_deref(), Some("a"));
        assert_eq!(chosen(&["", "b"]).as_deref(), Some("b"));
        assert_eq!(chosen(&[" , two words, \"q\", d"]).as_deref(), Some("d"));
    }
}
