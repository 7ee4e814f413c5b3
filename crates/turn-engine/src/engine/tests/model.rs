//! The engine against a naive model of RFC 8656, over hours of random operations.

use super::harness::*;
use crate::credential::Credential;
use crate::engine::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use stun::attributes::*;

const CLIENTS: usize = 5;
const USER_QUOTA: u32 = 2;
const TOTAL_QUOTA: u32 = 4;
const MAX_SESSION: u64 = 7_200;
const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_005;

#[derive(Debug, Clone)]
enum Op {
    Allocate {
        client: usize,
        dual: bool,
    },
    Refresh {
        client: usize,
        lifetime: Option<u32>,
    },
    Permit {
        client: usize,
        peers: Vec<Peer>,
    },
    Bind {
        client: usize,
        number: u16,
        peer: Peer,
    },
    Send {
        client: usize,
        peer: Peer,
    },
    Channel {
        client: usize,
        number: u16,
    },
    FromPeer {
        client: usize,
        peer: Peer,
    },
    Replay {
        client: usize,
    },
    Garbage {
        client: usize,
        bytes: Vec<u8>,
    },
    Revoke {
        user: usize,
    },
    Wait {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy)]
enum Peer {
    Fixed(usize),
    /// The relayed IPv4 address of a client, or a port where nobody lives.
    Relay(usize),
}

/// Public, public with another port, public, private, IPv6.
const PEERS: [&str; 5] = ["8.8.8.8:1", "8.8.8.8:2", "9.9.9.9:1", "10.0.0.1:1", PEER6];

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        3 => (0..PEERS.len()).prop_map(Peer::Fixed),
        2 => (0..CLIENTS).prop_map(Peer::Relay),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    let number = || prop_oneof![8 => 0x4000u16..0x4004, 1 => Just(0x3fff), 1 => Just(0x7fff)];
    prop_oneof![
        4 => (client(), any::<bool>()).prop_map(|(client, dual)| Op::Allocate { client, dual }),
        2 => (client(), proptest::option::of(prop_oneof![Just(0), Just(900), Just(5_000)]))
            .prop_map(|(client, lifetime)| Op::Refresh { client, lifetime }),
        4 => (client(), proptest::collection::vec(peer(), 0..3))
            .prop_map(|(client, peers)| Op::Permit { client, peers }),
        4 => (client(), number(), peer())
            .prop_map(|(client, number, peer)| Op::Bind { client, number, peer }),
        6 => (client(), peer()).prop_map(|(client, peer)| Op::Send { client, peer }),
        6 => (client(), number()).prop_map(|(client, number)| Op::Channel { client, number }),
        6 => (client(), peer()).prop_map(|(client, peer)| Op::FromPeer { client, peer }),
        1 => client().prop_map(|client| Op::Replay { client }),
        1 => (client(), proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(client, bytes)| Op::Garbage { client, bytes }),
        1 => (0usize..2).prop_map(|user| Op::Revoke { user }),
        5 => prop_oneof![1u64..60, 100u64..700].prop_map(|seconds| Op::Wait { seconds }),
    ]
}

/// What the RFC says one client has.
#[derive(Debug, Clone)]
struct Allocation {
    relayed: Vec<SocketAddr>,
    expires: u64,
    session_end: u64,
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
}

struct World {
    boxed: TestBox,
    clients: Vec<Client>,
    last: Vec<Vec<u8>>,
    model: Vec<Option<Allocation>>,
    clock: u64,
    /// Credentials of a user come with ever later expiries, so that revocation can be lived past.
    minted: u64,
}

fn user(client: usize) -> String {
    format!("user{}", client % 2)
}

