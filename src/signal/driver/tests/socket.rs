//! A driver and its connections without tasks, for simulations: the hub draws from a seed, and each
//! connection is polled by hand.

use super::super::*;
use crate::protocol::{CloseCode, PeerId, frame, parse};
use crate::signal::hub::{Event, Loss};
use std::task::{Context, Poll, Waker};

/// A driver whose hub follows from a seed.
pub(crate) fn seeded(
    settings: Settings,
    ice: IceIssuer,
    limits: ConnectionLimits,
    seed: [u8; 32],
    on_revoke: OnRevoke,
) -> Arc<Driver> {
    let hub = Hub::new(settings, ice, seed);
    Arc::new(Driver::with(hub, limits, on_revoke))
}

/// A connection, as its task would have it.
pub(crate) struct Socket(Admission);

impl Socket {
    pub(crate) fn open(driver: &Arc<Driver>, client: IpAddr) -> Result<Self, ConnectError> {
        let dialect = DialectKind::Native;
        let admission = driver.admit(client, dialect)?;
        driver.input(Input::Connected {
            conn: admission.conn,
            client,
            dialect,
            lobby: None,
        });
        Ok(Self(admission))
    }

    /// Whether the client is read.
    pub(crate) fn is_read(&self) -> bool {
        self.0.driver.is_open() && self.0.outbox.is_light(|| now().instant)
    }

    pub(crate) fn say(&self, text: &str) {
        let (message, grant) = (parse(text), None);
        self.0.driver.input(Input::Frame {
            conn: self.0.conn,
            message,
            grant,
        });
    }

    pub(crate) fn confirm(&self, peer: PeerId, seq: u64) {
        let conn = self.0.conn;
        self.0.driver.input(Input::Confirmed { conn, peer, seq });
    }

    /// Hands what waits to `each`; with which status the connection ends behind it.
    pub(crate) fn take(&self, mut each: impl FnMut(String)) -> Option<CloseCode> {
        let cx = Context::from_waker(Waker::noop());
        let mut written = 0;
        loop {
            let taken = self.0.outbox.poll_next(&cx, written, usize::MAX, |sent| {
                if let Event::Native(body) = &sent.event {
                    each(frame(sent.seq, body));
                }
            });
            match taken {
                Poll::Ready(Ok(bytes)) => written = bytes,
                Poll::Ready(Err(closing)) => return Some(closing.code),
                Poll::Pending => return None,
            }
        }
    }

    /// The far end is gone.
    pub(crate) fn lose(self) {
        let (conn, loss) = (self.0.conn, Loss::Disconnected);
        self.0.driver.input(Input::Closed { conn, loss });
    }
}
