//! A box with virtual sockets and a virtual clock, and a client that encodes with the `stun`
//! crate, so that no mistake of our parser can hide.

use crate::auth::credential::TurnSecrets;
use crate::relay::engine::*;
use crate::relay::ledger::{Ledger, RelayAddress};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun::attributes::*;
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::Message;
use stun::message::*;
use stun::xoraddr::XorMappedAddress;

pub(super) const REALM: &str = "callbox";
pub(super) const UNIX: u64 = 1_700_000_000;
pub(super) const V4: &str = "192.0.2.10";
pub(super) const V6: &str = "2001:db8::10";
pub(super) const PEER: &str = "8.8.8.8:4000";
pub(super) const PEER6: &str = "[2606:4700::1]:4000";

/// What the box did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    Reply(FiveTuple, Vec<u8>),
    ToClient(FiveTuple, Vec<u8>),
    ToPeer {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
        dont_fragment: bool,
    },
    Event(Event),
}

/// The ports that are open, shared with every socket.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) open: BTreeSet<SocketAddr>,
    /// Bound by another program.
    pub(super) foreign: BTreeSet<SocketAddr>,
    pub(super) broken: bool,
    pub(super) opened: usize,
}

#[derive(Debug)]
pub(super) struct FakeSocket {
    address: SocketAddr,
    pub(super) key: RelayKey,
    ports: Rc<RefCell<Ports>>,
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        assert!(self.ports.borrow_mut().open.remove(&self.address));
    }
}

pub(super) struct FakeSockets(Rc<RefCell<Ports>>);

impl RelaySockets for FakeSockets {
    type Socket = FakeSocket;

    fn open(&mut self, address: SocketAddr, key: RelayKey) -> io::Result<FakeSocket> {
        let mut ports = self.0.borrow_mut();
        if ports.broken {
            return Err(io::Error::other("no more files"));
        }
        if ports.foreign.contains(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        assert!(ports.open.insert(address), "{address} is leased twice");
        ports.opened += 1;
        Ok(FakeSocket {
            address,
            key,
            ports: Rc::clone(&self.0),
        })
    }
}

/// Collects what one call does; hand-overs to other workers are kept to be carried there.
#[derive(Default)]
struct Collector {
    outs: Vec<Out>,
    hand_overs: Vec<(WorkerId, RelayKey, SocketAddr, Vec<u8>)>,
}

impl<'a> Output<'a, FakeSocket> for Collector {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        self.outs.push(Out::Reply(*to, message.to_vec()));
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payload: &'a [u8], padding: usize) {
        assert!(padding < 4);
        self.outs.push(Out::ToClient(
            *to,
            [head, payload, &vec![0; padding]].concat(),
        ));
    }

    fn to_peer(&mut self, from: &FakeSocket, to: SocketAddr, payload: &'a [u8], df: bool) {
        let from = from.address;
        self.outs.push(Out::ToPeer {
            from,
            to,
            payload: payload.to_vec(),
            dont_fragment: df,
        });
    }

    fn to_worker(
        &mut self,
        worker: WorkerId,
        relay: RelayKey,
        from: SocketAddr,
        payload: &'a [u8],
    ) {
        self.hand_overs
            .push((worker, relay, from, payload.to_vec()));
    }

    fn event(&mut self, event: Event) {
        self.outs.push(Out::Event(event));
    }
}

/// How a test box differs from the usual one.
pub(super) struct Options {
    pub(super) settings: Settings,
    pub(super) relays: Vec<RelayAddress>,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) workers: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: settings(),
            relays: vec![same(V4), same(V6)],
            ports: 49_152..=65_535,
            workers: 1,
        }
    }
}

pub(super) fn same(ip: &str) -> RelayAddress {
    let ip = ip.parse().unwrap();
    RelayAddress {
        bind: ip,
        announced: ip,
    }
}

pub(super) fn secrets(list: &[&str]) -> TurnSecrets {
    TurnSecrets::new(list.iter().map(|s| SecretString::from(*s)).collect()).unwrap()
}

