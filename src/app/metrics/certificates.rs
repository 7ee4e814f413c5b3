//! What `/metrics` tells of the TLS port's certificate.

use crate::clock::unix_now;
use crate::net::CertStore;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;

/// Reads the certificates at each scrape.
#[derive(Debug)]
pub(super) struct Certificates(pub(super) Arc<CertStore>);

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(shown) = self.0.current() {
            let help = "Whole days until the certificate expires, negative once it has";
            let gauge = MetricType::Gauge;
            let descriptor =
                encoder.encode_descriptor("tls_certificate_days_left", help, None, gauge)?;
            ConstGauge::new(shown.days_left(unix_now())).encode(descriptor)?;
        }
        let help = "Certificates that were refused or could not be ordered";
        let counter = MetricType::Counter;
        let descriptor =
            encoder.encode_descriptor("tls_certificate_failures", help, None, counter)?;
        ConstCounter::new(self.0.failures()).encode(descriptor)
    }
}
