//! The paths of foreign protocols: which dialect a connection speaks is known by its path, its
//! subprotocol and what is switched on.

mod peerjs;

use super::guard::ClientAddr;
use super::problem::Problem;
use super::{AppState, pages, ws};
use crate::compat::Foreign;
use crate::compat::mqtt::Mqtt;
use crate::compat::trystero::Trystero;
use crate::compat::tutorial::Tutorial;
use crate::protocol::DialectKind;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use std::future::ready;
use std::sync::Arc;

/// Subprotocols under which MQTT comes: the second is that of version 3.1, which CONNACK refuses.
const MQTT: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Adds the paths of what is switched on, and `/`, which the call page shares.
pub(super) fn routes(
    mut router: Router<Arc<AppState>>,
    context: &AppState,
) -> Router<Arc<AppState>> {
    let compat = &context.compat;
    if let Some(peerjs) = &compat.peerjs {
        router = peerjs::routes(router, peerjs);
    }
    if let Some(dialect) = compat.y_webrtc {
        let kind = DialectKind::YWebrtc;
        let upgrade = move |state, client, request| {
            ready(socket(state, client, request, kind, || dialect.into()))
        };
        router = router.route("/y-webrtc", get(upgrade));
    }
    if compat.trystero {
        let kind = DialectKind::Trystero;
        let upgrade = move |state, client, request| {
            ready(socket(state, client, request, kind, || Trystero.into()))
        };
        router = router.route("/trystero", get(upgrade));
    }
    if compat.mqtt {
        router = router.route("/mqtt", get(mqtt));
    }
    match context.pages || compat.tutorials || compat.mqtt {
        true => router.route("/", get(root)),
        false => router,
    }
}

/// Upgrades to a WebSocket of a dialect that needs to know nothing of the request.
pub(super) fn socket(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
    kind: DialectKind,
    dialect: impl FnOnce() -> Foreign,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let offered = ws::subprotocol(&parts.headers);
    ws::upgrade(&context, client, parts, offered, || {
        Ok((dialect(), context.driver.admit(client, kind)?))
    })
}

/// `GET /mqtt`.
async fn mqtt(
    state: State<Arc<AppState>>,
    client: Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let dialect = || Box::<Mqtt>::default().into();
    socket(state, client, request, DialectKind::Mqtt, dialect)
}

/// `GET /`: a WebSocket of a tutorial, or else the call page.
async fn root(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    if (context.compat.mqtt || context.compat.tutorials)
        && ws::subprotocol(request.headers()).is_some_and(|name| MQTT.iter().any(|own| name == own))
    {
        return mqtt(State(context), Extension(ClientAddr(client)), request).await;
    }
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
