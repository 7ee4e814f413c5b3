//! The configuration as it is written: one struct a TOML table, every key optional.
//!
//! Nothing is judged here beyond the form of a single value; [`super::Config`] does that.

use super::forms::{list, networks, passwords, secrets, some_list, some_word, word};
use super::protocols::{Protocol, SocketIoProfile};
use super::rules::{CallRule, MessageRule, NamedToken};
use super::values::{BitRate, ByteRate, Frequency, Ports, Size, Span};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
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
        compat: Compat = Compat::default(),
        drain: Drain = Drain::default(),
        cluster: Cluster = Cluster::default(),
        upgrade: Upgrade = Upgrade::default(),
        hooks: Hooks = Hooks::default(),
        policy: Policy = Policy::default(),
        net: Net = Net::default(),
        metrics: Metrics = Metrics::default(),
        log: Log = Log::default(),
    }
    /// How the box is reached from outside.
    Public {
        host: Option<String> = None,
        #[serde(deserialize_with = "list")]
        ice_urls: Vec<String> = vec![],
        #[serde(deserialize_with = "list")]
        address: Vec<String> = vec![],
        stun: Option<String> = None,
    }
    /// Plain HTTP and WebSocket.
    Http {
        #[serde(deserialize_with = "list")]
        listen: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
        #[serde(deserialize_with = "list")]
        allowed_origins: Vec<String> = vec![],
        #[serde(deserialize_with = "networks")]
        trusted_proxies: Vec<IpNet> = vec![],
        pages: bool = true,
        root: Option<PathBuf> = None,
    }
    /// The port that carries HTTPS, WSS and TURN over TLS.
    Tls {
        #[serde(deserialize_with = "list")]
        listen: Vec<SocketAddr> = vec![],
        cert: Option<PathBuf> = None,
        key: Option<PathBuf> = None,
        proxy_protocol: bool = false,
        acme: Acme = Acme::default(),
    }
    /// Certificates from an ACME authority.
    Acme {
        email: Option<String> = None,
        directory: String = "https://acme-v02.api.letsencrypt.org/directory".into(),
        cache: PathBuf = "/var/lib/callbox/acme".into(),
        #[serde(deserialize_with = "list")]
        domains: Vec<String> = vec![],
    }
    /// Who may come in.
    Auth {
        #[serde(deserialize_with = "some_word")]
        mode: Option<Mode> = None,
        #[serde(serialize_with = "redact")]
        secret: Option<SecretString> = None,
        secret_file: Option<PathBuf> = None,
        public_key: Option<String> = None,
        jwks: Option<String> = None,
        #[serde(deserialize_with = "list")]
        algorithms: Vec<String> = vec![],
        #[serde(serialize_with = "redact")]
        admin_token: Option<SecretString> = None,
        admin_token_file: Option<PathBuf> = None,
        admin_tokens: BTreeMap<String, NamedToken> = BTreeMap::new(),
        issuer: Option<String> = None,
        #[serde(deserialize_with = "list")]
        audience: Vec<String> = vec![],
        leeway: Span = Span(Duration::from_secs(5)),
        enforce_exp: bool = false,
        #[serde(serialize_with = "redact_map", deserialize_with = "passwords")]
        users: BTreeMap<String, SecretString> = BTreeMap::new(),
        users_file: Option<PathBuf> = None,
    }
    /// Limits of rooms.
    Rooms {
        max_peers: u32 = 50,
        max_rooms: u32 = 10_000,
        #[serde(deserialize_with = "word")]
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
        byte_rate: ByteRate = ByteRate(256 << 10),
        connections_per_ip: u32 = 1_000,
        max_connections: u32 = 100_000,
    }
    /// STUN and TURN.
    Turn {
        enabled: bool = true,
        realm: String = "callbox".into(),
        #[serde(serialize_with = "redact_all", deserialize_with = "secrets")]
        secrets: Vec<SecretString> = vec![],
        secrets_file: Option<PathBuf> = None,
        #[serde(serialize_with = "redact_map", deserialize_with = "passwords")]
        users: BTreeMap<String, SecretString> = BTreeMap::new(),
        users_file: Option<PathBuf> = None,
        ttl: Span = Span(Duration::from_secs(3600)),
        max_session: Span = Span(Duration::from_secs(24 * 3600)),
        #[serde(deserialize_with = "some_list")]
        udp: Option<Vec<SocketAddr>> = None,
        #[serde(deserialize_with = "some_list")]
        tcp: Option<Vec<SocketAddr>> = None,
        workers: Option<u32> = None,
        coalesce: Span = Span(Duration::from_micros(30)),
        #[serde(deserialize_with = "list")]
        alternate: Vec<SocketAddr> = vec![],
        relay_ports: Ports = Ports(49152..=65535),
        #[serde(deserialize_with = "networks")]
        allowed_peers: Vec<IpNet> = vec![],
        #[serde(deserialize_with = "networks")]
        denied_peers: Vec<IpNet> = vec![],
        user_quota: u32 = 128,
        ip_quota: u32 = 1_000,
        total_quota: u32 = 10_000,
        max_rate: Option<BitRate> = None,
        total_rate: Option<BitRate> = None,
        icmp: bool = false,
        budget: Budget = Budget::default(),
    }
    /// What may be relayed in a month.
    Budget {
        total: Option<Size> = None,
        user: Option<Size> = None,
        secret: Option<Size> = None,
        #[serde(deserialize_with = "word")]
        then: BudgetThen = BudgetThen::Warn,
    }
    /// Foreign protocols.
    Compat {
        #[serde(deserialize_with = "some_list")]
        enabled: Option<Vec<Protocol>> = None,
        socketio: SocketIo = SocketIo::default(),
        peerjs: PeerJs = PeerJs::default(),
        mqtt: Mqtt = Mqtt::default(),
        #[serde(rename = "y-webrtc")]
        y_webrtc: YWebrtc = YWebrtc::default(),
    }
    /// PeerJS.
    PeerJs {
        key: String = "peerjs".to_owned(),
        #[serde(deserialize_with = "list")]
        paths: Vec<String> = vec!["/".to_owned(), "/peerjs".to_owned()],
        relay_only: bool = false,
    }
    /// MQTT.
    Mqtt {
        rooms: Option<String> = None,
    }
    /// y-webrtc.
    YWebrtc {
        relay_only: bool = false,
    }
    /// Applications over Socket.IO.
    SocketIo {
        #[serde(deserialize_with = "word")]
        profile: SocketIoProfile = SocketIoProfile::Relay,
    }
    /// The end of a run.
    Drain {
        grace: Span = Span(Duration::from_secs(30)),
    }
    /// Several nodes as one service.
    Cluster {
        #[serde(serialize_with = "redact")]
        redis: Option<SecretString> = None,
        redis_file: Option<PathBuf> = None,
        ca: Option<PathBuf> = None,
        cert: Option<PathBuf> = None,
        key: Option<PathBuf> = None,
        prefix: String = "callbox".to_owned(),
        node: Option<String> = None,
        lease: Span = Span(Duration::from_secs(10)),
        #[serde(deserialize_with = "word")]
        isolated: Isolated = Isolated::Serve,
        #[serde(serialize_with = "redact_all", deserialize_with = "secrets")]
        secret: Vec<SecretString> = vec![],
        secret_file: Option<PathBuf> = None,
        turn_host: Option<String> = None,
    }
    /// What an upgrade does.
    Upgrade {
        handover: bool = true,
    }
    /// The application's backend.
    Hooks {
        url: Option<String> = None,
        authorize: Option<String> = None,
        #[serde(serialize_with = "redact")]
        secret: Option<SecretString> = None,
        secret_file: Option<PathBuf> = None,
        fail_open: bool = false,
        allow_private: bool = false,
    }
    /// What members may send, and whom they may call.
    Policy {
        messages: Vec<MessageRule> = vec![],
        calls: Vec<CallRule> = vec![],
    }
    /// Every listener.
    Net {
        #[serde(deserialize_with = "networks")]
        denied_clients: Vec<IpNet> = vec![],
    }
    /// Metrics beside the admin API.
    Metrics {
        listen: Option<SocketAddr> = None,
    }
    /// What is written to the log.
    Log {
        #[serde(deserialize_with = "word")]
        format: LogFormat = LogFormat::Text,
        #[serde(deserialize_with = "word")]
        level: LogLevel = LogLevel::Info,
        #[serde(deserialize_with = "word")]
        addresses: LogAddresses = LogAddresses::Full,
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

/// What a node of a cluster does without Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolated {
    /// It serves the rooms that it has.
    Serve,
    /// It closes its connections.
    Stop,
}

/// What happens once a budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetThen {
    /// The log says so.
    Warn,
    /// New allocations are refused until the month ends.
    Refuse,
}

/// What of client addresses reaches logs, the admin API and the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogAddresses {
    /// All.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Network,
    /// Nothing.
    None,
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

fn redact_map<S: Serializer>(
    secrets: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.keys().map(|name| (name, REDACTED)))
}

const REDACTED: &str = "(redacted)";

fn redact<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| REDACTED).serialize(serializer)
}

fn redact_all<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| REDACTED))
}
