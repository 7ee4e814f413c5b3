//! One headless peer of a call: it joins, connects, talks, connects again, leaves, as it is told.

use super::bridge::Bridge;
use super::relay::Relay;
use super::rtc::{Event, Rtc, Setup, Talker};
use super::session::{Room, Session};
use callbox::cli::reach::{Via, urls_of};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use webrtc::ice_transport::ice_candidate::RTCIceCandidateInit;
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc_util::vnet::net::Net;

/// How long a transport that is preferred may stay silent after another one has answered.
const PREFERRED_WITHIN: Duration = Duration::from_millis(800);
/// How long one attempt at the relay may take.
const TRY_WITHIN: Duration = Duration::from_secs(8);

/// What a peer is to do.
pub struct Spec {
    /// Where it meets the other one.
    pub room: Room,
    /// Its network, where that is a virtual one; else the namespace of the thread.
    pub net: Option<Arc<Net>>,
    /// The only transport to the relay that is used.
    pub only: Option<Via>,
    /// Relayed addresses only.
    pub relay_only: bool,
    /// A STUN server in place of the box's: the lab's own, where the box sees the machine's address.
    pub stun: Option<SocketAddr>,
    /// By how much the links delay everything.
    pub slack: Duration,
    /// Relays in place of those of `iceServers`, in a network that has no sockets.
    pub relays: Option<Relays>,
}

/// Makes relays from `iceServers`.
pub type Relays = Box<dyn Fn(&Value) -> Vec<Relay> + Send>;

/// What a peer is told while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Send and receive.
    Talk,
    /// Connect to the box again; then, if `offers`, restart ICE.
    Reconnect {
        /// Whether this side makes the offer.
        offers: bool,
    },
    /// End.
    Leave,
}

/// What a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is in the room, knows how it reaches the relay, and begins to look for a path.
    Begun {
        /// A relay is reached, over the only transport that is wanted if there is one.
        has_relay: bool,
    },
    /// The data channel is open.
    Connected {
        /// Since the offer.
        after: Duration,
    },
    /// All has been sent and received, and over which pair of candidates.
    Talked(Selected),
    /// The box is connected to again.
    Reconnected,
    /// ICE has found a path: the first one, or after a restart another one.
    Path,
    /// ICE has found no path.
    NoPath,
    /// It cannot go on.
    Failed(String),
}

/// The selected pair of candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The own one is relayed, and over which transport.
    pub local: Option<Via>,
    /// The other side's is relayed.
    pub remote: bool,
    /// Where packets go.
    pub to: Option<SocketAddr>,
    /// Both in words: `relay 198.18.0.1:50000 - srflx 198.18.0.3:4711`.
    pub text: String,
}

/// Runs a peer until it is told to leave, or nobody tells it anything any more.
pub async fn run(spec: Spec, orders: mpsc::Receiver<Order>, news: mpsc::Sender<News>) {
    if let Err(error) = play(spec, orders, &news).await {
        let _ = news.send(News::Failed(error)).await;
    }
}

async fn play(
    spec: Spec,
    mut orders: mpsc::Receiver<Order>,
    news: &mpsc::Sender<News>,
) -> Result<(), String> {
    // Made here, it sees the interfaces of this namespace.
    let net = spec.net.clone();
    let net = net.unwrap_or_else(|| Arc::new(Net::new(None)));
    let session = Session::join(spec.room.clone()).await;
    let mut session = session.map_err(|error| format!("no signaling: {error}"))?;
    let way = find_way(&spec, &net, &session.ice_servers).await?;
    let via = way.relay.as_ref().map(Relay::via);
    let has_relay = via.is_some();
    let setup = Setup {
        net,
        ice_servers: ice_servers(&spec, &session.ice_servers, &way),
        relay_only: spec.relay_only || session.relay_only,
        slack: spec.slack,
    };
    let mut rtc = Rtc::new(setup).await.map_err(|error| error.to_string())?;
    let _ = news.send(News::Begun { has_relay }).await;
    let begun = Instant::now();
    if session.is_second {
        offer(&mut rtc, &mut session).await?;
    }
    let mut talking: Option<tokio::task::JoinHandle<Result<(), webrtc::Error>>> = None;
    let mut is_online = true;
    loop {
        let talked = async {
            match &mut talking {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Talk) => {
                    let talker = rtc.talker().ok_or("there is no data channel yet")?;
                    talking = Some(tokio::spawn(Talker::talk(talker)));
                }
                Some(Order::Reconnect { offers }) => {
                    session.reconnect().await?;
                    is_online = true;
                    let _ = news.send(News::Reconnected).await;
                    if offers {
                        offer(&mut rtc, &mut session).await?;
                    }
                }
                Some(Order::Leave) | None => break,
            },
            message = session.receive(), if is_online => match message {
                Ok(message) => signal(&mut rtc, &mut session, message).await?,
                // The call goes on; whether that is right is for the orders to say.
                Err(_) => is_online = false,
            },
            event = rtc.event() => match event {
                Event::Candidate(candidate) => {
                    let message = json!({"type": "candidate", "candidate": candidate});
                    let _ = session.send(message).await;
                }
                Event::Opened(_) => {
                    let _ = news.send(News::Connected { after: begun.elapsed() }).await;
                }
                Event::Path => {
                    let _ = news.send(News::Path).await;
                }
                Event::Failed => {
                    let _ = news.send(News::NoPath).await;
                    break;
                }
            },
            outcome = talked => {
                talking = None;
                outcome
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?;
                let _ = news.send(News::Talked(selected(&rtc, via).await?)).await;
            }
        }
    }
    session.leave().await;
    rtc.close().await;
    Ok(())
}

