//! The seven kinds of network, in the terms of RFC 4787, and what they let two peers do.

use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

/// A kind of network that a program can be put behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Routed public addresses: no NAT, no filter.
    None,
    /// Full cone: endpoint-independent mapping and filtering.
    Full,
    /// Restricted cone: endpoint-independent mapping, address-dependent filtering.
    Restricted,
    /// Port-restricted cone: endpoint-independent mapping, address- and port-dependent filtering.
    PortRestricted,
    /// Symmetric: address- and port-dependent mapping and filtering.
    Symmetric,
    /// A firewall that drops UDP.
    NoUdp,
    /// A firewall that passes TCP to port 443, and only where the client begins with TLS.
    TlsOnly,
}

/// Which mapping an inside endpoint gets (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Mapping {
    /// The same public endpoint towards everybody.
    #[serde(rename = "EIM")]
    Independent,
    /// Another public endpoint for each remote address and port.
    #[serde(rename = "APDM")]
    AddressAndPort,
}

/// What is let in through a mapping (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Filtering {
    /// Everything.
    #[serde(rename = "EIF")]
    Independent,
    /// What comes from an address that was sent to.
    #[serde(rename = "ADF")]
    Address,
    /// What comes from an address and port that was sent to.
    #[serde(rename = "APDF")]
    AddressAndPort,
}

/// Which TCP connections are let out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpRule {
    /// All.
    Any,
    /// Those to port 443 that begin with a TLS handshake.
    TlsOn443,
}

/// What a kind does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Inside addresses are translated.
    pub translates: bool,
    /// The mapping behaviour.
    pub mapping: Mapping,
    /// The filtering behaviour.
    pub filtering: Filtering,
    /// UDP is passed.
    pub udp: bool,
    /// What of TCP is passed.
    pub tcp: TcpRule,
}

impl Kind {
    /// All kinds, the most open first.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Full,
        Self::Restricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::NoUdp,
        Self::TlsOnly,
    ];

    /// What the kind does to packets.
    #[must_use]
    pub fn rules(self) -> Rules {
        let nat = |mapping, filtering| Rules {
            translates: true,
            mapping,
            filtering,
            udp: true,
            tcp: TcpRule::Any,
        };
        let strict = nat(Mapping::Independent, Filtering::AddressAndPort);
        match self {
            Self::None => Rules {
                translates: false,
                ..nat(Mapping::Independent, Filtering::Independent)
            },
            Self::Full => nat(Mapping::Independent, Filtering::Independent),
            Self::Restricted => nat(Mapping::Independent, Filtering::Address),
            Self::PortRestricted => strict,
            Self::Symmetric => nat(Mapping::AddressAndPort, Filtering::AddressAndPort),
            Self::NoUdp => Rules {
                udp: false,
                ..strict
            },
            Self::TlsOnly => Rules {
                udp: false,
                tcp: TcpRule::TlsOn443,
                ..strict
            },
        }
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::NoUdp => "no-udp",
            Self::TlsOnly => "tls-only",
        }
    }

    /// Whether two peers behind these kinds find a direct path with ICE. Each sends to the
    /// other's mapped endpoint, so that its own filter expects an answer from there. That fails
    /// where UDP does not pass, and where one side's packets come from an endpoint that nobody was
    /// told of (APDM), while the other side lets in only the endpoint that it sent to (APDF).
    #[must_use]
    pub fn meets_directly(self, other: Self) -> bool {
        let (a, b) = (self.rules(), other.rules());
        let unreached = |from: Rules, to: Rules| {
            from.mapping == Mapping::AddressAndPort && to.filtering == Filtering::AddressAndPort
        };
        a.udp && b.udp && !unreached(a, b) && !unreached(b, a)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapping = match self.mapping {
            Mapping::Independent => "EIM",
            Mapping::AddressAndPort => "APDM",
        };
        let filtering = match self.filtering {
            Filtering::Independent => "EIF",
            Filtering::Address => "ADF",
            Filtering::AddressAndPort => "APDF",
        };
        match (self.udp, self.tcp) {
            (true, _) if !self.translates => write!(f, "no NAT, {mapping}/{filtering}"),
            (true, _) => write!(f, "{mapping}/{filtering}"),
            (false, TcpRule::Any) => f.write_str("no UDP, TCP passes"),
            (false, TcpRule::TlsOn443) => f.write_str("no UDP, only TLS on TCP 443 passes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_paths_exist_where_the_literature_has_them() {
        let direct: Vec<(&str, &str)> = Kind::ALL
            .iter()
            .flat_map(|a| Kind::ALL.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| a <= b && a.meets_directly(*b))
            .map(|(a, b)| (a.name(), b.name()))
            .collect();
        assert_eq!(
            direct,
            [
                ("none", "none"),
                ("none", "full"),
                ("none", "restricted"),
                ("none", "port-restricted"),
                ("none", "symmetric"),
                ("full", "full"),
                ("full", "restricted"),
                ("full", "port-restricted"),
                ("full", "symmetric"),
                ("restricted", "restricted"),
                ("restricted", "port-restricted"),
                ("restricted", "symmetric"),
                ("port-restricted", "port-restricted"),
            ]
        );
    }

    #[test]
    fn who_meets_whom_is_symmetric() {
        for a in Kind::ALL {
            for b in Kind::ALL {
                assert_eq!(a.meets_directly(b), b.meets_directly(a), "{a} {b}");
            }
        }
    }
}
