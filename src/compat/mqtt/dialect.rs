//! One connection of MQTT: what its packets ask of the hub, and what it gets.
//!
//! There are no sessions and no retained messages. A message of QoS 1 is sent once, as the stream
//! does not lose it; acknowledgements bound how many are on their way.

mod asking;
mod delivery;
mod memory;
mod rooms;

pub use rooms::RoomTopics;

use super::super::MAX_TOKEN;
use super::super::object::Object;
use super::super::y_webrtc::exchange;
use super::packet::{Connect, Packet, Reason, Version};
use super::reader::Stream;
use super::writer::{self, Ack, Announced};
use crate::protocol::{
    ClientMessage, CloseCode, Denied, ErrorCode, ExchangeReply, ExchangeRequest, FrameType,
    MAX_NAME, MessageType, Publication, Request, Takeover,
};
use crate::signal::hub::Event;
use crate::signal::{Closing, Dialect, Incoming, Outgoing, Output};
use delivery::{Outbound, reason};
use rooms::Rooms;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
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
/// The largest will, bytes.
const MAX_WILL: usize = 4 << 10;
/// The longest `iceServers` in CONNACK, bytes.
const MAX_ICE: usize = 2 << 10;
/// How long a packet may take to end: as long as a WebSocket message, in which others come.
const ENDS_WITHIN: Duration = Duration::from_secs(50);
/// Unsupported data (RFC 6455 section 7.4.1): the close code of text frames.
const UNSUPPORTED_DATA: u16 = 1003;

/// One connection of MQTT 3.1.1 or 5.
#[derive(Debug)]
pub struct Mqtt {
    stream: Stream,
    state: State,
    version: Version,
    /// How long the client may send nothing, and when it last sent something.
    keep_alive: Option<Duration>,
    last_received: Option<Instant>,
    /// When the packet that has begun has to end.
    ends_by: Option<Instant>,
    limits: Limits,
    out: Outbound,
    /// Messages of QoS 2 that the client has yet to release.
    unreleased: BTreeSet<u16>,
    /// Subscriptions that the hub has yet to answer, with the codes that need no answer.
    subscribing: BTreeMap<u16, Vec<Option<Result<u8, Reason>>>>,
    wants_ice: bool,
    /// Ends of subscriptions that the hub has yet to answer, with the place of [`ICE_TOPIC`] in them.
    unsubscribing: BTreeMap<u16, usize>,
    status: Option<u16>,
    rooms: Rooms,
}

#[derive(Debug, Serialize, Deserialize)]
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
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    client_id: String,
    /// Whether the server made the client id.
    is_made: bool,
    will: Option<Arc<Publication>>,
    keep_alive: Option<u16>,
}

