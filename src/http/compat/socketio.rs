//! `/socket.io/`: Engine.IO by polling, by WebSocket, and from the one to the other.

use super::super::carried::{self, Carriage, Engine, EngineLabel, Label};
use super::super::elsewhere;
use super::super::guard::{ClientAddr, Held};
use super::super::problem::Problem;
use super::super::sessions::read_body;
use super::super::{AppState, access, ws};
use crate::compat::socketio::engine::{self, Revision};
use crate::compat::socketio::{Opening, PING_INTERVAL, PING_TIMEOUT, Profile, SocketIo};
use crate::network::network_of;
use crate::protocol::DialectKind;
use crate::signal::{ConnectionSettings, Fetched, Incoming, Message, Probe};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;
use tokio::time::timeout;

/// What is said while a client tries a WebSocket.
const PROBE: Probe = Probe {
    question: "2probe",
    answer: "3probe",
    moves: "5",
};
/// How long a client may take to move to a WebSocket.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body or frame of version 3, whose clients know no limit.
const MAX_BODY_V3: usize = 128 * 1024;

/// The client of Socket.IO that pages load from their server.
const CLIENT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/web/vendor/socket.io.js"
));
static CLIENT_TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(CLIENT);
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("\"{hex}\"")
});

/// Errors of Engine.IO: a number and a sentence, always 400.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Transport,
    Session,
    Method,
    Request,
    Version,
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let (code, message) = match self {
            Self::Transport => (0, "Transport unknown"),
            Self::Session => (1, "Session ID unknown"),
            Self::Method => (2, "Bad handshake method"),
            Self::Request => (3, "Bad request"),
            Self::Version => (5, "Unsupported protocol version"),
        };
        let body = json!({ "code": code, "message": message }).to_string();
        let mime = HeaderValue::from_static("application/json");
        (
            StatusCode::BAD_REQUEST,
            [(header::CONTENT_TYPE, mime)],
            body,
        )
            .into_response()
    }
}

/// `/socket.io/`.
pub(super) async fn handle(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let asked = |name| access::query(&parts, name);
    let revision = match asked("EIO").as_deref() {
        Some("4") => Revision::V4,
        None | Some("3") => Revision::V3,
        Some(_) => return Ok(Wrong::Version.into_response()),
    };
    if asked("j").is_some() {
        // JSONP, which runs what it is answered.
        return Ok(Wrong::Version.into_response());
    }
    let is_websocket = match asked("transport").as_deref() {
        Some("websocket") => true,
        Some("polling") => false,
        _ => return Ok(Wrong::Transport.into_response()),
    };
    let base64 = asked("b64").is_some_and(|b64| b64 != "0");
    let session = match asked("sid") {
        None => None,
        Some(sid) => match find(&context, &sid, revision, client) {
            Some(session) => Some(session),
            None => return Ok(Wrong::Session.into_response()),
        },
    };
    Ok(match (session, is_websocket, parts.method.clone()) {
        (None, true, Method::GET) => return open_websocket(&context, client, parts, revision),
        (None, false, Method::GET) => {
            return open_polling(&context, client, &parts, revision, base64).await;
        }
        (Some(session), true, Method::GET) => upgrade(&session, parts),
        (Some(session), false, Method::GET) => poll(&session).await,
        (Some(session), false, Method::POST) => {
            let max = settings(&context, revision).max_frame;
            post(&session, Request::from_parts(parts, body), max).await
        }
        _ => Wrong::Method.into_response(),
    })
}

/// How connections of the version are run.
pub(in crate::http) fn settings(context: &AppState, revision: Revision) -> ConnectionSettings {
    let mut settings = context.sessions.clone();
    if revision == Revision::V3 {
        settings.max_frame = settings.max_frame.max(MAX_BODY_V3);
    }
    settings
}

fn find(context: &AppState, sid: &str, revision: Revision, client: IpAddr) -> Option<Arc<Engine>> {
    let session = context.carried.engine.find(sid)?;
    let is_own = revision == Revision::V4 || session.network == network_of(client);
    (session.revision == revision && is_own).then_some(session)
}

