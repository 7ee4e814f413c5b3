//! The task's side of a mailbox: a stream of frames, by requests or by a socket.

use super::super::carrier::{Carrier, Detached};
use super::super::websocket::{self, Opcode};
use super::{CAPACITY, Mailbox, Message, State};
use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A socket that takes the place of requests, and what lives as long as it.
pub(super) struct Adopted {
    pub(super) socket: Box<dyn Carrier + Send>,
    pub(super) _held: Box<dyn Any + Send>,
    /// What was read of it already.
    pub(super) read: Vec<u8>,
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Adopted")
    }
}

/// What stands for the socket of a connection that requests carry.
pub struct MailboxCarrier {
    mailbox: Arc<Mailbox>,
    idle: Pin<Box<Sleep>>,
    adopted: Option<Adopted>,
    /// What waited for requests when the socket came.
    unwritten: Vec<u8>,
}

impl MailboxCarrier {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        let idle = Box::pin(sleep_until(Instant::now() + mailbox.idle));
        Self {
            mailbox,
            idle,
            adopted: None,
            unwritten: vec![],
        }
    }

    /// Goes over to a socket that has come.
    fn adopt(&mut self) {
        if self.adopted.is_some() {
            return;
        }
        let mut state = self.mailbox.lock();
        let Some(mut adopted) = state.adopted.take() else {
            return;
        };
        // What requests brought comes first.
        let mut read: Vec<u8> = state.unread.drain(..).collect();
        read.append(&mut adopted.read);
        adopted.read = read;
        self.unwritten = state.frames();
        drop(state);
        self.mailbox.room.notify_waiters();
        self.adopted = Some(adopted);
    }

    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(adopted) = &mut self.adopted else {
            return Poll::Ready(Ok(()));
        };
        while !self.unwritten.is_empty() {
            match ready!(Pin::new(&mut adopted.socket).poll_write(cx, &self.unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.unwritten.drain(..written)),
            }
        }
        self.unwritten = vec![];
        Poll::Ready(Ok(()))
    }
}

impl State {
    /// What waits, as the task wrote it.
    fn frames(&mut self) -> Vec<u8> {
        let mut frames = vec![];
        for message in self.waiting.drain(..) {
            match &message {
                Message::Text(text) => {
                    websocket::write_frame(&mut frames, Opcode::Text, text.as_bytes());
                }
                Message::Binary(bytes) => {
                    websocket::write_frame(&mut frames, Opcode::Binary, bytes);
                }
            }
        }
        self.bytes = 0;
        frames.append(&mut self.partial);
        frames
    }
}

impl AsyncRead for MailboxCarrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.adopt();
        let carrier = &mut *self;
        if !carrier.unwritten.is_empty() {
            // Nobody may write for a while; an error comes up again then.
            if let Poll::Ready(Ok(())) = carrier.poll_unwritten(cx)
                && let Some(adopted) = &mut carrier.adopted
            {
                let _ = Pin::new(&mut adopted.socket).poll_flush(cx);
            }
        }
        if let Some(adopted) = &mut carrier.adopted {
            if adopted.read.is_empty() {
                return Pin::new(&mut adopted.socket).poll_read(cx, buffer);
            }
            let length = adopted.read.len().min(buffer.remaining());
            buffer.put_slice(&adopted.read[..length]);
            adopted.read.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let mailbox = Arc::clone(&carrier.mailbox);
        let mut state = mailbox.lock();
        if state.unread.is_empty() {
            if state.closed {
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            if state.attached == 0 && state.seen + mailbox.idle <= now {
                state.closed = true;
                state.wake_all();
                return Poll::Ready(Ok(()));
            }
            state.task_reads = Some(cx.waker().clone());
            let from = if state.attached > 0 { now } else { state.seen };
            let at = from + mailbox.idle;
            drop(state);
            if carrier.idle.is_elapsed() || carrier.idle.deadline() > at {
                carrier.idle.as_mut().reset(at);
            }
            if carrier.idle.as_mut().poll(cx).is_ready() {
                // It was due by an older request: look again.
                carrier.idle.as_mut().reset(at);
                let _ = carrier.idle.as_mut().poll(cx);
            }
            return Poll::Pending;
        }
        let length = state.unread.len().min(buffer.remaining());
        for byte in state.unread.drain(..length) {
            buffer.put_slice(&[byte]);
        }
        if state.unread.is_empty() {
            state.unread.shrink_to(0);
        }
        drop(state);
        mailbox.room.notify_waiters();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MailboxCarrier {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.adopt();
        ready!(self.poll_unwritten(cx))?;
        if let Some(adopted) = &mut self.adopted {
            return Pin::new(&mut adopted.socket).poll_write(cx, bytes);
        }
        let mut state = self.mailbox.lock();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.bytes >= CAPACITY {
            state.task_writes = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.adopt();
        ready!(self.poll_unwritten(cx))?;
        match &mut self.adopted {
            Some(adopted) => Pin::new(&mut adopted.socket).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.adopted {
            Some(adopted) => Pin::new(&mut adopted.socket).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Carrier for MailboxCarrier {
    fn is_bare(&self) -> bool {
        match &self.adopted {
            Some(adopted) => adopted.socket.is_bare(),
            None => self.mailbox.can_park(),
        }
    }

    fn detach(&mut self) -> Option<Detached> {
        let Some(adopted) = &mut self.adopted else {
            return self.mailbox.park().map(Detached::Mailbox);
        };
        let Detached::Socket {
            socket,
            ahead: mut later,
            mut unwritten,
        } = adopted.socket.detach()?
        else {
            return None;
        };
        let mut ahead = std::mem::take(&mut adopted.read);
        ahead.append(&mut later);
        unwritten.append(&mut self.unwritten);
        Some(Detached::Socket {
            socket,
            ahead,
            unwritten,
        })
    }
}

impl Drop for MailboxCarrier {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
