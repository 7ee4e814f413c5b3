//! How connections between peers went, as clients tell: sums and distributions, no addresses.

use crate::protocol::{Path, Report, Transport};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

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

impl Reports {
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
