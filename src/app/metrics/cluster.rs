//! What `/metrics` tells of a node of a cluster.

use crate::cluster::link::Reset;
use crate::cluster::shell::Cluster;
use crate::signal::Remote;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;

/// The node, and the connections that it shares with others.
#[derive(Debug)]
pub(super) struct Node(pub(super) Arc<Cluster>, pub(super) Remote);

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (gauges, reconnects) = (self.0.gauges(), self.0.reconnects());
        let remote = self.1;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "cluster_up",
                "Whether Redis has answered within the lease",
                i64::from(gauges.up),
            ),
            (
                "cluster_isolated",
                "Whether the node serves without Redis",
                i64::from(gauges.isolated),
            ),
            ("cluster_nodes", "Nodes that live", count(gauges.nodes)),
            (
                "cluster_rooms_owned",
                "Rooms whose home this node is",
                count(gauges.rooms),
            ),
            (
                "cluster_link_kept_bytes",
                "Bytes for other nodes that wait",
                count(gauges.link_bytes + self.0.waiting_bytes()),
            ),
        ] {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)?;
        }
        let help = "What is left of the lease";
        let descriptor =
            encoder.encode_descriptor("cluster_lease_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(gauges.lease.as_secs_f64()).encode(descriptor)?;
        let help = "Connections between this node and others, by what it is to them";
        let mut family = encoder.encode_descriptor(
            "cluster_remote_connections",
            help,
            None,
            MetricType::Gauge,
        )?;
        for (side, number) in [("edge", remote.edge), ("home", remote.home)] {
            let labels = [("side", side)];
            ConstGauge::new(count(number)).encode(family.encode_family(&labels)?)?;
        }
        let help = "Links to other nodes that were reset, by what was lost";
        let mut family =
            encoder.encode_descriptor("cluster_link_resets", help, None, MetricType::Counter)?;
        for why in Reset::ALL {
            let labels = [("why", why.as_str())];
            let count = gauges.resets[*why as usize];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let help = "What this node has said to others and got of them";
        let mut family =
            encoder.encode_descriptor("cluster_frames", help, None, MetricType::Counter)?;
        let (out, inward) = self.0.frames();
        for (direction, count) in [("out", out), ("in", inward)] {
            let labels = [("direction", direction)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let help = "How long Redis takes to answer a command or a pipeline";
        let descriptor = encoder.encode_descriptor(
            "cluster_redis_seconds",
            help,
            None,
            MetricType::Histogram,
        )?;
        self.0.redis_seconds().encode(descriptor)?;
        for (name, help, value) in [
            (
                "cluster_takeovers",
                "Rooms taken over with their members",
                gauges.takeovers,
            ),
            (
                "cluster_yields",
                "Rooms dropped as another node has them",
                gauges.yields,
            ),
            (
                "cluster_handovers",
                "Rooms given to other nodes in order",
                gauges.handovers,
            ),
            (
                "cluster_redis_reconnects",
                "Connections to Redis after the first",
                reconnects,
            ),
        ] {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(descriptor)?;
        }
        Ok(())
    }
}
