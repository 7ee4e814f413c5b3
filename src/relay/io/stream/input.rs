//! What is read of a socket, and whether more is to be expected: plain, or behind TLS.

use crate::relay::framing::MAX_MESSAGE;
use rustls::ServerConnection;
use std::io::{self, Read};
use std::net::TcpStream;

/// Bytes of one read call: dozens of datagrams, and half of what the kernel lets wait on a fresh
/// connection.
pub(super) const READ: usize = 32 << 10;
/// Bytes that TLS may hold back from earlier reads: one record on the wire, one deciphered, the
/// 16 KiB that rustls buffers, rounded up.
const TLS_BACKLOG: usize = 64 << 10;

/// Where a worker reads streams into; shared by all of them.
pub(in crate::relay) struct ReadBuffers {
    plain: Box<[u8]>,
    wire: Box<[u8]>,
}

impl ReadBuffers {
    pub(in crate::relay) fn new() -> Self {
        Self {
            plain: vec![0; MAX_MESSAGE + READ + TLS_BACKLOG].into(),
            wire: vec![0; READ].into(),
        }
    }

    /// Reads what waits, behind `kept` of an earlier read.
    pub(super) fn read(
        &mut self,
        kept: &[u8],
        socket: &mut TcpStream,
        tls: Option<&mut ServerConnection>,
    ) -> Input<'_> {
        let (before, plain) = self.plain.split_at_mut(kept.len());
        before.copy_from_slice(kept);
        let (read, rest) = match tls {
            None => read_plain(socket, &mut plain[..READ]),
            Some(tls) => read_tls(socket, tls, &mut self.wire, plain),
        };
        Input {
            bytes: &self.plain[..kept.len() + read],
            rest,
        }
    }
}

/// What a read brought: bytes from the beginning of a message on.
pub(in crate::relay) struct Input<'b> {
    pub(in crate::relay) bytes: &'b [u8],
    pub(in crate::relay) rest: ReadState,
}

/// What a connection may still have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum ReadState {
    /// Nothing yet: epoll tells.
    Blocked,
    /// More than was read.
    MoreAvailable,
    /// Nothing ever again.
    Eof,
}

/// Returns how much was read. A read that fills less than its buffer has emptied the socket, but
/// for an end behind it. (It also stops at a mark of urgent data, which no client of ours sends.)
fn read_plain(socket: &mut TcpStream, buffer: &mut [u8]) -> (usize, ReadState) {
    match socket.read(buffer) {
        Ok(0) => (0, ReadState::Eof),
        Ok(read) if read == buffer.len() => (read, ReadState::MoreAvailable),
        Ok(read) => (read, ReadState::Blocked),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => (0, ReadState::Blocked),
            io::ErrorKind::Interrupted => (0, ReadState::MoreAvailable),
            _ => (0, ReadState::Eof),
        },
    }
}

/// As [`read_plain`]: one read of the wire, then whatever comes out of it.
fn read_tls(
    socket: &mut TcpStream,
    tls: &mut ServerConnection,
    wire: &mut [u8],
    plain: &mut [u8],
) -> (usize, ReadState) {
    let (read, mut rest) = read_plain(socket, wire);
    let mut wire = &wire[..read];
    let mut length = 0;
    loop {
        // What it has deciphered before, even elsewhere, leaves no room for more.
        while let Ok(read @ 1..) = tls.reader().read(&mut plain[length..]) {
            length += read;
        }
        let is_last = wire.is_empty();
        let fed = is_last || tls.read_tls(&mut wire).is_ok_and(|fed| fed > 0);
        match tls.process_new_packets() {
            Ok(state) if fed && !state.peer_has_closed() => {}
            Ok(_) if fed => rest = ReadState::Eof,
            _ => {
                rest = ReadState::Eof;
                wire = &[];
            }
        }
        if is_last {
            return (length, rest);
        }
    }
}
