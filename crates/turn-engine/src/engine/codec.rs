//! The only file of the engine that names webrtc-rs: numbers of attributes, classes, methods and
//! errors, and the values that its crates write and check. Another codec is another version of this
//! file.

pub(super) use stun::attributes::*;
pub(super) use stun::error_code::*;
pub(super) use stun::fingerprint::FINGERPRINT_XOR_VALUE;
pub(super) use stun::integrity::MessageIntegrity;
pub(super) use stun::message::{
    BINDING_SUCCESS, CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE,
    MAGIC_COOKIE, METHOD_ALLOCATE, METHOD_BINDING, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION,
    METHOD_DATA, METHOD_REFRESH, METHOD_SEND, Message as Encoder, MessageClass, MessageType,
    Method, Setter,
};
pub(super) use stun::textattrs::TextAttribute;
pub(super) use stun::uattrs::UnknownAttributes;
pub(super) use stun::xoraddr::XorMappedAddress;
pub(super) use turn::proto::PROTO_UDP;
pub(super) use turn::proto::lifetime::Lifetime;
pub(super) use turn::proto::relayaddr::RelayedAddress;
pub(super) use turn::proto::rsrvtoken::ReservationToken;

/// The key of a long-term credential by MD5 (RFC 8489 section 9.2.2).
pub(super) fn md5_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    let key = turn::auth::generate_auth_key(username, realm, password);
    key.try_into().expect("MD5 has 16 bytes")
}
