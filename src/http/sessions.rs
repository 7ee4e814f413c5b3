//! `/v1/sessions`: the native protocol for networks that break WebSockets. Messages come by
//! Server-Sent Events or long polling, and go by POST.

use super::AppState;
use super::access::query;
use super::carried::{self, Carriage};
use super::elsewhere;
use super::extract::Segment;
use super::guard::ClientAddr;
use super::json::as_json;
use super::problem::Problem;
use crate::protocol::{DialectKind, ErrorCode};
use crate::signal::{Fetch, Fetched, Goodbye, Incoming, Mailbox, Message, Native};
use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest that a request waits for messages: proxies give up after thirty seconds or more.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// The time between comments in a stream without events, by which both ends notice a lost one.
const COMMENT: Duration = Duration::from_secs(15);

pub(super) fn routes(context: &Arc<AppState>) -> OpenApiRouter<Arc<AppState>> {
    let of_one = OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(messages, post))
        .routes(routes!(close))
        .layer(from_fn_with_state(Arc::clone(context), elsewhere::at_node));
    OpenApiRouter::new().routes(routes!(open)).merge(of_one)
}

/// Opens a connection that requests carry; `sessionId` names it in their paths.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", security(("client" = [])),
    responses((status = 201, description = "`{sessionId, idle}`: a secret, and after how many \
        seconds without a request the connection ends"),
        (status = 429, description = "`rate-limited`"),
        (status = 503, description = "`full`, `draining` or `isolated`")))]
async fn open(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let id = elsewhere::id(&context);
    let own = id.clone();
    let carriage = Carriage {
        dialect: Native,
        kind: DialectKind::Native,
        idle: context.idle,
        keeps: true,
        settings: context.sessions.clone(),
    };
    carried::begin(
        &context,
        client,
        &parts,
        carriage,
        |carried, mailbox| carried.sessions.insert(&id, Arc::clone(mailbox)),
        move |carried| carried.sessions.remove(&own),
    )?;
    let body = json!({ "sessionId": id, "idle": context.idle.as_secs() });
    Ok((StatusCode::CREATED, as_json(body.to_string())).into_response())
}

/// Streams the server's messages as Server-Sent Events.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", tag = "sessions",
    params(("id" = String, Path, description = "`sessionId`"),
        ("Last-Event-ID" = Option<u64>, Header, description = "the last `seq` that came through")),
    responses((status = 200, description = "`data` is one message, `id` its `seq`; the event \
        `close` is the last one", content_type = "text/event-stream"),
        (status = 404, description = "no such session"),
        (status = 409, description = "`resume-failed`: messages behind Last-Event-ID are gone")))]
async fn events(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
    request: Request,
) -> Result<Response, Problem> {
    let mailbox = find(&context, &id)?;
    let after = request
        .headers()
        .get(HeaderName::from_static("last-event-id"));
    let after = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let fetch = fetch(&mailbox, after)?;
    let stream = stream::unfold(Some((fetch, true)), |state| async move {
        let (mut fetch, is_first) = state?;
        let (text, goes_on) = match is_first {
            // Proxies pass nothing on before the first bytes of a body.
            true => (": the messages of a session\n\n".to_owned(), true),
            false => match timeout(COMMENT, fetch.next()).await {
                Err(_) => (":\n\n".to_owned(), true),
                Ok(Fetched::Messages(messages)) => (events_of(&messages), true),
                Ok(Fetched::Ended(goodbye)) => (elsewhere::close_event(&closed(&goodbye)), false),
                Ok(Fetched::Superseded) => return None,
            },
        };
        let next = goes_on.then_some((fetch, false));
        Some((Ok::<_, Infallible>(Bytes::from(text)), next))
    });
    Ok(elsewhere::event_stream(Body::from_stream(stream)))
}

/// Fetches the server's messages, and waits for some.
#[utoipa::path(get, path = "/v1/sessions/{id}/messages", tag = "sessions",
    params(("id" = String, Path, description = "`sessionId`"),
        ("wait" = Option<u64>, Query, description = "seconds, at most 25"),
        ("after" = Option<u64>, Query, description = "the last `seq` that came through: later \
            messages come again")),
    responses((status = 200, description = "`{messages, closed?}`; `closed` is \
        `{code, reason}` and the last answer"),
        (status = 404, description = "no such session"),
        (status = 409, description = "`resume-failed`: messages behind `after` are gone")))]
