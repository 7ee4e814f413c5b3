//! What of the configuration may change while the box runs, and who is told of it.

use super::{connection_limits, hub_settings, relay};
use crate::auth::credential::IceIssuer;
use crate::auth::token::Verifier;
use crate::config::{Config, Signal, Turn};
use crate::net::Announced;
use crate::relay::RelayHandle;
use crate::signal::Driver;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Keys, and tables by their trailing dot, that a reload takes over.
const LIVE: &[&str] = &[
    "auth.",
    "rooms.",
    "signal.resume_window",
    "signal.outbox",
    "signal.ring",
    "signal.ring_total",
    "signal.rate",
    "signal.candidate_rate",
    "signal.connections_per_ip",
    "signal.max_connections",
    "turn.ttl",
    "turn.secrets",
    "turn.allowed_peers",
    "turn.denied_peers",
    "turn.user_quota",
    "turn.ip_quota",
    "turn.total_quota",
    "turn.max_session",
    "turn.max_rate",
    "turn.total_rate",
    "turn.alternate",
    "drain.",
    "log.level",
];

/// The configuration that applies, and the places that follow it.
pub(super) struct Live {
    config: watch::Sender<Config>,
    verifier: watch::Sender<Option<Verifier>>,
    ice: watch::Sender<IceIssuer>,
    certificates: Arc<Notify>,
    /// With the addresses that it announces.
    relay: Option<(Arc<RelayHandle>, Vec<Announced>)>,
}

impl Live {
    pub(super) fn new(
        config: Config,
        verifier: watch::Sender<Option<Verifier>>,
        ice: watch::Sender<IceIssuer>,
        certificates: Arc<Notify>,
        relay: Option<(Arc<RelayHandle>, Vec<Announced>)>,
    ) -> Self {
        Self {
            config: watch::Sender::new(config),
            verifier,
            ice,
            certificates,
            relay,
        }
    }

    pub(super) fn grace(&self) -> Duration {
        self.config.borrow().drain_grace
    }

    pub(super) fn reload_certificates(&self) {
        self.certificates.notify_one();
    }

    /// Takes `new` over as far as [`LIVE`] goes; returns the changed keys beyond it.
    pub(super) fn take_over(&self, new: Config) -> Vec<String> {
        let mut waiting = self.config.borrow().changed_keys(&new);
        waiting.retain(|key| !is_live(key));
        self.verifier.send_replace(new.auth.verifier.clone());
        self.config.send_modify(|config| {
            config.auth = new.auth;
            config.rooms = new.rooms;
            config.signal = Signal {
                heartbeat: config.signal.heartbeat,
                timeout: config.signal.timeout,
                max_frame: config.signal.max_frame,
                ..new.signal
            };
            config.turn = Turn {
                enabled: config.turn.enabled,
                realm: config.turn.realm.clone(),
                // Nobody could verify what was minted so far if each reload made another one.
                secrets: match new.turn.made_secret && config.turn.made_secret {
                    true => config.turn.secrets.clone(),
                    false => new.turn.secrets,
                },
                udp: config.turn.udp.clone(),
                tcp: config.turn.tcp.clone(),
                relay_ports: config.turn.relay_ports.clone(),
                workers: config.turn.workers,
                ..new.turn
            };
            config.drain_grace = new.drain_grace;
        });
        let config = self.config.borrow();
        self.ice.send_modify(|ice| {
            ice.ttl = config.turn.ttl;
            ice.secrets = config.turn.secrets.clone();
        });
        if let Some((relay, announced)) = &self.relay {
            relay.reconfigure(relay::settings(&config, announced));
        }
        self.reload_certificates();
        waiting
    }

    /// Keeps signaling at the configuration and the ICE URLs that apply.
    pub(super) fn follow(&self, driver: Arc<Driver>) -> impl Future<Output = ()> + use<> {
        let (mut config, mut ice) = (self.config.subscribe(), self.ice.subscribe());
        async move {
            loop {
                let ended = tokio::select! {
                    changed = config.changed() => changed.is_err(),
                    changed = ice.changed() => changed.is_err(),
                };
                if ended {
                    return;
                }
                let (settings, limits) = {
                    let config = config.borrow();
                    (hub_settings(&config), connection_limits(&config))
                };
                driver.reconfigure(settings, ice.borrow().clone(), limits);
            }
        }
    }
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| match live.strip_suffix('.') {
        Some(_) => key.starts_with(live),
        None => key == *live,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::credential::TurnSecrets;

    fn config(env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(None, env).unwrap()
    }

    fn live(config: Config) -> (Live, watch::Receiver<Option<Verifier>>) {
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
            ttl: config.turn.ttl,
        };
        let (verifier, seen) = watch::channel(config.auth.verifier.clone());
        let certificates = Arc::new(Notify::new());
        let live = Live::new(
            config,
            verifier,
            watch::Sender::new(ice),
            certificates,
            None,
        );
        (live, seen)
    }

    #[test]
    fn what_can_change_changes_and_the_rest_is_named() {
        let (live, verifier) = live(config(&[]));
        let waiting = live.take_over(config(&[
            ("CALLBOX_AUTH__MODE", "jwt"),
            ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
            ("CALLBOX_TURN__TTL", "5m"),
            ("CALLBOX_SIGNAL__RATE", "7/s"),
            ("CALLBOX_SIGNAL__HEARTBEAT", "3s"),
            ("CALLBOX_DRAIN__GRACE", "1s"),
            ("CALLBOX_HTTP__LISTEN", "127.0.0.1:9"),
        ]));
        assert_eq!(waiting, ["http.listen", "signal.heartbeat"]);
        assert!(verifier.borrow().is_some());
        assert_eq!(live.ice.borrow().ttl, Duration::from_secs(300));
        assert_eq!(live.grace(), Duration::from_secs(1));
        let applied = live.config.borrow();
        assert_eq!(applied.signal.rate.0, 7);
        assert_eq!(applied.signal.heartbeat.0, Duration::from_secs(25));
    }

    #[test]
    fn nothing_new_waits_for_nothing() {
        let (live, _verifier) = live(config(&[]));
        assert!(live.take_over(config(&[])).is_empty());
    }

    #[test]
    fn live_keys_exist() {
        let known = Config::load(None, std::iter::empty()).unwrap().to_json();
        for key in LIVE {
            let (table, field) = key.split_once('.').unwrap();
            let found = &known[table];
            assert!(
                found.is_object() && (field.is_empty() || found.get(field).is_some()),
                "{key}"
            );
        }
    }
}
