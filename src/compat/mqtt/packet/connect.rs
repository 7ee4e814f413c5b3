//! CONNECT, the packet with the most in it.

use super::{Connect, Publish, Reason, Seen, Version, forwardable, topic_name};
use crate::compat::mqtt::reader::Reader;

pub(super) fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, Reason> {
    let name = reader.text()?;
    let level = reader.byte()?;
    let version = match (name, level) {
        ("MQTT", 4) => Version::V3,
        ("MQTT", 5) => Version::V5,
        _ => return Err(Reason::UnsupportedVersion),
    };
    let flags = reader.byte()?;
    let keep_alive = reader.u16()?;
    let (has_will, will_qos, will_retain) = (flags & 4 != 0, flags >> 3 & 3, flags & 0x20 != 0);
    let (has_password, has_user) = (flags & 0x40 != 0, flags & 0x80 != 0);
    // MQTT 3.1.1, 3.1.2: reserved, and what belongs to a will that is not there.
    let is_unsound = flags & 1 != 0
        || will_qos > 2
        || !has_will && (will_qos != 0 || will_retain)
        || version == Version::V3 && has_password && !has_user;
    if is_unsound {
        return Err(Reason::Malformed);
    }
    let (mut receive_maximum, mut maximum_packet) = (u16::MAX, u32::MAX);
    let mut extended_auth = false;
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        let mut seen = Seen::default();
        while let Some(id) = properties.property_id()? {
            seen.note(id)?;
            match id {
                // Session expiry and maximum packet size.
                0x11 => drop(properties.u32()?),
                0x27 => maximum_packet = non_zero(properties.u32()?)?,
                0x21 => receive_maximum = non_zero(properties.u16()?)?,
                0x22 => drop(properties.u16()?),
                // Request response information, request problem information.
                0x17 | 0x19 => drop(properties.flag()?),
                0x26 => properties.pair()?,
                0x15 => {
                    properties.text()?;
                    extended_auth = true;
                }
                0x16 => drop(properties.binary()?),
                _ => return Err(Reason::Malformed),
            }
        }
    }
    let client_id = reader.text()?;
    let will = match has_will {
        false => None,
        true => Some(will(reader, version, will_qos, will_retain)?),
    };
    let user = has_user.then(|| reader.text()).transpose()?;
    let password = has_password.then(|| reader.binary()).transpose()?;
    Ok(Connect {
        version,
        clean_start: flags & 2 != 0,
        keep_alive,
        client_id,
        will,
        user,
        password,
        receive_maximum,
        maximum_packet,
        extended_auth,
    })
}

fn will<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    qos: u8,
    retain: bool,
) -> Result<Publish<'a>, Reason> {
    let mut forwarded: &[u8] = &[];
    if version == Version::V5 {
        let mut properties = reader.properties()?;
        let all = properties.0;
        let mut has_delay = false;
        let mut seen = Seen::default();
        while let Some(id) = properties.property_id()? {
            seen.note(id)?;
            match id {
                // The delay is the server's business: it does not go to subscribers.
                0x18 => {
                    properties.u32()?;
                    has_delay = true;
                }
                id => forwardable(id, &mut properties)?,
            }
        }
        // Cutting the delay out of borrowed bytes is not possible; with one, none are forwarded.
        forwarded = if has_delay { &[] } else { all };
    }
    Ok(Publish {
        duplicate: false,
        qos,
        retain,
        topic: topic_name(reader.text()?)?,
        id: 0,
        aliased: false,
        properties: forwarded,
        payload: reader.binary()?,
    })
}

fn non_zero<T: Default + PartialEq>(value: T) -> Result<T, Reason> {
    if value == T::default() {
        return Err(Reason::ProtocolError);
    }
    Ok(value)
}