async fn offer(rtc: &mut Rtc, session: &mut Session) -> Result<(), String> {
    let offer = rtc.offer().await.map_err(|error| error.to_string())?;
    session.send(json!({"type": "offer", "sdp": offer})).await
}

async fn signal(rtc: &mut Rtc, session: &mut Session, message: Value) -> Result<(), String> {
    match message["type"].as_str() {
        Some(kind @ ("offer" | "answer")) => {
            let description: RTCSessionDescription =
                serde_json::from_value(message["sdp"].clone()).map_err(|e| e.to_string())?;
            let answer = rtc.describe(description, kind == "offer").await;
            if let Some(answer) = answer.map_err(|error| error.to_string())? {
                session
                    .send(json!({"type": "answer", "sdp": answer}))
                    .await?;
            }
        }
        Some("candidate") => {
            if let Ok(candidate) =
                serde_json::from_value::<RTCIceCandidateInit>(message["candidate"].clone())
            {
                rtc.candidate(candidate).await;
            }
        }
        Some("error") => {
            let text = message["message"].as_str().unwrap_or_default();
            return Err(format!("the box answered {}: {text}", message["code"]));
        }
        _ => {}
    }
    Ok(())
}

/// How a peer reaches the box's relay.
struct Way {
    /// The relay that it uses.
    relay: Option<Relay>,
    /// To it, where it is reached over a stream.
    bridge: Option<Bridge>,
    /// Where UDP does not pass, asking for the own address takes long and finds nothing.
    passes_udp: bool,
}

/// The best relay that answers, or the only one that is wanted.
async fn find_way(spec: &Spec, net: &Net, handed: &Value) -> Result<Way, String> {
    let relays: Vec<Relay> = match &spec.relays {
        Some(make) => make(handed),
        None => {
            let found = spec.room.url.relays(handed).await;
            found.into_iter().map(Relay::Real).collect()
        }
    };
    let works = reached(net, &relays, spec.only, spec.slack).await;
    let relay = works
        .iter()
        .filter(|relay| spec.only.is_none_or(|only| relay.via() == only))
        .min_by_key(|relay| relay.via())
        .map(|relay| (*relay).clone());
    let bridge = match &relay {
        Some(relay) if relay.via() != Via::Udp => Some(Bridge::open(net, relay.clone()).await?),
        _ => None,
    };
    Ok(Way {
        relay,
        bridge,
        // A box without a relay says nothing of the network.
        passes_udp: works.is_empty() || works.iter().any(|relay| relay.via() == Via::Udp),
    })
}

/// Tries all at once. When UDP and the wanted one work, that is enough; when the wanted one does, UDP
/// may be a little later.
async fn reached<'a>(
    net: &Net,
    relays: &'a [Relay],
    only: Option<Via>,
    slack: Duration,
) -> Vec<&'a Relay> {
    let within = TRY_WITHIN + 8 * slack;
    let mut tried: FuturesUnordered<_> = relays
        .iter()
        .map(|relay| async move {
            let works = timeout(within, relay.works(net)).await;
            works.is_ok_and(|works| works).then_some(relay)
        })
        .collect();
    let mut works: Vec<&Relay> = vec![];
    let late = sleep(within);
    tokio::pin!(late);
    loop {
        tokio::select! {
            outcome = tried.next() => match outcome {
                None => return works,
                Some(None) => {}
                Some(Some(relay)) => {
                    works.push(relay);
                    let has = |via| works.iter().any(|relay| relay.via() == via);
                    let is_wanted = only.is_none_or(|only| relay.via() == only);
                    if has(Via::Udp) && only.is_none_or(has) {
                        return works;
                    }
                    if is_wanted {
                        let patience = PREFERRED_WITHIN + 8 * slack;
                        late.as_mut().reset(tokio::time::Instant::now() + patience);
                    }
                }
            },
            () = &mut late => return works,
        }
    }
}

fn ice_servers(spec: &Spec, handed: &Value, way: &Way) -> Vec<RTCIceServer> {
    let mut servers = vec![];
    if !spec.relay_only && way.passes_udp {
        let handed = handed.as_array().into_iter().flatten();
        let urls = match spec.stun {
            Some(address) => vec![format!("stun:{address}")],
            None => handed
                .flat_map(urls_of)
                .filter(|url| url.starts_with("stun:"))
                .map(str::to_owned)
                .collect(),
        };
        servers.push(RTCIceServer {
            urls,
            ..RTCIceServer::default()
        });
    }
    if let Some(relay) = &way.relay {
        let (username, credential) = relay.credential();
        let bridge = way.bridge.as_ref();
        let address = bridge.map_or(relay.address(), |bridge| bridge.address);
        servers.push(RTCIceServer {
            urls: vec![format!("turn:{address}?transport=udp")],
            username: username.to_owned(),
            credential: credential.to_owned(),
        });
    }
    servers
}

async fn selected(rtc: &Rtc, via: Option<Via>) -> Result<Selected, String> {
    let pair = rtc
        .selected()
        .await
        .ok_or("no pair of candidates is selected")?;
    let is_relay = |kind| kind == RTCIceCandidateType::Relay;
    let text = format!(
        "{} {}:{} - {} {}:{}",
        pair.local.typ,
        pair.local.address,
        pair.local.port,
        pair.remote.typ,
        pair.remote.address,
        pair.remote.port
    );
    Ok(Selected {
        local: via.filter(|_| is_relay(pair.local.typ)),
        remote: is_relay(pair.remote.typ),
        to: format!("{}:{}", pair.remote.address, pair.remote.port)
            .parse()
            .ok(),
        text,
    })
}
