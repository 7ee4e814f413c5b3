//! Configuration: raw TOML and environment → a validated [`Config`].
//!
//! Every error names its key, the value, the reason and a mend. Nothing here binds a port or
//! resolves a name.

mod raw;
mod source;
mod tls;
mod values;

pub use raw::{Http, Log, LogFormat, LogLevel, Mode, Raw, Rooms, Signal, UniqueIdentity};
pub use tls::{Acme, CertificateSource, Tls};
pub use values::{BitRate, Frequency, Ports, Size, Span};

use crate::auth::Signer;
use crate::auth::credential::TurnSecrets;
use crate::auth::token::Verifier;
use ipnet::IpNet;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use source::Layers;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a secret that the box makes for itself: as strong as the SHA-1 state it keys.
const MADE_SECRET_BYTES: usize = 20;
/// RFC 8489 section 14.10: a REALM is fewer than 128 characters.
const MAX_REALM: usize = 127;

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
    /// How long a drain waits for calls to end.
    pub drain_grace: Duration,
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

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    key: String,
    value: String,
    reason: String,
    mend: String,
    origin: Option<String>,
}

/// Why a configuration was refused: every problem found, one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl Config {
    /// Reads `file` (if any) under the `CALLBOX_…` variables of `env`.
    ///
    /// # Errors
    /// Every problem found, each with its key and a mend.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let layers = Layers::read(file, env)?;
        let mut check = Check {
            layers: &layers,
            problems: vec![],
            warnings: vec![],
        };
        let config = check.config(layers.raw()?);
        if check.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(check.problems))
        }
    }

    /// The configuration as it applies, secrets redacted, as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.effective).expect("the configuration is plain data")
    }

    /// The configuration as it applies, secrets redacted, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.effective).expect("the configuration is plain data")
    }
}

