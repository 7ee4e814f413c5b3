//! Configuration: raw TOML and environment → a validated [`Config`].
//!
//! Every error names its key, the value, the reason and a fix. Nothing here binds a port or
//! resolves a name.

mod auth;
mod check;
mod collect;
mod compat;
mod hooks;
mod problem;
mod protocols;
mod raw;
mod secrets;
mod source;
mod tls;
mod values;

pub use compat::Compat;
pub use hooks::Hooks;
pub use problem::{ConfigError, Problem};
pub use protocols::{Protocol, SocketIoProfile};
pub use raw::{Http, Log, LogFormat, LogLevel, Mode, Raw, Rooms, Signal, UniqueIdentity};
pub use tls::{Acme, CertificateSource, Tls};
pub use values::{BitRate, ByteRate, Frequency, Ports, Size, Span};

use crate::auth::Signer;
use crate::auth::credential::TurnSecrets;
use crate::auth::token::Verifier;
use collect::Check;
use ipnet::IpNet;
use secrecy::SecretString;
use source::Layers;
pub use source::environment;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Everything the box runs by.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nothing is reachable from outside, and nothing says that it should be.
    pub loopback: bool,
    /// How the box is reached from outside.
    pub public: Public,
    /// Plain HTTP and WebSocket.
    pub http: Http,
    /// The TLS port.
    pub tls: Tls,
    /// Who may join.
    pub auth: Auth,
    /// Limits of rooms.
    pub rooms: Rooms,
    /// Limits and timing of signaling connections.
    pub signal: Signal,
    /// STUN and TURN.
    pub turn: Turn,
    /// Foreign protocols.
    pub compat: Compat,
    /// How long a drain waits for calls to end.
    pub drain_grace: Duration,
    /// The application's backend.
    pub hooks: Hooks,
    /// Where metrics are served without a token.
    pub metrics: Option<SocketAddr>,
    /// What is written to the log.
    pub log: Log,
    /// What an operator may not have meant.
    pub warnings: Vec<String>,
    effective: Raw,
}

/// How the box is reached from outside.
#[derive(Debug, Clone)]
pub struct Public {
    /// The name (or address) in ICE URLs.
    pub host: Option<String>,
    /// URLs handed out as they are, in place of the listeners' own.
    pub ice_urls: Vec<String>,
    /// Where the public addresses come from, if not from an interface.
    pub addresses: Vec<AddressRule>,
    /// `HOST:PORT` of a STUN server to ask.
    pub stun: Option<String>,
}

/// One entry of `public.address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressRule {
    /// An address as it stands.
    Ip(IpAddr),
    /// The addresses of a name.
    Dns(String),
}

/// Who may join, and with what.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Open, or by token.
    pub mode: Mode,
    /// What tokens are checked against; present in `jwt` mode.
    pub verifier: Option<Verifier>,
    /// What the admin API asks for; without one it does not exist.
    pub admin_token: Option<SecretString>,
    /// What mints tokens; present where there is a shared secret that may sign.
    pub signer: Option<Signer>,
}

/// STUN and TURN.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "config/callbox.toml describes the keys")]
pub struct Turn {
    pub enabled: bool,
    pub realm: String,
    pub secrets: TurnSecrets,
    /// The secret was made for this run: credentials do not outlive it.
    pub made_secret: bool,
    pub ttl: Duration,
    pub max_session: Duration,
    pub udp: Listen,
    pub tcp: Listen,
    pub workers: usize,
    pub coalesce: Duration,
    pub alternate: Vec<SocketAddr>,
    pub relay_ports: Ports,
    pub allowed_peers: Vec<IpNet>,
    pub denied_peers: Vec<IpNet>,
    pub user_quota: u32,
    pub ip_quota: u32,
    pub total_quota: u32,
    pub max_rate: Option<BitRate>,
    pub total_rate: Option<BitRate>,
}

/// Addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 takes any free port.
    pub addresses: Vec<SocketAddr>,
    /// Written down: each of them has to be bound. Otherwise a family that the machine lacks
    /// is passed over.
    pub explicit: bool,
}

impl Config {
    /// Reads `file` (if any) under the `CALLBOX_…` variables of `env`.
    ///
    /// # Errors
    /// Every problem found, each with its key and a fix.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let layers = Layers::read(file, env)?;
        let mut check = Check::new(&layers);
        let config = check.config(layers.raw()?);
        if check.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(check.problems))
        }
    }

    /// Tells whether `http.listen` and `turn.tcp` both name `address`: one listener serves both.
    pub fn shares_port(&self, address: SocketAddr) -> bool {
        self.turn.enabled
            && address.port() != 0
            && self.http.listen.contains(&address)
            && self.turn.tcp.addresses.contains(&address)
    }

    /// The configuration as it applies, secrets redacted, as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.effective).expect("the configuration is plain data")
    }

    /// The keys whose values differ from those of `other`; of secrets, only whether they are set.
    pub fn changed_keys(&self, other: &Self) -> Vec<String> {
        let (mine, theirs) = (
            source::flat(&self.effective),
            source::flat(&other.effective),
        );
        let keys: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        keys.into_iter()
            .filter(|key| mine.get(*key) != theirs.get(*key))
            .cloned()
            .collect()
    }

    /// The configuration as it applies, secrets redacted, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.effective).expect("the configuration is plain data")
    }
}

#[cfg(test)]
mod tests;
