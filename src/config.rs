//! Configuration: raw TOML and environment → a validated [`Config`].
//!
//! Every error names its key, the value, the reason and a fix. Nothing here binds a port or
//! resolves a name.

mod auth;
mod check;
mod cluster;
mod collect;
mod compat;
mod forms;
mod hooks;
mod policy;
mod problem;
mod protocols;
mod raw;
mod rules;
mod secrets;
mod source;
mod tls;
mod users;
mod values;
mod wide;

pub use cluster::Cluster;
pub use compat::Compat;
pub use hooks::Hooks;
pub use policy::Policy;
pub use problem::{ConfigError, Problem};
pub use protocols::{Protocol, SocketIoProfile};
pub use raw::{
    Http, Isolated, Log, LogAddresses, LogFormat, LogLevel, Mode, Raw, Rooms, Signal,
    UniqueIdentity,
};
pub use tls::{Acme, CertificateSource, Tls};
pub use values::{BitRate, ByteRate, Frequency, Ports, Size, Span};

use crate::auth::credential::TurnSecrets;
use crate::auth::token::Verifier;
use crate::auth::{People, Signer, TurnUsers};
use collect::Check;
pub use collect::{FileDigest, digest_of};
use hyper::Uri;
use ipnet::IpNet;
use secrecy::SecretString;
use source::Layers;
pub use source::environment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// Whether an upgrade hands everything over to the next process.
    pub upgrade_handover: bool,
    /// What this node of a cluster runs by, where it is one.
    pub cluster: Option<Cluster>,
    /// The application's backend.
    pub hooks: Hooks,
    /// What members may send, and whom they may call.
    pub policy: Policy,
    /// Clients that are refused on every listener.
    pub denied_clients: Vec<IpNet>,
    /// Where metrics are served without a token.
    pub metrics: Option<SocketAddr>,
    /// What is written to the log.
    pub log: Log,
    /// What an operator may not have meant.
    pub warnings: Vec<String>,
    /// The files with keys and secrets, and what was in them.
    pub files: BTreeMap<PathBuf, FileDigest>,
    effective: Raw,
    /// What it was made from.
    layers: Option<Arc<Layers>>,
}

/// How the box is reached from outside.
#[derive(Debug, Clone)]
pub struct Public {
    /// The name (or address) in ICE URLs.
    pub host: Option<String>,
    /// The name in URLs of the relay, where it is another one.
    pub turn_host: Option<String>,
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
    /// Where further keys are fetched from.
    pub jwks_url: Option<Uri>,
    /// What the admin API asks for; without one it does not exist.
    pub admin_token: Option<SecretString>,
    /// Admin tokens with a name and scopes.
    pub admin_tokens: Vec<AdminTokenOf>,
    /// People who log in by name and password.
    pub people: People,
    /// Where `callbox user add` keeps them.
    pub users_file: Option<PathBuf>,
    /// What mints tokens; present where there is a shared secret that may sign.
    pub signer: Option<Signer>,
}

/// One admin token of `auth.admin_tokens`.
#[derive(Debug, Clone)]
pub struct AdminTokenOf {
    /// Who holds it.
    pub name: String,
    /// What it is.
    pub token: SecretString,
    /// `read`, `act`, `mint`.
    scopes: Vec<String>,
}

impl AdminTokenOf {
    /// Whether it may be used for that.
    pub fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }
}

/// STUN and TURN.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "config/callbox.toml describes the keys")]
pub struct Turn {
    pub enabled: bool,
    pub realm: String,
    pub secrets: TurnSecrets,
    pub users: TurnUsers,
    /// Where `callbox user add --turn` keeps them.
    pub users_file: Option<PathBuf>,
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
    pub icmp: bool,
    pub budget: Budget,
}

/// Bytes that may be relayed in a month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    /// By everybody together.
    pub total: Option<u64>,
    /// By each user with a name.
    pub user: Option<u64>,
    /// With the credentials that each secret has signed.
    pub secret: Option<u64>,
    /// Whether more is refused, or only warned of.
    pub refuses: bool,
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
    /// The URL of the call page at `origin`, which ends in a slash.
    #[must_use]
    pub fn call_page(&self, origin: String) -> String {
        match self.http.root {
            // At the root is the application's own page.
            Some(_) => origin + "call",
            None => origin,
        }
    }

    /// Reads `file` (if any) under the `CALLBOX_…` variables of `env`.
    ///
    /// # Errors
    /// Every problem found, each with its key and a fix.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::from_layers(Arc::new(Layers::read(file, env)?))
    }

    /// Reads the files again that the configuration names, by the keys that apply.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn reread(&self) -> Result<Self, ConfigError> {
        match &self.layers {
            Some(layers) => Self::from_layers(Arc::clone(layers)),
            None => Ok(self.clone()),
        }
    }

    fn from_layers(layers: Arc<Layers>) -> Result<Self, ConfigError> {
        let mut check = Check::new(&layers);
        let mut config = check.config(layers.raw()?);
        if !check.problems.is_empty() {
            return Err(ConfigError(check.problems));
        }
        config.layers = Some(layers);
        Ok(config)
    }

    /// Takes over which files were read, and what was in them.
    pub fn follow_files_of(&mut self, other: &Self) {
        self.files.clone_from(&other.files);
        self.layers.clone_from(&other.layers);
    }

    /// Whether `http.listen` and `turn.tcp` both name `address`: one listener serves both.
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
