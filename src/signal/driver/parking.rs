//! Connections that stop for a successor: their tasks leave socket and state here.

use super::super::outbox::Outbox;
use super::super::parked::ParkedConnection;
use super::Driver;
use crate::signal::hub::ConnId;
use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where connections stop.
#[derive(Debug, Default)]
pub(super) struct Parking {
    state: Mutex<Collected>,
    /// Whether what was left here has been taken.
    is_over: watch::Sender<bool>,
    awaited: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Collected {
    /// Whether connections may still stop.
    is_open: bool,
    /// Which have yet to stop or to decline.
    awaited: HashSet<ConnId>,
    parked: Vec<Parked>,
    /// Complete, for the successor.
    left: Vec<LeftBehind>,
}

#[derive(Debug)]
struct Parked {
    connection: ParkedConnection,
    socket: Option<OwnedFd>,
    outbox: Arc<Outbox>,
}

/// A connection at rest, and its socket; none where requests carry it.
pub type LeftBehind = (ParkedConnection, Option<OwnedFd>);

impl Parking {
    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection has stopped, declined or ended.
    fn answered(&self, state: &mut Collected, conn: ConnId) {
        if state.awaited.remove(&conn) {
            self.awaited.send_replace(state.awaited.len());
        }
    }

    /// Adds what waits in the outboxes. From here on nobody stops any more. To be called under the
    /// lock of the hub, so that it is of one moment with the hub's snapshot.
    pub(super) fn complete(&self, now: Instant) {
        let mut state = self.lock();
        state.is_open = false;
        state.awaited.clear();
        for mut parked in std::mem::take(&mut state.parked) {
            let absorb = |frame: &_| parked.connection.absorb(frame, now);
            match parked.outbox.take_all(absorb) {
                None => state.left.push((parked.connection, parked.socket)),
                // The hub has ended it meanwhile: what the socket takes at once is its goodbye.
                Some(closing) => {
                    let end = parked.connection.into_end(&closing);
                    let _ = parked
                        .socket
                        .map(|socket| TcpStream::from(socket).write(&end));
                }
            }
        }
    }
}

impl Driver {
    /// Has connections stop that a successor can go on with, for `patience` at most; who has not
    /// stopped by then goes on, as do those that nobody else can go on with.
    pub async fn park(&self, patience: Duration) {
        let outboxes = {
            let state = self.lock();
            let mut collected = self.parking.lock();
            collected.is_open = true;
            collected.awaited = state.outboxes.keys().copied().collect();
            self.parking.awaited.send_replace(collected.awaited.len());
            state.outboxes.values().cloned().collect::<Vec<_>>()
        };
        for outbox in outboxes {
            outbox.park();
        }
        let mut awaited = self.parking.awaited.subscribe();
        let all = awaited.wait_for(|awaited| *awaited == 0);
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Takes what connections have left, complete since [`hand_over`](Self::hand_over), and lets their
    /// tasks end.
    pub fn take_parked(&self) -> Vec<LeftBehind> {
        let left = std::mem::take(&mut self.parking.lock().left);
        self.parking.is_over.send_replace(true);
        left
    }

    /// Leaves what `give` gives to the successor. Returns whether it is left.
    pub(in crate::signal) fn leave(
        &self,
        conn: ConnId,
        outbox: &Arc<Outbox>,
        give: impl FnOnce() -> Option<LeftBehind>,
    ) -> bool {
        let mut state = self.parking.lock();
        let given = match state.is_open {
            true => give(),
            false => None,
        };
        let is_left = given.is_some();
        state
            .parked
            .extend(given.map(|(connection, socket)| Parked {
                connection,
                socket,
                outbox: Arc::clone(outbox),
            }));
        self.parking.answered(&mut state, conn);
        is_left
    }

    /// The connection goes on here as long as it can, or has ended.
    pub(in crate::signal) fn stays(&self, conn: ConnId) {
        self.parking.answered(&mut self.parking.lock(), conn);
    }

    /// Waits until what was left is taken.
    pub(in crate::signal) async fn taken(&self) {
        // The sender lives in `self`, so the channel is open.
        let _ = self
            .parking
            .is_over
            .subscribe()
            .wait_for(|over| *over)
            .await;
    }
}
