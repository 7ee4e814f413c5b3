//! One connection of MQTT: what its packets ask of the hub, and what it gets.
//!
//! There are no sessions and no retained messages. A message of QoS 1 is sent once, as the stream
//! does not lose it; acknowledgements bound how many are on their way.

mod delivery;

use super::super::object::Object;
use super::super::y_webrtc::exchange;
use super::packet::{Connect, Packet, Publish, Reason, Subscribe, Version};
use super::reader::Stream;
use super::writer::{self, Ack, Announced};
use crate::protocol::{
    ClientMessage, CloseCode, ErrorCode, ExchangeReply, ExchangeRequest, FrameType, MessageType,
    Publication, Request, SubscriptionOptions, Takeover, Wish,
};
use crate::signal::hub::Event;
use crate::signal::{Closing, Dialect, Incoming, Outgoing, Output};
use delivery::{Outbound, publication, reason};
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest packet, bytes: as large as the largest frame of other dialects.
const MAX_PACKET: u32 = 64 << 10;
/// Messages of QoS 1 and 2 without an acknowledgement, each way.
const MAX_IN_FLIGHT: u16 = 64;
/// The longest keep-alive, seconds, that a client of version 5 is given.
const MAX_KEEP_ALIVE: u16 = 60;
/// Where a client gets `iceServers`, at once and at each renewal.
const ICE_TOPIC: &str = "$callbox/ice";
/// The longest `iceServers` in CONNACK, bytes.
const MAX_ICE: usize = 2 << 10;
/// Unsupported data (RFC 6455 section 7.4.1): the close code of text frames.
const UNSUPPORTED_DATA: u16 = 1003;

/// One connection of MQTT 3.1.1 or 5.
#[derive(Debug)]
pub struct Mqtt {
    stream: Stream,
    state: State,
    version: Version,
    /// How long the client may say nothing, and when it last said something.
    patience: Option<Duration>,
    heard: Option<Instant>,
    limits: Limits,
    out: Outbound,
    /// Messages of QoS 2 that the client has yet to release.
    unreleased: BTreeSet<u16>,
    /// Subscriptions that the hub has yet to answer, with the codes that need no answer.
    subscribing: BTreeMap<u16, Vec<Option<Result<u8, Reason>>>>,
    wants_ice: bool,
    status: Option<u16>,
}

#[derive(Debug)]
enum State {
    /// Nothing came yet.
    Fresh,
    /// The hub has yet to accept it.
    Opening(Box<Hello>),
    Open,
    /// The last packet was written.
    Ended,
}

/// What CONNECT said, until it is answered.
#[derive(Debug)]
struct Hello {
    client_id: String,
    /// Whether the server made the client id.
    is_made: bool,
    will: Option<Arc<Publication>>,
    keep_alive: Option<u16>,
}

/// What the client takes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    packet: usize,
    in_flight: usize,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            stream: Stream::default(),
            state: State::Fresh,
            version: Version::V3,
            patience: None,
            heard: None,
            limits: Limits {
                packet: MAX_PACKET as usize,
                in_flight: MAX_IN_FLIGHT.into(),
            },
            out: Outbound::default(),
            unreleased: BTreeSet::new(),
            subscribing: BTreeMap::new(),
            wants_ice: false,
            status: None,
        }
    }
}

impl Dialect for Mqtt {
    fn decode(&mut self, message: Incoming<'_>, now: Instant, out: &mut Output<'_>) {
        let Incoming::Binary(bytes) = message else {
            self.status = Some(UNSUPPORTED_DATA);
            self.fail(Reason::Malformed, CloseCode::ProtocolError, out);
            return;
        };
        self.heard = Some(now);
        let mut stream = std::mem::take(&mut self.stream);
        let fed = stream.feed(bytes, MAX_PACKET as usize, |head, body| {
            let packet = Packet::read(head, body, self.version)?;
            self.take(packet, out)
        });
        match fed {
            Ok(()) => self.stream = stream,
            Err(reason) => self.fail(reason, CloseCode::ProtocolError, out),
        }
    }

