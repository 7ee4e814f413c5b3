//! What the driver counts.

use crate::protocol::DialectKind;
use crate::signal::histogram::{Histogram, Sums};
use crate::signal::reports::{Reports, ReportsRecord};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::exponential_buckets;
use serde::{Deserialize, Serialize};

/// What the shell counts; the hub counts messages.
#[derive(Debug)]
pub struct Stats {
    /// Seconds from a connection's upgrade to its first `joined` or `registered`.
    pub join_latency: Histogram,
    /// Connections refused before their upgrade.
    pub refused: Counter,
    /// Connections closed because they did not read.
    pub slow_consumers: Counter,
    /// The most bytes that ever waited for one connection.
    pub outbox_high_water: Gauge,
    /// What clients told of their connections to each other.
    pub reports: Reports,
    dialects: [DialectStats; DialectKind::ALL.len()],
}

/// What is counted of each dialect.
#[derive(Debug, Default)]
pub struct DialectStats {
    /// Open connections.
    pub connections: Gauge,
    /// Messages of clients; the native ones are counted by type alone.
    pub received: Counter,
    /// Messages for clients, likewise.
    pub sent: Counter,
}

/// All of it but the gauges, for the process that goes on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StatsRecord {
    join_latency: Sums,
    refused: u64,
    slow_consumers: u64,
    outbox_high_water: i64,
    reports: ReportsRecord,
    /// Messages of each dialect, received and sent.
    dialects: Vec<(String, u64, u64)>,
}

impl Stats {
    pub(super) fn record(&self) -> StatsRecord {
        let dialects = DialectKind::ALL.iter().zip(&self.dialects);
        StatsRecord {
            join_latency: self.join_latency.sums(),
            refused: self.refused.get(),
            slow_consumers: self.slow_consumers.get(),
            outbox_high_water: self.outbox_high_water.get(),
            reports: self.reports.record(),
            dialects: dialects
                .map(|(kind, of)| (kind.as_str().to_owned(), of.received.get(), of.sent.get()))
                .collect(),
        }
    }

    /// Goes on from what an earlier process counted.
    pub(super) fn add(&self, record: &StatsRecord) {
        self.join_latency.add(&record.join_latency);
        self.refused.inc_by(record.refused);
        self.slow_consumers.inc_by(record.slow_consumers);
        self.outbox_high_water.set(record.outbox_high_water);
        self.reports.add(&record.reports);
        for (name, received, sent) in &record.dialects {
            if let Some(kind) = DialectKind::from_name(name) {
                self.of(kind).received.inc_by(*received);
                self.of(kind).sent.inc_by(*sent);
            }
        }
    }

    /// What is counted of one dialect.
    pub fn of(&self, dialect: DialectKind) -> &DialectStats {
        &self.dialects[dialect as usize]
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            // From half a millisecond to a minute: the shortest is a box on loopback.
            join_latency: Histogram::new(exponential_buckets(0.000_5, 3.0, 11)),
            refused: Counter::default(),
            slow_consumers: Counter::default(),
            outbox_high_water: Gauge::default(),
            reports: Reports::default(),
            dialects: Default::default(),
        }
    }
}
