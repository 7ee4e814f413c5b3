//! A peer's signaling: the box's own WebSocket protocol, with `resume` after a break.

use callbox::cli::reach::{BoxUrl, Socket};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// How long the box may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Messages that came while an answer was waited for; the other peer sends a few dozen.
const MAX_EARLY: usize = 1_024;

/// Where a peer meets the other one.
#[derive(Clone)]
pub struct Room {
    /// The box.
    pub url: BoxUrl,
    /// Its address.
    pub address: SocketAddr,
    /// The room's name.
    pub name: String,
    /// What lets the peer in, where the box asks for it.
    pub token: Option<String>,
    /// The peer's name.
    pub identity: &'static str,
}

/// A peer's place in a room.
pub struct Session {
    socket: Socket,
    room: Room,
    /// The last frame's number, and what brings the session back.
    seq: u64,
    resume_token: String,
    early: VecDeque<Value>,
    /// As the box handed them out.
    pub ice_servers: Value,
    /// The box hands out relays only.
    pub relay_only: bool,
    /// The other peer was in the room before.
    pub is_second: bool,
}

impl Session {
    /// Joins.
    ///
    /// # Errors
    /// A phrase that says what failed.
    pub async fn join(room: Room) -> Result<Self, String> {
        let socket = room.url.websocket(room.address).await?;
        let mut session = Self {
            socket,
            room,
            seq: 0,
            resume_token: String::new(),
            early: VecDeque::new(),
            ice_servers: Value::Null,
            relay_only: false,
            is_second: false,
        };
        session.enter().await?;
        Ok(session)
    }

    async fn enter(&mut self) -> Result<(), String> {
        let Room {
            name,
            token,
            identity,
            ..
        } = &self.room;
        let mut message = json!({"type": "join", "roomId": name, "identity": identity});
        if let Some(token) = token {
            message["token"] = token.as_str().into();
        }
        let joined = self.request(message).await?;
        self.take(&joined);
        let others = joined["peers"].as_array();
        self.is_second = others.is_some_and(|peers| !peers.is_empty());
        Ok(())
    }

    /// Connects anew, and resumes the session; where the box has forgotten it, joins again.
    ///
    /// # Errors
    /// A phrase that says what failed.
    pub async fn reconnect(&mut self) -> Result<(), String> {
        self.socket = self.room.url.websocket(self.room.address).await?;
        let resume = json!({"type": "resume", "resumeToken": self.resume_token, "seq": self.seq});
        match self.request(resume).await {
            Ok(resumed) => {
                self.take(&resumed);
                Ok(())
            }
            Err(_) => {
                self.seq = 0;
                self.enter().await
            }
        }
    }

    fn take(&mut self, reply: &Value) {
        self.ice_servers = reply["iceServers"].clone();
        self.relay_only = reply["iceTransportPolicy"] == "relay";
        if let Some(token) = reply["resumeToken"].as_str() {
            self.resume_token = token.to_owned();
        }
    }

    /// Sends to the other peer.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(&mut self, message: Value) -> Result<(), String> {
        let sent = self.socket.send(Message::text(message.to_string())).await;
        sent.map_err(|error| format!("the WebSocket broke: {error}"))
    }

    /// The next message. Cancelled, it loses nothing.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn receive(&mut self) -> Result<Value, String> {
        if let Some(message) = self.early.pop_front() {
            return Ok(message);
        }
        self.read().await
    }

    /// Leaves, as far as the network lets it.
    pub async fn leave(mut self) {
        let _ = self.send(json!({"type": "leave"})).await;
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }

    async fn read(&mut self) -> Result<Value, String> {
        loop {
            let frame = self.socket.next().await.ok_or("the WebSocket was closed")?;
            let frame = frame.map_err(|error| format!("the WebSocket broke: {error}"))?;
            let Message::Text(text) = frame else { continue };
            let message: Value =
                serde_json::from_str(&text).map_err(|error| format!("bad JSON: {error}"))?;
            if let Some(seq) = message["seq"].as_u64() {
                self.seq = seq;
            }
            return Ok(message);
        }
    }

    async fn request(&mut self, mut message: Value) -> Result<Value, String> {
        let id = format!("{:016x}", rand::random::<u64>());
        message["id"] = id.as_str().into();
        let answer = async {
            self.send(message).await?;
            loop {
                let reply = self.read().await?;
                if reply["id"] != id.as_str() {
                    if self.early.len() < MAX_EARLY {
                        self.early.push_back(reply);
                    }
                    continue;
                }
                return match reply["type"].as_str() {
                    Some("error") => Err(format!(
                        "the box answered {}: {}",
                        reply["code"].as_str().unwrap_or_default(),
                        reply["message"].as_str().unwrap_or_default()
                    )),
                    _ => Ok(reply),
                };
            }
        };
        let answer = timeout(ANSWER_WITHIN, answer).await;
        answer.unwrap_or_else(|_| Err("the WebSocket opens, and nothing answers on it".into()))
    }
}
