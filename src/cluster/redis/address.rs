//! Where Redis is, as the configuration writes it.

use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisResult, TlsCertificates,
    TlsMode,
};
use std::fmt;
use url::Url;

/// The forms that an address has, for messages.
const FORMS: &str = "redis://user:password@host:6379/0, rediss:// with TLS, unix:/path, or \
                     redis+sentinel://host1,host2/name";

/// Why an address is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has none of the forms.
    #[error("not an address of Redis: write {FORMS}")]
    Form,
    /// A path of a socket is not absolute.
    #[error("the path of a Unix socket begins with /")]
    Path,
    /// The name by which sentinels know the primary is absent.
    #[error("the name of the primary is absent: redis+sentinel://host1,host2/name")]
    Service,
}

/// Where Redis is, and how to get in. Its `Debug` form hides the password.
#[derive(Clone)]
pub struct Address {
    url: Url,
    /// Sentinels: where they are, and the name that they know the primary by.
    sentinels: Option<(Vec<(String, u16)>, String)>,
    tls: Option<Certificates>,
}

/// What TLS towards Redis takes besides the system's roots, as PEM.
#[derive(Clone, Default)]
pub struct Certificates {
    /// The authority that signed Redis' certificate, in place of the system's.
    pub ca: Option<Vec<u8>>,
    /// The own certificate and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.url.scheme())?;
        match (&self.sentinels, self.url.host_str()) {
            (Some((hosts, service)), _) => {
                let hosts: Vec<_> = hosts
                    .iter()
                    .map(|(host, port)| format!("{host}:{port}"))
                    .collect();
                write!(f, "//{}/{service}", hosts.join(","))
            }
            (None, Some(host)) => write!(f, "//{host}:{}", self.url.port().unwrap_or(DEFAULT_PORT)),
            (None, None) => f.write_str(self.url.path()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// It has none of the forms.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or(AddressError::Form)?;
        let plain = |text: &str| Url::parse(text).or(Err(AddressError::Form));
        match scheme {
            "redis" | "rediss" => {
                let url = plain(text)?;
                let has_host = url.host_str().is_some_and(|host| !host.is_empty());
                let db = url.path().trim_start_matches('/');
                if !has_host || !(db.is_empty() || db.parse::<i64>().is_ok()) {
                    return Err(AddressError::Form);
                }
                Ok(Self::new(url, None))
            }
            "unix" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(AddressError::Path);
                }
                Ok(Self::new(plain(&format!("unix://{path}"))?, None))
            }
            "redis+sentinel" | "rediss+sentinel" => Self::sentinels(scheme, rest),
            _ => Err(AddressError::Form),
        }
    }

    /// `//user:password@host1:port,host2/name/db`: no URL, as it has several hosts.
    fn sentinels(scheme: &str, rest: &str) -> Result<Self, AddressError> {
        let rest = rest.strip_prefix("//").ok_or(AddressError::Form)?;
        let (place, path) = rest.split_once('/').ok_or(AddressError::Service)?;
        let (user, hosts) = match place.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), place),
        };
        let (service, db) = path.split_once('/').unwrap_or((path, ""));
        if service.is_empty() {
            return Err(AddressError::Service);
        }
        let parse = |host: &str| {
            let url = Url::parse(&format!("redis://{host}")).or(Err(AddressError::Form))?;
            let name = url.host_str().filter(|name| !name.is_empty());
            let name = name.ok_or(AddressError::Form)?;
            Ok((bare(name), url.port().unwrap_or(SENTINEL_PORT)))
        };
        let hosts: Vec<_> = hosts.split(',').map(parse).collect::<Result<_, _>>()?;
        // What is the same for every host: user, password, number of the database.
        let scheme = scheme.trim_end_matches("+sentinel");
        let common = format!("{scheme}://{user}sentinel/{db}");
        let common = Self::parse(&common)?;
        Ok(Self::new(common.url, Some((hosts, service.to_owned()))))
    }

    fn new(url: Url, sentinels: Option<(Vec<(String, u16)>, String)>) -> Self {
        Self {
            url,
            sentinels,
            tls: None,
        }
    }

    /// Takes certificates for TLS.
    pub fn with_certificates(mut self, certificates: Certificates) -> Self {
        self.tls = Some(certificates);
        self
    }

    /// Whether Redis is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "rediss"
    }

    /// Whether what is said to Redis stays in this machine.
    pub fn is_local(&self) -> bool {
        self.url.scheme() == "unix"
    }

    fn certificates(&self) -> TlsCertificates {
        let tls = self.tls.clone().unwrap_or_default();
        let client_tls = tls.client.map(|(client_cert, client_key)| ClientTlsConfig {
            client_cert,
            client_key,
        });
        TlsCertificates {
            client_tls,
            root_cert: tls.ca,
        }
    }

    /// Finds the primary where sentinels know it, and makes a client of it. Nothing is dialed
    /// otherwise.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        let Some((hosts, service)) = &self.sentinels else {
            return match self.is_tls() {
                true => Client::build_with_tls(self.url.clone(), self.certificates()),
                false => Client::open(self.url.clone()),
            };
        };
        let info = self.url.clone().into_connection_info()?;
        let addresses = hosts.iter().map(|(host, port)| match self.is_tls() {
            true => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
            false => ConnectionAddr::Tcp(host.clone(), *port),
        });
        let mut builder =
            SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
                .set_client_to_redis_db(info.redis_settings().db());
        if let Some(user) = info.redis_settings().username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = info.redis_settings().password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if self.is_tls() {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(self.certificates())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(self.certificates());
        }
        builder.build()?.async_get_client().await
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_few_forms_and_show_no_password() {
        for (text, shown) in [
            ("redis://redis.example", "redis://redis.example:6379"),
            ("redis://user:secret@h:7000/3", "redis://h:7000"),
            (
                "rediss://:secret@[2001:db8::1]:1",
                "rediss://[2001:db8::1]:1",
            ),
            ("unix:/run/redis/redis.sock", "unix:/run/redis/redis.sock"),
            ("unix:///run/r.sock?db=2&pass=secret", "unix:/run/r.sock"),
            ("redis+sentinel://a,b:7/main", "redis://a:26379,b:7/main"),
            (
                "rediss+sentinel://u:secret@[::1]:5,b/main/2",
                "rediss://::1:5,b:26379/main",
            ),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(format!("{address:?}"), shown);
            assert_eq!(address.is_tls(), text.starts_with("rediss"));
            assert_eq!(address.is_local(), text.starts_with("unix"));
        }
        for (text, error) in [
            ("redis.example", AddressError::Form),
            ("http://redis.example", AddressError::Form),
            ("redis://", AddressError::Form),
            ("redis://h/name", AddressError::Form),
            ("unix:redis.sock", AddressError::Path),
            ("redis+sentinel://a,b", AddressError::Service),
            ("redis+sentinel://a,b/", AddressError::Service),
            ("redis+sentinel://a,,b/main", AddressError::Form),
        ] {
            assert_eq!(Address::parse(text).err(), Some(error), "{text}");
        }
    }
}