/// What the connection is to be, by its query and the configuration.
fn opening(
    context: &AppState,
    parts: &Parts,
    revision: Revision,
    sid: Option<String>,
    upgrades: bool,
) -> Opening {
    let configured = context.compat.socketio.unwrap_or(Profile::Tutorial);
    let asked = match configured {
        Profile::Tutorial => None,
        _ => access::query(parts, "profile"),
    };
    Opening {
        revision,
        sid,
        upgrades,
        profile: asked
            .and_then(|name| Profile::named(&name))
            .unwrap_or(configured),
        max_payload: context.sessions.max_frame,
        address: announced(context),
        keeps_token: context.access.asks_for_tokens(),
    }
}

/// The host in the box's first ICE URL.
fn announced(context: &AppState) -> Option<Arc<str>> {
    let ice = context.ice.borrow();
    let url = ice.stun_urls.iter().chain(&ice.turn_urls).next()?;
    let (_, rest) = url.split_once(':')?;
    let address = rest.split('?').next()?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    Some(host.trim_matches(['[', ']']).into())
}

fn open_websocket(
    context: &Arc<AppState>,
    client: IpAddr,
    parts: Parts,
    revision: Revision,
) -> Result<Response, Problem> {
    let sid = (revision == Revision::V4).then(carried::secret);
    let dialect = SocketIo::new(opening(context, &parts, revision, sid, false));
    let offered = ws::subprotocol(&parts.headers);
    let settings = settings(context, revision);
    ws::upgrade_with(settings, client, parts, offered, || {
        let admission = context.driver.admit(client, DialectKind::SocketIo)?;
        Ok((crate::compat::Foreign::from(Box::new(dialect)), admission))
    })
}

async fn open_polling(
    context: &Arc<AppState>,
    client: IpAddr,
    parts: &Parts,
    revision: Revision,
    base64: bool,
) -> Result<Response, Problem> {
    let sid = (revision == Revision::V4).then(|| elsewhere::id(context));
    let dialect = SocketIo::new(opening(context, parts, revision, sid, true));
    let carriage = Carriage {
        dialect: crate::compat::Foreign::from(Box::new(dialect)),
        kind: DialectKind::SocketIo,
        idle: PING_INTERVAL + PING_TIMEOUT,
        keeps: false,
        settings: settings(context, revision),
    };
    let key = Arc::new(OnceLock::<String>::new());
    let own = Arc::clone(&key);
    let mailbox = carried::begin(
        context,
        client,
        parts,
        carriage,
        |_, _| {},
        move |carried| {
            if let Some(key) = own.get() {
                carried.engine.remove(key);
            }
        },
    )?;
    let Ok(mut fetch) = mailbox.fetch(None) else {
        return Ok(Wrong::Request.into_response());
    };
    // The first message is the open packet.
    let Fetched::Messages(messages) = fetch.next().await else {
        return Ok(Wrong::Request.into_response());
    };
    let sid = messages.first().and_then(sid_of).unwrap_or_default();
    let label = EngineLabel {
        revision,
        base64,
        network: network_of(client),
    };
    let session = Arc::new(Engine::new(Arc::clone(&mailbox), label));
    let answer = packets(&session, &messages);
    mailbox.set_label(Label::Engine(sid.clone(), label).to_text());
    context.carried.engine.insert(&sid, session);
    let _ = key.set(sid.clone());
    if mailbox.is_closed() {
        context.carried.engine.remove(&sid);
    }
    Ok(answer)
}

/// The session that an open packet names.
fn sid_of(message: &Message) -> Option<String> {
    let Message::Text(text) = message else {
        return None;
    };
    let open: Value = serde_json::from_str(text.strip_prefix('0')?).ok()?;
    Some(open["sid"].as_str()?.to_owned())
}

fn packets(session: &Engine, messages: &[Message]) -> Response {
    let mut answer = body_of(session, messages);
    carried::leads_on(&session.mailbox, &mut answer);
    answer
}

