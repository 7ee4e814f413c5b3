//! The special address ranges (IANA registries, RFC 6890 and successors) and the IPv6 forms that
//! carry an IPv4 address.

use super::Embedded;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range without ordinary hosts of the Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `240.0.0.0/4` with the broadcast address; IPv6 outside `2000::/3`.
    Reserved,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// RFC 1918, `fc00::/7`, `fec0::/10`.
    Private,
    /// `100.64.0.0/10`.
    CarrierNat,
    /// IETF protocol assignments, benchmarking, documentation, discard and other non-hosts.
    Special,
    /// Cloud metadata services outside the ranges above.
    Metadata,
}

impl Range {
    /// Whether no configuration opens the range.
    pub fn is_never_a_peer(self) -> bool {
        matches!(self, Self::Unspecified | Self::Multicast | Self::Reserved)
    }
}

/// The special range that `ip` lies in. IPv6 is read as it stands, embedded addresses aside.
pub(super) fn special(ip: IpAddr) -> Option<Range> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<Range> {
    Some(match ip.octets() {
        [0, ..] => Range::Unspecified,
        [224..=239, ..] => Range::Multicast,
        [240..=255, ..] => Range::Reserved,
        [127, ..] => Range::Loopback,
        [169, 254, ..] => Range::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Range::Private,
        [100, 64..=127, ..] => Range::CarrierNat,
        [192, 0, 0, _]
        | [192, 0, 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Range::Special,
        // Azure's wire server: a public address that is the hypervisor on every Azure host.
        [168, 63, 129, 16] => Range::Metadata,
        _ => return None,
    })
}

fn special_v6(ip: Ipv6Addr) -> Option<Range> {
    Some(match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Range::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Range::Loopback,
        [0xff00..=0xffff, ..] => Range::Multicast,
        [0xfe80..=0xfebf, ..] => Range::LinkLocal,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Range::Private,
        [0x100, 0, 0, 0..=1, ..] => Range::Special,
        // IETF protocol assignments: ORCHID, benchmarking and the like. Teredo carries IPv4.
        [0x2001, 0..=0x1ff, ..] => Range::Special,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Range::Special,
        [0x5f00, ..] => Range::Special,
        [0x2000..=0x3fff, ..] => return None,
        _ => Range::Reserved,
    })
}

/// Finds the IPv4 addresses inside `ip`. Where the place inside the address is not known, every
/// reading counts, except those in 0/8, which are padding of another reading.
pub(super) fn embedded(ip: Ipv6Addr) -> Embedded {
    let octets = ip.octets();
    let v4 = |at: [usize; 4]| {
        let ip = Ipv4Addr::from(at.map(|i| octets[i]));
        (ip.octets()[0] != 0).then_some(ip)
    };
    let low = v4([12, 13, 14, 15]);
    let readings = match ip.segments() {
        // `::` and `::1` are themselves; the rest of ::/96 is "IPv4-compatible" (RFC 4291).
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => return Embedded::None,
        [0, 0, 0, 0, 0, 0, ..]
        // IPv4-mapped (RFC 4291) and IPv4-translated (RFC 2765).
        | [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        // The well-known NAT64 prefix (RFC 6052).
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => [low, None, None, None],
        // The local-use NAT64 prefix (RFC 8215) with the places of RFC 6052 for /48, /56, /64.
        [0x64, 0xff9b, 1, ..] => {
            [low, v4([6, 7, 9, 10]), v4([7, 9, 10, 11]), v4([9, 10, 11, 12])]
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => [v4([2, 3, 4, 5]), None, None, None],
        // Teredo (RFC 4380): the server, and the client with every bit inverted.
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from([12, 13, 14, 15].map(|i: usize| !octets[i]));
            [Some(client), v4([4, 5, 6, 7]), None, None]
        }
        _ => return Embedded::None,
    };
    Embedded::Some(readings)
}
