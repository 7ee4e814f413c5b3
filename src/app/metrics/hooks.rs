//! What the application's backend was asked and told.

use crate::hooks::{Authorizer, Events};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) struct Backend {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) events: Events,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl Collector for Backend {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in [
            (
                "hooks_events_waiting",
                "Events that wait for hooks.url",
                self.events.waiting(),
            ),
            (
                "hooks_listeners",
                "Listeners of /v1/events",
                self.events.listeners(),
            ),
        ] {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let counts = self.events.counts();
        for (name, help, value) in [
            (
                "hooks_events_delivered",
                "Events that hooks.url has confirmed",
                counts.delivered,
            ),
            (
                "hooks_events_dropped",
                "Events that were dropped: hooks.url took none for too long",
                counts.dropped,
            ),
            (
                "hooks_delivery_failures",
                "Attempts to deliver events that failed",
                counts.failures,
            ),
        ] {
            let value = ConstCounter::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Questions to hooks.authorize, by what came of them";
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor("hooks_questions", help, None, counter)?;
        let counters = self.authorizer.counters();
        for (outcome, count) in [
            ("allowed", &counters.allowed),
            ("denied", &counters.denied),
            ("failed", &counters.failed),
            ("busy", &counters.busy),
        ] {
            let labels = [("outcome", outcome)];
            let value = ConstCounter::new(count.load(Ordering::Relaxed));
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
