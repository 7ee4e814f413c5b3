//! The operator's API over rooms and relays. Without a configured token it does not exist: behind
//! a proxy everybody comes from loopback, so an address proves nothing.

use super::AppState;
use super::access::{bearer_of, query};
use super::extract::{Segment, Text};
use super::json::as_json;
use super::problem::Problem;
use crate::protocol::{ErrorCode, RequestError, RoomPatch, RoomView};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the token check.
pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(rooms))
        .routes(routes!(room, patch_room, close_room))
        .routes(routes!(notify))
        .routes(routes!(remove_peer))
        .routes(routes!(relays))
        .routes(routes!(revoke))
        .routes(routes!(metrics))
        .merge(super::mint::routes())
}

/// Middleware that lets the bearer of `auth.admin_token` through.
pub(super) async fn check(
    State(context): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(expected) = context.admin_token.borrow().clone() else {
        return Problem::not_found().into_response();
    };
    let (parts, body) = request.into_parts();
    // `?token=` is for signaling clients: an operator can set a header, and queries end up in
    // histories.
    let given = bearer_of(&parts);
    if given.is_some_and(|given| expected.matches(&given)) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let detail = "the admin API asks for Authorization: Bearer with auth.admin_token";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response()
}

/// `auth.admin_token`, kept as its digest: comparing digests takes the same time whatever is given.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Keeps the digest of a token.
    pub fn new(token: &str) -> Self {
        Self(digest(token))
    }

    fn matches(&self, given: &str) -> bool {
        self.0.ct_eq(&digest(given)).into()
    }
}

fn digest(token: &str) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).into()
}

/// Serialised as it is: metadata is a client's own text, which no `Value` could hold.
#[derive(Serialize)]
struct Rooms<'a> {
    rooms: Vec<RoomView<'a>>,
    /// Where the rest begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// Bytes of rooms in one answer: it is put together while signaling waits.
const MAX_ROOMS: usize = 4 << 20;

/// Lists rooms by name.
#[utoipa::path(get, path = "/v1/rooms", tag = "rooms", security(("admin" = [])),
    params(("from" = Option<String>, Query, description = "`next` of the answer before")),
    responses((status = 200, description = "`{\"rooms\": [Room], \"next\": name?}`, each with its count \
        of `peers`; with `next` there are more than fit into 4 MiB")))]
async fn rooms(State(context): State<Arc<AppState>>, from: Begin) -> Response {
    let body = context.driver.with_hub(|hub, _, _| {
        let mut list = hub.rooms_from(&from.0);
        let mut bytes = 0;
        let mut fits = |room: &RoomView<'_>| {
            bytes += 256 + 2 * room.room_id.len() + room.metadata.map_or(0, |m| m.get().len());
            bytes <= MAX_ROOMS
        };
        let mut rooms = vec![];
        let next = loop {
            match list.next() {
                Some(room) if fits(&room) => rooms.push(room),
                rest => break rest.map(|room| room.room_id),
            }
        };
        render(&Rooms { rooms, next })
    });
    as_json(body)
}

/// Where a list begins.
struct Begin(String);

impl<S: Sync> FromRequestParts<S> for Begin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(query(parts, "from").unwrap_or_default()))
    }
}

/// Shows one room with its members.
#[utoipa::path(get, path = "/v1/rooms/{id}", tag = "rooms", security(("admin" = [])),
    params(("id" = String, Path, description = "`roomId`")),
    responses((status = 200, description = "the Room and its `members`: [Peer]"),
        (status = 404, description = "no such room")))]
async fn room(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
) -> Result<Response, Problem> {
    let body = context
        .driver
        .with_hub(|hub, _, _| hub.room(&id).map(|room| render(&room)));
    body.map(as_json)
        .ok_or_else(|| no_such(ErrorCode::NoSuchRoom))
}

/// Changes a room: `locked`, `maxPeers`, `password` (`null` removes it), `metadata`, `relayOnly`.
#[utoipa::path(patch, path = "/v1/rooms/{id}", tag = "rooms", security(("admin" = [])),
    params(("id" = String, Path, description = "`roomId`")),
    request_body(content = String, content_type = "application/json",
        description = "`{locked?, maxPeers?, password?, metadata?, relayOnly?}`"),
    responses((status = 200, description = "the Room as it is after the change"),
        (status = 400, description = "a field has a wrong type"),
        (status = 404, description = "no such room"),
        (status = 409, description = "`relayOnly` on a box without a relay")))]
async fn patch_room(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
    Text(body): Text,
) -> Result<Response, Problem> {
    let patch = RoomPatch::from_json(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, error.code.as_str(), error.message)
    })?;
    let room = context.driver.with_hub(|hub, now, effects| {
        hub.patch_room(now, &id, patch, effects)
            .map(|room| render(&room))
    })?;
    Ok(as_json(room))
}

/// Closes a room: its members are told, disconnected, and their relays end.
#[utoipa::path(delete, path = "/v1/rooms/{id}", tag = "rooms", security(("admin" = [])),
    params(("id" = String, Path, description = "`roomId`")),
    responses((status = 204, description = "closed"), (status = 404, description = "no such room")))]
