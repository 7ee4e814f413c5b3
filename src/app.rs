//! The composition root: the only place where signaling meets the relay.

mod addresses;
mod banner;
mod cluster;
mod denied;
mod ending;
mod events;
pub mod handover;
mod hooks;
mod ice_urls;
mod key_files;
mod listeners;
mod metrics;
mod offline;
mod relay;
mod relay_owners;
mod reload;
mod revocations;
mod settings;
mod usage;

pub use banner::Banner;
pub use cluster::{Finding, Misfit, StoreLook, look_at_store};
pub(crate) use hooks::unreachable_backends;
pub use offline::ice_issuer;

use self::denied::Denied;
use self::hooks::Hooks;
use self::relay_owners::RelayOwners;
use crate::clock;
use crate::cluster::shell::Cluster;
use crate::config::Config;
use crate::http::{Access, AppState, Carried, Phase};
use crate::net::https::system_trust;
use crate::net::{self, CertStore, Connections, Inherited, Names, RemoteKeys};
use crate::relay::RelayHandle;
use crate::signal::Driver;
use addresses::{announced, follow_addresses};
use anyhow::Result;
use handover::{Adopted, Blackouts, Counting, HeldListener};
use ice_urls::{IceUrlBuilder, issuer};
use listeners::{Behind, Certificates, StopSignals, TcpListeners, TurnHandler};
use reload::Reloader;
use revocations::RevocationLog;
use settings::{
    admin_token, application, compat_settings, connection_caps, connection_limits,
    connection_settings, hub_settings, people, show_addresses, signer,
};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use usage::Usage;

/// A running box. Dropping it ends everything at once; [`App::drain`] ends it politely.
pub struct App {
    driver: Arc<Driver>,
    relay: Option<Arc<RelayHandle>>,
    /// Where what the relay revokes is written down, if anywhere.
    revocations: Option<Arc<Mutex<RevocationLog>>>,
    /// What was relayed this month.
    usage: Option<Arc<Usage>>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    /// Listeners that systemd holds too stop accepting when this turns true.
    stop_inherited: watch::Sender<bool>,
    /// Rung when the admin API asks for a drain.
    drain_asked: Arc<Notify>,
    reloader: Arc<Reloader>,
    tasks: JoinSet<()>,
    /// Listeners of HTTP once more, for a successor.
    listeners: Vec<HeldListener>,
    blackouts: Blackouts,
    counting: Counting,
    /// This box as a node of a cluster.
    cluster: Option<Arc<Cluster>>,
    /// Where HTTP and WebSocket listen.
    pub http: Vec<SocketAddr>,
    /// Where HTTPS, secure WebSocket and TURN over TLS listen.
    pub https: Vec<SocketAddr>,
    /// What the TLS port shows.
    pub certificates: Option<Arc<CertStore>>,
    /// Where STUN and TURN listen over UDP.
    pub udp: Vec<SocketAddr>,
    /// Where STUN and TURN listen over TCP.
    pub tcp: Vec<SocketAddr>,
    /// What to tell the operator.
    pub banner: Banner,
}

