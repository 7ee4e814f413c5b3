//! Writing responses: control replies with the `stun` crate's encoder, Binding responses and the
//! fronts of Data indications by hand into a buffer that is kept.

use super::auth::{Signature, SignatureKind};
use super::codec::*;
use super::message::{
    ATTR_ADDRESS_ERROR_CODE, ATTR_CHANGED_ADDRESS, ATTR_ICMP, ATTR_SOURCE_ADDRESS,
    ClassicTransactionId, FAMILY_V4, FAMILY_V6, HEADER, Message, TransactionId, fingerprint,
    push_address, push_xor_address,
};
use super::{Family, RefusedByCode};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Unknown attributes named in a 420: each took at least twice its two bytes in the request, so
/// that all of a datagram fit.
const MAX_UNKNOWN: usize = 1024;

/// The value of SOFTWARE (RFC 8489 section 14.14), without a version that would help an attacker.
const SOFTWARE: &str = "callbox";

/// Bytes that MESSAGE-INTEGRITY-SHA256 and FINGERPRINT add to a message.
const INTEGRITY_SHA256_SIZE: u32 = 36;
const FINGERPRINT_SIZE: u32 = 8;

/// A response under construction. Everything in it was chosen by the server and is short, which
/// is why writing cannot fail.
pub(super) struct Reply(Encoder);

impl Reply {
    pub(super) fn success(request: &Message<'_>) -> Self {
        Self::to(request, CLASS_SUCCESS_RESPONSE)
    }

    pub(super) fn error(request: &Message<'_>, code: ErrorCode) -> Self {
        Self::to(request, CLASS_ERROR_RESPONSE).with(&ErrorCodeAttribute {
            code,
            reason: reason(code).into(),
        })
    }

    /// An error without a reason phrase, where each byte counts.
    pub(super) fn terse_error(request: &Message<'_>, code: ErrorCode) -> Self {
        Self::to(request, CLASS_ERROR_RESPONSE).with(&ErrorCodeAttribute {
            code,
            reason: vec![],
        })
    }

    fn to(request: &Message<'_>, class: MessageClass) -> Self {
        let mut encoder = Encoder::new();
        encoder.typ = MessageType::new(request.method(), class);
        encoder.transaction_id.0 = request.transaction();
        encoder.write_header();
        Self(encoder)
    }

    fn with(mut self, attribute: &dyn Setter) -> Self {
        attribute
            .add_to(&mut self.0)
            .expect("attributes of the server's making are well-formed");
        self
    }

    pub(super) fn text(self, attr: AttrType, text: &str) -> Self {
        self.with(&TextAttribute::new(attr, text.into()))
    }

    pub(super) fn software(self) -> Self {
        self.text(ATTR_SOFTWARE, SOFTWARE)
    }

    pub(super) fn raw(mut self, kind: AttrType, value: &[u8]) -> Self {
        self.0.add(kind, value);
        self
    }

    pub(super) fn unknown_attributes(self, kinds: impl IntoIterator<Item = AttrType>) -> Self {
        let unknown = kinds.into_iter().take(MAX_UNKNOWN).collect();
        self.with(&UnknownAttributes(unknown))
    }

    pub(super) fn relayed(self, address: SocketAddr) -> Self {
        self.with(&RelayedAddress {
            ip: address.ip(),
            port: address.port(),
        })
    }

    pub(super) fn mapped(self, address: SocketAddr) -> Self {
        self.with(&XorMappedAddress {
            ip: address.ip(),
            port: address.port(),
        })
    }

    pub(super) fn lifetime(self, lifetime: Duration) -> Self {
        self.with(&Lifetime(lifetime))
    }

    pub(super) fn reservation(self, token: [u8; 8]) -> Self {
        self.with(&ReservationToken(token.to_vec()))
    }

    /// ADDRESS-ERROR-CODE: which family a dual allocation went without, and why.
    pub(super) fn address_error(self, family: Family, code: ErrorCode) -> Self {
        let mut value = vec![
            family_number(family),
            0,
            (code.0 / 100) as u8,
            (code.0 % 100) as u8,
        ];
        value.extend_from_slice(reason(code).as_bytes());
        self.raw(ATTR_ADDRESS_ERROR_CODE, &value)
    }

