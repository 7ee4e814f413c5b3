//! What an operator has the box make: tokens, TURN credentials, and its own drain.

use super::AppState;
use super::extract::Text;
use super::json::as_json;
use super::problem::Problem;
use crate::auth::{Bearer, MAX_NAME, Role, is_name, page_link};
use crate::clock::unix_now;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Life of a token that asks for nothing else, seconds.
const DEFAULT_TTL: u64 = 3600;
/// Longest life of what is minted here, seconds: ten years.
const MAX_TTL: u64 = 10 * 365 * 24 * 3600;

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(tokens))
        .routes(routes!(credentials))
        .routes(routes!(drain))
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct TokenRequest {
    identity: Option<String>,
    room: Option<Rooms>,
    role: Option<Role>,
    ttl: Option<u64>,
    call: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rooms {
    One(String),
    Many(Vec<String>),
}

/// Mints a token with the configured key.
#[utoipa::path(post, path = "/v1/tokens", tag = "credentials", security(("admin" = [])),
    request_body(content = String, content_type = "application/json",
        description = "`{identity?, room?, role?, ttl?, call?}`: `room` is a name, a glob or a list, `ttl` seconds (3600)"),
    responses((status = 200, description = "`{token, url, expiresAt}`: `url` opens the call page with it"),
        (status = 400, description = "a field has a wrong form"),
        (status = 409, description = "`no-signing-key`: the box has no auth.secret")))]
async fn tokens(State(state): State<Arc<AppState>>, Text(body): Text) -> Result<Response, Problem> {
    let asked: TokenRequest = read(&body)?;
    let identity = asked.identity.unwrap_or_default();
    if !identity.is_empty() && !is_name(&identity) {
        let detail = format!("`identity` has 1 to {MAX_NAME} bytes, none of them controls");
        return Err(invalid(detail));
    }
    let rooms = match asked.room {
        None => vec![],
        Some(Rooms::One(room)) => vec![room],
        Some(Rooms::Many(rooms)) => rooms,
    };
    let ttl = Duration::from_secs(ttl(asked.ttl)?.unwrap_or(DEFAULT_TTL));
    let room = rooms.first().cloned();
    let bearer = Bearer {
        identity,
        rooms,
        role: asked.role,
        call: asked.call,
        login: None,
    };
    let (token, expires_at) = (state.sign)(&bearer, unix_now(), ttl).ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "no-signing-key",
            "the box has no auth.secret to sign with: set it, or sign with the private half of \
             your key",
        )
    })?;
    let url = page_link(&state.page, &room.unwrap_or_default(), Some(&token));
    let answer = json!({ "token": token, "url": url, "expiresAt": expires_at });
    Ok(as_json(answer.to_string()))
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct CredentialsRequest {
    user: Option<String>,
    ttl: Option<u64>,
}

/// Mints TURN credentials.
#[utoipa::path(post, path = "/v1/credentials", tag = "credentials", security(("admin" = [])),
    request_body(content = String, content_type = "application/json",
        description = "`{user?, ttl?}`: `ttl` in seconds (turn.ttl)"),
    responses((status = 200, description = "`{username, password, ttl, uris, iceServers, expiresAt}`"),
        (status = 400, description = "a field has a wrong form")))]
async fn credentials(
    State(state): State<Arc<AppState>>,
    Text(body): Text,
) -> Result<Response, Problem> {
    let asked: CredentialsRequest = read(&body)?;
    let user = asked
        .user
        .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    if !is_name(&user) {
        return Err(invalid(format!(
            "`user` has 1 to {MAX_NAME} bytes, none of them controls"
        )));
    }
    let mut ice = state.ice.borrow().clone();
    if let Some(ttl) = ttl(asked.ttl)? {
        ice.ttl = Duration::from_secs(ttl);
    }
    let servers = ice.issue(&user, unix_now(), (state.relays.revoked_until)(&user));
    let relay = servers
        .ice_servers
        .iter()
        .find(|server| server.username.is_some());
    let answer = json!({
        "username": relay.and_then(|relay| relay.username.as_deref()),
        "password": relay.and_then(|relay| relay.credential.as_deref()),
        "uris": relay.map(|relay| relay.urls.as_slice()).unwrap_or_default(),
        "ttl": servers.ttl,
        "expiresAt": servers.expires_at,
        "iceServers": servers.ice_servers,
    });
    Ok(as_json(answer.to_string()))
}

/// Drains the box as SIGTERM does: newcomers are refused, and the process ends with the last call.
#[utoipa::path(post, path = "/v1/drain", tag = "health", security(("admin" = [])),
    responses((status = 202, description = "the drain has begun")))]
async fn drain(State(state): State<Arc<AppState>>) -> Response {
    state.drain.notify_one();
    let answer = json!({ "draining": true }).to_string();
    (StatusCode::ACCEPTED, as_json(answer)).into_response()
}

/// An object; no body at all is an empty one.
fn read<T: DeserializeOwned + Default>(body: &str) -> Result<T, Problem> {
    if body.trim().is_empty() {
        return Ok(T::default());
    }
    // serde takes a list for the fields of an object in their order.
    if !body.trim_start().starts_with('{') {
        return Err(invalid("the body is not an object".to_owned()));
    }
    serde_json::from_str(body).map_err(|error| invalid(format!("the body: {error}")))
}

fn ttl(asked: Option<u64>) -> Result<Option<u64>, Problem> {
    match asked {
        Some(ttl) if !(1..=MAX_TTL).contains(&ttl) => {
            Err(invalid(format!("`ttl` is 1 to {MAX_TTL} seconds")))
        }
        ttl => Ok(ttl),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-message", detail)
}
