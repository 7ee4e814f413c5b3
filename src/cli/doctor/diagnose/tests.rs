//! The right sentence for what was seen.

use super::*;
use crate::cli::doctor::fault::Leg;
use crate::cli::doctor::url::IceUrl;

fn seen() -> Observations {
    Observations {
        tcp: true,
        udp: true,
        ipv4: vec![("udp", 3478)],
        web: Some("198.51.100.7".parse().unwrap()),
        relay_ports: "49152-65535".into(),
        ..Observations::default()
    }
}

fn finding(seen: &Observations, fault: Fault, url: &str) -> &'static str {
    let url = IceUrl::parse(url).unwrap();
    let ip = url.host.parse().unwrap_or("198.51.100.7".parse().unwrap());
    seen.ice(&fault, &url, SocketAddr::new(ip, url.port))
        .finding
}

#[test]
fn silence_is_read_by_what_else_answers() {
    let no_udp = Observations {
        udp: false,
        ..seen()
    };
    let dead = Observations {
        udp: false,
        tcp: false,
        ..seen()
    };
    let udp = "turn:call.example.org?transport=udp";
    let tls = "turns:call.example.org:443?transport=tcp";
    assert_eq!(finding(&no_udp, Fault::Silent, udp), "udp-blocked");
    assert_eq!(finding(&seen(), Fault::Silent, tls), "tcp-blocked");
    assert_eq!(finding(&dead, Fault::Silent, udp), "host-unreachable");
    let elsewhere = "turn:203.0.113.9?transport=udp";
    assert_eq!(finding(&no_udp, Fault::Silent, elsewhere), "wrong-address");
    let v6 = "turn:[2001:db8::7]?transport=udp";
    assert_eq!(finding(&seen(), Fault::Silent, v6), "no-ipv6");
}

#[test]
fn a_family_that_the_box_lacks_is_named_rightly() {
    let lacking = Fault::Stun(440, "Address Family not Supported".into(), "callbox".into());
    assert_eq!(
        finding(&seen(), lacking, "turn:call.example.org"),
        "no-ipv4"
    );
    assert_eq!(no_ipv6_relay().finding, "no-ipv6");
}

#[test]
fn a_refused_credential_is_the_secret_unless_the_clocks_differ() {
    let unauthorized = || Fault::Stun(401, "Unauthorized".into(), "coturn".into());
    let url = "turn:call.example.org";
    assert_eq!(finding(&seen(), unauthorized(), url), "secret-mismatch");
    let late = Observations {
        ahead: -4000,
        ..seen()
    };
    assert_eq!(finding(&late, unauthorized(), url), "clock-skew");
    assert!(late.skew().cause.contains("4000 s behind"));
}

#[test]
fn a_payload_lost_from_outside_is_the_address_or_the_port_range() {
    let url = IceUrl::parse("turn:call.example.org").unwrap();
    let at = "198.51.100.7:3478".parse().unwrap();
    let lost = |elsewhere: Option<&str>| {
        let elsewhere = elsewhere.map(|ip| ip.parse().unwrap());
        let fault = Fault::Lost(Leg::FromOutside { elsewhere });
        seen().relay_ports(&fault, &url, at)
    };
    let closed = lost(None);
    assert_eq!(closed.finding, "relay-ports-closed");
    assert!(closed.fix.contains("49152-65535/udp"), "{}", closed.fix);
    assert_eq!(lost(Some("203.0.113.9")).finding, "wrong-address");
}

#[test]
fn a_refused_token_and_a_missing_one_are_told_apart() {
    let at = "198.51.100.7:443".parse().unwrap();
    let refused = Fault::Signaling("unauthorized".into(), "signature".into());
    assert_eq!(seen().signaling(&refused, at, "h").finding, "token-needed");
    let with_token = Observations {
        token: true,
        ..seen()
    };
    assert_eq!(
        with_token.signaling(&refused, at, "h").finding,
        "token-refused"
    );
    let named = |code: &str, message: &str| {
        let fault = Fault::Signaling(code.into(), message.into());
        with_token.signaling(&fault, at, "h").finding
    };
    assert_eq!(
        named("unauthorized", "the token is not a JWT"),
        "token-malformed"
    );
    assert_eq!(
        named("token-expired", "the token expired 9 s ago"),
        "token-expired"
    );
    assert_eq!(
        named("forbidden", "the token opens other rooms"),
        "token-refused"
    );
    assert_eq!(named("bad-password", "the password is wrong"), "signaling");
    let upgrade = Fault::Http(400, String::new());
    assert_eq!(
        seen().signaling(&upgrade, at, "h").finding,
        "websocket-blocked"
    );
}
