//! A small TURN client (RFC 8656) for every transport and family.
//!
//! The `turn` crate's client speaks UDP over IPv4 only and gives an error response as text; a
//! diagnosis needs its code.

use super::dial::TIMEOUT;
use super::fault::Fault;
use super::wire::Wire;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_REQUEST, CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, Getter,
    METHOD_ALLOCATE, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH, METHOD_SEND, Message,
    MessageType, Method, Setter,
};
use stun::textattrs::TextAttribute;
use stun::xoraddr::XorMappedAddress;
use tokio::time::{Instant, timeout, timeout_at};
use turn::proto::PROTO_UDP;
use turn::proto::data::Data;
use turn::proto::lifetime::Lifetime;
use turn::proto::peeraddr::PeerAddress;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::reqfamily::{REQUESTED_FAMILY_IPV6, RequestedAddressFamily};
use turn::proto::reqtrans::RequestedTransport;

/// RFC 8489 section 6.2.1: 500 ms before the first retransmission, doubled each time; four
/// requests are sent in the time that one stream may take.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Payloads kept until they are asked for; the doctor sends a handful.
const MAX_INBOX: usize = 32;
/// A first 401, and a nonce that ran out in between (438).
const MAX_CHALLENGES: usize = 3;

/// A user's long-term credential.
#[derive(Clone)]
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: String,
}

/// What an Allocate brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allocated {
    /// Where peers send to.
    pub(super) relayed: SocketAddr,
    /// This machine as the server sees it.
    pub(super) mapped: SocketAddr,
}

/// One client of one server.
pub(super) struct TurnClient {
    wire: Wire,
    credential: Credential,
    challenge: Option<Challenge>,
    inbox: VecDeque<(SocketAddr, Vec<u8>)>,
}

#[derive(Clone)]
struct Challenge {
    realm: String,
    nonce: String,
}

/// Asks where a request over `wire` seems to come from.
pub(super) async fn binding(wire: &mut Wire) -> Result<SocketAddr, Fault> {
    let request = built(vec![
        Box::new(TransactionId::new()),
        Box::new(BINDING_REQUEST),
        Box::new(FINGERPRINT),
    ])?;
    let response = transact(wire, &request, |_| {}).await?;
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&response).map_err(|_| Fault::Foreign)?;
    Ok(SocketAddr::new(mapped.ip, mapped.port))
}

impl TurnClient {
    pub(super) fn new(wire: Wire, credential: Credential) -> Self {
        Self {
            wire,
            credential,
            challenge: None,
            inbox: VecDeque::new(),
        }
    }

    /// Allocates a relayed address: IPv6 if asked for, else what the server gives by itself.
    pub(super) async fn allocate(&mut self, ipv6: bool) -> Result<Allocated, Fault> {
        let response = self
            .request(METHOD_ALLOCATE, || {
                let mut attributes: Vec<Box<dyn Setter>> = vec![Box::new(RequestedTransport {
                    protocol: PROTO_UDP,
                })];
                if ipv6 {
                    let family: RequestedAddressFamily = REQUESTED_FAMILY_IPV6;
                    attributes.push(Box::new(family));
                }
                attributes
            })
            .await?;
        let (mut relayed, mut mapped) = (RelayedAddress::default(), XorMappedAddress::default());
        relayed.get_from(&response).map_err(|_| Fault::Foreign)?;
        mapped.get_from(&response).map_err(|_| Fault::Foreign)?;
        Ok(Allocated {
            relayed: SocketAddr::new(relayed.ip, relayed.port),
            mapped: SocketAddr::new(mapped.ip, mapped.port),
        })
    }

    /// Permits `peer` to send to this relay.
    pub(super) async fn permit(&mut self, peer: SocketAddr) -> Result<(), Fault> {
        self.request(METHOD_CREATE_PERMISSION, || vec![peer_address(peer)])
            .await?;
        Ok(())
    }

    /// Sends without hearing whether it arrives.
    pub(super) async fn send(&mut self, payload: &[u8], peer: SocketAddr) -> Result<(), Fault> {
        let indication = built(vec![
            Box::new(TransactionId::new()),
            Box::new(MessageType::new(METHOD_SEND, CLASS_INDICATION)),
            peer_address(peer),
            Box::new(Data(payload.to_vec())),
        ])?;
        self.wire.send(&indication).await
    }

    /// Waits until `payload` comes in, and tells from where; what else comes is dropped.
    pub(super) async fn await_payload(
        &mut self,
        payload: &[u8],
        patience: Duration,
    ) -> Option<SocketAddr> {
        let wanted = async {
            loop {
                while let Some((from, data)) = self.inbox.pop_front() {
                    if data == payload {
                        return Some(from);
                    }
                }
                let message = self.wire.receive().await.ok()?;
                keep(&mut self.inbox, &message);
            }
        };
        timeout(patience, wanted).await.ok().flatten()
    }

