//! A client of the tests, its requests and the answers: encoded and decoded by the `stun` crate,
//! so that no mistake of our parser can hide.

use super::harness::{Out, REALM, TestBox, UNIX, secrets};
use crate::engine::*;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use stun::attributes::*;
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::Message;
use stun::message::*;
use stun::xoraddr::XorMappedAddress;

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
        boxed.client_sends_to(self.worker, &self.five_tuple, &indication)
    }

    pub(super) fn send_indication(&mut self) -> Request {
        self.message(MessageType::new(METHOD_SEND, CLASS_INDICATION))
    }

    pub(super) fn channel(&self, boxed: &mut TestBox, number: u16, data: &[u8]) -> Vec<Out> {
        boxed.client_sends_to(self.worker, &self.five_tuple, &channel_data(number, data))
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
        if message.contains(ATTR_FINGERPRINT) {
            FINGERPRINT.check(&message).unwrap();
        }
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
