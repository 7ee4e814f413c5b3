//! IP packets with UDP or TCP inside: read, given other addresses, written again. Pure.

use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// A hop fewer than Linux sends with: one router in between.
const HOP_LIMIT: u8 = 63;

/// The transport protocols that pass a NAT here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub src: SocketAddr,
    /// Where it goes.
    pub dst: SocketAddr,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Traffic class.
    class: u8,
    /// The transport header and what follows it.
    segment: Vec<u8>,
}

/// The flags of a TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// A connection begins.
    #[must_use]
    pub fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// A connection ends at once.
    #[must_use]
    pub fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }
}

impl Packet {
    /// Reads an IP packet. `None` for what is not passed: other protocols, fragments, extension
    /// headers, and what is cut short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let version = bytes.first()? >> 4;
        let (src, dst, class, protocol, segment): (IpAddr, IpAddr, u8, u8, &[u8]) = match version {
            4 => {
                let header = usize::from(bytes[0] & 0x0f) * 4;
                if header < IPV4_HEADER || bytes.len() < header {
                    return None;
                }
                let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                // More fragments, or an offset.
                if u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0 {
                    return None;
                }
                let address = |at: usize| {
                    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
                };
                let segment = bytes.get(header..total)?;
                let (src, dst) = (address(12).into(), address(16).into());
                (src, dst, bytes[1], bytes[9], segment)
            }
            6 => {
                if bytes.len() < IPV6_HEADER {
                    return None;
                }
                let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
                let address = |at: usize| {
                    let octets: [u8; 16] = bytes[at..at + 16].try_into().ok()?;
                    Some(IpAddr::V6(Ipv6Addr::from(octets)))
                };
                let segment = bytes.get(IPV6_HEADER..IPV6_HEADER + length)?;
                let class = (bytes[0] << 4) | (bytes[1] >> 4);
                (address(8)?, address(24)?, class, bytes[6], segment)
            }
            _ => return None,
        };
        let (protocol, least) = match protocol {
            UDP_PROTOCOL => (Protocol::Udp, UDP_HEADER),
            TCP_PROTOCOL => (Protocol::Tcp, TCP_HEADER),
            _ => return None,
        };
        if segment.len() < least {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        Some(Self {
            src: SocketAddr::new(src, port(0)),
            dst: SocketAddr::new(dst, port(2)),
            protocol,
            class,
            segment: segment.to_vec(),
        })
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Self {
        let mut segment = vec![0; UDP_HEADER];
        let length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
        segment[4..6].copy_from_slice(&length.to_be_bytes());
        segment.extend_from_slice(payload);
        Self {
            src,
            dst,
            protocol: Protocol::Udp,
            class: 0,
            segment,
        }
    }

    /// The answer that ends the TCP connection which `self` belongs to, as its far end would.
    #[must_use]
    pub fn reset(&self) -> Option<Self> {
        let flags = self.flags()?;
        if flags.rst() {
            return None;
        }
        let number = |at: usize| {
            let bytes = [0, 1, 2, 3].map(|i| self.segment[at + i]);
            u32::from_be_bytes(bytes)
        };
        let length = u32::try_from(self.payload().len()).unwrap_or(0) + u32::from(flags.syn());
        let acknowledged = number(4).wrapping_add(length);
        let mut segment = vec![0; TCP_HEADER];
        segment[4..8].copy_from_slice(&number(8).to_be_bytes());
        segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        segment[12] = 0x50;
        // RST and ACK.
        segment[13] = 0x14;
        Some(Self {
            src: self.dst,
            dst: self.src,
            protocol: Protocol::Tcp,
            class: 0,
            segment,
        })
    }

    /// The flags of its TCP header.
    #[must_use]
    pub fn flags(&self) -> Option<TcpFlags> {
        (self.protocol == Protocol::Tcp).then(|| TcpFlags(self.segment[13]))
    }

    /// What follows the transport header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let header = match self.protocol {
            Protocol::Udp => UDP_HEADER,
            Protocol::Tcp => usize::from(self.segment[12] >> 4) * 4,
        };
        self.segment.get(header..).unwrap_or_default()
    }

    /// Its length on the wire.
    #[must_use]
    pub fn length(&self) -> usize {
        let header = match self.dst {
            SocketAddr::V4(_) => IPV4_HEADER,
            SocketAddr::V6(_) => IPV6_HEADER,
        };
        header + self.segment.len()
    }

    /// The IP packet. `None` where source and destination are of two families.
    #[must_use]
    pub fn write(mut self) -> Option<Vec<u8>> {
        self.segment[0..2].copy_from_slice(&self.src.port().to_be_bytes());
        self.segment[2..4].copy_from_slice(&self.dst.port().to_be_bytes());
        let (protocol, at) = match self.protocol {
            Protocol::Udp => (UDP_PROTOCOL, 6),
            Protocol::Tcp => (TCP_PROTOCOL, 16),
        };
        self.segment[at..at + 2].fill(0);
        let length = u16::try_from(self.segment.len()).ok()?;
        let mut sum = Sum::default();
        let mut packet = Vec::with_capacity(IPV6_HEADER + self.segment.len());
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = length.checked_add(20)?;
                packet.extend_from_slice(&[0x45, self.class]);
                packet.extend_from_slice(&total.to_be_bytes());
                // Not to be fragmented, so that no identification is needed (RFC 6864).
                packet.extend_from_slice(&[0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
                packet.extend_from_slice(&src.octets());
                packet.extend_from_slice(&dst.octets());
                let header = Sum::default().add(&packet).folded();
                packet[10..12].copy_from_slice(&header.to_be_bytes());
                sum = sum.add(&src.octets()).add(&dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                packet.extend_from_slice(&[0x60 | (self.class >> 4), self.class << 4, 0, 0]);
                packet.extend_from_slice(&length.to_be_bytes());
                packet.extend_from_slice(&[protocol, HOP_LIMIT]);
                packet.extend_from_slice(&src.octets());
                packet.extend_from_slice(&dst.octets());
                sum = sum.add(&src.octets()).add(&dst.octets());
            }
            _ => return None,
        }
        let sum = sum
            .add(&[0, protocol])
            .add(&length.to_be_bytes())
            .add(&self.segment)
            .folded();
        // A UDP checksum of zero would say that there is none.
        let sum = match (self.protocol, sum) {
            (Protocol::Udp, 0) => u16::MAX,
            (_, sum) => sum,
        };
        self.segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(&self.segment);
        Some(packet)
    }
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u64::from(u16::from_be_bytes([pair[0], low]))
        });
        Self(self.0 + words.sum::<u64>())
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // Folded above.
        #[allow(clippy::cast_possible_truncation)]
        let sum = sum as u16;
        !sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A receiver adds everything up, the checksum included, and finds zero.
    fn sums_to_zero(packet: &[u8]) -> bool {
        let v4 = packet[0] >> 4 == 4;
        let (header, addresses, protocol) = match v4 {
            true => (20, 12..20, packet[9]),
            false => (40, 8..40, packet[6]),
        };
        let segment = &packet[header..];
        let length = u16::try_from(segment.len()).unwrap();
        let transport = Sum::default()
            .add(&packet[addresses])
            .add(&[0, protocol])
            .add(&length.to_be_bytes())
            .add(segment);
        (!v4 || Sum::default().add(&packet[..20]).folded() == 0) && transport.folded() == 0
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(packet) = Packet::parse(&bytes) {
                let _ = packet.payload();
                let _ = packet.reset();
                prop_assert!(packet.write().is_some());
            }
        }

        #[test]
        fn a_datagram_is_read_as_it_was_written(
            payload in proptest::collection::vec(any::<u8>(), 0..1400),
            ports: (u16, u16),
            v6: bool,
        ) {
            let (src, dst) = match v6 {
                false => (address("10.1.2.3:1"), address("198.18.0.1:1")),
                true => (address("[fd00::2]:1"), address("[2001:2::1]:1")),
            };
            let src = SocketAddr::new(src.ip(), ports.0);
            let dst = SocketAddr::new(dst.ip(), ports.1);
            let bytes = Packet::udp(src, dst, &payload).write().unwrap();
            prop_assert!(sums_to_zero(&bytes));
            let read = Packet::parse(&bytes).unwrap();
            prop_assert_eq!((read.src, read.dst, read.payload()), (src, dst, &payload[..]));
            prop_assert_eq!(read.length(), bytes.len());
        }

        #[test]
        fn a_translated_packet_carries_valid_checksums(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut packet = Packet::udp(address("[fd00::2]:5000"), address("[64:ff9b::1]:53"), &payload);
            packet.src = address("198.18.0.7:6000");
            packet.dst = address("8.8.8.8:53");
            let bytes = packet.write().unwrap();
            prop_assert!(sums_to_zero(&bytes));
            let read = Packet::parse(&bytes).unwrap();
            prop_assert_eq!(read.payload(), &payload[..]);
        }
    }

    #[test]
    fn fragments_and_other_protocols_are_not_read() {
        let whole = Packet::udp(address("10.0.0.1:1"), address("10.0.0.2:2"), b"x");
        let whole = whole.write().unwrap();
        let mut fragment = whole.clone();
        fragment[6] |= 0x20;
        assert_eq!(Packet::parse(&fragment), None);
        let mut icmp = whole;
        icmp[9] = 1;
        assert_eq!(Packet::parse(&icmp), None);
    }
}
