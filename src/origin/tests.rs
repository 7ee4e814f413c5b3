//! What an entry of `http.allowed_origins` allows, and how a wrong one is spelled.

use super::*;
use proptest::prelude::*;

fn allows(entry: &str, origin: &str) -> bool {
    entry
        .parse::<AllowedOrigin>()
        .unwrap()
        .allows(&Origin::new(origin))
}

#[test]
fn what_can_be_meant_works() {
    for (entry, origin) in [
        ("*", "https://anything.example"),
        ("*", "null"),
        ("null", "null"),
        ("file://", "file://"),
        ("https://app.example.org", "https://app.example.org"),
        ("https://app.example.org/", "https://app.example.org"),
        ("HTTPS://App.Example.org", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("https://app.example.org", "https://app.example.org:443"),
        ("http://app.example.org:80", "http://app.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://localhost:*", "http://localhost:5173"),
        ("http://localhost:*", "http://localhost"),
        ("https://*.example.org", "https://team.example.org"),
        (
            "https://*.example.org:8443",
            "https://team.example.org:8443",
        ),
        ("https://*.example.org:443", "https://team.example.org"),
        (
            "https://*.bücher.example",
            "https://a.xn--bcher-kva.example",
        ),
        (
            "https://b\u{fc}cher.example",
            "https://xn--bcher-kva.example",
        ),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abc", "chrome-extension://abc"),
    ] {
        assert!(allows(entry, origin), "{entry} {origin}");
    }
}

#[test]
fn an_entry_allows_nothing_else() {
    for (entry, origin) in [
        ("https://app.example.org", "http://app.example.org"),
        ("https://app.example.org", "https://app.example.org:8443"),
        (
            "https://app.example.org",
            "https://app.example.org.evil.example",
        ),
        (
            "https://app.example.org",
            "https://app.example.org@evil.example",
        ),
        ("https://app.example.org", "null"),
        ("https://*.example.org", "https://example.org"),
        ("https://*.example.org", "https://a.b.example.org"),
        ("https://*.example.org", "https://.example.org"),
        ("https://*.example.org", "https://evilexample.org"),
        ("https://*.example.org", "http://team.example.org"),
        ("https://*.example.org", "https://team.example.org:8443"),
        ("https://*.example.org", "https://x.evil/.example.org"),
        ("http://localhost:*", "http://localhost.evil.example"),
        ("http://localhost:*", "https://localhost:3000"),
        ("file://", "null"),
        ("null", "file://"),
    ] {
        assert!(!allows(entry, origin), "{entry} {origin}");
    }
}

#[test]
fn what_can_never_match_is_refused_with_the_right_spelling() {
    for (entry, spelling) in [
        ("app.example.org", "https://app.example.org"),
        ("app.example.org:8443", "https://app.example.org:8443"),
        ("bücher.example", "https://xn--bcher-kva.example"),
        ("//app.example.org", "https://app.example.org"),
        ("https://app.example.org/path", "https://app.example.org"),
        ("https://app.example.org?x=1", "https://app.example.org"),
        ("https://user@app.example.org", "https://app.example.org"),
        ("wss://app.example.org/ws", "https://app.example.org"),
        ("ws://localhost:8080", "http://localhost:8080"),
        ("*.example.org", "https://*.example.org"),
        ("https://*example.org", "https://*.example.org"),
        ("https://*.*.example.org", "https://*.example.org"),
        ("https://*", "https://*.example.org"),
        ("https://app.*", "https://*.example.org"),
        ("https://", "https://app.example.org"),
        ("https://app.example.org:99999", "https://app.example.org"),
        ("", "https://app.example.org"),
    ] {
        let refused = entry.parse::<AllowedOrigin>().unwrap_err();
        assert_eq!(refused.spelling, spelling, "{entry}");
    }
}

#[test]
fn this_machine_is_known_by_its_names() {
    for own in [
        "localhost",
        "LOCALHOST.",
        "app.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "::1",
    ] {
        assert!(is_loopback_name(own), "{own}");
    }
    for other in [
        "",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]",
        "127.0.0.1.evil.example",
        "notlocalhost",
    ] {
        assert!(!is_loopback_name(other), "{other}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_what_is_refused_has_a_spelling_that_is_not(text in "\\PC{0,40}") {
        let _ = Origin::new(&text).authority();
        if let Err(refused) = text.parse::<AllowedOrigin>() {
            prop_assert!(refused.spelling.parse::<AllowedOrigin>().is_ok(), "{text:?} {refused:?}");
        }
    }

    #[test]
    fn an_entry_reads_back_as_it_is_shown(
        scheme in "(https?|app)", star in any::<bool>(), host in "[a-z]{1,5}(\\.[a-z]{2,5}){0,2}",
        port in proptest::option::of(1..u16::MAX),
    ) {
        let star = if star && scheme != "app" { "*." } else { "" };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let entry: AllowedOrigin = format!("{scheme}://{star}{host}{port}").parse().unwrap();
        prop_assert_eq!(&entry.to_string().parse::<AllowedOrigin>().unwrap(), &entry);
        if star.is_empty() {
            let (shown, name) = (entry.to_string(), host.as_str());
            prop_assert!(entry.allows(&Origin::new(&shown)));
            prop_assert!(scheme == "app" || entry.names_host(name));
        }
    }
}
