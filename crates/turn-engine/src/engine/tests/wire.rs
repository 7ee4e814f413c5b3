//! Bytes: the vectors of RFC 5769, and our parser beside the decoder of the `stun` crate.

use super::super::auth::mac;
use super::super::message::{self, Message};
use super::harness::*;
use hmac::{Hmac, Mac};
use proptest::prelude::*;
use sha1::Sha1;
use std::net::SocketAddr;
use stun::attributes::*;
use stun::message::{Message as Encoder, *};

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 section 2.1.
const REQUEST: &str = "\
    00010058 2112a442 b7e7a701 bc34d686 fa87dfae 80220010 5354554e 20746573 7420636c 69656e74 \
    00240004 6e0001ff 80290008 932ff9b1 51263b36 00060009 6576746a 3a683676 59202020 00080014 \
    9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2 80280004 e57a3bcf";

/// RFC 5769 section 2.2.
const IPV4_RESPONSE: &str = "\
    0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200008 \
    0001a147 e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96";

/// RFC 5769 section 2.3.
const IPV6_RESPONSE: &str = "\
    01010048 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 00200014 \
    0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9 00080014 a382954e 4be67bf1 1784c97c 8292c275 \
    bfe3ed41 80280004 c8fb0b4c";

/// RFC 5769 section 2.4.
const LONG_TERM_REQUEST: &str = "\
    00010060 2112a442 78ad3433 c6ad72c0 29da412e 00060012 e3839ee3 8388e383 aae38383 e382afe3 \
    82b90000 0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341 0014000b \
    6578616d 706c652e 6f726700 00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666";

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn assert_integrity(message: &Message<'_>, key: &[u8]) {
    let (covered, value) = message.integrity().unwrap();
    mac::<Hmac<Sha1>>(key, &covered)
        .verify_slice(value)
        .unwrap();
    assert!(
        mac::<Hmac<Sha1>>(b"other", &covered)
            .verify_slice(value)
            .is_err()
    );
}

#[test]
fn rfc_5769_sample_request() {
    let bytes = unhex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.kind(), BINDING_REQUEST);
    assert_eq!(message.get(ATTR_SOFTWARE).unwrap(), b"STUN test client");
    assert_eq!(message.get(ATTR_USERNAME).unwrap(), b"evtj:h6vY");
    assert_integrity(&message, PASSWORD);
}

#[test]
fn rfc_5769_sample_responses() {
    for (hex, mapped) in [
        (IPV4_RESPONSE, "192.0.2.1:32853"),
        (
            IPV6_RESPONSE,
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        let bytes = unhex(hex);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.kind(), BINDING_SUCCESS);
        let value = message.get(ATTR_XORMAPPED_ADDRESS).unwrap();
        assert_eq!(message.xor_address(value), Some(addr(mapped)));
        assert_integrity(&message, PASSWORD);
        let mut written = Vec::new();
        let transaction = message.transaction();
        message::push_xor_address(
            &mut written,
            ATTR_XORMAPPED_ADDRESS,
            addr(mapped),
            &transaction,
        );
        assert_eq!(written[4..], *value);
    }
}

#[test]
fn rfc_5769_long_term_request() {
    let bytes = unhex(LONG_TERM_REQUEST);
    let message = Message::parse(&bytes).unwrap();
    let text = |kind| std::str::from_utf8(message.get(kind).unwrap()).unwrap();
    let (username, realm) = (text(ATTR_USERNAME), text(ATTR_REALM));
    assert_eq!((username, realm), ("マトリックス", "example.org"));
    let key = turn::auth::generate_auth_key(username, realm, "TheMatrIX");
    assert_integrity(&message, &key);
}

#[test]
fn the_key_of_rfc_8489_section_9_2_2() {
    let key = turn::auth::generate_auth_key("user", "realm", "pass");
    assert_eq!(key, unhex("8493fbc53ba582fb4c044c456bdc40eb"));
}

#[test]
fn one_flipped_bit_anywhere_is_noticed() {
    let good = unhex(REQUEST);
    // Under another name FINGERPRINT is one of the attributes that are ignored.
    let fingerprint = good.len() - 8;
    for at in (0..good.len()).filter(|at| ![fingerprint, fingerprint + 1].contains(at)) {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            // A length that swallows FINGERPRINT spoils MESSAGE-INTEGRITY as well.
            let proof = Message::parse(&bytes).and_then(|message| message.integrity());
            let taken = proof.is_some_and(|(covered, value)| {
                mac::<Hmac<Sha1>>(PASSWORD, &covered)
                    .verify_slice(value)
                    .is_ok()
            });
            assert!(!taken, "byte {at} bit {bit}");
        }
    }
}

