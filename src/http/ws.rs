//! `GET /ws`: admission, then the upgrade (RFC 6455 section 4.2).

use super::AppState;
use super::access::token_of;
use super::guard::ClientAddr;
use super::problem::Problem;
use crate::protocol::DialectKind;
use crate::signal::{self, ConnectError, Native};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
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
    tokio::spawn(async move {
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
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
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
