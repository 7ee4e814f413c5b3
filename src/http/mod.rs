//! The HTTP surface: pages, the WebSocket upgrade, credentials, health.
//!
//! Translates requests; decides nothing about rooms or relays.

mod access;
mod guard;
mod ice;
mod pages;
mod problem;
mod serve;
mod ws;

pub use access::Access;
pub use guard::Guard;
pub use serve::{Version, serve};

use crate::auth::credential::IceIssuer;
use crate::signal::{Driver, SessionSettings};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use problem::Problem;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

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
pub struct Context {
    /// Who may join.
    pub access: Access,
    /// Mints credentials; its URLs follow the certificate.
    pub ice: watch::Receiver<IceIssuer>,
    /// Signaling.
    pub driver: Arc<Driver>,
    /// How connections are run.
    pub sessions: SessionSettings,
    /// Readiness.
    pub phase: watch::Receiver<Phase>,
    /// Whether the embedded pages are served.
    pub pages: bool,
}

impl Context {
    fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }
}

/// Builds the routes of one listener.
pub fn router(context: Arc<Context>, guard: Guard) -> Router {
    let mut router = Router::new()
        .route("/ws", get(ws::upgrade))
        .route("/v1/ice-servers", get(ice::ice_servers))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz));
    if context.pages {
        router = router
            .route("/", get(pages::call))
            .route("/check", get(pages::check))
            .route("/assets/{name}", get(pages::asset));
    }
    router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "method-not-allowed", "this path has no such method")
        })
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::new(guard), guard::check))
        .with_state(context)
}

async fn readyz(State(context): State<Arc<Context>>) -> Response {
    match *context.phase.borrow() {
        Phase::Ready => "ready\n".into_response(),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

/// Unix seconds.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