impl App {
    /// Binds every listener and starts serving.
    ///
    /// # Errors
    /// A listener cannot be bound, or no address can be announced; the message names the fix.
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_with(config, Inherited::default(), None).await
    }

    /// As [`App::start`], on listeners that systemd bound where there are some, and on what an
    /// earlier process has left if it has.
    ///
    /// # Errors
    /// As [`App::start`], or what was passed fits no key.
    pub async fn start_with(
        mut config: Config,
        inherited: Inherited,
        mut adopted: Option<Adopted>,
    ) -> Result<Self> {
        let mut names = Names::new(&config.public.addresses);
        let mut arrival = handover::Arrival::of(adopted.as_mut(), &mut config, inherited);
        let announced = match arrival.announced.take() {
            Some(announced) => announced,
            None => announced(&config, &mut names).await,
        };
        if config.turn.enabled && announced.is_empty() {
            tracing::warn!("{}", net::NO_ADDRESS);
        } else if config.turn.enabled && !announced.iter().any(|a| a.address.is_ipv4()) {
            tracing::warn!("{}", net::NO_IPV4);
        }

        let mut tasks = JoinSet::new();
        let reload = Arc::new(Notify::new());
        let connections = Connections::new(connection_caps(&config));
        listeners::close_unnamed(&config, &mut arrival.inherited);
        let relay = arrival.relay.take();
        let relay = relay::start(&config, &announced, &connections, relay)?;
        let is_restored = relay.restored.is_some();
        let blackouts = arrival.relay_serves(relay.restored);
        let relay::Started {
            relay, udp, tcp, ..
        } = relay;
        let certificates = Certificates::open(&config.tls)?;
        let mut ports = TcpListeners::bind(&config, arrival.inherited)?;
        let listeners = std::mem::take(&mut ports.held);
        let (http, https) = (ports.http.clone(), ports.https.clone());

        let served = IceUrlBuilder::new(&config, &announced, &udp, &tcp, &https);
        let shown = certificates
            .as_ref()
            .and_then(|certs| certs.store.current());
        let ice = issuer(&config, served.urls(shown.as_deref()));
        let page = banner::page_url(&config, &http, &https);
        let banner = Banner::new(&config, &http, &https, &announced, &ice);

        // Of a secret that is made for this run, nothing is good in the next one.
        let revocations = match (&relay, crate::service::state_directory()) {
            (Some(relay), Some(folder)) if !config.turn.made_secret => {
                let read_at = (!is_restored).then(clock::unix_now);
                let log = RevocationLog::open(&folder, relay.shared(), read_at);
                let log = Arc::new(Mutex::new(log));
                tasks.spawn(revocations::follow(Arc::clone(relay), Arc::clone(&log)));
                Some(log)
            }
            _ => None,
        };
        let longest_ttl = Arc::new(AtomicU64::new(
            config.turn.ttl.as_secs().max(arrival.longest_ttl),
        ));
        let cell = cluster::Cell::default();
        let on_revoke = || cluster::on_revoke(relay.clone(), &longest_ttl, &cell);
        let (driver, arrived) = handover::Arrival::driver(
            adopted.as_mut(),
            hub_settings(&config, &page),
            ice.clone(),
            connection_limits(&config),
            on_revoke,
        );

        let node = cluster::start(&config, &driver, relay.as_ref(), &cell, &mut tasks).await?;
        let registering = node.clone();
        let announced = watch::Sender::new(announced);
        let relays_somewhere = announced.subscribe();
        let away = served.away();
        let keys = RemoteKeys::new(config.auth.jwks_url.clone(), Arc::new(system_trust));
        let (needs_address, awaited) = (config.turn.enabled, keys.clone());
        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let (stop, stop_seen) = watch::channel(false);
        let (ice, ice_seen) = watch::channel(ice);
        let certificates = certificates.map(|certs| certs.keep(&reload, &mut tasks));
        let (stop_inherited, stop_inherited_seen) = watch::channel(false);
        let applied = watch::Sender::new(config.clone());
        let (verifier, verifier_seen) = watch::channel(config.auth.verifier.clone());
        let (admin_token, admin_seen) = watch::channel(admin_token(&config));
        let access = Access::new(verifier_seen, keys.clone());
        tasks.spawn(keys.clone().run());
        let drain_asked = Arc::new(Notify::new());
        let denied = Denied::new(
            config.denied_clients.clone(),
            &connections,
            &driver,
            relay.as_ref(),
        );
        let kept = std::mem::take(&mut arrival.kept);
        denied.restore(kept.denied);
        cluster::share(&denied, &cell);
        tasks.spawn(Arc::clone(&denied).expire());
        show_addresses(&config);
        let hooks = Hooks::new(&config);
        let owners = Arc::new(RelayOwners::default());
        events::connect(&hooks.events, &driver, &owners);
        tasks.spawn(Arc::clone(&owners).follow(Arc::clone(&driver)));
        let usage = relay.as_ref().map(|relay| {
            let usage = Usage::open(relay, applied.subscribe(), kept.usage.as_deref());
            tasks.spawn(Arc::clone(&usage).follow());
            relay.observe(events::on_allocation(&hooks.events, &owners, &usage));
            if adopted.is_some() && hooks.events.is_wanted() {
                let (owners, relay) = (Arc::clone(&owners), Arc::clone(relay));
                tasks.spawn(async move { owners.adopt(|| relay.allocations()).await });
            }
            usage
        });
        // Each goes before what there is.
        hooks.events.restore(kept.late_events);
        hooks.events.restore(kept.events);
        let counting = Counting(Arc::clone(&connections), Arc::clone(&names.counters));
        (kept.counted).restore(&hooks, &counting, certificates.as_deref());
        tasks.spawn(hooks.deliver());
        tasks.spawn(events::follow_warnings(hooks.events.clone()));
        let context = Arc::new(AppState {
            sessions: connection_settings(&config, access.clone(), &hooks),
            access,
            ice: ice_seen,
            nat_urls: ice_urls::nat_urls(&config, announced.subscribe(), &udp),
            driver: Arc::clone(&driver),
            phase: phase_seen.clone(),
            not_ready: Box::new(move || {
                if needs_address && relays_somewhere.borrow().is_empty() {
                    return Some(("no-address", net::NO_ADDRESS.into()));
                }
                if let Some(reason) = &*away.borrow() {
                    return Some(("no-address", reason.to_string().into()));
                }
                let awaited = awaited.are_awaited().then_some(("no-keys", net::NO_KEYS));
                let reason = awaited.or_else(|| cluster::not_ready(registering.as_ref()));
                reason.map(|(code, detail)| (code, detail.into()))
            }),
            pages: config.http.pages,
            root: application(&config)?,
            carried: Carried::default(),
            idle: config.signal.resume_window.0,
            compat: compat_settings(&config),
            admin_token: admin_seen,
            relays: cluster::admin(relay.clone(), &longest_ttl, &cell, applied.subscribe()),
            nodes: cluster::nodes(&config, &driver, &cell),
            sign: signer(applied.subscribe()),
            people: people(applied.subscribe()),
            page: page.clone(),
            local_page: banner::local_page_url(&config, &http),
            drain: Arc::clone(&drain_asked),
            denied: denied.admin(),
            usage: Usage::query(usage.clone()),
            events: events::listen(&hooks.events, &driver),
            scrape: metrics::scraper(metrics::Sources {
                driver: Arc::clone(&driver),
                relay: relay.clone(),
                certificates: certificates.clone(),
                phase: phase_seen,
                config: applied.subscribe(),
                names: Arc::clone(&names.counters),
                connections: Arc::clone(&connections),
                hooks: hooks.clone(),
                usage: usage.clone(),
                blackouts: blackouts.clone(),
                cluster: node.clone(),
            }),
        });
        cell.serve(&context, applied.subscribe());
        let admit = relay::admission(&connections);
        for connection in arrived {
            connection.resume(&context, &admit);
        }
        let timers = Arc::clone(&driver);
        tasks.spawn(async move { timers.run_timers().await });
        let shown = match &certificates {
            Some(store) => store.watch(),
            None => watch::channel(None).1,
        };
        tasks.spawn(served.follow(shown, announced.subscribe(), ice.clone()));
        let turn_handler = relay.clone().map(|relay| -> TurnHandler {
            Arc::new(move |accepted| relay::serve_turn_stream(&relay, accepted))
        });
        let ends = StopSignals {
            stop: stop_seen,
            drain: stop_inherited_seen,
        };
        // Clients that have waited in the queue of a listener are served at once.
        phase.send_replace(Phase::Ready);
        ports.serve(
            &config,
            &Behind {
                context,
                certificates: certificates.clone(),
                turn: turn_handler,
                connections: Arc::clone(&connections),
            },
            &ends,
            &mut tasks,
        )?;
        let reloader = Arc::new(Reloader {
            config: applied,
            keys,
            verifier,
            admin_token,
            ice,
            page,
            announced,
            longest_ttl,
            connections,
            certificates: reload,
            denied: Some(denied),
            hooks,
        });
        tasks.spawn(key_files::follow(Arc::clone(&reloader)));
        tasks.spawn(reloader.follow(Arc::clone(&driver), relay.clone(), kept.logins));
        // Behind all that follow the addresses: those of an earlier process may change at once.
        let handed_over = adopted.is_some();
        tasks.spawn(follow_addresses(
            &config,
            names,
            reloader.announced.clone(),
            handed_over,
        ));
        reloader.hooks.node("node-ready");
        Ok(Self {
            driver,
            relay,
            revocations,
            usage,
            phase,
            stop,
            stop_inherited,
            drain_asked,
            reloader,
            tasks,
            listeners,
            blackouts,
            counting,
            cluster: node,
            http,
            https,
            certificates,
            udp,
            tcp,
            banner,
        })
    }

    /// What goes on, in one line. It comes back only while signaling and every relay worker move:
    /// the watchdog waits for it.
    pub async fn status(&self) -> String {
        let phase = match *self.phase.borrow() {
            Phase::Draining => "draining",
            _ => "serving",
        };
        let gauges = self.driver.with_hub(|hub, _, _| hub.gauges());
        let (peers, rooms) = (gauges.peers, gauges.rooms);
        let relayed = match &self.relay {
            Some(relay) => {
                relay.stats().await;
                relay.shared().allocations()
            }
            None => 0,
        };
        format!("{phase}: {peers} peers in {rooms} rooms, {relayed} allocations")
    }
}

