//! What `/metrics` tells of hand-overs, since the box was started for the first time.

use crate::app::handover::Blackouts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
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
        let help = "How long relayed packets waited in a hand-over";
        let histogram = MetricType::Histogram;
        let descriptor =
            encoder.encode_descriptor("handover_blackout_seconds", help, None, histogram)?;
        self.0.histogram().encode(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;
    use std::time::Duration;

    fn shown(blackouts: &Blackouts) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Handovers(blackouts.clone())));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        let values = out.lines().filter(|line| !line.starts_with('#'));
        values.map(str::to_owned).collect()
    }

    fn has(shown: &[String], lines: &[&str]) {
        for line in lines {
            assert!(shown.iter().any(|s| s == line), "{line} in {shown:#?}");
        }
    }

    /// As from process to process.
    fn passed_on(blackouts: &Blackouts) -> Blackouts {
        let text = serde_json::to_string(blackouts).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_hand_over_is_in_the_histogram_however_many_there_were() {
        let mut blackouts = Blackouts::default();
        for n in 0..200 {
            let waited = if n % 2 == 0 { 3 } else { 30 };
            blackouts.add(Duration::from_millis(waited));
            blackouts = passed_on(&blackouts);
        }
        let lines = [
            "handovers_total 200",
            "handover_blackout_seconds_count 200",
            "handover_blackout_seconds_bucket{le=\"0.002\"} 0",
            "handover_blackout_seconds_bucket{le=\"0.004\"} 100",
            "handover_blackout_seconds_bucket{le=\"0.016\"} 100",
            "handover_blackout_seconds_bucket{le=\"0.032\"} 200",
            "handover_blackout_seconds_bucket{le=\"+Inf\"} 200",
        ];
        has(&shown(&blackouts), &lines);
    }

    #[test]
    fn what_earlier_versions_wrote_is_counted_once() {
        let text = r#"{"handovers": 70, "latest": [0.25, 0.5, 1.0]}"#;
        let mut blackouts: Blackouts = serde_json::from_str(text).unwrap();
        let count = "handover_blackout_seconds_count 3";
        has(&shown(&blackouts), &["handovers_total 70", count]);
        blackouts.add(Duration::from_millis(250));
        let lines = [
            "handovers_total 71",
            "handover_blackout_seconds_count 4",
            "handover_blackout_seconds_sum 2.0",
            "handover_blackout_seconds_bucket{le=\"0.256\"} 2",
            "handover_blackout_seconds_bucket{le=\"0.512\"} 3",
            "handover_blackout_seconds_bucket{le=\"+Inf\"} 4",
        ];
        has(&shown(&passed_on(&blackouts)), &lines);
    }
}