pub(super) fn settings() -> Settings {
    let own = vec![
        V4.parse().unwrap(),
        V6.parse().unwrap(),
        "127.0.0.1".parse().unwrap(),
    ];
    Settings {
        realm: REALM.into(),
        secrets: secrets(&["north"]),
        policy: PeerPolicy::new(vec![], vec![], own),
        quotas: Quotas {
            user: 128,
            ip: 1_000,
            total: 10_000,
        },
        max_session: Duration::from_secs(24 * 3_600),
        max_rate: None,
        total_rate: None,
        alternates: vec![],
    }
}

/// A box of one or more workers.
pub(super) struct TestBox {
    pub(super) engines: Vec<Engine<FakeSockets>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) ports: Rc<RefCell<Ports>>,
    pub(super) now: Now,
    started: Instant,
}

impl TestBox {
    pub(super) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(super) fn with_settings(settings: Settings) -> Self {
        Self::with(Options {
            settings,
            ..Options::default()
        })
    }

    pub(super) fn with(options: Options) -> Self {
        let started = Instant::now();
        let ledger = Ledger::new(options.relays, options.ports, [1; 32], started);
        let ports = Rc::new(RefCell::new(Ports::default()));
        let settings = Arc::new(options.settings);
        let engine = |id| {
            let sockets = FakeSockets(Rc::clone(&ports));
            let (settings, ledger) = (Arc::clone(&settings), Arc::clone(&ledger));
            Engine::new(
                WorkerId(id),
                settings,
                ledger,
                sockets,
                [id + 2; 32],
                started,
            )
        };
        let engines = (0..options.workers).map(engine).collect();
        Self {
            engines,
            ledger,
            ports,
            now: Now {
                instant: started,
                unix: UNIX,
            },
            started,
        }
    }

    /// Moves the clock and lets every engine's timers run.
    pub(super) fn advance(&mut self, by: Duration) -> Vec<Out> {
        self.skip(by);
        let now = self.now;
        let mut outs = Vec::new();
        for worker in 0..self.engines.len() {
            outs.extend(self.run(worker, |engine, out| engine.handle_timeout(now, out)));
        }
        outs
    }

    /// Moves the clock without any timer running, as in the middle of a long batch.
    pub(super) fn skip(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.unix = UNIX + (self.now.instant - self.started).as_secs();
    }

    fn run(
        &mut self,
        worker: usize,
        call: impl FnOnce(&mut Engine<FakeSockets>, &mut Collector),
    ) -> Vec<Out> {
        let mut collector = Collector::default();
        call(&mut self.engines[worker], &mut collector);
        let mut outs = collector.outs;
        for (worker, key, from, payload) in collector.hand_overs {
            let mut collector = Collector::default();
            let engine = &mut self.engines[usize::from(worker.0)];
            engine.from_worker(self.now, key, from, &payload, &mut collector);
            assert!(collector.hand_overs.is_empty(), "a hand-over goes one way");
            outs.extend(collector.outs);
        }
        outs
    }

    pub(super) fn from_client(&mut self, five_tuple: &FiveTuple, bytes: &[u8]) -> Vec<Out> {
        self.from_client_of(0, five_tuple, bytes)
    }

    pub(super) fn from_client_of(
        &mut self,
        worker: usize,
        five_tuple: &FiveTuple,
        bytes: &[u8],
    ) -> Vec<Out> {
        let now = self.now;
        self.run(worker, |engine, out| {
            engine.from_client(now, five_tuple, bytes, out)
        })
    }

    /// A datagram from `peer` arrives at the relayed address `at`.
    pub(super) fn from_peer(&mut self, at: SocketAddr, peer: SocketAddr, data: &[u8]) -> Vec<Out> {
        let Some((worker, key)) = self.ledger.find(at) else {
            return Vec::new();
        };
        let now = self.now;
        self.run(worker.0.into(), |engine, out| {
            engine.from_peer(now, key, peer, data, out)
        })
    }

