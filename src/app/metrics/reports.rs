//! Outcomes that clients report, by path and transport.

use crate::signal::Driver;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::sync::Arc;

pub(super) struct Outcomes(pub(super) Arc<Driver>);

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outcomes")
    }
}

impl Collector for Outcomes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections between peers that clients reported, by their path";
        let mut metric =
            encoder.encode_descriptor("signal_reports", help, None, MetricType::Counter)?;
        for (path, transport, count) in self.0.stats().reports.outcomes() {
            let labels = [("path", path), ("transport", transport)];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