/// What the `stun` crate decodes, where both should agree that there is a message.
fn second_opinion(bytes: &[u8]) -> Option<Encoder> {
    let mut decoded = Encoder::new();
    decoded.unmarshal_binary(bytes).ok()?;
    // It takes what no receiver should: trailing bytes, odd lengths, channel numbers.
    let exact = bytes.len() == 20 + decoded.length as usize;
    (exact && bytes.len().is_multiple_of(4) && bytes[0] & 0xc0 == 0).then_some(decoded)
}

fn assert_agreement(bytes: &[u8]) {
    let ours = Message::parse(bytes);
    let theirs = second_opinion(bytes);
    let Some(ours) = ours else {
        // Only FINGERPRINT makes us refuse what they take.
        assert!(
            theirs.is_none_or(|m| m.contains(ATTR_FINGERPRINT)),
            "{bytes:02x?}"
        );
        return;
    };
    let theirs = theirs.unwrap_or_else(|| panic!("only we take {bytes:02x?}"));
    assert_eq!(ours.kind(), theirs.typ);
    assert_eq!(ours.transaction(), theirs.transaction_id.0);
    let ends = [
        ATTR_MESSAGE_INTEGRITY,
        ATTR_MESSAGE_INTEGRITY_SHA256,
        ATTR_FINGERPRINT,
    ];
    let expected: Vec<_> = theirs
        .attributes
        .0
        .iter()
        .map(|a| (a.typ, &a.value[..]))
        .take_while(|(kind, _)| !ends.contains(kind))
        .collect();
    assert_eq!(ours.attributes().collect::<Vec<_>>(), expected);
}

fn attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
    // 0x8020 is rewritten by the crate for the sake of an old draft.
    let kind = prop_oneof![
        0u16..0x30,
        0x8000u16..0x8020,
        0x8021u16..0x8030,
        Just(0x0008),
        Just(0x001c),
        Just(0x8028)
    ];
    (kind, proptest::collection::vec(any::<u8>(), 0..40))
}

fn built(
    attributes: &[(u16, Vec<u8>)],
    key: Option<Vec<u8>>,
    fingerprint: bool,
) -> (Client, Vec<u8>) {
    let mut client = Client::new("198.51.100.7:5000", "a");
    let mut request = client.request(METHOD_ALLOCATE);
    for (kind, value) in attributes {
        request = request.attr(AttrType(*kind), value);
    }
    if let Some(key) = key {
        request = request.integrity_sha256(&key);
    }
    let bytes = if fingerprint {
        request.fingerprinted()
    } else {
        request.unsigned()
    };
    (client, bytes)
}

proptest! {
    #[test]
    fn we_read_what_the_crate_reads(
        attributes in proptest::collection::vec(attribute(), 0..8),
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        fingerprint in any::<bool>(),
        edit in proptest::option::of((any::<u16>(), any::<u8>())),
    ) {
        let (_, mut bytes) = built(&attributes, key, fingerprint);
        if let Some((at, value)) = edit {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        prop_assume!(!bytes.windows(2).any(|w| w == [0x80, 0x20]));
        assert_agreement(&bytes);
    }

    #[test]
    fn noise_is_never_more_than_noise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(message) = Message::parse(&bytes) {
            prop_assert!(second_opinion(&bytes).is_some());
            prop_assert!(message.attributes().count() < 50);
        }
        if let Some((number, payload)) = message::channel_data(&bytes) {
            prop_assert_eq!(&number.to_be_bytes(), &bytes[..2]);
            prop_assert_eq!(payload, &bytes[4..4 + payload.len()]);
        }
    }

    #[test]
    fn addresses_survive_a_round_trip(v6 in any::<bool>(), ip in any::<u128>(), port in any::<u16>()) {
        let address = match v6 {
            true => SocketAddr::new(ip.to_be_bytes().into(), port),
            false => SocketAddr::new((ip as u32).to_be_bytes().into(), port),
        };
        let mut client = Client::new("198.51.100.7:5000", "a");
        let bytes = client.request(METHOD_CREATE_PERMISSION).peer(&address.to_string()).unsigned();
        let message = Message::parse(&bytes).unwrap();
        let value = message.get(ATTR_XOR_PEER_ADDRESS).unwrap();
        prop_assert_eq!(message.xor_address(value), Some(address));
        for end in 0..value.len() {
            prop_assert_eq!(message.xor_address(&value[..end]), None);
        }
    }
}
