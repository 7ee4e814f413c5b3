//! Engine.IO, versions 3 and 4: how packets stand in the bodies of requests.
//!
//! Over a WebSocket a packet is a message: a text that begins with the digit of its type, or bytes,
//! which in version 3 begin with the type as well. Here they have the same form.

use crate::signal::Message;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Between packets in version 4.
const SEPARATOR: char = '\u{1e}';
/// Packets in one body: more than a client gathers between two requests.
const MAX_PACKETS: usize = 256;

/// The version of Engine.IO, named by `EIO` in the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revision {
    /// Clients 1 and 2 of Socket.IO; the client pings.
    V3,
    /// Clients 3 and 4; the server pings.
    V4,
}

/// The body is not one of Engine.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The packets in the body of a POST; `is_binary` is its type `application/octet-stream`.
///
/// # Errors
/// The body is not one of that version.
pub fn read(revision: Revision, is_binary: bool, body: &[u8]) -> Result<Vec<Message>, Malformed> {
    let packets = match (revision, is_binary) {
        (Revision::V3, true) => read_bytes(body)?,
        (Revision::V3, false) => read_lengths(std::str::from_utf8(body).map_err(|_| Malformed)?)?,
        (Revision::V4, _) => {
            let body = std::str::from_utf8(body).map_err(|_| Malformed)?;
            let packets = body.split(SEPARATOR).take(MAX_PACKETS + 1);
            packets
                .map(|packet| packet_of(revision, packet))
                .collect::<Result<_, _>>()?
        }
    };
    match packets.len() <= MAX_PACKETS {
        true => Ok(packets),
        false => Err(Malformed),
    }
}

/// `length:packet…`, the length in UTF-16 code units.
fn read_lengths(mut rest: &str) -> Result<Vec<Message>, Malformed> {
    let mut packets = vec![];
    while !rest.is_empty() && packets.len() <= MAX_PACKETS {
        let (length, after) = rest.split_once(':').ok_or(Malformed)?;
        let length: usize = length.parse().map_err(|_| Malformed)?;
        let (mut units, mut end) = (0, 0);
        for c in after.chars() {
            if units >= length {
                break;
            }
            units += c.len_utf16();
            end += c.len_utf8();
        }
        if units != length {
            return Err(Malformed);
        }
        packets.push(packet_of(Revision::V3, &after[..end])?);
        rest = &after[end..];
    }
    Ok(packets)
}

/// `0` for text or `1` for bytes, the digits of the length, 0xFF, the packet, and so on.
fn read_bytes(mut rest: &[u8]) -> Result<Vec<Message>, Malformed> {
    let mut packets = vec![];
    while let [kind, after @ ..] = rest
        && packets.len() <= MAX_PACKETS
    {
        let digits = after.iter().position(|b| *b == 0xff).ok_or(Malformed)?;
        if digits == 0 || digits > 9 || after[..digits].iter().any(|digit| *digit > 9) {
            return Err(Malformed);
        }
        let length = after[..digits]
            .iter()
            .fold(0, |n, d| n * 10 + usize::from(*d));
        let (packet, next) = after[digits + 1..]
            .split_at_checked(length)
            .ok_or(Malformed)?;
        packets.push(match kind {
            0 => Message::Text(
                std::str::from_utf8(packet)
                    .map_err(|_| Malformed)?
                    .to_owned(),
            ),
            1 if !packet.is_empty() => Message::Binary(packet.to_vec()),
            _ => return Err(Malformed),
        });
        rest = next;
    }
    Ok(packets)
}

/// A packet that is text, or bytes as base64: `b…`, in version 3 with the type behind the `b`.
pub(super) fn packet_of(revision: Revision, packet: &str) -> Result<Message, Malformed> {
    let Some(encoded) = packet.strip_prefix('b') else {
        return match packet.is_empty() {
            true => Err(Malformed),
            false => Ok(Message::Text(packet.to_owned())),
        };
    };
    let (mut bytes, encoded) = match revision {
        Revision::V4 => (vec![], encoded),
        Revision::V3 => {
            let kind = encoded
                .bytes()
                .next()
                .filter(u8::is_ascii_digit)
                .ok_or(Malformed)?;
            (vec![kind - b'0'], &encoded[1..])
        }
    };
    let decoded = STANDARD
        .decode(encoded)
        .or_else(|_| STANDARD_NO_PAD.decode(encoded));
    bytes.append(&mut decoded.map_err(|_| Malformed)?);
    Ok(Message::Binary(bytes))
}