async fn messages(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let mailbox = find(&context, &id)?;
    let wait = number(&parts, "wait")?.unwrap_or(0);
    let mut fetch = fetch(&mailbox, number(&parts, "after")?)?;
    let wait = Duration::from_secs(wait).min(MAX_WAIT);
    let body = match timeout(wait, fetch.next()).await {
        Ok(Fetched::Messages(messages)) => {
            let texts: Vec<_> = messages.iter().filter_map(text).collect();
            format!("{{\"messages\":[{}]}}", texts.join(","))
        }
        Ok(Fetched::Ended(goodbye)) => {
            json!({ "messages": [], "closed": closed(&goodbye) }).to_string()
        }
        Ok(Fetched::Superseded) | Err(_) => json!({ "messages": [] }).to_string(),
    };
    Ok(as_json(body))
}

/// Takes one message of the client.
#[utoipa::path(post, path = "/v1/sessions/{id}/messages", tag = "sessions",
    params(("id" = String, Path, description = "`sessionId`")),
    request_body(content = String, content_type = "application/json",
        description = "one message of the protocol"),
    responses((status = 202, description = "taken; what is wrong with it comes as a message"),
        (status = 404, description = "no such session"),
        (status = 413, description = "`too-large`: over signal.max_frame")))]
async fn post(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let mailbox = find(&context, &id)?;
    let text = read_text(request, context.sessions.max_frame).await?;
    let put = mailbox.put(Incoming::Text(&text)).await;
    put.map_err(|_| no_such_session())?;
    Ok(StatusCode::ACCEPTED)
}

/// Ends the connection, as closing a WebSocket does.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "`sessionId`")),
    responses((status = 204, description = "ended"),
        (status = 404, description = "no such session")))]
async fn close(
    State(context): State<Arc<AppState>>,
    Segment(id): Segment<String>,
) -> Result<StatusCode, Problem> {
    find(&context, &id)?.close();
    context.carried.sessions.remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn find(context: &AppState, id: &str) -> Result<Arc<Mailbox>, Problem> {
    context
        .carried
        .sessions
        .find(id)
        .ok_or_else(no_such_session)
}

fn no_such_session() -> Problem {
    let detail = "there is no such session, or it has ended: open a new one and resume";
    Problem::new(StatusCode::NOT_FOUND, "no-such-session", detail)
}

fn fetch(mailbox: &Arc<Mailbox>, after: Option<u64>) -> Result<Fetch, Problem> {
    mailbox.fetch(after).map_err(|_| {
        let detail = "messages behind that one are gone: open a new session and resume";
        let code = ErrorCode::ResumeFailed.as_str();
        Problem::new(StatusCode::CONFLICT, code, detail)
    })
}

/// The body as text, if it is not over `max` bytes.
pub(super) async fn read_text(request: Request, max: usize) -> Result<String, Problem> {
    let body = read_body(request, max).await?;
    String::from_utf8(body.into()).map_err(|_| {
        let status = StatusCode::BAD_REQUEST;
        Problem::new(status, "invalid-body", "the body is not UTF-8")
    })
}

/// The body, if it is not over `max` bytes.
pub(super) async fn read_body(request: Request, max: usize) -> Result<Bytes, Problem> {
    to_bytes(request.into_body(), max).await.map_err(|_| {
        let detail = format!("the body is over {max} bytes, or did not come whole");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    })
}

fn number(parts: &Parts, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = query(parts, name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let detail = format!("{name} is not a whole number");
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail)
    })
}

/// The text of a message: native ones have nothing else.
fn text(message: &Message) -> Option<&str> {
    match message {
        Message::Text(text) => Some(text),
        Message::Binary(_) => None,
    }
}

fn events_of(messages: &[Message]) -> String {
    let mut events = String::new();
    for message in messages {
        events += &elsewhere::event_of(message.seq(), text(message).unwrap_or_default());
    }
    events
}

fn closed(goodbye: &Goodbye) -> serde_json::Value {
    json!({ "code": goodbye.code.unwrap_or(1006), "reason": goodbye.reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_event_and_its_number_the_id() {
        let messages = [
            "{\"type\":\"welcome\"}",
            "{\"seq\":12,\"type\":\"message\",\"content\":[1,\r\n2]}",
        ];
        let messages = messages.map(|text| Message::Text(text.to_owned()));
        let expected = "data: {\"type\":\"welcome\"}\n\n\
             id: 12\ndata: {\"seq\":12,\"type\":\"message\",\"content\":[1,  2]}\n\n";
        assert_eq!(events_of(&messages), expected);
    }
}
