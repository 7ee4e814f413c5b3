//! The protocol of one connection: what its messages ask of the hub, and how the hub's events are
//! written for it.
//!
//! Pure: messages and events in, requests and frames out. It owns no socket, task, clock or lock;
//! whatever it remembers is of one connection and bounded.

use super::hub::Event;
use super::websocket::{self, Opcode};
use crate::protocol::{self, ClientMessage, CloseCode, FrameError, PeerId, write_frame};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// A whole message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame.
    Binary(&'a [u8]),
}

/// An event on its way to a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outgoing {
    /// Whose session it is for; before a session, the id that the connection's session will have.
    pub peer: PeerId,
    /// The number in the session, where its frames are numbered.
    pub seq: Option<u64>,
    /// What the hub has for it.
    pub event: Event,
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// With which status.
    pub code: CloseCode,
    /// For the close frame.
    pub reason: &'static str,
}

/// What a message asks of the hub, or what is wrong with it: the hub counts both.
pub type Asked = Result<ClientMessage, FrameError>;

/// Where a dialect puts what it does.
pub struct Output<'a> {
    frames: &'a mut Vec<u8>,
    requests: &'a mut Vec<Asked>,
    closing: &'a mut Option<Closing>,
    /// Whether what was read is to be read with what follows.
    is_part: bool,
    /// How many messages of its protocol the dialect has read, where a frame is not one.
    read: Option<u64>,
}

impl<'a> Output<'a> {
    /// Collects frames, requests and the wish to end.
    pub fn new(
        frames: &'a mut Vec<u8>,
        requests: &'a mut Vec<Asked>,
        closing: &'a mut Option<Closing>,
    ) -> Self {
        Self {
            frames,
            requests,
            closing,
            is_part: false,
            read: None,
        }
    }

    /// Sends a text message to the client.
    pub fn text(&mut self, text: &str) {
        websocket::write_frame(self.frames, Opcode::Text, text.as_bytes());
    }

    /// Sends a text message that consists of these parts.
    pub fn text_of(&mut self, parts: &[&str]) {
        let length = parts.iter().map(|part| part.len()).sum();
        websocket::write_header(self.frames, Opcode::Text, length);
        for part in parts {
            self.frames.extend_from_slice(part.as_bytes());
        }
    }

    /// Sends a binary message to the client.
    pub fn binary(&mut self, bytes: &[u8]) {
        websocket::write_frame(self.frames, Opcode::Binary, bytes);
    }

    /// The texts that `call` sends to the client, which are not sent; what it asks stands.
    pub fn texts_of(&mut self, call: impl FnOnce(&mut Output<'_>)) -> Vec<String> {
        let mut frames = vec![];
        call(&mut Output::new(&mut frames, self.requests, self.closing));
        let mut texts = vec![];
        let mut rest = &frames[..];
        while let Some((_, text, after)) = websocket::split_server_frame(rest) {
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = after;
        }
        texts
    }

    /// Asks something of the hub, once the dialect returns.
    pub fn request(&mut self, request: Asked) {
        self.requests.push(request);
    }

    /// What was read is kept for what follows, and counts with that: libraries send a message in pieces.
    pub fn keeps(&mut self) {
        self.is_part = true;
    }

    /// So many messages were read. Where a frame is a message, the dialect need not say so.
    pub fn has_read(&mut self, messages: u64) {
        *self.read.get_or_insert(0) += messages;
    }

    /// How many messages were read, where the dialect has said that.
    pub(super) fn read(&self) -> Option<u64> {
        self.read
    }

    /// Asks `what` of the hub where nothing is asked, nothing is kept and the connection does not end.
    pub(super) fn ask_at_least(&mut self, what: impl FnOnce() -> Asked) {
        if !self.is_part && self.requests.is_empty() && self.closing.is_none() {
            self.requests.push(what());
        }
    }

    /// Ends the connection, behind what has been sent; the first reason stands.
    pub fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.closing.get_or_insert(Closing { code, reason });
    }
}

/// A protocol, and what it remembers of one connection.
pub trait Dialect: Unpin {
    /// The native protocol writes an event by copying it, which may be done while the outbox is
    /// locked.
    const IS_NATIVE: bool = false;

    /// Whether what it is given as `now` means nothing to it, so that nobody asks for the time.
    fn is_timeless(&self) -> bool {
        Self::IS_NATIVE
    }

    /// The connection was opened; `welcome` comes as an event.
    fn opened(&mut self, _now: Instant, _out: &mut Output<'_>) {}

    /// The client says something.
    fn decode(&mut self, message: Incoming<'_>, now: Instant, out: &mut Output<'_>);

    /// The hub says something.
    fn encode(&mut self, outgoing: &Outgoing, now: Instant, out: &mut Output<'_>);

    /// When [`Self::timed_out`] wants to be called.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due at `now`.
    fn timed_out(&mut self, _now: Instant, _out: &mut Output<'_>) {}

    /// What another process has to know in order to go on with the connection at `now`; `None` where
    /// that cannot be written down. The native protocol remembers nothing.
    fn memory(&self, _now: Instant) -> Option<String> {
        None
    }

    /// The connection ends: the last words, and the status of the close frame.
    fn closing(&mut self, closing: &Closing, _out: &mut Output<'_>) -> u16 {
        closing.code as u16
    }
}

/// The protocol of `docs/protocol.md`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

impl Dialect for Native {
    const IS_NATIVE: bool = true;

    fn decode(&mut self, message: Incoming<'_>, _: Instant, out: &mut Output<'_>) {
        out.request(match message {
            Incoming::Text(text) => protocol::parse(text),
            Incoming::Binary(_) => Err(FrameError::binary()),
        });
    }

    fn encode(&mut self, outgoing: &Outgoing, _: Instant, out: &mut Output<'_>) {
        let Event::Native(body) = &outgoing.event else {
            // The hub sends nothing else to native connections.
            return;
        };
        let length = protocol::frame_len(outgoing.seq, body);
        websocket::write_header(out.frames, Opcode::Text, length);
        write_frame(out.frames, outgoing.seq, body);
    }
}
