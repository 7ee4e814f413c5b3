//! Pings and their answers: what shows that the other end lives and reads.

use super::super::dialect::{Closing, Dialect};
use super::super::hub::Loss;
use super::super::websocket::Opcode;
use super::{Carrier, Connection, End};
use crate::protocol::{CloseCode, PeerId};
use tokio::time::Instant;

/// Pings and pongs that a client may send between two heartbeats. Browsers send none, libraries
/// one in some seconds.
const MAX_CONTROL_FRAMES: u32 = 1_000;

pub(super) struct Heartbeat {
    /// When to send the next ping, or to give up on the one that is out.
    pub(super) at: Instant,
    pub(super) ping: Option<Ping>,
    /// Pings and pongs of the client since the last answered ping.
    pub(super) control_frames: u32,
}

impl Heartbeat {
    pub(super) fn new(at: Instant) -> Self {
        Self {
            at,
            ping: None,
            control_frames: 0,
        }
    }
}

/// A ping that waits for its pong.
pub(super) struct Ping {
    /// Drawn anew each time: only who reads can answer.
    pub(super) payload: u64,
    /// What was last sent before it; `None` once the session began anew since.
    pub(super) confirms: Option<(PeerId, u64)>,
}

impl<C: Carrier, D: Dialect> Connection<C, D> {
    /// A full socket is not pinged.
    pub(super) fn deadline(&self) -> Instant {
        match (self.socket.blocked_until(), &self.heartbeat.ping) {
            (None, _) => self.heartbeat.at,
            (Some(until), None) => until,
            (Some(until), Some(_)) => until.min(self.heartbeat.at),
        }
    }

    pub(super) fn count_control_frame(&mut self) -> Result<(), End> {
        self.heartbeat.control_frames += 1;
        if self.heartbeat.control_frames > MAX_CONTROL_FRAMES {
            return Err(End::broken(CloseCode::RateLimited, "too many pings"));
        }
        Ok(())
    }

    /// The socket had no room for too long, or the heartbeat is due.
    pub(super) fn time_is_up(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self
            .socket
            .blocked_until()
            .is_some_and(|until| until <= now)
        {
            // A connection that was to end anyway ends as it was to.
            if let Some(closing) = self.admission.outbox.closing() {
                return Err(End::Close(closing));
            }
            self.driver().stats().slow_consumers.inc();
            return Err(End::broken(
                CloseCode::SlowConsumer,
                "too slow: too little could be written within signal.timeout",
            ));
        }
        if self.heartbeat.ping.is_some() {
            if let Some(closing) = self.admission.outbox.closing() {
                return Err(End::Close(closing));
            }
            if !self.accepts_input() {
                // The pong may be there, unread; meanwhile the full socket has its own deadline.
                self.heartbeat.at = now + self.settings.timeout;
                return Ok(());
            }
            let closing = Closing {
                code: CloseCode::HeartbeatTimeout,
                reason: "no pong within signal.timeout",
            };
            return Err(End::Lost(Loss::Timeout, Some(closing)));
        }
        // While a frame does not end, its sender cannot answer the ping; between fragments it can.
        let unfinished = self.decoder.unfinished();
        if unfinished.is_some() && unfinished == self.unfinished {
            return Err(End::broken(
                CloseCode::ProtocolError,
                "a message did not end within signal.heartbeat",
            ));
        }
        self.unfinished = unfinished;
        let payload: u64 = rand::random();
        self.socket.queue(Opcode::Ping, &payload.to_be_bytes());
        self.heartbeat.at = now + self.settings.timeout;
        self.heartbeat.ping = Some(Ping {
            payload,
            confirms: self.sent,
        });
        Ok(())
    }
}
