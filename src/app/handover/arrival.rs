//! What an earlier process has left, spread over the parts of a box that starts.

use super::{Adopted, Blackouts, Kept, RelayPart};
use crate::auth::credential::IceIssuer;
use crate::clock;
use crate::config::Config;
use crate::http::{self, AppState};
use crate::net::{Announced, Inherited};
use crate::relay::{Admit, Restored};
use crate::signal::hub::Settings;
use crate::signal::{Admission, ConnectionLimits, Driver, LeftBehind, OnRevoke, SignalSnapshot};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A connection of signaling that goes on.
pub(in crate::app) struct Arrived {
    left: LeftBehind,
    admission: Admission,
}

impl Arrived {
    /// Goes on, counted among the connections by `admit`.
    pub(in crate::app) fn resume(self, context: &Arc<AppState>, admit: &Admit) {
        let (parked, socket) = &self.left;
        let place = socket.as_ref().and_then(|_| admit(parked.client()));
        if let Err(error) = http::resume(context, self.left, self.admission, place) {
            tracing::warn!("a connection does not go on: {error}");
        }
    }
}

/// What the parts of a box start with.
pub(in crate::app) struct Arrival {
    pub(in crate::app) inherited: Inherited,
    pub(in crate::app) relay: Option<RelayPart>,
    pub(in crate::app) announced: Option<Vec<Announced>>,
    /// Seconds.
    pub(in crate::app) longest_ttl: u64,
    pub(in crate::app) kept: Kept,
    blackouts: Blackouts,
    /// When packets began to wait, when this process began, and the version of the earlier one.
    from: Option<(u64, u64, String)>,
}

impl Arrival {
    /// Spreads out what there is; `config` keeps what was made for the run of the earlier process.
    pub(in crate::app) fn of(
        adopted: Option<&mut Adopted>,
        config: &mut Config,
        inherited: Inherited,
    ) -> Self {
        let Some(adopted) = adopted else {
            return Self {
                inherited,
                relay: None,
                announced: None,
                longest_ttl: 0,
                kept: Kept::default(),
                blackouts: Blackouts::default(),
                from: None,
            };
        };
        adopted.keep_secret(config);
        let (inherited, relay) = adopted.take(inherited);
        let relay = relay.unwrap_or_else(|error| {
            tracing::error!(
                "the relay of the earlier process cannot be taken over: {error}; it starts anew, \
                 and clients have to allocate again"
            );
            None
        });
        Self {
            inherited,
            relay,
            announced: Some(adopted.announced()),
            longest_ttl: adopted.longest_ttl(),
            kept: adopted.kept(),
            blackouts: adopted.blackouts(),
            from: Some((adopted.stopped(), adopted.began, adopted.version().into())),
        }
    }

    /// Starts signaling: with the rooms that an earlier process has left, once the relay serves, or
    /// else empty.
    pub(in crate::app) fn driver(
        mut adopted: Option<&mut Adopted>,
        settings: Settings,
        ice: IceIssuer,
        limits: ConnectionLimits,
        on_revoke: impl Fn() -> OnRevoke,
    ) -> (Arc<Driver>, Vec<Arrived>) {
        let connections = adopted.as_mut().map(|adopted| adopted.connections());
        let restored = adopted
            .and_then(|adopted| adopted.signaling())
            .map(|(text, stopped)| {
                let snapshot = text.and_then(|text| {
                    serde_json::from_slice::<SignalSnapshot>(&text)
                        // The error itself may quote what was read, a token among it.
                        .map_err(|error| {
                            format!("{:?} at byte {}", error.classify(), error.column())
                        })
                })?;
                let hub = snapshot.hub();
                let (sessions, rooms) = (hub.sessions(), hub.rooms());
                // What was left may be anything: a fault in reading it is not the end of the box.
                let restore = AssertUnwindSafe(|| {
                    #[cfg(test)]
                    crate::signal::panics::come_by("rooms");
                    let (settings, ice) = (settings.clone(), ice.clone());
                    let (limits, on_revoke) = (limits.clone(), on_revoke());
                    Driver::restored(snapshot, stopped, settings, ice, limits, on_revoke)
                });
                let driver = catch_unwind(restore).map_err(|_| "reading it panicked".to_owned())?;
                let driver = Arc::new(driver.map_err(|error| error.to_string())?);
                let connections = connections.unwrap_or(Ok(vec![])).unwrap_or_else(|error| {
                    tracing::error!("connections cannot be taken over: {error}; clients resume");
                    vec![]
                });
                let adopt = |left: LeftBehind| {
                    let admission = driver.adopt_parked(&left.0)?;
                    Some(Arrived { left, admission })
                };
                let arrived: Vec<_> = connections.into_iter().filter_map(adopt).collect();
                driver.cut_missing();
                let connections = arrived.len();
                tracing::info!(
                    sessions,
                    rooms,
                    connections,
                    "rooms go on, other clients resume"
                );
                Ok::<_, String>((driver, arrived))
            });
        match restored {
            Some(Ok(driver)) => return driver,
            Some(Err(error)) => tracing::error!(
                "the rooms of the earlier process cannot be taken over: {error}; clients have to \
                 join again"
            ),
            None => {}
        }
        let driver = Driver::new(settings, ice, limits, on_revoke());
        (Arc::new(driver), vec![])
    }

    /// Says what was taken over and how long packets have waited; returns what is counted of that.
    pub(in crate::app) fn relay_serves(&mut self, restored: Option<Restored>) -> Blackouts {
        if let (Some((stopped, began, version)), Some(restored)) = (&self.from, restored) {
            let now = clock::monotonic();
            let blackout = Duration::from_nanos(now.saturating_sub(*stopped));
            let here = Duration::from_nanos(now.saturating_sub(*began));
            self.blackouts.add(blackout);
            tracing::info!(
                allocations = restored.allocations,
                streams = restored.streams,
                lost = restored.lost,
                waited_ms = blackout.as_millis() as u64,
                here_ms = here.as_millis() as u64,
                "went on where callbox {version} has stopped"
            );
        }
        std::mem::take(&mut self.blackouts)
    }
}
