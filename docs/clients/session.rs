//! A session with a callbox: joins a room, resumes after a lost connection, and joins anew where nothing
//! is left to resume. Needs futures-util, serde_json, tokio and tokio-tungstenite.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// After these close codes a client does not come back by itself.
const FINAL: [u16; 5] = [1000, 4001, 4002, 4004, 4007];
/// The box pings every 25 seconds: a connection that is silent for longer than this is gone.
const SILENT: Duration = Duration::from_secs(60);

/// Call [`Session::next`] over and over; what goes into `out` is sent.
pub struct Session {
    url: String,
    join: Value,
    token: Box<dyn Fn() -> Option<String> + Send>,
    /// Requests, from callbacks too.
    pub out: UnboundedSender<Value>,
    outgoing: UnboundedReceiver<Value>,
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    /// The connection has the session: the box takes requests.
    entered: bool,
    entering: Value,
    resume_token: Option<Value>,
    seq: u64,
    last_id: u64,
    unanswered: BTreeMap<u64, Value>,
    attempts: u32,
}

impl Session {
    /// `token` is asked for a token before each join.
    pub fn new(
        url: &str,
        room: &str,
        name: &str,
        token: impl Fn() -> Option<String> + Send + 'static,
    ) -> Self {
        let (out, outgoing) = unbounded_channel();
        Self {
            url: url.to_owned(),
            join: json!({"type": "join", "roomId": room, "identity": name}),
            token: Box::new(token),
            out,
            outgoing,
            socket: None,
            entered: false,
            entering: Value::Null,
            resume_token: None,
            seq: 0,
            last_id: 0,
            unanswered: BTreeMap::new(),
            attempts: 0,
        }
    }

    /// The next frame of the box. A lost connection is replaced meanwhile; the error says why the session cannot go on.
    pub async fn next(&mut self) -> Result<Value, String> {
        loop {
            let Some(socket) = &mut self.socket else {
                match connect_async(&self.url).await {
                    Ok((socket, _)) => {
                        self.socket = Some(socket);
                        self.enter().await;
                    }
                    Err(_) => self.lost(1006).await?,
                }
                continue;
            };
            let frame = tokio::select! {
                Some(request) = self.outgoing.recv(), if self.entered => {
                    self.ask(request).await;
                    continue;
                }
                frame = timeout(SILENT, socket.next()) => frame,
            };
            match frame {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let frame = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                    self.take(&frame).await?;
                    return Ok(frame);
                }
                Ok(Some(Ok(Message::Close(close)))) => {
                    self.lost(close.map_or(1006, |close| close.code.into()))
                        .await?;
                }
                // The library answers pings by itself.
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) | Err(_) => self.lost(1006).await?,
            }
        }
    }

    async fn take(&mut self, frame: &Value) -> Result<(), String> {
        let id = frame["id"].as_str().and_then(|id| id.parse().ok());
        self.unanswered.remove(&id.unwrap_or_default());
        match frame["type"].as_str().unwrap_or_default() {
            kind @ ("joined" | "resumed") => {
                if kind == "joined" {
                    self.seq = 0;
                    self.unanswered.clear();
                }
                self.resume_token = Some(frame["resumeToken"].clone());
                (self.entered, self.attempts) = (true, 0);
                for request in self.unanswered.clone().values() {
                    self.write(request).await;
                }
            }
            "error" if frame["id"] == self.entering => {
                if frame["code"] == "resume-failed" {
                    self.resume_token = None;
                } else if let Some(ms) = frame["retryAfter"].as_u64() {
                    sleep(Duration::from_millis(ms)).await;
                } else {
                    return Err(format!("{}: {}", frame["code"], frame["message"]));
                }
                self.enter().await;
            }
            _ => {}
        }
        self.seq = self.seq.max(frame["seq"].as_u64().unwrap_or_default());
        Ok(())
    }

    async fn enter(&mut self) {
        let mut request = match &self.resume_token {
            Some(token) => json!({"type": "resume", "resumeToken": token, "seq": self.seq}),
            None => self.join.clone(),
        };
        if let (None, Some(token)) = (&self.resume_token, (self.token)()) {
            request["token"] = token.into();
        }
        self.last_id += 1;
        self.entering = self.last_id.to_string().into();
        request["id"] = self.entering.clone();
        self.write(&request).await;
    }

    /// Sends a request; `take` does so once more if the connection is lost before its answer.
    async fn ask(&mut self, mut request: Value) {
        self.last_id += 1;
        request["id"] = self.last_id.to_string().into();
        self.write(&request).await;
        self.unanswered.insert(self.last_id, request);
    }

    /// A connection that fails here says so when it is read.
    async fn write(&mut self, request: &Value) {
        if let Some(socket) = &mut self.socket {
            let _ = socket.send(Message::text(request.to_string())).await;
        }
    }

    async fn lost(&mut self, code: u16) -> Result<(), String> {
        (self.socket, self.entered) = (None, false);
        if FINAL.contains(&code) {
            return Err(format!("closed {code}"));
        }
        // 1012: the box has another place for the session, at once.
        if code != 1012 || self.attempts > 0 {
            let jitter = 50 + u64::from(std::process::id() % 50);
            let ms = (200 << self.attempts.min(6)).min(10_000);
            sleep(Duration::from_millis(ms * jitter / 100)).await;
        }
        self.attempts += 1;
        Ok(())
    }
}
