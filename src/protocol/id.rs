//! Identifiers that the server makes: 128 random bits as 22 characters of URL-safe base64.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
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

            /// The bits.
            pub const fn bits(self) -> u128 {
                self.0
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

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                bits(deserializer).map(Self)
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

/// Where among the nodes of a cluster a session is to be found: what stands for its room.
pub type Locator = [u8; 16];

/// Characters of a token with a locator: the secret, one byte that says what follows, the locator.
const LOCATED_LEN: usize = 44;
/// What follows is the hash of a room.
const OF_ROOM: u8 = 1;

/// The secret that moves a session to another connection; its `Debug` form hides it. In a cluster it
/// says where its session is.
#[derive(Clone, Copy)]
pub struct ResumeToken {
    secret: u128,
    locator: Option<Locator>,
}

impl ResumeToken {
    /// Wraps bits drawn by the caller, who answers for their randomness.
    pub const fn from_bits(bits: u128) -> Self {
        Self {
            secret: bits,
            locator: None,
        }
    }

    /// The same with a place.
    pub const fn at(self, locator: Option<Locator>) -> Self {
        Self { locator, ..self }
    }

    /// Where its session is, where it says so.
    pub const fn locator(&self) -> Option<Locator> {
        self.locator
    }

    /// Reads the wire form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != LOCATED_LEN {
            return decode(text).map(Self::from_bits);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (secret, rest) = bytes.split_first_chunk()?;
        let (kind, locator) = rest.split_first()?;
        if *kind != OF_ROOM {
            return None;
        }
        let secret = Self::from_bits(u128::from_be_bytes(*secret));
        Some(secret.at(Some(locator.try_into().ok()?)))
    }

    fn text(&self) -> String {
        let Some(locator) = self.locator else {
            return as_str(&encode(self.secret)).to_owned();
        };
        let mut bytes = self.secret.to_be_bytes().to_vec();
        bytes.push(OF_ROOM);
        bytes.extend_from_slice(&locator);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key to look the session up by. A hash, so that the time which a lookup takes says
    /// nothing about the tokens that exist.
    pub fn digest(&self) -> u128 {
        let hash = Sha256::digest(self.secret.to_be_bytes());
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
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a token has 22 or 44 characters"))
    }
}

fn bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = <Cow<'de, str>>::deserialize(deserializer)?;
    decode(&text).ok_or_else(|| D::Error::custom("an id has 22 characters of base64"))
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
    fn tokens_say_where_their_session_is_or_do_not() {
        let plain = ResumeToken::from_bits(7);
        assert_eq!(plain.text().len(), TEXT_LEN);
        let located = plain.at(Some([9; 16]));
        assert_eq!(located.text().len(), LOCATED_LEN);
        assert_eq!(located.digest(), plain.digest());
        for token in [plain, located] {
            let read = ResumeToken::parse(&token.text()).unwrap();
            assert_eq!(read.locator(), token.locator());
            assert_eq!(read.digest(), token.digest());
        }
        let mut other = located.text();
        other.replace_range(21..24, "___");
        assert!(ResumeToken::parse(&other).is_none_or(|read| read.locator() != Some([9; 16])));
        assert!(ResumeToken::parse(&"A".repeat(LOCATED_LEN)).is_none());
    }

    #[test]
    fn resume_tokens_are_not_printed() {
        let token = ResumeToken::from_bits(7);
        assert!(!format!("{token:?}").contains(as_str(&encode(7))));
    }
}