    pub(super) fn icmp(
        &mut self,
        at: SocketAddr,
        peer: &str,
        icmp: (u8, u8),
        error_data: u32,
    ) -> Vec<Out> {
        let (worker, key) = self.ledger.find(at).unwrap();
        let (now, peer) = (self.now, peer.parse().unwrap());
        self.run(worker.0.into(), |engine, out| {
            engine.peer_unreachable(now, key, peer, icmp, error_data, out);
        })
    }

    pub(super) fn client_closed(&mut self, five_tuple: &FiveTuple) -> Vec<Out> {
        let now = self.now;
        self.run(0, |engine, out| engine.client_closed(now, five_tuple, out))
    }

    /// Revokes on every worker, as the shells do.
    pub(super) fn revoke(&mut self, user: &str) -> Vec<Out> {
        let now = self.now;
        let workers = 0..self.engines.len();
        workers
            .flat_map(|w| self.run(w, |engine, out| engine.revoke(user, now, out)))
            .collect()
    }

    /// Sends a request that has exactly one answer.
    pub(super) fn ask(&mut self, five_tuple: &FiveTuple, bytes: &[u8]) -> Response {
        self.ask_of(0, five_tuple, bytes)
    }

    pub(super) fn ask_of(&mut self, worker: usize, tuple: &FiveTuple, bytes: &[u8]) -> Response {
        let replies: Vec<_> = self
            .from_client_of(worker, tuple, bytes)
            .into_iter()
            .filter_map(|out| match out {
                Out::Reply(to, bytes) => Some((to, bytes)),
                _ => None,
            })
            .collect();
        let [(to, reply)] = &replies[..] else {
            panic!("not one reply but {replies:?}")
        };
        assert_eq!(to, tuple);
        let response = Response::parse(reply);
        assert_eq!(response.0.transaction_id.0, bytes[8..20]);
        response
    }

    pub(super) fn stats(&self) -> &Stats {
        self.engines[0].stats()
    }

    /// Nothing is left of any allocation.
    pub(super) fn assert_empty(&self) {
        assert_eq!(self.ports.borrow().open, BTreeSet::new());
        assert_eq!(self.ledger.allocations(), 0);
        for engine in &self.engines {
            assert_eq!(engine.allocations(self.now.instant).count(), 0);
            assert_eq!(engine.next_timeout(), None);
        }
    }
}

/// One client: a five-tuple, a credential and what the server last challenged it with.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) five_tuple: FiveTuple,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) realm: String,
    pub(super) nonce: String,
    /// Value of PASSWORD-ALGORITHM; `None` for a client of RFC 5389.
    pub(super) algorithm: Option<u8>,
    pub(super) worker: usize,
    transactions: u64,
}

pub(super) fn udp(client: &str) -> FiveTuple {
    let client: SocketAddr = client.parse().unwrap();
    let server = if client.is_ipv4() {
        "192.0.2.10:3478"
    } else {
        "[2001:db8::10]:3478"
    };
    FiveTuple {
        transport: Transport::Udp,
        client,
        server: server.parse().unwrap(),
    }
}

impl Client {
    pub(super) fn new(address: &str, user: &str) -> Self {
        Self::at(udp(address), user)
    }

    pub(super) fn at(five_tuple: FiveTuple, user: &str) -> Self {
        let credential = secrets(&["north"]).mint(user, UNIX + 3_600);
        Self {
            five_tuple,
            username: credential.username,
            password: credential.password,
            realm: REALM.into(),
            nonce: String::new(),
            algorithm: None,
            worker: 0,
            transactions: 0,
        }
    }

    /// A client that is ready to authenticate.
    pub(super) fn challenged(boxed: &mut TestBox, address: &str, user: &str) -> Self {
        let mut client = Self::new(address, user);
        client.challenge(boxed);
        client
    }

    /// A client with an allocation, and its relayed IPv4 address.
    pub(super) fn allocated(boxed: &mut TestBox, address: &str, user: &str) -> (Self, SocketAddr) {
        let mut client = Self::challenged(boxed, address, user);
        let relayed = client.allocate(boxed);
        (client, relayed)
    }

