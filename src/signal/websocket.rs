//! WebSocket framing, the server's side (RFC 6455 section 5).
//!
//! Pure: bytes in, events out. A connection that waits holds no buffer: callers read into one that
//! they share, and only the part of a frame that has yet to be completed is kept.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use super::base64::{from_base64, to_base64};
use serde::{Deserialize, Serialize};

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
    /// A whole message of bytes.
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The client ends the connection, maybe with a code.
    Close(Option<u16>),
}

/// What a decoder has taken and not given yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Remains {
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    partial: Vec<u8>,
    fragments: Option<RemainingFragments>,
}

/// The fragments of a message so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RemainingFragments {
    is_text: bool,
    count: usize,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    payload: Vec<u8>,
}

impl Remains {
    /// Adds bytes that have come behind.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
    }
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

    /// Whether the rest of the stream means nothing.
    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// What another decoder needs to go on.
    pub(super) fn into_remains(self) -> Remains {
        let fragments = self.fragments.map(|fragments| RemainingFragments {
            is_text: fragments.opcode == Opcode::Text,
            count: fragments.count,
            payload: fragments.payload,
        });
        Remains {
            partial: self.partial,
            fragments,
        }
    }

    /// Goes on from what another one had. There may be whole messages in it.
    pub(super) fn of(remains: Remains) -> Self {
        let fragments = remains.fragments.map(|fragments| {
            Box::new(Fragments {
                opcode: match fragments.is_text {
                    true => Opcode::Text,
                    false => Opcode::Binary,
                },
                count: fragments.count.min(MAX_FRAGMENTS),
                payload: fragments.payload,
            })
        });
        Self {
            state: match remains.partial.is_empty() {
                true => State::Reads,
                false => State::Paused,
            },
            messages: 0,
            partial: remains.partial,
            fragments,
        }
    }

    /// What has been taken and not been read, after a pause.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.partial
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
            if !header.opcode.is_control() && header.payload > max.saturating_sub(before) {
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
            _ => take(Event::Binary(payload)),
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

/// Appends a whole frame as a client writes it, with a mask that changes nothing.
pub(super) fn write_client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let at = out.len() + 1;
    write_header(out, opcode, payload.len());
    out[at] |= 0x80;
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Cuts a whole frame of [`write_frame`] off the front; gives the rest, too.
pub(super) fn split_server_frame(bytes: &[u8]) -> Option<(Opcode, &[u8], &[u8])> {
    let &[first, second, ref rest @ ..] = bytes else {
        return None;
    };
    let (length, rest) = match (second, rest) {
        (126, [a, b, rest @ ..]) => (u16::from_be_bytes([*a, *b]).into(), rest),
        (127, rest) => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*length).try_into().ok()?, rest)
        }
        (126, _) => return None,
        (short, rest) => (usize::from(short), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((Opcode::of(first & 0x0f)?, payload, rest))
}

/// How many whole frames of [`write_frame`] there are.
pub(super) fn server_frames(mut bytes: &[u8]) -> u64 {
    let mut frames = 0;
    while let Some((_, _, rest)) = split_server_frame(bytes) {
        (frames, bytes) = (frames + 1, rest);
    }
    frames
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
mod tests;