/// Turns raw values into valid ones and collects what is wrong on the way.
struct Check<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn config(&mut self, raw: Raw) -> Config {
        let mut effective = raw.clone();
        let public = self.public(&raw);
        let mut web = raw.http.listen.iter().chain(&raw.tls.listen);
        let loopback = web.all(|a| a.ip().is_loopback())
            && public.host.is_none()
            && public.ice_urls.is_empty()
            && public.addresses.is_empty()
            && public.stun.is_none();
        let auth = self.auth(&raw, loopback);
        let turn = self.turn(&raw, loopback);
        let tls = self.tls(&raw);
        self.limits(&raw);
        if raw.http.listen.is_empty() && raw.tls.listen.is_empty() {
            self.problem("http.listen", "[]", "leaves nothing to connect to")
                .set_mend("name at least one address, e.g. [\"127.0.0.1:8080\"]");
        }
        effective.auth.mode = Some(auth.mode);
        if let Some(CertificateSource::Acme(acme)) = &tls.certificates {
            effective.tls.acme.domains = acme.domains.clone();
        }
        effective.turn.udp = Some(turn.udp.addresses.clone());
        Config {
            loopback,
            public,
            http: raw.http,
            tls,
            auth,
            rooms: raw.rooms,
            signal: raw.signal,
            turn,
            drain_grace: raw.drain.grace.0,
            metrics: raw.metrics.listen,
            log: raw.log,
            warnings: std::mem::take(&mut self.warnings),
            effective,
        }
    }

    fn public(&mut self, raw: &Raw) -> Public {
        if let Some(host) = &raw.public.host {
            let is_name = !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
            if !is_name && host.parse::<IpAddr>().is_err() {
                self.problem(
                    "public.host",
                    format!("{host:?}"),
                    "is no host name or IP address",
                )
                .set_mend("write the bare name, e.g. \"call.example.org\": no scheme, no port");
            }
        }
        for url in &raw.public.ice_urls {
            if !["stun:", "turn:", "turns:"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
            {
                self.problem("public.ice_urls", format!("{url:?}"), "is no ICE URL")
                    .set_mend("write e.g. \"turn:call.example.org:3478?transport=udp\"");
            }
        }
        let mut addresses: Vec<AddressRule> = vec![];
        for entry in &raw.public.address {
            match (entry.strip_prefix("dns:"), entry.parse::<IpAddr>()) {
                (Some(name), _) if !name.is_empty() => {
                    addresses.push(AddressRule::Dns(name.into()))
                }
                (_, Ok(ip)) if ip.is_unspecified() || ip.is_multicast() => {
                    self.problem("public.address", entry, "is not an address of a host")
                        .set_mend("name the address that clients reach, or leave the key out");
                }
                (_, Ok(ip)) => {
                    let taken = |rule: &AddressRule| matches!(rule, AddressRule::Ip(other) if other.is_ipv4() == ip.is_ipv4());
                    if addresses.iter().any(taken) {
                        self.problem("public.address", entry, "is a second one of its family")
                            .set_mend("keep one IPv4 and one IPv6 address at most");
                    }
                    addresses.push(AddressRule::Ip(ip));
                }
                _ => {
                    self.problem("public.address", format!("{entry:?}"), "is no IP address")
                        .set_mend("write an address, or \"dns:NAME\" to look one up");
                }
            }
        }
        if let Some(server) = &raw.public.stun
            && server
                .rsplit_once(':')
                .is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            self.problem("public.stun", format!("{server:?}"), "has no port")
                .set_mend("write HOST:PORT, e.g. \"stun.example.org:3478\"");
        }
        Public {
            host: raw.public.host.clone(),
            ice_urls: raw.public.ice_urls.clone(),
            addresses,
            stun: raw.public.stun.clone(),
        }
    }

    fn auth(&mut self, raw: &Raw, loopback: bool) -> Auth {
        let secret = self.secret(
            "auth.secret",
            raw.auth.secret.clone(),
            &raw.auth.secret_file,
        );
        let mode = raw.auth.mode.unwrap_or(Mode::Open);
        if raw.auth.mode.is_none() && !loopback {
            self.problem(
                "auth.mode",
                "",
                "is not set, and the box is reachable from outside",
            )
            .set_mend(
                "write two lines: [auth] and mode = \"open\" (anyone may join), \
                     or mode = \"jwt\" beside secret = \"…\"",
            );
        }
        let has_key = secret.is_some() || raw.auth.public_key.is_some() || raw.auth.jwks.is_some();
        match mode {
            Mode::Jwt if !has_key => self
                .problem("auth.secret", "", "is not set, and auth.mode = \"jwt\" needs a key")
                .set_mend("set auth.secret, auth.public_key or auth.jwks; `openssl rand -hex 32` makes a secret"),
            Mode::Open if has_key => self.warnings.push(
                "auth has a key, but auth.mode is \"open\": tokens are not asked for".into(),
            ),
            _ => {}
        }
        let signer = secret.as_ref().and_then(|secret| {
            let (issuer, audience) = (raw.auth.issuer.clone(), raw.auth.audience.clone());
            Signer::new(secret, &raw.auth.algorithms, issuer, audience)
        });
        let verifier = self.verifier(&raw.auth, secret);
        let admin_token = self.secret(
            "auth.admin_token",
            raw.auth.admin_token.clone(),
            &raw.auth.admin_token_file,
        );
        if admin_token
            .as_ref()
            .is_some_and(|token| token.expose_secret().is_empty())
        {
            self.problem(
                "auth.admin_token",
                "",
                "is empty, and anyone could send that",
            )
            .set_mend("`openssl rand -hex 32` makes one; without the key there is no admin API");
        }
        Auth {
            mode,
            verifier: (mode == Mode::Jwt).then_some(verifier),
            admin_token,
            signer,
        }
    }

    fn verifier(&mut self, auth: &raw::Auth, secret: Option<SecretString>) -> Verifier {
        let mut verifier = Verifier::new(
            auth.issuer.clone(),
            auth.audience.clone(),
            auth.leeway.0.as_secs(),
        );
        if let Some(secret) = secret {
            let length = secret.expose_secret().len();
            if length == 0 {
                self.problem(
                    "auth.secret",
                    "",
                    "is empty, and anyone could sign with that",
                )
                .set_mend("`openssl rand -hex 32` makes one");
            } else if length < 32 {
                self.warnings.push(format!(
                    "auth.secret has {length} bytes; RFC 7518 section 3.2 asks for 32 with HS256"
                ));
            }
            verifier.add_secret(&secret);
        }
        if let Some(key) = &auth.public_key {
            let pem = if key.trim_start().starts_with("-----BEGIN") {
                Some(key.clone())
            } else {
                self.read("auth.public_key", Path::new(key))
            };
            if let Some(Err(reason)) = pem.map(|pem| verifier.add_pem(&pem)) {
                self.problem("auth.public_key", "", reason)
                    .set_mend("name a PEM file, or paste one that begins with BEGIN PUBLIC KEY");
            }
        }
        if let Some(path) = &auth.jwks
            && let Some(json) = self.read("auth.jwks", path)
            && let Err(reason) = verifier.add_jwks(&json)
        {
            self.problem("auth.jwks", path.display(), reason)
                .set_mend("name a file as your identity provider serves at jwks_uri");
        }
        if let Err(reason) = verifier.restrict(&auth.algorithms) {
            self.problem("auth.algorithms", "", reason)
                .set_mend("name what your tokens are signed with, e.g. [\"HS256\"]");
        }
        verifier
    }

    fn turn(&mut self, raw: &Raw, loopback: bool) -> Turn {
        let turn = &raw.turn;
        if turn.realm.is_empty() || turn.realm.len() > MAX_REALM || turn.realm.contains('"') {
            self.problem("turn.realm", format!("{:?}", turn.realm), "is no realm")
                .set_mend("write 1 to 127 characters without quotes, e.g. your domain");
        }
        let mut secrets = turn.secrets.clone();
        if let Some(path) = &turn.secrets_file {
            if secrets.is_empty() {
                let text = self.read("turn.secrets_file", path).unwrap_or_default();
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                secrets = lines.map(SecretString::from).collect();
                if secrets.is_empty() {
                    self.problem("turn.secrets_file", path.display(), "holds no secret")
                        .set_mend("put one secret on each line, the newest first");
                }
            } else {
                self.both("turn.secrets");
            }
        }
        if secrets.iter().any(|s| s.expose_secret().is_empty()) {
            self.problem(
                "turn.secrets",
                "",
                "has an empty entry, and anyone could mint with that",
            )
            .set_mend("`openssl rand -hex 20` makes a secret");
        }
        let made_secret = secrets.is_empty();
        let secrets = TurnSecrets::new(secrets)
            .unwrap_or_else(|| TurnSecrets::new(vec![made_secret_text()]).expect("there is one"));
        let port = 3478;
        let default: [IpAddr; 2] = if loopback {
            [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else {
            [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        };
        let udp = Listen {
            explicit: turn.udp.is_some(),
            addresses: turn
                .udp
                .clone()
                .unwrap_or_else(|| default.map(|ip| SocketAddr::new(ip, port)).to_vec()),
        };
        if loopback && let Some(outside) = udp.addresses.iter().find(|a| !a.ip().is_loopback()) {
            self.warnings.push(format!(
                "turn.udp listens on {outside} while http.listen is loopback: the relay is \
                 reachable from outside, its credentials only from here"
            ));
        }
        Turn {
            enabled: turn.enabled,
            realm: turn.realm.clone(),
            secrets,
            made_secret,
            ttl: turn.ttl.0,
            max_session: turn.max_session.0,
            udp,
            relay_ports: turn.relay_ports.clone(),
            allowed_peers: turn.allowed_peers.clone(),
            denied_peers: turn.denied_peers.clone(),
            user_quota: turn.user_quota,
            ip_quota: turn.ip_quota,
            total_quota: turn.total_quota,
            max_rate: turn.max_rate,
            total_rate: turn.total_rate,
        }
    }

    fn limits(&mut self, raw: &Raw) {
        let signal = &raw.signal;
        for (key, value) in [
            ("signal.heartbeat", signal.heartbeat),
            ("signal.timeout", signal.timeout),
            ("turn.ttl", raw.turn.ttl),
            ("turn.max_session", raw.turn.max_session),
        ] {
            if value.0 < Duration::from_secs(1) {
                self.problem(key, value, "is shorter than a second")
                    .set_mend("write e.g. \"30s\"");
            }
        }
        for (key, value) in [
            ("rooms.max_peers", raw.rooms.max_peers),
            ("rooms.max_rooms", raw.rooms.max_rooms),
            ("signal.connections_per_ip", signal.connections_per_ip),
            ("signal.max_connections", signal.max_connections),
            ("turn.user_quota", raw.turn.user_quota),
            ("turn.ip_quota", raw.turn.ip_quota),
            ("turn.total_quota", raw.turn.total_quota),
        ] {
            if value == 0 {
                self.problem(key, 0, "would refuse everybody")
                    .set_mend("write 1 or more");
            }
        }
        let frame = signal.max_frame;
        if !(1 << 10..=16 << 20).contains(&frame.0) {
            self.problem("signal.max_frame", frame, "is not between 1KiB and 16MiB")
                .set_mend("an SDP offer takes up to 30KiB; the default is 64KiB");
        }
        if signal.outbox.0 < frame.0 {
            self.problem("signal.outbox", signal.outbox, "cannot hold one frame")
                .set_mend(format!("write at least signal.max_frame, {frame}"));
        }
    }

    fn secret(
        &mut self,
        key: &str,
        inline: Option<SecretString>,
        file: &Option<PathBuf>,
    ) -> Option<SecretString> {
        match (inline, file) {
            (Some(_), Some(_)) => {
                self.both(key);
                None
            }
            (None, Some(path)) => {
                let text = self.read(&format!("{key}_file"), path)?;
                Some(SecretString::from(text.trim_end_matches(['\r', '\n'])))
            }
            (inline, None) => inline,
        }
    }

    fn read(&mut self, key: &str, path: &Path) -> Option<String> {
        std::fs::read_to_string(path)
            .map_err(|error| {
                self.problem(key, path.display(), error)
                    .set_mend("name a file that this user can read");
            })
            .ok()
    }

    fn both(&mut self, key: &str) {
        self.problem(
            &format!("{key}_file"),
            "",
            format!("is set, and so is {key}"),
        )
        .set_mend("keep one of the two");
    }

    fn problem(
        &mut self,
        key: &str,
        value: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> &mut Problem {
        let problem = Problem::new(key, value, reason).origin(self.layers.origin(key));
        self.problems.push(problem);
        self.problems.last_mut().expect("one was pushed")
    }
}

fn made_secret_text() -> SecretString {
    let mut bytes = [0; MADE_SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    bytes
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<String>()
        .into()
}

impl Problem {
    /// States what is wrong with the value of `key`.
    pub fn new(
        key: impl fmt::Display,
        value: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            key: key.to_string(),
            value: value.to_string(),
            reason: reason.to_string(),
            mend: String::new(),
            origin: None,
        }
    }

    /// Adds what to do about it.
    pub fn mend(mut self, mend: impl fmt::Display) -> Self {
        self.set_mend(mend);
        self
    }

    fn set_mend(&mut self, mend: impl fmt::Display) {
        self.mend = mend.to_string();
    }

    fn origin(mut self, origin: Option<String>) -> Self {
        self.origin = origin;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.reason)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

#[cfg(test)]
mod tests;
