//! WebSocket framing, the server's side (RFC 6455 section 5).
//!
//! Pure: bytes in, events out. A connection that waits holds no buffer: callers read into one that
//! they share, and only the part of a frame that has yet to be completed is kept.

use std::fmt;

/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;
/// Fragments of one message: more than any library makes of one, and empty ones hold no bytes.
const MAX_FRAGMENTS: usize = 1_000;

/// What kind of frame (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A whole message of text.
    Text(&'a str),
    /// A whole message of bytes, which nobody here reads.
    Binary,
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The client ends the connection, maybe with a code.
    Close(Option<u16>),
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// Against RFC 6455; says how.
    Framing(&'static str),
    /// A text message that is not UTF-8.
    NotUtf8,
    /// A message over the limit.
    TooLarge,
}

/// What a reader wants after an event.
pub(super) enum Next {
    /// The following one.
    Go,
    /// To be asked again: what is left stays in the decoder.
    Pause,
}

/// Cuts a stream of bytes into messages.
#[derive(Default)]
pub(super) struct Decoder {
    state: State,
    /// Whole messages so far.
    messages: u64,
    /// What could not be taken yet: the beginning of a frame, or all after a pause.
    partial: Vec<u8>,
    /// The fragments of a message so far. Clients of signaling send none, so it is boxed.
    fragments: Option<Box<Fragments>>,
}

/// Holds what a client said.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} bytes wait)", self.partial.len())
    }
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Reads,
    /// There may be events left in `partial`.
    Paused,
    /// A violation, or an error of the reader: the rest of the stream means nothing.
    Broken,
}

struct Fragments {
    opcode: Opcode,
    count: usize,
    payload: Vec<u8>,
}

struct Header {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the header itself.
    size: usize,
    /// Bytes after it.
    payload: usize,
}

impl Decoder {
    /// Whether events may be left from before a pause: `feed` takes no bytes then, and gives them.
    pub(super) fn is_paused(&self) -> bool {
        self.state == State::Paused
    }

    /// The number of the message of which some fragments have come, and not the last one.
    pub(super) fn unfinished(&self) -> Option<u64> {
        self.fragments.is_some().then_some(self.messages)
    }

