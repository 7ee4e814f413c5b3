//! What the fuzz target runs.

use super::{Decoder, Event, Next, Violation};
use std::io::{self, Read, Write};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

/// Longest message here: little more than what two bytes of length begin at.
const MAX: usize = 200;

/// A stream cut into pieces, whose size is the first byte, and read with a pause after every
/// message, gives what it gives in one, and what tungstenite reads of it.
///
/// # Panics
/// If it does not, or a message is longer than the limit.
pub fn fuzz(bytes: &[u8]) {
    let [piece, stream @ ..] = bytes else {
        return;
    };
    let whole = read(&mut std::iter::once(stream), || Next::Go);
    let cut = read(&mut stream.chunks(usize::from(*piece) + 1), || Next::Pause);
    assert_eq!(cut, whole);
    compare(stream);
}

/// Where reading a stream stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// At its end: more may come.
    More,
    /// At a close frame.
    Closed,
    /// At what is refused.
    Refused(Violation),
}

/// Both readers give the same messages, and stop at the same place, with two differences: the library
/// looks at a text before its last fragment has come, and refuses a frame only when the header is
/// whole.
fn compare(stream: &[u8]) {
    let ((mine, my_end), (theirs, their_end)) = (messages(stream), messages_of_library(stream));
    match (my_end, their_end) {
        (_, End::Refused(Violation::NotUtf8)) => {
            assert!(mine.starts_with(&theirs), "{mine:?} {theirs:?}");
        }
        (End::Refused(_), End::Refused(_) | End::More) => assert_eq!(mine, theirs),
        // The library takes any code and answers a wrong one with a protocol error.
        (End::Refused(Violation::Framing("half a close code" | "no such close code")), _) => {
            assert_eq!((mine, their_end), (theirs, End::Closed));
        }
        _ => assert_eq!((mine, my_end), (theirs, their_end)),
    }
}

fn messages(stream: &[u8]) -> (Vec<Message>, End) {
    let (mut messages, mut is_closed) = (vec![], false);
    let fed: Result<(), Violation> = Decoder::default().feed(&mut stream.to_vec(), MAX, |event| {
        let message = match event {
            Event::Text(text) => Message::text(text),
            Event::Binary(payload) => Message::binary(payload.to_vec()),
            Event::Ping(payload) => Message::Ping(payload.to_vec().into()),
            Event::Pong(payload) => Message::Pong(payload.to_vec().into()),
            Event::Close(_) => {
                is_closed = true;
                return Ok(Next::Pause);
            }
        };
        messages.push(message);
        Ok(Next::Go)
    });
    let end = match (is_closed, fed) {
        (true, _) => End::Closed,
        (false, Err(violation)) => End::Refused(violation),
        (false, Ok(())) => End::More,
    };
    (messages, end)
}

fn messages_of_library(stream: &[u8]) -> (Vec<Message>, End) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX))
        .max_frame_size(Some(MAX));
    let mut socket = WebSocket::from_raw_socket(Wire(stream), Role::Server, Some(config));
    let mut messages = vec![];
    loop {
        let end = match socket.read() {
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => End::Closed,
            Ok(message) => {
                messages.push(message);
                continue;
            }
            Err(Error::Io(_)) => End::More,
            Err(Error::Utf8(_)) => End::Refused(Violation::NotUtf8),
            Err(Error::Capacity(_)) => End::Refused(Violation::TooLarge),
            Err(_) => End::Refused(Violation::Framing("by the library")),
        };
        return (messages, end);
    }
}

/// A socket on which nothing more comes, and everything can be written.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every event, and what ended them.
fn read(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    next: fn() -> Next,
) -> (Vec<String>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut events = vec![];
    for piece in pieces {
        let mut bytes = piece.to_vec();
        loop {
            let fed: Result<(), Violation> = decoder.feed(&mut bytes, MAX, |event| {
                events.push(format!("{event:?}"));
                Ok(next())
            });
            if let Err(violation) = fed {
                return (events, Some(violation));
            }
            if !decoder.is_paused() {
                break;
            }
            bytes.clear();
        }
        assert!(
            decoder.partial.len() < MAX + 14,
            "a frame and its header at most"
        );
    }
    (events, None)
}

#[cfg(test)]
mod tests {
    use super::fuzz;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_of_every_kind_are_read_as_the_library_reads_them(
            piece: u8,
            frames in prop::collection::vec(frame(), 0..12),
            cut in 0_usize..20,
        ) {
            let mut stream = vec![piece];
            stream.extend(frames.concat());
            stream.truncate(stream.len().saturating_sub(cut).max(1));
            fuzz(&stream);
        }
    }

    /// Mostly a frame that a client might send: bits, opcode, length and mask are drawn one by one.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            8 => prop::sample::select([0x81_u8, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a, 0x88].as_slice()),
            1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            4 => "[a-zü]{0,12}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..8),
            1 => (900_u16..5000).prop_map(|code| code.to_be_bytes().to_vec()),
            1 => (0_usize..250).prop_map(|length| vec![b'x'; length]),
        ];
        (first, payload, 0_u8..12, any::<[u8; 4]>()).prop_map(|(first, payload, how, mask)| {
            let masked = if how == 0 { 0 } else { 0x80 };
            let mut frame = vec![first];
            match (payload.len(), how) {
                // A length need not be in its shortest form to be read.
                (length @ 0..126, 2..) => frame.push(masked | length as u8),
                (length, _) => {
                    frame.push(masked | 126);
                    frame.extend((length as u16).to_be_bytes());
                }
            }
            if masked != 0 {
                frame.extend(mask);
            }
            frame.extend(
                payload
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, key)| byte ^ key),
            );
            frame
        })
    }
}
