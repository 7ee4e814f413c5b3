//! Whom the relay may reach: ranges, the operator's lists and the box's own addresses.
//!
//! Judges addresses only; who asks and what lives on an address is decided by the engine.

mod ranges;

pub use ranges::Range;

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// The compiled `turn.allowed_peers` and `turn.denied_peers`, and the box's own addresses.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicy {
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
    own: Vec<IpAddr>,
}

/// What the policy says of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Reachable through a socket.
    Allow,
    /// An address of this box: reachable only inside the process, where a relay lives.
    Own {
        /// Listed in `allowed_peers`: what no relay answers may go out through the socket.
        listed: bool,
    },
    /// Not reachable.
    Deny(Denial),
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Listed in `denied_peers`.
    Listed,
    /// In a special range that no list opens, or one that `allowed_peers` does not open.
    Range(Range),
    /// An address of this box where no relay lives.
    Own,
}

impl PeerPolicy {
    /// Compiles the lists; `own` holds interface, loopback and announced addresses.
    pub fn new(allowed: Vec<IpNet>, denied: Vec<IpNet>, own: Vec<IpAddr>) -> Self {
        let own = own.into_iter().map(|ip| ip.to_canonical()).collect();
        Self {
            allowed,
            denied,
            own,
        }
    }

    /// Judges `ip`; an IPv6 address that carries IPv4 addresses is judged by each of them, and the
    /// strictest verdict holds.
    pub fn judge(&self, ip: IpAddr) -> Verdict {
        let inner = match ip {
            IpAddr::V4(_) => Embedded::default(),
            IpAddr::V6(ip) => ranges::embedded(ip),
        };
        if listed(&self.denied, ip) {
            return Verdict::Deny(Denial::Listed);
        }
        match inner {
            Embedded::None => self.judge_plain(ip),
            Embedded::Some(inner) => inner
                .into_iter()
                .flatten()
                .map(|inner| self.judge_plain(inner.into()))
                .max_by_key(|verdict| match verdict {
                    Verdict::Allow => 0,
                    Verdict::Own { listed: true } => 1,
                    Verdict::Own { listed: false } => 2,
                    Verdict::Deny(_) => 3,
                })
                .unwrap_or(Verdict::Deny(Denial::Range(Range::Unspecified))),
        }
    }

    fn judge_plain(&self, ip: IpAddr) -> Verdict {
        let range = ranges::special(ip);
        if let Some(range) = range.filter(|range| range.is_never_a_peer()) {
            return Verdict::Deny(Denial::Range(range));
        }
        if listed(&self.denied, ip) {
            return Verdict::Deny(Denial::Listed);
        }
        let allowed = listed(&self.allowed, ip);
        if self.own.contains(&ip) {
            return Verdict::Own { listed: allowed };
        }
        match range {
            Some(range) if !allowed => Verdict::Deny(Denial::Range(range)),
            _ => Verdict::Allow,
        }
    }
}

/// Whether an address is reached from the whole Internet.
pub fn is_public(ip: IpAddr) -> bool {
    PeerPolicy::default().judge(ip) == Verdict::Allow
}

fn listed(list: &[IpNet], ip: IpAddr) -> bool {
    list.iter().any(|net| net.contains(&ip))
}

/// The IPv4 addresses that an IPv6 address may stand for.
#[derive(Debug, Default, PartialEq, Eq)]
enum Embedded {
    /// A plain IPv6 address.
    #[default]
    None,
    /// A form that carries IPv4; the readings that could be a host.
    Some([Option<Ipv4Addr>; 4]),
}

#[cfg(test)]
mod tests;
