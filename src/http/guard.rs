//! What every request passes first: the Host check, the Origin check, CORS, and the client's
//! address behind trusted proxies.

use super::forwarded;
use super::problem::Problem;
use super::serve::Caller;
use crate::net::{Charge, Place};
use crate::origin::{AllowedOrigin, Origin, address_of, is_loopback_name};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Seconds that a browser may remember a preflight: Chromium's cap.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// RFC 6797: for half a year browsers ask this host by TLS only. Not for the names below it, which
/// may be somebody else's.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=15552000");

/// Paths whose clients ask with credentials, though they mean nothing here: some always do.
const WITH_CREDENTIALS: [&str; 1] = ["/socket.io"];

/// Whom a listener answers.
#[derive(Debug, Clone)]
pub struct Guard {
    /// `public.host`.
    pub public_host: Option<String>,
    /// `http.allowed_origins`.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// `http.trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the listener is bound to loopback.
    pub loopback: bool,
    /// Whether the listener speaks TLS.
    pub tls: bool,
}

/// The client's address: the socket's, or what a trusted proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddr(pub(super) IpAddr);

/// Whether the client's own connection is over TLS, as this listener or a trusted proxy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverTls(pub(super) bool);

/// What a request holds in the count of connections, for as long as a WebSocket made of it lives.
#[derive(Clone)]
pub(super) struct Held {
    _place: Arc<Place>,
    /// Of a client behind a trusted proxy.
    _charge: Option<Arc<Charge>>,
}

impl Held {
    pub(super) fn of(request: &mut Parts) -> Option<Self> {
        request.extensions.remove()
    }
}

/// Middleware that applies a [`Guard`].
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let path = request.uri().path();
    let with_credentials = WITH_CREDENTIALS
        .iter()
        .any(|prefix| path.starts_with(prefix));
    let (origin, mut response) = match guard.admit(&caller, request) {
        Ok((origin, _)) if preflight => (origin, StatusCode::NO_CONTENT.into_response()),
        Ok((origin, request)) => (origin, next.run(request).await),
        Err(problem) if with_credentials => (None, problem.into_engine_io()),
        Err(problem) => (None, problem.into_response()),
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if guard.tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if with_credentials {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        if preflight {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
            );
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("Authorization, Content-Type, Last-Event-ID"),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        }
    }
    response
}

impl Guard {
    /// Judges a request; returns the Origin to echo, and the request with what handlers ask of it.
    fn admit(
        &self,
        caller: &Caller,
        mut request: Request,
    ) -> Result<(Option<HeaderValue>, Request), Problem> {
        let proxied = self.is_proxy(caller.client.ip());
        let hosts = hosts(request.uri(), request.headers(), request.version())?;
        self.check_hosts(&hosts, caller.local.ip(), proxied)?;
        // The library is code and no data: it may be read from everywhere.
        let is_library = request.uri().path().starts_with(super::sdk::PREFIX);
        let origin = match self.check_origin(request.headers(), hosts.first().map(String::as_str)) {
            _ if is_library => Some(HeaderValue::from_static("*")),
            judged => judged?,
        };
        let client =
            forwarded::client(caller.client.ip(), request.headers(), &self.trusted_proxies);
        let charge = match proxied && caller.client.ip().to_canonical() != client {
            true => Some(caller.place.charge(client).map_err(too_many)?),
            false => None,
        };
        let scheme = request.headers().get("x-forwarded-proto");
        let over_tls = self.tls || proxied && scheme.is_some_and(|scheme| scheme == "https");
        let extensions = request.extensions_mut();
        extensions.insert(OverTls(over_tls));
        extensions.insert(ClientAddr(client));
        extensions.insert(Held {
            _place: Arc::clone(&caller.place),
            _charge: charge.map(Arc::new),
        });
        Ok((origin, request))
    }

