//! What of the configuration may change while the box runs, and who is told of it.

use super::App;
use super::denied::Denied;
use super::hooks::Hooks;
use super::relay;
use super::settings::{
    admin_token, connection_caps, connection_limits, hub_settings, show_addresses,
};
use crate::auth::InviteKeys;
use crate::auth::credential::IceIssuer;
use crate::auth::passwords::People;
use crate::auth::token::Verifier;
use crate::config::{Config, Signal, Turn};
use crate::http::AdminToken;
use crate::net::{Announced, Connections, RemoteKeys};
use crate::relay::RelayHandle;
use crate::signal::Driver;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Keys, and tables by their trailing dot, that a reload takes over.
const RELOADABLE: &[&str] = &[
    "auth.",
    "rooms.",
    "signal.resume_window",
    "signal.outbox",
    "signal.ring",
    "signal.ring_total",
    "signal.rate",
    "signal.candidate_rate",
    "signal.byte_rate",
    "signal.connections_per_ip",
    "signal.max_connections",
    "turn.alternate",
    "turn.secrets",
    "turn.secrets_file",
    "turn.users",
    "turn.users_file",
    "turn.ttl",
    "turn.max_session",
    "turn.allowed_peers",
    "turn.denied_peers",
    "turn.user_quota",
    "turn.ip_quota",
    "turn.total_quota",
    "turn.max_rate",
    "turn.total_rate",
    "turn.icmp",
    "turn.budget",
    "drain.",
    "upgrade.",
    "hooks.",
    "policy.",
    "net.",
    "log.level",
    "log.addresses",
];

/// How often the machine's own addresses are looked at: temporary IPv6 ones come and go.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(60);

/// The configuration that applies, and the places that follow it.
pub(super) struct Reloader {
    pub(super) config: watch::Sender<Config>,
    pub(super) verifier: watch::Sender<Option<Verifier>>,
    pub(super) admin_token: watch::Sender<Option<AdminToken>>,
    pub(super) ice: watch::Sender<IceIssuer>,
    /// The URL of the call page.
    pub(super) page: String,
    pub(super) announced: watch::Sender<Vec<Announced>>,
    /// The longest `turn.ttl` that has applied, in seconds: what was minted under it still lives.
    pub(super) longest_ttl: Arc<AtomicU64>,
    pub(super) connections: Arc<Connections>,
    /// Has certificate files looked at.
    pub(super) certificates: Arc<Notify>,
    pub(super) denied: Option<Arc<Denied>>,
    pub(super) hooks: Hooks,
    /// Keys that are fetched.
    pub(super) keys: RemoteKeys,
}

impl App {
    /// Takes over what of `config` can change while the box runs, and has certificate files read
    /// again. Returns the keys whose new values wait for a restart.
    pub fn reload(&self, config: Config) -> Vec<String> {
        self.reloader.apply(config)
    }

    /// Reads certificate files again without waiting for the next look at them.
    pub fn reload_certificates(&self) {
        self.reloader.reload_certificates();
    }
}

impl Reloader {
    pub(super) fn grace(&self) -> Duration {
        self.config.borrow().drain_grace
    }

    /// Whether an upgrade hands everything over.
    pub(super) fn hands_over(&self) -> bool {
        self.config.borrow().upgrade_handover
    }

    /// Whether clients have somewhere to go while the box drains.
    pub(super) fn has_alternate(&self) -> bool {
        !self.config.borrow().turn.alternate.is_empty()
    }

    pub(super) fn reload_certificates(&self) {
        self.certificates.notify_one();
    }

    /// Takes `new` over as far as [`RELOADABLE`] goes; returns the changed keys beyond it.
    pub(super) fn apply(&self, new: Config) -> Vec<String> {
        let mut waiting = self.config.borrow().changed_keys(&new);
        waiting.retain(|key| !is_reloadable(key));
        self.config.send_modify(|config| merge(config, new));
        let config = self.config.borrow();
        self.keys.set_url(config.auth.jwks_url.clone());
        self.verifier.send_replace(config.auth.verifier.clone());
        self.hooks.apply(&config);
        self.admin_token.send_replace(admin_token(&config));
        let (secrets, ttl) = (config.turn.secrets.clone(), config.turn.ttl);
        self.longest_ttl.fetch_max(ttl.as_secs(), Ordering::Relaxed);
        self.ice
            .send_modify(|ice| (ice.secrets, ice.ttl) = (secrets, ttl));
        self.connections.set_caps(connection_caps(&config));
        if let Some(denied) = &self.denied {
            denied.configure(config.denied_clients.clone());
        }
        show_addresses(&config);
        self.reload_certificates();
        waiting
    }

