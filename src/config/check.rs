//! Raw values become valid ones; what is wrong is collected on the way.

use super::collect::{Check, is_host};
use super::raw::{BudgetThen, Http, Raw};
use super::tls::CertificateSource;
use super::{AddressRule, Budget, Config, Listen, Public, Turn};
use crate::auth::InviteKeys;
use crate::auth::credential::TurnSecrets;
use crate::origin::AllowedOrigin;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::time::Duration;

/// Bytes of a secret that the box makes for itself: as strong as the SHA-1 state it keys.
const MADE_SECRET_BYTES: usize = 20;
/// RFC 8489 section 14.10: a REALM is fewer than 128 characters.
const MAX_REALM: usize = 127;
/// Ten years: beyond any use, and far from where sums of times overflow.
const LONGEST_SPAN: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// RFC 8656 section 18 (and RFC 8489): the default port of TURN and STUN over UDP and TCP.
const TURN_PORT: u16 = 3478;
/// Where Binding requests are answered as well by default: from two ports, a client tells what kind
/// of NAT it is behind (RFC 5780).
const SECOND_STUN_PORT: u16 = 3479;
/// The longest pause of a relay worker: a delay that is not audible in a call.
const MAX_COALESCE: Duration = Duration::from_millis(5);
/// More threads than any machine has use for; workers are numbered in a byte.
const MAX_WORKERS: usize = 256;

