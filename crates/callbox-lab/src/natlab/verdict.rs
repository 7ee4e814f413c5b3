//! What a call was to show, what it showed, and whether that agrees. Pure.

use super::matrix::{Call, Pair, Path};
use super::peer::Selected;
use super::rtc::MESSAGES;
use crate::nat::Counts;
use crate::packet::Protocol;
use callbox::cli::reach::Via;
use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Packets that passed one side's router while both sides talked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// From and to the other side's addresses.
    pub direct: u64,
    /// From and to the box.
    pub relayed: u64,
}

impl Packets {
    /// Sums counts up: `other` are the addresses of the other side, `box_ips` those of the box. What the
    /// filter dropped has not passed. `direct` is where a direct path leads, which may be an address of
    /// the machine where the box is not the lab's own.
    #[must_use]
    pub fn of(
        counts: &Counts,
        other: &[IpAddr],
        box_ips: &[IpAddr],
        direct: Option<SocketAddr>,
    ) -> Self {
        let mut packets = Self::default();
        for ((protocol, remote), count) in counts {
            if other.contains(&remote.ip()) || direct == Some(*remote) {
                packets.direct += count.r#in;
            } else if box_ips.contains(&remote.ip()) {
                // A segment of a stream has several messages in it, and its answer is a packet too.
                packets.relayed += match protocol {
                    Protocol::Udp => count.r#in,
                    Protocol::Tcp => count.r#in + count.out,
                };
            }
        }
        packets
    }
}

/// Why a call has no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unconnected {
    /// Both sides looked for a path, and ICE found none.
    NoPath(String),
    /// A side did not come so far, or the lab failed.
    Fault(String),
}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoPath(why) | Self::Fault(why)) = self;
        f.pad(why)
    }
}

impl From<String> for Unconnected {
    fn from(why: String) -> Self {
        Self::Fault(why)
    }
}

impl From<Unconnected> for String {
    fn from(why: Unconnected) -> Self {
        why.to_string()
    }
}

/// What one phase of a call showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Of both sides.
    pub selected: [Selected; 2],
    /// Of both sides' routers.
    pub packets: [Packets; 2],
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `symmetric/no-udp`.
    pub pair: String,
    /// The transport that both sides were held to.
    pub only: Option<Via>,
    /// The path that RFC 5780's terms make one expect.
    pub expected: Path,
    /// The path that was taken.
    pub actual: Path,
    /// How often the call was made: more than once where webrtc-rs took another path by chance, or where
    /// its question to a STUN server was lost on a link that loses packets.
    pub tries: u32,
    /// By which transport each side reached the relay, if it did.
    pub transports: [Option<Via>; 2],
    /// From the offer to the open data channel.
    pub connect_ms: Option<u64>,
    /// At both sides' routers.
    pub packets: Option<[Packets; 2]>,
    /// The selected pairs of candidates.
    pub selected: Option<[String; 2]>,
    /// After the restart of the box, or the change of address.
    pub after: Option<After>,
    /// Why it is not as expected.
    pub fault: Option<String>,
}

/// What a call showed after a disturbance in its middle.
#[derive(Debug, Clone, Serialize)]
pub struct After {
    /// `restart` or `move`.
    pub what: &'static str,
    /// The path that is taken now.
    pub actual: Path,
    /// How often ICE was restarted until the path was not one that webrtc-rs took by chance.
    pub tries: u32,
    /// Whether data went on without a new offer.
    pub uninterrupted: bool,
    /// From the disturbance to data in both directions.
    pub recover_ms: u64,
}

impl Row {
    /// A line about a call of which nothing is known yet.
    #[must_use]
    pub fn new(call: Call) -> Self {
        Self {
            pair: call.pair.to_string(),
            only: call.only,
            expected: call.expected(),
            actual: Path::None,
            tries: 1,
            transports: [None; 2],
            connect_ms: None,
            packets: None,
            selected: None,
            after: None,
            fault: None,
        }
    }

    /// Whether the call went as expected.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.fault.is_none()
    }

    /// Judges a call that did not connect. Where no path is expected, only ICE may have failed: of a
    /// side that could not join, nothing is known.
    #[must_use]
    pub fn unconnected(mut self, why: &Unconnected) -> Self {
        let is_expected = self.expected == Path::None && matches!(why, Unconnected::NoPath(_));
        if !is_expected {
            self.fault = Some(format!("not connected: {why}"));
        }
        self
    }

    /// Judges a call that connected.
    #[must_use]
    pub fn connected(mut self, call: Call, after: Duration, seen: &Seen) -> Self {
        self.connect_ms = u64::try_from(after.as_millis()).ok();
        self.actual = path(seen);
        self.transports = [0, 1].map(|side| seen.selected[side].local);
        self.packets = Some(seen.packets);
        self.selected = Some([0, 1].map(|side| seen.selected[side].text.clone()));
        self.fault = fault(call, seen);
        self
    }

    /// Judges what came after a disturbance; `Err` says why nothing came.
    #[must_use]
    pub fn disturbed(mut self, call: Call, after: Result<(After, Seen), String>) -> Self {
        match after {
            Ok((after, seen)) => {
                let what = after.what;
                let must_go_on = what == "restart" && self.actual == Path::Direct;
                self.fault = self.fault.or_else(|| {
                    if must_go_on && !after.uninterrupted {
                        return Some("a direct call stopped when the box was restarted".into());
                    }
                    fault(call, &seen).map(|fault| format!("after the {what}: {fault}"))
                });
                self.after = Some(after);
            }
            Err(why) => self.fault = self.fault.or(Some(why)),
        }
        self
    }
}