impl World {
    fn new() -> Self {
        let quotas = Quotas {
            user: USER_QUOTA,
            ip: 100,
            total: TOTAL_QUOTA,
        };
        let max_session = Duration::from_secs(MAX_SESSION);
        let boxed = TestBox::with(Options {
            settings: Settings {
                quotas,
                max_session,
                ..settings()
            },
            ports: PORTS,
            workers: 2,
            ..Options::default()
        });
        let clients = (0..CLIENTS)
            .map(|i| {
                let mut client = Client::new(&format!("198.51.100.{i}:5000"), &user(i));
                client.worker = i % 2;
                client
            })
            .collect();
        let minted = UNIX + 10_000_000;
        let (last, model) = (vec![vec![]; CLIENTS], vec![None; CLIENTS]);
        let mut world = Self {
            boxed,
            clients,
            last,
            model,
            clock: 0,
            minted,
        };
        for user in 0..2 {
            world.mint(user);
        }
        world.boxed.watch();
        world
    }

    fn mint(&mut self, who: usize) {
        self.minted += 1;
        let Credential { username, password } = secrets(&["north"]).mint(&user(who), self.minted);
        for client in self.clients.iter_mut().skip(who).step_by(2) {
            (client.username, client.password) = (username.clone(), password.clone());
        }
    }

    fn ask(&mut self, client: usize, request: Request) -> Response {
        // A fresh nonce for each request: hours pass here.
        self.clients[client].challenge(&mut self.boxed);
        self.last[client] = request.clone().signed(&self.clients[client]);
        self.clients[client].ask(&mut self.boxed, request)
    }

    fn address(&self, peer: Peer) -> SocketAddr {
        match peer {
            Peer::Fixed(i) => addr(PEERS[i]),
            Peer::Relay(client) => match &self.model[client] {
                Some(allocation) => allocation.relayed[0],
                None => addr(&format!("{V4}:40000")),
            },
        }
    }

    /// The code that a request naming these peers deserves.
    fn judge(allocation: &Allocation, peers: &[SocketAddr]) -> u16 {
        for peer in peers {
            if !allocation
                .relayed
                .iter()
                .any(|r| r.is_ipv4() == peer.is_ipv4())
            {
                return 443;
            }
            if peer.ip() == ip("10.0.0.1") {
                return 403;
            }
        }
        0
    }

    fn permits(&self, client: usize, from: IpAddr) -> bool {
        self.model[client].as_ref().is_some_and(|a| {
            a.relayed.iter().any(|r| r.is_ipv4() == from.is_ipv4())
                && a.permissions
                    .get(&from)
                    .is_some_and(|until| *until > self.clock)
        })
    }

