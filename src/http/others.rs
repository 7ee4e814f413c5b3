//! Requests of operators that other nodes of the cluster carry out: what is of one room goes to its
//! home, a list is put together of what all nodes have, and a ban of a network goes to all.
//!
//! Who answers has judged no token: the node that was asked by the operator has.

use super::AppState;
use super::extract::Segments;
use super::json::as_json;
use super::problem::Problem;
use super::question::{Answer, Question};
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What one node has said to a question.
#[derive(Debug)]
pub struct Reply {
    /// The name of the node, or what it goes by where the name is not known.
    pub node: String,
    /// The text that it gave; `None`: no answer came in time.
    pub answer: Option<String>,
}

/// Where a room is, and what its home says.
#[derive(Debug)]
pub enum Home {
    /// At no other node.
    Nowhere,
    /// At that one.
    There(Reply),
    /// Redis does not say: why.
    Unknown(String),
}

/// The other nodes of a cluster.
pub trait Others: Send + Sync {
    /// Asks all of them.
    fn ask_all(&self, question: String) -> BoxFuture<'static, Vec<Reply>>;
    /// Asks the home of a room.
    fn ask_home(&self, room: &str, question: String) -> BoxFuture<'static, Home>;
    /// Whether there is another node that goes by that.
    fn has(&self, node: &str) -> bool;
    /// Asks that one; `None`: no answer came in that time.
    fn ask_node(
        &self,
        node: &str,
        question: String,
        patience: Duration,
    ) -> BoxFuture<'static, Option<String>>;
}

/// Marks a request that another node has sent: it is for this node alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneNode;

/// Whether other nodes are asked too.
pub(super) type Alone = Option<Extension<OneNode>>;

/// Middleware that has the home of a room carry out what is of the room.
pub(super) async fn at_home(
    State(context): State<Arc<AppState>>,
    Segments(params): Segments,
    request: Request,
    next: Next,
) -> Response {
    let room = params.iter().find(|(name, _)| *name == "id");
    let room = room.map(|(_, room)| room.to_owned()).unwrap_or_default();
    let is_alone = request.extensions().get::<OneNode>().is_some();
    let others = context.nodes.as_ref().filter(|_| !is_alone);
    let Some(nodes) = others.filter(|_| !context.driver.with_hub(|hub, _, _| hub.has_room(&room)))
    else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, super::MAX_BODY).await else {
        let detail = "the body is over 64 KiB";
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).into_response();
    };
    let Ok(body) = String::from_utf8(body.into()) else {
        let detail = "the body is not UTF-8";
        return Problem::new(StatusCode::BAD_REQUEST, "invalid-body", detail).into_response();
    };
    let question = Question::of_operator(&parts.method, &parts.uri, body.clone());
    match nodes.others.ask_home(&room, question).await {
        // The answer is that of a box without the room.
        Home::Nowhere => next.run(Request::from_parts(parts, Body::from(body))).await,
        Home::There(reply) => match reply.answer.as_deref().and_then(Answer::read) {
            Some(answer) => answer.into_response(),
            None => {
                let detail = format!(
                    "the node {} has the room and does not answer: try again",
                    reply.node
                );
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-answer", detail).into_response()
            }
        },
        Home::Unknown(why) => no_redis(&why).into_response(),
    }
}

/// Middleware that has all nodes refuse a network, or refuse it no longer.
pub(super) async fn everywhere(
    State(context): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Response {
    let is_alone = request.extensions().get::<OneNode>().is_some();
    let is_read = request.method() == Method::GET;
    let nodes = context.nodes.as_ref().filter(|_| !is_alone && !is_read);
    let question = Question::of_operator(request.method(), request.uri(), String::new());
    let response = next.run(request).await;
    let Some(nodes) = nodes else {
        return response;
    };
    let (taken, partial) = ask(&nodes.others, question).await;
    let status = response.status();
    let is_refused = !status.is_success() && status != StatusCode::NOT_FOUND;
    if !partial.is_empty() && !is_refused {
        let silent = partial.join(", ");
        tracing::warn!("nodes that have not taken a change of /v1/denied yet: {silent}");
        return as_json(json!({ "partial": partial }).to_string());
    }
    match taken.is_empty() {
        true => response,
        // What was not added here was added at another node.
        false => StatusCode::NO_CONTENT.into_response(),
    }
}

pub(super) fn no_redis(why: &str) -> Problem {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "no-redis", format!("cluster.redis: {why}"))
}

/// Asks all other nodes: the texts of those that did it, and the names of those that gave no answer.
async fn ask(others: &Arc<dyn Others>, question: String) -> (Vec<String>, Vec<String>) {
    let (mut good, mut partial) = (vec![], vec![]);
    for reply in others.ask_all(question).await {
        match reply.answer.as_deref().and_then(Answer::read) {
            Some(answer) if answer.is_good() => good.extend(answer.text().map(str::to_owned)),
            Some(answer) if answer.is_absent() => {}
            _ => partial.push(reply.node),
        }
    }
    partial.sort_unstable();
    (good, partial)
}

/// What all other nodes answer to a `GET`, and the names of those that did not.
async fn get(context: &AppState, alone: &Alone, uri: &Uri) -> (Vec<String>, Vec<String>) {
    match context.nodes.as_ref().filter(|_| alone.is_none()) {
        Some(nodes) => {
            let question = Question::of_operator(&Method::GET, uri, String::new());
            let (texts, partial) = ask(&nodes.others, question).await;
            (texts, partial)
        }
        None => (vec![], vec![]),
    }
}

/// Has the others delete something; whether one of them had it.
pub(super) async fn delete(context: &AppState, alone: &Alone, uri: &Uri) -> bool {
    match context.nodes.as_ref().filter(|_| alone.is_none()) {
        Some(nodes) => {
            let question = Question::of_operator(&Method::DELETE, uri, String::new());
            !ask(&nodes.others, question).await.0.is_empty()
        }
        None => false,
    }
}