    /// Takes bytes that have come and hands each event to `take`, until either side has enough.
    /// Messages and fragments of one message hold at most `max` bytes.
    ///
    /// # Errors
    /// Those of `take`, and violations in its terms. After one, bytes are passed over.
    pub(super) fn feed<E: From<Violation>>(
        &mut self,
        bytes: &mut [u8],
        max: usize,
        mut take: impl FnMut(Event<'_>) -> Result<Next, E>,
    ) -> Result<(), E> {
        if self.state == State::Broken {
            return Ok(());
        }
        self.state = State::Reads;
        let fed = if self.partial.is_empty() {
            let used = self.frames(bytes, max, &mut take);
            used.map(|used| self.partial.extend_from_slice(&bytes[used..]))
        } else {
            self.partial.extend_from_slice(bytes);
            let mut partial = std::mem::take(&mut self.partial);
            let used = self.frames(&mut partial, max, &mut take);
            used.map(|used| {
                if used < partial.len() {
                    partial.drain(..used);
                    self.partial = partial;
                }
            })
        };
        fed.inspect_err(|_| self.state = State::Broken)
    }

    /// Reads whole frames off the front; returns how many bytes they had.
    fn frames<E: From<Violation>>(
        &mut self,
        bytes: &mut [u8],
        max: usize,
        take: &mut impl FnMut(Event<'_>) -> Result<Next, E>,
    ) -> Result<usize, E> {
        let mut used = 0;
        while let Some(header) = Header::read(&bytes[used..])? {
            let before = self.fragments.as_ref().map_or(0, |f| f.payload.len());
            if !header.opcode.is_control() && header.payload > max - before {
                return Err(Violation::TooLarge.into());
            }
            let begin = used + header.size;
            let Some(payload) = bytes.get_mut(begin..begin + header.payload) else {
                break;
            };
            unmask(payload, header.mask);
            used = begin + header.payload;
            if let Next::Pause = self.frame(&header, payload, take)? {
                self.state = State::Paused;
                break;
            }
        }
        Ok(used)
    }

    fn frame<E: From<Violation>>(
        &mut self,
        header: &Header,
        payload: &[u8],
        take: &mut impl FnMut(Event<'_>) -> Result<Next, E>,
    ) -> Result<Next, E> {
        match header.opcode {
            Opcode::Ping => take(Event::Ping(payload)),
            Opcode::Pong => take(Event::Pong(payload)),
            Opcode::Close => take(Event::Close(close_code(payload)?)),
            Opcode::Continuation => {
                let fragments = self.fragments.as_mut();
                let fragments = fragments.ok_or(Violation::Framing("a continuation of nothing"))?;
                fragments.count += 1;
                if fragments.count > MAX_FRAGMENTS {
                    return Err(Violation::Framing("too many fragments").into());
                }
                fragments.payload.extend_from_slice(payload);
                match self.fragments.take_if(|_| header.fin) {
                    Some(whole) => self.message(whole.opcode, &whole.payload, take),
                    None => Ok(Next::Go),
                }
            }
            _ if self.fragments.is_some() => {
                Err(Violation::Framing("a message within another one").into())
            }
            opcode if header.fin => self.message(opcode, payload, take),
            opcode => {
                self.fragments = Some(Box::new(Fragments {
                    opcode,
                    count: 1,
                    payload: payload.to_vec(),
                }));
                Ok(Next::Go)
            }
        }
    }

    fn message<E: From<Violation>>(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        take: &mut impl FnMut(Event<'_>) -> Result<Next, E>,
    ) -> Result<Next, E> {
        self.messages += 1;
        match opcode {
            Opcode::Text => {
                let text = std::str::from_utf8(payload).map_err(|_| Violation::NotUtf8)?;
                take(Event::Text(text))
            }
            _ => take(Event::Binary),
        }
    }
}

impl Header {
    /// `None`: there is more to come of it.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Violation::Framing("a reserved bit is set"));
        }
        let opcode = Opcode::of(first & 0x0f).ok_or(Violation::Framing("unknown opcode"))?;
        let fin = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(Violation::Framing("clients mask their frames"));
        }
        let (payload, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
            }
            (126 | 127, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest),
        };
        if payload >> 63 != 0 {
            return Err(Violation::Framing("a length with its highest bit set"));
        }
        let payload = usize::try_from(payload).map_err(|_| Violation::TooLarge)?;
        if opcode.is_control() && (!fin || payload > MAX_CONTROL) {
            return Err(Violation::Framing("control frames are short and whole"));
        }
        let Some((&mask, after)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            opcode,
            mask,
            size: bytes.len() - after.len(),
            payload,
        }))
    }
}

