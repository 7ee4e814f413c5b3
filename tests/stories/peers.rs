//! Peers of the `webrtc` crate, signaled through the box.

use crate::harness::{Client, PATIENCE};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use webrtc::api::APIBuilder;
use webrtc::api::setting_engine::SettingEngine;
use webrtc::data_channel::RTCDataChannel;
use webrtc::ice_transport::ice_candidate::{RTCIceCandidate, RTCIceCandidateInit};
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::policy::ice_transport_policy::RTCIceTransportPolicy;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;

/// What happens to a peer beside signaling.
enum News {
    Candidate(Option<RTCIceCandidate>),
    State(RTCPeerConnectionState),
    Opened(Arc<RTCDataChannel>),
    Received(Bytes),
}

/// One peer: a signaling connection and a peer connection under policy `relay`.
pub struct Peer {
    pub client: Client,
    connection: RTCPeerConnection,
    channel: Option<Arc<RTCDataChannel>>,
    sender: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
    /// Candidates that came before the description they belong to.
    early: Vec<RTCIceCandidateInit>,
}

/// How an attempt to connect ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Connected,
    Failed,
}

impl Peer {
    /// Makes a peer with the `iceServers` of its `joined` reply.
    pub async fn new(client: Client, ice_servers: &Value) -> Self {
        let mut settings = SettingEngine::default();
        settings.set_include_loopback_candidate(true);
        // A peer that finds no path is to say so soon: disconnected, failed, keepalive.
        settings.set_ice_timeouts(
            Some(Duration::from_secs(5)),
            Some(Duration::from_secs(2)),
            Some(Duration::from_millis(500)),
        );
        let configuration = RTCConfiguration {
            ice_servers: ice_servers
                .as_array()
                .unwrap()
                .iter()
                .map(ice_server)
                .collect(),
            ice_transport_policy: RTCIceTransportPolicy::Relay,
            ..RTCConfiguration::default()
        };
        // Two of rustls' providers are compiled in: ring by the peers, aws-lc by the box.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = APIBuilder::new().with_setting_engine(settings).build();
        let connection = api.new_peer_connection(configuration).await.unwrap();
        let (sender, news) = mpsc::unbounded_channel();
        let to = sender.clone();
        connection.on_ice_candidate(Box::new(move |candidate| {
            let _ = to.send(News::Candidate(candidate));
            Box::pin(async {})
        }));
        let to = sender.clone();
        connection.on_peer_connection_state_change(Box::new(move |state| {
            let _ = to.send(News::State(state));
            Box::pin(async {})
        }));
        let to = sender.clone();
        connection.on_data_channel(Box::new(move |channel| {
            watch(&channel, &to);
            Box::pin(async {})
        }));
        Self {
            client,
            connection,
            channel: None,
            sender,
            news,
            early: vec![],
        }
    }

    /// Offers a data channel to the room.
    pub async fn offer(&mut self) {
        let channel = self
            .connection
            .create_data_channel("data", None)
            .await
            .unwrap();
        watch(&channel, &self.sender);
        let offer = self.connection.create_offer(None).await.unwrap();
        self.connection
            .set_local_description(offer.clone())
            .await
            .unwrap();
        self.client
            .send(json!({"type": "offer", "sdp": offer}))
            .await;
    }

    /// Signals until the data channel is open, or the attempt failed.
    pub async fn connect(&mut self) -> Outcome {
        loop {
            tokio::select! {
                message = self.client.recv() => self.signal(message).await,
                news = self.news.recv() => match news.unwrap() {
                    News::Candidate(Some(candidate)) => {
                        let candidate = candidate.to_json().unwrap();
                        self.client.send(json!({"type": "candidate", "candidate": candidate})).await;
                    }
                    News::Candidate(None) => {
                        self.client.send(json!({"type": "candidate", "candidate": null})).await;
                    }
                    News::Opened(channel) => {
                        self.channel = Some(channel);
                        return Outcome::Connected;
                    }
                    News::State(RTCPeerConnectionState::Failed) => return Outcome::Failed,
                    News::State(_) | News::Received(_) => {}
                },
            }
        }
    }

    async fn signal(&mut self, message: Value) {
        match message["type"].as_str().unwrap() {
            kind @ ("offer" | "answer") => {
                let description: RTCSessionDescription =
                    serde_json::from_value(message["sdp"].clone()).unwrap();
                self.connection
                    .set_remote_description(description)
                    .await
                    .unwrap();
                for candidate in std::mem::take(&mut self.early) {
                    self.connection.add_ice_candidate(candidate).await.unwrap();
                }
                if kind == "offer" {
                    let answer = self.connection.create_answer(None).await.unwrap();
                    self.connection
                        .set_local_description(answer.clone())
                        .await
                        .unwrap();
                    self.client
                        .send(json!({"type": "answer", "sdp": answer}))
                        .await;
                }
            }
            "candidate" if !message["candidate"].is_null() => {
                let candidate: RTCIceCandidateInit =
                    serde_json::from_value(message["candidate"].clone()).unwrap();
                if self.connection.remote_description().await.is_some() {
                    self.connection.add_ice_candidate(candidate).await.unwrap();
                } else {
                    self.early.push(candidate);
                }
            }
            _ => {}
        }
    }

    /// Sends `data` and receives as many bytes as the other side sends: `data.len()` too.
    pub async fn exchange(&mut self, data: &[u8]) -> Vec<u8> {
        const MESSAGE: usize = 16 * 1024;
        let channel = Arc::clone(self.channel.as_ref().unwrap());
        let messages: Vec<Bytes> = data.chunks(MESSAGE).map(Bytes::copy_from_slice).collect();
        let send = async move {
            for message in messages {
                channel.send(&message).await.unwrap();
            }
        };
        let mut received = vec![];
        let receive = async {
            while received.len() < data.len() {
                let news = tokio::time::timeout(PATIENCE, self.news.recv()).await;
                if let News::Received(bytes) = news.expect("data flows").unwrap() {
                    received.extend_from_slice(&bytes);
                }
            }
        };
        tokio::join!(send, receive);
        received
    }

    /// The types of the selected local and remote candidates.
    pub async fn selected(&self) -> (RTCIceCandidateType, RTCIceCandidateType) {
        let transport = self.connection.sctp().transport();
        let pair = transport
            .ice_transport()
            .get_selected_candidate_pair()
            .await
            .unwrap();
        (pair.local.typ, pair.remote.typ)
    }

    pub async fn close(self) {
        self.connection.close().await.unwrap();
    }
}

fn watch(channel: &Arc<RTCDataChannel>, news: &mpsc::UnboundedSender<News>) {
    let (opened, to) = (Arc::clone(channel), news.clone());
    channel.on_open(Box::new(move || {
        let _ = to.send(News::Opened(opened));
        Box::pin(async {})
    }));
    let to = news.clone();
    channel.on_message(Box::new(move |message| {
        let _ = to.send(News::Received(message.data));
        Box::pin(async {})
    }));
}

fn ice_server(server: &Value) -> RTCIceServer {
    let text = |field: &str| server[field].as_str().unwrap_or_default().to_owned();
    RTCIceServer {
        urls: serde_json::from_value(server["urls"].clone()).unwrap(),
        username: text("username"),
        credential: text("credential"),
    }
}
