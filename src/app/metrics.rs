//! `/metrics`: what signaling and the relay count, gathered at each scrape.

mod certificates;
mod cluster;
mod handover;
mod hooks;
mod process;
mod relay;
mod reports;
mod tcp;

use super::handover::Blackouts;
use super::hooks::Hooks;
use super::usage::Usage;
use crate::clock::unix_now;
use crate::cluster::shell::Cluster;
use crate::config::Config;
use crate::http::{AsyncQuery, Phase};
use crate::net::{CertStore, Connections, NameCounters};
use crate::protocol::DialectKind;
use crate::relay::RelayHandle;
use crate::signal::hub::{Counters, Gauges};
use crate::signal::{Driver, SentByType};
use certificates::Certificates;
use handover::Handovers;
use process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use relay::Relaying;
use std::fmt;
use std::sync::Arc;
use tcp::Tcp;
use tokio::sync::watch;

/// What is looked at for each scrape.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) driver: Arc<Driver>,
    pub(super) relay: Option<Arc<RelayHandle>>,
    pub(super) certificates: Option<Arc<CertStore>>,
    pub(super) phase: watch::Receiver<Phase>,
    /// For the limits that gauges approach.
    pub(super) config: watch::Receiver<Config>,
    pub(super) names: Arc<NameCounters>,
    pub(super) connections: Arc<Connections>,
    pub(super) hooks: Hooks,
    pub(super) usage: Option<Arc<Usage>>,
    pub(super) blackouts: Blackouts,
    pub(super) cluster: Option<Arc<Cluster>>,
}

/// Makes the function that renders everything.
pub(super) fn scraper(sources: Sources) -> AsyncQuery<String> {
    let started = unix_now();
    Box::new(move || {
        let sources = sources.clone();
        Box::pin(async move {
            let relaying = match &sources.relay {
                Some(relay) => Some(Relaying::look(relay).await),
                None => None,
            };
            render(sources, relaying, Process { started })
        })
    })
}

fn render(sources: Sources, relaying: Option<Relaying>, process: Process) -> String {
    let driver = &sources.driver;
    let (counters, gauges) = driver.with_hub(|hub, _, _| (hub.counters().clone(), hub.gauges()));
    let stats = driver.stats();
    let mut registry = Registry::with_prefix("callbox");
    registry.register_collector(Box::new(Overview {
        is_ready: *sources.phase.borrow() == Phase::Ready,
        limits: Limits::of(&sources.config.borrow()),
        month_bytes: sources.usage.map_or(0, |usage| usage.total()),
        budget: sources.config.borrow().turn.budget.total.unwrap_or(0),
        names: sources.names,
    }));
    registry.register_collector(Box::new(Tcp(sources.connections)));
    registry.register_collector(Box::new(hooks::Backend {
        authorizer: sources.hooks.authorizer,
        events: sources.hooks.events,
    }));
    registry.register_collector(Box::new(Handovers(sources.blackouts)));
    registry.register_collector(Box::new(Signaling {
        counters,
        gauges,
        sent: driver.sent(),
        driver: Arc::clone(driver),
    }));
    if let Some(node) = sources.cluster {
        registry.register_collector(Box::new(cluster::Node(node, driver.remote())));
    }
    if let Some(relaying) = relaying {
        registry.register_collector(Box::new(relaying));
    }
    if let Some(store) = sources.certificates {
        registry.register_collector(Box::new(Certificates(store)));
    }
    let signal = registry.sub_registry_with_prefix("signal");
    signal.register(
        "join_latency_seconds",
        "From a connection's upgrade to its first joined or registered",
        stats.join_latency.clone(),
    );
    signal.register(
        "connections_refused",
        "Connections refused before their upgrade",
        stats.refused.clone(),
    );
    signal.register(
        "slow_consumers",
        "Connections closed because they did not read",
        stats.slow_consumers.clone(),
    );
    for (name, help, histogram) in [
        (
            "report_connect_seconds",
            "Until the first media between two peers, as clients report",
            &stats.reports.connect,
        ),
        (
            "report_round_trip_seconds",
            "Round trips between two peers, as clients report",
            &stats.reports.round_trip,
        ),
        (
            "report_loss_ratio",
            "Share of packets lost between two peers, as clients report",
            &stats.reports.loss,
        ),
    ] {
        signal.register(name, help, histogram.clone());
    }
    registry.register_collector(Box::new(reports::Outcomes(Arc::clone(driver))));
    let signal = registry.sub_registry_with_prefix("signal");
    signal.register(
        "outbox_high_water_bytes",
        "The most bytes that ever waited for one connection",
        stats.outbox_high_water.clone(),
    );
    let mut plain = Registry::default();
    plain.register_collector(Box::new(process));
    let mut out = String::new();
    text::encode_registry(&mut out, &plain)
        .and_then(|()| text::encode(&mut out, &registry))
        .expect("writing to a String succeeds");
    out
}

/// Caps of the configuration that applies.
#[derive(Debug)]
struct Limits {
    connections: u32,
    rooms: u32,
    allocations: u32,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Self {
            connections: config.signal.max_connections,
            rooms: config.rooms.max_rooms,
            allocations: config.turn.total_quota,
        }
    }
}

#[derive(Debug)]
struct Overview {
    is_ready: bool,
    limits: Limits,
    /// Relayed this month.
    month_bytes: u64,
    /// `turn.budget.total`; 0: there is none.
    budget: u64,
    names: Arc<NameCounters>,
}

