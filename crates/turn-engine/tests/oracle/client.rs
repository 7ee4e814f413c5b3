//! A client that sends what it is given, and says how it was answered.

use super::SOON;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use stun::attributes::*;
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::*;
use stun::xoraddr::XorMappedAddress;
use turn::auth::generate_auth_key;
use turn_engine::credential::Credential;

/// A client with its own five-tuple.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pub(crate) credential: Credential,
    pub(crate) realm: String,
    pub(crate) nonce: String,
}

static TRANSACTIONS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn message(method: Method, class: MessageClass) -> Message {
    let mut message = Message::new();
    message.typ = MessageType::new(method, class);
    let number = TRANSACTIONS.fetch_add(1, Ordering::Relaxed);
    message.transaction_id.0[4..].copy_from_slice(&number.to_be_bytes());
    message.write_header();
    message
}

pub(crate) fn request(method: Method, attributes: &[(AttrType, &[u8])]) -> Message {
    let mut message = message(method, CLASS_REQUEST);
    for (kind, value) in attributes {
        message.add(*kind, value);
    }
    message
}

pub(crate) fn peer(message: &mut Message, peer: SocketAddr) {
    let address = XorMappedAddress {
        ip: peer.ip(),
        port: peer.port(),
    };
    address.add_to_as(message, ATTR_XOR_PEER_ADDRESS).unwrap();
}

pub(crate) const UDP: (AttrType, &[u8]) = (ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0]);

/// Binds channel `number` to `to`.
pub(crate) fn bind(client: &Client, number: u16, to: SocketAddr) -> String {
    let [high, low] = number.to_be_bytes();
    let number = (ATTR_CHANNEL_NUMBER, &[high, low, 0, 0][..]);
    let mut bind = request(METHOD_CHANNEL_BIND, &[number]);
    peer(&mut bind, to);
    client.ask(bind)
}

impl Client {
    pub(crate) fn new(server: SocketAddr, credential: &Credential) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self {
            socket,
            credential: credential.clone(),
            realm: String::new(),
            nonce: String::new(),
        }
    }

    pub(crate) fn challenged(server: SocketAddr, credential: &Credential) -> Self {
        let mut client = Self::new(server, credential);
        let answer = client.exchange(&request(METHOD_ALLOCATE, &[UDP]).raw);
        let answer = answer.unwrap();
        client.realm = String::from_utf8(answer.get(ATTR_REALM).unwrap()).unwrap();
        client.nonce = String::from_utf8(answer.get(ATTR_NONCE).unwrap()).unwrap();
        client
    }

    pub(crate) fn allocated(server: SocketAddr, credential: &Credential) -> Self {
        Self::relayed(server, credential).0
    }

    /// A client with an allocation, and its relayed address.
    pub(crate) fn relayed(server: SocketAddr, credential: &Credential) -> (Self, SocketAddr) {
        let client = Self::challenged(server, credential);
        let allocate = client.sign(request(METHOD_ALLOCATE, &[UDP]));
        let answer = client.exchange(&allocate.raw).unwrap();
        let mut relayed = XorMappedAddress::default();
        let kind = ATTR_XOR_RELAYED_ADDRESS;
        relayed.get_from_as(&answer, kind).unwrap();
        (client, SocketAddr::new(relayed.ip, relayed.port))
    }

    pub(crate) fn sign(&self, mut request: Message) -> Message {
        request.add(ATTR_USERNAME, self.credential.username.as_bytes());
        request.add(ATTR_REALM, self.realm.as_bytes());
        request.add(ATTR_NONCE, self.nonce.as_bytes());
        let (name, password) = (&self.credential.username, &self.credential.password);
        let key = generate_auth_key(name, &self.realm, password);
        MessageIntegrity(key).add_to(&mut request).unwrap();
        request
    }

    pub(crate) fn ask(&self, request: Message) -> String {
        outcome(self.exchange(&self.sign(request).raw))
    }

    /// The answer, or that there is none: both servers answer in order, so that what comes behind
    /// it is answered after it.
    pub(crate) fn exchange(&self, request: &[u8]) -> Option<Message> {
        self.socket.send(request).unwrap();
        let probe = message(METHOD_BINDING, CLASS_REQUEST);
        self.socket.send(&probe.raw).unwrap();
        let mut answer = None;
        loop {
            let mut buffer = [0; 2_000];
            let length = self.socket.recv(&mut buffer).unwrap();
            let mut received = Message::new();
            // An answer to a classic client is none that the crate reads.
            if received.unmarshal_binary(&buffer[..length]).is_err() {
                answer = Some(Message::new());
            } else if received.transaction_id == probe.transaction_id {
                return answer;
            } else if received.transaction_id.0[..] == request[8..20] {
                answer = Some(received);
            }
        }
    }
}

pub(crate) fn outcome(answer: Option<Message>) -> String {
    let Some(answer) = answer else {
        return "silence".into();
    };
    if answer.typ.class == CLASS_ERROR_RESPONSE {
        let mut code = ErrorCodeAttribute::default();
        return match code.get_from(&answer) {
            Ok(()) => code.code.0.to_string(),
            Err(_) => "an error without a code".into(),
        };
    }
    match answer.get(ATTR_LIFETIME) {
        Ok(lifetime) => {
            let seconds = u32::from_be_bytes(lifetime.try_into().unwrap());
            format!("success for {seconds} s")
        }
        Err(_) => "success".into(),
    }
}
