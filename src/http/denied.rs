//! `/v1/denied`: client networks that are refused on every listener.

use super::AppState;
use super::access::query;
use super::extract::Segment;
use super::json::as_json;
use super::problem::Problem;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest time for which a network is refused: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// One network, as the list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedRow {
    /// In CIDR notation.
    pub network: String,
    /// Unix seconds; `null`: until it is taken out, or the box restarts.
    pub expires_at: Option<u64>,
    /// It is of `net.denied_clients`.
    pub configured: bool,
}

/// What an operator does with the networks.
pub struct DeniedAdmin {
    /// Refuses a network from here on, for a time; false: there are as many as there may be.
    pub put: Box<dyn Fn(IpNet, Option<Duration>) -> bool + Send + Sync>,
    /// Refuses a network no longer; false: nobody had added it.
    pub delete: Box<dyn Fn(IpNet) -> bool + Send + Sync>,
    /// All of them.
    pub list: Box<dyn Fn() -> Vec<DeniedRow> + Send + Sync>,
}

/// The document names the last part of a path without the star, and says that it may hold a slash.
pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(add, remove))
}

/// Lists the client networks that are refused, those of `net.denied_clients` first.
#[utoipa::path(get, path = "/v1/denied", tag = "clients", security(("admin" = [])),
    responses((status = 200, description = "`{denied: [{network, expiresAt, configured}]}`; `expiresAt` is in Unix \
        seconds, or null")))]
async fn list(State(state): State<Arc<AppState>>) -> Response {
    as_json(json!({ "denied": (state.denied.list)() }).to_string())
}

/// `?ttl=`: seconds, or a text like `1h`.
struct Ttl(Option<Duration>);

impl<S: Sync> FromRequestParts<S> for Ttl {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(text) = query(parts, "ttl") else {
            return Ok(Self(None));
        };
        let seconds = text.parse().map(Duration::from_secs).ok();
        let ttl = seconds.or_else(|| humantime::parse_duration(&text).ok());
        match ttl.filter(|ttl| (Duration::from_secs(1)..=MAX_TTL).contains(ttl)) {
            Some(ttl) => Ok(Self(Some(ttl))),
            None => Err(invalid(
                "`ttl` is a number of seconds or a text like 1h, ten years at most",
            )),
        }
    }
}

/// Refuses a client network on every listener, and ends its sessions and relays.
#[utoipa::path(put, path = "/v1/denied/{*cidr}", tag = "clients", security(("admin" = [])),
    params(("cidr" = String, Path, description = "a network like 203.0.113.0/24 or an address; the slash may be written as it is"),
        ("ttl" = Option<String>, Query, description = "seconds, or a text like 1h; without it until it is taken out or the \
            box restarts")),
    responses((status = 204, description = "refused from here on"),
        (status = 200, description = "`{partial}`: the nodes of a cluster that gave no answer; they take it when they are back"),
        (status = 400, description = "`invalid-message`: not a network or a time"),
        (status = 409, description = "`too-many`: as many are refused as there may be")))]
async fn add(
    State(state): State<Arc<AppState>>,
    Segment(cidr): Segment<String>,
    Ttl(ttl): Ttl,
) -> Result<StatusCode, Problem> {
    if (state.denied.put)(network(&cidr)?, ttl) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let status = StatusCode::CONFLICT;
    let detail = "as many networks are refused as there may be: take some out first";
    Err(Problem::new(status, "too-many", detail))
}

/// Refuses a client network no longer.
#[utoipa::path(delete, path = "/v1/denied/{*cidr}", tag = "clients", security(("admin" = [])),
    params(("cidr" = String, Path, description = "as it was added")),
    responses((status = 204, description = "refused no longer"),
        (status = 200, description = "`{partial}`, as above"),
        (status = 400, description = "`invalid-message`: not a network"),
        (status = 404, description = "`not-found`: it was not added here")))]
async fn remove(
    State(state): State<Arc<AppState>>,
    Segment(cidr): Segment<String>,
) -> Result<StatusCode, Problem> {
    if (state.denied.delete)(network(&cidr)?) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = "this network was not added here; those of net.denied_clients are taken out in \
                  the configuration";
    Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail))
}

/// A network, or an address alone.
fn network(text: &str) -> Result<IpNet, Problem> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address);
    let network = network.map(|network| network.trunc());
    match network {
        // A slip of the finger would shut out everybody, the operator included.
        Some(network) if network.prefix_len() == 0 => Err(invalid("this network is everybody")),
        Some(network) => Ok(network),
        None => Err(invalid(
            "write a network like 203.0.113.0/24, or an address",
        )),
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-message", detail)
}
