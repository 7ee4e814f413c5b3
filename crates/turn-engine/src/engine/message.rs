//! Reading STUN messages and ChannelData where they lie, without copying or allocating.
//!
//! One parser for everything that arrives: what integrity and FINGERPRINT were checked over is
//! what the attributes are read from. Numbers and names are those of the `stun` crate; its decoder
//! copies every attribute and takes truncated addresses, so it only writes here, and serves the
//! tests as a second opinion.

use super::codec::*;
use crc::{CRC_32_ISO_HDLC, Crc, Table};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.11).
pub(super) const ATTR_ADDITIONAL_ADDRESS_FAMILY: AttrType = AttrType(0x8000);
/// ADDRESS-ERROR-CODE (RFC 8656 section 18.12).
pub(super) const ATTR_ADDRESS_ERROR_CODE: AttrType = AttrType(0x8001);
/// ICMP (RFC 8656 section 18.13).
pub(super) const ATTR_ICMP: AttrType = AttrType(0x8004);

/// RESPONSE-ADDRESS, SOURCE-ADDRESS and CHANGED-ADDRESS (RFC 3489 section 11.2).
const ATTR_RESPONSE_ADDRESS: AttrType = AttrType(0x0002);
pub(super) const ATTR_SOURCE_ADDRESS: AttrType = AttrType(0x0004);
pub(super) const ATTR_CHANGED_ADDRESS: AttrType = AttrType(0x0005);

/// Bytes before the attributes of a STUN message.
pub(super) const HEADER: usize = 20;
/// Bytes before the value of an attribute.
pub(super) const ATTRIBUTE_HEADER: usize = 4;
/// Bytes before the payload of a ChannelData message.
pub(super) const CHANNEL_HEADER: usize = 4;
/// Bytes of FINGERPRINT with its header.
const FINGERPRINT_SIZE: usize = 8;

/// The ends of the channel numbers in use: 0x5000 to 0x7FFF are reserved since RFC 8656, but
/// clients of RFC 5766 take them.
pub(super) const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;

/// Built once: the `stun` crate builds its table for every message.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// The 96 bits by which request and response find each other.
pub(super) type TransactionId = [u8; 12];

/// As [`TransactionId`] in RFC 3489, which knew no magic cookie.
pub(super) type ClassicTransactionId = [u8; 16];

/// One well-formed STUN message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    raw: &'a [u8],
    /// Where the attributes end that count: at the first integrity attribute or FINGERPRINT.
    end: usize,
    integrity: Option<Integrity<'a>>,
    integrity_sha256: Option<Integrity<'a>>,
    has_fingerprint: bool,
}

