//! Packets that ask for nothing: what a client may say while it waits.

use super::SocketIo;
use crate::compat::y_webrtc::exchange;
use crate::protocol::{CloseCode, ExchangeRequest};
use crate::signal::Output;

/// Packets before the client is let in: its CONNECT, pings, namespaces that are not there.
pub(super) const MAX_EARLY: u32 = 100;

impl SocketIo {
    /// A packet that asks for nothing.
    pub(super) fn idle(&mut self, out: &mut Output<'_>) {
        if self.is_accepted {
            return out.request(exchange(ExchangeRequest::Idle));
        }
        self.early += 1;
        if self.early > MAX_EARLY {
            out.close(CloseCode::RateLimited, "too many packets before CONNECT");
        }
    }

    /// A ping of the client, or its answer to one.
    pub(super) fn alive(&mut self, is_due: bool, out: &mut Output<'_>) {
        match is_due && self.is_accepted {
            true => out.request(exchange(ExchangeRequest::Alive)),
            false => self.idle(out),
        }
    }
}