    /// ALTERNATE-SERVER, which is encoded as a plain MAPPED-ADDRESS.
    pub(super) fn alternate(self, address: SocketAddr) -> Self {
        let [hi, lo] = address.port().to_be_bytes();
        let mut value = vec![0, family_number(Family::of(address.ip())), hi, lo];
        match address.ip() {
            IpAddr::V4(ip) => value.extend(ip.octets()),
            IpAddr::V6(ip) => value.extend(ip.octets()),
        }
        self.raw(ATTR_ALTERNATE_SERVER, &value)
    }

    /// The finished message without integrity and FINGERPRINT, where each byte counts.
    pub(super) fn finish_bare(self) -> Vec<u8> {
        self.0.raw
    }

    /// The finished message: integrity, where the request proved a key, then FINGERPRINT.
    pub(super) fn finish(mut self, signature: Option<&Signature>) -> Vec<u8> {
        match signature {
            Some(signature) if signature.kind == SignatureKind::Sha256 => {
                let mac = self.with_length(INTEGRITY_SHA256_SIZE, |raw| signature.key.sha256(raw));
                self = self.raw(ATTR_MESSAGE_INTEGRITY_SHA256, &mac);
            }
            Some(signature) => self = self.with(&MessageIntegrity(signature.key.bytes().to_vec())),
            None => {}
        }
        let value = self.with_length(FINGERPRINT_SIZE, fingerprint);
        self.raw(ATTR_FINGERPRINT, &value).0.raw
    }

    /// Checksums are computed with the length that the message has once they are in it.
    fn with_length<T>(&mut self, more: u32, compute: impl FnOnce(&[u8]) -> T) -> T {
        let length = self.0.length;
        self.0.length += more;
        self.0.write_length();
        let value = compute(&self.0.raw);
        self.0.length = length;
        value
    }
}

/// What RFC 5780 has a Binding response say of the server.
pub(super) struct Origin {
    /// Where the response comes from.
    pub(super) response: SocketAddr,
    /// An address and port of the box that both differ from those that were asked.
    pub(super) other: Option<SocketAddr>,
    /// Bytes of PADDING in the request.
    pub(super) padding: Option<usize>,
}

/// Bytes of PADDING at most: the MTU of Ethernet, rounded down to four (RFC 5780 section 7.6). It
/// never exceeds the padding of the request.
const MAX_PADDING: usize = 1_500;

/// Writes a Binding success response into `buffer`.
pub(super) fn write_binding(
    buffer: &mut Vec<u8>,
    request: &Message<'_>,
    client: SocketAddr,
    origin: Option<&Origin>,
) {
    let transaction = request.transaction();
    start(buffer, BINDING_SUCCESS, &transaction);
    push_xor_address(buffer, ATTR_XORMAPPED_ADDRESS, client, &transaction);
    if let Some(origin) = origin {
        push_address(buffer, ATTR_MAPPED_ADDRESS, client);
        push_address(buffer, ATTR_RESPONSE_ORIGIN, origin.response);
        if let Some(other) = origin.other {
            push_address(buffer, ATTR_OTHER_ADDRESS, other);
        }
        if let Some(asked) = origin.padding {
            let length = asked.min(MAX_PADDING) & !3;
            buffer.extend(ATTR_PADDING.value().to_be_bytes());
            buffer.extend((length as u16).to_be_bytes());
            buffer.resize(buffer.len() + length, 0);
        }
    }
    set_length(buffer, FINGERPRINT_SIZE as usize);
    let value = fingerprint(buffer);
    buffer.extend([0x80, 0x28, 0, 4]);
    buffer.extend(value);
}

/// Writes a Binding success response of RFC 3489 into `buffer`.
pub(super) fn write_classic_binding(
    buffer: &mut Vec<u8>,
    transaction: &ClassicTransactionId,
    client: SocketAddr,
    origin: Option<&Origin>,
) {
    buffer.clear();
    buffer.extend(BINDING_SUCCESS.value().to_be_bytes());
    buffer.extend([0, 0]);
    buffer.extend(transaction);
    push_address(buffer, ATTR_MAPPED_ADDRESS, client);
    if let Some(origin) = origin {
        push_address(buffer, ATTR_SOURCE_ADDRESS, origin.response);
        if let Some(other) = origin.other {
            push_address(buffer, ATTR_CHANGED_ADDRESS, other);
        }
    }
    set_length(buffer, 0);
}