/// An integrity attribute and where it starts.
#[derive(Debug, Clone, Copy)]
struct Integrity<'a> {
    at: usize,
    value: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message that fills `datagram` exactly; `None` if it is none, or its FINGERPRINT is
    /// wrong or not the last attribute.
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let header = datagram.get(..HEADER)?;
        let length = usize::from(read_u16(header, 2));
        if header[0] & 0xc0 != 0
            || header[4..8] != MAGIC_COOKIE.to_be_bytes()
            || !length.is_multiple_of(4)
            || datagram.len() != HEADER + length
        {
            return None;
        }
        let mut message = Self {
            raw: datagram,
            end: datagram.len(),
            integrity: None,
            integrity_sha256: None,
            has_fingerprint: false,
        };
        for (at, kind, value) in (Attributes {
            raw: datagram,
            at: HEADER,
        }) {
            let value = value?;
            match kind {
                ATTR_FINGERPRINT => {
                    message.end = message.end.min(at);
                    message.has_fingerprint = true;
                    let last = at + FINGERPRINT_SIZE == datagram.len();
                    if !last || value != fingerprint(&datagram[..at]) {
                        return None;
                    }
                }
                // Nothing counts behind an integrity attribute but the stronger one.
                ATTR_MESSAGE_INTEGRITY if message.end == datagram.len() => {
                    message.end = at;
                    message.integrity = Some(Integrity { at, value });
                }
                ATTR_MESSAGE_INTEGRITY_SHA256
                    if message.integrity_sha256.is_none()
                        && (message.end == datagram.len() || message.integrity.is_some()) =>
                {
                    message.end = message.end.min(at);
                    message.integrity_sha256 = Some(Integrity { at, value });
                }
                _ => {}
            }
        }
        Some(message)
    }

    /// Method and class.
    pub(super) fn kind(&self) -> MessageType {
        let mut kind = MessageType::default();
        kind.read_value(read_u16(self.raw, 0));
        kind
    }

    pub(super) fn method(&self) -> Method {
        self.kind().method
    }

    pub(super) fn class(&self) -> MessageClass {
        self.kind().class
    }

    pub(super) fn transaction(&self) -> TransactionId {
        self.raw[8..HEADER]
            .try_into()
            .expect("the header holds a transaction id")
    }

    /// Length of the message with its header.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether the sender tells STUN from other protocols by FINGERPRINT.
    pub(super) fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// The attributes that count, in order.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (AttrType, &'a [u8])> + use<'a> {
        Attributes {
            raw: &self.raw[..self.end],
            at: HEADER,
        }
        .filter_map(|(_, kind, value)| Some((kind, value?)))
    }

    /// The first attribute of `kind`; RFC 8489 section 14 lets a receiver ignore others.
    pub(super) fn get(&self, kind: AttrType) -> Option<&'a [u8]> {
        self.attributes()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The comprehension-required attributes that this server does not know.
    pub(super) fn unknown_attributes(&self) -> impl Iterator<Item = AttrType> + use<'a> {
        self.attributes()
            .map(|(kind, _)| kind)
            .filter(|k| k.required() && !KNOWN.contains(k))
    }

    /// MESSAGE-INTEGRITY, if present: what it covers, and its value.
    pub(super) fn integrity(&self) -> Option<(Covered<'a>, &'a [u8])> {
        self.integrity
            .map(|found| (self.covered(found), found.value))
    }

    /// MESSAGE-INTEGRITY-SHA256, if present: what it covers, and its value.
    pub(super) fn integrity_sha256(&self) -> Option<(Covered<'a>, &'a [u8])> {
        self.integrity_sha256
            .map(|found| (self.covered(found), found.value))
    }

    fn covered(&self, integrity: Integrity<'a>) -> Covered<'a> {
        let end = integrity.at + ATTRIBUTE_HEADER + integrity.value.len();
        let length = (end - HEADER) as u16;
        let [a, b] = length.to_be_bytes();
        Covered {
            head: [self.raw[0], self.raw[1], a, b],
            rest: &self.raw[4..integrity.at],
        }
    }

    /// Decodes the value of an XOR'ed address attribute; `None` unless it is exact.
    pub(super) fn xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let (&[_, family, p0, p1], ip) = value.split_first_chunk::<4>()?;
        let port = u16::from_be_bytes([p0, p1]) ^ (MAGIC_COOKIE >> 16) as u16;
        let mask = address_mask(&self.transaction());
        let ip = match family {
            FAMILY_V4 => IpAddr::V4(Ipv4Addr::from(xor::<4>(ip.try_into().ok()?, &mask))),
            FAMILY_V6 => IpAddr::V6(Ipv6Addr::from(xor::<16>(ip.try_into().ok()?, &mask))),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// What an integrity attribute covers: the message up to it, with the length that ends behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered<'a> {
    pub(super) head: [u8; 4],
    pub(super) rest: &'a [u8],
}

/// Address family numbers of RFC 8489 section 14.1.
pub(super) const FAMILY_V4: u8 = 1;
pub(super) const FAMILY_V6: u8 = 2;

/// What the server understands of the comprehension-required range; what has no meaning in a
/// request is ignored there.
const KNOWN: &[AttrType] = &[
    ATTR_MAPPED_ADDRESS,
    ATTR_USERNAME,
    ATTR_ERROR_CODE,
    ATTR_UNKNOWN_ATTRIBUTES,
    ATTR_CHANNEL_NUMBER,
    ATTR_LIFETIME,
    ATTR_XOR_PEER_ADDRESS,
    ATTR_DATA,
    ATTR_REALM,
    ATTR_NONCE,
    ATTR_XOR_RELAYED_ADDRESS,
    ATTR_REQUESTED_ADDRESS_FAMILY,
    ATTR_EVEN_PORT,
    ATTR_REQUESTED_TRANSPORT,
    ATTR_DONT_FRAGMENT,
    ATTR_PASSWORD_ALGORITHM,
    ATTR_USER_HASH,
    ATTR_XORMAPPED_ADDRESS,
    ATTR_RESERVATION_TOKEN,
];

/// Walks attributes; a value that does not fit is `None` and ends the walk.
struct Attributes<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (usize, AttrType, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        if at >= self.raw.len() {
            return None;
        }
        // The length of a message is a multiple of four, so a header always fits.
        let kind = AttrType(read_u16(self.raw, at));
        let length = usize::from(read_u16(self.raw, at + 2));
        let start = at + ATTRIBUTE_HEADER;
        self.at = start + length.next_multiple_of(4);
        let fits = self.at <= self.raw.len();
        Some((at, kind, fits.then(|| &self.raw[start..start + length])))
    }
}