#[cfg(test)]
impl App {
    /// A box for one test, with one relay worker.
    pub(crate) async fn on_free_ports() -> Self {
        Self::start(Self::config_on_free_ports()).await.unwrap()
    }

    fn config_on_free_ports() -> Config {
        let free = ["HTTP__LISTEN", "TURN__UDP", "TURN__TCP"].map(|key| (key, "127.0.0.1:0"));
        let env = free.into_iter().chain([("TURN__WORKERS", "1")]);
        let env = env.map(|(key, value)| (format!("CALLBOX_{key}"), value.to_owned()));
        Config::load(None, env).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn the_watchdog_is_not_fed_while_a_relay_worker_hangs() {
        let app = App::on_free_ports().await;
        let (free, hung) = std::sync::mpsc::channel::<()>();
        let relay = app.relay.as_ref().unwrap();
        relay.run_on_worker(move || {
            let _ = hung.recv();
        });
        let status = app.status();
        tokio::pin!(status);
        let waited = timeout(Duration::from_millis(300), &mut status).await;
        assert!(waited.is_err());
        drop(free);
        let status = timeout(Duration::from_secs(20), status).await;
        assert!(status.unwrap().starts_with("serving"));
    }

    #[tokio::test]
    async fn a_relay_worker_that_panics_is_the_end_of_the_box() {
        let app = App::on_free_ports().await;
        assert_eq!(app.failed().now_or_never(), None);
        let relay = app.relay.as_ref().unwrap();
        relay.run_on_worker(|| panic!("what no input should bring about"));
        let told = timeout(Duration::from_secs(20), app.failed()).await;
        assert!(told.is_ok());
        app.stop().await;
    }
}
