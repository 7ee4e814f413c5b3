//! Sums of the box's own parts that a successor goes on from, so that no rate dips. Those of rooms and
//! relays are in their sections.

use crate::app::App;
use crate::app::hooks::Hooks;
use crate::net::{CertStore, Connections, NameCounters};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Parts that count, and are known to nobody else by then.
pub(in crate::app) struct Counting(
    pub(in crate::app) Arc<Connections>,
    pub(in crate::app) Arc<NameCounters>,
);

/// Absent in what earlier versions wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::app) struct Counted {
    /// Questions to `hooks.authorize`, by what came of them.
    questions: [u64; 4],
    /// TCP connections that were refused, by the bound, and those that made room.
    refused: [u64; 3],
    made_room: u64,
    /// Of the names of `public.address`: changes and failures.
    names: [u64; 2],
    certificate_failures: u64,
}

impl Counted {
    pub(super) fn of(app: &App) -> Self {
        let Counting(connections, names) = &app.counting;
        let certificates = app.certificates.as_ref();
        Self {
            questions: app.reloader.hooks.authorizer.counters().all(),
            refused: connections.all_refused(),
            made_room: connections.made_room(),
            names: names.all(),
            certificate_failures: certificates.map_or(0, |certificates| certificates.failures()),
        }
    }

    /// Has the parts go on from what was counted.
    pub(in crate::app) fn restore(
        &self,
        hooks: &Hooks,
        Counting(connections, names): &Counting,
        certificates: Option<&CertStore>,
    ) {
        hooks.authorizer.counters().add(self.questions);
        connections.add_refused(self.refused, self.made_room);
        names.add(self.names);
        if let Some(certificates) = certificates {
            certificates.add_failures(self.certificate_failures);
        }
    }
}