    fn apply(&mut self, op: Op) {
        let clock = self.clock;
        match op {
            Op::Allocate { client, dual } => {
                let mut request = self.clients[client].request(METHOD_ALLOCATE).udp();
                if dual {
                    request = request.additional(2);
                }
                let response = self.ask(client, request);
                let of_user = (client % 2..CLIENTS).step_by(2);
                let users = of_user.filter(|i| self.model[*i].is_some()).count();
                let total = self.model.iter().flatten().count();
                let expected = if self.model[client].is_some() {
                    437
                } else if users >= USER_QUOTA as usize {
                    486
                } else if total >= TOTAL_QUOTA as usize {
                    508
                } else {
                    0
                };
                assert_eq!(response.code(), expected);
                if expected == 0 {
                    let relayed = response.addresses(ATTR_XOR_RELAYED_ADDRESS);
                    assert_eq!(relayed.len(), 1 + usize::from(dual));
                    assert!(relayed.iter().all(|r| PORTS.contains(&r.port())));
                    self.model[client] = Some(Allocation {
                        relayed,
                        expires: clock + 600,
                        session_end: clock + MAX_SESSION,
                        permissions: BTreeMap::new(),
                        channels: BTreeMap::new(),
                    });
                }
            }
            Op::Refresh { client, lifetime } => {
                let mut request = self.clients[client].request(METHOD_REFRESH);
                if let Some(lifetime) = lifetime {
                    request = request.lifetime(lifetime);
                }
                let response = self.ask(client, request);
                let Some(allocation) = &mut self.model[client] else {
                    assert_eq!(response.code(), 437);
                    return;
                };
                let granted = match lifetime {
                    Some(0) => 0,
                    asked => {
                        let granted = u64::from(asked.unwrap_or(600).clamp(600, 3_600));
                        allocation.expires = (clock + granted).min(allocation.session_end);
                        allocation.expires - clock
                    }
                };
                assert_eq!(u64::from(response.success().lifetime()), granted);
                if granted == 0 {
                    self.model[client] = None;
                }
            }
            Op::Permit { client, peers } => {
                let peers: Vec<_> = peers.iter().map(|p| self.address(*p)).collect();
                let mut request = self.clients[client].request(METHOD_CREATE_PERMISSION);
                for peer in &peers {
                    request = request.peer(&peer.to_string());
                }
                let code = self.ask(client, request).code();
                let Some(allocation) = &mut self.model[client] else {
                    assert_eq!(code, 437);
                    return;
                };
                let expected = if peers.is_empty() {
                    400
                } else {
                    Self::judge(allocation, &peers)
                };
                assert_eq!(code, expected);
                if code == 0 {
                    allocation
                        .permissions
                        .extend(peers.iter().map(|p| (p.ip(), clock + 300)));
                }
            }
            Op::Bind {
                client,
                number,
                peer,
            } => {
                let peer = self.address(peer);
                let request = self.clients[client].request(METHOD_CHANNEL_BIND);
                let request = request.channel(number).peer(&peer.to_string());
                let code = self.ask(client, request).code();
                let Some(allocation) = &mut self.model[client] else {
                    assert_eq!(code, 437);
                    return;
                };
                allocation.channels.retain(|_, (_, until)| *until > clock);
                let conflict = allocation
                    .channels
                    .iter()
                    .any(|(n, (p, _))| (*n == number) != (*p == peer));
                let expected = match Self::judge(allocation, &[peer]) {
                    443 => 443,
                    _ if number < 0x4000 => 400,
                    0 if conflict => 400,
                    code => code,
                };
                assert_eq!(code, expected);
                if code == 0 {
                    allocation.channels.insert(number, (peer, clock + 600));
                    allocation.permissions.insert(peer.ip(), clock + 300);
                }
            }
            Op::Send { client, peer } => {
                let peer = self.address(peer);
                let outs = self.clients[client].send(&mut self.boxed, &peer.to_string(), b"data");
                self.expect_sent(client, peer, outs);
            }
            Op::Channel { client, number } => {
                let outs = self.clients[client]
                    .clone()
                    .channel(&mut self.boxed, number, b"data");
                let bound = self.model[client]
                    .as_ref()
                    .and_then(|a| a.channels.get(&number));
                match bound.copied() {
                    Some((peer, until)) if until > clock => self.expect_sent(client, peer, outs),
                    _ => assert_eq!(outs, []),
                }
            }
            Op::FromPeer { client, peer } => {
                let peer = self.address(peer);
                let Some(allocation) = &self.model[client] else {
                    return;
                };
                let family = allocation
                    .relayed
                    .iter()
                    .find(|r| r.is_ipv4() == peer.is_ipv4());
                let Some(&at) = family else { return };
                let outs = self.boxed.peer_sends(at, peer, b"data");
                if self.permits(client, peer.ip()) && peer.ip() != ip(V4) {
                    self.expect_received(client, peer, &outs);
                } else {
                    assert_eq!(outs, []);
                }
            }
            Op::Replay { client } => {
                // Whatever it was, repeating it at once changes neither lifetime nor count.
                let (tuple, bytes) = (self.clients[client].five_tuple, self.last[client].clone());
                if !matches!(bytes.get(..2), Some([0, 3])) {
                    return;
                }
                self.boxed
                    .client_sends_to(self.clients[client].worker, &tuple, &bytes);
                let living = self.model[client].is_some();
                let worker = &self.boxed.engines[self.clients[client].worker];
                let now = self.boxed.now.instant;
                let found = worker.allocations(now).any(|view| view.five_tuple == tuple);
                if found && !living {
                    // A replayed Allocate is an Allocate.
                    self.boxed.revoke(&user(client));
                    for i in (client % 2..CLIENTS).step_by(2) {
                        self.model[i] = None;
                    }
                }
            }
            Op::Garbage { client, bytes } => {
                let tuple = self.clients[client].five_tuple;
                let outs = self
                    .boxed
                    .client_sends_to(self.clients[client].worker, &tuple, &bytes);
                assert!(!outs.iter().any(|out| matches!(out, Out::Event(_))));
            }
            Op::Revoke { user: who } => {
                self.boxed
                    .shared
                    .revoke(&user(who), self.minted, self.boxed.now.unix);
                self.boxed.revoke(&user(who));
                for i in (who..CLIENTS).step_by(2) {
                    self.model[i] = None;
                }
                let client = who;
                let request = self.clients[client].request(METHOD_ALLOCATE).udp();
                assert_eq!(self.ask(client, request).code(), 401);
                self.mint(who);
            }
            Op::Wait { seconds } => {
                self.clock += seconds;
                self.boxed.advance(Duration::from_secs(seconds));
                for slot in &mut self.model {
                    if slot.as_ref().is_some_and(|a| a.expires <= self.clock) {
                        *slot = None;
                    }
                }
            }
        }
    }

