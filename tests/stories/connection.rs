//! One peer connection of the `webrtc` crate with one data channel; who signals is not its
//! business.

use crate::harness::TIMEOUT;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc::api::APIBuilder;
use webrtc::api::setting_engine::SettingEngine;
use webrtc::data_channel::RTCDataChannel;
use webrtc::ice_transport::ice_candidate::RTCIceCandidateInit;
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Connected,
    Failed,
}

/// What the other side has to know, or how the attempt ended.
pub enum News {
    /// `None` is the end of candidates.
    Candidate(Option<RTCIceCandidateInit>),
    Ended(Outcome),
}

enum Happening {
    News(News),
    Opened(Arc<RTCDataChannel>),
    Received(Bytes),
}

type Sender = mpsc::UnboundedSender<Happening>;

pub struct Connection {
    pub rtc: RTCPeerConnection,
    channel: Option<Arc<RTCDataChannel>>,
    sender: Sender,
    happenings: mpsc::UnboundedReceiver<Happening>,
}

impl Connection {
    /// `settings` apart from timeouts, which are short here.
    pub async fn new(mut settings: SettingEngine, configuration: RTCConfiguration) -> Self {
        // A peer that finds no path is to say so soon: disconnected, failed, keepalive.
        settings.set_ice_timeouts(
            Some(Duration::from_secs(5)),
            Some(Duration::from_secs(2)),
            Some(Duration::from_millis(500)),
        );
        // Two of rustls' providers are compiled in: ring by the peers, aws-lc by the box.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = APIBuilder::new().with_setting_engine(settings).build();
        let rtc = api.new_peer_connection(configuration).await.unwrap();
        let (sender, happenings) = mpsc::unbounded_channel();
        let to = sender.clone();
        rtc.on_ice_candidate(Box::new(move |candidate| {
            let candidate = candidate.map(|candidate| candidate.to_json().unwrap());
            tell(&to, Happening::News(News::Candidate(candidate)));
            Box::pin(async {})
        }));
        let to = sender.clone();
        rtc.on_peer_connection_state_change(Box::new(move |state| {
            if state == RTCPeerConnectionState::Failed {
                tell(&to, Happening::News(News::Ended(Outcome::Failed)));
            }
            Box::pin(async {})
        }));
        let to = sender.clone();
        rtc.on_data_channel(Box::new(move |channel| {
            watch(&channel, &to);
            Box::pin(async {})
        }));
        Self {
            rtc,
            channel: None,
            sender,
            happenings,
        }
    }

    /// Offers a data channel, and starts to gather.
    pub async fn offer(&mut self) -> RTCSessionDescription {
        let channel = self.rtc.create_data_channel("data", None).await.unwrap();
        watch(&channel, &self.sender);
        let offer = self.rtc.create_offer(None).await.unwrap();
        self.rtc.set_local_description(offer.clone()).await.unwrap();
        offer
    }

    /// Answers the offer that was set, and starts to gather.
    pub async fn answer(&mut self) -> RTCSessionDescription {
        let answer = self.rtc.create_answer(None).await.unwrap();
        self.rtc
            .set_local_description(answer.clone())
            .await
            .unwrap();
        answer
    }

    pub async fn news(&mut self) -> News {
        loop {
            match self.happenings.recv().await.unwrap() {
                Happening::News(news) => return news,
                Happening::Opened(channel) => {
                    self.channel = Some(channel);
                    return News::Ended(Outcome::Connected);
                }
                Happening::Received(_) => {}
            }
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
                let happening = timeout(TIMEOUT, self.happenings.recv()).await;
                if let Happening::Received(bytes) = happening.expect("data flows").unwrap() {
                    received.extend_from_slice(&bytes);
                }
            }
        };
        tokio::join!(send, receive);
        received
    }

    /// The types of the selected local and remote candidates.
    pub async fn selected(&self) -> (RTCIceCandidateType, RTCIceCandidateType) {
        let transport = self.rtc.sctp().transport();
        let pair = transport
            .ice_transport()
            .get_selected_candidate_pair()
            .await
            .unwrap();
        (pair.local.typ, pair.remote.typ)
    }
}

fn watch(channel: &Arc<RTCDataChannel>, to: &Sender) {
    let (opened, sender) = (Arc::clone(channel), to.clone());
    channel.on_open(Box::new(move || {
        tell(&sender, Happening::Opened(opened));
        Box::pin(async {})
    }));
    let sender = to.clone();
    channel.on_message(Box::new(move |message| {
        tell(&sender, Happening::Received(message.data));
        Box::pin(async {})
    }));
}

/// The story may be over.
fn tell(to: &Sender, happening: Happening) {
    let _ = to.send(happening);
}
