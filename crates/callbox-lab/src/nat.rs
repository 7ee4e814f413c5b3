//! A NAT: packet, now → packet. Pure: no clock, no socket; randomness comes from a seed.
//!
//! Both families are translated alike. A kind with endpoint-independent mapping keeps the port
//! where it is free, which for IPv6 makes it a translation of prefixes (RFC 6296) with a filter.

use crate::kind::{Filtering, Kind, Mapping, Rules, TcpRule};
use crate::packet::{Packet, Protocol};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// RFC 4787 REQ-5: no less than two minutes.
const UDP_IDLE: Duration = Duration::from_secs(150);
/// RFC 5382 REQ-5: no less than two hours and four minutes.
const TCP_IDLE: Duration = Duration::from_secs(2 * 3_600 + 240);
/// Mappings kept; beyond that the one that is idle the longest goes.
const MAX_MAPPINGS: usize = 8_192;
/// Remote endpoints that one mapping lets in; beyond that no new one is learned.
const MAX_REMOTES: usize = 4_096;
/// Remote endpoints that are counted one by one; the rest is not counted.
const MAX_COUNTED: usize = 4_096;
/// Ports below are for servers.
const FIRST_PORT: u16 = 1_024;
/// A TLS record of type handshake.
const TLS_HANDSHAKE: u8 = 22;
const HTTPS: u16 = 443;

/// What becomes of a packet from inside.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// It goes out, translated.
    Forward(Packet),
    /// It is answered with this packet to the inside.
    Reject(Packet),
    /// It is dropped.
    Drop,
}

/// What passed, by remote endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Packets that left.
    pub out: u64,
    /// Packets that came in and were let through.
    pub r#in: u64,
    /// Packets that came in and were dropped by the filter.
    pub filtered: u64,
}

/// Counts of all remote endpoints.
pub type Counts = BTreeMap<(Protocol, SocketAddr), Count>;

/// The addresses of one family on the public side.
#[derive(Debug, Clone, Default)]
pub struct Public {
    /// Translated packets come from these, one of each family.
    pub addresses: Vec<IpAddr>,
}

impl Public {
    fn of_family(&self, like: IpAddr) -> Option<IpAddr> {
        let same = |ip: &&IpAddr| ip.is_ipv4() == like.is_ipv4();
        self.addresses.iter().find(same).copied()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    protocol: Protocol,
    inside: SocketAddr,
    /// Only where the mapping depends on it.
    remote: Option<SocketAddr>,
}

struct Entry {
    key: Key,
    used: Instant,
    addresses: HashSet<IpAddr>,
    endpoints: HashSet<SocketAddr>,
    /// TCP flows whose first bytes were seen and are those of TLS.
    is_tls: bool,
}

/// A NAT with its mappings.
pub struct Nat {
    rules: Rules,
    public: Public,
    random: SmallRng,
    by_inside: HashMap<Key, SocketAddr>,
    by_public: HashMap<(Protocol, SocketAddr), Entry>,
    counts: Counts,
}

impl Nat {
    /// A NAT of `kind` with public addresses; `seed` decides the ports that it picks.
    #[must_use]
    pub fn new(kind: Kind, public: Public, seed: u64) -> Self {
        Self {
            rules: kind.rules(),
            public,
            random: SmallRng::seed_from_u64(seed),
            by_inside: HashMap::new(),
            by_public: HashMap::new(),
            counts: Counts::new(),
        }
    }

    /// What passed so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Begins to count anew.
    pub fn reset_counts(&mut self) {
        self.counts.clear();
    }

    /// Forgets all mappings and counts.
    pub fn forget(&mut self) {
        self.by_inside.clear();
        self.by_public.clear();
        self.counts.clear();
    }

    /// Gets other public addresses, as a host does that changes its network: what was mapped before
    /// is not known any more.
    pub fn move_to(&mut self, public: Public) {
        self.public = public;
        self.by_inside.clear();
        self.by_public.clear();
    }

    /// A packet from inside.
    pub fn outbound(&mut self, now: Instant, mut packet: Packet) -> Outbound {
        if let Some(outcome) = self.forbidden(&packet) {
            return outcome;
        }
        if self.rules.translates {
            match self.map(now, &packet) {
                Some(source) => {
                    if let Some(outcome) = self.not_tls(source, &packet) {
                        return outcome;
                    }
                    packet.src = source;
                }
                None => return Outbound::Drop,
            }
        }
        if let Some(count) = self.count(packet.protocol, packet.dst) {
            count.out += 1;
        }
        Outbound::Forward(packet)
    }

    /// A packet from outside; `None` where it is dropped.
    pub fn inbound(&mut self, now: Instant, mut packet: Packet) -> Option<Packet> {
        let remote = packet.src;
        if self.rules.translates {
            let inside = self.let_in(now, &packet);
            if inside.is_none()
                && let Some(count) = self.count(packet.protocol, remote)
            {
                count.filtered += 1;
            }
            packet.dst = inside?;
        }
        if let Some(count) = self.count(packet.protocol, remote) {
            count.r#in += 1;
        }
        Some(packet)
    }

    fn forbidden(&self, packet: &Packet) -> Option<Outbound> {
        match packet.protocol {
            Protocol::Udp if !self.rules.udp => Some(Outbound::Drop),
            Protocol::Tcp if self.rules.tcp == TcpRule::TlsOn443 && packet.dst.port() != HTTPS => {
                Some(rejected(packet))
            }
            _ => None,
        }
    }

