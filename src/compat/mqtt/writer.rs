//! The control packets that this server sends.

use super::packet::{Publish, Reason, Version};

/// What CONNACK announces beside its reason, to a client of MQTT 5.
#[derive(Debug, Clone, Copy)]
pub struct Announced<'a> {
    /// The largest packet, bytes.
    pub maximum_packet: u32,
    /// Messages of QoS 1 and 2 that may be unacknowledged.
    pub receive_maximum: u16,
    /// Seconds, where they differ from what the client wants.
    pub keep_alive: Option<u16>,
    /// The client id, where the server made it.
    pub client_id: Option<&'a str>,
    /// `iceServers` as JSON, where the box has a relay.
    pub ice_servers: Option<&'a str>,
}

/// Accepts a connection. No session is ever present.
pub fn accept(out: &mut Vec<u8>, version: Version, announced: Announced<'_>) {
    let Announced {
        maximum_packet,
        receive_maximum,
        keep_alive,
        client_id,
        ice_servers,
    } = announced;
    if version == Version::V3 {
        out.extend([0x20, 2, 0, 0]);
        return;
    }
    let mut properties = vec![];
    // Session expiry 0; retained messages, wildcards, identifiers, shared subscriptions: none.
    properties.extend([0x11, 0, 0, 0, 0, 0x25, 0, 0x28, 0, 0x29, 0, 0x2A, 0]);
    properties.push(0x27);
    properties.extend(maximum_packet.to_be_bytes());
    properties.push(0x21);
    properties.extend(receive_maximum.to_be_bytes());
    // Topic aliases: none.
    properties.extend([0x22, 0, 0]);
    if let Some(keep_alive) = keep_alive {
        properties.push(0x13);
        properties.extend(keep_alive.to_be_bytes());
    }
    if let Some(client_id) = client_id {
        properties.push(0x12);
        string(&mut properties, client_id);
    }
    if let Some(ice_servers) = ice_servers {
        properties.push(0x26);
        string(&mut properties, "ice-servers");
        string(&mut properties, ice_servers);
    }
    let mut body = vec![0, Reason::Success as u8];
    variable(&mut body, properties.len());
    body.extend(properties);
    packet(out, 0x20, &[&body]);
}

/// Refuses a connection, in the words of its version.
pub fn refuse(out: &mut Vec<u8>, version: Version, reason: Reason) {
    match version {
        Version::V3 => {
            // MQTT 3.1.1, 3.2.2.3: five codes, of which "unavailable" is the most general.
            let code = match reason {
                Reason::UnsupportedVersion => 1,
                Reason::ClientId => 2,
                Reason::BadCredentials => 4,
                Reason::NotAuthorized => 5,
                _ => 3,
            };
            out.extend([0x20, 2, 0, code]);
        }
        Version::V5 => out.extend([0x20, 3, 0, reason as u8, 0]),
    }
}

/// Says goodbye with a reason; 3.1.1 has no such packet.
pub fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason) {
    if version == Version::V5 {
        out.extend([0xE0, 1, reason as u8]);
    }
}

/// A packet that acknowledges another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ack {
    /// Of QoS 1.
    PubAck = 0x40,
    /// Of QoS 2, first.
    PubRec = 0x50,
    /// Of QoS 2, release.
    PubRel = 0x62,
    /// Of QoS 2, last.
    PubComp = 0x70,
}

/// Acknowledges a publication.
pub fn acknowledge(out: &mut Vec<u8>, version: Version, ack: Ack, id: u16, reason: Reason) {
    let [high, low] = id.to_be_bytes();
    match (version, reason) {
        (Version::V3, _) | (_, Reason::Success) => out.extend([ack as u8, 2, high, low]),
        (Version::V5, reason) => out.extend([ack as u8, 3, high, low, reason as u8]),
    }
}

/// Answers a SUBSCRIBE with a code for each filter.
pub fn subscribed(out: &mut Vec<u8>, version: Version, id: u16, codes: &[Result<u8, Reason>]) {
    let codes: Vec<u8> = codes
        .iter()
        .map(|code| match (code, version) {
            (Ok(qos), _) => *qos,
            (Err(_), Version::V3) => 0x80,
            (Err(reason), Version::V5) => *reason as u8,
        })
        .collect();
    packet(
        out,
        0x90,
        &[&id.to_be_bytes(), no_properties(version), &codes],
    );
}

/// Answers an UNSUBSCRIBE, to a client of MQTT 5 with a code for each filter.
pub fn unsubscribed(out: &mut Vec<u8>, version: Version, id: u16, codes: &[Reason]) {
    let codes: Vec<u8> = match version {
        Version::V3 => vec![],
        Version::V5 => codes.iter().map(|code| *code as u8).collect(),
    };
    packet(
        out,
        0xB0,
        &[&id.to_be_bytes(), no_properties(version), &codes],
    );
}

/// Answers a ping.
pub fn pong(out: &mut Vec<u8>) {
    out.extend([0xD0, 0]);
}

/// A publication to a subscriber. `properties` are dropped for a client of 3.1.1.
pub fn publish(out: &mut Vec<u8>, version: Version, publish: &Publish<'_>) {
    let head =
        0x30 | u8::from(publish.duplicate) << 3 | publish.qos << 1 | u8::from(publish.retain);
    let topic_length = u16::try_from(publish.topic.len()).unwrap_or(u16::MAX);
    let id = publish.id.to_be_bytes();
    let id: &[u8] = if publish.qos == 0 { &[] } else { &id };
    let mut length = vec![];
    let properties = match version {
        Version::V3 => &[][..],
        Version::V5 => {
            variable(&mut length, publish.properties.len());
            publish.properties
        }
    };
    packet(
        out,
        head,
        &[
            &topic_length.to_be_bytes(),
            publish.topic.as_bytes(),
            id,
            &length,
            properties,
            publish.payload,
        ],
    );
}

/// How many bytes [`publish`] writes at most, for a topic, properties and payload of that length.
pub fn publish_length(publish: &Publish<'_>) -> usize {
    5 + 2 + publish.topic.len() + 2 + 4 + publish.properties.len() + publish.payload.len()
}

fn no_properties(version: Version) -> &'static [u8] {
    match version {
        Version::V3 => &[],
        Version::V5 => &[0],
    }
}

fn packet(out: &mut Vec<u8>, head: u8, parts: &[&[u8]]) {
    out.push(head);
    variable(out, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(u16::MAX.into());
    // Not beyond 65,535 after the cut.
    out.extend((end as u16).to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// A variable byte integer: seven bits a byte, the lowest first.
fn variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}
