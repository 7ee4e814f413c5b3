//! `cluster`: several nodes as one service.

use super::collect::{Check, is_host};
use super::raw::{Isolated, Raw};
use super::tls::{CertificateSource, Tls};
use crate::auth::is_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;
use std::time::Duration;

/// The shortest secret that is taken, bytes: 128 bits written in hex.
const MIN_SECRET: usize = 32;
/// What an address of Redis begins with.
const SCHEMES: [&str; 5] = [
    "redis://",
    "rediss://",
    "unix:",
    "redis+sentinel://",
    "rediss+sentinel://",
];
/// Beats of two seconds have to fit in several times; beyond, the dead would be waited for too long.
const LEASES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(6)..=Duration::from_secs(300);
/// Longest prefix of keys, bytes.
const MAX_PREFIX: usize = 64;

/// A node of a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Where Redis is.
    pub redis: SecretString,
    /// The authority that signed Redis' certificate, as PEM.
    pub ca: Option<String>,
    /// The own certificate towards Redis and its key, as PEM.
    pub client: Option<(String, SecretString)>,
    /// Before every key and channel.
    pub prefix: String,
    /// The node's name.
    pub node: String,
    /// How long a node lives on without a sign of life.
    pub lease: Duration,
    /// What a node does without Redis.
    pub isolated: Isolated,
    /// Seal what nodes say and store; the first one seals.
    pub secrets: Vec<SecretString>,
    /// This node's own name in TURN URLs.
    pub turn_host: Option<String>,
}

impl Check<'_> {
    pub(super) fn cluster(&mut self, raw: &Raw, effective: &mut Raw, tls: &Tls) -> Option<Cluster> {
        let cluster = &raw.cluster;
        let redis = self.secret("cluster.redis", cluster.redis.clone(), &cluster.redis_file);
        let secrets = self.cluster_secrets(raw);
        let named = cluster.redis.is_some() || cluster.redis_file.is_some();
        if !named {
            let unused = [
                ("cluster.ca", cluster.ca.is_some()),
                ("cluster.cert", cluster.cert.is_some()),
                ("cluster.key", cluster.key.is_some()),
                ("cluster.node", cluster.node.is_some()),
                ("cluster.secret", !cluster.secret.is_empty()),
                ("cluster.secret_file", cluster.secret_file.is_some()),
                ("cluster.turn_host", cluster.turn_host.is_some()),
            ];
            for (key, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
                self.problem(key, "", "is set, and cluster.redis is not")
                    .set_fix("set cluster.redis to the address of Redis, or take this key out");
            }
            return None;
        }
        let redis = redis?;
        if !SCHEMES
            .iter()
            .any(|scheme| redis.expose_secret().starts_with(scheme))
        {
            self.problem("cluster.redis", "", "is not an address of Redis")
                .set_fix(
                    "write redis://user:password@host:6379/0, rediss:// with TLS, unix:/path, or \
                 redis+sentinel://host1,host2/name",
                );
        }
        if secrets.is_empty() {
            self.problem("cluster.secret", "", "is not set, and cluster.redis is")
                .set_fix("give all nodes one secret: `openssl rand -hex 32` makes one");
        }
        let written = !raw.turn.secrets.is_empty() || raw.turn.secrets_file.is_some();
        if raw.turn.enabled && !written {
            self.problem(
                "turn.secrets",
                "",
                "is not set, and this box is a node of a cluster",
            )
            .set_fix("give all nodes the same turn.secrets: each takes what any of them mints");
        }
        if !raw.turn.enabled && !written {
            self.warnings.push(
                "turn.secrets is not set, and this box is a node of a cluster: each node makes a secret of its own at \
                 its start, and refuses the invitations of the others (give all nodes the same turn.secrets)"
                    .into(),
            );
        }
        if matches!(tls.certificates, Some(CertificateSource::Acme(_))) {
            self.problem("tls.acme", "", "cannot be used by a node of a cluster").set_fix(
                "nodes behind one name would order against each other: set tls.cert and tls.key",
            );
        }
        if !LEASES.contains(&cluster.lease.0) {
            self.problem("cluster.lease", cluster.lease, "is not between 6s and 5min")
                .set_fix("set e.g. \"10s\"");
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let prefix = &cluster.prefix;
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(is_plain) {
            self.problem(
                "cluster.prefix",
                format!("{prefix:?}"),
                "is not a valid prefix of keys",
            )
            .set_fix("use letters, digits and -_.: only, at most 64 of them");
        }
        if let Some(host) = cluster.turn_host.as_ref().filter(|host| !is_host(host)) {
            self.problem(
                "cluster.turn_host",
                format!("{host:?}"),
                "is not a valid host name or IP address",
            )
            .set_fix("write the bare name, e.g. \"node-1.example.org\": no scheme, no port");
        }
        let node = cluster.node.clone().or_else(host_name).unwrap_or_default();
        if !is_name(&node) {
            self.problem("cluster.node", format!("{node:?}"), "is not a valid name")
                .set_fix("set cluster.node to a name that no other node has");
        }
        effective.cluster.node = Some(node.clone());
        let key = self.pem("cluster.key", &cluster.key);
        let cert = self.pem("cluster.cert", &cluster.cert);
        if cluster.key.is_some() != cluster.cert.is_some() {
            self.problem("cluster.cert", "", "and cluster.key go together")
                .set_fix("set both, or neither");
        }
        let ca = self.pem("cluster.ca", &cluster.ca);
        for (key, path, text) in [
            ("cluster.ca", &cluster.ca, &ca),
            ("cluster.cert", &cluster.cert, &cert),
        ] {
            if let (Some(path), Some(text)) = (path, text)
                && !has_certificates(text)
            {
                self.problem(key, path.display(), "has no certificate as PEM")
                    .set_fix(
                        "name a file with `-----BEGIN CERTIFICATE-----` in it (`openssl x509 -inform der -in FILE` \
                         makes one of a binary file)",
                    );
            }
        }
        if let (Some(path), Some(text)) = (&cluster.key, &key)
            && PrivateKeyDer::from_pem_slice(text.as_bytes()).is_err()
        {
            self.problem("cluster.key", path.display(), "has no private key as PEM")
                .set_fix("name a file with `-----BEGIN PRIVATE KEY-----` in it");
        }
        Some(Cluster {
            redis,
            ca,
            client: cert.zip(key.map(SecretString::from)),
            prefix: prefix.clone(),
            node,
            lease: cluster.lease.0,
            isolated: cluster.isolated,
            secrets,
            turn_host: cluster.turn_host.clone(),
        })
    }

    fn cluster_secrets(&mut self, raw: &Raw) -> Vec<SecretString> {
        let cluster = &raw.cluster;
        let secrets = match &cluster.secret_file {
            Some(_) if !cluster.secret.is_empty() => {
                self.both("cluster.secret");
                vec![]
            }
            Some(path) => {
                let text = self
                    .read_once("cluster.secret_file", path)
                    .unwrap_or_default();
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.map(SecretString::from).collect()
            }
            None => cluster.secret.clone(),
        };
        for secret in &secrets {
            let length = secret.expose_secret().len();
            if length < MIN_SECRET {
                let reason = format!("has {length} bytes and needs at least {MIN_SECRET}");
                self.problem("cluster.secret", "", reason)
                    .set_fix("`openssl rand -hex 32` makes one");
            }
        }
        secrets
    }

    fn pem(&mut self, key: &str, path: &Option<PathBuf>) -> Option<String> {
        self.read_once(key, path.as_ref()?)
    }
}

