//! The composition root: the only place where signaling meets the relay.

mod banner;
mod ice_urls;
mod metrics;
mod relay;
mod web;

pub use banner::Banner;

use crate::auth::credential::IceIssuer;
use crate::auth::token::TokenError;
use crate::config::{Config, Mode, UniqueIdentity};
use crate::http::{self, Access, AdminToken, Context, Phase};
use crate::net::{self, Announced, CertStore};
use crate::protocol::{ErrorCode, Refusal};
use crate::relay::RelayHandle;
use crate::relay::engine::{PeerPolicy, Verdict};
use crate::signal::hub::{self, Settings};
use crate::signal::{ConnectionLimits, Driver, SessionSettings};
use anyhow::{Context as _, Result};
use ice_urls::{IceUrls, Served};
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use web::{Certificates, Ports, TakeTurn};

/// A running box. Dropping it ends everything at once; [`App::drain`] ends it politely.
pub struct App {
    driver: Arc<Driver>,
    relay: Option<Arc<RelayHandle>>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    reload: Arc<Notify>,
    tasks: JoinSet<()>,
    grace: Duration,
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
    /// A listener cannot be bound, or no address can be announced; the message names the mend.
    pub async fn start(config: Config) -> Result<Self> {
        let announced = announced(&config).await;

        let mut tasks = JoinSet::new();
        let reload = Arc::new(Notify::new());
        let certificates = Certificates::open(&config.tls)?;
        let ports = Ports::bind(&config)?;
        let (http, https) = (ports.http.clone(), ports.https.clone());
        let turn = relay::bind(&config)?;
        let (udp, tcp) = (turn.udp.clone(), turn.tcp.clone());

        let served = Served::new(&config, &announced, &udp, &tcp, &https);
        let shown = certificates
            .as_ref()
            .and_then(|certs| certs.store.current());
        let ice = issuer(&config, served.urls(shown.as_deref()));
        let banner = Banner::new(&config, &http, &https, &announced, &ice);

        let relay = match config.turn.enabled {
            true => Some(Arc::new(turn.start(&config, &announced).context("relay")?)),
            false => None,
        };
        let limits = ConnectionLimits {
            per_ip: config.signal.connections_per_ip,
            total: config.signal.max_connections,
            outbox: config.signal.outbox.0 as usize,
        };
        let revoking = relay.clone();
        let driver = Arc::new(Driver::new(
            hub_settings(&config),
            ice.clone(),
            limits,
            Box::new(move |user, floor| {
                if let Some(relay) = &revoking {
                    relay.revoke(user, floor);
                }
            }),
        ));

        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let (stop, stop_seen) = watch::channel(false);
        let (ice, ice_seen) = watch::channel(ice);
        let access = Access::new(config.auth.verifier.clone());
        let context = Arc::new(Context {
            sessions: session_settings(&config, access.clone()),
            access,
            ice: ice_seen,
            driver: Arc::clone(&driver),
            phase: phase_seen,
            pages: config.http.pages,
            admin_token: config
                .auth
                .admin_token
                .as_ref()
                .map(|token| AdminToken::new(token.expose_secret())),
            relays: relay::admin(relay.clone(), config.turn.ttl),
            scrape: metrics::scraper(Arc::clone(&driver)),
        });
        let timers = Arc::clone(&driver);
        tasks.spawn(async move { timers.run_timers().await });
        let certificates = certificates.map(|certs| certs.keep(&reload, &mut tasks));
        if let Some(store) = &certificates {
            let renewed = store.watch();
            let (driver, settings) = (Arc::clone(&driver), hub_settings(&config));
            tasks.spawn(served.follow(renewed, ice, move |ice| {
                driver.with_hub(|hub, _, _| hub.reconfigure(settings.clone(), ice));
            }));
        }
        let take_turn = relay
            .clone()
            .map(|relay| -> TakeTurn { Arc::new(move |accepted| relay::take(&relay, accepted)) });
        ports.serve(
            &config,
            &context,
            certificates.as_ref(),
            take_turn.as_ref(),
            &stop_seen,
            &mut tasks,
        );
        phase.send_replace(Phase::Ready);
        Ok(Self {
            driver,
            relay,
            phase,
            stop,
            reload,
            tasks,
            grace: config.drain_grace,
            http,
            https,
            certificates,
            udp,
            tcp,
            banner,
        })
    }

    /// Reads certificate files again without waiting for the next look at them.
    pub fn reload_certificates(&self) {
        self.reload.notify_one();
    }

    /// Refuses newcomers, tells everybody, and returns once the last connection is gone or the
    /// grace has ended.
    pub async fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
        if let Some(relay) = &self.relay {
            relay.drain();
        }
        let grace_ends = Instant::now() + self.grace;
        self.driver.drain(grace_ends, false);
        let _ = tokio::time::timeout_at(grace_ends.into(), self.driver.empty()).await;
    }

    /// Closes every listener, then the relay.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.tasks.shutdown().await;
        if let Some(relay) = &self.relay {
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
    let served = Served::new(config, &announced(config).await, &udp, &tcp, &tls);
    let certificates = Certificates::open(&config.tls).ok().flatten();
    let shown = certificates.and_then(|certs| certs.store.current());
    issuer(config, served.urls(shown.as_deref()))
}

async fn announced(config: &Config) -> Vec<Announced> {
    let judge = PeerPolicy::new(vec![], vec![], vec![]);
    let is_public = |ip| judge.judge(ip) == Verdict::Allow;
    net::discover(&config.public, config.loopback, is_public).await
}

fn issuer(config: &Config, urls: IceUrls) -> IceIssuer {
    IceIssuer {
        stun_urls: urls.stun,
        turn_urls: urls.turn,
        secrets: config.turn.secrets.clone(),
        ttl: config.turn.ttl,
    }
}

fn hub_settings(config: &Config) -> Settings {
    let (rooms, signal) = (&config.rooms, &config.signal);
    Settings {
        max_peers: rooms.max_peers,
        max_rooms: rooms.max_rooms as usize,
        unique_identity: match rooms.unique_identity {
            UniqueIdentity::Allow => hub::UniqueIdentity::Allow,
            UniqueIdentity::Replace => hub::UniqueIdentity::Replace,
            UniqueIdentity::Reject => hub::UniqueIdentity::Reject,
        },
        list_rooms: rooms.list,
        heartbeat: signal.heartbeat.0,
        resume_window: signal.resume_window.0,
        ring: signal.ring.0 as usize,
        ring_total: signal.ring_total.0 as usize,
        rate: signal.rate.0,
        candidate_rate: signal.candidate_rate.0,
        ..Settings::default()
    }
}

fn session_settings(config: &Config, access: Access) -> SessionSettings {
    SessionSettings {
        heartbeat: config.signal.heartbeat.0,
        timeout: config.signal.timeout.0,
        max_frame: config.signal.max_frame.0 as usize,
        authorize: Arc::new(move |token| {
            access.grant(token, http::unix_now()).map_err(|error| {
                let code = match error {
                    TokenError::Expired(_) => ErrorCode::TokenExpired,
                    TokenError::Refused(_) => ErrorCode::Unauthorized,
                };
                Refusal::new(code, error.to_string())
            })
        }),
    }
}

/// What a mode means, in words.
fn mode_in_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => "open: anyone who reaches it may join, under any name",
        Mode::Jwt => "jwt: a signed token is asked for",
    }
}