    fn encode(&mut self, outgoing: &Outgoing, _: Instant, out: &mut Output<'_>) {
        match &outgoing.event {
            Event::Published {
                publication, qos, ..
            } if matches!(self.state, State::Open) => self.deliver(publication, *qos, out),
            Event::Exchange(reply) => self.answer(reply, &outgoing.peer.to_string(), out),
            Event::Native(body) if body.kind() == FrameType::Error => {
                let object = Object::parse(body.as_str()).ok();
                let code = object.and_then(|object| object.string("code"));
                if code.as_deref() == Some(ErrorCode::RateLimited.as_str()) {
                    self.fail(Reason::RateTooHigh, CloseCode::RateLimited, out);
                } else if code.as_deref() == Some(ErrorCode::InvalidMessage.as_str())
                    && matches!(self.state, State::Opening(_))
                {
                    self.fail(Reason::ClientId, CloseCode::Unauthorized, out);
                }
            }
            _ => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        Some(self.heard? + self.patience?)
    }

    fn timed_out(&mut self, now: Instant, out: &mut Output<'_>) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.patience = None;
            self.fail(Reason::KeepAlive, CloseCode::HeartbeatTimeout, out);
        }
    }

    fn closing(&mut self, closing: &Closing, out: &mut Output<'_>) -> u16 {
        let reason = match closing.code {
            CloseCode::Draining => Reason::ShuttingDown,
            CloseCode::Replaced => Reason::TakenOver,
            CloseCode::RateLimited => Reason::RateTooHigh,
            CloseCode::HeartbeatTimeout => Reason::KeepAlive,
            CloseCode::Unauthorized => Reason::NotAuthorized,
            CloseCode::SlowConsumer => Reason::QuotaExceeded,
            CloseCode::TooLarge => Reason::TooLarge,
            CloseCode::Normal => Reason::Success,
            CloseCode::Kicked | CloseCode::RoomClosed => Reason::Administrative,
            _ => Reason::ProtocolError,
        };
        self.last_packet(reason, out);
        self.status.unwrap_or(closing.code as u16)
    }
}

impl Mqtt {
    /// Ends the connection for a reason.
    fn fail(&mut self, reason: Reason, code: CloseCode, out: &mut Output<'_>) {
        self.last_packet(reason, out);
        out.close(code, "");
    }

    fn last_packet(&mut self, reason: Reason, out: &mut Output<'_>) {
        let mut bytes = vec![];
        match std::mem::replace(&mut self.state, State::Ended) {
            // Who has not said CONNECT is not known to speak MQTT, but for a version of its own.
            State::Fresh if reason != Reason::UnsupportedVersion => {}
            State::Fresh | State::Opening(_) => writer::refuse(&mut bytes, self.version, reason),
            State::Open => writer::disconnect(&mut bytes, self.version, reason),
            State::Ended => {}
        }
        if !bytes.is_empty() {
            out.binary(&bytes);
        }
        (self.stream, self.out) = (Stream::default(), Outbound::default());
    }

    fn take(&mut self, packet: Packet<'_>, out: &mut Output<'_>) -> Result<(), Reason> {
        match (&self.state, packet) {
            (State::Fresh, Packet::Connect(connect)) => self.connect(&connect, out),
            // Clients may send more before they are accepted; that is rare, and refused.
            (State::Fresh | State::Opening(_), _) | (State::Open, Packet::Connect(_)) => {
                Err(Reason::ProtocolError)
            }
            (State::Ended, _) => Ok(()),
            (State::Open, packet) => self.take_open(packet, out),
        }
    }

    fn take_open(&mut self, packet: Packet<'_>, out: &mut Output<'_>) -> Result<(), Reason> {
        let mut bytes = vec![];
        match packet {
            Packet::Publish(publish) => return self.publish(&publish, out),
            Packet::Subscribe(subscribe) => return self.subscribe(&subscribe, out),
            Packet::Unsubscribe(unsubscribe) => {
                if unsubscribe.filters.contains(&ICE_TOPIC) {
                    self.wants_ice = false;
                }
                let topics = unsubscribe.filters.iter().map(|f| Arc::from(*f)).collect();
                let id = unsubscribe.id;
                out.request(exchange(ExchangeRequest::Unsubscribe { id, topics }));
                return Ok(());
            }
            Packet::PubAck(id) => {
                self.acknowledged(id, out);
            }
            Packet::PubRel(id) => {
                let reason = match self.unreleased.remove(&id) {
                    true => Reason::Success,
                    false => Reason::UnknownPacketId,
                };
                writer::acknowledge(&mut bytes, self.version, Ack::PubComp, id, reason);
            }
            // Nothing is sent with QoS 2.
            Packet::PubRec(_) | Packet::PubComp(_) => return Err(Reason::ProtocolError),
            Packet::PingReq => writer::pong(&mut bytes),
            Packet::Disconnect(keeps_will) => {
                if !keeps_will {
                    out.request(exchange(ExchangeRequest::Will(None)));
                }
                self.state = State::Ended;
                out.close(CloseCode::Normal, "");
                return Ok(());
            }
            Packet::Auth => return Err(Reason::AuthMethod),
            Packet::Connect(_) => return Err(Reason::ProtocolError),
        }
        if !bytes.is_empty() {
            out.binary(&bytes);
        }
        out.request(exchange(ExchangeRequest::Idle));
        Ok(())
    }

