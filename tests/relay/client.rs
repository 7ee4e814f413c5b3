//! A blocking TURN client over whatever carries messages: made for tests that look at the wire.

use callbox::auth::credential::Credential;
use callbox::relay::framing::{Deframer, MAX_MESSAGE};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_ERROR_CODE, ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, METHOD_ALLOCATE, METHOD_BINDING,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, Message, MessageType, Method,
    Setter,
};
use stun::textattrs::{Nonce, Realm, Username};
use stun::xoraddr::XorMappedAddress;
use turn::proto::PROTO_UDP;
use turn::proto::channum::ChannelNumber;
use turn::proto::lifetime::Lifetime;
use turn::proto::peeraddr::PeerAddress;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::reqtrans::RequestedTransport;

/// The transport of relayed addresses.
pub(crate) const UDP: RequestedTransport = RequestedTransport {
    protocol: PROTO_UDP,
};

/// Longer than the relay ever takes, shorter than patience.
const TIMEOUT: Duration = Duration::from_secs(10);
/// RFC 8489 section 6.2.1: when a request over UDP is sent again.
const RETRANSMIT: Duration = Duration::from_millis(500);

/// Carries whole messages.
pub(crate) trait Link {
    /// How often [`receive`](Self::receive) may find nothing in time.
    const TIMEOUT: u128;
    fn send(&mut self, message: &[u8]) -> io::Result<()>;
    fn receive(&mut self) -> io::Result<Vec<u8>>;
}

impl Link for UdpSocket {
    const TIMEOUT: u128 = TIMEOUT.as_millis() / RETRANSMIT.as_millis();

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        UdpSocket::send(self, message).map(drop)
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        let length = self.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Messages in a stream.
pub(crate) struct Framed<S> {
    pub(crate) stream: S,
    received: Vec<u8>,
}

impl<S> Framed<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            received: vec![],
        }
    }
}

impl<S: Read + Write> Link for Framed<S> {
    const TIMEOUT: u128 = 0;

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut message = message.to_vec();
        message.resize(message.len().next_multiple_of(4), 0);
        self.stream.write_all(&message)
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut deframer = Deframer::new(&self.received, MAX_MESSAGE);
            let message = deframer.next_message().map_err(io::Error::other)?;
            if let Some(message) = message.map(<[u8]>::to_vec) {
                self.received = deframer.rest().to_vec();
                return Ok(message);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.received.extend_from_slice(&buffer[..length]),
            }
        }
    }
}

/// A client with one user's credential.
pub(crate) struct Client<L> {
    pub(crate) link: L,
    credential: Credential,
    challenge: Option<(Realm, Nonce)>,
    /// Messages that came while a response was awaited.
    early: VecDeque<Vec<u8>>,
}

/// The error code of a refusal.
pub(crate) type Refused = u16;

pub(crate) fn udp(server: SocketAddr, credential: Credential) -> Client<UdpSocket> {
    let ip = if server.is_ipv4() { "127.0.0.1" } else { "::1" };
    udp_from(ip.parse().unwrap(), server, credential)
}

/// A client at a loopback address of its own.
pub(crate) fn udp_from(
    ip: IpAddr,
    server: SocketAddr,
    credential: Credential,
) -> Client<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(RETRANSMIT)).unwrap();
    Client::new(socket, credential)
}

pub(crate) fn tcp(server: SocketAddr, credential: Credential) -> Client<Framed<TcpStream>> {
    Client::new(Framed::new(tcp_stream(server)), credential)
}

