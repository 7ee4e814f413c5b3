//! `GET /v1/events`: what happens, as Server-Sent Events.

use super::AppState;
use super::problem::Problem;
use super::serve::LongLived;
use crate::hooks::{Delivered, Listener};
use crate::signal::hub::Subject;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How often a silent stream shows that it is alive: proxies commonly give up after a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Rooms and peers that one listener may trace.
const MAX_SUBJECTS: usize = 16;

/// Begins to listen; `None` where too many do.
pub type Listen = Box<dyn Fn(Vec<Subject>) -> Option<Listening> + Send + Sync>;

/// A listener, and what ends with it.
pub struct Listening {
    /// Gets the events.
    pub listener: Listener,
    /// Dropped after the listener.
    pub end: Box<dyn Any + Send>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Whose messages are asked for: `?trace=ROOM`, `?peer=NAME`.
struct Traced(Vec<Subject>);

impl<S: Sync> FromRequestParts<S> for Traced {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let subjects = pairs.filter_map(|(name, value)| match &*name {
            "trace" => Some(Subject::Room(value.into())),
            "peer" => Some(Subject::Peer(value.into())),
            _ => None,
        });
        Ok(Self(subjects.take(MAX_SUBJECTS).collect()))
    }
}

/// Shows what happens, as it happens: `room`, `peer`, `relay`, `call`, `report`, `message`, `node`,
/// `warning`, and `gap` where the listener is too slow.
#[utoipa::path(get, path = "/v1/events", tag = "events", security(("admin" = [])),
    params(("trace" = Option<String>, Query, description = "a room whose messages are shown: type, \
            from, to, size; may be given more than once"),
        ("peer" = Option<String>, Query, description = "a peer id or an identity, likewise")),
    responses((status = 200, description = "Server-Sent Events; `data` is one JSON object",
            content_type = "text/event-stream"),
        (status = 503, description = "too many listen")))]
async fn events(
    State(state): State<Arc<AppState>>,
    Traced(subjects): Traced,
) -> Result<Response, Problem> {
    let listening = (state.events)(subjects).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "rate-limited",
            "too many listen to events: close one of them",
        )
    })?;
    let stream = stream::unfold(listening, async |mut listening| {
        let event = match listening.listener.next().await? {
            Delivered::Event(told) => Event::default()
                .event(told.topic.as_str())
                .data(&*told.text),
            Delivered::Gap(lost) => {
                let gap = json!({ "type": "gap", "dropped": lost });
                Event::default().event("gap").data(gap.to_string())
            }
        };
        Some((Ok::<_, Infallible>(event), listening))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    response.extensions_mut().insert(LongLived);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx holds back what it proxies, unless it is told not to.
    let unbuffered = HeaderValue::from_static("no");
    headers.insert("x-accel-buffering", unbuffered);
    Ok(response)
}