/// The rooms of all other nodes, as each lists its first ones, and who did not answer. The texts are those of `GET /v1/rooms`.
pub async fn rooms(others: Arc<dyn Others>) -> (Vec<String>, Vec<String>) {
    let question =
        Question::of_operator(&Method::GET, &Uri::from_static("/v1/rooms"), String::new());
    let (texts, partial) = ask(&others, question).await;
    (texts, partial)
}

/// Asks a node what it says of itself.
pub fn describe() -> String {
    Question::of_operator(&Method::GET, &Uri::from_static("/v1/nodes"), String::new())
}

/// Reads what a node has answered to [`describe`].
pub fn described(answer: &str) -> Option<Value> {
    let answer = Answer::read(answer).filter(Answer::is_good)?;
    serde_json::from_str(answer.text()?).ok()
}

/// A list of this node with those of the others, where there are some: its name, and what its items
/// are sorted by.
pub(super) async fn with_others(
    context: &AppState,
    alone: &Alone,
    uri: &Uri,
    body: String,
    (list, key): (&str, &str),
) -> Response {
    if alone.is_some() || context.nodes.is_none() {
        return as_json(body);
    }
    let (texts, partial) = get(context, alone, uri).await;
    let texts = std::iter::once(&body).chain(&texts);
    let parts = texts.filter_map(|text| Part::read(text, list, key));
    merged(parts.collect(), partial, list)
}

/// A list of one node, as its text holds it: items by the key that sorts them.
struct Part {
    items: Vec<(String, Box<RawValue>)>,
    next: Option<String>,
    is_truncated: bool,
}

impl Part {
    /// Reads a list: `list` is its name, `key` what its items are sorted by.
    fn read(text: &str, list: &str, key: &str) -> Option<Self> {
        let whole: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).ok()?;
        let items: Vec<Box<RawValue>> = serde_json::from_str(whole.get(list)?.get()).ok()?;
        let keyed = items.into_iter().map(|item| {
            let of: BTreeMap<&str, &RawValue> = serde_json::from_str(item.get()).ok()?;
            let key = serde_json::from_str(of.get(key)?.get()).ok()?;
            Some((key, item))
        });
        let next = whole
            .get("next")
            .and_then(|next| serde_json::from_str(next.get()).ok());
        let truncated = whole.get("truncated").map(|truncated| truncated.get());
        Some(Self {
            items: keyed.collect::<Option<_>>()?,
            next,
            is_truncated: truncated == Some("true"),
        })
    }
}

/// Puts the lists of all nodes together, this one's among them: in order, and no further than all of
/// them go.
fn merged(parts: Vec<Part>, partial: Vec<String>, list: &str) -> Response {
    let mut next = parts.iter().filter_map(|part| part.next.clone()).min();
    let is_truncated = parts.iter().any(|part| part.is_truncated);
    let mut items: Vec<_> = parts.into_iter().flat_map(|part| part.items).collect();
    items.sort_by(|a, b| a.0.cmp(&b.0));
    items.retain(|(key, _)| next.as_ref().is_none_or(|next| key < next));
    let (shown, rest) = super::paging::part(
        items.chunk_by(|a, b| a.0 == b.0),
        |same| same.iter().map(|(_, item)| item.get().len() + 1).sum(),
        super::paging::MAX_PART,
    );
    if let Some([(key, _), ..]) = rest {
        next = Some(key.clone());
    }
    let shown = shown.concat();
    let shown: Vec<_> = shown.iter().map(|(_, item)| item).collect();
    let mut answer = serde_json::Map::new();
    if let Some(next) = next {
        answer.insert("next".into(), next.into());
    }
    if list == "clients" {
        answer.insert("truncated".into(), is_truncated.into());
    }
    if !partial.is_empty() {
        answer.insert("partial".into(), partial.into());
    }
    let rest = Value::Object(answer).to_string();
    let shown = serde_json::to_string(&shown).unwrap_or_default();
    let comma = if rest == "{}" { "" } else { "," };
    as_json(format!("{{\"{list}\":{shown}{comma}{}", &rest[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part {
        Part::read(text, "rooms", "roomId").unwrap()
    }

    async fn text(parts: Vec<Part>, partial: &[&str]) -> String {
        let partial = partial.iter().map(|name| (*name).to_owned()).collect();
        let body = merged(parts, partial, "rooms").into_body();
        String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().into()).unwrap()
    }

    #[tokio::test]
    async fn lists_are_put_together_in_order_and_as_they_were_written() {
        let here = r#"{"rooms":[{"roomId":"a","metadata":{"n":1e400}},{"roomId":"d"}]}"#;
        let there = r#"{"rooms":[{"roomId":"b\u0041"}]}"#;
        assert_eq!(
            text(vec![part(here), part(there)], &["c"]).await,
            r#"{"rooms":[{"roomId":"a","metadata":{"n":1e400}},{"roomId":"b\u0041"},{"roomId":"d"}],"partial":["c"]}"#
        );
        assert_eq!(
            text(vec![part(r#"{"rooms":[]}"#)], &[]).await,
            r#"{"rooms":[]}"#
        );
    }

    #[tokio::test]
    async fn no_list_goes_further_than_all_of_its_parts() {
        let here = r#"{"rooms":[{"roomId":"a"},{"roomId":"z"}]}"#;
        let there = r#"{"rooms":[{"roomId":"b"}],"next":"c"}"#;
        assert_eq!(
            text(vec![part(here), part(there)], &[]).await,
            r#"{"rooms":[{"roomId":"a"},{"roomId":"b"}],"next":"c"}"#
        );
    }
}
