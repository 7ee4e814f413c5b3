//! The place that a connection has in every count.

use super::super::hub::ConnId;
use super::super::outbox::Outbox;
use super::Driver;
use crate::protocol::DialectKind;
use std::net::IpAddr;
use std::sync::Arc;

/// The place of one connection in every count; dropping it gives the place back.
pub struct Admission {
    pub(in crate::signal) conn: ConnId,
    pub(in crate::signal) dialect: DialectKind,
    pub(in crate::signal) client: IpAddr,
    pub(in crate::signal) lobby: Option<Arc<str>>,
    pub(in crate::signal) outbox: Arc<Outbox>,
    pub(super) driver: Arc<Driver>,
}

impl Admission {
    /// Lets the connection wait in a lobby.
    pub fn in_lobby(mut self, lobby: Option<Arc<str>>) -> Self {
        self.lobby = lobby;
        self
    }

    pub(in crate::signal) fn driver(&self) -> &Driver {
        &self.driver
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.driver.stays(self.conn);
        let mut state = self.driver.lock();
        state.outboxes.remove(&self.conn);
        state.networks.give_back(self.client);
        state.forget_share_of(self.client);
        self.driver.live.send_replace(state.outboxes.len());
        self.driver.stats.of(self.dialect).connections.dec();
    }
}