async fn close_room(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
) -> Result<StatusCode, Problem> {
    context
        .driver
        .with_hub(|hub, now, effects| hub.close_room(now, &id, effects))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends `notify` with the request's body as `content` to every member.
#[utoipa::path(post, path = "/v1/rooms/{id}/notify", tag = "rooms", security(("admin" = [])),
    params(("id" = String, Path, description = "`roomId`")),
    request_body(content = String, content_type = "application/json", description = "any JSON"),
    responses((status = 200, description = "`{\"members\": n}`: how many are told"),
        (status = 400, description = "the body is not JSON"),
        (status = 404, description = "no such room")))]
async fn notify(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
    Text(body): Text,
) -> Result<Response, Problem> {
    let content: Box<RawValue> = serde_json::from_str(&body).map_err(|_| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid-json",
            "the body is not JSON",
        )
    })?;
    let members = context
        .driver
        .with_hub(|hub, now, effects| hub.notify(now, &id, &content, effects))?;
    Ok(as_json(json!({ "members": members }).to_string()))
}

/// Removes a member, as a host's `kick` does; its relays end.
#[utoipa::path(delete, path = "/v1/rooms/{id}/peers/{peerId}", tag = "rooms",
    security(("admin" = [])),
    params(("id" = String, Path, description = "`roomId`"),
        ("peerId" = String, Path, description = "from `members`")),
    responses((status = 204, description = "removed"),
        (status = 404, description = "no such room or peer")))]
async fn remove_peer(
    State(context): State<Arc<AppState>>,
    Segment((id, peer)): Segment<(String, String)>,
) -> Result<StatusCode, Problem> {
    context
        .driver
        .with_hub(|hub, now, effects| hub.remove_peer(now, &id, &peer, effects))?;
    Ok(StatusCode::NO_CONTENT)
}

/// One live allocation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayRow {
    /// The `<user>` of its credentials: a peer id, or `http-…`.
    pub user: String,
    /// The peer's identity, where the user is a peer that is there.
    pub identity: Option<String>,
    /// The peer's room, likewise.
    pub room_id: Option<String>,
    /// `udp`, `tcp` or `tls`: between client and box.
    pub transport: &'static str,
    /// The client's address and port.
    pub client: String,
    /// Relayed addresses and ports: one, or one a family.
    pub relayed: Vec<String>,
    /// Bytes from the client towards its peers.
    pub bytes_sent: u64,
    /// Bytes from peers towards the client.
    pub bytes_received: u64,
    /// Seconds since the allocation was made.
    pub age: u64,
    /// Seconds it lives on without a refresh.
    pub expires_in: u64,
}

/// Lists live allocations.
#[utoipa::path(get, path = "/v1/relays", tag = "relays", security(("admin" = [])),
    responses((status = 200, description = "`{\"relays\": [RelayRow]}`", body = Vec<RelayRow>)))]
async fn relays(State(context): State<Arc<AppState>>) -> Response {
    let mut rows = (context.relays.list)().await;
    context.driver.with_hub(|hub, _, _| {
        for row in &mut rows {
            if let Some(peer) = hub.peer(&row.user) {
                row.identity = Some(peer.identity);
                row.room_id = peer.room_id;
            }
        }
    });
    as_json(json!({ "relays": rows }).to_string())
}

/// Ends a user's allocations and refuses the credentials minted for it so far.
#[utoipa::path(delete, path = "/v1/relays/{user}", tag = "relays", security(("admin" = [])),
    params(("user" = String, Path, description = "`user` of the list")),
    responses((status = 204, description = "revoked, whether or not it had allocations")))]
async fn revoke(
    State(context): State<Arc<AppState>>,
    Segment(user): Segment<String>,
) -> StatusCode {
    let is_peer = context
        .driver
        .with_hub(|hub, _, effects| hub.revoke(&user, effects));
    if !is_peer {
        (context.relays.revoke)(&user);
    }
    StatusCode::NO_CONTENT
}

/// Shows counters and gauges in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "health", security(("admin" = [])),
    responses((status = 200, description = "OpenMetrics text", content_type = "text/plain")))]
pub(super) async fn metrics(State(context): State<Arc<AppState>>) -> Response {
    const OPEN_METRICS: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    (
        [(header::CONTENT_TYPE, OPEN_METRICS)],
        (context.scrape)().await,
    )
        .into_response()
}

fn render(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("views have string keys and no failing Serialize")
}

fn no_such(code: ErrorCode) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        code.as_str(),
        "there is no such room",
    )
}

impl From<RequestError> for Problem {
    fn from(refusal: RequestError) -> Self {
        let status = match refusal.code {
            ErrorCode::NoSuchRoom | ErrorCode::NoSuchPeer => StatusCode::NOT_FOUND,
            ErrorCode::NoRelay => StatusCode::CONFLICT,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, refusal.code.as_str(), refusal.message)
    }
}
