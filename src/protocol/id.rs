//! Identifiers that the server makes: 128 random bits as 22 characters of URL-safe base64.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;

/// Characters of an id: 16 bytes in base64 without padding.
const TEXT_LEN: usize = 22;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Wraps bits drawn by the caller, who answers for their randomness.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// Reads the wire form; `None` for anything else.
            pub fn parse(text: &str) -> Option<Self> {
                decode(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(as_str(&encode(self.0)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(as_str(&encode(self.0)))
            }
        }
    };
}

id! {
    /// Names a session; also the `<user>` of its TURN credentials.
    PeerId
}

id! {
    /// Names a direct call.
    CallId
}

/// The secret that moves a session to another connection; its `Debug` form hides it.
#[derive(Clone, Copy)]
pub struct ResumeToken(u128);

impl ResumeToken {
    /// Wraps bits drawn by the caller, who answers for their randomness.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Reads the wire form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }

    /// The key to look the session up by. A hash, so that the time which a lookup takes says
    /// nothing about the tokens that exist.
    pub fn digest(&self) -> u128 {
        let hash = Sha256::digest(self.0.to_be_bytes());
        let (head, _) = hash.split_first_chunk().expect("SHA-256 gives 32 bytes");
        u128::from_be_bytes(*head)
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(as_str(&encode(self.0)))
    }
}

fn encode(bits: u128) -> [u8; TEXT_LEN] {
    let mut text = [0; TEXT_LEN];
    BASE64_URL_SAFE_NO_PAD
        .encode_slice(bits.to_be_bytes(), &mut text)
        .expect("16 bytes are 22 characters of base64");
    text
}

fn as_str(text: &[u8; TEXT_LEN]) -> &str {
    std::str::from_utf8(text).expect("base64 is ASCII")
}

fn decode(text: &str) -> Option<u128> {
    // The decoder may ask for more room than it fills.
    let mut bytes = [0; 18];
    match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(16) => bytes.first_chunk().map(|head| u128::from_be_bytes(*head)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_wire_and_nothing_else_is_one() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let id = PeerId::from_bits(bits);
            assert_eq!(id.to_string().len(), TEXT_LEN);
            assert_eq!(PeerId::parse(&id.to_string()), Some(id));
        }
        // The last has bits beyond the 128th.
        for bad in [
            "",
            "AA",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
            "é",
        ] {
            assert_eq!(PeerId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(PeerId::parse("AAAAAAAAAAAAAAAAAAAAAB"), None);
    }

    #[test]
    fn resume_tokens_are_not_printed() {
        let token = ResumeToken::from_bits(7);
        assert!(!format!("{token:?}").contains(as_str(&encode(7))));
    }
}
