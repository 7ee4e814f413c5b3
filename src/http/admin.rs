//! The operator's API over rooms and relays. Without a configured token it does not exist: behind
//! a proxy everybody comes from loopback, so an address proves nothing.

use super::AppState;
use super::access::bearer_of;
use super::extract::{Segment, Text};
use super::guard::ClientAddr;
use super::json::as_json;
use super::others::{self, Alone};
use super::paging::{Begin, MAX_OF_NODE, MAX_PART, part};
use super::problem::Problem;
use crate::address::shown;
use crate::protocol::{ErrorCode, MAX_DEPTH, RequestError, RoomPatch, RoomView, is_deeper_than};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the token check.
pub(super) fn routes(context: &Arc<AppState>) -> OpenApiRouter<Arc<AppState>> {
    let of_rooms = OpenApiRouter::new()
        .routes(routes!(room, patch_room, close_room))
        .routes(routes!(notify))
        .routes(routes!(remove_peer))
        .layer(from_fn_with_state(Arc::clone(context), others::at_home));
    let denied =
        super::denied::routes().layer(from_fn_with_state(Arc::clone(context), others::everywhere));
    OpenApiRouter::new()
        .routes(routes!(rooms))
        .merge(of_rooms)
        .routes(routes!(clients))
        .routes(routes!(remove_client))
        .merge(super::relays::routes())
        .routes(routes!(usage))
        .routes(routes!(nodes))
        .routes(routes!(metrics))
        .merge(super::mint::routes())
        .merge(super::events::routes())
        .merge(denied)
}

/// Middleware that lets the bearers of `auth.admin_token` and `auth.admin_tokens` through, and writes
/// one line for each act.
pub(super) async fn check(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
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
    let needed = Scope::of(&parts.method, parts.uri.path());
    let bearer = given.and_then(|given| expected.bearer(&given));
    if let Some(bearer) = bearer {
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let response = match bearer.scopes.contains(&needed) {
            true => next.run(Request::from_parts(parts, body)).await,
            false => {
                let detail = format!(
                    "the token {} lacks the scope {}",
                    bearer.name,
                    needed.as_str()
                );
                Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response()
            }
        };
        if needed != Scope::Read {
            let (status, client) = (response.status().as_u16(), shown(client));
            tracing::info!(
                target: "callbox::audit",
                token = &*bearer.name, %method, path, status, client, "audit"
            );
        }
        return response;
    }
    let detail = "the admin API asks for Authorization: Bearer with auth.admin_token";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response()
}

/// What an admin token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Metrics, lists, events.
    Read,
    /// Close, remove, revoke, change, refuse, drain.
    Act,
    /// Tokens and TURN credentials.
    Mint,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Read, Self::Act, Self::Mint];

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Act => "act",
            Self::Mint => "mint",
        }
    }

    fn of(method: &Method, path: &str) -> Self {
        match (method, path) {
            (&Method::GET | &Method::HEAD, _) => Self::Read,
            (_, "/v1/tokens" | "/v1/credentials") => Self::Mint,
            _ => Self::Act,
        }
    }
}

/// `auth.admin_token` and `auth.admin_tokens`, kept as digests: comparing digests takes the same time
/// whatever is given.
#[derive(Clone, Default)]
pub struct AdminToken(Vec<NamedDigest>);

#[derive(Clone)]
struct NamedDigest {
    name: Arc<str>,
    digest: [u8; 32],
    scopes: Arc<[Scope]>,
}

impl AdminToken {
    /// The one token that may be used for everything.
    pub fn new(token: &str) -> Self {
        Self::default().with("admin", token, &Scope::ALL)
    }

    /// Takes a token with a name and scopes of its own too.
    pub fn with(mut self, name: &str, token: &str, scopes: &[Scope]) -> Self {
        self.0.push(NamedDigest {
            name: name.into(),
            digest: digest(token),
            scopes: scopes.into(),
        });
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token that is. All are compared, so that the time says nothing.
    fn bearer(&self, given: &str) -> Option<NamedDigest> {
        let given = digest(given);
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&given)) {
                found = Some(token);
            }
        }
        found.cloned()
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

/// Lists rooms by name.
#[utoipa::path(get, path = "/v1/rooms", tag = "rooms", security(("admin" = [])),
    params(("from" = Option<String>, Query, description = "`next` of the answer before")),
    responses((status = 200, description = "`{\"rooms\": [Room], \"next\": name?}`, each with its count \
        of `peers`; with `next` there are more than fit into 4 MiB")))]
