//! The paths of PeerJS, under each prefix: ids, the socket, and `iceServers` beside them.

use super::super::guard::ClientAddr;
use super::super::problem::Problem;
use super::super::{AppState, ice};
use super::socket;
use crate::compat::PeerJsSettings;
use crate::compat::peerjs::{Hello, PeerJs};
use crate::protocol::DialectKind;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;

/// Adds the paths of every prefix. The key in a path is not looked at, only the socket's is.
pub(super) fn routes(
    mut router: Router<Arc<AppState>>,
    settings: &PeerJsSettings,
) -> Router<Arc<AppState>> {
    for prefix in &settings.paths {
        router = router
            .route(&format!("{prefix}{{key}}/id"), get(id))
            .route(&format!("{prefix}{{key}}/peers"), get(peers))
            .route(&format!("{prefix}{{key}}/ice-servers"), get(ice_servers))
            .route(&format!("{prefix}peerjs"), get(connect));
        if prefix != "/" {
            router = router.route(prefix, get(about));
        }
    }
    router
}

/// A fresh id as bare text, in the form that browsers make (RFC 9562, version 4).
async fn id() -> impl IntoResponse {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let text = format!("{:032x}", u128::from_be_bytes(bytes));
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    ([(header::CACHE_CONTROL, "no-store")], parts.join("-"))
}

/// Nobody is told who is there.
async fn peers() -> Problem {
    let detail = "the ids of others are not listed";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// `iceServers`, and that the page is to gather relayed candidates only where no others pass.
async fn ice_servers(
    State(context): State<Arc<AppState>>,
    asked: ice::Asked,
) -> Result<Response, Problem> {
    let relay_only = (context.compat.peerjs.as_ref()).is_some_and(|peerjs| peerjs.relay_only);
    ice::issue(&context, asked, relay_only).await
}

async fn about() -> Json<Value> {
    Json(json!({
        "name": "callbox",
        "description": "signaling for PeerJS, with STUN and TURN",
        "website": "https://peerjs.com/",
    }))
}

async fn connect(
    State(context): State<Arc<AppState>>,
    client: Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(settings) = &context.compat.peerjs else {
        return Err(Problem::not_found());
    };
    let query = request.uri().query().unwrap_or("");
    let hello = Hello::read(query, &settings.key, context.access.asks_for_tokens());
    let dialect = PeerJs::new(hello, settings.relay_only);
    let state = State(Arc::clone(&context));
    socket(state, client, request, DialectKind::PeerJs, || {
        dialect.into()
    })
}
