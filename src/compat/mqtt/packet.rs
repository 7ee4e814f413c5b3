//! The control packets of MQTT 3.1.1 and 5 that a client sends, read out of bytes.
//!
//! A packet borrows from the bytes it is read from. What both versions forbid is refused here; what
//! a version or this server does not offer is refused by the state of the connection.

mod connect;

pub use super::reason::Reason;

use super::reader::Reader;
use connect::connect;
use serde::{Deserialize, Serialize};

/// The longest topic name or filter, bytes: names are often URLs or hashes.
pub const MAX_TOPIC: usize = 512;
/// Filters in one SUBSCRIBE or UNSUBSCRIBE: as many as a connection may hold.
pub const MAX_FILTERS: usize = 1_000;

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// A packet of a client.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    /// The first packet.
    Connect(Box<Connect<'a>>),
    /// A message.
    Publish(Publish<'a>),
    /// Receipt of a message of QoS 1.
    PubAck(u16),
    /// The first receipt of a message of QoS 2.
    PubRec(u16),
    /// The release of a message of QoS 2.
    PubRel(u16),
    /// The last receipt of a message of QoS 2.
    PubComp(u16),
    /// A wish for topics.
    Subscribe(Subscribe<'a>),
    /// The end of such a wish.
    Unsubscribe(Unsubscribe<'a>),
    /// A sign of life.
    PingReq,
    /// A farewell; `true`: the will is to be published all the same.
    Disconnect(bool),
    /// Extended authentication.
    Auth,
}

/// The fields of CONNECT.
#[derive(Debug, PartialEq)]
pub struct Connect<'a> {
    /// 3.1.1 or 5.
    pub version: Version,
    /// Whether the client wants no older session.
    pub clean_start: bool,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// Empty: the server chooses.
    pub client_id: &'a str,
    /// The client's last message, if its socket is lost.
    pub will: Option<Publish<'a>>,
    /// The user name.
    pub user: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// How many messages of QoS 1 and 2 the client takes before it acknowledges one.
    pub receive_maximum: u16,
    /// The largest packet that the client takes.
    pub maximum_packet: u32,
    /// Whether the client wants extended authentication.
    pub extended_auth: bool,
}

/// The fields of PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publish<'a> {
    /// Whether the client sends it again.
    pub duplicate: bool,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is to be kept for later subscribers.
    pub retain: bool,
    /// Where to.
    pub topic: &'a str,
    /// Of QoS 1 and 2; never 0 there.
    pub id: u16,
    /// Whether a topic alias stands in for the topic.
    pub aliased: bool,
    /// Properties to be forwarded as they are (MQTT 5.0, 3.3.2.3).
    pub properties: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
}

/// The fields of SUBSCRIBE. The filters were checked for their form only.
#[derive(Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Of the packet.
    pub id: u16,
    /// Whether a subscription identifier was given.
    pub identified: bool,
    /// At least one.
    pub filters: Vec<Filter<'a>>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter<'a> {
    /// A topic, maybe with wildcards.
    pub filter: &'a str,
    /// The highest QoS wanted.
    pub qos: u8,
    /// Whether the client's own messages are not wanted.
    pub no_local: bool,
}

/// The fields of UNSUBSCRIBE.
#[derive(Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Of the packet.
    pub id: u16,
    /// At least one.
    pub filters: Vec<&'a str>,
}

impl<'a> Packet<'a> {
    /// Reads the packet whose first byte is `head` and whose remaining bytes are `body`. Before a
    /// CONNECT the version does not matter.
    ///
    /// # Errors
    /// The bytes are not a packet, or one that a client may not send.
    pub fn read(head: u8, body: &'a [u8], version: Version) -> Result<Self, Reason> {
        let mut reader = Reader(body);
        let flags = head & 0x0F;
        // MQTT 3.1.1, 2.2.2: the flags of every other packet are fixed.
        let fixed = match head >> 4 {
            3 => flags,
            6 | 8 | 10 => 2,
            _ => 0,
        };
        if flags != fixed {
            return Err(Reason::Malformed);
        }
        let packet = match head >> 4 {
            1 => Self::Connect(Box::new(connect(&mut reader)?)),
            3 => Self::Publish(publish(flags, &mut reader, version)?),
            4 => Self::PubAck(acknowledgement(&mut reader, version)?),
            5 => Self::PubRec(acknowledgement(&mut reader, version)?),
            6 => Self::PubRel(acknowledgement(&mut reader, version)?),
            7 => Self::PubComp(acknowledgement(&mut reader, version)?),
            8 => Self::Subscribe(subscribe(&mut reader, version)?),
            10 => Self::Unsubscribe(unsubscribe(&mut reader, version)?),
            12 => Self::PingReq,
            14 => Self::Disconnect(disconnect(&mut reader, version)?),
            15 if version == Version::V5 => {
                reader.0 = &[];
                Self::Auth
            }
            _ => return Err(Reason::ProtocolError),
        };
        if !reader.0.is_empty() {
            return Err(Reason::Malformed);
        }
        Ok(packet)
    }
}

fn publish<'a>(
    flags: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Publish<'a>, Reason> {
    let qos = flags >> 1 & 3;
    let duplicate = flags & 8 != 0;
    if qos > 2 || qos == 0 && duplicate {
        return Err(Reason::Malformed);
    }
    let topic = reader.text()?;
    let id = match qos {
        0 => 0,
        _ => packet_id(reader)?,
    };
    let mut aliased = false;
    let mut forwarded: &[u8] = &[];
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        forwarded = properties.0;
        let mut seen = Seen::default();
        while let Some(id) = properties.property_id()? {
            seen.note(id)?;
            match id {
                0x23 => {
                    properties.u16()?;
                    aliased = true;
                }
                id => forwardable(id, &mut properties)?,
            }
        }
    }
    Ok(Publish {
        duplicate,
        qos,
        retain: flags & 1 != 0,
        topic: if aliased { topic } else { topic_name(topic)? },
        id,
        aliased,
        properties: forwarded,
        payload: std::mem::take(&mut reader.0),
    })
}

