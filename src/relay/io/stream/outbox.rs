//! Output that waits for a slow socket: bounded, and without memory when there is none.

use rustls::ServerConnection;
use std::io::{self, Write};

/// Bytes of payload that wait for a client; further payload is dropped. A second of 2 Mbit/s
/// video: what is older is of no use.
const PAYLOAD: usize = 256 << 10;
/// Bytes beyond [`PAYLOAD`] for replies. A client that does not read even those is cut off.
const REPLIES: usize = 64 << 10;
/// Bytes that wait in all outboxes of one worker together; beyond them further payload is dropped for
/// every client for which more than [`FAIR_SHARE`] waits.
const WORKER: usize = 64 << 20;
/// What may wait for any client, whatever waits for others: those that do not read take nothing of those
/// that do.
const FAIR_SHARE: usize = 16 << 10;
/// Buffers kept for the next output, and how large each may be.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 64 << 10;

/// Bytes on their way to one socket.
#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    overrun: bool,
}

/// What a write achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing is left.
    All,
    /// The socket is full.
    Part,
}

/// What the outboxes of one worker share: memory of empty ones, and a bound on them together.
#[derive(Default)]
pub(super) struct Pool {
    spare: Vec<Vec<u8>>,
    waiting: usize,
}

impl Pool {
    /// Takes back what an outbox holds.
    pub(super) fn put(&mut self, outbox: Outbox) {
        self.waiting -= outbox.waiting();
        let mut bytes = outbox.bytes;
        if self.spare.len() < SPARE_BUFFERS && (1..=SPARE_BYTES).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Bytes that wait in all outboxes.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Notes that an outbox has got rid of `bytes`.
    pub(super) fn written(&mut self, bytes: usize) {
        self.waiting -= bytes;
    }
}

impl Outbox {
    /// Queues a whole message or nothing of it; tells which.
    pub(super) fn push(
        &mut self,
        pool: &mut Pool,
        parts: [&[u8]; 2],
        padding: usize,
        is_reply: bool,
    ) -> bool {
        let length = parts[0].len() + parts[1].len() + padding;
        let limit = match is_reply {
            true => PAYLOAD + REPLIES,
            false if pool.waiting + length > WORKER => FAIR_SHARE,
            false => PAYLOAD,
        };
        if self.waiting() + length > limit {
            self.overrun |= is_reply;
            return false;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = pool.spare.pop().unwrap_or_default();
        } else if self.written > PAYLOAD {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        pool.waiting += length;
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.resize(self.bytes.len() + padding, 0);
        true
    }

    /// Whether even a reply found no room.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// Writes to a plain socket.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        while self.waiting() > 0 {
            match socket.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Part);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    /// Writes through TLS: records are filled before they are sent.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) fn write_tls(
        &mut self,
        tls: &mut ServerConnection,
        socket: &mut impl Write,
    ) -> io::Result<Written> {
        loop {
            // rustls takes up to its buffer limit, 64 KiB.
            if self.waiting() > 0 {
                self.written += tls.writer().write(&self.bytes[self.written..])?;
            }
            if !tls.wants_write() {
                return Ok(Written::All);
            }
            match tls.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Part);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The outbox that an earlier process left `bytes` in.
    pub(super) fn of(bytes: Vec<u8>, pool: &mut Pool) -> Self {
        pool.waiting += bytes.len();
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// What is still to be written.
    pub(super) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Bytes that are still to be written.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then blocks.
    struct Socket {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room - self.taken.len());
            if length == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_gets_whole_messages_and_a_bounded_queue() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let mut socket = Socket {
            taken: vec![],
            room: 0,
        };
        let mut taken = vec![];
        for index in 0..100_000_u32 {
            let payload = [index as u8; 1001];
            if outbox.push(&mut pool, [&index.to_be_bytes(), &payload], 3, false) {
                taken.push(index);
            }
            if index % 50 == 0 {
                socket.room += 1500;
                outbox.write(&mut socket).unwrap();
            }
            assert!(outbox.bytes.capacity() <= 4 * PAYLOAD);
        }
        assert!(!outbox.is_overrun());
        socket.room = usize::MAX;
        assert_eq!(outbox.write(&mut socket).unwrap(), Written::All);
        let heads: Vec<u32> = socket
            .taken
            .chunks(1008)
            .map(|message| {
                assert_eq!(message[1005..], [0; 3]);
                u32::from_be_bytes(message[..4].try_into().unwrap())
            })
            .collect();
        assert_eq!(heads, taken);
        assert!(taken.len() < 4_000);
    }

    #[test]
    fn replies_have_room_where_payload_has_none_until_even_that_is_full() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        while outbox.push(&mut pool, [&[0; 1000], &[]], 0, false) {}
        assert!(outbox.push(&mut pool, [&[0; 1000], &[]], 0, true));
        assert!(!outbox.is_overrun());
        while outbox.push(&mut pool, [&[0; 1000], &[]], 0, true) {}
        assert!(outbox.is_overrun());
    }

    #[test]
    fn memory_goes_round() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.push(&mut pool, [b"x", b"y"], 0, false);
        let memory = outbox.bytes.as_ptr();
        pool.put(outbox);
        let mut next = Outbox::default();
        next.push(&mut pool, [b"z", b""], 0, false);
        assert_eq!((next.bytes.as_ptr(), next.bytes.len()), (memory, 1));
        let large = Outbox {
            bytes: vec![0; SPARE_BYTES + 1],
            written: SPARE_BYTES + 1,
            ..Outbox::default()
        };
        pool.put(large);
        assert!(pool.spare.is_empty());
    }

    #[test]
    fn slow_readers_share_one_bound_and_leave_something_to_others() {
        let mut pool = Pool::default();
        let mut outboxes: Vec<Outbox> = (0..1000).map(|_| Outbox::default()).collect();
        let payload = [0; 1200];
        for outbox in &mut outboxes {
            while outbox.push(&mut pool, [&payload, &[]], 0, false) {}
        }
        let waiting = |outboxes: &[Outbox]| outboxes.iter().map(Outbox::waiting).sum::<usize>();
        assert_eq!(waiting(&outboxes), pool.waiting);
        let most = WORKER + outboxes.len() * FAIR_SHARE;
        assert!(pool.waiting >= WORKER && pool.waiting <= most);
        // A client that reads finds room for what its socket does not take at once.
        let mut other = Outbox::default();
        for _ in 0..13 {
            assert!(other.push(&mut pool, [&payload, &[]], 0, false));
        }
        assert!(!other.push(&mut pool, [&payload, &[]], 0, false));
        assert!(outboxes[999].push(&mut pool, [b"reply", &[]], 0, true));
        outboxes.push(other);
        outboxes.drain(..).for_each(|outbox| pool.put(outbox));
        assert_eq!(pool.waiting, 0);
    }
}
