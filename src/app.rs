//! The composition root: the only place where signaling meets the relay.

mod banner;
mod hooks;
mod ice_urls;
mod listeners;
mod metrics;
mod relay;
mod reload;
mod revocations;
mod settings;

pub use banner::Banner;

use self::hooks::Hooks;
use crate::auth::credential::IceIssuer;
use crate::clock;
use crate::config::{Config, Mode};
use crate::http::{self, Access, AdminToken, AppState, Phase};
use crate::net::{
    self, AddressChanges, Announced, CertStore, ConnectionCaps, Connections, Inherited, Names,
};
use crate::relay::RelayHandle;
use crate::relay::engine::is_public;
use crate::signal::Driver;
use anyhow::{Context as _, Result};
use ice_urls::{IceUrlBuilder, IceUrls};
use listeners::{Behind, Certificates, StopSignals, TcpListeners, TurnHandler};
use reload::Reloader;
use revocations::RevocationLog;
use secrecy::ExposeSecret;
use settings::{compat_settings, connection_limits, connection_settings, hub_settings};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// How often a box that drains looks whether its last allocation is gone.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long clients may take to hear the goodbye of a box that ends: what a session gives them, and
/// some more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A running box. Dropping it ends everything at once; [`App::drain`] ends it politely.
pub struct App {
    driver: Arc<Driver>,
    relay: Option<Arc<RelayHandle>>,
    /// Where what the relay revokes is written down, if anywhere.
    revocations: Option<Arc<Mutex<RevocationLog>>>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    /// Listeners that systemd holds too stop accepting when this turns true.
    stop_inherited: watch::Sender<bool>,
    /// Rung when the admin API asks for a drain.
    drain_asked: Arc<Notify>,
    reloader: Reloader,
    tasks: JoinSet<()>,
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
        Self::start_with(config, Inherited::default()).await
    }

    /// As [`App::start`], on listeners that systemd bound where there are some.
    ///
    /// # Errors
    /// As [`App::start`], or what was passed fits no key.
    pub async fn start_with(config: Config, inherited: Inherited) -> Result<Self> {
        let mut names = Names::new(&config.public.addresses);
        let announced = announced(&config, &mut names).await;
        if config.turn.enabled && announced.is_empty() {
            tracing::warn!("{}", net::NO_ADDRESS);
        } else if config.turn.enabled && !announced.iter().any(|a| a.address.is_ipv4()) {
            tracing::warn!("{}", net::NO_IPV4);
        }

        let mut tasks = JoinSet::new();
        let reload = Arc::new(Notify::new());
        let certificates = Certificates::open(&config.tls)?;
        let ports = TcpListeners::bind(&config, inherited)?;
        let (http, https) = (ports.http.clone(), ports.https.clone());
        let turn = relay::bind(&config)?;
        let (udp, tcp) = (turn.udp.clone(), turn.tcp.clone());

        let served = IceUrlBuilder::new(&config, &announced, &udp, &tcp, &https);
        let shown = certificates
            .as_ref()
            .and_then(|certs| certs.store.current());
        let ice = issuer(&config, served.urls(shown.as_deref()));
        let page = banner::page_url(&config, &http, &https);
        let banner = Banner::new(&config, &http, &https, &announced, &ice);

        let connections = Connections::new(connection_caps(&config));
        let relay = match config.turn.enabled {
            true => {
                let relay = turn.start(&config, &announced, &connections);
                Some(Arc::new(relay.context("relay")?))
            }
            false => None,
        };
        // Of a secret that is made for this run, nothing is good in the next one.
        let revocations = match (&relay, crate::service::state_directory()) {
            (Some(relay), Some(folder)) if !config.turn.made_secret => {
                let log = RevocationLog::open(&folder, relay.shared(), clock::unix_now());
                let log = Arc::new(Mutex::new(log));
                tasks.spawn(revocations::follow(Arc::clone(relay), Arc::clone(&log)));
                Some(log)
            }
            _ => None,
        };
        let revoking = relay.clone();
        let longest_ttl = Arc::new(AtomicU64::new(config.turn.ttl.as_secs()));
        let longest = Arc::clone(&longest_ttl);
        let driver = Arc::new(Driver::new(
            hub_settings(&config, &page),
            ice.clone(),
            connection_limits(&config),
            Box::new(
                move |user, revoked_until, network| match (&revoking, revoked_until) {
                    (Some(relay), Some(revoked_until)) => {
                        relay.revoke_client(user, revoked_until, Some(network));
                    }
                    (Some(relay), None) => {
                        relay::revoke_all(relay, user, &longest, Some(network));
                    }
                    (None, _) => {}
                },
            ),
        ));

        let announced = watch::Sender::new(announced);
        let relays_somewhere = announced.subscribe();
        let needs_address = config.turn.enabled;
        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let (stop, stop_seen) = watch::channel(false);
        let (ice, ice_seen) = watch::channel(ice);
        let certificates = certificates.map(|certs| certs.keep(&reload, &mut tasks));
        let (stop_inherited, stop_inherited_seen) = watch::channel(false);
        let applied = watch::Sender::new(config.clone());
        let (verifier, verifier_seen) = watch::channel(config.auth.verifier.clone());
        let (admin_token, admin_seen) = watch::channel(admin_token(&config));
        let access = Access::new(verifier_seen);
        let drain_asked = Arc::new(Notify::new());
        let hooks = Hooks::new(&config);
        let context = Arc::new(AppState {
            sessions: connection_settings(&config, access.clone(), &hooks),
            access,
            ice: ice_seen,
            driver: Arc::clone(&driver),
            phase: phase_seen.clone(),
            not_ready: Box::new(move || {
                let is_nowhere = needs_address && relays_somewhere.borrow().is_empty();
                is_nowhere.then_some(("no-address", net::NO_ADDRESS))
            }),
            pages: config.http.pages,
            compat: compat_settings(&config),
            admin_token: admin_seen,
            relays: relay::admin(relay.clone(), Arc::clone(&longest_ttl)),
            sign: signer(applied.subscribe()),
            page: page.clone(),
            drain: Arc::clone(&drain_asked),
            scrape: metrics::scraper(metrics::Sources {
                driver: Arc::clone(&driver),
                relay: relay.clone(),
                certificates: certificates.clone(),
                phase: phase_seen,
                config: applied.subscribe(),
                names: Arc::clone(&names.counters),
                connections: Arc::clone(&connections),
            }),
        });
        let timers = Arc::clone(&driver);
        tasks.spawn(async move { timers.run_timers().await });
        let shown = match &certificates {
            Some(store) => store.watch(),
            None => watch::channel(None).1,
        };
        tasks.spawn(served.follow(shown, announced.subscribe(), ice.clone()));
        tasks.spawn(follow_addresses(&config, names, announced.clone()));
        let turn_handler = relay.clone().map(|relay| -> TurnHandler {
            Arc::new(move |accepted| relay::serve_turn_stream(&relay, accepted))
        });
        let ends = StopSignals {
            stop: stop_seen,
            drain: stop_inherited_seen,
        };
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
        let reloader = Reloader {
            config: applied,
            verifier,
            admin_token,
            ice,
            page,
            announced,
            longest_ttl,
            connections,
            certificates: reload,
            hooks,
        };
        tasks.spawn(reloader.follow(Arc::clone(&driver), relay.clone()));
        phase.send_replace(Phase::Ready);
        Ok(Self {
            driver,
            relay,
            revocations,
            phase,
            stop,
            stop_inherited,
            drain_asked,
            reloader,
            tasks,
            http,
            https,
            certificates,
            udp,
            tcp,
            banner,
        })
    }

    /// Takes over what of `config` can change while the box runs, and has certificate files read
    /// again. Returns the keys whose new values wait for a restart.
    pub fn reload(&self, config: Config) -> Vec<String> {
        self.reloader.apply(config)
    }

    /// Reads certificate files again without waiting for the next look at them.
    pub fn reload_certificates(&self) {
        self.reloader.reload_certificates();
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

    /// Comes back when the admin API asks for a drain.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// How long a drain waits for calls to end.
    pub fn grace(&self) -> Duration {
        self.reloader.grace()
    }

    /// Refuses newcomers, tells everybody, and returns once the last connection and the last
    /// allocation are gone or the grace has ended.
    pub async fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
        self.stop_inherited.send_replace(true);
        if let Some(relay) = &self.relay {
            relay.drain();
        }
        let grace_ends = Instant::now() + self.grace();
        self.driver.drain(grace_ends, self.reloader.has_alternate());
        let empty = async {
            self.driver.empty().await;
            // Those of other programs, which have no connection here, live as long as they are used.
            while let Some(relay) = &self.relay
                && !relay.allocations().await.is_empty()
            {
                tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout_at(grace_ends.into(), empty).await;
    }

    /// Comes back once a part of the box has ended by itself, so that the box had better be started
    /// anew: clients of a relay worker that is gone would be refused for ever.
    pub async fn failed(&self) {
        match &self.relay {
            Some(relay) => relay.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Says goodbye to whoever is still there and closes every listener, then the relay.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.driver.end();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.driver.empty()).await;
        self.tasks.shutdown().await;
        if let Some(relay) = &self.relay {
            if let Some(log) = &self.revocations {
                revocations::append(relay, log).await;
            }
            relay.close();
        }
    }
}

/// The issuer of a box that runs by `config`, without binding a port: one of port 0 is left out.
pub async fn ice_issuer(config: &Config) -> IceIssuer {
    let fixed = |addresses: &[SocketAddr]| -> Vec<SocketAddr> {
        let fixed = addresses.iter().filter(|address| address.port() != 0);
        fixed.copied().collect()
    };
    let (udp, tcp) = (
        fixed(&config.turn.udp.addresses),
        fixed(&config.turn.tcp.addresses),
    );
    let tls = fixed(&config.tls.listen);
    let announced = announced(config, &mut Names::new(&config.public.addresses)).await;
    let served = IceUrlBuilder::new(config, &announced, &udp, &tcp, &tls);
    let certificates = Certificates::open(&config.tls).ok().flatten();
    let shown = certificates.and_then(|certs| certs.store.current());
    issuer(config, served.urls(shown.as_deref()))
}

async fn announced(config: &Config, names: &mut Names) -> Vec<Announced> {
    net::discover(&config.public, names, config.loopback, is_public).await
}

/// Keeps `announced` at the addresses that this machine has and that names lead to.
fn follow_addresses(
    config: &Config,
    names: Names,
    announced: watch::Sender<Vec<Announced>>,
) -> impl Future<Output = ()> + use<> {
    let (public, loopback) = (config.public.clone(), config.loopback);
    async move {
        if loopback {
            return;
        }
        let find: net::Find = Box::new(move |names, before| {
            let public = public.clone();
            Box::pin(async move { net::rediscover(&public, names, before, is_public).await })
        });
        let changes = AddressChanges::subscribe();
        names.follow(announced, changes, find).await;
    }
}

fn issuer(config: &Config, urls: IceUrls) -> IceIssuer {
    IceIssuer {
        stun_urls: urls.stun,
        turn_urls: urls.turn,
        secrets: config.turn.secrets.clone(),
        ttl: config.turn.ttl,
    }
}

/// Signs with the key of the configuration that applies.
fn signer(config: watch::Receiver<Config>) -> http::Sign {
    Box::new(move |bearer, now, ttl| {
        let config = config.borrow();
        let signer = config.auth.signer.as_ref()?;
        Some(signer.sign(bearer, now, ttl))
    })
}

fn admin_token(config: &Config) -> Option<AdminToken> {
    let token = config.auth.admin_token.as_ref()?;
    Some(AdminToken::new(token.expose_secret()))
}

/// What a process with the descriptors that shells give by default does not reach.
const FEW_CONNECTIONS: u32 = 1_000;

/// `signal.connections_per_ip` and `signal.max_connections` bound TCP connections of every kind; the
/// latter no further than the process has descriptors.
fn connection_caps(config: &Config) -> ConnectionCaps {
    let relays = match config.turn.enabled {
        true => config.turn.total_quota,
        false => 0,
    };
    let budget = net::connection_budget(relays);
    let wanted = config.signal.max_connections;
    if budget < wanted.min(FEW_CONNECTIONS) {
        tracing::warn!(
            "descriptors suffice for {budget} connections beside relays, not for the {wanted} of \
             signal.max_connections: raise LimitNOFILE of the unit (`ulimit -Hn` in a shell)"
        );
    }
    ConnectionCaps {
        per_network: config.signal.connections_per_ip,
        total: wanted.min(budget),
    }
}

/// What a mode means, in words.
fn mode_in_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => "open: anyone who reaches it may join, under any name",
        Mode::Jwt => "jwt: a signed token is asked for",
    }
}

#[cfg(test)]
impl App {
    /// A box for one test, with one relay worker.
    pub(crate) async fn on_free_ports() -> Self {
        let free = ["HTTP__LISTEN", "TURN__UDP", "TURN__TCP"].map(|key| (key, "127.0.0.1:0"));
        let env = free.into_iter().chain([("TURN__WORKERS", "1")]);
        let env = env.map(|(key, value)| (format!("CALLBOX_{key}"), value.to_owned()));
        Self::start(Config::load(None, env).unwrap()).await.unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
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