    pub(super) fn challenge(&mut self, boxed: &mut TestBox) {
        let request = self.request(METHOD_ALLOCATE).udp().unsigned();
        let response = boxed.ask_of(self.worker, &self.five_tuple, &request);
        assert_eq!(response.code(), 401);
        self.nonce = response.text(ATTR_NONCE);
        self.realm = response.text(ATTR_REALM);
    }

    pub(super) fn allocate(&mut self, boxed: &mut TestBox) -> SocketAddr {
        let request = self.request(METHOD_ALLOCATE).udp();
        self.ask(boxed, request)
            .success()
            .address(ATTR_XOR_RELAYED_ADDRESS)
    }

    pub(super) fn request(&mut self, method: Method) -> Request {
        self.message(MessageType::new(method, CLASS_REQUEST))
    }

    pub(super) fn message(&mut self, kind: MessageType) -> Request {
        self.transactions += 1;
        let mut message = Message::new();
        message.typ = kind;
        message.transaction_id.0[4..].copy_from_slice(&self.transactions.to_be_bytes());
        message.transaction_id.0[..2].copy_from_slice(&self.five_tuple.client.port().to_be_bytes());
        message.write_header();
        Request(message)
    }

    /// Signs `request`, sends it, and checks how the answer is signed.
    pub(super) fn ask(&mut self, boxed: &mut TestBox, request: Request) -> Response {
        let bytes = request.signed(self);
        let response = boxed.ask_of(self.worker, &self.five_tuple, &bytes);
        if !matches!(response.code(), 400 | 401 | 438) {
            response.assert_signed(self);
        }
        response
    }

    pub(super) fn permit(&mut self, boxed: &mut TestBox, peer: &str) -> Response {
        let request = self.request(METHOD_CREATE_PERMISSION).peer(peer);
        self.ask(boxed, request)
    }

    pub(super) fn bind(&mut self, boxed: &mut TestBox, number: u16, peer: &str) -> Response {
        let request = self.request(METHOD_CHANNEL_BIND).channel(number).peer(peer);
        self.ask(boxed, request)
    }

    pub(super) fn refresh(&mut self, boxed: &mut TestBox, lifetime: u32) -> Response {
        let request = self.request(METHOD_REFRESH).lifetime(lifetime);
        self.ask(boxed, request)
    }

    pub(super) fn send(&mut self, boxed: &mut TestBox, peer: &str, data: &[u8]) -> Vec<Out> {
        let indication = self
            .send_indication()
            .peer(peer)
            .attr(ATTR_DATA, data)
            .unsigned();
        boxed.from_client_of(self.worker, &self.five_tuple, &indication)
    }

    pub(super) fn send_indication(&mut self) -> Request {
        self.message(MessageType::new(METHOD_SEND, CLASS_INDICATION))
    }

    pub(super) fn channel(&self, boxed: &mut TestBox, number: u16, data: &[u8]) -> Vec<Out> {
        boxed.from_client_of(self.worker, &self.five_tuple, &channel_data(number, data))
    }

    pub(super) fn key(&self) -> Vec<u8> {
        match self.algorithm {
            Some(2) => {
                let text = format!("{}:{}:{}", self.username, self.realm, self.password);
                Sha256::digest(text).to_vec()
            }
            _ => turn::auth::generate_auth_key(&self.username, &self.realm, &self.password),
        }
    }
}

pub(super) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(super) struct Request(Message);

impl Request {
    pub(super) fn attr(mut self, kind: AttrType, value: &[u8]) -> Self {
        self.0.add(kind, value);
        self
    }

