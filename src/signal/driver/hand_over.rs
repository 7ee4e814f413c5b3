//! Signaling given to a successor, and taken over from a predecessor.

use super::stats::StatsRecord;
use super::{
    Admission, ConnectionLimits, Driver, Hub, IceIssuer, Input, Now, OnRevoke, SentByType,
    Settings, now,
};
use crate::protocol::{DialectKind, FrameType};
use crate::signal::hub::{ConnId, HubSnapshot, Loss, SnapshotError};
use crate::signal::parked::ParkedConnection;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// All of signaling: what a process gives to its successor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignalSnapshot {
    hub: HubSnapshot,
    next_conn: u64,
    sent: Vec<(String, u64)>,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    stats: StatsRecord,
}

impl SignalSnapshot {
    /// The hub's part.
    pub fn hub(&self) -> &HubSnapshot {
        &self.hub
    }
}

/// What is missed while a successor may have the hub already.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    /// Connections that ended since, in case the hub is taken back; no more than there were.
    ended: Vec<(ConnId, Loss)>,
}

impl HandedOver {
    /// Takes note of an input that the hub does not get.
    pub(super) fn miss(&mut self, input: &Input) {
        if let Input::Closed { conn, loss } = input {
            self.ended.push((*conn, *loss));
        }
    }
}

impl Driver {
    /// Gives everything to a successor: from here on nobody is admitted, and what connections say
    /// changes nothing. Requests in flight stay without an answer, so that their clients send them
    /// again once they have resumed.
    pub fn hand_over(&self) -> SignalSnapshot {
        let mut state = self.lock();
        state.handed_over.get_or_insert_default();
        self.parking.complete(now().instant);
        SignalSnapshot {
            hub: state.hub.snapshot(now()),
            next_conn: state.next_conn,
            sent: (state.sent.iter())
                .map(|(kind, count)| (kind.as_str().to_owned(), count))
                .collect(),
            stats: self.stats.record(),
        }
    }

    /// Closes every connection after a [`hand_over`](Self::hand_over), for its client to resume with
    /// the successor.
    pub fn leave_to_successor(&self) {
        self.with_hub(|hub, _, effects| hub.leave_to_successor(effects));
    }

    /// Goes on, as there is no successor after all.
    pub fn take_back(&self) {
        let Some(missed) = self.lock().handed_over.take() else {
            return;
        };
        for (conn, loss) in missed.ended {
            self.input(Input::Closed { conn, loss });
        }
        self.rearm.notify_one();
    }

    /// Continues what a predecessor gave up at `stopped`. Its connections are
    /// [adopted](Self::adopt) next, and what is left of them [cut](Self::cut_missing).
    ///
    /// # Errors
    /// The snapshot is not to be read.
    pub fn restored(
        snapshot: SignalSnapshot,
        stopped: Instant,
        settings: Settings,
        ice: IceIssuer,
        limits: ConnectionLimits,
        on_revoke: OnRevoke,
    ) -> Result<Self, SnapshotError> {
        let at = Now {
            instant: stopped,
            ..now()
        };
        let highest = snapshot.hub.highest_connection();
        let next_conn = highest.map_or(0, |conn| conn.0.saturating_add(1));
        let hub = Hub::restore(at, snapshot.hub, settings, ice, rand::random())?;
        let driver = Self::with(hub, limits, on_revoke);
        driver.stats.add(&snapshot.stats);
        {
            let mut state = driver.lock();
            state.next_conn = snapshot.next_conn.max(next_conn).min(1 << 60);
            let mut sent = SentByType::default();
            for (name, count) in snapshot.sent {
                if let Some(kind) = FrameType::from_name(&name) {
                    sent.0[kind as usize] = count.min(1 << 60);
                }
            }
            state.sent = sent;
        }
        Ok(driver)
    }

    /// Counts a connection in that the predecessor had, whatever the limits say; `None` where the
    /// hub does not know it as one of that client and dialect, or it was adopted already.
    pub fn adopt(
        self: &Arc<Self>,
        conn: ConnId,
        client: IpAddr,
        dialect: DialectKind,
    ) -> Option<Admission> {
        let mut state = self.lock();
        let is_known = state.hub.has_connection(conn, client, dialect);
        if !is_known || state.outboxes.contains_key(&conn) {
            return None;
        }
        state.networks.add(client, 1);
        Some(self.enter(&mut state, conn, client, dialect))
    }

    /// As [`adopt`](Self::adopt), of a connection that has stopped for this process.
    pub fn adopt_parked(self: &Arc<Self>, parked: &ParkedConnection) -> Option<Admission> {
        let admission = self.adopt(ConnId(parked.conn), parked.client, parked.dialect())?;
        for frame in parked.foreign.iter().flat_map(|foreign| &foreign.waiting) {
            admission.outbox.push(0, frame.clone());
        }
        Some(admission)
    }

    /// Takes note that an adopted connection does not go on.
    pub fn lose(&self, conn: ConnId) {
        let loss = Loss::Disconnected;
        self.input(Input::Closed { conn, loss });
    }

