//! What travels in a measured packet: our own stamp, and the TURN framing around it. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The channel that every client binds; numbers are private to an allocation.
pub(crate) const CHANNEL: u16 = 0x4000;
/// Length of a stamp, so the smallest payload.
pub(crate) const STAMP: usize = 22;

const CHANNEL_HEADER: usize = 4;
const STUN_HEADER: usize = 20;
const COOKIE: u32 = 0x2112_A442;
const SEND_INDICATION: u16 = 0x0016;
const DATA_INDICATION: u16 = 0x0017;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
/// What payloads are filled with behind the stamp.
static FILLING: [u8; 1 << 16] = [0xA5; 1 << 16];

/// How a client wraps payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No TURN at all: the bare forwarder.
    Raw,
    /// ChannelData (RFC 8656 section 12.4).
    Channel,
    /// Send and Data indications (RFC 8656 section 11).
    Indication,
}

/// The head of every payload: who sent it, as part of which burst, when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) client: u32,
    pub(crate) burst: u32,
    /// Packets in that burst.
    pub(crate) packets: u16,
    /// Payload size of all of them but the last.
    pub(crate) size: u16,
    /// Rises when outstanding packets are given up, so that late ones are told apart.
    pub(crate) epoch: u16,
    /// Nanoseconds since the generator's start.
    pub(crate) sent: u64,
}

impl Stamp {
    /// Reads the head of a payload; `None` if it is too short.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let head: &[u8; STAMP] = payload.first_chunk()?;
        Some(Self {
            client: u32::from_be_bytes(*head.first_chunk()?),
            burst: u32::from_be_bytes(*head[4..].first_chunk()?),
            packets: u16::from_be_bytes(*head[8..].first_chunk()?),
            size: u16::from_be_bytes(*head[10..].first_chunk()?),
            epoch: u16::from_be_bytes(*head[12..].first_chunk()?),
            sent: u64::from_be_bytes(*head[14..].first_chunk()?),
        })
    }

    /// Appends a payload of `size` bytes that begins with this stamp.
    pub(crate) fn write(&self, out: &mut Vec<u8>, size: usize) {
        out.extend_from_slice(&self.client.to_be_bytes());
        out.extend_from_slice(&self.burst.to_be_bytes());
        out.extend_from_slice(&self.packets.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.sent.to_be_bytes());
        out.extend_from_slice(&FILLING[..size.saturating_sub(STAMP)]);
    }
}

/// Appends one framed payload of `size` bytes; on streams ChannelData is padded to four bytes.
pub(crate) fn frame(
    out: &mut Vec<u8>,
    framing: Framing,
    stream: bool,
    peer: SocketAddrV4,
    stamp: &Stamp,
    size: usize,
) {
    let padding = (4 - size % 4) % 4;
    match framing {
        Framing::Raw => stamp.write(out, size),
        Framing::Channel => {
            out.extend_from_slice(&CHANNEL.to_be_bytes());
            out.extend_from_slice(&(size as u16).to_be_bytes());
            stamp.write(out, size);
            if stream {
                out.extend_from_slice(&FILLING[..padding]);
            }
        }
        Framing::Indication => {
            let attributes = 12 + 4 + size + padding;
            out.extend_from_slice(&SEND_INDICATION.to_be_bytes());
            out.extend_from_slice(&(attributes as u16).to_be_bytes());
            out.extend_from_slice(&COOKIE.to_be_bytes());
            out.extend_from_slice(&stamp.sent.to_be_bytes());
            out.extend_from_slice(&stamp.burst.to_be_bytes());
            out.extend_from_slice(&XOR_PEER_ADDRESS.to_be_bytes());
            out.extend_from_slice(&[0, 8, 0, 1]);
            out.extend_from_slice(&(peer.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
            out.extend_from_slice(&(u32::from(*peer.ip()) ^ COOKIE).to_be_bytes());
            out.extend_from_slice(&DATA.to_be_bytes());
            out.extend_from_slice(&(size as u16).to_be_bytes());
            stamp.write(out, size);
            out.extend_from_slice(&FILLING[..padding]);
        }
    }
}

/// Bytes of one framed payload in a datagram.
pub(crate) fn framed_size(framing: Framing, size: usize) -> usize {
    match framing {
        Framing::Raw => size,
        Framing::Channel => CHANNEL_HEADER + size,
        Framing::Indication => STUN_HEADER + 12 + 4 + size.next_multiple_of(4),
    }
}

/// The payload of what a server sent; `None` for control messages and what cannot be read.
pub(crate) fn payload(framing: Framing, message: &[u8]) -> Option<&[u8]> {
    match framing {
        Framing::Raw => Some(message),
        Framing::Channel | Framing::Indication => match message.first()? >> 6 {
            1 => {
                let size = u16::from_be_bytes(*message.get(2..)?.first_chunk()?);
                message.get(CHANNEL_HEADER..CHANNEL_HEADER + usize::from(size))
            }
            _ => data_attribute(message),
        },
    }
}

/// The length of the first whole message of a stream, padding included; `None` if it is not all
/// there yet.
pub(crate) fn stream_message(buffered: &[u8]) -> Option<usize> {
    let size = usize::from(u16::from_be_bytes(*buffered.get(2..)?.first_chunk()?));
    let whole = if buffered[0] >> 6 == 1 {
        CHANNEL_HEADER + size.next_multiple_of(4)
    } else {
        STUN_HEADER + size
    };
    (buffered.len() >= whole).then_some(whole)
}

/// An address in the six bytes of the bare forwarder's registration.
pub(crate) fn write_address(address: SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    [a, b, c, d, high, low]
}

/// Reads a registration; `None` if it is not six bytes.
pub(crate) fn read_address(bytes: &[u8]) -> Option<SocketAddrV4> {
    let &[a, b, c, d, high, low] = <&[u8; 6]>::try_from(bytes).ok()?;
    Some(SocketAddrV4::new(
        Ipv4Addr::new(a, b, c, d),
        u16::from_be_bytes([high, low]),
    ))
}

fn data_attribute(message: &[u8]) -> Option<&[u8]> {
    if u16::from_be_bytes(*message.first_chunk()?) != DATA_INDICATION {
        return None;
    }
    let mut rest = message.get(STUN_HEADER..)?;
    loop {
        let kind = u16::from_be_bytes(*rest.first_chunk()?);
        let size = usize::from(u16::from_be_bytes(*rest.get(2..)?.first_chunk()?));
        if kind == DATA {
            return rest.get(4..4 + size);
        }
        rest = rest.get(4 + size.next_multiple_of(4)..)?;
    }
}
