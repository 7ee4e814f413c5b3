//! The configuration as it is written: one struct a TOML table, every key optional.
//!
//! Nothing is judged here beyond the form of a single value; [`super::Config`] does that.

use super::protocols::{Protocol, SocketIoProfile};
use super::values::{BitRate, ByteRate, Frequency, Ports, Size, Span};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
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
        hooks: Hooks = Hooks::default(),
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
        #[serde(deserialize_with = "list")]
        trusted_proxies: Vec<IpNet> = vec![],
        pages: bool = true,
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
        mode: Option<Mode> = None,
        #[serde(serialize_with = "redact")]
        secret: Option<SecretString> = None,
        secret_file: Option<PathBuf> = None,
        public_key: Option<String> = None,
        jwks: Option<PathBuf> = None,
        #[serde(deserialize_with = "list")]
        algorithms: Vec<String> = vec![],
        #[serde(serialize_with = "redact")]
        admin_token: Option<SecretString> = None,
        admin_token_file: Option<PathBuf> = None,
        issuer: Option<String> = None,
        #[serde(deserialize_with = "list")]
        audience: Vec<String> = vec![],
        leeway: Span = Span(Duration::from_secs(5)),
        enforce_exp: bool = false,
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
        ttl: Span = Span(Duration::from_secs(3600)),
        max_session: Span = Span(Duration::from_secs(24 * 3600)),
        #[serde(deserialize_with = "some_list")]
        udp: Option<Vec<SocketAddr>> = None,
        #[serde(deserialize_with = "some_list")]
        tcp: Option<Vec<SocketAddr>> = None,
        workers: Option<u32> = None,
        coalesce: Span = Span(Duration::from_micros(65)),
        #[serde(deserialize_with = "list")]
        alternate: Vec<SocketAddr> = vec![],
        relay_ports: Ports = Ports(49152..=65535),
        #[serde(deserialize_with = "list")]
        allowed_peers: Vec<IpNet> = vec![],
        #[serde(deserialize_with = "list")]
        denied_peers: Vec<IpNet> = vec![],
        user_quota: u32 = 128,
        ip_quota: u32 = 1_000,
        total_quota: u32 = 10_000,
        max_rate: Option<BitRate> = None,
        total_rate: Option<BitRate> = None,
    }
    /// Foreign protocols.
    Compat {
        #[serde(deserialize_with = "some_list")]
        enabled: Option<Vec<Protocol>> = None,
        socketio: SocketIo = SocketIo::default(),
        peerjs: PeerJs = PeerJs::default(),
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
    /// y-webrtc.
    YWebrtc {
        relay_only: bool = false,
    }
    /// Applications over Socket.IO.
    SocketIo {
        profile: SocketIoProfile = SocketIoProfile::Relay,
    }
    /// The end of a run.
    Drain {
        grace: Span = Span(Duration::from_secs(30)),
    }
    /// The application's backend.
    Hooks {
        authorize: Option<String> = None,
        #[serde(serialize_with = "redact")]
        secret: Option<SecretString> = None,
        secret_file: Option<PathBuf> = None,
        fail_open: bool = false,
        allow_private: bool = false,
    }
    /// Metrics beside the admin API.
    Metrics {
        listen: Option<SocketAddr> = None,
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

/// A list, or text with commas between its items: what an environment variable can hold.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: fmt::Display>,
{
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + FromStr<Err: fmt::Display>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            items
                .map(|item| {
                    item.parse()
                        .map_err(|e| E::custom(format!("{item:?}: {e}")))
                })
                .collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = vec![];
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(List(PhantomData))
}

fn some_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: fmt::Display>,
{
    list(deserializer).map(Some)
}

fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretString>, D::Error> {
    Ok(list::<D, String>(deserializer)?
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
