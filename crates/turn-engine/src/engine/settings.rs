//! What the operator configured, as the engine wants it.
//!
//! Values only; reading and validating configuration is the caller's work.

use super::policy::PeerPolicy;
use crate::credential::{SecretId, TurnSecrets};
use crate::users::TurnUsers;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The live part of the configuration: a reload hands every engine a new one.
///
/// What relays are bound to (addresses and ports) is fixed when the
/// [`SharedState`](crate::shared::SharedState) is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// REALM of the long-term credential mechanism; short, since it is part of every 401.
    pub realm: String,
    /// What verifies credentials.
    pub secrets: TurnSecrets,
    /// Who has a password that does not expire.
    pub users: TurnUsers,
    /// Whom the relay may reach.
    pub policy: PeerPolicy,
    /// Caps on allocations, box-wide.
    pub quotas: Quotas,
    /// The longest life of an allocation, however often it is refreshed.
    pub max_session: Duration,
    /// Bytes of payload per second and allocation, both directions together.
    pub max_rate: Option<u64>,
    /// Bytes of payload per second of the whole box, both directions together.
    pub total_rate: Option<u64>,
    /// Where clients are sent while draining, at most one a family counts.
    pub alternates: Vec<SocketAddr>,
    /// Whether clients get ICMP errors of their peers (RFC 8656 section 11.5). Clients of pion and
    /// webrtc-rs take a Data indication without DATA for the end of their connection.
    pub reports_icmp: bool,
}

impl Settings {
    /// Settings that bound what a client can take, for a server without a configuration file.
    pub fn new(realm: &str, secrets: TurnSecrets) -> Self {
        Self {
            realm: realm.into(),
            secrets,
            users: TurnUsers::default(),
            policy: PeerPolicy::new(vec![], vec![], vec![]),
            quotas: Quotas {
                user: 128,
                ip: 1_000,
                total: 10_000,
            },
            max_session: Duration::from_secs(24 * 3_600),
            max_rate: None,
            total_rate: None,
            alternates: vec![],
            reports_icmp: false,
        }
    }
}

/// Who has used up what it may relay in a month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// Everybody.
    pub all: bool,
    /// These users.
    pub users: BTreeSet<Arc<str>>,
    /// Everybody whose credentials these secrets have signed.
    pub secrets: BTreeSet<SecretId>,
}

/// Caps on concurrent allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Per `<user>` of a REST username.
    pub user: u32,
    /// Per client IPv4 address or IPv6 /64.
    pub ip: u32,
    /// In all.
    pub total: u32,
}
