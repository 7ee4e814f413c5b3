//! A callbox client in Rust: joins a room, connects to everybody in it, greets, echoes what comes by data
//! channel, and echoes messages.
//!
//! Needs what `session.rs` needs, and webrtc 0.17. A `main` of yours calls [`run`]; `said` gets what
//! happens, in words.

mod session;

use serde_json::{Value, json};
use session::Session;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;
use webrtc::api::APIBuilder;
use webrtc::api::setting_engine::SettingEngine;
use webrtc::data_channel::RTCDataChannel;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc::peer_connection::signaling_state::RTCSignalingState;

type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

struct Client {
    out: UnboundedSender<Value>,
    said: UnboundedSender<String>,
    own: String,
    servers: Vec<RTCIceServer>,
    peers: HashMap<String, Arc<RTCPeerConnection>>,
}

/// Joins `room` and stays, over lost connections; returns why it ended.
pub async fn run(
    url: &str,
    room: &str,
    name: &str,
    token: Option<String>,
    said: UnboundedSender<String>,
) -> String {
    let mut session = Session::new(url, room, name, move || token.clone());
    let mut client = Client {
        out: session.out.clone(),
        said,
        own: String::new(),
        servers: vec![],
        peers: HashMap::new(),
    };
    loop {
        match session.next().await {
            Err(why) => return why,
            // What a peer wrote may be anything: it costs a connection at most, and not the session.
            Ok(frame) => match client.receive(&frame).await {
                Ok(()) => {}
                Err(error) => client.tell(format!("dropped: {error}")),
            },
        }
    }
}

impl Client {
    async fn receive(&mut self, frame: &Value) -> Done {
        let from = frame["from"].as_str().unwrap_or_default();
        let kind = frame["type"].as_str().unwrap_or_default();
        match kind {
            "joined" | "resumed" => {
                self.servers = servers_of(frame);
                self.own = text(&frame["peerId"]);
                self.tell(kind.to_owned());
                // The newcomer offers to each peer of its list; so does who missed something.
                if kind == "joined" || frame["gap"] == true {
                    for (_, pc) in self.peers.drain() {
                        pc.close().await?;
                    }
                    for peer in list(&frame["peers"]) {
                        self.offer(&text(&peer["peerId"])).await?;
                    }
                }
            }
            "ice-servers" => self.servers = servers_of(frame),
            "offer" => {
                let offer = RTCSessionDescription::offer(sdp_of(frame))?;
                if let Some(pc) = self.peers.get(from) {
                    let both = pc.signaling_state() == RTCSignalingState::HaveLocalOffer;
                    if both && *self.own > *from {
                        // Both have offered: that of the smaller peer id gives way.
                        return Ok(());
                    }
                    let before = pc.remote_description().await;
                    let is_other =
                        before.is_some_and(|one| certificate(&one.sdp) != certificate(&offer.sdp));
                    if both || is_other {
                        // Another certificate comes from a new peer connection.
                        self.hang_up(from).await?;
                    }
                }
                let pc = self.connect(from).await?;
                pc.set_remote_description(offer).await?;
                let answer = pc.create_answer(None).await?;
                // The description goes first: candidates begin to come with the next step.
                self.say(json!({"type": "answer", "to": from, "sdp": answer.sdp}));
                pc.set_local_description(answer).await?;
            }
            "answer" => {
                if let Some(pc) = self.peers.get(from) {
                    let answer = RTCSessionDescription::answer(sdp_of(frame))?;
                    pc.set_remote_description(answer).await?;
                }
            }
            "candidate" => {
                // A candidate is a string, or an object with one; null is the end of them.
                let candidate = match &frame["candidate"] {
                    Value::String(text) => json!({"candidate": text, "sdpMLineIndex": 0}),
                    other => other.clone(),
                };
                if let (Some(pc), true) = (self.peers.get(from), candidate.is_object()) {
                    pc.add_ice_candidate(serde_json::from_value(candidate)?)
                        .await?;
                }
            }
            "peer-left" => self.hang_up(&text(&frame["peerId"])).await?,
            "message" if frame["content"].get("echo").is_none() => {
                self.say(
                    json!({"type": "message", "to": from, "content": {"echo": frame["content"]}}),
                );
            }
            "error" => self.tell(format!("error {}: {}", frame["code"], frame["message"])),
            _ => {}
        }
        Ok(())
    }

