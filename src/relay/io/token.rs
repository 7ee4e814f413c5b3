//! Where an event of a worker comes from, as the 64 bits that epoll carries with it.

use super::stream::StreamKey;
use crate::relay::engine::RelayedKey;

/// A socket or the eventfd of one worker. A token whose socket is closed matches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Token {
    Wakeup,
    Listener(u32),
    Stream(StreamKey),
    Relay(RelayedKey),
}

impl Token {
    pub(in crate::relay) fn to_bits(self) -> u64 {
        match self {
            Self::Wakeup => 0,
            Self::Listener(index) => 1 << 56 | u64::from(index),
            Self::Stream(key) => 2 << 56 | u64::from(key.generation) << 32 | u64::from(key.slot),
            Self::Relay(key) => 3 << 56 | key.to_bits(),
        }
    }

    pub(in crate::relay) fn from_bits(bits: u64) -> Self {
        match bits >> 56 {
            0 => Self::Wakeup,
            1 => Self::Listener(bits as u32),
            2 => Self::Stream(StreamKey {
                slot: bits as u32,
                generation: (bits >> 32) as u32 & 0x00ff_ffff,
            }),
            _ => Self::Relay(RelayedKey::from_bits(bits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_way_through_epoll() {
        let highest = RelayedKey::from_bits(u64::MAX);
        let stream = StreamKey {
            slot: u32::MAX,
            generation: 0x00ff_ffff,
        };
        for token in [
            Token::Wakeup,
            Token::Listener(3),
            Token::Stream(stream),
            Token::Relay(highest),
        ] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}
