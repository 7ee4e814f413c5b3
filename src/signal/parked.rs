//! A connection that one process leaves and another one goes on with: everything but its socket.
//!
//! Pure. What is here is frames, the heartbeat, and what the translator of a foreign dialect
//! remembers; the native protocol remembers nothing.

use super::base64::{from_base64, to_base64};
use super::carrier::ParkedMailbox;
use super::dialect::{Closing, Dialect, Native, Outgoing, Output};
use super::websocket::{self, Opcode, Remains};
#[cfg(any(test, fuzzing))]
use super::websocket::{Decoder, Next, Violation};
use crate::protocol::{DialectKind, PeerId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Instant;

/// A connection at rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParkedConnection {
    /// What the hub knows it as.
    pub(super) conn: u64,
    pub(super) client: IpAddr,
    /// The token that came with the request.
    pub(super) token: Option<String>,
    /// Bytes for the client that its socket has not taken yet.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(super) unsent: Vec<u8>,
    /// What has come from the client and was no whole message yet.
    pub(super) received: Remains,
    /// The last sequence number written, and whose session it is of.
    pub(super) sent: Option<(PeerId, u64)>,
    /// Until the heartbeat is due, milliseconds.
    pub(super) heartbeat: u64,
    pub(super) ping: Option<ParkedPing>,
    /// The payload of a ping with which the hub asked for a sign of life.
    pub(super) probe: Option<u64>,
    /// Of a foreign dialect. Absent in what earlier versions wrote, as is what follows.
    #[serde(default)]
    pub(super) foreign: Option<Foreign>,
    /// What requests carry it by, in place of a socket.
    #[serde(default)]
    pub(super) mailbox: Option<ParkedMailbox>,
}

/// A connection of a foreign dialect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Foreign {
    pub(super) kind: DialectKind,
    /// [`Dialect::memory`].
    pub(super) memory: String,
    /// What the hub has said to it and its translator has not put into words.
    pub(super) waiting: Vec<Outgoing>,
}

/// A ping that waits for its pong.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ParkedPing {
    pub(super) payload: u64,
    /// What was last sent before it.
    pub(super) confirms: Option<(PeerId, u64)>,
}

impl ParkedConnection {
    /// Whose it is.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Which protocol it speaks.
    pub fn dialect(&self) -> DialectKind {
        let foreign = self.foreign.as_ref();
        foreign.map_or(DialectKind::Native, |foreign| foreign.kind)
    }

    /// What its translator has to know in order to go on, where it has one.
    pub fn memory(&self) -> Option<&str> {
        self.foreign.as_ref().map(|foreign| &*foreign.memory)
    }

    /// What requests carry it by, in place of a socket.
    pub fn mailbox(&self) -> Option<&ParkedMailbox> {
        self.mailbox.as_ref()
    }

    /// Reads what has come, as the process does that goes on.
    #[cfg(any(test, fuzzing))]
    pub fn read(self) {
        let mut decoder = Decoder::of(self.received);
        for mut more in [vec![], vec![0x80, 0x80, 0, 0, 0, 0]] {
            let _: Result<(), Violation> = decoder.feed(&mut more, 1 << 16, |_| Ok(Next::Go));
        }
    }

    /// Puts a frame behind those that the socket has not taken.
    pub(super) fn absorb(&mut self, frame: &Outgoing, now: Instant) {
        if let Some(foreign) = &mut self.foreign {
            // Its translator may ask something of the hub meanwhile: that of the successor.
            foreign.waiting.push(frame.clone());
            return;
        }
        let (mut requests, mut closing) = (vec![], None);
        let out = &mut Output::new(&mut self.unsent, &mut requests, &mut closing);
        Native.encode(frame, now, out);
        if let Some(seq) = frame.seq {
            self.sent = Some((frame.peer, seq));
        }
        if let (Some(1), Some(ping)) = (frame.seq, &mut self.ping) {
            // Another session begins: the ping that is out confirms nothing of it.
            ping.confirms = None;
        }
    }

    /// The bytes that end it, behind everything else.
    pub(super) fn into_end(mut self, closing: &Closing) -> Vec<u8> {
        let status = (closing.code as u16).to_be_bytes();
        let payload = [&status, closing.reason.as_bytes()].concat();
        websocket::write_frame(&mut self.unsent, Opcode::Close, &payload);
        self.unsent
    }
}
