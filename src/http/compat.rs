//! The paths of foreign protocols: which dialect a connection speaks is known by its path, its
//! subprotocol and what is switched on.

mod peerjs;
mod polling;
pub(super) mod socketio;

use super::download::Download;
use super::guard::ClientAddr;
use super::problem::Problem;
use super::{AppState, elsewhere, pages, ws};
use crate::compat::Foreign;
use crate::compat::mqtt::Mqtt;
use crate::compat::trystero::Trystero;
use crate::compat::tutorial::Tutorial;
use crate::protocol::DialectKind;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Extension, Router};
use std::future::ready;
use std::sync::Arc;

/// Subprotocols under which MQTT comes: the second is that of version 3.1, which CONNACK refuses.
const MQTT: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Adds the paths of what is switched on, and `/`, which the call page shares.
pub(super) fn routes(
    mut router: Router<Arc<AppState>>,
    context: &Arc<AppState>,
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
    router = carried(router, context);
    if compat.socketio.is_some() {
        router = router
            .route("/socket.io/socket.io.js", get(socketio::client))
            .route("/socket.io/socket.io.min.js", get(socketio::client));
    }
    match context.pages || context.root.is_some() || compat.tutorials || compat.mqtt {
        true => router.route("/", get(root)),
        false => router,
    }
}

/// Adds the paths of connections that requests carry, and of what becomes of them.
pub(super) fn carried(
    mut router: Router<Arc<AppState>>,
    context: &Arc<AppState>,
) -> Router<Arc<AppState>> {
    let at_node = || from_fn_with_state(Arc::clone(context), elsewhere::at_node);
    if context.compat.polling {
        let polling = get(polling::get).post(polling::post);
        router = router.route("/api/messages", polling.layer(at_node()));
    }
    if context.compat.socketio.is_some() {
        for path in ["/socket.io/", "/socket.io"] {
            router = router.route(path, any(socketio::handle).layer(at_node()));
        }
    }
    router
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
    // A client of MQTT takes no other name for its protocol.
    let own = match kind {
        DialectKind::Mqtt => ws::offered(&parts.headers, &MQTT),
        _ => None,
    };
    let offered = own.or_else(|| ws::subprotocol(&parts.headers));
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
    let rooms = state.compat.mqtt_rooms.clone();
    let asks_for_tokens = state.access.asks_for_tokens();
    let dialect = || Box::new(Mqtt::with_rooms(rooms, asks_for_tokens)).into();
    socket(state, client, request, DialectKind::Mqtt, dialect)
}

/// `GET /`: a WebSocket of a tutorial, or else the call page.
async fn root(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    if (context.compat.mqtt || context.compat.tutorials)
        && ws::offered(request.headers(), &MQTT).is_some()
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
    match (&context.root, context.pages) {
        (Some(root), _) => Ok({
            let download = Download::of(&parts.extensions);
            root.serve(&parts.method, &parts.uri, &parts.headers, download)
                .await
        }),
        (None, true) => Ok(pages::call(&context)),
        (None, false) => Err(Problem::not_found()),
    }
}
