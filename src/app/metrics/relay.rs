//! What the relay counts, as metrics.

use crate::relay::engine::{AllocationView, Transport};
use crate::relay::{RelayHandle, RelayStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// One look at a running relay.
#[derive(Debug)]
pub(super) struct Relaying {
    stats: RelayStats,
    allocations: Vec<AllocationView>,
}

impl Relaying {
    /// Asks the workers; `None` once they are closed.
    pub(super) async fn look(relay: &RelayHandle) -> Option<Self> {
        let stats = relay.stats().await?;
        Some(Self {
            stats,
            allocations: relay.allocations().await,
        })
    }
}

impl Collector for Relaying {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.gauges(&mut encoder)?;
        self.traffic(&mut encoder)?;
        let engine = &self.stats.engine;
        let refused = engine
            .refused
            .iter()
            .map(|(name, n)| (name.trim_start_matches("code_"), n));
        family(
            &mut encoder,
            "relay_refused",
            "Error responses, by STUN code",
            "code",
            refused,
        )?;
        let io = &self.stats.io;
        let shell = [
            ("send_buffer", io.send_blocked),
            ("hand_over", io.hand_over_full),
            ("slow_reader", io.slow_reader),
        ];
        let dropped = engine.dropped.iter().chain(shell);
        family(
            &mut encoder,
            "relay_dropped",
            "Datagrams thrown away, by cause",
            "cause",
            dropped,
        )?;
        let errors = [
            ("receive", io.receive_errors),
            ("send", io.send_errors),
            ("icmp", io.icmp_errors),
            ("gso_refused", io.gso_refused),
        ];
        family(
            &mut encoder,
            "relay_socket_errors",
            "Errors of sockets, by kind",
            "kind",
            errors,
        )?;
        for (name, help, value) in [
            (
                "relay_bindings",
                "Binding requests answered",
                engine.bindings,
            ),
            (
                "relay_requests",
                "Successful requests other than Binding",
                engine.requests,
            ),
            (
                "relay_allocations_opened",
                "Allocations made",
                engine.allocations_opened,
            ),
            (
                "relay_allocations_closed",
                "Allocations gone",
                engine.allocations_closed,
            ),
            (
                "relay_policy_denials",
                "Peers refused by policy",
                engine.policy_denials,
            ),
            (
                "relay_streams_refused",
                "TCP and TLS connections ended by the box",
                io.streams_refused,
            ),
            (
                "relay_offloaded_sends",
                "Sends that carried several datagrams",
                io.gso_sends,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

impl Relaying {
    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Living allocations, by transport of the client and family of the relay";
        let mut gauge =
            encoder.encode_descriptor("relay_allocations", help, None, MetricType::Gauge)?;
        for (transport, name) in [
            (Transport::Udp, "udp"),
            (Transport::Tcp, "tcp"),
            (Transport::Tls, "tls"),
        ] {
            for (family, ipv4) in [("ipv4", true), ("ipv6", false)] {
                let count = self
                    .allocations
                    .iter()
                    .filter(|a| a.five_tuple.transport == transport)
                    .filter(|a| a.relayed.iter().any(|address| address.is_ipv4() == ipv4))
                    .count();
                let labels = [("family", family), ("transport", name)];
                let value = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
                value.encode(gauge.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in [
            (
                "relay_streams",
                "Living TCP and TLS connections",
                self.stats.streams as i64,
            ),
            (
                "relay_gso",
                "Whether the kernel sends bursts (GSO)",
                self.stats.offload.gso.into(),
            ),
            (
                "relay_gro",
                "Whether the kernel receives bursts",
                self.stats.offload.gro.into(),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }

    fn traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let engine = &self.stats.engine;
        let flows = [
            ("to_peers", engine.to_peers),
            ("to_clients", engine.to_clients),
            ("hairpin", engine.hairpinned),
        ];
        let packets = flows.map(|(path, flow)| (path, flow.packets));
        family(
            encoder,
            "relay_packets",
            "Payloads relayed, by path",
            "path",
            packets,
        )?;
        let bytes = flows.map(|(path, flow)| (path, flow.bytes));
        family(
            encoder,
            "relay_bytes",
            "Bytes of payload relayed, by path",
            "path",
            bytes,
        )
    }
}

fn family<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    counts: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in counts {
        ConstCounter::new(count).encode(counter.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}