impl Collector for Overview {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (gauge, help) = (MetricType::Gauge, "Always 1; the labels tell the version");
        let mut family = encoder.encode_descriptor("build_info", help, None, gauge)?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1u32).encode(family.encode_family(&labels)?)?;
        for (name, help, value) in [
            (
                "ready",
                "Whether newcomers are served: 0 while starting and draining",
                self.is_ready.into(),
            ),
            (
                "signal_connections_max",
                "signal.max_connections",
                self.limits.connections,
            ),
            ("signal_rooms_max", "rooms.max_rooms", self.limits.rooms),
            (
                "relay_allocations_max",
                "turn.total_quota",
                self.limits.allocations,
            ),
        ] {
            let value = ConstGauge::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, value) in [
            (
                "relay_month_bytes",
                "Bytes relayed this month (UTC), as of the last look",
                self.month_bytes,
            ),
            (
                "relay_budget_bytes",
                "turn.budget.total; 0 where there is none",
                self.budget,
            ),
        ] {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, value) in [
            (
                "public_address_changes",
                "Times that a name of public.address led to another address",
                self.names.changes(),
            ),
            (
                "public_address_lookup_failures",
                "Lookups of names of public.address that brought no address",
                self.names.failures(),
            ),
        ] {
            let value = ConstCounter::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

struct Signaling {
    counters: Counters,
    gauges: Gauges,
    sent: SentByType,
    driver: Arc<Driver>,
}

impl fmt::Debug for Signaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signaling").finish_non_exhaustive()
    }
}

impl Signaling {
    fn dialects(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.driver.stats();
        let foreign = || DialectKind::ALL.iter().filter(|kind| kind.is_counted());
        let help = "Open connections of foreign protocols";
        let gauge = MetricType::Gauge;
        let mut family =
            encoder.encode_descriptor("signal_dialect_connections", help, None, gauge)?;
        for kind in foreign() {
            let labels = [("dialect", kind.as_str())];
            let value = ConstGauge::new(stats.of(*kind).connections.get());
            value.encode(family.encode_family(&labels)?)?;
        }
        let help = "Messages of foreign protocols by direction";
        let counter = MetricType::Counter;
        let mut family =
            encoder.encode_descriptor("signal_dialect_messages", help, None, counter)?;
        for kind in foreign() {
            let of = stats.of(*kind);
            for (direction, count) in [("received", &of.received), ("sent", &of.sent)] {
                let labels = [("dialect", kind.as_str()), ("direction", direction)];
                ConstCounter::new(count.get()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Signaling {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Gauges {
            connections,
            sessions,
            away,
            rooms,
            peers,
            identities,
            calls,
            ..
        } = self.gauges;
        for (name, help, value) in [
            (
                "signal_connections",
                "Open signaling connections",
                connections,
            ),
            (
                "signal_sessions",
                "Sessions, those without a connection included",
                sessions,
            ),
            (
                "signal_sessions_away",
                "Sessions without a connection",
                away,
            ),
            ("signal_rooms", "Rooms", rooms),
            ("signal_peers", "Members of rooms", peers),
            ("signal_identities", "Different identities", identities),
            ("signal_calls", "Direct calls, ringing and answered", calls),
            (
                "signal_ring_bytes",
                "Bytes kept for resumes",
                self.gauges.ring_bytes,
            ),
            ("signal_timers", "Timers set", self.gauges.timers),
            (
                "signal_topics",
                "Topics of foreign protocols with a subscriber",
                self.gauges.topics,
            ),
            (
                "signal_subscriptions",
                "Subscriptions of topics",
                self.gauges.subscriptions,
            ),
            (
                "signal_names",
                "Names that a connection of a protocol with names has",
                self.gauges.claimed_names,
            ),
            (
                "signal_parked_bytes",
                "Bytes of messages for names that nobody has yet",
                self.gauges.parked_bytes,
            ),
            (
                "signal_guessers",
                "Networks with wrong passwords of late",
                self.gauges.guessers,
            ),
        ] {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, value) in [
            (
                "signal_frames_sent",
                "Frames sent to sessions",
                self.gauges.sent,
            ),
            (
                "signal_resumes",
                "Sessions resumed on another connection",
                self.counters.resumes,
            ),
            (
                "signal_resume_gaps",
                "Resumes that had lost frames",
                self.counters.gaps,
            ),
            (
                "signal_candidates_withheld",
                "Candidates that a relay-only room kept back",
                self.counters.withheld_candidates,
            ),
            (
                "signal_clock_steps",
                "Times that the wall clock was set, upon which all credentials are renewed",
                self.counters.clock_steps,
            ),
            (
                "signal_policy_refused_messages",
                "Messages that policy.messages refused",
                self.counters.refused_messages,
            ),
            (
                "signal_policy_refused_calls",
                "Calls that policy.calls refused",
                self.counters.refused_calls,
            ),
            (
                "signal_topic_subscriptions_refused",
                "Subscriptions of foreign protocols that were refused, for want of a place or of a right",
                self.counters.refused_subscriptions,
            ),
            (
                "signal_topic_messages_refused",
                "Messages to topics that were refused, as too many or for want of a right",
                self.counters.refused_publications,
            ),
        ] {
            let value = ConstCounter::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Messages by type and direction; received ones are well-formed";
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor("signal_messages", help, None, counter)?;
        let received = self
            .counters
            .received()
            .map(|(kind, n)| ("received", kind.as_str(), n));
        let sent = self.sent.iter().map(|(kind, n)| ("sent", kind.as_str(), n));
        for (direction, kind, count) in received.chain(sent) {
            let labels = [("direction", direction), ("type", kind)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        self.dialects(&mut encoder)?;
        let help = "Errors sent, by code";
        let mut family = encoder.encode_descriptor("signal_errors", help, None, counter)?;
        for (code, count) in self.counters.refused() {
            let labels = [("code", code.as_str())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
