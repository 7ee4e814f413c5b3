//! TCP connections of every kind: how many there are, and who was kept out.

use crate::net::{Connections, Full};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Tcp(pub(super) Arc<Connections>);

impl Collector for Tcp {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (gauge, help) = (
            MetricType::Gauge,
            "Open TCP connections, whatever they carry",
        );
        let total = ConstGauge::new(self.0.total());
        total.encode(encoder.encode_descriptor("tcp_connections", help, None, gauge)?)?;
        let help = "TCP connections that were closed at once, by the bound that kept them out; \
                    `silent` ones were closed later, to make room";
        let counter = MetricType::Counter;
        let mut family =
            encoder.encode_descriptor("tcp_connections_refused", help, None, counter)?;
        for (reason, count) in [
            ("network", self.0.refused(Full::Network)),
            ("total", self.0.refused(Full::Total)),
            ("denied", self.0.refused(Full::Denied)),
            ("silent", self.0.made_room()),
        ] {
            let labels = [("reason", reason)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
