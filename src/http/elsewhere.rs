//! Connections that requests carry, where a request has come to another node than the connection is at:
//! the id of a connection begins with its node, which carries the request out.

use super::carried::secret;
use super::extract::Segments;
use super::guard::ClientAddr;
use super::others::{OneNode, Others};
use super::problem::Problem;
use super::question::{Answer, Question};
use super::serve::LongLived;
use super::{AppState, NodesAdmin, access, ws};
use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names the connection of a client of `/api/messages`.
pub(super) const COOKIE: &str = "callbox-polling";
/// How long an answer is waited for: requests wait for messages for up to 25 seconds.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Digits by which an id names its node, and of all of it.
const NODE: usize = 16;
const WHOLE: usize = 48;
/// The largest body that is carried to another node, beside what a frame may have.
const MAX_BODY: usize = 128 * 1024;
/// How long one request of a stream waits at the node, and the time between comments with that.
const WAIT: Duration = Duration::from_secs(15);

/// A secret that names a connection, and its node where there are several.
pub(super) fn id(context: &AppState) -> String {
    let me = context.nodes.as_ref().and_then(|nodes| (nodes.me)());
    format!("{}{}", me.unwrap_or_default(), secret())
}

/// The node that an id names.
fn node_of(id: &str) -> Option<&str> {
    let is_whole = id.len() == WHOLE && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_whole.then(|| &id[..NODE])
}

/// The id of a connection in a request.
fn id_of(parts: &Parts, params: &RawPathParams) -> Option<String> {
    let in_path = params.iter().find(|(name, _)| *name == "id");
    in_path
        .map(|(_, id)| id.to_owned())
        .or_else(|| access::query(parts, "sid"))
        .or_else(|| polling_cookie(parts).map(str::to_owned))
}

/// The id that the cookie of a request names.
pub(super) fn polling_cookie(parts: &Parts) -> Option<&str> {
    let lines = parts.headers.get_all(header::COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// Middleware that has the node of a connection carry out what is asked of it.
pub(super) async fn at_node(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    Segments(params): Segments,
    request: Request,
    next: Next,
) -> Response {
    let is_alone = request.extensions().get::<OneNode>().is_some();
    let Some(nodes) = context.nodes.as_ref().filter(|_| !is_alone) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let id = id_of(&parts, &params);
    let there = id.as_deref().and_then(node_of);
    // A WebSocket stays where it is: its client goes on as before.
    let there = there.filter(|node| nodes.others.has(node) && !ws::wants_websocket(&parts.headers));
    let (Some(node), Some(id)) = (there, &id) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    if parts.method == Method::GET && parts.uri.path().ends_with("/events") {
        return events(nodes, node, id, &parts, client).await;
    }
    let max = MAX_BODY.max(context.sessions.max_frame);
    let Ok(body) = to_bytes(body, max).await else {
        let detail = format!("the body is over {max} bytes, or did not come whole");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).into_response();
    };
    let question = Question::of(&parts, &body, client);
    match ask(nodes, node, &question).await {
        Some(answer) => answer.into_response(),
        None => no_answer(),
    }
}

fn no_answer() -> Response {
    let detail =
        "the node of this connection does not answer: try again, or open a new one and resume";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-answer", detail).into_response()
}

async fn ask(nodes: &NodesAdmin, node: &str, question: &Question) -> Option<Answer> {
    let answer = nodes.others.ask_node(node, question.text(), TIMEOUT).await;
    Answer::read(&answer?)
}

/// What `GET /v1/sessions/{id}/messages` says.
#[derive(Deserialize)]
struct Messages {
    messages: Vec<Box<RawValue>>,
    closed: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: Option<u64>,
}

impl Messages {
    /// As Server-Sent Events; whether more may come.
    fn events(&self) -> (String, bool) {
        let mut text: String = (self.messages.iter())
            .map(|message| {
                let numbered = serde_json::from_str::<Numbered>(message.get());
                event_of(
                    numbered.ok().and_then(|numbered| numbered.seq),
                    message.get(),
                )
            })
            .collect();
        if let Some(closed) = &self.closed {
            text += &close_event(closed);
        }
        if text.is_empty() {
            text.push_str(":\n\n");
        }
        (text, self.closed.is_none())
    }
}

/// A message as an event. A line break may stand between the tokens of a relayed payload; there it is a
/// space to JSON.
pub(super) fn event_of(seq: Option<u64>, text: &str) -> String {
    let mut event = String::new();
    if let Some(seq) = seq {
        let _ = writeln!(event, "id: {seq}");
    }
    let text = text.replace(['\r', '\n'], " ");
    let _ = write!(event, "data: {text}\n\n");
    event
}

/// The last event of a stream.
pub(super) fn close_event(closed: &serde_json::Value) -> String {
    format!("event: close\ndata: {closed}\n\n")
}

/// The messages of a session of another node as a stream: asked for again and again.
async fn events(
    nodes: &NodesAdmin,
    node: &str,
    id: &str,
    parts: &Parts,
    client: IpAddr,
) -> Response {
    let after = parts.headers.get(HeaderName::from_static("last-event-id"));
    let after = after.and_then(|after| after.to_str().ok()?.trim().parse::<u64>().ok());
    let after = after
        .map(|after| format!("&after={after}"))
        .unwrap_or_default();
    let path = format!("/v1/sessions/{id}/messages?wait=");
    let question = Question::get(format!("{path}0{after}"), client);
    let first = match ask(nodes, node, &question).await {
        Some(answer) if answer.is_good() => answer,
        Some(answer) => return answer.into_response(),
        None => return no_answer(),
    };
    let question = Question::get(format!("{path}{}", WAIT.as_secs()), client).text();
    let events = follow(first, Arc::clone(&nodes.others), node.to_owned(), question);
    event_stream(Body::from_stream(events))
}

/// The first messages, and those that come with each repetition of the question.
fn follow(
    first: Answer,
    others: Arc<dyn Others>,
    node: String,
    question: String,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((Some(first), true), move |(answer, goes_on)| {
        let asked = others.ask_node(&node, question.clone(), TIMEOUT);
        async move {
            let is_first = answer.is_some();
            let began = Instant::now();
            let answer = match answer {
                Some(answer) => answer,
                None if !goes_on => return None,
                None => Answer::read(&asked.await?)?,
            };
            if answer.is_absent() {
                // It has ended between two questions, so that nobody was there to be told why.
                let closed = json!({ "code": 1006, "reason": "" });
                return Some((Ok(Bytes::from(close_event(&closed))), (None, false)));
            }
            let messages: Messages = serde_json::from_str(answer.text()?).ok()?;
            // Somebody else asks for the messages now.
            let is_early = !is_first && began.elapsed() + Duration::from_secs(1) < WAIT;
            if is_early && messages.messages.is_empty() && messages.closed.is_none() {
                return None;
            }
            let (text, goes_on) = messages.events();
            Some((Ok(Bytes::from(text)), (None, goes_on)))
        }
    })
}

/// The answer whose body is Server-Sent Events.
pub(super) fn event_stream(body: Body) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx gathers answers otherwise.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    let mut response = (headers, body).into_response();
    response.extensions_mut().insert(LongLived);
    response
}