/// A Binding request of RFC 3489.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassicBinding {
    pub(super) transaction: ClassicTransactionId,
    /// The flags of CHANGE-REQUEST, as in RFC 5780.
    pub(super) change: u8,
}

impl ClassicBinding {
    /// Reads a request that fills `datagram` exactly; `None` for anything else. One that wants its
    /// answer sent to somebody else (RESPONSE-ADDRESS) is nothing that this server knows.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        let (&[0, 1, l0, l1], rest) = datagram.split_first_chunk::<4>()? else {
            return None;
        };
        let (&transaction, attributes) = rest.split_first_chunk::<16>()?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if transaction.starts_with(&MAGIC_COOKIE.to_be_bytes())
            || length != attributes.len()
            || !length.is_multiple_of(4)
        {
            return None;
        }
        let mut change = 0;
        for (_, kind, value) in (Attributes {
            raw: datagram,
            at: HEADER,
        }) {
            match (kind, value?) {
                (ATTR_RESPONSE_ADDRESS, _) => return None,
                (ATTR_CHANGE_REQUEST, &[_, _, _, flags]) => change = flags & 0x06,
                (ATTR_CHANGE_REQUEST, _) => return None,
                _ => {}
            }
        }
        Some(Self {
            transaction,
            change,
        })
    }
}

/// Number and payload of a ChannelData message. Bytes behind the payload are padding.
pub(super) fn channel_data(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (&[n0, n1, l0, l1], rest) = datagram.split_first_chunk::<CHANNEL_HEADER>()?;
    let payload = rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
    Some((u16::from_be_bytes([n0, n1]), payload))
}

/// Whether both begin as ChannelData messages of one channel and one length.
pub(super) fn same_channel(one: &[u8], other: &[u8]) -> bool {
    match one.first_chunk::<CHANNEL_HEADER>() {
        Some(head @ [0x40..=0x7f, ..]) => other.starts_with(head),
        _ => false,
    }
}

/// The FINGERPRINT value of a message of which `before` comes before that attribute.
pub(super) fn fingerprint(before: &[u8]) -> [u8; 4] {
    (CRC.checksum(before) ^ FINGERPRINT_XOR_VALUE).to_be_bytes()
}

/// Appends an address attribute that is not XOR'ed.
pub(super) fn push_address(message: &mut Vec<u8>, kind: AttrType, address: SocketAddr) {
    let [p0, p1] = address.port().to_be_bytes();
    message.extend(kind.value().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            message.extend([0, 8, 0, FAMILY_V4, p0, p1]);
            message.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            message.extend([0, 20, 0, FAMILY_V6, p0, p1]);
            message.extend(ip.octets());
        }
    }
}

/// Appends an XOR'ed address attribute of a message with this transaction id.
pub(super) fn push_xor_address(
    message: &mut Vec<u8>,
    kind: AttrType,
    address: SocketAddr,
    transaction: &TransactionId,
) {
    let mask = address_mask(transaction);
    let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
    message.extend(kind.value().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            message.extend([0, 8, 0, FAMILY_V4, port[0], port[1]]);
            message.extend(xor(ip.octets(), &mask));
        }
        IpAddr::V6(ip) => {
            message.extend([0, 20, 0, FAMILY_V6, port[0], port[1]]);
            message.extend(xor(ip.octets(), &mask));
        }
    }
}

fn address_mask(transaction: &TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    mask
}

fn xor<const N: usize>(mut octets: [u8; N], mask: &[u8; 16]) -> [u8; N] {
    octets
        .iter_mut()
        .zip(mask)
        .for_each(|(octet, mask)| *octet ^= mask);
    octets
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