    /// Who may log in by the configuration that applies.
    pub(super) fn people(&self) -> People {
        self.config.borrow().auth.people.clone()
    }

    /// Keeps signaling and the relay at the configuration, the ICE URLs and the public addresses
    /// that apply.
    pub(super) fn follow(
        &self,
        driver: Arc<Driver>,
        relay: Option<Arc<RelayHandle>>,
        logins: BTreeMap<String, String>,
    ) -> impl Future<Output = ()> + use<> {
        let (mut config, mut ice) = (self.config.subscribe(), self.ice.subscribe());
        let mut announced = self.announced.subscribe();
        let mut interfaces = relay::interfaces();
        let (page, events) = (self.page.clone(), self.hooks.events.clone());
        let mut people = config.borrow().auth.people.clone();
        async move {
            // Who was removed before a hand-over is not to go on because nobody reloaded.
            for name in people.ended_since(logins) {
                driver.with_hub(|hub, now, effects| hub.remove_identity(now, &name, effects));
            }
            loop {
                let ended = tokio::select! {
                    () = sleep(INTERFACES_INTERVAL) => {
                        let before = mem::replace(&mut interfaces, relay::interfaces());
                        if before == interfaces {
                            continue;
                        }
                        false
                    }
                    changed = config.changed() => changed.is_err(),
                    changed = ice.changed() => changed.is_err(),
                    changed = announced.changed() => changed.is_err(),
                };
                if ended {
                    return;
                }
                let config = config.borrow_and_update().clone();
                let ice = ice.borrow_and_update().clone();
                let announced = announced.borrow_and_update().clone();
                if let Some(relay) = &relay {
                    let shared = relay.shared();
                    announced
                        .iter()
                        .map(relay::address)
                        .for_each(|a| shared.move_to(a));
                    relay.reconfigure(relay::settings(&config, shared.addresses()));
                }
                for name in people.ended_in(&config.auth.people) {
                    driver.with_hub(|hub, now, effects| hub.remove_identity(now, name, effects));
                }
                people = config.auth.people.clone();
                super::events::watch(&events, &driver);
                driver.reconfigure(
                    hub_settings(&config, &page),
                    ice,
                    connection_limits(&config),
                );
            }
        }
    }
}

/// What is not live keeps its old value, so that no part of the box runs by half of a change.
fn merge(config: &mut Config, new: Config) {
    config.follow_files_of(&new);
    config.auth = new.auth;
    config.rooms = new.rooms;
    config.signal = Signal {
        heartbeat: config.signal.heartbeat,
        timeout: config.signal.timeout,
        max_frame: config.signal.max_frame,
        ..new.signal
    };
    let old = config.turn.clone();
    config.turn = Turn {
        enabled: old.enabled,
        realm: old.realm,
        // Nobody could verify what was minted so far if each reload made another one.
        secrets: match old.made_secret && new.turn.made_secret {
            true => old.secrets,
            false => new.turn.secrets,
        },
        udp: old.udp,
        tcp: old.tcp,
        relay_ports: old.relay_ports,
        workers: old.workers,
        coalesce: old.coalesce,
        ..new.turn
    };
    if let Some(verifier) = &mut config.auth.verifier {
        verifier.accept_invites(InviteKeys::new(&config.turn.secrets));
    }
    config.drain_grace = new.drain_grace;
    config.hooks = new.hooks;
    config.policy = new.policy;
    config.denied_clients = new.denied_clients;
    config.log = new.log;
    config.upgrade_handover = new.upgrade_handover;
}