fn body_of(session: &Engine, messages: &[Message]) -> Response {
    let (is_binary, body) = engine::write(session.revision, session.base64, messages);
    let mime = match is_binary {
        true => "application/octet-stream",
        false => "text/plain; charset=UTF-8",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(mime)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

/// A flag that is set while a request of its kind is there.
struct Only<'a>(&'a AtomicBool);

impl<'a> Only<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        // One that is not the first must not be made: its end would clear the flag of the first.
        let is_first = !flag.swap(true, Ordering::AcqRel);
        is_first.then(|| Self(flag))
    }
}

impl Drop for Only<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A GET that waits for packets, at most until the next ping is due.
async fn poll(session: &Engine) -> Response {
    let mailbox = &session.mailbox;
    let Some(_only) = Only::take(&session.is_polled) else {
        mailbox.close();
        return Wrong::Request.into_response();
    };
    if mailbox.is_upgraded() {
        return Wrong::Request.into_response();
    }
    let Ok(mut fetch) = mailbox.fetch(None) else {
        return Wrong::Request.into_response();
    };
    match timeout(PING_INTERVAL, fetch.next()).await {
        Ok(Fetched::Messages(messages)) => packets(session, &messages),
        Ok(Fetched::Ended(_)) => Wrong::Session.into_response(),
        Ok(Fetched::Superseded) | Err(_) => packets(session, &[Message::Text("6".to_owned())]),
    }
}

async fn post(session: &Engine, request: Request, max: usize) -> Response {
    let mailbox = &session.mailbox;
    let Some(_only) = Only::take(&session.is_posted) else {
        mailbox.close();
        return Wrong::Request.into_response();
    };
    if mailbox.is_upgraded() {
        return Wrong::Request.into_response();
    }
    let mime = request.headers().get(header::CONTENT_TYPE);
    let is_binary = mime.is_some_and(|mime| mime.as_bytes() == b"application/octet-stream");
    let body = match read_body(request, max).await {
        Ok(body) => body,
        Err(problem) => {
            mailbox.close();
            return problem.into_response();
        }
    };
    let Ok(messages) = engine::read(session.revision, is_binary, &body) else {
        mailbox.close();
        return Wrong::Request.into_response();
    };
    for message in &messages {
        let message = match message {
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(bytes) => Incoming::Binary(bytes),
        };
        if mailbox.put(message).await.is_err() {
            return Wrong::Session.into_response();
        }
    }
    let mime = HeaderValue::from_static("text/html");
    ([(header::CONTENT_TYPE, mime)], "ok").into_response()
}

/// A WebSocket that is to take over from polling.
fn upgrade(session: &Arc<Engine>, mut parts: Parts) -> Response {
    if session.mailbox.is_upgraded() {
        return Wrong::Request.into_response();
    }
    let held = Held::of(&mut parts);
    let offered = ws::subprotocol(&parts.headers);
    let (answer, socket) = match ws::accept(&mut parts, offered) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let mailbox = Arc::clone(&session.mailbox);
    tokio::spawn(async move {
        let Ok(socket) = socket.await else { return };
        // A GET that waits is let go: the client moves once it has its answer.
        let answered = || mailbox.slip(Message::Text("6".to_owned()));
        let adopted = mailbox.adopt(Box::new(socket), PROBE, answered, Box::new(held));
        let _ = timeout(UPGRADE_TIMEOUT, adopted).await;
    });
    answer
}

/// `GET /socket.io/socket.io.js`.
pub(super) async fn client(headers: HeaderMap) -> Response {
    let tag = HeaderValue::from_str(&CLIENT_TAG).unwrap_or(HeaderValue::from_static("\"4\""));
    let common = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let mime = HeaderValue::from_static("text/javascript; charset=utf-8");
    (common, [(header::CONTENT_TYPE, mime)], CLIENT).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_of_a_kind_leaves_the_first_alone() {
        let flag = AtomicBool::new(false);
        let first = Only::take(&flag);
        assert!(first.is_some());
        assert!(Only::take(&flag).is_none());
        assert!(Only::take(&flag).is_none(), "the first is still there");
        drop(first);
        assert!(Only::take(&flag).is_some());
    }
}