/// The body of an answer to GET, and whether it is bytes. `base64` is for clients of version 3 that
/// cannot read bytes.
pub fn write(revision: Revision, base64: bool, packets: &[Message]) -> (bool, Vec<u8>) {
    let has_bytes = packets
        .iter()
        .any(|packet| matches!(packet, Message::Binary(_)));
    if revision == Revision::V3 && has_bytes && !base64 {
        let mut body = vec![];
        for packet in packets {
            let (kind, bytes) = match packet {
                Message::Text(text) => (0, text.as_bytes()),
                Message::Binary(bytes) => (1, &bytes[..]),
            };
            body.push(kind);
            body.extend(bytes.len().to_string().bytes().map(|digit| digit - b'0'));
            body.push(0xff);
            body.extend_from_slice(bytes);
        }
        return (true, body);
    }
    let mut body = String::new();
    for packet in packets {
        let encoded;
        let text = match (packet, revision) {
            (Message::Text(text), _) => text,
            (Message::Binary(bytes), Revision::V4) => {
                encoded = format!("b{}", STANDARD.encode(bytes));
                &encoded
            }
            (Message::Binary(bytes), Revision::V3) => {
                let (kind, bytes) = bytes.split_first().unwrap_or((&4, &[]));
                encoded = format!("b{kind}{}", STANDARD.encode(bytes));
                &encoded
            }
        };
        match revision {
            Revision::V3 => {
                let _ = write!(body, "{}:", text.encode_utf16().count());
            }
            Revision::V4 if !body.is_empty() => body.push(SEPARATOR),
            Revision::V4 => {}
        }
        body.push_str(text);
    }
    (false, body.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Message {
        Message::Text(text.to_owned())
    }

    #[test]
    fn bodies_of_version_4_have_separators_and_base64() {
        let packets = [text("4hello"), Message::Binary(vec![1, 2, 3]), text("2")];
        let (is_binary, body) = write(Revision::V4, false, &packets);
        assert_eq!(
            (is_binary, &body[..]),
            (false, &b"4hello\x1ebAQID\x1e2"[..])
        );
        assert_eq!(read(Revision::V4, false, &body).unwrap(), packets);
    }

    #[test]
    fn bodies_of_version_3_have_lengths_in_utf16() {
        let packets = [text("4€💜"), text("2")];
        let (is_binary, body) = write(Revision::V3, false, &packets);
        assert_eq!((is_binary, &body[..]), (false, "4:4€💜1:2".as_bytes()));
        assert_eq!(read(Revision::V3, false, &body).unwrap(), packets);
        let packets = [text("4a"), Message::Binary(vec![4, 1, 2, 3])];
        let (is_binary, body) = write(Revision::V3, true, &packets);
        assert_eq!((is_binary, &body[..]), (false, &b"2:4a6:b4AQID"[..]));
        assert_eq!(read(Revision::V3, false, &body).unwrap(), packets);
        let (is_binary, body) = write(Revision::V3, false, &packets);
        assert_eq!(
            (is_binary, &body[..]),
            (true, &b"\0\x02\xff4a\x01\x04\xff\x04\x01\x02\x03"[..])
        );
        assert_eq!(read(Revision::V3, true, &body).unwrap(), packets);
    }

    #[test]
    fn what_is_not_of_the_version_is_malformed() {
        for body in [
            &b""[..],
            b"4a\x1e",
            b"\xff",
            b"b!",
            &[b"2\x1e".repeat(300), b"2".to_vec()].concat(),
        ] {
            assert_eq!(read(Revision::V4, false, body), Err(Malformed), "{body:?}");
        }
        for body in [
            &b"4a"[..],
            b"9:4a",
            b":4a",
            b"-1:4",
            b"0:",
            b"1:b",
            "1:💜".as_bytes(),
            &b"1:2".repeat(300),
        ] {
            assert_eq!(read(Revision::V3, false, body), Err(Malformed), "{body:?}");
        }
        for body in [
            &b"\0"[..],
            b"\0\xff4",
            b"\0\x09\xff4",
            b"\x02\x01\xff4",
            b"\x01\0\xff",
            b"\0\x0a\xff4",
        ] {
            assert_eq!(read(Revision::V3, true, body), Err(Malformed), "{body:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_panics(
            texts in proptest::collection::vec("[0-6][^\u{1e}]{0,20}", 1..5),
            bytes: Vec<u8>,
            noise: Vec<u8>,
        ) {
            let mut packets: Vec<_> = texts.iter().map(|t| text(t)).collect();
            packets.push(Message::Binary([vec![4], bytes].concat()));
            for (revision, base64) in [(Revision::V3, false), (Revision::V3, true), (Revision::V4, false)] {
                let (is_binary, body) = write(revision, base64, &packets);
                proptest::prop_assert_eq!(read(revision, is_binary, &body), Ok(packets.clone()));
                let _ = read(revision, is_binary, &noise);
            }
        }
    }
}
