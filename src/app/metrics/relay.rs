//! What the relay counts, as metrics.

use crate::relay::engine::{AllocationView, Transport};
use crate::relay::{RelayHandle, RelayStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// How long workers may take to answer: they do within one turn, and Prometheus waits ten seconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One look at a running relay.
#[derive(Debug)]
pub(super) struct Relaying {
    ports: usize,
    free_ports: usize,
    held_ports: usize,
    /// A worker did not answer. Sums without it would look like counters that began anew, so that
    /// none are given.
    is_stalled: bool,
    quota_used: u32,
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    stats: RelayStats,
    allocations: Vec<AllocationView>,
}

impl Relaying {
    /// Asks the workers.
    pub(super) async fn look(relay: &RelayHandle) -> Self {
        let seen = timeout(TIMEOUT, async {
            Some(Seen {
                stats: relay.stats().await?,
                allocations: relay.allocations().await,
            })
        });
        let seen = seen.await;
        Self {
            ports: relay.shared().ports(),
            free_ports: relay.shared().free_ports(),
            held_ports: relay.shared().held_ports(),
            is_stalled: seen.is_err(),
            quota_used: relay.shared().allocations(),
            seen: seen.ok().flatten(),
        }
    }
}

impl Collector for Relaying {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in [
            (
                "relay_ports",
                "Relay ports that there are, over both families",
                self.ports,
            ),
            (
                "relay_ports_free",
                "Relay ports that nobody holds",
                self.free_ports,
            ),
            (
                "relay_ports_held",
                "Relay ports that other programs held when they were tried last",
                self.held_ports,
            ),
            (
                "relay_quota_used",
                "Places of turn.total_quota taken: allocations and reserved ports",
                self.quota_used as usize,
            ),
            (
                "relay_stalled",
                "Whether a relay worker did not answer within two seconds",
                self.is_stalled.into(),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        match &self.seen {
            Some(seen) => seen.encode(encoder),
            None => Ok(()),
        }
    }
}

impl Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.gauges(&mut encoder)?;
        self.load(&mut encoder)?;
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
        let datagrams = [("in", io.received), ("out", io.sent)];
        family(
            &mut encoder,
            "relay_datagrams",
            "Datagrams of all relay sockets, by direction",
            "direction",
            datagrams,
        )?;
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
                "relay_auth_failures",
                "Requests with wrong, expired or revoked credentials",
                engine.auth_failures,
            ),
            (
                "relay_port_conflicts",
                "Relay ports that turned out to be held by another program",
                engine.ports_held,
            ),
            (
                "relay_pauses",
                "Pauses of workers with time to spare, in which datagrams come together (turn.coalesce)",
                io.pauses,
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

    /// CPU time by worker: its rate is the share of a core that the worker takes.
    fn load(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("relay_worker_cpu_seconds", "CPU time of each relay worker");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for worker in &self.stats.workers {
            let labels = [("worker", worker.id.0.to_string())];
            let value = ConstCounter::new(worker.cpu.as_secs_f64());
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;
    use std::sync::mpsc;

    fn render(relaying: Relaying) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(relaying));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        out
    }

    #[tokio::test]
    async fn a_worker_that_hangs_is_told_and_leaves_no_half_sums() {
        let app = App::on_free_ports().await;
        let relay = app.relay.as_ref().unwrap();
        let text = render(Relaying::look(relay).await);
        assert!(text.contains("relay_stalled 0\n"), "{text}");
        assert!(text.contains("relay_worker_cpu_seconds_total{worker=\"0\"}"));

        let (go_on, waits) = mpsc::channel::<()>();
        relay.run_on_worker(move || {
            let _ = waits.recv();
        });
        tokio::time::pause();
        let text = render(Relaying::look(relay).await);
        assert!(text.contains("relay_stalled 1\n"), "{text}");
        assert!(text.contains("relay_ports_free "), "{text}");
        assert!(!text.contains("_total"), "{text}");
        drop(go_on);
    }
}