#[cfg(test)]
mod tests {
    use super::super::others::{Home, Reply};
    use super::*;
    use futures_util::StreamExt;
    use futures_util::future::BoxFuture;

    #[test]
    fn an_id_names_its_node_where_there_are_several() {
        let id = format!("00000000000000ab{}", secret());
        assert_eq!(node_of(&id), Some("00000000000000ab"));
        assert_eq!(node_of(&secret()), None);
        assert_eq!(
            node_of(&format!("00000000000000aé{}", &secret()[..31])),
            None
        );
    }

    #[test]
    fn messages_become_events_and_the_last_one_closes() {
        let read = |text: &str| serde_json::from_str::<Messages>(text).unwrap().events();
        let (text, goes_on) =
            read(r#"{"messages":[{"seq":3,"type":"x","n":1e400},{"type":"welcome"}]}"#);
        assert!(goes_on);
        assert_eq!(
            text,
            "id: 3\ndata: {\"seq\":3,\"type\":\"x\",\"n\":1e400}\n\ndata: {\"type\":\"welcome\"}\n\n"
        );
        assert_eq!(read(r#"{"messages":[]}"#), (":\n\n".into(), true));
        let (text, goes_on) = read(r#"{"messages":[],"closed":{"code":4002,"reason":"kicked"}}"#);
        assert!(
            !goes_on && text.starts_with("event: close\ndata: {"),
            "{text}"
        );
    }

    /// A node whose session has ended when it is asked.
    struct Ended;

    impl Others for Ended {
        fn ask_all(&self, _: String) -> BoxFuture<'static, Vec<Reply>> {
            Box::pin(async { vec![] })
        }

        fn ask_home(&self, _: &str, _: String) -> BoxFuture<'static, Home> {
            Box::pin(async { Home::Nowhere })
        }

        fn has(&self, _: &str) -> bool {
            true
        }

        fn ask_node(&self, _: &str, _: String, _: Duration) -> BoxFuture<'static, Option<String>> {
            let absent = Problem::new(StatusCode::NOT_FOUND, "no-such-session", "it has ended");
            Box::pin(async { Answer::of(absent.into_response()).await })
        }
    }

    #[tokio::test]
    async fn a_stream_says_that_its_session_has_ended_between_two_questions() {
        let first = Answer::of(Response::new(r#"{"messages":[{"type":"x"}]}"#.into())).await;
        let first = Answer::read(&first.unwrap()).unwrap();
        let events = follow(first, Arc::new(Ended), String::new(), String::new());
        let events: Vec<_> = events.map(Result::unwrap).collect().await;
        let closed = "event: close\ndata: {\"code\":1006,\"reason\":\"\"}\n\n";
        assert_eq!(events, ["data: {\"type\":\"x\"}\n\n", closed]);
    }
}