/// What the client takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
            keep_alive: None,
            last_received: None,
            ends_by: None,
            limits: Limits {
                packet: MAX_PACKET as usize,
                in_flight: MAX_IN_FLIGHT.into(),
            },
            out: Outbound::default(),
            unreleased: BTreeSet::new(),
            subscribing: BTreeMap::new(),
            wants_ice: false,
            unsubscribing: BTreeMap::new(),
            status: None,
            rooms: Rooms::default(),
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
        self.last_received = Some(now);
        if !self.stream.is_unfinished() {
            self.ends_by = None;
        }
        let packets = self.stream.packets();
        // A frame has a part of a packet, or several.
        out.has_read(0);
        if !self.is_waiting() {
            self.read(bytes, out);
        } else if !self.stream.keep(bytes, MAX_PACKET as usize) {
            self.fail(Reason::QuotaExceeded, CloseCode::TooLarge, out);
        }
        if self.stream.packets() != packets {
            self.ends_by = None;
        }
        if self.stream.is_unfinished() {
            self.ends_by.get_or_insert(now + ENDS_WITHIN);
            if !bytes.is_empty() {
                out.keeps();
            }
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
                let text = |name| object.as_ref().and_then(|object| object.string(name));
                let (id, code) = (text("id"), text("code").unwrap_or_default());
                let is_opening = matches!(self.state, State::Opening(_));
                if id.is_some_and(|id| self.not_joined(&id, &code, out)) {
                } else if *code == *ErrorCode::RateLimited.as_str() {
                    self.fail(Reason::RateTooHigh, CloseCode::RateLimited, out);
                } else if is_opening && *code == *ErrorCode::InvalidMessage.as_str() {
                    self.fail(Reason::ClientId, CloseCode::Unauthorized, out);
                } else if is_opening {
                    self.fail(Reason::NotAuthorized, CloseCode::Unauthorized, out);
                }
            }
            Event::Native(body) if body.kind() == FrameType::Joined => {
                self.joined(body, outgoing.peer, out);
            }
            Event::Native(body) if matches!(self.state, State::Open) => self.hear_room(body, out),
            _ => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let packet = self.packet_ends();
        self.silence_ends().into_iter().chain(packet).min()
    }

    fn timed_out(&mut self, now: Instant, out: &mut Output<'_>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.silence_ends()) {
            self.keep_alive = None;
            self.fail(Reason::KeepAlive, CloseCode::HeartbeatTimeout, out);
        } else if is_due(self.packet_ends()) {
            self.fail(Reason::Malformed, CloseCode::ProtocolError, out);
        }
    }

    fn memory(&self, now: Instant) -> Option<String> {
        self.to_memory(now)
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

    fn silence_ends(&self) -> Option<Instant> {
        Some(self.last_received? + self.keep_alive?)
    }

    /// When the packet that has begun has to end, where it does not wait for the hub.
    fn packet_ends(&self) -> Option<Instant> {
        let is_begun = self.stream.is_unfinished() && !self.is_waiting();
        self.ends_by.filter(|_| is_begun)
    }

    /// Whether what the client sends is kept until the hub has answered.
    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Opening(_)) || self.rooms.is_joining()
    }

    /// Takes packets until one has to wait for the hub.
    fn read(&mut self, bytes: &[u8], out: &mut Output<'_>) {
        let mut stream = std::mem::take(&mut self.stream);
        let before = stream.packets();
        let fed = stream.feed(bytes, MAX_PACKET as usize, |head, body| {
            let packet = Packet::read(head, body, self.version)?;
            self.take(packet, out)?;
            Ok(match self.is_waiting() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        });
        out.has_read(stream.packets() - before);
        match fed {
            Ok(()) => self.stream = stream,
            Err(reason) => self.fail(reason, CloseCode::ProtocolError, out),
        }
    }

    fn take(&mut self, packet: Packet<'_>, out: &mut Output<'_>) -> Result<(), Reason> {
        match (&self.state, packet) {
            (State::Fresh, Packet::Connect(connect)) => self.connect(&connect, out),
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
                let id = unsubscribe.id;
                let ice = (unsubscribe.filters.iter()).position(|filter| *filter == ICE_TOPIC);
                if let Some(place) = ice.filter(|_| std::mem::take(&mut self.wants_ice)) {
                    if self.unsubscribing.len() >= MAX_IN_FLIGHT.into() {
                        return Err(Reason::QuotaExceeded);
                    }
                    self.unsubscribing.insert(id, place);
                }
                self.leave_room(&unsubscribe.filters, out);
                let topics = unsubscribe.filters.iter().map(|f| Arc::from(*f)).collect();
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
        self.keep_alive =
            (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500));
        self.limits = Limits {
            packet: (connect.maximum_packet as usize).min(1 << 28),
            in_flight: connect.receive_maximum.min(MAX_IN_FLIGHT).into(),
        };
        self.state = State::Opening(Box::new(Hello {
            client_id: connect.client_id.to_owned(),
            is_made,
            will: connect.will.as_ref().and_then(|will| self.will(will)),
            keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
        }));
        if is_made && !is_v5 && !connect.clean_start {
            return Err(Reason::ClientId);
        }
        if connect.client_id.len() > MAX_NAME {
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
            if will.topic.len() + will.properties.len() + will.payload.len() > MAX_WILL {
                return Err(Reason::QuotaExceeded);
            }
        }
        let password = connect.password.and_then(|p| std::str::from_utf8(p).ok());
        let is_token = |text: &&str| text.split('.').count() == 3;
        let token = password.filter(is_token).or(connect.user.filter(is_token));
        if token.is_some_and(|token| token.len() > MAX_TOKEN) {
            return Err(Reason::NotAuthorized);
        }
        let token = token.map(SecretString::from);
        (self.rooms.token, self.rooms.identity) = (
            token.clone().filter(|_| self.rooms.keeps_token),
            (!is_made).then(|| connect.client_id.to_owned()),
        );
        out.request(Ok(ClientMessage {
            id: None,
            dialect: None,
            kind: MessageType::Register,
            request: Request::Exchange(ExchangeRequest::Open {
                token,
                name: (!is_made).then(|| connect.client_id.to_owned()),
            }),
        }));
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
                        room: None,
                    };
                    self.send(&publication, 0, out);
                }
            }
            ExchangeReply::Subscribed { id, codes } => {
                let granted = codes.iter().map(|code| code.map_err(reason)).collect();
                self.asked_topics(*id, granted, out);
            }
            ExchangeReply::Unsubscribed { id, found } => {
                let code = |found: &bool| match found {
                    true => Reason::Success,
                    false => Reason::NoSubscription,
                };
                let mut codes: Vec<_> = found.iter().map(code).collect();
                let ice = self.unsubscribing.remove(id);
                if let Some(code) = ice.and_then(|place| codes.get_mut(place)) {
                    *code = Reason::Success;
                }
                let mut bytes = vec![];
                writer::unsubscribed(&mut bytes, self.version, *id, &codes);
                out.binary(&bytes);
            }
            ExchangeReply::Published { id, clients } => {
                let reason = match clients {
                    // Version 3 has no words for it: a message is not to be acknowledged and lost.
                    Err(Denied::TooFast) if self.version == Version::V3 => {
                        return self.fail(Reason::RateTooHigh, CloseCode::RateLimited, out);
                    }
                    Ok(0) => Reason::NoMatchingSubscribers,
                    Ok(_) => Reason::Success,
                    Err(denied) => reason(*denied),
                };
                self.published(*id, reason, out);
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
        self.read(&[], out);
    }
}

#[cfg(test)]
mod tests;
