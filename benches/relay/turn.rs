//! The TURN requests that the generator needs, on the `stun` crate's codec. Pure: moves no bytes.

use super::wire::CHANNEL;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_REQUEST, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, METHOD_ALLOCATE,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, Message, MessageType, Method,
    Setter,
};
use stun::textattrs::TextAttribute;
use turn::proto::PROTO_UDP;
use turn::proto::channum::ChannelNumber;
use turn::proto::lifetime::Lifetime;
use turn::proto::peeraddr::PeerAddress;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::reqtrans::RequestedTransport;

/// A TURN REST username and its password.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Credential {
    /// Signs `<expiry>:<user>` as every server of the REST scheme verifies it.
    pub(crate) fn mint(secret: &str, user: &str, expiry: u64) -> Self {
        let username = format!("{expiry}:{user}");
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(username.as_bytes());
        let signature = mac.finalize().into_bytes();
        let password = base64::engine::general_purpose::STANDARD.encode(signature);
        Self { username, password }
    }
}

/// What a server asked for in its 401, with the key that follows from it.
pub(crate) struct Challenge {
    username: String,
    realm: String,
    nonce: String,
    key: MessageIntegrity,
}

impl Challenge {
    /// Reads a refusal of an unauthenticated request; `known` spares deriving the key again.
    pub(crate) fn read(
        response: &Message,
        credential: &Credential,
        known: Option<&Self>,
    ) -> Result<Self> {
        let realm = match TextAttribute::get_from_as(response, ATTR_REALM) {
            Ok(realm) => realm.to_string(),
            Err(_) => bail!("challenged by {}", error_code(response)?),
        };
        let nonce = TextAttribute::get_from_as(response, ATTR_NONCE)?.to_string();
        let key = match known {
            Some(known) if known.realm == realm => MessageIntegrity(known.key.0.clone()),
            _ => MessageIntegrity::new_long_term_integrity(
                credential.username.clone(),
                realm.clone(),
                credential.password.clone(),
            ),
        };
        Ok(Self {
            username: credential.username.clone(),
            realm,
            nonce,
            key,
        })
    }
}

pub(crate) fn binding() -> Result<Message> {
    let mut message = Message::new();
    message.new_transaction_id()?;
    message.set_type(BINDING_REQUEST);
    message.write_header();
    Ok(message)
}

pub(crate) fn allocate(challenge: Option<&Challenge>) -> Result<Message> {
    request(
        METHOD_ALLOCATE,
        vec![Box::new(RequestedTransport {
            protocol: PROTO_UDP,
        })],
        challenge,
    )
}

pub(crate) fn bind_channel(peer: SocketAddrV4, challenge: &Challenge) -> Result<Message> {
    let attributes: Vec<Box<dyn Setter>> = vec![
        Box::new(ChannelNumber(CHANNEL)),
        Box::new(peer_address(peer)),
    ];
    request(METHOD_CHANNEL_BIND, attributes, Some(challenge))
}

pub(crate) fn create_permission(peer: SocketAddrV4, challenge: &Challenge) -> Result<Message> {
    request(
        METHOD_CREATE_PERMISSION,
        vec![Box::new(peer_address(peer))],
        Some(challenge),
    )
}

/// A Refresh with lifetime 0, which ends the allocation.
pub(crate) fn release(challenge: &Challenge) -> Result<Message> {
    request(
        METHOD_REFRESH,
        vec![Box::new(Lifetime(std::time::Duration::ZERO))],
        Some(challenge),
    )
}

/// The relayed address of an Allocate success.
pub(crate) fn relayed_address(response: &Message) -> Result<SocketAddrV4> {
    let mut relayed = RelayedAddress::default();
    relayed
        .get_from(response)
        .context("no XOR-RELAYED-ADDRESS")?;
    match SocketAddr::new(relayed.ip, relayed.port) {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("relayed at {address}, not over IPv4"),
    }
}

/// # Errors
/// The response is not a success; the error names its code.
pub(crate) fn expect_success(response: &Message) -> Result<()> {
    if response.typ.class == CLASS_SUCCESS_RESPONSE {
        return Ok(());
    }
    bail!("{} refused: {}", response.typ.method, error_code(response)?)
}

fn error_code(response: &Message) -> Result<ErrorCodeAttribute> {
    let mut code = ErrorCodeAttribute::default();
    code.get_from(response)?;
    Ok(code)
}

fn request(
    method: Method,
    mut attributes: Vec<Box<dyn Setter>>,
    challenge: Option<&Challenge>,
) -> Result<Message> {
    if let Some(challenge) = challenge {
        for (kind, value) in [
            (ATTR_USERNAME, &challenge.username),
            (ATTR_REALM, &challenge.realm),
            (ATTR_NONCE, &challenge.nonce),
        ] {
            attributes.push(Box::new(TextAttribute::new(kind, value.clone())));
        }
        attributes.push(Box::new(MessageIntegrity(challenge.key.0.clone())));
    }
    let mut message = Message::new();
    message.new_transaction_id()?;
    message.set_type(MessageType::new(method, CLASS_REQUEST));
    message.build(&attributes)?;
    Ok(message)
}

fn peer_address(peer: SocketAddrV4) -> PeerAddress {
    PeerAddress {
        ip: IpAddr::V4(*peer.ip()),
        port: peer.port(),
    }
}
