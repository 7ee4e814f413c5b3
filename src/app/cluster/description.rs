//! What a node says of itself, and what it cannot be beside.

use super::Cell;
use crate::auth::Bearer;
use crate::clock;
use crate::cluster::wire;
use crate::config::Config;
use crate::signal::{Driver, Remote};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Says what this node is, as JSON, at each call.
pub(super) fn describer(
    config: &Config,
    driver: &Arc<Driver>,
    cell: &Cell,
) -> Box<dyn Fn() -> Value + Send + Sync> {
    let (driver, cell) = (Arc::downgrade(driver), Arc::clone(cell));
    let (at_start, name) = (
        config.clone(),
        config.cluster.as_ref().map(|c| c.node.clone()),
    );
    Box::new(move || {
        let Some(driver) = driver.upgrade() else {
            return Value::Null;
        };
        let gauges = driver.with_hub(|hub, _, _| hub.gauges());
        let Remote { edge, home } = driver.remote();
        let current = cell.config.get().map(|config| config.borrow());
        let config = current.as_deref().unwrap_or(&at_start);
        let secrets: Vec<_> = config.turn.secrets.ids().map(|id| id.to_string()).collect();
        json!({
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "wire": wire::VERSION,
            "clockMs": clock::unix_now_ms(),
            "turn": config.turn.enabled,
            "turnSecrets": secrets,
            "auth": auth_id(config),
            "rooms": gauges.rooms,
            "peers": gauges.peers,
            "connections": gauges.connections.saturating_sub(home),
            "remote": {"edge": edge, "home": home},
        })
    })
}

/// Stands for the key that signs tokens, without showing it: what two nodes with one key say alike.
fn auth_id(config: &Config) -> Option<String> {
    let signer = config.auth.signer.as_ref()?;
    let bearer = Bearer {
        identity: "cluster".into(),
        rooms: vec![],
        role: None,
        call: None,
        login: None,
    };
    let sign = || signer.sign(&bearer, 0, Duration::from_secs(1)).0;
    let signed = sign();
    // Some signatures are drawn anew each time.
    (signed == sign()).then(|| {
        let digest = Sha256::digest(signed.as_bytes());
        digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    })
}

/// Why this box cannot be a node beside the others: something in its configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(pub(super) String);

/// Why relays of this node would refuse what others mint; `None` where they do not. Its own name is that of
/// an earlier run, which is about to be buried.
pub(super) fn secrets_differ(own: &[String], name: &str, others: &[Value]) -> Option<String> {
    let is_other = |other: &&Value| other["name"] != *name && other["turn"] != false;
    for other in others.iter().filter(is_other) {
        let its = other["turnSecrets"].as_array().into_iter().flatten();
        let its: Vec<_> = its.filter_map(Value::as_str).collect();
        let shared = its
            .iter()
            .filter(|id| own.iter().any(|own| own == *id))
            .count();
        let whose = &other["name"];
        if shared == 0 && !its.is_empty() {
            return Some(format!(
                "turn.secrets of node {whose} are others: relays of one node refuse what the other mints: give \
                 all nodes the same turn.secrets"
            ));
        }
        if shared < its.len().max(own.len()) {
            tracing::warn!(
                "turn.secrets of node {whose} are not all the same: end the rotation on all nodes"
            );
        }
    }
    None
}