async fn rooms(
    State(context): State<Arc<AppState>>,
    from: Begin,
    alone: Alone,
    uri: Uri,
) -> Response {
    let max = match alone.is_some() {
        true => MAX_OF_NODE,
        false => MAX_PART,
    };
    let body = context.driver.with_hub(|hub, _, _| {
        let bytes_of = |room: &RoomView<'_>| {
            256 + 2 * room.room_id.len() + room.metadata.map_or(0, |m| m.get().len())
        };
        let (rooms, next) = part(hub.rooms_from(&from.0), bytes_of, max);
        let next = next.map(|room| room.room_id);
        render(&Rooms { rooms, next })
    });
    others::with_others(&context, &alone, &uri, body, ("rooms", "roomId")).await
}

/// Shows one room with its members.
#[utoipa::path(get, path = "/v1/rooms/{id}", tag = "rooms", security(("admin" = [])),
    params(("id" = String, Path, description = "`roomId`")),
    responses((status = 200, description = "the Room and its `members`: [Peer], each with its last `report`"),
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
        (status = 400, description = "the body is not JSON, or nests more than 63 levels deep"),
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
    // The message around it is a level too.
    let limit = MAX_DEPTH - 1;
    if is_deeper_than(content.get(), limit) {
        let detail = format!("the body nests at most {limit} levels deep");
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid-message",
            detail,
        ));
    }
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

/// Clients in one list: more than a person reads.
const MAX_CLIENTS: usize = 10_000;

/// Lists clients of foreign protocols with names and topics.
#[utoipa::path(get, path = "/v1/clients", tag = "rooms", security(("admin" = [])),
    responses((status = 200, description = "`{\"clients\": [{peerId, dialect, name?, identity?, roomId?, \
        topics}], \"truncated\": bool}`, the longest connected first")))]
async fn clients(State(context): State<Arc<AppState>>, alone: Alone, uri: Uri) -> Response {
    let (clients, truncated) = context
        .driver
        .with_hub(|hub, _, _| hub.clients(MAX_CLIENTS));
    let body = json!({ "clients": clients, "truncated": truncated }).to_string();
    others::with_others(&context, &alone, &uri, body, ("clients", "peerId")).await
}

/// Closes the connection of such a client; its names, topics and relays end.
#[utoipa::path(delete, path = "/v1/clients/{peerId}", tag = "rooms", security(("admin" = [])),
    params(("peerId" = String, Path, description = "from the list")),
    responses((status = 204, description = "closed"), (status = 404, description = "no such client")))]
async fn remove_client(
    State(context): State<Arc<AppState>>,
    Segment(peer): Segment<String>,
    alone: Alone,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let removed = context
        .driver
        .with_hub(|hub, now, effects| hub.remove_client(now, &peer, effects));
    if removed.is_err() && others::delete(&context, &alone, &uri).await {
        return Ok(StatusCode::NO_CONTENT);
    }
    removed?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows what was relayed this month, in all, by user and by secret, and in the months before.
#[utoipa::path(get, path = "/v1/usage", tag = "relays", security(("admin" = [])),
    responses((status = 200, description = "`{month, total, users: {name: bytes}, secrets: {id: bytes}, months: \
        {month: bytes}}`; sessions of signaling are `(sessions)` together, and the id of a secret is the first 8 digits of its \
        SHA-256")))]
async fn usage(State(context): State<Arc<AppState>>) -> Response {
    as_json((context.usage)().await)
}

/// Lists the nodes of the cluster, as each has described itself with its last beat.
#[utoipa::path(get, path = "/v1/nodes", tag = "health", security(("admin" = [])),
    responses((status = 200, description = "`{nodes: [{id, self, name, version, rooms, peers, connections, \
        remote: {edge, home}, answers, ms, clockMs, wire, turnSecrets, auth}]}`; `answers` is false for a \
        node that this one cannot ask"),
        (status = 404, description = "this box is not a node of a cluster"),
        (status = 503, description = "Redis does not answer")))]
async fn nodes(State(context): State<Arc<AppState>>, alone: Alone) -> Response {
    let Some(nodes) = &context.nodes else {
        return Problem::not_found().into_response();
    };
    if alone.is_some() {
        return as_json((nodes.describe)());
    }
    match (nodes.list)().await {
        Ok(nodes) => as_json(nodes),
        Err(why) => others::no_redis(&why).into_response(),
    }
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
