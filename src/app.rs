//! The composition root: the only place where signaling meets the relay.

mod banner;
mod ice_urls;
mod metrics;

pub use banner::Banner;

use crate::auth::credential::IceIssuer;
use crate::auth::token::TokenError;
use crate::config::{Config, Mode, UniqueIdentity};
use crate::http::{self, Access, AdminToken, Context, Guard, Phase, RelayAdmin};
use crate::net::{self, Announced};
use crate::protocol::{ErrorCode, Refusal};
use crate::relay::engine::{PeerPolicy, Verdict};
use crate::relay::{RelayAddress, RelayConfig, RelayHandle};
use crate::signal::hub::{self, Settings};
use crate::signal::{ConnectionLimits, Driver, SessionSettings};
use anyhow::{Context as _, Result};
use secrecy::ExposeSecret;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running box. Dropping it ends everything at once; [`App::drain`] ends it politely.
pub struct App {
    driver: Arc<Driver>,
    relay: Option<RelayHandle>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    grace: Duration,
    /// Where HTTP and WebSocket listen.
    pub http: Vec<SocketAddr>,
    /// Where STUN and TURN listen over UDP.
    pub udp: Vec<SocketAddr>,
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

        let web = bind_web(&config)?;
        let relay_sockets = if config.turn.enabled {
            bind_relay(&config)?
        } else {
            vec![]
        };
        let http = web
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        let udp = relay_sockets
            .iter()
            .map(std::net::UdpSocket::local_addr)
            .collect::<Result<Vec<_>, _>>()?;

        let ice = issuer(&config, &announced, &udp);
        let banner = Banner::new(&config, &http, &announced, &ice);

        let relay = if config.turn.enabled {
            let relay_config = relay_config(&config, &announced);
            Some(
                RelayHandle::start(relay_config, relay_sockets)
                    .await
                    .context("relay")?,
            )
        } else {
            None
        };
        let limits = ConnectionLimits {
            per_ip: config.signal.connections_per_ip,
            total: config.signal.max_connections,
            outbox: config.signal.outbox.0 as usize,
        };
        let driver = Arc::new(Driver::new(
            hub_settings(&config),
            ice.clone(),
            limits,
            Box::new(|user, floor| tracing::debug!(user, floor, "credentials are over")),
        ));

        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let (stop, stop_seen) = watch::channel(false);
        let access = Access::new(config.auth.verifier.clone());
        let context = Arc::new(Context {
            sessions: session_settings(&config, access.clone()),
            access,
            ice,
            driver: Arc::clone(&driver),
            phase: phase_seen,
            pages: config.http.pages,
            admin_token: config
                .auth
                .admin_token
                .as_ref()
                .map(|token| AdminToken::new(token.expose_secret())),
            relays: RelayAdmin {
                list: Box::new(|| Box::pin(async { vec![] })),
                revoke: Box::new(|_| {}),
            },
            scrape: metrics::scraper(Arc::clone(&driver)),
        });
        let mut tasks = JoinSet::new();
        let timers = Arc::clone(&driver);
        tasks.spawn(async move { timers.run_timers().await });
        for (listener, address) in web.into_iter().zip(&http) {
            let guard = Guard {
                public_host: config.public.host.clone(),
                allowed_origins: config.http.allowed_origins.clone(),
                trusted_proxies: config.http.trusted_proxies.clone(),
                loopback: address.ip().is_loopback(),
            };
            let router = http::router(Arc::clone(&context), guard);
            tasks.spawn(http::serve(listener, router, stop_seen.clone()));
        }
        if let Some(address) = config.metrics {
            let listener = TcpListener::from_std(net::tcp(address, "metrics.listen")?)?;
            let router = http::metrics_router(Arc::clone(&context));
            tasks.spawn(http::serve(listener, router, stop_seen));
        }
        phase.send_replace(Phase::Ready);
        Ok(Self {
            driver,
            relay,
            phase,
            stop,
            tasks,
            grace: config.drain_grace,
            http,
            udp,
            banner,
        })
    }

    /// Refuses newcomers, tells everybody, and returns once the last connection is gone or the
    /// grace has ended.
    pub async fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
        let grace_ends = Instant::now() + self.grace;
        self.driver.drain(grace_ends, false);
        let _ = tokio::time::timeout_at(grace_ends.into(), self.driver.empty()).await;
    }

    /// Closes every listener, then the relay.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.tasks.shutdown().await;
        if let Some(relay) = &self.relay {
            relay.close().await;
        }
    }
}

/// The issuer of a box that runs by `config`, without binding a port: one of port 0 is left out.
pub async fn ice_issuer(config: &Config) -> IceIssuer {
    let mut udp = config.turn.udp.addresses.clone();
    udp.retain(|address| config.turn.enabled && address.port() != 0);
    issuer(config, &announced(config).await, &udp)
}

async fn announced(config: &Config) -> Vec<Announced> {
    let judge = PeerPolicy::new(vec![], vec![], vec![]);
    let is_public = |ip| judge.judge(ip) == Verdict::Allow;
    net::discover(&config.public, config.loopback, is_public).await
}

fn issuer(config: &Config, announced: &[Announced], udp: &[SocketAddr]) -> IceIssuer {
    let urls = ice_urls::of(&config.public, announced, udp);
    IceIssuer {
        stun_urls: urls.stun,
        turn_urls: urls.turn,
        secrets: config.turn.secrets.clone(),
        ttl: config.turn.ttl,
    }
}

fn bind_web(config: &Config) -> Result<Vec<TcpListener>> {
    config
        .http
        .listen
        .iter()
        .map(|address| Ok(TcpListener::from_std(net::tcp(*address, "http.listen")?)?))
        .collect()
}

fn bind_relay(config: &Config) -> Result<Vec<std::net::UdpSocket>> {
    let listen = &config.turn.udp;
    let mut sockets = vec![];
    for address in &listen.addresses {
        match net::udp(*address, "turn.udp") {
            Ok(socket) => sockets.push(socket),
            Err(error) if !listen.explicit && error.is_absent_address() => {
                tracing::debug!("passed over {address}: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sockets)
}

fn relay_config(config: &Config, announced: &[Announced]) -> RelayConfig {
    let mut own: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(|i| i.ip())
        .collect();
    own.extend(announced.iter().map(|a| a.address));
    RelayConfig {
        realm: config.turn.realm.clone(),
        secrets: config.turn.secrets.clone(),
        policy: PeerPolicy::new(
            config.turn.allowed_peers.clone(),
            config.turn.denied_peers.clone(),
            own,
        ),
        addresses: announced
            .iter()
            .map(|a| RelayAddress {
                local: a.local,
                announced: a.address,
            })
            .collect(),
        ports: config.turn.relay_ports.0.clone(),
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