    /// Has the sessions of connections that nobody adopted wait for their clients.
    pub fn cut_missing(&self) {
        let adopted: HashSet<_> = self.lock().outboxes.keys().copied().collect();
        self.with_hub(|hub, now, effects| hub.cut(now, |conn| !adopted.contains(&conn), effects));
    }
}

impl Admission {
    /// Which connection it is of.
    pub fn conn(&self) -> ConnId {
        self.conn
    }
}

#[cfg(test)]
mod tests {
    use super::super::ConnectError;
    use super::*;
    use crate::auth::credential::TurnSecrets;
    use crate::protocol::parse;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ice() -> IceIssuer {
        IceIssuer {
            stun_urls: vec![],
            turn_urls: vec!["turn:box.example".into()],
            secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
            ttl: Duration::from_secs(60),
        }
    }

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            per_ip: 9,
            total: 9,
            outbox: 1 << 16,
        }
    }

    fn restored(snapshot: SignalSnapshot, revoked: &Arc<AtomicUsize>) -> Arc<Driver> {
        let json = serde_json::to_string(&snapshot).unwrap();
        let snapshot = serde_json::from_str(&json).unwrap();
        let settings = Settings::default();
        let (stopped, revoked) = (Instant::now(), Arc::clone(revoked));
        let on_revoke = Box::new(move |_: &str, _, _| {
            revoked.fetch_add(1, Ordering::Relaxed);
        });
        let driver = Driver::restored(snapshot, stopped, settings, ice(), limits(), on_revoke);
        Arc::new(driver.unwrap())
    }

    fn say(driver: &Driver, conn: ConnId, text: &str) {
        let (message, grant) = (parse(text), None);
        driver.input(Input::Frame {
            conn,
            message,
            grant,
        });
    }

    fn enter(driver: &Arc<Driver>) -> Admission {
        let admission = driver.admit(CLIENT, DialectKind::Native).unwrap();
        let conn = admission.conn;
        driver.input(Input::Connected {
            conn,
            client: CLIENT,
            dialect: DialectKind::Native,
            lobby: None,
        });
        say(driver, conn, r#"{"type":"join","roomId":"r"}"#);
        admission
    }

    #[test]
    fn a_successor_has_the_sessions_and_adopts_connections() {
        let on_revoke = Box::new(|_: &str, _, _| panic!("revoked"));
        let revoked = Arc::default();
        let old = Driver::new(Settings::default(), ice(), limits(), on_revoke);
        let old = Arc::new(old);
        let (kept, lost) = (enter(&old), enter(&old));
        let snapshot = old.hand_over();
        let refused = old.admit(CLIENT, DialectKind::Native).err();
        assert_eq!(refused, Some(ConnectError::Draining));
        say(&old, kept.conn, r#"{"type":"leave"}"#);
        assert_eq!(old.with_hub(|hub, _, _| hub.gauges().sessions), 2);

        let new = restored(snapshot, &revoked);
        let adopted = new.adopt(kept.conn, CLIENT, DialectKind::Native).unwrap();
        let again = new.adopt(kept.conn, CLIENT, DialectKind::Native);
        assert!(again.is_none(), "once");
        let other = new.adopt(lost.conn, CLIENT, DialectKind::Mqtt);
        assert!(other.is_none(), "another dialect");
        new.cut_missing();
        let gauges = new.with_hub(|hub, _, _| hub.gauges());
        assert_eq!(
            (gauges.sessions, gauges.away, gauges.connections),
            (2, 1, 1)
        );
        assert!(new.sent().iter().any(|(_, count)| count > 0));
        assert_eq!(revoked.load(Ordering::Relaxed), 0);
        say(&new, adopted.conn, r#"{"type":"leave"}"#);
        assert_eq!(revoked.load(Ordering::Relaxed), 1);
        assert_eq!(new.with_hub(|hub, _, _| hub.gauges().sessions), 1);
        let next = new.admit(CLIENT, DialectKind::Native).unwrap();
        assert!(next.conn > lost.conn, "no number is given twice");
    }

    #[test]
    fn a_hub_that_is_taken_back_knows_who_left_meanwhile() {
        let old = Driver::new(Settings::default(), ice(), limits(), Box::new(|_, _, _| {}));
        let old = Arc::new(old);
        let (one, other) = (enter(&old), enter(&old));
        old.hand_over();
        let (conn, loss) = (one.conn, Loss::Disconnected);
        old.input(Input::Closed { conn, loss });
        drop(one);
        assert_eq!(old.with_hub(|hub, _, _| hub.gauges().away), 0);
        old.take_back();
        assert_eq!(old.with_hub(|hub, _, _| hub.gauges().away), 1);
        say(&old, other.conn, r#"{"type":"leave"}"#);
        assert_eq!(old.with_hub(|hub, _, _| hub.gauges().sessions), 1);
        assert!(old.admit(CLIENT, DialectKind::Native).is_ok());
    }
}
