//! How long packets have waited in hand-overs, since the box was started for the first time.

use crate::signal::histogram::{Histogram, Sums};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Seconds: from a millisecond to half a second, each bound twice the one before.
const BOUNDS: [f64; 10] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512,
];

/// How many hand-overs there were, and how long packets waited in them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::app) struct Blackouts {
    pub(in crate::app) handovers: u64,
    waited: Sums,
    /// Seconds. Earlier versions wrote the latest 64 in place of `waited`.
    #[serde(skip_serializing)]
    latest: Vec<f64>,
}

impl Blackouts {
    pub(in crate::app) fn add(&mut self, blackout: Duration) {
        let waited = self.histogram();
        waited.observe(blackout.as_secs_f64());
        self.handovers += 1;
        self.waited = waited.sums();
        self.latest.clear();
    }

    pub(in crate::app) fn histogram(&self) -> Histogram {
        let waited = Histogram::new(BOUNDS);
        waited.add(&self.waited);
        // What was left may be anything.
        let plausible = self.latest.iter().filter(|s| (0.0..1e9).contains(*s));
        plausible.for_each(|seconds| waited.observe(*seconds));
        waited
    }
}
