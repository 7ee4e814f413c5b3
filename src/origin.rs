//! Web origins (RFC 6454) and the entries of `http.allowed_origins` that allow them. Pure, and
//! known by everybody.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use url::{Host, Url};

/// Schemes of web pages, whose origins the URL standard normalises.
const WEB_SCHEMES: [&str; 2] = ["http", "https"];

/// What is suggested where nothing better can be guessed.
const EXAMPLE: &str = "https://app.example.org";

/// One entry of `http.allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(Rule);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// `*`.
    Any,
    /// An origin as browsers send it.
    Exact(String),
    /// `scheme://*.rest[:port]`: one label in place of the star, and any port for `:*`.
    Pattern {
        scheme: String,
        /// What follows the label, its dot included; the whole host where there is no star.
        host: String,
        is_wildcard: bool,
        port: Port,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    Any,
    Is(Option<u16>),
}

/// Why an entry is not an origin, and how it is spelled rightly, where that can be guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadOrigin {
    /// What is wrong.
    pub reason: &'static str,
    /// The spelling that was probably meant.
    pub spelling: String,
}

impl FromStr for AllowedOrigin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        read(text.trim()).map_err(|bad| match read(&bad.spelling) {
            Ok(_) => bad,
            Err(_) => BadOrigin {
                spelling: EXAMPLE.into(),
                ..bad
            },
        })
    }
}

/// How `guess` is written down, or the spelling that its own error names.
fn nearest(guess: &str) -> String {
    guess
        .parse::<AllowedOrigin>()
        .map_or_else(|error| error.spelling, |origin| origin.to_string())
}

fn read(text: &str) -> Result<AllowedOrigin, BadOrigin> {
    match text.to_ascii_lowercase().as_str() {
        "*" => return Ok(AllowedOrigin(Rule::Any)),
        // What browsers send for pages of files and of sandboxed frames.
        "null" => return Ok(AllowedOrigin(Rule::Exact("null".into()))),
        "file:" | "file:/" | "file://" | "file:///" => {
            return Ok(AllowedOrigin(Rule::Exact("file://".into())));
        }
        _ => {}
    }
    let bad = |reason, spelling: String| Err(BadOrigin { reason, spelling });
    let example = || EXAMPLE.to_owned();
    let Some((scheme, rest)) = text.split_once("://") else {
        let guess = nearest(&format!("https://{text}"));
        return bad("has no scheme", guess);
    };
    let scheme = scheme.to_ascii_lowercase();
    if let "ws" | "wss" = scheme.as_str() {
        let web = if scheme == "ws" { "http" } else { "https" };
        let guess = nearest(&format!("{web}://{rest}"));
        return bad(
            "is where a page connects to: an origin is where the page comes from",
            guess,
        );
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !matches!(&rest[authority.len()..], "" | "/") {
        let guess = nearest(&format!("{scheme}://{authority}"));
        return bad(
            "has a path: browsers send scheme, host and port alone",
            guess,
        );
    }
    if let Some((_, host)) = authority.rsplit_once('@') {
        return bad(
            "has a user name: browsers send scheme, host and port alone",
            format!("{scheme}://{host}"),
        );
    }
    let (host, port) = match authority.strip_suffix(":*") {
        Some(host) => (host, Port::Any),
        None => (authority, Port::Is(None)),
    };
    let is_wildcard = host.starts_with("*.");
    let bare = host.strip_prefix("*.").unwrap_or(host);
    if bare.contains('*') {
        let name = bare.trim_start_matches(['*', '.', '-']);
        let name = if name.contains('*') || name.is_empty() {
            "example.org"
        } else {
            name
        };
        return bad(
            "has a star that does not stand for the first label",
            format!("{scheme}://*.{name}"),
        );
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme || bare.is_empty() {
        return bad("is not an origin", example());
    }
    if !WEB_SCHEMES.contains(&scheme.as_str()) {
        // Of packaged applications (`capacitor://localhost`): the browser sends them as they
        // stand.
        if is_wildcard || port == Port::Any || !authority.is_ascii() {
            return bad(
                "has a pattern for a scheme that takes none",
                format!("{scheme}://localhost"),
            );
        }
        return Ok(AllowedOrigin(Rule::Exact(format!(
            "{scheme}://{}",
            authority.to_ascii_lowercase()
        ))));
    }
    let parsed = Url::parse(&format!("{scheme}://{bare}"));
    let Some((url, name)) = parsed
        .ok()
        .and_then(|url| Some((url.clone(), url.host()?.to_string())))
    else {
        return bad("has a host or a port that is not valid", example());
    };
    let is_address = !matches!(url.host(), Some(Host::Domain(_)));
    if is_wildcard && (is_address || name.starts_with('.')) {
        return bad("has a star before an address", format!("{scheme}://{name}"));
    }
    Ok(AllowedOrigin(match (is_wildcard, port) {
        (false, Port::Is(_)) => Rule::Exact(url.origin().ascii_serialization()),
        (is_wildcard, port) => Rule::Pattern {
            host: if is_wildcard {
                format!(".{name}")
            } else {
                name
            },
            scheme,
            is_wildcard,
            port: match port {
                Port::Any => Port::Any,
                Port::Is(_) => Port::Is(url.port()),
            },
        },
    }))
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Any => f.write_str("*"),
            Rule::Exact(origin) => f.write_str(origin),
            Rule::Pattern {
                scheme,
                host,
                is_wildcard,
                port,
            } => {
                let star = if *is_wildcard { "*" } else { "" };
                write!(f, "{scheme}://{star}{host}")?;
                match port {
                    Port::Any => f.write_str(":*"),
                    Port::Is(Some(port)) => write!(f, ":{port}"),
                    Port::Is(None) => Ok(()),
                }
            }
        }
    }
}

