//! The packets of Socket.IO, versions 4 and 5 of its protocol: what stands behind the `4` of
//! Engine.IO.

/// Binary attachments of one event.
pub(super) const MAX_ATTACHMENTS: usize = 8;

/// The type of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    Refused,
    BinaryEvent,
    BinaryAck,
}

/// A packet, without the attachments that follow it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) kind: Kind,
    pub(super) attachments: usize,
    /// `/` where none is named.
    pub(super) namespace: &'a str,
    /// Where the sender wants an acknowledgement.
    pub(super) id: Option<u64>,
    /// JSON, or nothing.
    pub(super) data: &'a str,
}

impl<'a> Packet<'a> {
    /// Reads `type[attachments-][/namespace,][id][data]`.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let kind = match text.as_bytes().first()? {
            b'0' => Kind::Connect,
            b'1' => Kind::Disconnect,
            b'2' => Kind::Event,
            b'3' => Kind::Ack,
            b'4' => Kind::Refused,
            b'5' => Kind::BinaryEvent,
            b'6' => Kind::BinaryAck,
            _ => return None,
        };
        let mut rest = &text[1..];
        let mut attachments = 0;
        if matches!(kind, Kind::BinaryEvent | Kind::BinaryAck) {
            let (number, after) = rest.split_once('-')?;
            attachments = number.parse().ok().filter(|n| *n <= MAX_ATTACHMENTS)?;
            rest = after;
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        // `CONNECT` has no id, and an event's data is a list.
        let id = match digits {
            0 => None,
            _ => Some(rest[..digits].parse().ok()?),
        };
        Some(Self {
            kind,
            attachments,
            namespace,
            id,
            data: &rest[digits..],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_attachments_namespace_id_and_data() {
        let read = |text| Packet::read(text).unwrap();
        let packet = read("2[\"a\",1]");
        assert_eq!(
            (packet.kind, packet.namespace, packet.id),
            (Kind::Event, "/", None)
        );
        assert_eq!(packet.data, "[\"a\",1]");
        let packet = read("51-/admin,12[\"a\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!((packet.kind, packet.attachments), (Kind::BinaryEvent, 1));
        assert_eq!((packet.namespace, packet.id), ("/admin", Some(12)));
        assert!(packet.data.starts_with("[\"a\""));
        assert_eq!(read("0/admin").namespace, "/admin");
        assert_eq!(read("0{\"token\":\"x\"}").data, "{\"token\":\"x\"}");
        assert_eq!((read("1").kind, read("1").data), (Kind::Disconnect, ""));
        for text in [
            "",
            "7",
            "5[]",
            "59-[]",
            "5x-[]",
            "299999999999999999999[]",
            "x",
        ] {
            assert_eq!(Packet::read(text), None, "{text}");
        }
    }
}