/// Where direct packets of both sides go; nowhere if the path is a relayed one.
#[must_use]
pub fn direct_ends(selected: &[Selected; 2]) -> [Option<SocketAddr>; 2] {
    match path_of(selected) {
        Path::Direct => [selected[0].to, selected[1].to],
        _ => [None; 2],
    }
}

/// The path by the selected pairs of candidates.
#[must_use]
pub fn path(seen: &Seen) -> Path {
    path_of(&seen.selected)
}

fn path_of(selected: &[Selected; 2]) -> Path {
    let is_relayed = |selected: &Selected| selected.local.is_some() || selected.remote;
    match selected.iter().any(is_relayed) {
        true => Path::Relay,
        false => Path::Direct,
    }
}

/// Why a connected call is not what it was to be.
fn fault(call: Call, seen: &Seen) -> Option<String> {
    let (expected, actual) = (call.expected(), path(seen));
    if expected != actual {
        return Some(format!("expected {expected}, went {actual}"));
    }
    for (side, packets) in seen.packets.iter().enumerate() {
        let name = ["first", "second"][side];
        let Packets { direct, relayed } = *packets;
        match actual {
            Path::Relay if direct > 0 => {
                return Some(format!(
                    "{direct} packets came directly at the {name} side's router, although the \
                     candidates are relayed ones"
                ));
            }
            Path::Relay if relayed < MESSAGES => {
                return Some(format!(
                    "only {relayed} packets passed between the {name} side's router and the box"
                ));
            }
            Path::Direct if direct < MESSAGES => {
                return Some(format!(
                    "only {direct} packets came directly at the {name} side's router"
                ));
            }
            _ => {}
        }
    }
    let Pair(a, b) = call.pair;
    for (kind, selected) in [a, b].into_iter().zip(&seen.selected) {
        let wanted = call.expected_via(kind);
        if selected.local.is_some() && selected.local != wanted {
            let name = |via: Option<Via>| via.map_or("none".into(), |via| via.to_string());
            return Some(format!(
                "the side behind {kind} reached the relay by {}, and by {} was expected",
                name(selected.local),
                name(wanted)
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(pair: &str) -> Call {
        Call {
            pair: pair.parse().unwrap(),
            only: None,
            relay_only: false,
        }
    }

    fn selected(local: Option<Via>, remote: bool) -> Selected {
        Selected {
            local,
            remote,
            to: None,
            text: String::new(),
        }
    }

    fn seen(local: [Option<Via>; 2], direct: u64, relayed: u64) -> Seen {
        Seen {
            selected: [
                selected(local[0], local[1].is_some()),
                selected(local[1], local[0].is_some()),
            ],
            packets: [Packets { direct, relayed }; 2],
        }
    }

    #[test]
    fn candidates_and_packets_have_to_agree() {
        let udp = Some(Via::Udp);
        let symmetric = call("symmetric/symmetric");
        assert_eq!(fault(symmetric, &seen([udp, udp], 0, 100)), None);
        let leaked = fault(symmetric, &seen([udp, None], 3, 100)).unwrap();
        assert!(leaked.contains("3 packets came directly"), "{leaked}");
        assert!(fault(symmetric, &seen([udp, udp], 0, 3)).is_some());
        assert_eq!(
            fault(symmetric, &seen([None, None], 100, 0)).unwrap(),
            "expected relay, went direct"
        );
        let full = call("full/full");
        assert_eq!(fault(full, &seen([None, None], 60, 3)), None);
        assert!(fault(full, &seen([None, None], 3, 60)).is_some());
    }

    #[test]
    fn the_transport_is_the_best_that_passes() {
        let (udp, tcp) = (Some(Via::Udp), Some(Via::Tcp));
        let mixed = call("symmetric/no-udp");
        assert_eq!(fault(mixed, &seen([udp, tcp], 0, 100)), None);
        let wrong = fault(mixed, &seen([udp, Some(Via::Tls)], 0, 100)).unwrap();
        assert_eq!(
            wrong,
            "the side behind no-udp reached the relay by tls, and by tcp was expected"
        );
    }

    #[test]
    fn packets_are_sorted_by_whose_they_are() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut counts = Counts::new();
        let mut add = |protocol, remote: &str, out, r#in, filtered| {
            let count = crate::nat::Count {
                out,
                r#in,
                filtered,
            };
            counts.insert((protocol, remote.parse().unwrap()), count);
        };
        add(Protocol::Udp, "198.18.0.2:1", 9, 4, 5);
        add(Protocol::Udp, "198.18.0.1:50000", 9, 7, 0);
        add(Protocol::Tcp, "198.18.0.1:443", 3, 2, 0);
        add(Protocol::Udp, "198.19.255.1:3478", 1, 1, 0);
        let packets = |direct| {
            let (other, of_box) = (ip("198.18.0.2"), ip("198.18.0.1"));
            let Packets { direct, relayed } = Packets::of(&counts, &[other], &[of_box], direct);
            (direct, relayed)
        };
        assert_eq!(packets(None), (4, 12));
        let outside = "198.18.0.1:50000".parse().unwrap();
        assert_eq!(packets(Some(outside)), (11, 5), "the end of a direct path");
    }

    #[test]
    fn a_call_that_is_to_fail_is_good_when_it_fails() {
        let mut none = call("none/tls-only");
        none.only = Some(Via::Tcp);
        let no_path = Unconnected::NoPath("no path was found in time".into());
        assert!(Row::new(none).unconnected(&no_path).is_good());
        assert!(!Row::new(call("none/full")).unconnected(&no_path).is_good());
        let refused = Unconnected::Fault("the box answered room-full".into());
        let refused = Row::new(none).unconnected(&refused);
        assert_eq!(
            refused.fault.as_deref(),
            Some("not connected: the box answered room-full")
        );
    }
}
