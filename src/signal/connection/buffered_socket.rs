//! The bytes of one connection: what goes out, what the socket has no room for, and since when.
//!
//! Buffers belong to the thread: a connection that waits holds none.

use super::super::carrier::{Carrier, Detached, ParkedMailbox};
use super::super::dialect::{Closing, Dialect, Outgoing};
use super::super::outbox::Outbox;
use super::super::websocket::{self, Opcode};
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::time::Instant;

/// Bytes read at once: some session descriptions.
const READ_BATCH: usize = 16 * 1024;
/// Bytes gathered for one write; more would only grow the buffer under it. Also what a client has to
/// take within the timeout once its socket is full.
const WRITE_BATCH: usize = 16 * 1024;

/// Events that a thread keeps room for.
const MAX_BATCH: usize = 64;

thread_local! {
    /// What the connection at hand reads into.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BATCH]);
    /// What it gathers its frames in.
    static WRITE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(2 * WRITE_BATCH));
    /// What it translates, kept for its capacity.
    static BATCH: RefCell<Vec<Outgoing>> = const { RefCell::new(vec![]) };
}

/// Lends the thread's buffer for reading.
pub(super) fn with_buffer<T>(call: impl FnOnce(&mut [u8]) -> T) -> T {
    READ.with_borrow_mut(|buffer| call(buffer))
}

pub(super) struct BufferedSocket<S> {
    socket: S,
    /// How long the socket may have no room.
    timeout: Duration,
    /// Bytes that the socket had no room for, or that go before the next frames.
    unsent: Vec<u8>,
    /// How much of the outbox's capacity they take up.
    from_outbox: usize,
    /// Whether the socket may hold bytes back until it is flushed, as TLS does.
    unflushed: bool,
    /// There while the socket has no room.
    blocked: Option<Blocked>,
    /// Bytes that the socket took and gave.
    pub(super) traffic: Traffic,
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// What carried a connection, without the bytes that it holds.
pub(super) enum Left {
    Socket(OwnedFd),
    Mailbox(ParkedMailbox),
}

struct Blocked {
    /// When it is given up.
    until: Instant,
    /// Bytes that it took since that was set.
    taken: usize,
}

impl<S: Carrier> BufferedSocket<S> {
    pub(super) fn new(socket: S, timeout: Duration) -> Self {
        Self {
            socket,
            timeout,
            unsent: vec![],
            from_outbox: 0,
            unflushed: false,
            blocked: None,
            traffic: Traffic::default(),
        }
    }

    /// When a socket without room is to be given up.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        self.blocked.as_ref().map(|blocked| blocked.until)
    }

    /// Whether what is unsent is no more than a batch leaves, most of all answers to pings.
    pub(super) fn is_light(&self) -> bool {
        self.unsent.len() <= 2 * WRITE_BATCH
    }

    /// Whether everything that it was given has left.
    pub(super) fn is_clear(&self) -> bool {
        self.unsent.is_empty() && self.from_outbox == 0 && !self.unflushed && self.blocked.is_none()
    }

    /// Puts a control frame before what waits in the outbox.
    pub(super) fn queue(&mut self, opcode: Opcode, payload: &[u8]) {
        websocket::write_frame(&mut self.unsent, opcode, payload);
    }

    /// Frames that go before what waits in the outbox.
    pub(super) fn frames(&mut self) -> &mut Vec<u8> {
        &mut self.unsent
    }

    /// Frames a batch of the outbox and writes what the socket takes of it; the rest is kept. Pending
    /// when nothing waits. Everything before it must have been sent.
    ///
    /// # Errors
    /// Nothing waits, and the connection is to end.
    pub(super) fn poll_gather<D: Dialect>(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        mut each: impl FnMut(&Outgoing, &mut Vec<u8>),
    ) -> Poll<Result<(), Closing>> {
        WRITE.with_borrow_mut(|buffer| {
            buffer.clear();
            let written = std::mem::take(&mut self.from_outbox);
            let gathered = if D::IS_NATIVE {
                outbox.poll_next(cx, written, WRITE_BATCH, |frame| each(&frame, buffer))
            } else {
                // A translation takes longer than a copy: the outbox is not locked meanwhile.
                BATCH.with_borrow_mut(|batch| {
                    let gathered =
                        outbox.poll_next(cx, written, WRITE_BATCH, |frame| batch.push(frame));
                    for frame in batch.drain(..) {
                        each(&frame, buffer);
                    }
                    batch.shrink_to(MAX_BATCH);
                    gathered
                })
            };
            self.from_outbox = ready!(gathered)?;
            if buffer.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // An error, or no room, comes up again when the rest is sent.
            let written = match Pin::new(&mut self.socket).poll_write(cx, buffer) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.unflushed = true;
            self.traffic.sent += written as u64;
            if written < buffer.len() {
                self.unsent = buffer[written..].to_vec();
            }
            // A frame of any size may have passed.
            buffer.shrink_to(2 * WRITE_BATCH);
            Poll::Ready(Ok(()))
        })
    }

    /// Writes and flushes what is unsent.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
    ) -> Poll<io::Result<()>> {
        let before = self.unsent.len();
        let sent = self.poll_unsent(cx, outbox);
        if sent.is_ready() {
            self.blocked = None;
            return sent;
        }
        let fresh = || Blocked {
            until: Instant::now() + self.timeout,
            taken: 0,
        };
        let blocked = self.blocked.get_or_insert_with(fresh);
        blocked.taken += before - self.unsent.len();
        if blocked.taken >= WRITE_BATCH {
            *blocked = fresh();
        }
        sent
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<()>> {
        let mut written = 0;
        let sent = loop {
            if written == self.unsent.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.unsent[written..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => {
                    written += more;
                    self.traffic.sent += more as u64;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if written < self.unsent.len() {
            self.unsent.drain(..written);
            return sent;
        }
        // What was gathered and written at once is given back with the next batch.
        if written > 0 {
            self.unsent = vec![];
            outbox.written(std::mem::take(&mut self.from_outbox));
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once; how many bytes.
    ///
    /// # Errors
    /// Those of the socket; its end is one.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
        Poll::Ready(match read.filled().len() {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.traffic.received += length as u64;
                Ok(length)
            }
        })
    }

    /// Whether another process can go on with the socket.
    pub(super) fn is_bare(&self) -> bool {
        self.socket.is_bare()
    }

    /// What is unsent, what was read ahead, and what carries it; nothing works from here on.
    pub(super) fn detach(&mut self) -> Option<(Vec<u8>, Vec<u8>, Left)> {
        let detached = self.socket.detach()?;
        let mut unsent = std::mem::take(&mut self.unsent);
        Some(match detached {
            Detached::Socket {
                socket,
                ahead,
                mut unwritten,
            } => {
                unwritten.append(&mut unsent);
                (unwritten, ahead, Left::Socket(socket))
            }
            Detached::Mailbox(mailbox) => (unsent, vec![], Left::Mailbox(mailbox)),
        })
    }

    /// Ends our side: over TLS, the proof that nothing was cut off.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