    pub(super) fn udp(self) -> Self {
        self.attr(ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    }

    pub(super) fn lifetime(self, seconds: u32) -> Self {
        self.attr(ATTR_LIFETIME, &seconds.to_be_bytes())
    }

    pub(super) fn family(self, family: u8) -> Self {
        self.attr(ATTR_REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    pub(super) fn additional(self, family: u8) -> Self {
        self.attr(AttrType(0x8000), &[family, 0, 0, 0])
    }

    pub(super) fn channel(self, number: u16) -> Self {
        let [hi, lo] = number.to_be_bytes();
        self.attr(ATTR_CHANNEL_NUMBER, &[hi, lo, 0, 0])
    }

    pub(super) fn peer(mut self, peer: &str) -> Self {
        let peer: SocketAddr = peer.parse().unwrap();
        let address = XorMappedAddress {
            ip: peer.ip(),
            port: peer.port(),
        };
        address
            .add_to_as(&mut self.0, ATTR_XOR_PEER_ADDRESS)
            .unwrap();
        self
    }

    pub(super) fn unsigned(self) -> Vec<u8> {
        self.0.raw
    }

    pub(super) fn fingerprinted(mut self) -> Vec<u8> {
        FINGERPRINT.add_to(&mut self.0).unwrap();
        self.0.raw
    }

    /// USERNAME, REALM, NONCE and what the client knows of password algorithms.
    pub(super) fn credentials(self, client: &Client) -> Self {
        let request = self
            .attr(ATTR_USERNAME, client.username.as_bytes())
            .attr(ATTR_REALM, client.realm.as_bytes())
            .attr(ATTR_NONCE, client.nonce.as_bytes());
        match client.algorithm {
            Some(algorithm) => request
                .attr(ATTR_PASSWORD_ALGORITHM, &[0, algorithm, 0, 0])
                .attr(ATTR_PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]),
            None => request,
        }
    }

    pub(super) fn integrity(mut self, key: &[u8]) -> Self {
        MessageIntegrity(key.to_vec()).add_to(&mut self.0).unwrap();
        self
    }

    pub(super) fn integrity_sha256(mut self, key: &[u8]) -> Self {
        self.0.length += 36;
        self.0.write_length();
        let mac = sha256(key, &self.0.raw);
        self.0.length -= 36;
        self.attr(ATTR_MESSAGE_INTEGRITY_SHA256, &mac)
    }

    pub(super) fn signed(self, client: &Client) -> Vec<u8> {
        let request = self.credentials(client);
        match client.algorithm {
            Some(_) => request.integrity_sha256(&client.key()),
            None => request.integrity(&client.key()),
        }
        .fingerprinted()
    }
}

fn sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// A response, decoded by the `stun` crate.
#[derive(Debug, Clone)]
pub(super) struct Response(pub(super) Message);

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut message = Message::new();
        message.unmarshal_binary(bytes).unwrap();
        assert_eq!(
            message.raw.len(),
            MESSAGE_HEADER_SIZE + message.length as usize
        );
        FINGERPRINT.check(&message).unwrap();
        Self(message)
    }

    /// The error code, or 0.
    pub(super) fn code(&self) -> u16 {
        let mut code = ErrorCodeAttribute::default();
        match self.0.typ.class {
            CLASS_SUCCESS_RESPONSE => 0,
            _ => {
                stun::message::Getter::get_from(&mut code, &self.0).unwrap();
                code.code.0
            }
        }
    }

    #[track_caller]
    pub(super) fn success(self) -> Self {
        assert_eq!(self.code(), 0);
        self
    }

    pub(super) fn has(&self, kind: AttrType) -> bool {
        self.0.contains(kind)
    }

    pub(super) fn attr(&self, kind: AttrType) -> Vec<u8> {
        self.0.get(kind).unwrap()
    }

    pub(super) fn text(&self, kind: AttrType) -> String {
        String::from_utf8(self.attr(kind)).unwrap()
    }

    #[track_caller]
    pub(super) fn address(&self, kind: AttrType) -> SocketAddr {
        let [address] = self.addresses(kind)[..] else {
            panic!("not one {kind}")
        };
        address
    }

    pub(super) fn addresses(&self, kind: AttrType) -> Vec<SocketAddr> {
        addresses(&self.0, kind)
    }

    pub(super) fn lifetime(&self) -> u32 {
        u32::from_be_bytes(self.attr(ATTR_LIFETIME).try_into().unwrap())
    }