    /// A firewall that looks into TCP lets the handshake pass and judges the first byte.
    fn not_tls(&mut self, source: SocketAddr, packet: &Packet) -> Option<Outbound> {
        if self.rules.tcp != TcpRule::TlsOn443 || packet.protocol != Protocol::Tcp {
            return None;
        }
        let entry = self.by_public.get_mut(&(Protocol::Tcp, source))?;
        if packet.flags()?.syn() {
            entry.is_tls = false;
            return None;
        }
        if entry.is_tls {
            return None;
        }
        match packet.payload().first() {
            None => None,
            Some(&TLS_HANDSHAKE) => {
                entry.is_tls = true;
                None
            }
            Some(_) => Some(rejected(packet)),
        }
    }

    /// The public endpoint of a packet's source, which from now on lets in what comes back.
    fn map(&mut self, now: Instant, packet: &Packet) -> Option<SocketAddr> {
        let depends = self.rules.mapping == Mapping::AddressAndPort;
        // A firewall's verdict about a connection is about that connection alone.
        let depends = depends || self.rules.tcp == TcpRule::TlsOn443;
        let key = Key {
            protocol: packet.protocol,
            inside: packet.src,
            remote: depends.then_some(packet.dst),
        };
        let known = self.by_inside.get(&key).copied();
        let source = match known.filter(|source| self.is_alive(now, packet.protocol, *source)) {
            Some(source) => source,
            None => self.open(now, key)?,
        };
        let entry = self.by_public.get_mut(&(packet.protocol, source))?;
        entry.used = now;
        if entry.endpoints.len() < MAX_REMOTES {
            entry.endpoints.insert(packet.dst);
            entry.addresses.insert(packet.dst.ip());
        }
        Some(source)
    }

    fn is_alive(&self, now: Instant, protocol: Protocol, source: SocketAddr) -> bool {
        self.by_public
            .get(&(protocol, source))
            .is_some_and(|entry| now.saturating_duration_since(entry.used) < idle(protocol))
    }

    fn open(&mut self, now: Instant, key: Key) -> Option<SocketAddr> {
        self.by_inside
            .remove(&key)
            .and_then(|old| self.by_public.remove(&(key.protocol, old)));
        self.make_room(now);
        let ip = self.public.of_family(key.inside.ip())?;
        let free = |port: u16, taken: &HashMap<(Protocol, SocketAddr), Entry>| {
            let source = SocketAddr::new(ip, port);
            (!taken.contains_key(&(key.protocol, source))).then_some(source)
        };
        let preserved = match self.rules.mapping {
            Mapping::Independent => free(key.inside.port(), &self.by_public),
            Mapping::AddressAndPort => None,
        };
        // The table is smaller than the port range by far: a free one is found soon.
        let source = preserved.or_else(|| {
            (0..64).find_map(|_| {
                let port = self.random.random_range(FIRST_PORT..=u16::MAX);
                // Another port than the inside one: a symmetric NAT is to be seen as one.
                (port != key.inside.port())
                    .then(|| free(port, &self.by_public))
                    .flatten()
            })
        })?;
        let entry = Entry {
            key,
            used: now,
            addresses: HashSet::new(),
            endpoints: HashSet::new(),
            is_tls: false,
        };
        self.by_public.insert((key.protocol, source), entry);
        self.by_inside.insert(key, source);
        Some(source)
    }

    /// Drops what is idle, and if nothing is, what is idle the longest.
    fn make_room(&mut self, now: Instant) {
        if self.by_public.len() < MAX_MAPPINGS {
            return;
        }
        let idle_for = |entry: &Entry| now.saturating_duration_since(entry.used);
        let oldest = self.by_public.values().map(|entry| entry.used).min();
        self.by_public.retain(|(protocol, _), entry| {
            idle_for(entry) < idle(*protocol) && Some(entry.used) != oldest
        });
        let alive = &self.by_public;
        self.by_inside
            .retain(|key, source| alive.contains_key(&(key.protocol, *source)));
    }

    fn let_in(&mut self, now: Instant, packet: &Packet) -> Option<SocketAddr> {
        let filtering = self.rules.filtering;
        let entry = self.by_public.get_mut(&(packet.protocol, packet.dst))?;
        if now.saturating_duration_since(entry.used) >= idle(packet.protocol) {
            return None;
        }
        let known = match filtering {
            Filtering::Independent => true,
            Filtering::Address => entry.addresses.contains(&packet.src.ip()),
            Filtering::AddressAndPort => entry.endpoints.contains(&packet.src),
        };
        // Only what leaves keeps a UDP mapping alive (RFC 4787 REQ-6).
        known.then_some(entry.key.inside)
    }

    fn count(&mut self, protocol: Protocol, remote: SocketAddr) -> Option<&mut Count> {
        let key = (protocol, remote);
        let room = self.counts.len() < MAX_COUNTED || self.counts.contains_key(&key);
        room.then(|| self.counts.entry(key).or_default())
    }
}

fn rejected(packet: &Packet) -> Outbound {
    packet.reset().map_or(Outbound::Drop, Outbound::Reject)
}

fn idle(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Udp => UDP_IDLE,
        Protocol::Tcp => TCP_IDLE,
    }
}

#[cfg(test)]
#[path = "nat/tests.rs"]
mod tests;
