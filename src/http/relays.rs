//! `/v1/relays`: live allocations, and their end.

use super::AppState;
use super::extract::Segment;
use super::others::{self, Alone};
use super::paging::{Begin, MAX_OF_NODE, MAX_PART, part};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(relays))
        .routes(routes!(revoke))
}

/// One live allocation.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
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

impl RelayRow {
    /// What it takes in an answer, at most about.
    fn bytes(&self) -> usize {
        let texts = [&self.identity, &self.room_id];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        400 + 2 * (self.user.len() + texts)
    }
}

/// Lists live allocations by user.
#[utoipa::path(get, path = "/v1/relays", tag = "relays", security(("admin" = [])),
    params(("from" = Option<String>, Query, description = "`next` of the answer before")),
    responses((status = 200, description = "`{\"relays\": [RelayRow], \"next\": user?}`; with `next` there \
        are more than fit into 4 MiB", body = Vec<RelayRow>)))]
async fn relays(
    State(context): State<Arc<AppState>>,
    from: Begin,
    alone: Alone,
    uri: Uri,
) -> Response {
    let max = match alone.is_some() {
        true => MAX_OF_NODE,
        false => MAX_PART,
    };
    let mut rows = (context.relays.list)().await;
    rows.retain(|row| row.user >= from.0);
    rows.sort_by(|a, b| a.user.cmp(&b.user));
    context.driver.with_hub(|hub, _, _| {
        for row in &mut rows {
            if let Some(peer) = hub.peer(&row.user) {
                row.identity = Some(peer.identity);
                row.room_id = peer.room_id;
            }
        }
    });
    // A user's rows stay together: the next answer begins with a user.
    let users = rows.chunk_by(|a, b| a.user == b.user);
    let bytes_of = |rows: &&[RelayRow]| rows.iter().map(RelayRow::bytes).sum();
    let (shown, next) = part(users, bytes_of, max);
    let mut body = json!({ "relays": shown.concat() });
    if let Some(next) = next.and_then(|rows| rows.first()) {
        body["next"] = json!(next.user);
    }
    others::with_others(&context, &alone, &uri, body.to_string(), ("relays", "user")).await
}

/// Ends a user's allocations and refuses the credentials minted for it so far, or the fixed password that it has.
#[utoipa::path(delete, path = "/v1/relays/{user}", tag = "relays", security(("admin" = [])),
    params(("user" = String, Path, description = "`user` of the list")),
    responses((status = 204, description = "revoked, whether or not it had allocations")))]
async fn revoke(
    State(context): State<Arc<AppState>>,
    Segment(user): Segment<String>,
    alone: Alone,
    uri: Uri,
) -> StatusCode {
    let is_peer = context
        .driver
        .with_hub(|hub, _, effects| hub.revoke(&user, effects));
    if is_peer {
        return StatusCode::NO_CONTENT;
    }
    // The home of a session knows what of it was minted. What nobody knows is revoked everywhere.
    match alone.is_some() {
        true => return StatusCode::NOT_FOUND,
        false if others::delete(&context, &alone, &uri).await => {}
        false => (context.relays.revoke)(&user),
    }
    StatusCode::NO_CONTENT
}
