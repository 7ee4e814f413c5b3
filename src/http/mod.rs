//! The HTTP surface: pages, the WebSocket upgrade, credentials, health.
//!
//! Translates requests; decides nothing about rooms or relays.

mod access;
mod admin;
mod answers;
mod carried;
mod compat;
mod denied;
mod download;
mod elsewhere;
mod events;
mod extract;
mod forwarded;
mod guard;
mod ice;
mod json;
mod login;
mod mint;
mod openapi;
mod others;
mod pages;
mod paging;
mod problem;
mod question;
mod relays;
mod resume;
mod root;
mod sdk;
mod serve;
mod sessions;
mod socket;
mod ws;

pub use access::Access;
pub use admin::{AdminToken, Scope};
pub use answers::{NodeRouter, answer, node_router};
pub use carried::Carried;
pub use denied::{DeniedAdmin, DeniedRow};
pub use events::{Listen, Listening};
pub use guard::Guard;
pub use others::{Home, Others, Reply, describe, described, rooms as rooms_of};
pub use relays::RelayRow;
pub use resume::resume;
pub use root::Root;
pub use serve::{Caller, Version, serve};

use crate::auth::credential::IceIssuer;
use crate::auth::{Bearer, People};
use crate::compat::Settings;
use crate::signal::{ConnectionSettings, Driver};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use download::Download;
use futures_util::future::BoxFuture;
use problem::Problem;
use std::borrow::Cow;
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
    /// STUN URLs beside those handed out, by which a client tells what kind of NAT it is behind.
    pub nat_urls: Query<Vec<String>>,
    /// Readiness.
    pub phase: watch::Receiver<Phase>,
    /// Why newcomers are not served though everything runs, as a code and a sentence.
    pub not_ready: NotReady,
    /// Whether the embedded pages are served.
    pub pages: bool,
    /// `http.root`: the application's own page, in place of the call page.
    pub root: Option<Root>,
    /// Connections that requests carry.
    pub carried: Carried,
    /// How long such a connection lives without a request.
    pub idle: Duration,
    /// What is spoken beside the native protocol.
    pub compat: Settings,
    /// `auth.admin_token`; without one the admin API does not exist.
    pub admin_token: watch::Receiver<Option<AdminToken>>,
    /// The relays, as far as an operator is concerned.
    pub relays: RelayAdmin,
    /// The nodes of the cluster; nothing without one.
    pub nodes: Option<NodesAdmin>,
    /// Signs a token with the configured key; nothing where there is none that can sign.
    pub sign: Sign,
    /// People who log in.
    pub people: Box<dyn Fn() -> People + Send + Sync>,
    /// The URL of the call page.
    pub page: String,
    /// The URL of the call page for browsers on this machine, where one is listened on.
    pub local_page: Option<String>,
    /// Has the process drain and end.
    pub drain: Arc<Notify>,
    /// Client networks that are refused.
    pub denied: DeniedAdmin,
    /// What was relayed this month, as JSON.
    pub usage: AsyncQuery<String>,
    /// Begins to listen to events.
    pub events: Listen,
    /// Renders all metrics.
    pub scrape: AsyncQuery<String>,
}

/// Signs for a bearer at a time (Unix seconds) for so long; gives the token and its expiry.
pub type Sign = Box<dyn Fn(&Bearer, u64, Duration) -> Option<(String, u64)> + Send + Sync>;

/// A question that is answered at once.
pub type Query<T> = Box<dyn Fn() -> T + Send + Sync>;

/// A question that takes a while.
pub type AsyncQuery<T> = Box<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>;

/// Tells what a box lacks that runs.
pub type NotReady = Box<dyn Fn() -> Option<(&'static str, Cow<'static, str>)> + Send + Sync>;

