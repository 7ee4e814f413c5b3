//! How connections between peers went, as clients tell: sums and distributions, no addresses.

use super::histogram::{Histogram, Sums};
use crate::protocol::{Path, Report, Transport};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::exponential_buckets;
use serde::{Deserialize, Serialize};

/// Sums of all reports.
#[derive(Debug)]
pub struct Reports {
    /// By path, and by transport, of which the last stands for a report without one.
    outcomes: [[Counter; Transport::ALL.len() + 1]; Path::ALL.len()],
    /// Seconds from the beginning to the first media.
    pub connect: Histogram,
    /// Seconds there and back.
    pub round_trip: Histogram,
    /// The share of packets that did not arrive.
    pub loss: Histogram,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            outcomes: Default::default(),
            // 50 ms to 50 s.
            connect: Histogram::new(exponential_buckets(0.05, 2.0, 11)),
            // 1 ms to 2 s.
            round_trip: Histogram::new(exponential_buckets(0.001, 2.0, 12)),
            // One in a thousand to all.
            loss: Histogram::new([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]),
        }
    }
}

/// All of them, for the process that goes on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ReportsRecord {
    /// By the names of path and transport.
    outcomes: Vec<(String, String, u64)>,
    connect: Sums,
    round_trip: Sums,
    loss: Sums,
}

impl Reports {
    pub(super) fn record(&self) -> ReportsRecord {
        let counted = self.outcomes().filter(|(_, _, count)| *count > 0);
        ReportsRecord {
            outcomes: counted
                .map(|(path, transport, count)| (path.to_owned(), transport.to_owned(), count))
                .collect(),
            connect: self.connect.sums(),
            round_trip: self.round_trip.sums(),
            loss: self.loss.sums(),
        }
    }

    /// Goes on from what an earlier process counted; what has another name there is not counted here.
    pub(super) fn add(&self, record: &ReportsRecord) {
        for (path, transport, count) in &record.outcomes {
            let known = Transport::from_name(transport);
            let transport = known.map_or(Transport::ALL.len(), |known| known as usize);
            if let Some(path) = Path::from_name(path) {
                self.outcomes[path as usize][transport].inc_by(*count);
            }
        }
        self.connect.add(&record.connect);
        self.round_trip.add(&record.round_trip);
        self.loss.add(&record.loss);
    }

    /// Counts one report.
    pub fn count(&self, report: &Report) {
        let transport = report
            .transport
            .map_or(Transport::ALL.len(), |t| t as usize);
        self.outcomes[report.path as usize][transport].inc();
        let seconds = |histogram: &Histogram, ms: Option<u32>| {
            if let Some(ms) = ms {
                histogram.observe(f64::from(ms) / 1000.0);
            }
        };
        seconds(&self.connect, report.connect_ms);
        seconds(&self.round_trip, report.rtt_ms);
        if let Some(ppm) = report.lost_ppm {
            self.loss.observe(f64::from(ppm) / 1e6);
        }
    }

    /// How many reports each path and transport (`unknown` without one) has.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let transport = |n: usize| Transport::ALL.get(n).map_or("unknown", |t| t.as_str());
        Path::ALL
            .iter()
            .zip(&self.outcomes)
            .flat_map(move |(path, by_transport)| {
                let counts = by_transport.iter().enumerate();
                counts.map(move |(n, count)| (path.as_str(), transport(n), count.get()))
            })
    }
}
