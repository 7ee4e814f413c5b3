//! Client networks that are refused on every listener: those of the configuration, and those that
//! the admin API adds for a time. Nodes of a cluster have the latter in common.

mod shared;

use crate::clock::{unix_now, unix_now_ms};
use crate::http::{DeniedAdmin, DeniedRow};
use crate::net::Connections;
use crate::network::DeniedClients;
use crate::relay::RelayHandle;
use crate::signal::Driver;
use ipnet::IpNet;
pub(super) use shared::OnChange;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Networks that the admin API may add.
const MAX_ADDED: usize = 10_000;
/// The longest wait for the next expiry: the wall clock may be set.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The networks, and everybody who refuses them.
pub(super) struct Denied {
    lists: Mutex<Lists>,
    /// Held while a change is applied, so that the last change is applied last.
    applying: Mutex<()>,
    changed: Notify,
    /// Where the box is a node: has the others know a change.
    on_change: OnceLock<OnChange>,
    connections: Arc<Connections>,
    driver: Arc<Driver>,
    relay: Option<Arc<RelayHandle>>,
}

/// Networks, each with the Unix second at which its refusal ends.
pub(super) type Added = BTreeMap<IpNet, Option<u64>>;

#[derive(Default)]
struct Lists {
    configured: Vec<IpNet>,
    added: Added,
    /// When networks of the list were added, where that is known, and when others were taken out, Unix
    /// milliseconds: the later change counts.
    added_at: BTreeMap<IpNet, u64>,
    removed_at: BTreeMap<IpNet, u64>,
}

impl Denied {
    pub(super) fn new(
        configured: Vec<IpNet>,
        connections: &Arc<Connections>,
        driver: &Arc<Driver>,
        relay: Option<&Arc<RelayHandle>>,
    ) -> Arc<Self> {
        let denied = Self {
            lists: Mutex::new(Lists {
                configured,
                ..Lists::default()
            }),
            applying: Mutex::new(()),
            changed: Notify::new(),
            on_change: OnceLock::new(),
            connections: Arc::clone(connections),
            driver: Arc::clone(driver),
            relay: relay.cloned(),
        };
        denied.apply();
        Arc::new(denied)
    }

    /// What the admin API has added.
    pub(super) fn added(&self) -> Added {
        self.lists().added.clone()
    }

    /// Takes what the admin API of an earlier process has added.
    pub(super) fn restore(&self, added: Added) {
        if added.is_empty() {
            return;
        }
        self.lists().added.extend(added);
        self.apply();
        self.changed.notify_one();
    }

    /// Takes the networks of another configuration; what the admin API has added stays.
    pub(super) fn configure(&self, configured: Vec<IpNet>) {
        let before = std::mem::replace(&mut self.lists().configured, configured);
        if before != self.lists().configured {
            self.apply();
        }
    }

    /// Ends what was added for a time, until the task is ended.
    pub(super) async fn expire(self: Arc<Self>) {
        loop {
            let now = unix_now();
            let ended = self.lists().end(now);
            if ended {
                self.apply();
            }
            let next = self.lists().added.values().flatten().min().copied();
            let wait = next.map(|next| Duration::from_secs(next.saturating_sub(now)));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)) => {}
            }
        }
    }

    /// What the admin API does with it.
    pub(super) fn admin(self: &Arc<Self>) -> DeniedAdmin {
        let (put, delete, list) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        DeniedAdmin {
            put: Box::new(move |network, ttl| put.add(network, ttl)),
            delete: Box::new(move |network| delete.remove(network)),
            list: Box::new(move || list.rows()),
        }
    }

    fn add(&self, network: IpNet, ttl: Option<Duration>) -> bool {
        {
            let mut lists = self.lists();
            if lists.added.len() >= MAX_ADDED && !lists.added.contains_key(&network) {
                return false;
            }
            let until = ttl.map(|ttl| unix_now().saturating_add(ttl.as_secs().max(1)));
            lists.add(network, until, unix_now_ms());
        }
        self.apply();
        self.changed.notify_one();
        self.say(network);
        true
    }

    fn remove(&self, network: IpNet) -> bool {
        let removed = self.lists().remove(network, unix_now_ms());
        if removed {
            self.apply();
        }
        // A node that is away for the moment may have it.
        self.say(network);
        removed
    }

    fn rows(&self) -> Vec<DeniedRow> {
        let lists = self.lists();
        let configured = lists.configured.iter().map(|network| DeniedRow {
            network: network.to_string(),
            expires_at: None,
            configured: true,
        });
        let added = lists.added.iter().map(|(network, until)| DeniedRow {
            network: network.to_string(),
            expires_at: *until,
            configured: false,
        });
        configured.chain(added).collect()
    }

    fn apply(&self) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = {
            let lists = self.lists();
            DeniedClients::new(lists.configured.iter().chain(lists.added.keys()).copied())
        };
        self.connections.deny(denied.clone());
        if let Some(relay) = &self.relay {
            relay.deny(denied.clone());
        }
        if !denied.is_empty() {
            self.driver.with_hub(|hub, now, effects| {
                hub.drop_clients(now, |client| denied.covers(client), effects);
            });
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