fn is_reloadable(key: &str) -> bool {
    RELOADABLE
        .iter()
        .any(|reloader| match reloader.strip_suffix('.') {
            Some(_) => key.starts_with(reloader),
            None => {
                let rest = key.strip_prefix(reloader);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::app::App;
    use crate::auth::credential::TurnSecrets;
    use crate::clock::unix_now;
    use crate::net::ConnectionCaps;
    use crate::net::https::system_trust;

    fn config(env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(None, env).unwrap()
    }

    pub(in crate::app) fn reloader(
        config: Config,
    ) -> (Reloader, watch::Receiver<Option<Verifier>>) {
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
            ttl: config.turn.ttl,
        };
        let (verifier, seen) = watch::channel(config.auth.verifier.clone());
        let reloader = Reloader {
            verifier,
            admin_token: watch::Sender::new(None),
            ice: watch::Sender::new(ice),
            page: String::new(),
            hooks: Hooks::new(&config),
            keys: RemoteKeys::new(None, Arc::new(system_trust)),
            config: watch::Sender::new(config),
            announced: watch::Sender::new(vec![]),
            longest_ttl: Arc::default(),
            connections: Connections::new(ConnectionCaps {
                per_network: 1,
                total: 1,
            }),
            certificates: Arc::default(),
            denied: None,
        };
        (reloader, seen)
    }

    #[test]
    fn what_can_change_changes_and_the_rest_is_named() {
        let (reloader, verifier) = reloader(config(&[]));
        let waiting = reloader.apply(config(&[
            ("CALLBOX_AUTH__MODE", "jwt"),
            ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
            ("CALLBOX_AUTH__ADMIN_TOKEN", "sesame"),
            ("CALLBOX_TURN__SECRETS", "north"),
            ("CALLBOX_TURN__USER_QUOTA", "3"),
            ("CALLBOX_TURN__REALM", "elsewhere"),
            ("CALLBOX_SIGNAL__RATE", "7/s"),
            ("CALLBOX_SIGNAL__HEARTBEAT", "3s"),
            ("CALLBOX_DRAIN__GRACE", "1s"),
            ("CALLBOX_HTTP__LISTEN", "127.0.0.1:9"),
        ]));
        // The tutorials are served by default while the mode is `open`.
        assert_eq!(
            waiting,
            [
                "compat.enabled",
                "http.listen",
                "signal.heartbeat",
                "turn.realm"
            ]
        );
        assert!(verifier.borrow().is_some());
        assert!(reloader.admin_token.borrow().is_some());
        let minted = reloader.ice.borrow().secrets.mint("u", 1);
        assert_eq!(
            minted,
            TurnSecrets::new(vec!["north".into()]).unwrap().mint("u", 1)
        );
        assert_eq!(reloader.grace(), Duration::from_secs(1));
        let applied = reloader.config.borrow();
        assert_eq!(applied.signal.rate.0, 7);
        assert_eq!(applied.signal.heartbeat.0, Duration::from_secs(25));
        assert_eq!(
            (applied.turn.user_quota, &*applied.turn.realm),
            (3, "callbox")
        );
    }

    const ON_FREE_PORTS: [(&str, &str); 3] = [
        ("CALLBOX_HTTP__LISTEN", "127.0.0.1:0"),
        ("CALLBOX_TURN__UDP", "127.0.0.1:0"),
        ("CALLBOX_TURN__TCP", "127.0.0.1:0"),
    ];

    #[tokio::test]
    async fn credentials_live_as_long_as_the_new_ttl_says_and_a_revocation_outlives_the_old() {
        let app = App::start(config(&ON_FREE_PORTS)).await.unwrap();
        for ttl in ["3h", "1m"] {
            let after = [ON_FREE_PORTS.as_slice(), &[("CALLBOX_TURN__TTL", ttl)]].concat();
            assert!(app.reload(config(&after)).is_empty());
        }
        let issued = app.reloader.ice.borrow().issue("u", 1_000, None);
        assert_eq!((issued.ttl, issued.expires_at), (60, 1_060));

        let longest = Arc::clone(&app.reloader.longest_ttl);
        let admin = relay::admin(app.relay.clone(), longest);
        (admin.revoke)("u");
        let revoked_until = app.relay.as_ref().unwrap().shared().revoked_until("u");
        assert!(
            revoked_until.unwrap() >= unix_now() + 3 * 3_600 - 5,
            "minted under 3h"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_public_address_reaches_relays_and_urls() {
        let app = App::start(config(&ON_FREE_PORTS)).await.unwrap();
        let there = Announced {
            address: "198.51.100.7".parse().unwrap(),
            local: "127.0.0.1".parse().unwrap(),
            how: String::new(),
        };
        app.reloader.announced.send_replace(vec![there.clone()]);
        let mut ice = app.reloader.ice.subscribe();
        let handed_out = ice.wait_for(|ice| ice.turn_urls[0].contains("198.51.100.7"));
        assert!(handed_out.await.unwrap().stun_urls[0].contains("198.51.100.7"));
        let shared = app.relay.as_ref().unwrap().shared();
        while !shared.addresses().contains(&there.address) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_secret_made_for_this_run_lasts_for_this_run() {
        let (reloader, _verifier) = reloader(config(&[]));
        let before = reloader.config.borrow().turn.secrets.mint("u", 1);
        assert!(reloader.apply(config(&[])).is_empty());
        assert_eq!(reloader.ice.borrow().secrets.mint("u", 1), before);
    }

    #[test]
    fn live_keys_exist() {
        let known = Config::load(None, std::iter::empty()).unwrap().to_json();
        for key in RELOADABLE {
            let (table, field) = key.split_once('.').unwrap();
            let found = &known[table];
            assert!(
                found.is_object() && (field.is_empty() || found.get(field).is_some()),
                "{key}"
            );
        }
    }
}
