//! What carries a connection, and what another process goes on with in its place.

use super::base64::{from_base64, to_base64};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use tokio::io::{AsyncRead, AsyncWrite};

/// What carries a connection: a stream of WebSocket frames, from a socket or from what stands for
/// one.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// Whether another process can go on with it: it is a socket and nothing else, or what requests
    /// carry can be written down.
    fn is_bare(&self) -> bool {
        false
    }

    /// What another process goes on with; nothing works from here on.
    fn detach(&mut self) -> Option<Detached> {
        None
    }
}

/// What another process goes on with in place of a carrier.
pub enum Detached {
    /// A bare socket.
    Socket {
        /// The socket itself.
        socket: OwnedFd,
        /// What was read of it already.
        ahead: Vec<u8>,
        /// What goes to it before everything else.
        unwritten: Vec<u8>,
    },
    /// What requests carry the connection by.
    Mailbox(ParkedMailbox),
}

/// A mailbox at rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParkedMailbox {
    pub(super) label: String,
    /// How long the client may be without a request, and how long it has been; milliseconds.
    pub(super) idle: u64,
    pub(super) silent: u64,
    /// Frames of the client that the task has not read.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(super) unread: Vec<u8>,
    /// The beginning of a frame of the task.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(super) partial: Vec<u8>,
    /// Whole messages that the client has not fetched.
    pub(super) waiting: Vec<Message>,
}

impl ParkedMailbox {
    /// What its requests name it by .
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// A message for the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] Vec<u8>),
}

impl Message {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// The number in its session that a native message bears.
    pub fn seq(&self) -> Option<u64> {
        let Self::Text(text) = self else { return None };
        let digits = text.strip_prefix("{\"seq\":")?;
        digits[..digits.find(',')?].parse().ok()
    }
}
