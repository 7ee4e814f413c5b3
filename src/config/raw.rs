//! The configuration as it is written: one struct a TOML table, every key optional.
//!
//! Nothing is judged here beyond the form of a single value; [`super::Config`] does that.

use super::values::{BitRate, Frequency, Ports, Size, Span};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident : $type:ty = $default:expr,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs, reason = "operation.md and config/callbox.toml describe the keys")]
        pub struct $name { $($(#[$attr])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    )*};
}

tables! {
    /// The whole file.
    Raw {
        public: Public = Public::default(),
        http: Http = Http::default(),
        tls: Tls = Tls::default(),
        auth: Auth = Auth::default(),
        rooms: Rooms = Rooms::default(),
        signal: Signal = Signal::default(),
        turn: Turn = Turn::default(),
        drain: Drain = Drain::default(),
        log: Log = Log::default(),
    }
    /// How the box is reached from outside.
    Public {
        host: Option<String> = None,
        ice_urls: Vec<String> = vec![],
        #[serde(deserialize_with = "one_or_many")]
        address: Vec<String> = vec![],
        stun: Option<String> = None,
    }
    /// Plain HTTP and WebSocket.
    Http {
        listen: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
        #[serde(deserialize_with = "one_or_many")]
        allowed_origins: Vec<String> = vec![],
        trusted_proxies: Vec<IpNet> = vec![],
        pages: bool = true,
    }
    /// Connections inside TLS.
    Tls {
        listen: Vec<SocketAddr> = vec![],
        cert: Option<PathBuf> = None,
        key: Option<PathBuf> = None,
    }
    /// Who may come in.
    Auth {
        mode: Option<Mode> = None,
        #[serde(serialize_with = "redact")]
        secret: Option<SecretString> = None,
        secret_file: Option<PathBuf> = None,
        public_key: Option<String> = None,
        jwks: Option<PathBuf> = None,
        algorithms: Vec<String> = vec![],
        issuer: Option<String> = None,
        #[serde(deserialize_with = "one_or_many")]
        audience: Vec<String> = vec![],
        leeway: Span = Span(Duration::ZERO),
    }
    /// Limits of rooms.
    Rooms {
        max_peers: u32 = 50,
        max_rooms: u32 = 10_000,
        unique_identity: UniqueIdentity = UniqueIdentity::Allow,
        list: bool = false,
    }
    /// Limits and timing of signaling connections.
    Signal {
        heartbeat: Span = Span(Duration::from_secs(25)),
        timeout: Span = Span(Duration::from_secs(10)),
        resume_window: Span = Span(Duration::from_secs(30)),
        outbox: Size = Size(256 << 10),
        ring: Size = Size(64 << 10),
        ring_total: Size = Size(256 << 20),
        max_frame: Size = Size(64 << 10),
        rate: Frequency = Frequency(100),
        candidate_rate: Frequency = Frequency(50),
        connections_per_ip: u32 = 1_000,
        max_connections: u32 = 100_000,
    }
    /// STUN and TURN.
    Turn {
        enabled: bool = true,
        realm: String = "callbox".into(),
        #[serde(serialize_with = "redact_all", deserialize_with = "one_or_many_secrets")]
        secrets: Vec<SecretString> = vec![],
        secrets_file: Option<PathBuf> = None,
        ttl: Span = Span(Duration::from_secs(3600)),
        max_session: Span = Span(Duration::from_secs(24 * 3600)),
        udp: Option<Vec<SocketAddr>> = None,
        tcp: Option<Vec<SocketAddr>> = None,
        workers: Option<u32> = None,
        alternate: Vec<SocketAddr> = vec![],
        relay_ports: Ports = Ports(49152..=65535),
        allowed_peers: Vec<IpNet> = vec![],
        denied_peers: Vec<IpNet> = vec![],
        user_quota: u32 = 128,
        ip_quota: u32 = 1_000,
        total_quota: u32 = 10_000,
        max_rate: Option<BitRate> = None,
        total_rate: Option<BitRate> = None,
    }
    /// The end of a run.
    Drain {
        grace: Span = Span(Duration::from_secs(30)),
    }
    /// What is written to the log.
    Log {
        format: LogFormat = LogFormat::Text,
        level: LogLevel = LogLevel::Info,
    }
}

/// Who may join rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Anyone, under any name.
    Open,
    /// Bearers of a token signed with the configured key.
    Jwt,
}

/// What happens when an identity joins a room that it is in already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UniqueIdentity {
    /// Both sessions stay.
    Allow,
    /// The newer session pushes out the older one.
    Replace,
    /// The newer session is refused.
    Reject,
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe line that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

fn one_or_many_secrets<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SecretString>, D::Error> {
    Ok(one_or_many(deserializer)?
        .into_iter()
        .map(SecretString::from)
        .collect())
}

const REDACTED: &str = "(redacted)";

fn redact<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| REDACTED).serialize(serializer)
}

fn redact_all<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| REDACTED))
}
