//! Which calls are made, and which path each is to take. Pure.

use crate::kind::{Kind, TcpRule};
use callbox::cli::reach::Via;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Two kinds: the first side's and the second side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair(pub Kind, pub Kind);

/// The way that media takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// From peer to peer.
    Direct,
    /// Through the relay.
    Relay,
    /// There is none.
    None,
}

/// One call of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    /// Who calls whom.
    pub pair: Pair,
    /// The only transport of the relay that both sides use; `None`: each side uses the best one
    /// that its network passes.
    pub only: Option<Via>,
    /// Neither side gives away its own addresses.
    pub relay_only: bool,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = |name: &str| {
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| {
                let known: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
                format!("{name:?} is not a kind; the kinds are {}", known.join(", "))
            })
        };
        let (a, b) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is not a pair: write symmetric/no-udp"))?;
        Ok(Self(kind(a)?, kind(b)?))
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.0, self.1))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::None => "none",
        })
    }
}

impl Call {
    /// The path that the call is to take.
    #[must_use]
    pub fn expected(self) -> Path {
        let Pair(a, b) = self.pair;
        let reaches = |kind| self.expected_via(kind).is_some();
        if !self.relay_only && a.meets_directly(b) {
            Path::Direct
        } else if reaches(a) && reaches(b) {
            Path::Relay
        } else {
            Path::None
        }
    }

    /// The transport by which a side behind `kind` reaches the relay.
    #[must_use]
    pub fn expected_via(self, kind: Kind) -> Option<Via> {
        match self.only {
            Some(via) => passes(kind, via).then_some(via),
            None => best(kind),
        }
    }
}

/// Whether a network of `kind` lets its hosts reach the relay that way. TLS is on port 443.
#[must_use]
pub fn passes(kind: Kind, via: Via) -> bool {
    let rules = kind.rules();
    match via {
        Via::Udp => rules.udp,
        Via::Tcp => rules.tcp == TcpRule::Any,
        Via::Tls => true,
    }
}

fn best(kind: Kind) -> Option<Via> {
    [Via::Udp, Via::Tcp, Via::Tls]
        .into_iter()
        .find(|via| passes(kind, *via))
}

/// All 49 pairs.
#[must_use]
pub fn all_pairs() -> Vec<Pair> {
    let with = |a| Kind::ALL.into_iter().map(move |b| Pair(a, b));
    Kind::ALL.into_iter().flat_map(with).collect()
}

/// The calls between `pairs`. With `only`, one for each of its transports. Without, one in which
/// each side uses the best transport; where the relay is needed, also one for each transport that
/// both sides pass and that the first call did not show.
#[must_use]
pub fn calls(pairs: &[Pair], only: &[Via], relay_only: bool) -> Vec<Call> {
    let mut calls = vec![];
    for pair in pairs.iter().copied() {
        let call = |only| Call {
            pair,
            only,
            relay_only,
        };
        if !only.is_empty() {
            calls.extend(only.iter().map(|via| call(Some(*via))));
            continue;
        }
        calls.push(call(None));
        if call(None).expected() != Path::Relay {
            continue;
        }
        let shown = [best(pair.0), best(pair.1)];
        for via in [Via::Udp, Via::Tcp, Via::Tls] {
            let both_pass = passes(pair.0, via) && passes(pair.1, via);
            if both_pass && shown != [Some(via); 2] {
                calls.push(call(Some(via)));
            }
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_matrix_has_every_pair_and_every_transport() {
        let calls = calls(&all_pairs(), &[], false);
        for pair in all_pairs() {
            assert!(calls.iter().any(|call| call.pair == pair), "{pair}");
        }
        let relayed = |via| {
            calls
                .iter()
                .filter(|call| call.expected() == Path::Relay)
                .filter(|call| call.expected_via(call.pair.0) == Some(via))
                .count()
        };
        assert!(relayed(Via::Udp) > 5 && relayed(Via::Tcp) > 10 && relayed(Via::Tls) > 20);
        assert!(calls.iter().all(|call| call.expected() != Path::None));
        assert_eq!(calls.len(), 88);
    }

    #[test]
    fn a_transport_that_does_not_pass_leaves_no_path() {
        let call = |pair: &str, only| Call {
            pair: pair.parse().unwrap(),
            only,
            relay_only: false,
        };
        let tcp = Some(Via::Tcp);
        assert_eq!(call("none/tls-only", tcp).expected(), Path::None);
        assert_eq!(call("symmetric/no-udp", tcp).expected(), Path::Relay);
        assert_eq!(
            call("symmetric/no-udp", Some(Via::Udp)).expected(),
            Path::None
        );
        assert_eq!(call("full/symmetric", tcp).expected(), Path::Direct);
        assert_eq!(call("tls-only/no-udp", None).expected_via(Kind::NoUdp), tcp);
    }

    #[test]
    fn pairs_are_read_and_bad_ones_are_named() {
        let read: Result<Pair, String> = "symmetric/no-udp".parse();
        assert_eq!(read, Ok(Pair(Kind::Symmetric, Kind::NoUdp)));
        assert!("symmetric".parse::<Pair>().is_err());
        assert!(
            "cone/none"
                .parse::<Pair>()
                .unwrap_err()
                .contains("port-restricted")
        );
    }
}