impl AllowedOrigin {
    /// Whether every origin is allowed.
    pub fn is_any(&self) -> bool {
        self.0 == Rule::Any
    }

    /// Whether the entry allows the origin that a browser sent.
    pub fn allows(&self, origin: &Origin<'_>) -> bool {
        match &self.0 {
            Rule::Any => true,
            Rule::Exact(own) => own == origin.normal(),
            Rule::Pattern {
                scheme,
                host,
                is_wildcard,
                port,
            } => {
                let Some(url) = origin.url.as_ref().filter(|url| url.scheme() == scheme) else {
                    return false;
                };
                let name = url.host_str().unwrap_or_default();
                let fits = match is_wildcard {
                    false => name == host,
                    true => name
                        .strip_suffix(host.as_str())
                        .is_some_and(|label| !label.is_empty() && !label.contains('.')),
                };
                fits && match port {
                    Port::Any => true,
                    Port::Is(port) => url.port() == *port,
                }
            }
        }
    }

    /// Whether pages of the host `name` are allowed, whatever their scheme and port.
    pub fn names_host(&self, name: &str) -> bool {
        ["http", "https"].into_iter().any(|scheme| {
            let own = match &self.0 {
                Rule::Any => return true,
                Rule::Exact(own) => Origin::new(own),
                Rule::Pattern { .. } => {
                    return self
                        .without_port()
                        .allows(&Origin::new(&format!("{scheme}://{name}")));
                }
            };
            own.url.is_some_and(|url| {
                url.host_str()
                    .is_some_and(|own| own.eq_ignore_ascii_case(name))
            })
        })
    }

    fn without_port(&self) -> Self {
        match &self.0 {
            Rule::Pattern {
                scheme,
                host,
                is_wildcard,
                ..
            } => Self(Rule::Pattern {
                scheme: scheme.clone(),
                host: host.clone(),
                is_wildcard: *is_wildcard,
                port: Port::Any,
            }),
            other => Self(other.clone()),
        }
    }
}

/// The origin that a browser sent.
#[derive(Debug)]
pub struct Origin<'a> {
    text: &'a str,
    /// Present for web pages.
    url: Option<Url>,
    normal: Option<String>,
}

impl<'a> Origin<'a> {
    /// Reads it; what is not an origin of a web page is compared as it stands.
    pub fn new(text: &'a str) -> Self {
        let url = Url::parse(text).ok().filter(|url| {
            WEB_SCHEMES.contains(&url.scheme())
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let normal = match &url {
            Some(url) => Some(url.origin().ascii_serialization()),
            None => (text == "file:///").then(|| "file://".into()),
        };
        Self { text, url, normal }
    }

    fn normal(&self) -> &str {
        self.normal.as_deref().unwrap_or(self.text)
    }

    /// Scheme and host, with the port where it is not the scheme's own; `None` for what is not a web
    /// page.
    pub fn authority(&self) -> Option<(&str, String)> {
        let url = self.url.as_ref()?;
        let host = url.host_str()?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Some((url.scheme(), authority))
    }

    /// Whether the page comes from this machine.
    pub fn is_loopback(&self) -> bool {
        self.url
            .as_ref()
            .and_then(Url::host_str)
            .is_some_and(is_loopback_name)
    }
}

/// Whether a host (a name or an address, brackets allowed) is this machine whatever a name
/// server says.
pub fn is_loopback_name(host: &str) -> bool {
    let name = host.trim_end_matches('.');
    let is_localhost = |name: &str| name.eq_ignore_ascii_case("localhost");
    // RFC 6761 section 6.3: so do all names below it.
    let is_below = |name: &str| {
        name.rsplit_once('.')
            .is_some_and(|(_, last)| is_localhost(last))
    };
    is_localhost(name) || is_below(name) || address_of(name).is_some_and(|ip| ip.is_loopback())
}

/// The address that a host is, if it is one; brackets are allowed.
pub fn address_of(host: &str) -> Option<IpAddr> {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner
            .parse::<Ipv6Addr>()
            .ok()
            .map(|ip| IpAddr::V6(ip).to_canonical()),
        None => host
            .parse::<Ipv4Addr>()
            .map(IpAddr::from)
            .or_else(|_| {
                host.parse::<Ipv6Addr>()
                    .map(|ip| IpAddr::V6(ip).to_canonical())
            })
            .ok(),
    }
}

#[cfg(test)]
mod tests;