/// Writes the front of a Data indication into `buffer`: everything up to a payload of `length`
/// bytes, which is padded to a multiple of four. `None` if no STUN message is that long.
pub(super) fn write_data_head(
    buffer: &mut Vec<u8>,
    transaction: &TransactionId,
    peer: SocketAddr,
    length: usize,
) -> Option<()> {
    start(
        buffer,
        MessageType::new(METHOD_DATA, CLASS_INDICATION),
        transaction,
    );
    push_xor_address(buffer, ATTR_XOR_PEER_ADDRESS, peer, transaction);
    buffer.extend(ATTR_DATA.value().to_be_bytes());
    buffer.extend(u16::try_from(length).ok()?.to_be_bytes());
    let rest = length.next_multiple_of(4);
    (buffer.len() - HEADER + rest <= usize::from(u16::MAX)).then(|| set_length(buffer, rest))
}

/// Writes a whole Data indication that reports an ICMP error into `buffer` (RFC 8656 section
/// 11.5).
pub(super) fn write_icmp(
    buffer: &mut Vec<u8>,
    transaction: &TransactionId,
    peer: SocketAddr,
    (icmp_type, icmp_code): (u8, u8),
    error_data: u32,
) {
    start(
        buffer,
        MessageType::new(METHOD_DATA, CLASS_INDICATION),
        transaction,
    );
    push_xor_address(buffer, ATTR_XOR_PEER_ADDRESS, peer, transaction);
    // Seven bits of type, nine of code.
    let kind = u16::from(icmp_type & 0x7f) << 9 | u16::from(icmp_code);
    buffer.extend(ATTR_ICMP.value().to_be_bytes());
    buffer.extend([0, 8, 0, 0]);
    buffer.extend(kind.to_be_bytes());
    buffer.extend(error_data.to_be_bytes());
    set_length(buffer, 0);
}

fn start(buffer: &mut Vec<u8>, kind: MessageType, transaction: &TransactionId) {
    buffer.clear();
    buffer.extend(kind.value().to_be_bytes());
    buffer.extend([0, 0]);
    buffer.extend(MAGIC_COOKIE.to_be_bytes());
    buffer.extend(transaction);
}

/// Sets the length to what is in `buffer` and `more` bytes to come.
fn set_length(buffer: &mut [u8], more: usize) {
    let length = (buffer.len() - HEADER + more) as u16;
    buffer[2..4].copy_from_slice(&length.to_be_bytes());
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => FAMILY_V4,
        Family::V6 => FAMILY_V6,
    }
}

fn reason(code: ErrorCode) -> &'static str {
    match code {
        CODE_TRY_ALTERNATE => "Try Alternate",
        CODE_BAD_REQUEST => "Bad Request",
        CODE_UNAUTHORIZED => "Unauthenticated",
        CODE_FORBIDDEN => "Forbidden",
        CODE_UNKNOWN_ATTRIBUTE => "Unknown Attribute",
        CODE_ALLOC_MISMATCH => "Allocation Mismatch",
        CODE_STALE_NONCE => "Stale Nonce",
        CODE_ADDR_FAMILY_NOT_SUPPORTED => "Address Family not Supported",
        CODE_WRONG_CREDENTIALS => "Wrong Credentials",
        CODE_UNSUPPORTED_TRANS_PROTO => "Unsupported Transport Protocol",
        CODE_PEER_ADDR_FAMILY_MISMATCH => "Peer Address Family Mismatch",
        CODE_ALLOC_QUOTA_REACHED => "Allocation Quota Reached",
        CODE_INSUFFICIENT_CAPACITY => "Insufficient Capacity",
        _ => "",
    }
}

/// Counts one error response.
pub(super) fn count(refused: &mut RefusedByCode, code: ErrorCode) {
    let counter = match code {
        CODE_TRY_ALTERNATE => &mut refused.code_300,
        CODE_BAD_REQUEST => &mut refused.code_400,
        CODE_UNAUTHORIZED => &mut refused.code_401,
        CODE_FORBIDDEN => &mut refused.code_403,
        CODE_UNKNOWN_ATTRIBUTE => &mut refused.code_420,
        CODE_ALLOC_MISMATCH => &mut refused.code_437,
        CODE_STALE_NONCE => &mut refused.code_438,
        CODE_ADDR_FAMILY_NOT_SUPPORTED => &mut refused.code_440,
        CODE_WRONG_CREDENTIALS => &mut refused.code_441,
        CODE_UNSUPPORTED_TRANS_PROTO => &mut refused.code_442,
        CODE_PEER_ADDR_FAMILY_MISMATCH => &mut refused.code_443,
        CODE_ALLOC_QUOTA_REACHED => &mut refused.code_486,
        _ => &mut refused.code_508,
    };
    *counter += 1;
}