    /// Gives the allocation back.
    pub(super) async fn release(mut self) {
        let nothing = || -> Vec<Box<dyn Setter>> { vec![Box::new(Lifetime(Duration::ZERO))] };
        let _ = self.request(METHOD_REFRESH, nothing).await;
    }

    /// One authenticated request; a challenge is answered.
    async fn request(
        &mut self,
        method: Method,
        attributes: impl Fn() -> Vec<Box<dyn Setter>>,
    ) -> Result<Message, Fault> {
        let mut outcome = Err(Fault::Foreign);
        for _ in 0..MAX_CHALLENGES {
            let asked = self.challenge.is_some();
            let mut setters: Vec<Box<dyn Setter>> = vec![
                Box::new(TransactionId::new()),
                Box::new(MessageType::new(method, CLASS_REQUEST)),
            ];
            setters.extend(attributes());
            setters.extend(self.proof());
            setters.push(Box::new(FINGERPRINT));
            let request = built(setters)?;
            let inbox = &mut self.inbox;
            outcome = transact(&mut self.wire, &request, |message| keep(inbox, message)).await;
            match &outcome {
                Ok(response) if response.typ.class == CLASS_ERROR_RESPONSE => {
                    let (code, reason) = error_of(response);
                    let challenge = challenge_of(response);
                    let realm = challenge.as_ref().or(self.challenge.as_ref());
                    let realm = realm.map(|c| c.realm.clone()).unwrap_or_default();
                    outcome = Err(Fault::Stun(code, reason, realm));
                    if challenge.is_none() || !(code == 438 || (code == 401 && !asked)) {
                        break;
                    }
                    self.challenge = challenge;
                }
                _ => break,
            }
        }
        outcome
    }

    /// What proves who asks, once the server has said its realm.
    fn proof(&self) -> Vec<Box<dyn Setter>> {
        let Some(Challenge { realm, nonce }) = self.challenge.clone() else {
            return vec![];
        };
        let Credential { username, password } = self.credential.clone();
        vec![
            Box::new(TextAttribute::new(ATTR_USERNAME, username.clone())),
            Box::new(TextAttribute::new(ATTR_REALM, realm.clone())),
            Box::new(TextAttribute::new(ATTR_NONCE, nonce)),
            Box::new(MessageIntegrity::new_long_term_integrity(
                username, realm, password,
            )),
        ]
    }
}

/// Sends until the answer comes; what comes in between goes to `aside`.
async fn transact(
    wire: &mut Wire,
    request: &Message,
    mut aside: impl FnMut(&Message),
) -> Result<Message, Fault> {
    let ends = Instant::now() + TIMEOUT;
    let mut wait = if wire.is_lossy() { FIRST_WAIT } else { TIMEOUT };
    loop {
        wire.send(request).await?;
        let again = (Instant::now() + wait).min(ends);
        while let Ok(received) = timeout_at(again, wire.receive()).await {
            let message = received?;
            if message.transaction_id == request.transaction_id {
                return Ok(message);
            }
            aside(&message);
        }
        if Instant::now() >= ends {
            // A stream was accepted: no firewall keeps its other end from answering.
            return Err(match wire.is_lossy() {
                true => Fault::Silent,
                false => Fault::Foreign,
            });
        }
        wait *= 2;
    }
}

fn built(setters: Vec<Box<dyn Setter>>) -> Result<Message, Fault> {
    let mut message = Message::new();
    message
        .build(&setters)
        .map_err(|error| Fault::Other(error.to_string()))?;
    Ok(message)
}

fn keep(inbox: &mut VecDeque<(SocketAddr, Vec<u8>)>, message: &Message) {
    let (mut peer, mut data) = (PeerAddress::default(), Data::default());
    if message.typ == MessageType::new(METHOD_DATA, CLASS_INDICATION)
        && peer.get_from(message).is_ok()
        && data.get_from(message).is_ok()
        && inbox.len() < MAX_INBOX
    {
        inbox.push_back((SocketAddr::new(peer.ip, peer.port), data.0));
    }
}

fn peer_address(peer: SocketAddr) -> Box<dyn Setter> {
    Box::new(PeerAddress {
        ip: peer.ip(),
        port: peer.port(),
    })
}

fn error_of(response: &Message) -> (u16, String) {
    let mut error = ErrorCodeAttribute::default();
    match error.get_from(response) {
        Ok(()) => (
            error.code.0,
            String::from_utf8_lossy(&error.reason).into_owned(),
        ),
        Err(_) => (0, "an error without a code".into()),
    }
}

fn challenge_of(response: &Message) -> Option<Challenge> {
    let text = |attribute| {
        let found = TextAttribute::get_from_as(response, attribute).ok()?;
        Some(found.text)
    };
    Some(Challenge {
        realm: text(ATTR_REALM)?,
        nonce: text(ATTR_NONCE)?,
    })
}
