//! `GET /v1/ice-servers`: credentials for clients that signal elsewhere.

use super::AppState;
use super::access::{query, token_of};
use super::problem::Problem;
use crate::auth::credential::http_user;
use crate::auth::token::TokenError;
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
    params(("format" = Option<String>, Query, description = "`rest`: `{username, password, ttl, uris}`; `check`: `natUrls` beside the rest, STUN URLs that tell NATs apart")),
    responses((status = 200, description = "`{iceServers, ttl, expiresAt}`; never cached"),
        (status = 401, description = "`unauthorized` or `token-expired`"),
        (status = 503, description = "`draining`, or `internal`: the keys of `auth.jwks` have not been fetched yet")))]
pub(super) async fn ice_servers(
    State(context): State<Arc<AppState>>,
    asked: Asked,
) -> Result<Response, Problem> {
    issue(&context, asked, false).await
}

/// Answers with fresh credentials; where only relayed candidates pass, the page is to gather no others.
pub(super) async fn issue(
    context: &AppState,
    asked: Asked,
    relay_only: bool,
) -> Result<Response, Problem> {
    let fetched = asked.token.as_deref();
    if let Some(fetched) = fetched.and_then(|token| context.access.fetch_key(token)) {
        fetched.await;
    }
    let now = unix_now();
    let grant = context.access.grant(asked.token.as_deref(), now)?;
    let room = grant.rooms.exact();
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
    // A kick finds the bearer of a token again, and nobody in open mode.
    let name = grant.http_name().map(str::to_owned);
    let name = name.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let user = http_user(&name);
    let revoked_until = (context.relays.revoked_until)(&user);
    let ice = context.ice.borrow();
    let servers = ice.issue_until(&user, now, revoked_until, grant.ends);
    drop(ice);
    let body = match asked.format.as_deref() {
        None | Some("") if relay_only => {
            let mut body = json!(servers);
            body["iceTransportPolicy"] = json!("relay");
            body
        }
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
        Some("check") => {
            let mut body = json!(servers);
            body["natUrls"] = json!((context.nat_urls)());
            body
        }
        Some(_) => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "unknown-format",
                "format is \"rest\" or \"check\", or left out",
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
