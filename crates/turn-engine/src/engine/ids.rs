//! Names of things in the tables: workers, relayed addresses, address families.
//!
//! Plain values; this module knows no protocol.

use std::net::IpAddr;
use std::time::Instant;

/// One worker of the box, and thereby its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// Names one live relayed address of one engine. A dual allocation has two. A key whose relay is
/// gone is harmless: its generation matches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayedKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl RelayedKey {
    /// Bits of `index`: what fits beside a worker and a generation in one atomic word.
    pub(crate) const INDEX_BITS: u32 = 24;

    /// The key as the 56 bits that a poller can carry along with a socket.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << Self::INDEX_BITS | u64::from(self.index)
    }

    /// The key that [`to_bits`](Self::to_bits) made `bits` of; higher bits are left out.
    pub fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32 & ((1 << Self::INDEX_BITS) - 1),
            generation: (bits >> Self::INDEX_BITS) as u32,
        }
    }

    pub(super) fn new(slot: u32, family: Family, generation: u32) -> Self {
        Self {
            index: slot << 1 | family as u32,
            generation,
        }
    }

    pub(super) fn slot(self) -> u32 {
        self.index >> 1
    }

    /// The family of the relayed address.
    pub fn family(self) -> Family {
        if self.index & 1 == 0 {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// Address family of a relayed or peer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl Family {
    /// Both families, in the order of their table index.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `ip` as written; a mapped IPv4 address is IPv6.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One reading of both clocks, taken once for a batch.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// Unix seconds, for credentials and nonces.
    pub unix: u64,
}
