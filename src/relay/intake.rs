//! The way of a client's connection to a worker.

use super::io::stream::{NewStream, Place};
use super::worker::inbox::{Commands, Inbox};
use crate::address::shown_socket;
use rustls::ServerConnection;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts a TCP connection of a client in, unless there are too many.
pub type Admit = Arc<dyn Fn(IpAddr) -> Option<Place> + Send + Sync>;

/// A connection that a worker can take over, its TLS handshake done.
pub struct ClientStream {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    place: Option<Place>,
}

impl ClientStream {
    /// The same connection, which holds `place` from here on.
    #[must_use]
    pub fn holding(self, place: Place) -> Self {
        Self {
            place: Some(place),
            ..self
        }
    }

    /// A plain connection.
    ///
    /// # Errors
    /// The runtime does not let go of the socket.
    pub fn tcp(socket: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self {
            socket: socket.into_std()?,
            tls: None,
            place: None,
        })
    }

    /// A connection inside TLS. What rustls has deciphered and nobody has read comes along.
    ///
    /// # Errors
    /// As [`tcp`](Self::tcp).
    pub fn tls(stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> io::Result<Self> {
        let (socket, session) = stream.into_inner();
        Ok(Self {
            socket: socket.into_std()?,
            tls: Some(Box::new(session)),
            place: None,
        })
    }

    /// The address that the client connected to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// The way to the workers.
pub(super) struct Intake {
    pub(super) inboxes: Arc<[Inbox]>,
    /// Streams go to the workers in turn.
    turn: AtomicUsize,
}

impl Intake {
    pub(super) fn new(inboxes: Arc<[Inbox]>) -> Self {
        Self {
            inboxes,
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn serve_stream(
        &self,
        stream: ClientStream,
        peer: SocketAddr,
        local: SocketAddr,
        prefix: &[u8],
    ) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let new = NewStream {
            five_tuple: NewStream::five_tuple(stream.tls.is_some(), peer, local),
            socket: stream.socket,
            tls: stream.tls,
            place: stream.place,
            prefix: prefix.to_vec(),
        };
        if !self.inboxes[turn % self.inboxes.len()].offer(new) {
            tracing::debug!(
                client = shown_socket(peer),
                "too many new relay connections at a time"
            );
        }
    }

    /// Changes what every worker is to do.
    pub(super) fn command_all(&self, change: impl Fn(&mut Commands)) {
        for inbox in self.inboxes.iter() {
            inbox.command(&change);
        }
    }
}
