//! The composition root: the only place where signaling meets the relay.

mod banner;
mod ice_urls;
mod relay;

pub use banner::Banner;

use crate::auth::credential::IceIssuer;
use crate::auth::token::TokenError;
use crate::config::{Config, Mode, UniqueIdentity};
use crate::http::{self, Access, Context, Guard, Phase};
use crate::net;
use crate::protocol::{ErrorCode, Refusal};
use crate::relay::RelayHandle;
use crate::relay::engine::{PeerPolicy, Verdict};
use crate::signal::hub::{self, Settings};
use crate::signal::{ConnectionLimits, Driver, SessionSettings};
use anyhow::{Context as _, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running box. Dropping it ends everything at once; [`App::drain`] ends it politely.
pub struct App {
    driver: Arc<Driver>,
    relay: Option<Arc<RelayHandle>>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    grace: Duration,
    /// What to tell the operator.
    pub banner: Banner,
}

impl App {
    /// Binds every listener and starts serving.
    ///
    /// # Errors
    /// A listener cannot be bound, or no address can be announced; the message names the mend.
    pub async fn start(config: Config) -> Result<Self> {
        let judge = PeerPolicy::new(vec![], vec![], vec![]);
        let is_public = |ip| judge.judge(ip) == Verdict::Allow;
        let announced = net::discover(&config.public, config.loopback, is_public).await;

        let web = bind_web(&config)?;
        let turn = relay::bind(&config)?;
        let urls = turn.ice_urls(&config, &announced);
        let ice = IceIssuer {
            stun_urls: urls.stun,
            turn_urls: urls.turn,
            secrets: config.turn.secrets.clone(),
            ttl: config.turn.ttl,
        };
        let banner = Banner::new(&config, &web, &announced, &ice);
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
        let access = Access::new(config.auth.verifier.clone());
        let context = Arc::new(Context {
            sessions: session_settings(&config, access.clone()),
            access,
            ice,
            driver: Arc::clone(&driver),
            phase: phase_seen,
            pages: config.http.pages,
        });
        let mut tasks = JoinSet::new();
        let timers = Arc::clone(&driver);
        tasks.spawn(async move { timers.run_timers().await });
        for listener in web {
            let guard = Guard {
                public_host: config.public.host.clone(),
                allowed_origins: config.http.allowed_origins.clone(),
                trusted_proxies: config.http.trusted_proxies.clone(),
                loopback: listener.local_addr()?.ip().is_loopback(),
            };
            let router = http::router(Arc::clone(&context), guard);
            tasks.spawn(http::serve(listener, router, stop_seen.clone()));
        }
        phase.send_replace(Phase::Ready);
        Ok(Self {
            driver,
            relay,
            phase,
            stop,
            tasks,
            grace: config.drain_grace,
            banner,
        })
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

fn bind_web(config: &Config) -> Result<Vec<TcpListener>> {
    config
        .http
        .listen
        .iter()
        .map(|address| Ok(TcpListener::from_std(net::tcp(*address, "http.listen")?)?))
        .collect()
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