/// Finds what a revocation left behind.
pub type RevokedUntil = Box<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// What an operator does with relays.
pub struct RelayAdmin {
    /// Lists live allocations; identity and room are left empty.
    pub list: AsyncQuery<Vec<RelayRow>>,
    /// The highest expiry that a revocation of this user refuses.
    pub revoked_until: RevokedUntil,
    /// Revokes a user that is not a session of signaling.
    pub revoke: Box<dyn Fn(&str) + Send + Sync>,
}

/// The nodes of a cluster, for an operator.
pub struct NodesAdmin {
    /// What each of them says of itself, as JSON.
    pub list: AsyncQuery<Result<String, String>>,
    /// What this one says, as JSON.
    pub describe: Query<String>,
    /// What this one goes by, once it has registered.
    pub me: Query<Option<String>>,
    /// All but this one.
    pub others: Arc<dyn Others>,
}

impl AppState {
    fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }
}

/// Builds the routes of one listener.
pub fn router(context: Arc<AppState>, guard: Guard) -> Router {
    let admin =
        admin::routes(&context).layer(from_fn_with_state(Arc::clone(&context), admin::check));
    let (mut router, document) = openapi::described()
        .routes(routes!(ice::ice_servers))
        .routes(routes!(login::login, login::logs_in))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .merge(sessions::routes(&context))
        .merge(admin)
        .split_for_parts();
    let document = openapi::render(document);
    router = router
        .route(
            "/v1/openapi.json",
            get(async move || openapi::response(document)),
        )
        .route("/v1/schema.json", get(async || sdk::schema()))
        .route("/v1/asyncapi.json", get(async || sdk::async_api()))
        .route("/sdk/v1/", get(sdk::index))
        .route("/sdk/v1/{name}", get(sdk::file))
        .route("/ws", get(ws::native));
    router = compat::routes(router, &context);
    if context.pages {
        router = router
            .route("/check", get(pages::check))
            .route("/admin", get(pages::admin))
            .route(pages::folder(&context), get(pages::asset));
        if context.root.is_some() {
            router = router.route("/call", get(pages::moved));
        }
    }
    router
        .fallback(otherwise)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::new(guard), guard::check))
        .with_state(context)
}

/// The routes of `metrics.listen`: metrics alone, without a token.
pub fn metrics_router(context: Arc<AppState>, guard: Guard) -> Router {
    Router::new()
        .route("/metrics", get(admin::metrics))
        .fallback(async || Problem::not_found())
        .layer(from_fn_with_state(Arc::new(guard), guard::check))
        .with_state(context)
}

/// What no route has: a file of the application, or nothing.
async fn otherwise(State(context): State<Arc<AppState>>, request: Request) -> Response {
    match &context.root {
        Some(root) => {
            let (method, uri, headers) = (request.method(), request.uri(), request.headers());
            let download = Download::of(request.extensions());
            root.serve(method, uri, headers, download).await
        }
        None => Problem::not_found().into_response(),
    }
}

/// Without a token the admin paths do not exist, whatever the method.
async fn method_not_allowed(State(context): State<Arc<AppState>>, uri: Uri) -> Problem {
    let is_admin = [
        "/v1/rooms",
        "/v1/clients",
        "/v1/relays",
        "/v1/tokens",
        "/v1/credentials",
        "/v1/drain",
        "/v1/events",
        "/v1/denied",
        "/v1/usage",
        "/v1/nodes",
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

/// Whether newcomers are served.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "ready"),
        (status = 503, description = "starting, draining, or without an address to relay on")))]
async fn readyz(State(context): State<Arc<AppState>>) -> Result<&'static str, Problem> {
    let not_yet = |code, detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    match *context.phase.borrow() {
        Phase::Ready => match (context.not_ready)() {
            None => Ok("ready\n"),
            Some((code, detail)) => Err(not_yet(code, &detail)),
        },
        Phase::Starting => Err(not_yet("starting", "not all listeners serve yet")),
        Phase::Draining => Err(not_yet("draining", "the box is shutting down")),
    }
}
