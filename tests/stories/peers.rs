//! Peers of the `webrtc` crate, signaled through the box.

use crate::connection::{Connection, News, Outcome};
use crate::harness::Client;
use serde_json::{Value, json};
use webrtc::api::setting_engine::SettingEngine;
use webrtc::ice_transport::ice_candidate::RTCIceCandidateInit;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::policy::ice_transport_policy::RTCIceTransportPolicy;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;

/// One peer: a signaling connection and a peer connection under policy `relay`.
pub struct Peer {
    pub client: Client,
    pub connection: Connection,
    /// Candidates that came before the description they belong to.
    early: Vec<RTCIceCandidateInit>,
}

impl Peer {
    /// Makes a peer with the `iceServers` of its `joined` reply.
    pub async fn new(client: Client, ice_servers: &Value) -> Self {
        let mut settings = SettingEngine::default();
        settings.set_include_loopback_candidate(true);
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
        Self {
            client,
            connection: Connection::new(settings, configuration).await,
            early: vec![],
        }
    }

    /// Offers a data channel to the room.
    pub async fn offer(&mut self) {
        let offer = self.connection.offer().await;
        self.client
            .send(json!({"type": "offer", "sdp": offer}))
            .await;
    }

    /// Signals until the data channel is open, or the attempt failed.
    pub async fn connect(&mut self) -> Outcome {
        loop {
            tokio::select! {
                message = self.client.recv() => self.signal(message).await,
                news = self.connection.news() => match news {
                    News::Candidate(candidate) => {
                        self.client.send(json!({"type": "candidate", "candidate": candidate})).await;
                    }
                    News::Ended(outcome) => return outcome,
                },
            }
        }
    }

    async fn signal(&mut self, message: Value) {
        let rtc = &self.connection.rtc;
        match message["type"].as_str().unwrap() {
            kind @ ("offer" | "answer") => {
                let description: RTCSessionDescription =
                    serde_json::from_value(message["sdp"].clone()).unwrap();
                rtc.set_remote_description(description).await.unwrap();
                for candidate in std::mem::take(&mut self.early) {
                    rtc.add_ice_candidate(candidate).await.unwrap();
                }
                if kind == "offer" {
                    let answer = self.connection.answer().await;
                    self.client
                        .send(json!({"type": "answer", "sdp": answer}))
                        .await;
                }
            }
            "candidate" if !message["candidate"].is_null() => {
                let candidate: RTCIceCandidateInit =
                    serde_json::from_value(message["candidate"].clone()).unwrap();
                if rtc.remote_description().await.is_some() {
                    rtc.add_ice_candidate(candidate).await.unwrap();
                } else {
                    self.early.push(candidate);
                }
            }
            _ => {}
        }
    }

    pub async fn close(self) {
        self.connection.rtc.close().await.unwrap();
    }
}

fn ice_server(server: &Value) -> RTCIceServer {
    let text = |field: &str| server[field].as_str().unwrap_or_default().to_owned();
    RTCIceServer {
        urls: serde_json::from_value(server["urls"].clone()).unwrap(),
        username: text("username"),
        credential: text("credential"),
    }
}
