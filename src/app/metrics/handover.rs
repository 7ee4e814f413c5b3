//! What `/metrics` tells of hand-overs, since the box was started for the first time.

use crate::app::handover::Blackouts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::fmt;

/// What earlier processes have handed over.
#[derive(Debug)]
pub(super) struct Handovers(pub(super) Blackouts);

impl Collector for Handovers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Processes that went on where an earlier one had stopped";
        let counter = MetricType::Counter;
        let descriptor = encoder.encode_descriptor("handovers", help, None, counter)?;
        ConstCounter::new(self.0.handovers).encode(descriptor)?;
        // From a millisecond to half a second and beyond.
        let blackouts = Histogram::new(exponential_buckets(0.001, 2.0, 10));
        for seconds in &self.0.latest {
            blackouts.observe(*seconds);
        }
        let help = "How long relayed packets waited in a hand-over, of the latest ones";
        let histogram = MetricType::Histogram;
        let descriptor =
            encoder.encode_descriptor("handover_blackout_seconds", help, None, histogram)?;
        blackouts.encode(descriptor)
    }
}