/// Passes over a property that goes from publisher to subscribers.
pub(super) fn forwardable(id: u32, properties: &mut Reader<'_>) -> Result<(), Reason> {
    match id {
        // Payload format, message expiry, content type, response topic, correlation data, user.
        0x01 => drop(properties.flag()?),
        0x02 => drop(properties.u32()?),
        0x03 => drop(properties.text()?),
        0x08 => drop(topic_name(properties.text()?)?),
        0x09 => drop(properties.binary()?),
        0x26 => properties.pair()?,
        _ => return Err(Reason::Malformed),
    }
    Ok(())
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP: MQTT 5 may add a reason and properties, which change nothing
/// here.
fn acknowledgement(reader: &mut Reader<'_>, version: Version) -> Result<u16, Reason> {
    let id = packet_id(reader)?;
    if version == Version::V5 && !reader.0.is_empty() {
        reader.byte()?;
        about_reason(reader)?;
    }
    Ok(id)
}

fn disconnect(reader: &mut Reader<'_>, version: Version) -> Result<bool, Reason> {
    if version == Version::V3 || reader.0.is_empty() {
        return Ok(false);
    }
    let reason = reader.byte()?;
    about_reason(reader)?;
    // MQTT 5.0, 3.14.2.1: normal disconnection is the only one that drops the will.
    Ok(reason != 0)
}

/// Passes over the properties that explain a reason: session expiry, text, user, server.
fn about_reason(reader: &mut Reader<'_>) -> Result<(), Reason> {
    if reader.0.is_empty() {
        return Ok(());
    }
    let mut properties = reader.properties()?;
    let mut seen = Seen::default();
    while let Some(id) = properties.property_id()? {
        seen.note(id)?;
        match id {
            0x11 => drop(properties.u32()?),
            0x1F | 0x1C => drop(properties.text()?),
            0x26 => properties.pair()?,
            _ => return Err(Reason::Malformed),
        }
    }
    Ok(())
}

fn subscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, Reason> {
    let id = packet_id(reader)?;
    let mut identified = false;
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        while let Some(id) = properties.property_id()? {
            match id {
                0x0B => {
                    properties.variable()?;
                    identified = true;
                }
                0x26 => properties.pair()?,
                _ => return Err(Reason::Malformed),
            }
        }
    }
    let mut filters = vec![];
    while !reader.0.is_empty() {
        let filter = topic_filter(reader.text()?)?;
        let options = reader.byte()?;
        let (qos, no_local) = (options & 3, options & 4 != 0);
        let reserved = match version {
            Version::V3 => 0xFC,
            Version::V5 => 0xC0,
        };
        // 3 is neither a QoS nor, two bits further, a retain handling.
        if qos == 3 || options & reserved != 0 || options & 0x30 == 0x30 {
            return Err(Reason::Malformed);
        }
        if filters.len() >= MAX_FILTERS {
            return Err(Reason::QuotaExceeded);
        }
        filters.push(Filter {
            filter,
            qos,
            no_local,
        });
    }
    if filters.is_empty() {
        return Err(Reason::ProtocolError);
    }
    Ok(Subscribe {
        id,
        identified,
        filters,
    })
}

fn unsubscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Unsubscribe<'a>, Reason> {
    let id = packet_id(reader)?;
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        while let Some(id) = properties.property_id()? {
            match id {
                0x26 => properties.pair()?,
                _ => return Err(Reason::Malformed),
            }
        }
    }
    let mut filters = vec![];
    while !reader.0.is_empty() {
        if filters.len() >= MAX_FILTERS {
            return Err(Reason::QuotaExceeded);
        }
        filters.push(topic_filter(reader.text()?)?);
    }
    if filters.is_empty() {
        return Err(Reason::ProtocolError);
    }
    Ok(Unsubscribe { id, filters })
}

fn packet_id(reader: &mut Reader<'_>) -> Result<u16, Reason> {
    match reader.u16()? {
        0 => Err(Reason::Malformed),
        id => Ok(id),
    }
}

pub(super) fn topic_name(name: &str) -> Result<&str, Reason> {
    if name.is_empty() || name.len() > MAX_TOPIC || name.contains(['+', '#']) {
        return Err(Reason::TopicInvalid);
    }
    Ok(name)
}

/// MQTT 3.1.1, 4.7.1: `#` is the whole of the last level, `+` the whole of any level.
fn topic_filter(filter: &str) -> Result<&str, Reason> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_sound = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            level => !level.contains(['+', '#']),
        };
        if !is_sound {
            return Err(Reason::FilterInvalid);
        }
    }
    if filter.is_empty() || filter.len() > MAX_TOPIC {
        return Err(Reason::FilterInvalid);
    }
    Ok(filter)
}

/// Properties that were there: all but user properties may stand once.
#[derive(Default)]
pub(super) struct Seen(u64);

impl Seen {
    pub(super) fn note(&mut self, id: u32) -> Result<(), Reason> {
        let bit = 1u64.checked_shl(id).ok_or(Reason::Malformed)?;
        if id != 0x26 && self.0 & bit != 0 {
            return Err(Reason::ProtocolError);
        }
        self.0 |= bit;
        Ok(())
    }
}
