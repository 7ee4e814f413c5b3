//! The path between a client and the server, by which allocations are found.
//!
//! Plain values; this module knows no protocol.

use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// How a client talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A plain stream.
    Tcp,
    /// A stream inside TLS.
    Tls,
}

impl Transport {
    /// `udp`, `tcp` or `tls`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether messages follow each other in a stream, where ChannelData must be padded.
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }
}

/// The path between one client and the server; IPv4-mapped IPv6 is unwrapped by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiveTuple {
    /// Protocol between client and server.
    pub transport: Transport,
    /// The client as the server sees it: behind a NAT, its server-reflexive address.
    pub client: SocketAddr,
    /// The address of the server that the client asked.
    pub server: SocketAddr,
}

/// Looked up for every packet: the client's address tells nearly all five-tuples apart, equality
/// the rest.
impl Hash for FiveTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.client.ip() {
            IpAddr::V4(ip) => {
                state.write_u64(u64::from(u32::from(ip)) << 16 | u64::from(self.client.port()));
            }
            IpAddr::V6(ip) => {
                state.write_u128(ip.into());
                state.write_u16(self.client.port());
            }
        }
    }
}
