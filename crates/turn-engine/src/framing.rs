//! Messages in a stream (RFC 8656 section 12.5, RFC 8489 section 6.2.2): where each ends.
//!
//! Looks at headers only; what a message says is the engine's.

/// RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_HEADER: usize = 20;
const CHANNEL_HEADER: usize = 4;

/// The longest message of a stream, padding included.
pub const MAX_MESSAGE: usize = STUN_HEADER + 0xffff;

/// The stream speaks something else, or announces a message that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither STUN nor ChannelData")]
pub struct NotTurn;

/// Takes messages off the front of received bytes, without copying.
#[derive(Debug, Clone)]
pub struct Deframer<'a> {
    rest: &'a [u8],
    limit: usize,
}

impl<'a> Deframer<'a> {
    /// Reads `bytes`, which begin where a message begins; messages longer than `limit` bytes are
    /// refused by their header.
    pub fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self { rest: bytes, limit }
    }

    /// The next whole message without the padding that follows ChannelData; `None` until the rest
    /// of it arrives.
    ///
    /// # Errors
    /// What follows is not a message of STUN or TURN. There is no way back into step.
    pub fn next_message(&mut self) -> Result<Option<&'a [u8]>, NotTurn> {
        let Some((length, padded)) = self.measure()? else {
            return Ok(None);
        };
        if padded > self.limit {
            return Err(NotTurn);
        }
        let Some((message, rest)) = self.rest.split_at_checked(padded) else {
            return Ok(None);
        };
        self.rest = rest;
        Ok(Some(&message[..length]))
    }

    /// What has not been taken: the front of a message, or nothing.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes of the next message without and with padding; `None` where too little of its header
    /// is there.
    fn measure(&self) -> Result<Option<(usize, usize)>, NotTurn> {
        let bytes = self.rest;
        match bytes.first() {
            None => Ok(None),
            Some(0x00..=0x03) => {
                let cookie = bytes.get(4..8.min(bytes.len())).unwrap_or_default();
                if !MAGIC_COOKIE.starts_with(cookie) {
                    return Err(NotTurn);
                }
                match length_at_2(bytes) {
                    Some(length) if length % 4 != 0 => Err(NotTurn),
                    Some(length) => Ok(Some((STUN_HEADER + length, STUN_HEADER + length))),
                    None => Ok(None),
                }
            }
            Some(0x40..=0x7f) => Ok(length_at_2(bytes).map(|length| {
                let length = CHANNEL_HEADER + length;
                (length, length.next_multiple_of(4))
            })),
            // RFC 7983 section 7: DTLS, RTP and whatever else begins so is not for this port.
            Some(0x04..=0x3f | 0x80..) => Err(NotTurn),
        }
    }
}

fn length_at_2(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([
        *bytes.get(2)?,
        *bytes.get(3)?,
    ])))
}

/// What the fuzz target runs: a stream cut into pieces, whose size and the limit on messages are the
/// first two bytes, gives what it gives in one.
///
/// # Panics
/// If it does not, or a message is longer than the limit.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let [piece, limit, stream @ ..] = bytes else {
        return;
    };
    let limit = [MAX_MESSAGE, 4096, 64][usize::from(limit % 3)];
    let whole = Taken::from(std::iter::once(stream), limit);
    assert!(whole.messages.iter().all(|message| message.len() <= limit));
    let pieces = stream.chunks(usize::from(*piece) + 1);
    assert_eq!(Taken::from(pieces, limit), whole);
}

/// What a reader of pieces has in the end.
#[cfg(any(test, fuzzing))]
#[derive(Debug, PartialEq)]
struct Taken {
    messages: Vec<Vec<u8>>,
    /// The front of a message; `None` of a stream that is not TURN.
    rest: Option<Vec<u8>>,
}

#[cfg(any(test, fuzzing))]
impl Taken {
    fn from<'a>(pieces: impl Iterator<Item = &'a [u8]>, limit: usize) -> Self {
        let (mut messages, mut kept) = (vec![], vec![]);
        for piece in pieces {
            kept.extend_from_slice(piece);
            let mut deframer = Deframer::new(&kept, limit);
            loop {
                match deframer.next_message() {
                    Ok(Some(message)) => messages.push(message.to_vec()),
                    Ok(None) => break,
                    Err(NotTurn) => {
                        return Self {
                            messages,
                            rest: None,
                        };
                    }
                }
            }
            kept = deframer.rest().to_vec();
        }
        Self {
            messages,
            rest: Some(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fuzz::replay;
    use proptest::prelude::*;

    fn stun(attributes: &[u8]) -> Vec<u8> {
        let mut message = vec![0x00, 0x01];
        message.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
        message.extend_from_slice(&MAGIC_COOKIE);
        message.extend_from_slice(&[7; 12]);
        message.extend_from_slice(attributes);
        message
    }

    fn channel_data(payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0x40, 0x01];
        message.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        message.extend_from_slice(payload);
        message
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0_usize..40).prop_map(|words| stun(&vec![0; words * 4])),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|p| channel_data(&p)),
        ]
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_messages(
            messages in prop::collection::vec(message(), 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let mut stream = vec![];
            for message in &messages {
                stream.extend_from_slice(message);
                stream.resize(stream.len().next_multiple_of(4), 0xee);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            let taken = Taken::from(pieces, MAX_MESSAGE);
            let rest = Some(vec![]);
            prop_assert_eq!(taken, Taken { messages, rest });
        }

        #[test]
        fn any_bytes_will_do(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&bytes);
        }
    }

    #[test]
    fn regressions_stay_fixed() {
        replay("deframer", fuzz);
    }

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        for bytes in [&b"\x80"[..], b"\xff\xff", b"GET / HTTP/1.1\r\n".as_slice()] {
            let refused = Deframer::new(bytes, 4096).next_message() == Err(NotTurn);
            // `G` is a channel number; what follows as a length is 0x5420, more than the limit.
            assert!(refused, "{bytes:?}");
        }
        let tls_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01];
        assert_eq!(Deframer::new(&tls_hello, 4096).next_message(), Err(NotTurn));
        let mut odd = stun(&[0; 4]);
        odd[3] = 3;
        assert_eq!(Deframer::new(&odd, 4096).next_message(), Err(NotTurn));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_header() {
        let long = channel_data(&[0; 200]);
        assert_eq!(Deframer::new(&long[..4], 100).next_message(), Err(NotTurn));
        let fits = Deframer::new(&long[..4], 204).next_message();
        assert_eq!(fits, Ok(None));
    }
}