    fn expect_sent(&self, client: usize, peer: SocketAddr, outs: Vec<Out>) {
        if !self.permits(client, peer.ip()) {
            assert_eq!(outs, []);
            return;
        }
        let allocation = self.model[client].as_ref().unwrap();
        let from = *allocation
            .relayed
            .iter()
            .find(|r| r.is_ipv4() == peer.is_ipv4())
            .unwrap();
        if peer.ip() != ip(V4) {
            assert_eq!(sent(&outs), (from, peer, b"data".to_vec()));
            return;
        }
        let lives_there =
            |a: &Option<Allocation>| a.as_ref().is_some_and(|a| a.relayed.contains(&peer));
        match self.model.iter().position(lives_there) {
            Some(target) if self.permits(target, from.ip()) => {
                self.expect_received(target, from, &outs);
            }
            _ => assert_eq!(outs, []),
        }
    }

    fn expect_received(&self, client: usize, from: SocketAddr, outs: &[Out]) {
        let channels = &self.model[client].as_ref().unwrap().channels;
        let bound = channels
            .iter()
            .find(|(_, (p, until))| *p == from && *until > self.clock);
        let expected = match bound {
            Some((number, _)) => Received::Channel(*number, b"data".to_vec()),
            None => Received::Data(from, b"data".to_vec()),
        };
        assert_eq!(received(outs, &self.clients[client].five_tuple), expected);
    }

    fn check(&self) {
        let living = self.model.iter().flatten().count();
        assert_eq!(self.boxed.shared.allocations() as usize, living);
        let relayed: usize = self.model.iter().flatten().map(|a| a.relayed.len()).sum();
        assert_eq!(self.boxed.ports.borrow().open.len(), relayed);
        assert_eq!(self.boxed.shared.free_ports(), 2 * PORTS.len() - relayed);
        self.boxed.assert_tally();
        for (client, allocation) in self.clients.iter().zip(&self.model) {
            let (permissions, channels) = self.boxed.tally.of(&client.five_tuple);
            let Some(allocation) = allocation else {
                assert!(permissions.is_empty() && channels.is_empty());
                continue;
            };
            let lives = |until: &u64| *until > self.clock;
            let permitted = allocation.permissions.iter().filter(|(_, u)| lives(u));
            assert_eq!(permissions, permitted.map(|(ip, _)| *ip).collect());
            let bound = allocation.channels.iter().filter(|(_, (_, u))| lives(u));
            assert_eq!(channels, bound.map(|(n, (peer, _))| (*n, *peer)).collect());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_says(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            world.check();
        }
        world.boxed.advance(Duration::from_secs(3_601));
        world.boxed.assert_empty();
        prop_assert_eq!(world.boxed.shared.free_ports(), 2 * PORTS.len());
    }
}
