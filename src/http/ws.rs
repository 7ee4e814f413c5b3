//! WebSocket: admission, then the upgrade (RFC 6455 section 4.2).

use super::AppState;
use super::access::token_of;
use super::guard::{ClientAddr, Held};
use super::problem::Problem;
use super::socket::Socket;
use crate::address::shown;
use crate::protocol::DialectKind;
use crate::signal::{self, Admission, ConnectError, ConnectionSettings, Dialect, Native};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hyper::upgrade::OnUpgrade;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use tungstenite::handshake::derive_accept_key;

/// `GET /ws`.
pub(super) async fn native(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let offered = subprotocol(&parts.headers);
    upgrade(&context, client, parts, offered, || {
        let admission = context.driver.admit(client, DialectKind::Native)?;
        Ok((Native, admission))
    })
}

/// Whether the request asks for a WebSocket, rightly or not.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    has_word(headers, &header::UPGRADE, "websocket")
}

/// Upgrades to a WebSocket, confirms the subprotocol, and runs the connection that `begin` makes.
pub(super) fn upgrade<D: Dialect + Send + 'static>(
    context: &AppState,
    client: IpAddr,
    parts: Parts,
    subprotocol: Option<HeaderValue>,
    begin: impl FnOnce() -> Result<(D, Admission), ConnectError>,
) -> Result<Response, Problem> {
    let sessions = context.sessions.clone();
    upgrade_with(sessions, client, parts, subprotocol, begin)
}

/// As [`upgrade`], with settings of its own.
pub(super) fn upgrade_with<D: Dialect + Send + 'static>(
    sessions: ConnectionSettings,
    client: IpAddr,
    mut parts: Parts,
    subprotocol: Option<HeaderValue>,
    begin: impl FnOnce() -> Result<(D, Admission), ConnectError>,
) -> Result<Response, Problem> {
    let token = token_of(&parts).map(SecretString::from);
    let (response, socket) = match accept(&mut parts, subprotocol) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(*refusal),
    };
    let (dialect, admission) = begin()?;
    let held = Held::of(&mut parts);
    tokio::spawn(async move {
        let _held = held;
        match socket.await {
            Ok(carrier) => {
                fetch_key(&sessions, token.as_ref()).await;
                signal::run(carrier, dialect, admission, token, sessions).await;
            }
            Err(error) => tracing::debug!(client = shown(client), "upgrade failed: {error}"),
        }
    });
    Ok(response)
}

/// Fetches the key of a connection's own token where that key is not known yet: such a token is
/// read before any message.
pub(super) async fn fetch_key(sessions: &ConnectionSettings, token: Option<&SecretString>) {
    if let (Some(fetch), Some(token)) = (&sessions.fetch_key, token)
        && let Some(fetched) = fetch(token.expose_secret())
    {
        fetched.await;
    }
}

/// The answer to the handshake of a WebSocket, and the socket that will be there once it is sent;
/// or what a request that is none is answered.
pub(super) fn accept(
    parts: &mut Parts,
    subprotocol: Option<HeaderValue>,
) -> Result<(Response, BoxFuture<'static, hyper::Result<Socket>>), Box<Response>> {
    let (Some(accept), Some(upgrade)) = (accept_key(parts), parts.extensions.remove::<OnUpgrade>())
    else {
        return Err(Box::new(not_a_websocket()));
    };
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response();
    if let Some(subprotocol) = subprotocol {
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    let socket = async { Ok(Socket::of(upgrade.await?)) };
    Ok((response, Box::pin(socket)))
}

/// The first subprotocol that is offered. The frames are the same under every name, and a browser
/// fails a connection whose offer nobody takes up (RFC 6455 section 4.1).
pub(super) fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_token = |name: &&str| {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !name.is_empty() && name.bytes().all(is_word)
    };
    let mut offered = words(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    HeaderValue::from_str(offered.find(is_token)?).ok()
}

/// The first of `names` that is offered as a subprotocol, wherever it stands among others.
pub(super) fn offered(headers: &HeaderMap, names: &[&'static str]) -> Option<HeaderValue> {
    let is_offered =
        |name: &str| words(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == name);
    let name = names.iter().find(|name| is_offered(name))?;
    Some(HeaderValue::from_static(name))
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
    let has = |name: HeaderName, word: &str| has_word(&request.headers, &name, word);
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

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|other| other.eq_ignore_ascii_case(word))
}

/// The items of a header with commas between them.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        let (status, code) = match error {
            ConnectError::PerIp => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            ConnectError::Total => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            ConnectError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            ConnectError::Isolated => (StatusCode::SERVICE_UNAVAILABLE, "isolated"),
        };
        Self::new(status, code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_is_known_is_chosen_wherever_it_stands() {
        let mut headers = HeaderMap::new();
        assert_eq!(offered(&headers, &["mqtt"]), None);
        let name = header::SEC_WEBSOCKET_PROTOCOL;
        headers.append(&name, HeaderValue::from_static("chat, mqttv3.1"));
        headers.append(&name, HeaderValue::from_static("mqtt"));
        let chosen = |names| offered(&headers, names);
        let expected = |name| Some(HeaderValue::from_static(name));
        assert_eq!(chosen(&["mqtt", "mqttv3.1"]), expected("mqtt"));
        assert_eq!(chosen(&["mqttv3.1"]), expected("mqttv3.1"));
        assert_eq!(chosen(&["mqt"]), None);
    }

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
