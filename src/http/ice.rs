//! `GET /v1/ice-servers`: credentials for clients that signal elsewhere.

use super::AppState;
use super::access::{query, token_of};
use super::problem::Problem;
use crate::auth::credential::http_user;
use crate::auth::token::TokenError;
use crate::auth::{RoomPattern, RoomScope};
use crate::clock::unix_now;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;

/// The token and the wished format of a request.
pub(super) struct Asked {
    token: Option<String>,
    format: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            // Programs of the REST scheme send their secret as `key` or `api`.
            token: token_of(parts)
                .or_else(|| query(parts, "key"))
                .or_else(|| query(parts, "api"))
                .filter(|token| !token.is_empty()),
            format: query(parts, "format"),
        })
    }
}

/// Hands out `iceServers` with fresh credentials.
#[utoipa::path(get, path = "/v1/ice-servers", tag = "credentials", security(("client" = [])),
    params(("format" = Option<String>, Query, description = "`rest`: `{username, password, ttl, uris}`")),
    responses((status = 200, description = "`{iceServers, ttl, expiresAt}`; never cached"),
        (status = 401, description = "`unauthorized` or `token-expired`"),
        (status = 503, description = "`draining`")))]
pub(super) async fn ice_servers(
    State(context): State<Arc<AppState>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let now = unix_now();
    let grant = context.access.grant(asked.token.as_deref(), now)?;
    let room = match &grant.rooms {
        RoomScope::Matching(rooms) => rooms.iter().find_map(|room| match room {
            RoomPattern::Exact(name) => Some(name.as_str()),
            RoomPattern::Glob(_) => None,
        }),
        RoomScope::Any => None,
    };
    if !context.driver.with_hub(|hub, _, _| hub.holds(&grant, room)) {
        let void = "the invitation is void".to_owned();
        return Err(TokenError::Refused(void).into());
    }
    if context.is_draining() {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "the box is shutting down",
        ));
    }
    let name = grant
        .identity
        .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let user = http_user(&name);
    let revoked_until = (context.relays.revoked_until)(&user);
    let ice = context.ice.borrow();
    let servers = ice.issue_until(&user, now, revoked_until, grant.ends);
    drop(ice);
    let body = match asked.format.as_deref() {
        None | Some("") => json!(servers),
        Some("rest") => {
            let relay = servers
                .ice_servers
                .iter()
                .find(|server| server.username.is_some());
            json!({
                "username": relay.and_then(|r| r.username.as_deref()),
                "password": relay.and_then(|r| r.credential.as_deref()),
                "ttl": servers.ttl,
                "uris": relay.map(|r| r.urls.as_slice()).unwrap_or_default(),
            })
        }
        Some(_) => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "unknown-format",
                "format is \"rest\", or left out",
            ));
        }
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body.to_string()).into_response())
}
