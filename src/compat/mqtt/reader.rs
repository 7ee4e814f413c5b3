//! The data representations of MQTT (3.1.1, 1.5; 5.0, 1.5), and packets cut out of a byte stream.

use super::reason::Reason;
use std::ops::ControlFlow;

/// Bytes that are left to read.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Reason::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Reason> {
        Ok(self.take(1)?[0])
    }

    /// One byte that is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, Reason> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Reason::ProtocolError),
        }
    }

    /// A two byte integer.
    pub fn u16(&mut self) -> Result<u16, Reason> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A four byte integer.
    pub fn u32(&mut self) -> Result<u32, Reason> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A variable byte integer of at most four bytes.
    pub fn variable(&mut self) -> Result<u32, Reason> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Reason::Malformed)
    }

    /// Binary data with its length before it.
    pub fn binary(&mut self) -> Result<&'a [u8], Reason> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A string: UTF-8 without NUL.
    pub fn text(&mut self) -> Result<&'a str, Reason> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Reason::Malformed)?;
        if text.contains('\0') {
            return Err(Reason::Malformed);
        }
        Ok(text)
    }

    /// A pair of strings, passed over.
    pub fn pair(&mut self) -> Result<(), Reason> {
        self.text()?;
        self.text()?;
        Ok(())
    }

    /// The bytes of a property list.
    pub fn properties(&mut self) -> Result<Reader<'a>, Reason> {
        let length = self.variable()?;
        let length = usize::try_from(length).map_err(|_| Reason::Malformed)?;
        self.take(length).map(Reader)
    }

    /// The identifier of the next property; `None` at the end of the list.
    pub fn property_id(&mut self) -> Result<Option<u32>, Reason> {
        match self.0.is_empty() {
            true => Ok(None),
            false => self.variable().map(Some),
        }
    }
}

/// A byte stream that comes in pieces, cut into packets.
///
/// Holds an unfinished packet only, at most `max` bytes and five, or what is kept for later.
#[derive(Debug, Default)]
pub struct Stream {
    partial: Vec<u8>,
    /// How many packets were cut out of it.
    packets: u64,
}

impl Stream {
    /// Takes a piece and hands each whole packet to `each`, as its first byte and the rest without
    /// its length. Stops at the first error, and where `each` breaks: what follows is kept.
    ///
    /// # Errors
    /// A length that is not one, a packet over `max` bytes, or an error of `each`.
    pub fn feed(
        &mut self,
        piece: &[u8],
        max: usize,
        mut each: impl FnMut(u8, &[u8]) -> Result<ControlFlow<()>, Reason>,
    ) -> Result<(), Reason> {
        let packets = &mut self.packets;
        let mut each = |head, body: &[u8]| {
            *packets += 1;
            each(head, body)
        };
        if self.partial.is_empty() {
            let taken = cut(piece, max, &mut each)?;
            self.partial = piece[taken..].to_vec();
            return Ok(());
        }
        self.partial.extend_from_slice(piece);
        let taken = cut(&self.partial, max, &mut each)?;
        if taken == self.partial.len() {
            self.partial = vec![];
        } else {
            self.partial.drain(..taken);
        }
        Ok(())
    }

    /// What is held.
    pub fn unread(&self) -> &[u8] {
        &self.partial
    }

    /// A stream that goes on from what another one held.
    pub fn of(unread: Vec<u8>) -> Self {
        Self {
            partial: unread,
            packets: 0,
        }
    }

    /// Keeps a piece for later; `false` where that would be more than `max` bytes.
    pub fn keep(&mut self, piece: &[u8], max: usize) -> bool {
        let fits = self.partial.len() + piece.len() <= max;
        if fits {
            self.partial.extend_from_slice(piece);
        }
        fits
    }

    /// Whether a packet has begun and not ended.
    pub fn is_unfinished(&self) -> bool {
        !self.partial.is_empty()
    }

    /// How many packets were cut out of it so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.partial.len()
    }
}

/// Hands over whole packets and returns how many bytes they are.
fn cut(
    bytes: &[u8],
    max: usize,
    each: &mut impl FnMut(u8, &[u8]) -> Result<ControlFlow<()>, Reason>,
) -> Result<usize, Reason> {
    let mut rest = bytes;
    while let Some((head, length, total)) = frame(rest, max)? {
        let Some((packet, after)) = rest.split_at_checked(total) else {
            break;
        };
        let flow = each(head, &packet[total - length..])?;
        rest = after;
        if flow.is_break() {
            break;
        }
    }
    Ok(bytes.len() - rest.len())
}

/// The first byte, the length of the rest, and the length of the whole packet; `None` where more
/// bytes are needed to know.
fn frame(bytes: &[u8], max: usize) -> Result<Option<(u8, usize, usize)>, Reason> {
    let Some((head, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let ends = rest.iter().take(4).position(|byte| byte & 0x80 == 0);
    let Some(last) = ends else {
        return match rest.len() {
            0..4 => Ok(None),
            _ => Err(Reason::Malformed),
        };
    };
    let length = Reader(&rest[..=last]).variable()?;
    let length = usize::try_from(length).map_err(|_| Reason::TooLarge)?;
    let total = 2 + last + length;
    if total > max {
        return Err(Reason::TooLarge);
    }
    Ok(Some((*head, length, total)))
}
