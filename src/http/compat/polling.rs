//! `/api/messages`: a tutorial's client that asks for messages again and again. A cookie that no
//! script sees names its connection.

use super::super::AppState;
use super::super::carried::{self, Carriage, Label};
use super::super::elsewhere::{self, COOKIE};
use super::super::guard::{ClientAddr, OverTls};
use super::super::json::as_json;
use super::super::problem::Problem;
use super::super::sessions::read_text;
use crate::compat::Foreign;
use crate::compat::tutorial::Tutorial;
use crate::protocol::{CloseCode, DialectKind};
use crate::signal::{Fetched, Incoming, Mailbox, Message};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a GET waits for messages.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// A client's connection, and the cookie for one that is new.
struct Session {
    id: String,
    mailbox: Arc<Mailbox>,
    is_new: bool,
    over_tls: bool,
}

/// `GET /api/messages`: the list of messages that wait, or the first that comes.
pub(super) async fn get(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let session = session(&context, client, &parts)?;
    let Ok(mut fetch) = session.mailbox.fetch(None) else {
        return Err(Problem::not_found());
    };
    let body = match timeout(MAX_WAIT, fetch.next()).await {
        Ok(Fetched::Messages(messages)) => {
            let text = |message: &Message| match message {
                Message::Text(text) => Some(text.clone()),
                Message::Binary(_) => None,
            };
            let texts: Vec<_> = messages.iter().filter_map(text).collect();
            format!("[{}]", texts.join(","))
        }
        Ok(Fetched::Ended(goodbye)) => {
            context.carried.polling.remove(&session.id);
            if goodbye.code == Some(CloseCode::Unauthorized as u16) {
                let detail = "the address needs a valid ?token=";
                return Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "unauthorized",
                    detail,
                ));
            }
            "[]".to_owned()
        }
        Ok(Fetched::Superseded) | Err(_) => "[]".to_owned(),
    };
    Ok(session.answer(as_json(body)))
}

/// `POST /api/messages`: one message.
pub(super) async fn post(
    State(context): State<Arc<AppState>>,
    Extension(ClientAddr(client)): Extension<ClientAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let session = session(&context, client, &parts)?;
    let request = Request::from_parts(parts, body);
    let text = read_text(request, context.sessions.max_frame).await?;
    if session.mailbox.put(Incoming::Text(&text)).await.is_err() {
        let detail = "the connection has ended: the next GET begins another one";
        return Err(Problem::new(StatusCode::GONE, "no-such-session", detail));
    }
    Ok(session.answer(StatusCode::ACCEPTED.into_response()))
}

/// The connection that the cookie names, or a new one.
fn session(context: &Arc<AppState>, client: IpAddr, parts: &Parts) -> Result<Session, Problem> {
    let polling = &context.carried.polling;
    let over_tls = (parts.extensions.get()).is_some_and(|OverTls(over_tls)| *over_tls);
    if let Some((id, mailbox)) = elsewhere::polling_cookie(parts)
        .and_then(|id| Some((id, polling.find(id).filter(|m| !m.is_closed())?)))
    {
        return Ok(Session {
            id: id.to_owned(),
            mailbox,
            is_new: false,
            over_tls,
        });
    }
    let id = elsewhere::id(context);
    let own = id.clone();
    let carriage = Carriage {
        dialect: Foreign::from(Tutorial::default()),
        kind: DialectKind::Tutorial,
        idle: context.idle,
        keeps: false,
        settings: context.sessions.clone(),
    };
    let mailbox = carried::begin(
        context,
        client,
        parts,
        carriage,
        |carried, mailbox| {
            mailbox.set_label(Label::Polling(id.clone()).to_text());
            carried.polling.insert(&id, Arc::clone(mailbox));
        },
        move |carried| carried.polling.remove(&own),
    )?;
    Ok(Session {
        id,
        mailbox,
        is_new: true,
        over_tls,
    })
}

impl Session {
    fn answer(&self, mut answer: Response) -> Response {
        let secure = if self.over_tls { "; Secure" } else { "" };
        let cookie = format!(
            "{COOKIE}={}; Path=/api/messages; HttpOnly; SameSite=Strict{secure}",
            self.id
        );
        if self.is_new
            && let Ok(cookie) = HeaderValue::from_str(&cookie)
        {
            answer.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        carried::leads_on(&self.mailbox, &mut answer);
        answer
    }
}
