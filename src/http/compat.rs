//! The paths of foreign protocols: which dialect a connection speaks is known by its path, its
//! subprotocol and what is switched on.

use super::guard::ClientAddr;
use super::problem::Problem;
use super::{AppState, pages, ws};
use crate::compat::Foreign;
use crate::compat::tutorial::Tutorial;
use crate::protocol::DialectKind;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use std::sync::Arc;

/// Adds the paths of what is switched on, and `/`, which the call page shares.
pub(super) fn routes(router: Router<Arc<AppState>>, context: &AppState) -> Router<Arc<AppState>> {
    match context.pages || context.compat.tutorials {
        true => router.route("/", get(root)),
        false => router,
    }
}

/// `GET /`: a WebSocket of a tutorial, or else the call page.
async fn root(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    if context.compat.tutorials && ws::wants_websocket(&parts.headers) {
        let origin = parts.headers.get(header::ORIGIN);
        let origin = origin.and_then(|origin| origin.to_str().ok());
        let offered = ws::subprotocol(&parts.headers);
        let lobby = context.compat.lobby.then(|| origin.unwrap_or("").into());
        return ws::upgrade(&context, client, parts, offered, || {
            let admission = context.driver.admit(client, DialectKind::Tutorial)?;
            Ok((
                Foreign::from(Tutorial::default()),
                admission.in_lobby(lobby),
            ))
        });
    }
    match context.pages {
        true => Ok(pages::call().await),
        false => Err(Problem::not_found()),
    }
}
