//! The socket of a WebSocket, once HTTP has nothing more to do with it.

use crate::signal::{Carrier, Detached};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// What carries the frames.
pub(super) enum Socket {
    /// Bare TCP, and what HTTP has read beyond the request. `None` once it was given away.
    Plain(Option<TcpStream>, Vec<u8>),
    /// TLS, most of all.
    Other(TokioIo<Upgraded>),
}

impl Socket {
    /// Takes the socket of a plain port out of what HTTP has put around it.
    pub(super) fn of(upgraded: Upgraded) -> Self {
        match upgraded.downcast::<TokioIo<BufReader<TcpStream>>>() {
            Ok(parts) => {
                let reader = parts.io.into_inner();
                let ahead = [&parts.read_buf[..], reader.buffer()].concat();
                Self::Plain(Some(reader.into_inner()), ahead)
            }
            Err(upgraded) => Self::Other(TokioIo::new(upgraded)),
        }
    }

    /// The socket of an earlier process.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub(super) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self::Plain(Some(TcpStream::from_std(stream)?), vec![]))
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_, ahead) if !ahead.is_empty() => {
                let count = ahead.len().min(buffer.remaining());
                buffer.put_slice(&ahead[..count]);
                ahead.drain(..count);
                if ahead.is_empty() {
                    // Most connections hold none ever again.
                    *ahead = vec![];
                }
                Poll::Ready(Ok(()))
            }
            Self::Plain(Some(stream), _) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(None, _) => Poll::Ready(Err(gone())),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(Some(stream), _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(None, _) => Poll::Ready(Err(gone())),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(Some(stream), _) => Pin::new(stream).poll_flush(cx),
            Self::Plain(None, _) => Poll::Ready(Err(gone())),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(Some(stream), _) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(None, _) => Poll::Ready(Err(gone())),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Carrier for Socket {
    fn is_bare(&self) -> bool {
        matches!(self, Self::Plain(Some(_), _))
    }

    fn detach(&mut self) -> Option<Detached> {
        let Self::Plain(stream, ahead) = self else {
            return None;
        };
        let socket = stream.take()?.into_std().ok()?;
        Some(Detached::Socket {
            socket: socket.into(),
            ahead: std::mem::take(ahead),
            unwritten: vec![],
        })
    }
}