    fn connect(&mut self, connect: &Connect<'_>, out: &mut Output<'_>) -> Result<(), Reason> {
        self.version = connect.version;
        let is_v5 = connect.version == Version::V5;
        let is_made = connect.client_id.is_empty();
        let keep_alive = match (is_v5, connect.keep_alive) {
            (true, 0 | MAX_KEEP_ALIVE..) => MAX_KEEP_ALIVE,
            (_, seconds) => seconds,
        };
        self.patience =
            (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500));
        self.limits = Limits {
            packet: (connect.maximum_packet as usize).min(1 << 28),
            in_flight: connect.receive_maximum.min(MAX_IN_FLIGHT).into(),
        };
        self.state = State::Opening(Box::new(Hello {
            client_id: connect.client_id.to_owned(),
            is_made,
            will: connect.will.as_ref().map(publication),
            keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
        }));
        if is_made && !is_v5 && !connect.clean_start {
            return Err(Reason::ClientId);
        }
        if connect.extended_auth {
            return Err(Reason::AuthMethod);
        }
        if let Some(will) = &connect.will {
            if will.retain && is_v5 {
                return Err(Reason::RetainUnavailable);
            }
            if will.topic.starts_with('$') {
                return Err(Reason::TopicInvalid);
            }
        }
        let password = connect.password.and_then(|p| std::str::from_utf8(p).ok());
        let is_token = |text: &&str| text.split('.').count() == 3;
        let token = password.filter(is_token).or(connect.user.filter(is_token));
        out.request(Ok(ClientMessage {
            id: None,
            dialect: None,
            kind: MessageType::Register,
            request: Request::Exchange(ExchangeRequest::Open {
                token: token.map(SecretString::from),
            }),
        }));
        Ok(())
    }

    fn publish(&mut self, publish: &Publish<'_>, out: &mut Output<'_>) -> Result<(), Reason> {
        if publish.aliased {
            return Err(Reason::TopicAlias);
        }
        if publish.retain && self.version == Version::V5 {
            return Err(Reason::RetainUnavailable);
        }
        if publish.qos == 2 {
            let is_again = self.unreleased.contains(&publish.id);
            if !is_again && self.unreleased.len() >= MAX_IN_FLIGHT.into() {
                return Err(Reason::ReceiveMaximum);
            }
            self.unreleased.insert(publish.id);
            if is_again || publish.topic.starts_with('$') {
                self.acknowledge(Ack::PubRec, publish.id, Reason::Success, out);
                out.request(exchange(ExchangeRequest::Idle));
                return Ok(());
            }
        } else if publish.topic.starts_with('$') {
            // What the server says there, no client says to another.
            if publish.qos == 1 {
                self.acknowledge(Ack::PubAck, publish.id, Reason::NotAuthorized, out);
            }
            out.request(exchange(ExchangeRequest::Idle));
            return Ok(());
        }
        out.request(exchange(ExchangeRequest::Publish {
            id: publish.id,
            publication: publication(publish),
        }));
        Ok(())
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, out: &mut Output<'_>) -> Result<(), Reason> {
        let mut topics = vec![];
        let mut codes = vec![];
        for filter in &subscribe.filters {
            let name = filter.filter;
            codes.push(if subscribe.identified {
                Some(Err(Reason::IdentifiersUnavailable))
            } else if name == ICE_TOPIC {
                self.wants_ice = true;
                out.request(exchange(ExchangeRequest::Ice));
                Some(Ok(0))
            } else if name.starts_with("$share/") {
                Some(Err(Reason::SharedUnavailable))
            } else if name.starts_with('$') {
                Some(Err(Reason::NotAuthorized))
            } else if name.contains(['+', '#']) {
                Some(Err(Reason::WildcardsUnavailable))
            } else {
                topics.push(Wish {
                    topic: name.into(),
                    options: SubscriptionOptions {
                        qos: filter.qos.min(1),
                        no_local: filter.no_local,
                    },
                });
                None
            });
        }
        let id = subscribe.id;
        if topics.is_empty() {
            out.request(exchange(ExchangeRequest::Idle));
            self.subscribed(id, codes, vec![], out);
            return Ok(());
        }
        if self.subscribing.len() >= MAX_IN_FLIGHT.into() {
            return Err(Reason::QuotaExceeded);
        }
        self.subscribing.insert(id, codes);
        out.request(exchange(ExchangeRequest::Subscribe { id, topics }));
        Ok(())
    }

    fn answer(&mut self, reply: &ExchangeReply, peer: &str, out: &mut Output<'_>) {
        match reply {
            ExchangeReply::Opened => {
                let State::Opening(hello) = &mut self.state else {
                    return;
                };
                if hello.is_made {
                    peer.clone_into(&mut hello.client_id);
                }
                let name = hello.client_id.clone();
                let will = hello.will.take();
                out.request(exchange(ExchangeRequest::Claim {
                    name,
                    proof: 0,
                    takeover: Takeover::Private,
                }));
                if will.is_some() {
                    out.request(exchange(ExchangeRequest::Will(will)));
                }
            }
            // CONNACK of version 5 carries credentials: it waits for them.
            ExchangeReply::Claimed { .. } if self.version == Version::V5 => {
                out.request(exchange(ExchangeRequest::Ice));
            }
            ExchangeReply::Claimed { .. } => self.accept(None, out),
            ExchangeReply::Ice(servers) => {
                let Ok(json) = serde_json::to_string(servers) else {
                    return;
                };
                if let State::Opening(_) = self.state {
                    return self.accept(Some(&json).filter(|json| json.len() <= MAX_ICE), out);
                }
                if self.wants_ice {
                    let publication = Publication {
                        topic: ICE_TOPIC.into(),
                        properties: [].into(),
                        payload: json.into_bytes().into(),
                        qos: 0,
                    };
                    self.send(&publication, 0, out);
                }
            }
            ExchangeReply::Subscribed { id, codes } => {
                let open = self.subscribing.remove(id).unwrap_or_default();
                let granted = codes.iter().map(|code| code.map_err(reason)).collect();
                self.subscribed(*id, open, granted, out);
            }
            ExchangeReply::Unsubscribed { id, found } => {
                let code = |found: &bool| match found {
                    true => Reason::Success,
                    false => Reason::NoSubscription,
                };
                let codes: Vec<_> = found.iter().map(code).collect();
                let mut bytes = vec![];
                writer::unsubscribed(&mut bytes, self.version, *id, &codes);
                out.binary(&bytes);
            }
            ExchangeReply::Published { id, clients } => {
                let ack = match self.unreleased.contains(id) {
                    true => Ack::PubRec,
                    false => Ack::PubAck,
                };
                let reason = match clients {
                    Ok(0) => Reason::NoMatchingSubscribers,
                    Ok(_) => Reason::Success,
                    Err(denied) => reason(*denied),
                };
                if ack == Ack::PubRec && reason as u8 >= 0x80 && self.version == Version::V5 {
                    // A refused message of QoS 2 ends there (MQTT 5.0, 4.3.3).
                    self.unreleased.remove(id);
                }
                self.acknowledge(ack, *id, reason, out);
            }
            ExchangeReply::Taken | ExchangeReply::Absent { .. } => {}
        }
    }

    fn accept(&mut self, ice_servers: Option<&String>, out: &mut Output<'_>) {
        let State::Opening(hello) = std::mem::replace(&mut self.state, State::Open) else {
            return;
        };
        let announced = Announced {
            maximum_packet: MAX_PACKET,
            receive_maximum: MAX_IN_FLIGHT,
            keep_alive: hello.keep_alive,
            client_id: hello.is_made.then_some(&*hello.client_id),
            ice_servers: ice_servers.map(String::as_str),
        };
        let mut bytes = vec![];
        writer::accept(&mut bytes, self.version, announced);
        out.binary(&bytes);
    }

    /// Answers a SUBSCRIBE: `granted` fills the codes that are open.
    fn subscribed(
        &self,
        id: u16,
        codes: Vec<Option<Result<u8, Reason>>>,
        granted: Vec<Result<u8, Reason>>,
        out: &mut Output<'_>,
    ) {
        let mut granted = granted.into_iter();
        let mut next = || granted.next().unwrap_or(Err(Reason::QuotaExceeded));
        let codes: Vec<_> = codes
            .into_iter()
            .map(|c| c.unwrap_or_else(&mut next))
            .collect();
        let mut bytes = vec![];
        writer::subscribed(&mut bytes, self.version, id, &codes);
        out.binary(&bytes);
    }
}