/// Whether a text has certificates, and each of them can be read.
fn has_certificates(text: &str) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(text.as_bytes()).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn load(toml: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("box.toml");
        std::fs::write(&file, toml).unwrap();
        Config::load(Some(&file), std::iter::empty()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_needs_its_secrets_and_a_redis() {
        let secret = "s".repeat(32);
        let turn = "[turn]\nsecrets = [\"0123456789abcdef\"]\n";
        let good = format!("{turn}[cluster]\nredis = \"redis://h\"\nsecret = \"{secret}\"\n");
        let cluster = load(&good).unwrap().cluster.unwrap();
        assert_eq!(cluster.prefix, "callbox");
        assert!(!cluster.node.is_empty());
        assert!(load("").unwrap().cluster.is_none());
        let unwritten = good.replace("secrets = [\"0123456789abcdef\"]", "enabled = false");
        let warnings = load(&unwritten).unwrap().warnings;
        assert!(
            warnings.iter().any(|w| w.contains("invitations")),
            "{warnings:?}"
        );
        for (toml, about) in [
            ("[cluster]\nredis = \"redis://h\"\n", "cluster.secret"),
            (
                &*format!("[cluster]\nsecret = \"{secret}\"\n"),
                "cluster.redis is not",
            ),
            (
                &*format!("[cluster]\nredis = \"redis://h\"\nsecret = \"{secret}\"\n"),
                "turn.secrets",
            ),
            (&*good.replace("redis://h", "http://h"), "not an address"),
            (&*good.replace(&secret, "short"), "5 bytes"),
            (&*format!("{good}lease = \"2s\"\n"), "cluster.lease"),
            (&*format!("{good}prefix = \"a b\"\n"), "cluster.prefix"),
            (
                &*format!("{good}cert = \"/nowhere\"\n"),
                "cluster.key go together",
            ),
        ] {
            let error = load(toml).unwrap_err();
            assert!(error.contains(about), "{about}: {error}");
        }
    }

    #[test]
    fn certificates_and_keys_for_redis_are_pem() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let made = rcgen::generate_simple_self_signed(["redis".to_owned()]).unwrap();
        let cert = file("cert.pem", &made.cert.pem());
        let key = file("key.pem", &made.signing_key.serialize_pem());
        let other = file("other", "0\u{2}MII");
        let broken = made.cert.pem().replacen('M', "?", 1);
        let broken = file("broken.pem", &broken);
        let toml = |ca: &str, cert: &str, key: &str| {
            format!(
                "[turn]\nsecrets = [\"0123456789abcdef\"]\n[cluster]\nredis = \"rediss://h\"\nsecret = \"{}\"\n\
                 ca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n",
                "s".repeat(32)
            )
        };
        load(&toml(&cert, &cert, &key)).unwrap();
        for (toml, about) in [
            (toml(&other, &cert, &key), "cluster.ca"),
            (toml(&broken, &cert, &key), "cluster.ca"),
            (toml(&cert, &key, &key), "cluster.cert"),
            (toml(&cert, &cert, &cert), "cluster.key"),
        ] {
            let error = load(&toml).unwrap_err();
            assert!(error.contains(about) && error.contains("BEGIN"), "{error}");
        }
    }
}
