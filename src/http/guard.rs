//! What every request passes first: the Host check of loopback listeners, the Origin check, CORS,
//! and the client's address behind trusted proxies.

use super::problem::Problem;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Seconds that a browser may remember a preflight: Chromium's cap.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Whom a listener answers.
#[derive(Debug, Clone)]
pub struct Guard {
    /// `public.host`.
    pub public_host: Option<String>,
    /// `http.allowed_origins`.
    pub allowed_origins: Vec<String>,
    /// `http.trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the listener is bound to loopback: then a foreign Host is DNS rebinding.
    pub loopback: bool,
}

/// The client's address: the socket's, or what a trusted proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddr(pub(super) IpAddr);

/// Middleware that applies a [`Guard`].
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(socket): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if let Err(problem) = guard.check_host(headers) {
        return problem.into_response();
    }
    // The library is code and no data: it may be read from everywhere.
    let is_library = request.uri().path().starts_with(super::sdk::PREFIX);
    let origin = match guard.check_origin(headers) {
        _ if is_library => Some(HeaderValue::from_static("*")),
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let client = ClientAddr(guard.client(socket.ip(), headers));
    let preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        request.extensions_mut().insert(client);
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if preflight {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, POST, PATCH, DELETE"),
            );
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("Authorization, Content-Type"),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        }
    }
    response
}

impl Guard {
    /// A page of any name that resolves to 127.0.0.1 could otherwise speak to a loopback box.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let known = host.is_none_or(|host| {
            // A name with its root dot is the same name.
            let name = without_port(host).trim_end_matches('.');
            name.eq_ignore_ascii_case("localhost")
                || name
                    .trim_matches(['[', ']'])
                    .parse()
                    .is_ok_and(|ip: IpAddr| ip.is_loopback())
                || self
                    .public_host
                    .as_deref()
                    .is_some_and(|own| own.eq_ignore_ascii_case(name))
        });
        if !self.loopback || known {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-host",
            "this listener is on loopback and answers to localhost and public.host only",
        ))
    }

    /// The Origin to echo in CORS headers, if there is one and it is welcome.
    fn check_origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(None);
        };
        let text = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let listed = self
            .allowed_origins
            .iter()
            .any(|o| o == "*" || o.trim_end_matches('/').eq_ignore_ascii_case(text));
        if listed {
            return Ok(Some(origin.clone()));
        }
        if self.is_own(text, host) {
            return Ok(None);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            "pages of this origin may not connect; http.allowed_origins lists those that may",
        ))
    }

    /// Same origin: what the client called this box, or `public.host` where a proxy rewrote it.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let bare = match scheme {
            "https" => authority.strip_suffix(":443"),
            "http" => authority.strip_suffix(":80"),
            _ => return false,
        }
        .unwrap_or(authority);
        let same =
            |own: &str| own.eq_ignore_ascii_case(authority) || own.eq_ignore_ascii_case(bare);
        host.is_some_and(same)
            || self
                .public_host
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(bare))
    }

    /// Walks X-Forwarded-For from the right, past trusted proxies only: what stands further left
    /// was written by whoever is not trusted.
    fn client(&self, socket: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |ip: &IpAddr| self.trusted_proxies.iter().any(|net| net.contains(ip));
        let mut client = socket.to_canonical();
        let hops = headers.get_all("x-forwarded-for").iter().rev();
        for hop in hops.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')) {
            if !trusted(&client) {
                break;
            }
            match hop.trim().parse::<IpAddr>() {
                Ok(ip) => client = ip.to_canonical(),
                Err(_) => break,
            }
        }
        client
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            public_host: Some("call.example.org".into()),
            allowed_origins: vec!["https://app.example.org".into()],
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            loopback: true,
        }
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_loopback_listener_refuses_foreign_hosts() {
        let ok = |host| guard().check_host(&headers(&[("host", host)])).is_ok();
        for own in [
            "localhost:8080",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:8080",
            "localhost.",
            "call.example.org",
        ] {
            assert!(ok(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:8080",
            "",
        ] {
            assert!(!ok(foreign), "{foreign}");
        }
        let open = Guard {
            loopback: false,
            ..guard()
        };
        assert!(
            open.check_host(&headers(&[("host", "evil.example")]))
                .is_ok()
        );
    }

    #[test]
    fn origins_are_the_same_or_listed() {
        let ok = |origin, host| {
            guard()
                .check_origin(&headers(&[("origin", origin), ("host", host)]))
                .is_ok()
        };
        assert!(ok("http://localhost:8080", "localhost:8080"));
        assert!(ok("https://box.example", "box.example"));
        assert!(ok("https://box.example:443", "box.example"));
        assert!(ok("https://app.example.org", "anything"));
        assert!(
            ok("https://call.example.org", "upstream:8080"),
            "a proxy rewrote Host"
        );
        assert!(!ok("http://localhost:9999", "localhost:8080"));
        assert!(!ok("https://evil.example", "localhost:8080"));
        assert!(
            !ok("http://call.example.org:9999", "call.example.org"),
            "another port"
        );
        assert!(!ok("null", "null"));
        assert!(
            guard().check_origin(&headers(&[("host", "x")])).is_ok(),
            "not a browser"
        );
        let any = Guard {
            allowed_origins: vec!["*".into()],
            ..guard()
        };
        assert!(
            any.check_origin(&headers(&[("origin", "https://evil.example")]))
                .is_ok()
        );
    }

    #[test]
    fn forwarded_addresses_count_from_the_right_past_trusted_proxies() {
        let client = |socket: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            guard()
                .client(socket.parse().unwrap(), &headers)
                .to_string()
        };
        assert_eq!(
            client("192.0.2.1", &["198.51.100.7"]),
            "192.0.2.1",
            "not a proxy of ours"
        );
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6, 198.51.100.7, 10.0.0.2"]),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6", "198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(
            client("::ffff:10.0.0.1", &["::ffff:198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }
}
