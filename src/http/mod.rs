//! The HTTP surface: pages, the WebSocket upgrade, credentials, health.
//!
//! Translates requests; decides nothing about rooms or relays.

mod access;
mod admin;
mod compat;
mod extract;
mod forwarded;
mod guard;
mod ice;
mod json;
mod mint;
mod openapi;
mod pages;
mod problem;
mod sdk;
mod serve;
mod ws;

pub use access::Access;
pub use admin::{AdminToken, RelayRow};
pub use guard::Guard;
pub use serve::{Caller, Version, serve};

use crate::auth::Bearer;
use crate::auth::credential::IceIssuer;
use crate::compat::Settings;
use crate::signal::{ConnectionSettings, Driver};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use futures_util::future::BoxFuture;
use problem::Problem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use utoipa_axum::routes;

/// The largest request body: an admin patch with its metadata.
const MAX_BODY: usize = 64 * 1024;

/// Where the box is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all listeners serve yet.
    Starting,
    /// Everything serves.
    Ready,
    /// Shutting down: newcomers are refused.
    Draining,
}

/// What handlers share.
pub struct AppState {
    /// Who may join.
    pub access: Access,
    /// Mints credentials; its URLs follow the certificate.
    pub ice: watch::Receiver<IceIssuer>,
    /// Signaling.
    pub driver: Arc<Driver>,
    /// How connections are run.
    pub sessions: ConnectionSettings,
    /// Readiness.
    pub phase: watch::Receiver<Phase>,
    /// Why newcomers are not served though everything runs, as a code and a sentence.
    pub not_ready: NotReady,
    /// Whether the embedded pages are served.
    pub pages: bool,
    /// What is spoken beside the native protocol.
    pub compat: Settings,
    /// `auth.admin_token`; without one the admin API does not exist.
    pub admin_token: watch::Receiver<Option<AdminToken>>,
    /// The relays, as far as an operator is concerned.
    pub relays: RelayAdmin,
    /// Signs a token with the configured key; nothing where there is none that can sign.
    pub sign: Sign,
    /// The URL of the call page.
    pub page: String,
    /// Has the process drain and end.
    pub drain: Arc<Notify>,
    /// Renders all metrics.
    pub scrape: AsyncQuery<String>,
}

/// Signs for a bearer at a time (Unix seconds) for so long; gives the token and its expiry.
pub type Sign = Box<dyn Fn(&Bearer, u64, Duration) -> Option<(String, u64)> + Send + Sync>;

/// A question that takes a while.
pub type AsyncQuery<T> = Box<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>;

/// Tells what a box lacks that runs.
pub type NotReady = Box<dyn Fn() -> Option<(&'static str, &'static str)> + Send + Sync>;

/// Finds what a revocation left behind.
pub type RevokedUntil = Box<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// What an operator does with relays.
pub struct RelayAdmin {
    /// Lists live allocations; identity and room are left empty.
    pub list: AsyncQuery<Vec<RelayRow>>,
    /// The highest expiry that a revocation of this user refuses.
    pub revoked_until: RevokedUntil,
    /// Revokes a user that is no session of signaling.
    pub revoke: Box<dyn Fn(&str) + Send + Sync>,
}

impl AppState {
    fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }
}

/// Builds the routes of one listener.
pub fn router(context: Arc<AppState>, guard: Guard) -> Router {
    let admin = admin::routes().layer(from_fn_with_state(Arc::clone(&context), admin::check));
    let (mut router, document) = openapi::described()
        .routes(routes!(ice::ice_servers))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .merge(admin)
        .split_for_parts();
    let document = openapi::render(document);
    router = router
        .route(
            "/v1/openapi.json",
            get(async move || openapi::response(document)),
        )
        .route("/sdk/v1/", get(sdk::index))
        .route("/sdk/v1/{name}", get(sdk::file))
        .route("/ws", get(ws::native));
    router = compat::routes(router, &context);
    if context.pages {
        router = router
            .route("/check", get(pages::check))
            .route("/assets/{name}", get(pages::asset));
    }
    router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::new(guard), guard::check))
        .with_state(context)
}

/// The routes of `metrics.listen`: metrics alone, without a token.
pub fn metrics_router(context: Arc<AppState>) -> Router {
    Router::new()
        .route("/metrics", get(admin::metrics))
        .fallback(async || Problem::not_found())
        .with_state(context)
}

/// Without a token the admin paths do not exist, whatever the method.
async fn method_not_allowed(State(context): State<Arc<AppState>>, uri: Uri) -> Problem {
    let is_admin = [
        "/v1/rooms",
        "/v1/relays",
        "/v1/tokens",
        "/v1/credentials",
        "/v1/drain",
        "/metrics",
    ]
    .iter()
    .any(|p| uri.path().starts_with(p));
    if is_admin && context.admin_token.borrow().is_none() {
        return Problem::not_found();
    }
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "method-not-allowed", "this path has no such method")
}

/// Tells that the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, description = "alive")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Tells whether newcomers are served.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "ready"),
        (status = 503, description = "starting, draining, or without an address to relay on")))]
async fn readyz(State(context): State<Arc<AppState>>) -> Result<&'static str, Problem> {
    let not_yet = |code, detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    match *context.phase.borrow() {
        Phase::Ready => match (context.not_ready)() {
            None => Ok("ready\n"),
            Some((code, detail)) => Err(not_yet(code, detail)),
        },
        Phase::Starting => Err(not_yet("starting", "not all listeners serve yet")),
        Phase::Draining => Err(not_yet("draining", "the box is shutting down")),
    }
}
