//! One peer connection with a data channel and a media track: webrtc-rs, headless.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use webrtc::api::APIBuilder;
use webrtc::api::interceptor_registry::register_default_interceptors;
use webrtc::api::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use webrtc::api::setting_engine::SettingEngine;
use webrtc::data_channel::RTCDataChannel;
use webrtc::ice::mdns::MulticastDnsMode;
use webrtc::ice::network_type::NetworkType;
use webrtc::ice_transport::ice_candidate::RTCIceCandidateInit;
use webrtc::ice_transport::ice_candidate_pair::RTCIceCandidatePair;
use webrtc::ice_transport::ice_connection_state::RTCIceConnectionState;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::interceptor::registry::Registry;
use webrtc::media::Sample;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::offer_answer_options::RTCOfferOptions;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::policy::ice_transport_policy::RTCIceTransportPolicy;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc::rtp_transceiver::rtp_codec::RTCRtpCodecCapability;
use webrtc::track::track_local::TrackLocal;
use webrtc::track::track_local::track_local_static_sample::TrackLocalStaticSample;
use webrtc_util::vnet::net::Net;

/// Data messages, and packets of media, that are sent in each direction.
pub const MESSAGES: u64 = 25;
/// Packets of media may be lost; of those sent, this many are to arrive.
pub const MEDIA: u64 = 5;
/// A packet of sound is so long.
const PACE: Duration = Duration::from_millis(20);
/// About what a voice codec makes of it.
const PACKET: usize = 80;
/// A direct pair is found sooner than that if there is one, on a busy machine too; until then no
/// relayed pair is taken.
const RELAY_WAITS: Duration = Duration::from_millis(2_500);

/// What the other side has to know, or what has become of the connection.
pub enum Event {
    /// A local candidate.
    Candidate(RTCIceCandidateInit),
    /// The data channel is open.
    Opened(Arc<RTCDataChannel>),
    /// ICE has found a path.
    Path,
    /// No path was found, or the path was lost for good.
    Failed,
}

/// What is to be connected, and how.
pub struct Setup {
    /// The network of the peer.
    pub net: Arc<Net>,
    /// STUN and TURN servers.
    pub ice_servers: Vec<RTCIceServer>,
    /// Relayed addresses only.
    pub relay_only: bool,
    /// By how much the links delay everything.
    pub slack: Duration,
}

/// A peer connection.
pub struct Rtc {
    connection: RTCPeerConnection,
    channel: Option<Arc<RTCDataChannel>>,
    track: Arc<TrackLocalStaticSample>,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    received: Arc<Received>,
    /// Candidates of the other side that came before its description.
    early: Vec<RTCIceCandidateInit>,
}

/// What has arrived.
#[derive(Default)]
struct Received {
    messages: AtomicU64,
    media: AtomicU64,
    more: Notify,
}

impl Rtc {
    /// Makes one; nothing is sent yet.
    ///
    /// # Errors
    /// A phrase of webrtc-rs.
    pub async fn new(setup: Setup) -> Result<Self, webrtc::Error> {
        let mut settings = SettingEngine::default();
        settings.set_vnet(Some(setup.net));
        settings.set_ice_multicast_dns_mode(MulticastDnsMode::Disabled);
        // webrtc-rs relays over IPv4 only; a direct path over IPv6 would prove nothing of the rest.
        settings.set_network_types(vec![NetworkType::Udp4]);
        let relay_waits = match setup.relay_only {
            true => Duration::ZERO,
            false => RELAY_WAITS + 8 * setup.slack,
        };
        settings.set_relay_acceptance_min_wait(Some(relay_waits));
        // Long enough that a restart of ICE finds the connection alive.
        settings.set_ice_timeouts(
            Some(Duration::from_secs(10)),
            Some(Duration::from_secs(60)),
            Some(Duration::from_millis(500)),
        );
        let mut media = MediaEngine::default();
        media.register_default_codecs()?;
        let registry = register_default_interceptors(Registry::new(), &mut media)?;
        let api = APIBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_setting_engine(settings)
            .build();
        let configuration = RTCConfiguration {
            ice_servers: setup.ice_servers,
            ice_transport_policy: match setup.relay_only {
                true => RTCIceTransportPolicy::Relay,
                false => RTCIceTransportPolicy::All,
            },
            ..RTCConfiguration::default()
        };
        let connection = api.new_peer_connection(configuration).await?;
        let capability = RTCRtpCodecCapability {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            ..RTCRtpCodecCapability::default()
        };
        let (id, stream) = ("sound".into(), "natlab".into());
        let track = Arc::new(TrackLocalStaticSample::new(capability, id, stream));
        let local: Arc<dyn TrackLocal + Send + Sync> = track.clone();
        connection.add_track(local).await?;
        let (sender, events) = mpsc::unbounded_channel();
        let rtc = Self {
            connection,
            channel: None,
            track,
            events,
            sender,
            received: Arc::default(),
            early: vec![],
        };
        rtc.listen();
        Ok(rtc)
    }