pub(crate) fn tcp_stream(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl<L: Link> Client<L> {
    pub(crate) fn new(link: L, credential: Credential) -> Self {
        Self {
            link,
            credential,
            challenge: None,
            early: VecDeque::new(),
        }
    }

    /// Asks for the address under which the server sees this client.
    pub(crate) fn binding(&mut self) -> SocketAddr {
        let response = self.ask(&binding_request());
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&response).unwrap();
        SocketAddr::new(mapped.ip, mapped.port)
    }

    /// Allocates, and returns the relayed address.
    pub(crate) fn allocate(&mut self) -> Result<SocketAddr, Refused> {
        let response = self.authenticated(METHOD_ALLOCATE, &[&UDP])?;
        let mut relayed = RelayedAddress::default();
        relayed.get_from(&response).unwrap();
        Ok(SocketAddr::new(relayed.ip, relayed.port))
    }

    pub(crate) fn release(&mut self) -> Result<(), Refused> {
        let lifetime = Lifetime(Duration::ZERO);
        self.authenticated(METHOD_REFRESH, &[&lifetime]).map(drop)
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Result<(), Refused> {
        self.authenticated(METHOD_CREATE_PERMISSION, &[&peer_address(peer)])
            .map(drop)
    }

    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), Refused> {
        let attributes: [&dyn Setter; 2] = [&ChannelNumber(channel), &peer_address(peer)];
        self.authenticated(METHOD_CHANNEL_BIND, &attributes)
            .map(drop)
    }

    pub(crate) fn send_channel(&mut self, channel: u16, payload: &[u8]) {
        self.link.send(&channel_data(channel, payload)).unwrap();
    }

    /// The next payload on a channel, others and indications passed over.
    pub(crate) fn receive_channel(&mut self) -> (u16, Vec<u8>) {
        loop {
            let message = match self.early.pop_front() {
                Some(message) => message,
                None => self.receive(|_| {}),
            };
            if let [number @ 0x40..=0x7f, low, high, end, payload @ ..] = message.as_slice() {
                let length = usize::from(u16::from_be_bytes([*high, *end]));
                assert_eq!(payload.len(), length);
                return (u16::from_be_bytes([*number, *low]), payload.to_vec());
            }
        }
    }

    /// Sends a request with credentials, and once more where the server has a nonce to tell.
    fn authenticated(
        &mut self,
        method: Method,
        attributes: &[&dyn Setter],
    ) -> Result<Message, Refused> {
        for _ in 0..3 {
            let response = self.ask(&self.signed(method, attributes));
            if response.typ.class == CLASS_SUCCESS_RESPONSE {
                return Ok(response);
            }
            assert!(response.contains(ATTR_ERROR_CODE));
            let mut error = ErrorCodeAttribute::default();
            error.get_from(&response).unwrap();
            let knew_nonce = self.challenge.is_some();
            match error.code.0 {
                438 => self.challenge = Some(challenge(&response)),
                401 if !knew_nonce => self.challenge = Some(challenge(&response)),
                code => return Err(code),
            }
        }
        panic!("the server is never content with a nonce");
    }

    /// A request with credentials, if the server has told its nonce.
    pub(crate) fn signed(&self, method: Method, attributes: &[&dyn Setter]) -> Message {
        let mut message = request(method, attributes);
        if let Some((realm, nonce)) = &self.challenge {
            let credential = &self.credential;
            Username::new(ATTR_USERNAME, credential.username.clone())
                .add_to(&mut message)
                .unwrap();
            realm.add_to(&mut message).unwrap();
            nonce.add_to(&mut message).unwrap();
            MessageIntegrity::new_long_term_integrity(
                credential.username.clone(),
                realm.text.clone(),
                credential.password.clone(),
            )
            .add_to(&mut message)
            .unwrap();
        }
        message
    }

    /// The next message; `meanwhile` runs each time nothing came in time.
    fn receive(&mut self, meanwhile: impl Fn(&mut L)) -> Vec<u8> {
        for _ in 0..L::TIMEOUT {
            match self.link.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    meanwhile(&mut self.link);
                }
                received => return received.unwrap(),
            }
        }
        self.link.receive().unwrap()
    }

    fn ask(&mut self, request: &Message) -> Message {
        self.link.send(&request.raw).unwrap();
        loop {
            let raw = self.receive(|link| link.send(&request.raw).unwrap());
            let mut message = Message {
                raw,
                ..Message::default()
            };
            if message.raw[0] < 0x40 && message.decode().is_ok() {
                if message.transaction_id == request.transaction_id {
                    return message;
                }
            } else {
                self.early.push_back(message.raw);
            }
        }
    }
}

pub(crate) fn channel_data(channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = channel.to_be_bytes().to_vec();
    message.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    message.extend_from_slice(payload);
    message
}

pub(crate) fn binding_request() -> Message {
    request(METHOD_BINDING, &[])
}

fn request(method: Method, attributes: &[&dyn Setter]) -> Message {
    let mut message = Message::new();
    message.typ = MessageType::new(method, CLASS_REQUEST);
    message.transaction_id = TransactionId::new();
    message.write_header();
    for attribute in attributes {
        attribute.add_to(&mut message).unwrap();
    }
    message
}

fn challenge(response: &Message) -> (Realm, Nonce) {
    (
        Realm::get_from_as(response, ATTR_REALM).unwrap(),
        Nonce::get_from_as(response, ATTR_NONCE).unwrap(),
    )
}

pub(crate) fn peer_address(peer: SocketAddr) -> PeerAddress {
    PeerAddress {
        ip: peer.ip(),
        port: peer.port(),
    }
}