/// Appends the header of an unfragmented server frame (RFC 6455 section 5.1: unmasked).
pub(super) fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload: usize) {
    out.push(0x80 | opcode as u8);
    match payload {
        0..=125 => out.push(payload as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame.
pub(super) fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// RFC 6455 section 5.5.1: two bytes of code, then a reason.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Framing("half a close code")),
        [_, _, reason @ ..] if std::str::from_utf8(reason).is_err() => Err(Violation::NotUtf8),
        [a, b, ..] => match u16::from_be_bytes([*a, *b]) {
            // Section 7.4: the others never stand in a frame.
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
            _ => Err(Violation::Framing("no such close code")),
        },
    }
}

/// RFC 6455 section 5.3, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Cursor, Write as _};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
    use tokio_tungstenite::tungstenite::{Bytes, Message};

    const MAX: usize = 1000;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Said {
        Text(String),
        Binary,
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>),
    }

    impl From<Event<'_>> for Said {
        fn from(event: Event<'_>) -> Self {
            match event {
                Event::Text(text) => Self::Text(text.into()),
                Event::Binary => Self::Binary,
                Event::Ping(payload) => Self::Ping(payload.into()),
                Event::Pong(payload) => Self::Pong(payload.into()),
                Event::Close(code) => Self::Close(code),
            }
        }
    }

    fn decode(bytes: &[u8], cut: usize) -> (Vec<Said>, Result<(), Violation>, Decoder) {
        let mut decoder = Decoder::default();
        let mut said = vec![];
        for piece in bytes.chunks(cut) {
            let fed = decoder.feed(&mut piece.to_vec(), MAX, |event| {
                said.push(event.into());
                Ok(Next::Go)
            });
            if fed.is_err() {
                return (said, fed, decoder);
            }
        }
        (said, Ok(()), decoder)
    }

    /// A masked frame, as a client writes it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![];
        write_header(&mut frame, Opcode::Text, payload.len());
        frame[0] = first;
        frame[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        frame.write_all(&mask).unwrap();
        let at = frame.len();
        frame.extend_from_slice(payload);
        for (n, byte) in frame[at..].iter_mut().enumerate() {
            *byte ^= mask[n % 4];
        }
        frame
    }

    /// What the library's client writes for these messages.
    fn written(messages: &[Message]) -> Vec<u8> {
        let config = WebSocketConfig::default().max_write_buffer_size(usize::MAX);
        let stream = Cursor::new(vec![]);
        let mut client = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
        for message in messages {
            client.write(message.clone()).unwrap();
        }
        client.flush().unwrap();
        client.get_ref().get_ref().clone()
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..=max).prop_map(Bytes::from);
        prop_oneof![
            ".{0,200}".prop_map(|text| Message::Text(text.into())),
            bytes(MAX).prop_map(Message::Binary),
            bytes(MAX_CONTROL).prop_map(Message::Ping),
            bytes(MAX_CONTROL).prop_map(Message::Pong),
        ]
    }

    proptest! {
        #[test]
        fn reads_what_a_client_writes_however_it_is_cut(
            messages in proptest::collection::vec(any_message(), 0..8),
            cut in 1..500_usize,
        ) {
            let expected: Vec<_> = messages.iter().map(|message| match message {
                Message::Text(text) => Said::Text(text.as_str().into()),
                Message::Binary(_) => Said::Binary,
                Message::Ping(payload) => Said::Ping(payload.to_vec()),
                Message::Pong(payload) => Said::Pong(payload.to_vec()),
                other => unreachable!("{other}"),
            }).collect();
            let (said, end, decoder) = decode(&written(&messages), cut);
            prop_assert_eq!((said, end), (expected, Ok(())));
            prop_assert_eq!(decoder.partial.capacity(), 0, "an idle connection holds no buffer");
        }

        #[test]
        fn a_client_reads_what_is_written(text in ".{0,70000}") {
            let mut bytes = vec![];
            write_frame(&mut bytes, Opcode::Text, text.as_bytes());
            let stream = Cursor::new(bytes);
            let mut client = WebSocket::from_raw_socket(stream, Role::Client, None);
            prop_assert_eq!(client.read().unwrap(), Message::Text(text.into()));
        }

        #[test]
        fn no_bytes_bring_it_down(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 1..50_usize,
        ) {
            let (_, _, decoder) = decode(&bytes, cut);
            prop_assert!(decoder.partial.len() <= MAX + 14);
        }
    }

    #[test]
    fn fragments_make_one_message_with_control_frames_between() {
        let bytes = [
            frame(0x01, "gr".as_bytes()),
            frame(0x89, b"ping"),
            frame(0x00, &"ü".as_bytes()[..1]),
            frame(0x80, &"üße".as_bytes()[1..]),
            frame(0x81, b"next"),
        ]
        .concat();
        for cut in [1, 3, bytes.len()] {
            let begun = decode(&bytes[..9], cut).2;
            assert_eq!(begun.unfinished(), Some(0));
            let (said, end, decoder) = decode(&bytes, cut);
            let expected = [
                Said::Ping(b"ping".to_vec()),
                Said::Text("grüße".into()),
                Said::Text("next".into()),
            ];
            assert_eq!((&said[..], end), (&expected[..], Ok(())));
            assert_eq!(decoder.unfinished(), None);
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_has_come() {
        let whole = frame(0x81, &[b'a'; MAX + 1]);
        let in_parts = [frame(0x01, &[b'a'; MAX]), frame(0x80, b"a")].concat();
        let absurd = vec![
            0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ];
        for bytes in [&whole[..8], &in_parts, &absurd] {
            let (said, end, _) = decode(bytes, bytes.len());
            assert_eq!((said, end), (vec![], Err(Violation::TooLarge)));
        }
        let (said, ..) = decode(&frame(0x81, &[b'a'; MAX]), 100);
        assert_eq!(said, [Said::Text("a".repeat(MAX))]);
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        let framing = |bytes: &[u8]| matches!(decode(bytes, 64).1, Err(Violation::Framing(_)));
        assert!(framing(&[0x81, 0x01, b'a']), "unmasked");
        assert!(framing(&frame(0xc1, b"a")), "a reserved bit");
        assert!(framing(&frame(0x83, b"a")), "a reserved opcode");
        assert!(framing(&frame(0x09, b"a")), "a fragmented ping");
        assert!(framing(&frame(0x89, &[0; 126])), "a long ping");
        assert!(framing(&frame(0x80, b"a")), "a continuation of nothing");
        let twice = [frame(0x01, b"a"), frame(0x81, b"a")].concat();
        assert!(framing(&twice), "a message within another one");
        assert!(framing(&frame(0x88, &[3])), "half a close code");
        assert!(framing(&frame(0x88, &[3, 237])), "1005 is never sent");
        let negative = [&[0x81, 0xff, 0x80][..], &[0; 11]].concat();
        assert!(framing(&negative), "a negative length");
        let empty = [frame(0x01, b""), frame(0x00, b"").repeat(MAX_FRAGMENTS)].concat();
        assert!(framing(&empty), "fragments without end");
        assert_eq!(decode(&frame(0x81, &[0xff]), 64).1, Err(Violation::NotUtf8));
        let reason = frame(0x88, &[3, 232, 0xff]);
        assert_eq!(decode(&reason, 64).1, Err(Violation::NotUtf8));
    }

    #[test]
    fn a_paused_reader_loses_nothing() {
        let mut decoder = Decoder::default();
        let mut bytes = [
            frame(0x81, b"one"),
            frame(0x81, b"two"),
            frame(0x81, b"three"),
        ]
        .concat();
        let cut = bytes.len() - 2;
        let (mut said, mut turns) = (vec![], 0);
        let mut feed = |decoder: &mut Decoder, bytes: &mut [u8]| {
            let fed: Result<(), Violation> = decoder.feed(bytes, MAX, |event| {
                said.push(Said::from(event));
                Ok(Next::Pause)
            });
            fed.unwrap();
        };
        feed(&mut decoder, &mut bytes[..cut]);
        while decoder.is_paused() {
            feed(&mut decoder, &mut []);
            turns += 1;
        }
        assert_eq!(turns, 2);
        feed(&mut decoder, &mut bytes[cut..]);
        feed(&mut decoder, &mut []);
        assert!(!decoder.is_paused());
        assert_eq!(
            said,
            ["one", "two", "three"].map(|text| Said::Text(text.into()))
        );
    }

    #[test]
    fn after_a_violation_nothing_is_read() {
        let mut bytes = [frame(0xc1, b"a"), frame(0x88, b"")].concat();
        let mut decoder = Decoder::default();
        let mut feed =
            |bytes: &mut [u8]| decoder.feed(bytes, MAX, |event| panic!("{event:?} was read"));
        let first: Result<(), Violation> = feed(&mut bytes);
        assert_eq!(first, Err(Violation::Framing("a reserved bit is set")));
        assert_eq!(feed(&mut frame(0x88, b"")), Ok(()));
    }

    #[test]
    fn closing_may_give_a_code() {
        let (said, ..) = decode(&frame(0x88, &[]), 64);
        assert_eq!(said, [Said::Close(None)]);
        let (said, ..) = decode(&frame(0x88, b"\x0f\xa0bye"), 64);
        assert_eq!(said, [Said::Close(Some(4000))]);
    }
}