    fn listen(&self) {
        let to = self.sender.clone();
        self.connection.on_ice_candidate(Box::new(move |candidate| {
            if let Some(Ok(candidate)) = candidate.map(|candidate| candidate.to_json()) {
                let _ = to.send(Event::Candidate(candidate));
            }
            Box::pin(async {})
        }));
        let to = self.sender.clone();
        self.connection
            .on_peer_connection_state_change(Box::new(move |state| {
                if state == RTCPeerConnectionState::Failed {
                    let _ = to.send(Event::Failed);
                }
                Box::pin(async {})
            }));
        let to = self.sender.clone();
        self.connection
            .on_ice_connection_state_change(Box::new(move |state| {
                if state == RTCIceConnectionState::Connected {
                    let _ = to.send(Event::Path);
                }
                Box::pin(async {})
            }));
        let (to, received) = (self.sender.clone(), Arc::clone(&self.received));
        self.connection.on_data_channel(Box::new(move |channel| {
            watch(&channel, &to, &received);
            Box::pin(async {})
        }));
        let received = Arc::clone(&self.received);
        self.connection.on_track(Box::new(move |track, _, _| {
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                while track.read_rtp().await.is_ok() {
                    received.media.fetch_add(1, Ordering::Relaxed);
                    received.more.notify_one();
                }
            });
            Box::pin(async {})
        }));
    }

    /// An offer: the first one with a data channel, a later one with a restart of ICE.
    ///
    /// # Errors
    /// A phrase of webrtc-rs.
    pub async fn offer(&mut self) -> Result<RTCSessionDescription, webrtc::Error> {
        let is_first = self.connection.remote_description().await.is_none();
        let options = match is_first {
            true => {
                let channel = self.connection.create_data_channel("data", None).await?;
                watch(&channel, &self.sender, &self.received);
                None
            }
            false => Some(RTCOfferOptions {
                ice_restart: true,
                ..RTCOfferOptions::default()
            }),
        };
        let offer = self.connection.create_offer(options).await?;
        self.connection.set_local_description(offer.clone()).await?;
        Ok(offer)
    }

    /// Takes the other side's description; returns an answer if it is an offer.
    ///
    /// # Errors
    /// A phrase of webrtc-rs.
    pub async fn describe(
        &mut self,
        description: RTCSessionDescription,
        is_offer: bool,
    ) -> Result<Option<RTCSessionDescription>, webrtc::Error> {
        self.connection.set_remote_description(description).await?;
        for candidate in std::mem::take(&mut self.early) {
            self.connection.add_ice_candidate(candidate).await?;
        }
        if !is_offer {
            return Ok(None);
        }
        let answer = self.connection.create_answer(None).await?;
        self.connection
            .set_local_description(answer.clone())
            .await?;
        Ok(Some(answer))
    }

    /// Takes a candidate of the other side.
    pub async fn candidate(&mut self, candidate: RTCIceCandidateInit) {
        if self.connection.remote_description().await.is_some() {
            // One of an earlier generation is refused, and rightly so.
            let _ = self.connection.add_ice_candidate(candidate).await;
        } else {
            self.early.push(candidate);
        }
    }

    /// What happens next. Cancelled, it loses nothing.
    pub async fn event(&mut self) -> Event {
        let event = self.events.recv().await.unwrap_or(Event::Failed);
        if let Event::Opened(channel) = &event {
            self.channel = Some(Arc::clone(channel));
        }
        event
    }

    /// What can send and count while the connection is signaled for.
    #[must_use]
    pub fn talker(&self) -> Option<Talker> {
        Some(Talker {
            channel: Arc::clone(self.channel.as_ref()?),
            track: Arc::clone(&self.track),
            received: Arc::clone(&self.received),
        })
    }

    /// The pair of candidates that is used now.
    pub async fn selected(&self) -> Option<RTCIceCandidatePair> {
        let transport = self.connection.sctp().transport();
        transport
            .ice_transport()
            .get_selected_candidate_pair()
            .await
    }

    /// Ends it.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }
}

/// Sends data and media, and waits for those of the other side.
pub struct Talker {
    channel: Arc<RTCDataChannel>,
    track: Arc<TrackLocalStaticSample>,
    received: Arc<Received>,
}

impl Talker {
    /// Sends [`MESSAGES`] of both, and returns when as many have come in; of media, [`MEDIA`].
    ///
    /// # Errors
    /// A phrase of webrtc-rs.
    pub async fn talk(self) -> Result<(), webrtc::Error> {
        let payload = Bytes::from(vec![0x5a; PACKET]);
        let send = async {
            for _ in 0..MESSAGES {
                self.channel.send(&payload).await?;
                let sample = Sample {
                    data: payload.clone(),
                    duration: PACE,
                    ..Sample::default()
                };
                // While no path is there, it says so; media is not sent again.
                let _ = self.track.write_sample(&sample).await;
                tokio::time::sleep(PACE).await;
            }
            Ok::<_, webrtc::Error>(())
        };
        let receive = async {
            while self.received.messages.load(Ordering::Relaxed) < MESSAGES
                || self.received.media.load(Ordering::Relaxed) < MEDIA
            {
                self.received.more.notified().await;
            }
        };
        let (sent, ()) = tokio::join!(send, receive);
        sent?;
        // What comes beyond is of the next exchange.
        self.received
            .messages
            .fetch_sub(MESSAGES, Ordering::Relaxed);
        self.received.media.store(0, Ordering::Relaxed);
        Ok(())
    }
}

fn watch(
    channel: &Arc<RTCDataChannel>,
    to: &mpsc::UnboundedSender<Event>,
    received: &Arc<Received>,
) {
    let (opened, to) = (Arc::clone(channel), to.clone());
    channel.on_open(Box::new(move || {
        let _ = to.send(Event::Opened(opened));
        Box::pin(async {})
    }));
    let received = Arc::clone(received);
    channel.on_message(Box::new(move |_| {
        received.messages.fetch_add(1, Ordering::Relaxed);
        received.more.notify_one();
        Box::pin(async {})
    }));
}