    /// Attribute types in order.
    pub(super) fn kinds(&self) -> Vec<AttrType> {
        self.0.attributes.0.iter().map(|a| a.typ).collect()
    }

    #[track_caller]
    pub(super) fn assert_signed(&self, client: &Client) {
        let kinds = self.kinds();
        assert_eq!(kinds[kinds.len() - 1], ATTR_FINGERPRINT);
        if client.algorithm.is_some() {
            assert_eq!(kinds[kinds.len() - 2], ATTR_MESSAGE_INTEGRITY_SHA256);
            assert!(!self.has(ATTR_MESSAGE_INTEGRITY));
            let end = self.0.raw.len() - 8;
            let mut covered = self.0.raw[..end - 36].to_vec();
            covered[2..4].copy_from_slice(&((end - 20) as u16).to_be_bytes());
            assert_eq!(
                self.attr(ATTR_MESSAGE_INTEGRITY_SHA256),
                sha256(&client.key(), &covered)
            );
        } else {
            assert_eq!(kinds[kinds.len() - 2], ATTR_MESSAGE_INTEGRITY);
            assert!(!self.has(ATTR_MESSAGE_INTEGRITY_SHA256));
            MessageIntegrity(client.key())
                .check(&mut self.0.clone())
                .unwrap();
        }
    }
}

/// Every XOR'ed address of one kind.
pub(super) fn addresses(message: &Message, kind: AttrType) -> Vec<SocketAddr> {
    let of = |attribute: &RawAttribute| {
        let mut one = Message::new();
        one.transaction_id = message.transaction_id;
        one.add(kind, &attribute.value);
        let mut address = XorMappedAddress::default();
        address.get_from_as(&one, kind).unwrap();
        SocketAddr::new(address.ip, address.port)
    };
    message
        .attributes
        .0
        .iter()
        .filter(|a| a.typ == kind)
        .map(of)
        .collect()
}

/// What a client received: by channel, or from a peer by Data indication.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Channel(u16, Vec<u8>),
    Data(SocketAddr, Vec<u8>),
    Icmp(SocketAddr, Vec<u8>),
}

/// Decodes the one payload that `outs` bring to `client`.
#[track_caller]
pub(super) fn received(outs: &[Out], client: &FiveTuple) -> Received {
    let [Out::ToClient(to, bytes)] = outs else {
        panic!("not one payload: {outs:?}")
    };
    assert_eq!(to, client);
    if bytes[0] >= 0x40 {
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let padded = if to.transport.is_stream() {
            length.next_multiple_of(4)
        } else {
            length
        };
        assert_eq!(bytes.len(), 4 + padded);
        let number = u16::from_be_bytes([bytes[0], bytes[1]]);
        return Received::Channel(number, bytes[4..4 + length].to_vec());
    }
    let mut message = Message::new();
    message.unmarshal_binary(bytes).unwrap();
    assert_eq!(bytes.len(), 20 + message.length as usize);
    assert_eq!(message.typ, MessageType::new(METHOD_DATA, CLASS_INDICATION));
    let [peer] = addresses(&message, ATTR_XOR_PEER_ADDRESS)[..] else {
        panic!("no peer")
    };
    match message.get(AttrType(0x8004)) {
        Ok(icmp) => Received::Icmp(peer, icmp),
        Err(_) => Received::Data(peer, message.get(ATTR_DATA).unwrap()),
    }
}

/// The one payload that `outs` send to a peer: from, to, payload.
#[track_caller]
pub(super) fn sent(outs: &[Out]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let [
        Out::ToPeer {
            from, to, payload, ..
        },
    ] = outs
    else {
        panic!("not one send: {outs:?}")
    };
    (*from, *to, payload.clone())
}

pub(super) fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

pub(super) fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

pub(super) fn events(outs: &[Out]) -> Vec<&Event> {
    outs.iter()
        .filter_map(|o| {
            if let Out::Event(event) = o {
                Some(event)
            } else {
                None
            }
        })
        .collect()
}
