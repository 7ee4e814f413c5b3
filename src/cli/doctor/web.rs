//! The box's web side as a client meets it: health, its clock, and a WebSocket session.

use super::dial::{self, BoxedStream, TIMEOUT};
use super::fault::Fault;
use super::url::BaseUrl;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, header};
use futures_util::{SinkExt, StreamExt};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Of a response only its first line is shown.
const MAX_BODY: usize = 64 * 1024;

/// Where the box's HTTP is, and how it is reached.
pub(super) struct Web {
    pub(super) base: BaseUrl,
    pub(super) address: SocketAddr,
    pub(super) trust: Arc<ClientConfig>,
}

/// A response: status, the box's clock, the body's first line.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) date: Option<SystemTime>,
    pub(super) line: String,
    body: Bytes,
}

impl Web {
    /// Asks for `path`; anything but 200 is a fault.
    pub(super) async fn get(&self, path: &str, token: Option<&str>) -> Result<Answer, Fault> {
        let answer = timeout(2 * TIMEOUT, self.get_without_timeout(path, token))
            .await
            .unwrap_or(Err(Fault::Silent))?;
        match answer.status {
            200 => Ok(answer),
            status => Err(Fault::Http(status, answer.line)),
        }
    }

    /// What `path` answers to a bearer, as JSON.
    pub(super) async fn json(&self, path: &str, token: &str) -> Result<Value, Fault> {
        let answer = self.get(path, Some(token)).await?;
        serde_json::from_slice(&answer.body).map_err(|_| Fault::Foreign)
    }

    /// Credentials without a session: for a box whose signaling fails.
    pub(super) async fn ice_servers(&self, token: Option<&str>) -> Result<Vec<Value>, Fault> {
        let answer = self.get("/v1/ice-servers", token).await?;
        let object: Value = serde_json::from_slice(&answer.body).map_err(|_| Fault::Foreign)?;
        Ok(ice_servers_of(&object))
    }

    async fn get_without_timeout(&self, path: &str, token: Option<&str>) -> Result<Answer, Fault> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Fault::Foreign)?;
        tokio::spawn(connection);
        let mut request = Request::get(path)
            .header(header::HOST, self.base.authority())
            .header(header::CONNECTION, "close");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Body::empty())
            .map_err(|error| Fault::Other(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|_| Fault::Foreign)?;
        let (head, body) = response.into_parts();
        let body = to_bytes(Body::new(body), MAX_BODY)
            .await
            .unwrap_or_default();
        let date = head.headers.get(header::DATE);
        Ok(Answer {
            status: head.status.as_u16(),
            date: date
                .and_then(|date| date.to_str().ok())
                .and_then(|date| httpdate::parse_http_date(date).ok()),
            line: first_line(&body),
            body,
        })
    }

    async fn connect(&self) -> Result<BoxedStream, Fault> {
        let tls = self
            .base
            .tls
            .then_some((&self.trust, self.base.host.as_str()));
        dial::connect(self.address, tls).await
    }

    /// Joins a room of its own; where the token opens other rooms only, registers instead.
    /// The credentials handed out live as long as the session does.
    pub(super) async fn join(&self, token: Option<&str>) -> Result<Session, Fault> {
        timeout(2 * TIMEOUT, self.join_without_timeout(token))
            .await
            .unwrap_or(Err(Fault::Silent))
    }

    async fn join_without_timeout(&self, token: Option<&str>) -> Result<Session, Fault> {
        let stream = self.connect().await?;
        let scheme = if self.base.tls { "wss" } else { "ws" };
        let request = format!("{scheme}://{}/ws", self.base.authority())
            .into_client_request()
            .map_err(|error| Fault::Other(error.to_string()))?;
        let (socket, _) = client_async(request, stream).await?;
        let mut session = Session {
            socket,
            ice_servers: vec![],
        };
        let room = format!("doctor-{:016x}", rand::random::<u64>());
        let mut message = json!({"type": "join", "roomId": room, "identity": "doctor"});
        if let Some(token) = token {
            message["token"] = token.into();
        }
        let reply = match session.request(message.clone()).await {
            Err(Fault::Signaling(code, _)) if code == "forbidden" => {
                message["type"] = "register".into();
                session.request(message).await?
            }
            other => other?,
        };
        session.ice_servers = ice_servers_of(&reply);
        Ok(session)
    }
}

/// A joined WebSocket.
pub(super) struct Session {
    socket: WebSocketStream<BoxedStream>,
    /// As they were handed out.
    pub(super) ice_servers: Vec<Value>,
}

impl Session {
    /// Says goodbye, so that the box need not wait out the resume window.
    pub(super) async fn leave(mut self) {
        let _ = self.request(json!({"type": "leave"})).await;
        let _ = timeout(TIMEOUT, self.socket.close(None)).await;
    }

    async fn request(&mut self, mut message: Value) -> Result<Value, Fault> {
        let id = format!("{:08x}", rand::random::<u32>());
        message["id"] = id.clone().into();
        self.socket.send(Message::text(message.to_string())).await?;
        loop {
            let frame = timeout(TIMEOUT, self.socket.next())
                .await
                .map_err(|_| Fault::Other("the WebSocket opens, and nothing answers on it".into()))?
                .ok_or(Fault::Foreign)??;
            let Message::Text(text) = frame else { continue };
            let reply: Value = serde_json::from_str(&text).map_err(|_| Fault::Foreign)?;
            if reply["id"] == id.as_str() {
                return match reply["type"].as_str() {
                    Some("error") => Err(Fault::Signaling(
                        text_of(&reply["code"]),
                        text_of(&reply["message"]),
                    )),
                    _ => Ok(reply),
                };
            }
        }
    }
}

fn ice_servers_of(object: &Value) -> Vec<Value> {
    object["iceServers"].as_array().cloned().unwrap_or_default()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default();
    let problem: Option<Value> = serde_json::from_str(line).ok();
    match problem
        .as_ref()
        .and_then(|problem| problem["detail"].as_str())
    {
        Some(detail) => detail.to_owned(),
        None => line.chars().take(120).collect(),
    }
}

impl From<WsError> for Fault {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                Self::Http(response.status().as_u16(), first_line(body))
            }
            WsError::Io(error) => error.into(),
            WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Protocol(_) => {
                Self::Foreign
            }
            other => Self::Other(other.to_string()),
        }
    }
}
