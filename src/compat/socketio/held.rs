//! What a client says while its join is not answered: clients do not wait for an answer, and send all
//! that was said before they were connected in one go.

use super::SocketIo;
use crate::protocol::CloseCode;
use crate::signal::{Incoming, Message, Output};
use std::collections::VecDeque;
use std::time::Instant;

/// Messages that wait, and their bytes; beyond that the connection is closed.
const MAX_HELD: (usize, usize) = (256, 128 * 1024);

/// Messages that wait for the answer to a join.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Held {
    pub(super) fn of(messages: Vec<Message>) -> Self {
        Self {
            bytes: messages.iter().map(length).sum(),
            messages: messages.into(),
        }
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.messages.iter().cloned().collect()
    }

    fn push(&mut self, message: Message) -> bool {
        self.bytes += length(&message);
        self.messages.push_back(message);
        self.messages.len() <= MAX_HELD.0 && self.bytes <= MAX_HELD.1
    }

    fn pop(&mut self) -> Option<Message> {
        let Some(message) = self.messages.pop_front() else {
            self.messages = VecDeque::new();
            return None;
        };
        self.bytes -= length(&message);
        Some(message)
    }
}

impl SocketIo {
    /// Whether a message waits: packets of Socket.IO do, pings do not.
    pub(super) fn has_to_wait(&self, message: Incoming<'_>) -> bool {
        let is_packet = match message {
            Incoming::Text(text) => text.starts_with(['4', 'b']),
            Incoming::Binary(_) => true,
        };
        self.joining.is_some() && is_packet
    }

    pub(super) fn hold(&mut self, message: Incoming<'_>, out: &mut Output<'_>) {
        let message = match message {
            Incoming::Text(text) => Message::Text(text.to_owned()),
            Incoming::Binary(bytes) => Message::Binary(bytes.to_vec()),
        };
        out.keeps();
        if !self.held.push(message) {
            self.held = Held::default();
            out.close(
                CloseCode::RateLimited,
                "too much before the answer to a join",
            );
        }
    }

    /// Goes on with what has waited, up to the next join.
    pub(super) fn go_on(&mut self, now: Instant, out: &mut Output<'_>) {
        while self.joining.is_none()
            && let Some(message) = self.held.pop()
        {
            let message = match &message {
                Message::Text(text) => Incoming::Text(text),
                Message::Binary(bytes) => Incoming::Binary(bytes),
            };
            self.read(message, now, out);
        }
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
    }
}