    fn is_proxy(&self, socket: IpAddr) -> bool {
        let socket = socket.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&socket))
    }

    /// A page of any name that resolves to an address of this machine could otherwise speak to a
    /// box that only its neighbours reach (DNS rebinding). Addresses are not names.
    fn check_hosts(&self, hosts: &[String], local: IpAddr, proxied: bool) -> Result<(), Problem> {
        let local = local.to_canonical();
        let knows = |host: &String| {
            // A name with its root dot is the same name.
            let name = without_port(host).trim_end_matches('.');
            let is_public = self
                .public_host
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(name.trim_matches(['[', ']'])));
            is_public || is_loopback_name(name)
        };
        if self.loopback || local.is_loopback() {
            if !hosts.is_empty() && hosts.iter().all(knows) {
                return Ok(());
            }
            return Err(foreign_host(
                "this listener is on loopback and answers to localhost and public.host only",
            ));
        }
        let is_neighbour = |host: &String| {
            let name = without_port(host).trim_end_matches('.');
            address_of(name).is_some()
                || is_of_local_network(name)
                || self.allowed_origins.iter().any(|o| o.names_host(name))
        };
        if proxied
            || !is_private(local)
            || hosts.iter().all(|host| knows(host) || is_neighbour(host))
        {
            return Ok(());
        }
        Err(foreign_host(
            "this listener is on a private address and answers to addresses, local names and \
             public.host only: set public.host to this name, or add it to http.allowed_origins",
        ))
    }

    /// The Origin to echo in CORS headers, if there is one and it is welcome.
    fn check_origin(
        &self,
        headers: &HeaderMap,
        host: Option<&str>,
    ) -> Result<Option<HeaderValue>, Problem> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let Some(value) = given.next() else {
            return Ok(None);
        };
        let text = match given.next() {
            None => value.to_str().unwrap_or_default(),
            Some(_) => "",
        };
        let origin = Origin::new(text);
        let listed = self.allowed_origins.iter().any(|o| o.allows(&origin));
        let is_neighbour = self.loopback && self.allowed_origins.is_empty() && origin.is_loopback();
        if listed || is_neighbour {
            return Ok(Some(value.clone()));
        }
        if self.is_own(&origin, host) {
            return Ok(None);
        }
        let shown: String = text.chars().take(100).collect();
        tracing::info!(
            origin = shown,
            "a page of this origin may not connect; http.allowed_origins lists those that may"
        );
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            "pages of this origin may not connect; http.allowed_origins lists those that may",
        ))
    }

    /// Same origin: what the client called this box, or `public.host` where a proxy rewrote it.
    fn is_own(&self, origin: &Origin<'_>, host: Option<&str>) -> bool {
        let Some((scheme, authority)) = origin.authority() else {
            return false;
        };
        let host = host.and_then(|host| {
            let own = format!("{scheme}://{host}");
            Some(Origin::new(&own).authority()?.1)
        });
        let is_public = || {
            let own = self.public_host.as_deref()?;
            Some(own.eq_ignore_ascii_case(authority.trim_matches(['[', ']'])))
        };
        host.is_some_and(|own| own == authority) || is_public().unwrap_or_default()
    }
}

/// What the client calls this box, in every place where it says so: RFC 9112 section 3.2 allows one
/// Host, and asks for one in HTTP/1.1.
fn hosts(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Vec<String>, Problem> {
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, "bad-host", detail);
    let mut hosts = vec![];
    for value in headers.get_all(header::HOST) {
        match value.to_str() {
            Ok(host) => hosts.push(host.trim().to_owned()),
            Err(_) => return Err(bad("the Host header is not ASCII")),
        }
    }
    if hosts.len() > 1 {
        return Err(bad("the request has more than one Host header"));
    }
    // Of a request in absolute form it is the authority that counts (section 3.2.2).
    if let Some(authority) = uri.authority() {
        hosts.insert(0, authority.as_str().to_owned());
    }
    if hosts.is_empty() && version >= Version::HTTP_11 {
        return Err(bad("the request has no Host header"));
    }
    Ok(hosts)
}

fn foreign_host(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "foreign-host", detail)
}

fn too_many(full: crate::net::Full) -> Problem {
    if full == crate::net::Full::Denied {
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", full.to_string());
    }
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "rate-limited", full.to_string())
}

/// Addresses that only neighbours reach, those of carriers and overlays (RFC 6598), of test networks
/// (RFC 2544), and the former site-local ones among them.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            let is_bench = first == 198 && matches!(second, 18 | 19);
            ip.is_private() || ip.is_link_local() || is_shared || is_bench
        }
        IpAddr::V6(ip) => {
            let is_site_local = ip.segments()[0] & 0xffc0 == 0xfec0;
            ip.is_unique_local() || ip.is_unicast_link_local() || is_site_local
        }
    }
}

/// Names that no public name server answers for: a single label, and RFC 6762, 8375 and ICANN's
/// names for local networks.
fn is_of_local_network(name: &str) -> bool {
    const SUFFIXES: [&str; 5] = [".local", ".lan", ".home.arpa", ".internal", ".home"];
    let name = name.to_ascii_lowercase();
    let is_label = !name.is_empty() && !name.contains('.');
    is_label || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests;
