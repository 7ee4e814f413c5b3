//! Nonces that the server recognises without remembering them (RFC 8489 section 9.2).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::net::{IpAddr, SocketAddr};

/// "obMatJos2" and the security features. "Password algorithms" is bit 0, which is the leftmost
/// bit in the text of RFC 8489 and the rightmost one by its verified erratum 6290; both are set,
/// since bit 23 means nothing in either reading. "Username anonymity" (bit 1) is not offered.
pub(super) const COOKIE: &str = "obMatJos2gAAB";

/// Seconds: RFC 8656 section 5 wants a nonce to expire at least once an hour.
const LIFETIME: u16 = 3_600;

/// Bytes of the time in a nonce: the low 16 bits of its Unix second, which span eighteen hours.
/// The HMAC covers the whole second.
const TIME: usize = 2;

/// Bytes of the HMAC kept. Each byte counts in a 401, and a guessed nonce is worth nothing without
/// a password: 48 bits are more than a client can try in the hour that a nonce lasts.
const MAC: usize = 6;

/// Whether a nonce announces the security features of RFC 8489.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Features {
    /// It starts with [`COOKIE`].
    Announced,
    /// It is as short as can be: a nonce as RFC 5389 knows it.
    None,
}

/// Makes the nonce of `client` at `unix` seconds.
pub(super) fn mint(key: &[u8; 32], client: SocketAddr, unix: u64, features: Features) -> String {
    let mut value = [0; TIME + MAC];
    value[..TIME].copy_from_slice(&(unix as u16).to_be_bytes());
    let mac = mac(key, client, unix, features).finalize().into_bytes();
    value[TIME..].copy_from_slice(&mac[..MAC]);
    let mut nonce = String::with_capacity(COOKIE.len() + 11);
    if features == Features::Announced {
        nonce.push_str(COOKIE);
    }
    BASE64_STANDARD_NO_PAD.encode_string(value, &mut nonce);
    nonce
}

/// Whether `nonce` was made for `client` within the last hour.
pub(super) fn is_fresh(key: &[u8; 32], nonce: &[u8], client: SocketAddr, unix: u64) -> bool {
    let (encoded, features) = match nonce.strip_prefix(COOKIE.as_bytes()) {
        Some(encoded) => (encoded, Features::Announced),
        None => (nonce, Features::None),
    };
    let mut value = [0; TIME + MAC];
    if BASE64_STANDARD_NO_PAD.decode_slice(encoded, &mut value) != Ok(value.len()) {
        return false;
    }
    let (&time, tag) = value
        .split_first_chunk()
        .expect("the value starts with its time");
    let age = (unix as u16).wrapping_sub(u16::from_be_bytes(time));
    let Some(minted) = unix.checked_sub(age.into()) else {
        return false;
    };
    let mac = mac(key, client, minted, features);
    age < LIFETIME && mac.verify_truncated_left(tag).is_ok()
}

fn mac(key: &[u8; 32], client: SocketAddr, unix: u64, features: Features) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(&unix.to_be_bytes());
    // Who strips the features from a nonce makes it stale.
    mac.update(&[features as u8]);
    mac.update(&client.port().to_be_bytes());
    match client.ip() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8; 32] = &[7; 32];
    const NOW: u64 = 1_700_000_000;

    fn client(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn a_nonce_is_good_for_an_hour_for_its_client() {
        let a = client("192.0.2.1:1000");
        let nonce = mint(KEY, a, NOW, Features::Announced);
        assert!(nonce.starts_with("obMatJos2"));
        assert_eq!(nonce.len(), 24, "a 401 must stay small");
        let fresh = |nonce: &str, client, unix| is_fresh(KEY, nonce.as_bytes(), client, unix);
        assert!(fresh(&nonce, a, NOW));
        assert!(fresh(&nonce, a, NOW + 3_599));
        assert!(!fresh(&nonce, a, NOW + 3_600));
        assert!(!fresh(&nonce, a, NOW - 1), "from the future");
        assert!(!fresh(&nonce, client("192.0.2.1:1001"), NOW));
        assert!(!fresh(&nonce, client("192.0.2.2:1000"), NOW));
        assert!(!is_fresh(&[8; 32], nonce.as_bytes(), a, NOW));
        let eighteen_hours = 1 << 16;
        assert!(!fresh(&nonce, a, NOW + eighteen_hours), "the time wraps");
    }

    #[test]
    fn a_short_nonce_is_as_good_and_no_stripped_one_is() {
        let a = client("192.0.2.1:1000");
        let short = mint(KEY, a, NOW, Features::None);
        assert_eq!(short.len(), 11);
        assert!(is_fresh(KEY, short.as_bytes(), a, NOW + 3_599));
        assert!(!is_fresh(KEY, short.as_bytes(), a, NOW + 3_600));
        let long = mint(KEY, a, NOW, Features::Announced);
        assert!(!is_fresh(KEY, &long.as_bytes()[COOKIE.len()..], a, NOW));
        let dressed = [COOKIE, &short].concat();
        assert!(!is_fresh(KEY, dressed.as_bytes(), a, NOW));
    }

    #[test]
    fn no_edited_nonce_is_fresh() {
        let a = client("[2001:db8::1]:1000");
        let nonce = mint(KEY, a, NOW, Features::Announced).into_bytes();
        for at in 0..nonce.len() {
            for bit in 0..8 {
                let mut edited = nonce.clone();
                edited[at] ^= 1 << bit;
                assert!(!is_fresh(KEY, &edited, a, NOW), "byte {at} bit {bit}");
            }
            assert!(!is_fresh(KEY, &nonce[..at], a, NOW));
        }
        assert!(!is_fresh(KEY, &[nonce, b"A".to_vec()].concat(), a, NOW));
    }

    #[test]
    fn the_cookie_says_password_algorithms_in_either_reading() {
        let bits = BASE64_STANDARD_NO_PAD.decode(&COOKIE[9..]).unwrap();
        assert_eq!(bits, [0x80, 0, 0x01]);
    }
}
