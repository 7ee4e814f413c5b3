//! Hosts and origins.

use super::*;

fn guard() -> Guard {
    Guard {
        public_host: Some("call.example.org".into()),
        allowed_origins: vec!["https://app.example.org".parse().unwrap()],
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        loopback: true,
        tls: false,
    }
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
        .collect()
}

/// Judges a request to `local` that names these hosts.
fn host_check(guard: &Guard, local: &str, named: &[&str], proxied: bool) -> bool {
    let mut headers = HeaderMap::new();
    for host in named {
        headers.append(
            header::HOST,
            HeaderValue::from_bytes(host.as_bytes()).unwrap(),
        );
    }
    let (uri, version) = (Uri::from_static("/"), Version::HTTP_11);
    let hosts = hosts(&uri, &headers, version);
    let local = local.parse().unwrap();
    hosts.is_ok_and(|hosts| guard.check_hosts(&hosts, local, proxied).is_ok())
}

#[test]
fn a_loopback_listener_refuses_foreign_hosts() {
    let ok = |host| host_check(&guard(), "127.0.0.1", &[host], false);
    for own in [
        "localhost:8080",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]:8080",
        "localhost.",
        "app.localhost:8080",
        "call.example.org",
    ] {
        assert!(ok(own), "{own}");
    }
    for foreign in [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.1:8080",
        "",
        "b\u{fc}cher.example",
        "localhost\u{e9}",
    ] {
        assert!(!ok(foreign), "{foreign}");
    }
    let wildcard = Guard {
        loopback: false,
        ..guard()
    };
    assert!(!host_check(
        &wildcard,
        "127.0.0.1",
        &["evil.example"],
        false
    ));
    assert!(host_check(
        &wildcard,
        "198.51.100.7",
        &["evil.example"],
        false
    ));
}

#[test]
fn a_request_names_one_host() {
    let refused = |named: &[&str]| !host_check(&guard(), "127.0.0.1", named, false);
    assert!(refused(&[]));
    assert!(refused(&["localhost", "localhost"]));
    assert!(refused(&["localhost", "evil.example"]));
    let absolute = Uri::from_static("http://evil.example/v1/rooms");
    let headers = headers(&[("host", "localhost")]);
    let named = hosts(&absolute, &headers, Version::HTTP_11).unwrap();
    let local = "127.0.0.1".parse().unwrap();
    assert!(guard().check_hosts(&named, local, false).is_err());
    // HTTP/1.0 knows no Host; a browser does not speak it.
    let none = hosts(&Uri::from_static("/"), &HeaderMap::new(), Version::HTTP_10).unwrap();
    assert!(guard().check_hosts(&none, local, false).is_err());
    let open = Guard {
        loopback: false,
        ..guard()
    };
    let public = "198.51.100.7".parse().unwrap();
    assert!(open.check_hosts(&none, public, false).is_ok());
}

#[test]
fn a_listener_on_a_private_address_refuses_names_of_others() {
    let open = Guard {
        loopback: false,
        ..guard()
    };
    for local in [
        "192.168.1.5",
        "100.64.7.7",
        "198.18.0.7",
        "fec0::7",
        "10.1.2.3",
        "169.254.1.1",
        "fd00::5",
        "fe80::1",
    ] {
        let ok = |host| host_check(&open, local, &[host], false);
        for own in [
            "192.168.1.5:8080",
            "[fd00::5]:8080",
            "nas:8080",
            "nas.local",
            "box.lan",
            "localhost",
            "call.example.org",
            "app.example.org:8080",
        ] {
            assert!(ok(own), "{local} {own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "192.168.1.5.evil.example",
            "",
        ] {
            assert!(!ok(foreign), "{local} {foreign}");
        }
        assert!(
            host_check(&open, local, &["any.example"], true),
            "a proxy passes on"
        );
    }
}

#[test]
fn origins_are_the_same_or_listed() {
    let ok = |origin, host| {
        guard()
            .check_origin(&headers(&[("origin", origin)]), Some(host))
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
    assert!(!ok(
        "https://app.example.org@evil.example",
        "localhost:8080"
    ));
    let none = guard().check_origin(&HeaderMap::new(), Some("x"));
    assert!(none.is_ok(), "not a browser");
    let mut two = headers(&[("origin", "https://app.example.org")]);
    two.append(header::ORIGIN, HeaderValue::from_static("null"));
    assert!(guard().check_origin(&two, Some("x")).is_err());
    let any = Guard {
        allowed_origins: vec!["*".parse().unwrap()],
        ..guard()
    };
    assert!(
        any.check_origin(&headers(&[("origin", "https://evil.example")]), None)
            .is_ok()
    );
}

#[test]
fn pages_of_this_machine_may_connect_to_a_loopback_listener_unless_a_list_says_which() {
    let judged = |loopback, listed: &[&str], origin| {
        let guard = Guard {
            loopback,
            allowed_origins: listed.iter().map(|o| o.parse().unwrap()).collect(),
            ..guard()
        };
        let headers = headers(&[("origin", origin)]);
        guard.check_origin(&headers, Some("localhost:8080"))
    };
    for origin in [
        "http://localhost:3000",
        "http://127.0.0.1:5173",
        "https://[::1]:1",
    ] {
        let echoed = judged(true, &[], origin).unwrap().unwrap();
        assert_eq!(echoed.to_str().unwrap(), origin);
        assert!(judged(false, &[], origin).is_err());
        assert!(judged(true, &["https://app.example.org"], origin).is_err());
    }
    assert!(judged(true, &[], "http://localhost.evil.example").is_err());
    assert!(judged(true, &[], "null").is_err());
}
