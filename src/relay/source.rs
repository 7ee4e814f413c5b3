//! Where an event of a worker comes from, as the 64 bits that epoll carries with it.

use super::engine::RelayKey;
use super::stream::StreamKey;

/// A socket or bell of one worker. Names that are out of date name nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Bell,
    Listener(u32),
    Stream(StreamKey),
    Relay(RelayKey),
}

impl Source {
    pub(super) fn to_token(self) -> u64 {
        match self {
            Self::Bell => 0,
            Self::Listener(index) => 1 << 56 | u64::from(index),
            Self::Stream(key) => 2 << 56 | u64::from(key.generation) << 32 | u64::from(key.slot),
            Self::Relay(key) => {
                3 << 56 | u64::from(key.generation) << RelayKey::INDEX_BITS | u64::from(key.index)
            }
        }
    }

    pub(super) fn from_token(token: u64) -> Self {
        match token >> 56 {
            0 => Self::Bell,
            1 => Self::Listener(token as u32),
            2 => Self::Stream(StreamKey {
                slot: token as u32,
                generation: (token >> 32) as u32 & 0x00ff_ffff,
            }),
            _ => Self::Relay(RelayKey {
                index: token as u32 & ((1 << RelayKey::INDEX_BITS) - 1),
                generation: (token >> RelayKey::INDEX_BITS) as u32,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_way_through_epoll() {
        let highest = RelayKey {
            index: (1 << RelayKey::INDEX_BITS) - 1,
            generation: u32::MAX,
        };
        let stream = StreamKey {
            slot: u32::MAX,
            generation: 0x00ff_ffff,
        };
        for source in [
            Source::Bell,
            Source::Listener(3),
            Source::Stream(stream),
            Source::Relay(highest),
        ] {
            assert_eq!(Source::from_token(source.to_token()), source);
        }
    }
}
