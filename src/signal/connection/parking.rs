//! A connection that stops here and goes on in another process, over the same socket.

use super::super::dialect::Dialect;
use super::super::parked::{Foreign, ParkedConnection, ParkedPing};
use super::super::websocket::Decoder;
use super::buffered_socket::Left;
use super::heartbeat::{Heartbeat, Ping};
use super::{Admission, Carrier, Connection, ConnectionSettings};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::time::Instant;

impl<C: Carrier, D: Dialect> Connection<C, D> {
    /// Whether everything of it can be written down, once nothing is waited for.
    pub(super) fn can_stop(&self) -> bool {
        self.wants_end.is_none() && self.socket.is_bare() && !self.decoder.is_broken()
    }

    /// Whether it could stop but for an answer, which can come to this process alone. The driver waits
    /// for it as long as for a connection to stop.
    pub(super) fn waits_for_answer(&self) -> bool {
        (self.pending.is_some() || !self.deferred.is_empty()) && self.can_stop()
    }

    /// Leaves socket and state to the successor. Returns whether they are left.
    pub(super) fn leave(&mut self) -> bool {
        let (conn, client) = (self.admission.conn, self.admission.client);
        let outbox = std::sync::Arc::clone(&self.admission.outbox);
        let (socket, decoder) = (&mut self.socket, &mut self.decoder);
        let (token, heartbeat) = (&self.token, &self.heartbeat);
        let (sent, probe) = (self.sent, self.probe);
        let (kind, dialect) = (self.admission.dialect, &self.dialect);
        let is_left = self.admission.driver().leave(conn, &outbox, || {
            let foreign = match D::IS_NATIVE {
                true => None,
                false => Some(Foreign {
                    kind,
                    memory: dialect.memory(Instant::now().into_std())?,
                    waiting: vec![],
                }),
            };
            let (unsent, ahead, carrier) = socket.detach()?;
            let (descriptor, mailbox) = match carrier {
                Left::Socket(descriptor) => (Some(descriptor), None),
                Left::Mailbox(mailbox) => (None, Some(mailbox)),
            };
            let mut received = std::mem::take(decoder).into_remains();
            received.append(&ahead);
            let due = heartbeat.at.saturating_duration_since(Instant::now());
            let connection = ParkedConnection {
                conn: conn.0,
                client,
                token: token.as_ref().map(|token| token.expose_secret().to_owned()),
                unsent,
                received,
                sent,
                heartbeat: due.as_millis().try_into().unwrap_or(u64::MAX),
                ping: heartbeat.ping.as_ref().map(|ping| ParkedPing {
                    payload: ping.payload,
                    confirms: ping.confirms,
                }),
                probe,
                foreign,
                mailbox,
            };
            Some((connection, descriptor))
        });
        self.hub_notified |= is_left;
        is_left
    }
}

/// Goes on with a connection of an earlier process until it ends; `dialect` is the one that it had.
pub fn resume<C: Carrier, D: Dialect>(
    carrier: C,
    dialect: D,
    admission: Admission,
    parked: ParkedConnection,
    settings: ConnectionSettings,
) -> impl Future<Output = ()> {
    let token = parked.token.map(SecretString::from);
    let due = Duration::from_millis(parked.heartbeat);
    let longest = settings.heartbeat.max(settings.timeout);
    let mut heartbeat = Heartbeat::new(Instant::now() + due.min(longest));
    heartbeat.ping = parked.ping.map(|ping| Ping {
        payload: ping.payload,
        confirms: ping.confirms,
    });
    let mut connection = Connection::new(carrier, dialect, admission, token, settings);
    connection.heartbeat = heartbeat;
    connection.decoder = Decoder::of(parked.received);
    *connection.socket.frames() = parked.unsent;
    (connection.sent, connection.probe) = (parked.sent, parked.probe);
    async move { connection.live().await }
}