    async fn hang_up(&mut self, peer: &str) -> Done {
        if let Some(pc) = self.peers.remove(peer) {
            pc.close().await?;
        }
        Ok(())
    }

    async fn offer(&mut self, peer: &str) -> Done {
        let pc = self.connect(peer).await?;
        let channel = pc.create_data_channel("rust", None).await?;
        let (greeting, said) = (Arc::clone(&channel), self.said.clone());
        channel.on_open(Box::new(move || {
            Box::pin(async move {
                let _ = greeting.send_text("hello").await;
            })
        }));
        channel.on_message(Box::new(move |message| {
            let _ = said.send(format!(
                "received {}",
                String::from_utf8_lossy(&message.data)
            ));
            Box::pin(async {})
        }));
        let offer = pc.create_offer(None).await?;
        self.say(json!({"type": "offer", "to": peer, "sdp": offer.sdp}));
        pc.set_local_description(offer).await?;
        Ok(())
    }

    /// The connection to a peer; an offer on one that is there already renegotiates it.
    async fn connect(&mut self, peer: &str) -> Done<Arc<RTCPeerConnection>> {
        if let Some(pc) = self.peers.get(peer) {
            return Ok(Arc::clone(pc));
        }
        let mut settings = SettingEngine::default();
        settings.set_include_loopback_candidate(true);
        let api = APIBuilder::new().with_setting_engine(settings).build();
        let config = RTCConfiguration {
            ice_servers: self.servers.clone(),
            ..Default::default()
        };
        let pc = Arc::new(api.new_peer_connection(config).await?);
        let (out, to) = (self.out.clone(), peer.to_owned());
        pc.on_ice_candidate(Box::new(move |candidate| {
            if let Some(Ok(candidate)) = candidate.map(|candidate| candidate.to_json()) {
                let _ = out.send(json!({"type": "candidate", "to": to, "candidate": candidate}));
            }
            Box::pin(async {})
        }));
        pc.on_data_channel(Box::new(|channel| {
            echo(&channel);
            Box::pin(async {})
        }));
        self.peers.insert(peer.to_owned(), Arc::clone(&pc));
        Ok(pc)
    }

    fn say(&self, message: Value) {
        let _ = self.out.send(message);
    }

    fn tell(&self, words: String) {
        let _ = self.said.send(words);
    }
}

fn echo(channel: &Arc<RTCDataChannel>) {
    let back = Arc::clone(channel);
    channel.on_message(Box::new(move |message| {
        let back = Arc::clone(&back);
        Box::pin(async move {
            let _ = match message.is_string {
                true => {
                    let text = String::from_utf8_lossy(&message.data).into_owned();
                    back.send_text(text).await
                }
                false => back.send(&message.data).await,
            };
        })
    }));
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn servers_of(frame: &Value) -> Vec<RTCIceServer> {
    let of = |server: &Value| RTCIceServer {
        urls: list(&server["urls"]).iter().map(text).collect(),
        username: text(&server["username"]),
        credential: text(&server["credential"]),
    };
    list(&frame["iceServers"]).iter().map(of).collect()
}

/// A description is a string, or an object with one.
fn sdp_of(frame: &Value) -> String {
    let sdp = frame["sdp"].as_str().or(frame["sdp"]["sdp"].as_str());
    sdp.unwrap_or_default().to_owned()
}

fn certificate(sdp: &str) -> Option<&str> {
    sdp.lines().find(|line| line.starts_with("a=fingerprint:"))
}