impl Check<'_> {
    /// Judges everything; what is wrong is in `problems` afterwards.
    pub(super) fn config(&mut self, raw: Raw) -> Config {
        let mut effective = raw.clone();
        let public = self.public(&raw);
        let mut web = raw.http.listen.iter().chain(&raw.tls.listen);
        let loopback = web.all(|a| a.ip().is_loopback())
            && public.host.is_none()
            && public.ice_urls.is_empty()
            && public.addresses.is_empty()
            && public.stun.is_none();
        let mut auth = self.auth(&raw, loopback);
        let turn = self.turn(&raw, loopback);
        if let Some(verifier) = &mut auth.verifier {
            verifier.accept_invites(InviteKeys::new(&turn.secrets));
            verifier.accept_logins(auth.people.clone());
        }
        let tls = self.tls(&raw);
        let cluster = self.cluster(&raw, &mut effective, &tls);
        let compat = self.compat(&raw, loopback && auth.mode == super::Mode::Open);
        let hooks = self.hooks(&raw);
        let policy = self.policy(&raw);
        if let Some(all) = raw.net.denied_clients.iter().find(|n| n.prefix_len() == 0) {
            self.problem("net.denied_clients", all, "refuses everybody")
                .set_fix("name the networks that misbehave, e.g. [\"203.0.113.0/24\"]");
        }
        self.judge_networks(&raw, loopback);
        self.limits(&raw);
        let http = Http {
            allowed_origins: self.origins(&raw.http.allowed_origins),
            ..raw.http.clone()
        };
        effective
            .http
            .allowed_origins
            .clone_from(&http.allowed_origins);
        self.root(&raw);
        if raw.http.listen.is_empty() && raw.tls.listen.is_empty() {
            self.problem("http.listen", "[]", "leaves nothing to connect to")
                .set_fix("name at least one address, e.g. [\"127.0.0.1:8080\"]");
        }
        effective.auth.mode = Some(auth.mode);
        if let Some(CertificateSource::Acme(acme)) = &tls.certificates {
            effective.tls.acme.domains = acme.domains.clone();
        }
        effective.compat.enabled = Some(compat.enabled.iter().copied().collect());
        effective.turn.udp = Some(turn.udp.addresses.clone());
        effective.turn.tcp = Some(turn.tcp.addresses.clone());
        effective.turn.workers = Some(turn.workers as u32);
        Config {
            loopback,
            public,
            http,
            tls,
            auth,
            rooms: raw.rooms,
            signal: raw.signal,
            turn,
            compat,
            drain_grace: raw.drain.grace.0,
            upgrade_handover: raw.upgrade.handover && cluster.is_none(),
            cluster,
            hooks,
            policy,
            denied_clients: raw.net.denied_clients,
            metrics: raw.metrics.listen,
            log: raw.log,
            warnings: std::mem::take(&mut self.warnings),
            files: std::mem::take(&mut self.files),
            effective,
            layers: None,
        }
    }

    /// The application's own page.
    fn root(&mut self, raw: &Raw) {
        let Some(root) = &raw.http.root else {
            return;
        };
        if !root.is_dir() {
            self.problem(
                "http.root",
                root.display(),
                "is not a folder that can be read",
            )
            .set_fix("name the folder that holds the application's index.html");
        } else if !root.join("index.html").is_file() {
            self.warnings.push(format!(
                "http.root = {}: there is no index.html in it, so / answers 404",
                root.display()
            ));
        }
    }

    fn public(&mut self, raw: &Raw) -> Public {
        if let Some(host) = &raw.public.host
            && !is_host(host)
        {
            self.problem(
                "public.host",
                format!("{host:?}"),
                "is not a valid host name or IP address",
            )
            .set_fix("write the bare name, e.g. \"call.example.org\": no scheme, no port");
        }
        for url in &raw.public.ice_urls {
            if !["stun:", "turn:", "turns:"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
            {
                self.problem(
                    "public.ice_urls",
                    format!("{url:?}"),
                    "is not a valid ICE URL",
                )
                .set_fix("write e.g. \"turn:call.example.org:3478?transport=udp\"");
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
                        .set_fix("name the address that clients reach, or leave the key out");
                }
                (_, Ok(ip)) => {
                    let taken = |rule: &AddressRule| matches!(rule, AddressRule::Ip(other) if other.is_ipv4() == ip.is_ipv4());
                    if addresses.iter().any(taken) {
                        self.problem("public.address", entry, "is a second one of its family")
                            .set_fix("keep one IPv4 and one IPv6 address at most");
                    }
                    addresses.push(AddressRule::Ip(ip));
                }
                _ => {
                    self.problem(
                        "public.address",
                        format!("{entry:?}"),
                        "is not a valid IP address",
                    )
                    .set_fix("write an address, or \"dns:NAME\" to look one up");
                }
            }
        }
        if let Some(server) = &raw.public.stun
            && server
                .rsplit_once(':')
                .is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            self.problem("public.stun", format!("{server:?}"), "has no port")
                .set_fix("write HOST:PORT, e.g. \"stun.example.org:3478\"");
        }
        Public {
            host: raw.public.host.clone(),
            turn_host: raw.cluster.turn_host.clone(),
            ice_urls: raw.public.ice_urls.clone(),
            addresses,
            stun: raw.public.stun.clone(),
        }
    }

    /// The origins as browsers send them.
    fn origins(&mut self, written: &[String]) -> Vec<String> {
        let mut origins = vec![];
        for entry in written {
            match entry.parse::<AllowedOrigin>() {
                Ok(origin) => origins.push(origin.to_string()),
                Err(bad) => {
                    self.problem("http.allowed_origins", format!("{entry:?}"), bad.reason)
                        .set_fix(format!("write {:?}", bad.spelling));
                }
            }
        }
        origins
    }

    fn turn(&mut self, raw: &Raw, loopback: bool) -> Turn {
        let turn = &raw.turn;
        let unwelcome = |c: char| c == '"' || c.is_control();
        if turn.realm.is_empty() || turn.realm.len() > MAX_REALM || turn.realm.contains(unwelcome) {
            self.problem(
                "turn.realm",
                format!("{:?}", turn.realm),
                "is not a valid realm",
            )
            .set_fix("write 1 to 127 characters without quotes and controls, e.g. your domain");
        }
        let mut secrets = turn.secrets.clone();
        if let Some(path) = &turn.secrets_file {
            if secrets.is_empty() {
                let text = self.read("turn.secrets_file", path).unwrap_or_default();
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                secrets = lines.map(SecretString::from).collect();
                if secrets.is_empty() {
                    self.problem("turn.secrets_file", path.display(), "holds no secret")
                        .set_fix("put one secret on each line, the newest first");
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
            .set_fix("`openssl rand -hex 20` makes a secret");
        }
        for secret in &secrets {
            let file = turn.secrets_file.as_deref();
            self.judge_secret("turn.secrets", secret.expose_secret(), file);
        }
        let users = self.turn_users(raw);
        let made_secret = secrets.is_empty();
        let secrets = TurnSecrets::new(secrets)
            .unwrap_or_else(|| TurnSecrets::new(vec![made_secret_text()]).expect("there is one"));
        let udp = Listen::new(&turn.udp, loopback, &[TURN_PORT, SECOND_STUN_PORT]);
        let tcp = Listen::new(&turn.tcp, loopback, &[TURN_PORT]);
        for (key, listen) in [("turn.udp", &udp), ("turn.tcp", &tcp)] {
            let outside = |a: &&SocketAddr| !a.ip().is_loopback();
            if loopback && let Some(outside) = listen.addresses.iter().find(outside) {
                self.warnings.push(format!(
                    "{key} listens on {outside} while http.listen is loopback: the relay is \
                     reachable from outside, its credentials only from here"
                ));
            }
        }
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let workers = turn.workers.map_or_else(cores, |n| n as usize);
        if !(1..=MAX_WORKERS).contains(&workers) {
            self.problem("turn.workers", workers, "is not a valid number of threads")
                .set_fix("leave it out: one a core is what fits");
        }
        if turn.coalesce.0 > MAX_COALESCE {
            self.problem(
                "turn.coalesce",
                turn.coalesce,
                "is a delay that calls would feel",
            )
            .set_fix(
                "\"30us\" is the default, \"200us\" takes least CPU time, \"0s\" switches it off",
            );
        }
        Turn {
            enabled: turn.enabled,
            realm: turn.realm.clone(),
            secrets,
            users,
            users_file: turn.users_file.clone(),
            made_secret,
            ttl: turn.ttl.0,
            max_session: turn.max_session.0,
            udp,
            tcp,
            workers,
            coalesce: turn.coalesce.0,
            alternate: turn.alternate.clone(),
            relay_ports: turn.relay_ports.clone(),
            allowed_peers: turn.allowed_peers.clone(),
            denied_peers: turn.denied_peers.clone(),
            user_quota: turn.user_quota,
            ip_quota: turn.ip_quota,
            total_quota: turn.total_quota,
            max_rate: turn.max_rate,
            total_rate: turn.total_rate,
            icmp: turn.icmp,
            budget: Budget {
                total: turn.budget.total.map(|size| size.0),
                user: turn.budget.user.map(|size| size.0),
                secret: turn.budget.secret.map(|size| size.0),
                refuses: turn.budget.then == BudgetThen::Refuse,
            },
        }
    }

    fn limits(&mut self, raw: &Raw) {
        let signal = &raw.signal;
        for (key, value) in [
            ("auth.leeway", raw.auth.leeway),
            ("signal.heartbeat", signal.heartbeat),
            ("signal.timeout", signal.timeout),
            ("signal.resume_window", signal.resume_window),
            ("turn.ttl", raw.turn.ttl),
            ("turn.max_session", raw.turn.max_session),
            ("drain.grace", raw.drain.grace),
        ] {
            if value.0 > LONGEST_SPAN {
                self.problem(key, value, "is longer than ten years")
                    .set_fix("write e.g. \"1h\"");
            }
        }
        for (key, value) in [
            ("signal.heartbeat", signal.heartbeat),
            ("signal.timeout", signal.timeout),
            ("turn.ttl", raw.turn.ttl),
            ("turn.max_session", raw.turn.max_session),
        ] {
            if value.0 < Duration::from_secs(1) {
                self.problem(key, value, "is shorter than a second")
                    .set_fix("write e.g. \"30s\"");
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
                    .set_fix("write 1 or more");
            }
        }
        let frame = signal.max_frame;
        if !(1 << 10..=16 << 20).contains(&frame.0) {
            self.problem("signal.max_frame", frame, "is not between 1KiB and 16MiB")
                .set_fix("an SDP offer takes up to 30KiB; the default is 64KiB");
        }
        if signal.outbox.0 < frame.0 {
            self.problem("signal.outbox", signal.outbox, "cannot hold one frame")
                .set_fix(format!("write at least signal.max_frame, {frame}"));
        }
    }
}

impl Listen {
    /// What is written, or else `ports` on all addresses; on loopback if the box is to stay there.
    fn new(written: &Option<Vec<SocketAddr>>, loopback: bool, ports: &[u16]) -> Self {
        let default: [IpAddr; 2] = if loopback {
            [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else {
            [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        };
        let at = |port: &u16| default.map(|ip| SocketAddr::new(ip, *port));
        let default = || ports.iter().flat_map(at).collect();
        Self {
            explicit: written.is_some(),
            addresses: written.clone().unwrap_or_else(default),
        }
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
