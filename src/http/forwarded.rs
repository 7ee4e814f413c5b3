//! The client behind trusted proxies: X-Forwarded-For, in every form that proxies write.

use axum::http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The client of a request whose X-Forwarded-For cannot be read: a network of its own, so that
/// those requests are bounded together and nobody else is charged for them.
const UNREADABLE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Walks X-Forwarded-For from the right, past trusted proxies only: what stands further left was
/// written by somebody who is not trusted.
pub(super) fn client(socket: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |ip: &IpAddr| proxies.iter().any(|net| net.contains(ip));
    let mut client = socket.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    // An empty element of a list is none (RFC 9110 section 5.6.1).
    let hops = lines
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|hop| !hop.is_empty());
    for hop in hops {
        if !trusted(&client) {
            break;
        }
        let Some(address) = std::str::from_utf8(hop).ok().and_then(address) else {
            tracing::warn!(
                proxy = %client,
                "X-Forwarded-For of a trusted proxy holds {:?}, which is not an address: such \
                 clients count as one; let the proxy write the client's address there",
                String::from_utf8_lossy(&hop[..hop.len().min(64)])
            );
            return UNREADABLE;
        };
        client = address;
    }
    client
}

/// Reads `IP`, `IP:port`, `[IPv6]`, `[IPv6]:port`, each with quotes or an IPv6 zone if need be.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let bare = without_zone(hop);
    let bracketed = || {
        bare.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<IpAddr>()
            .ok()
    };
    let with_port = || Some(bare.parse::<SocketAddr>().ok()?.ip());
    let ip = bare.parse::<IpAddr>().ok();
    Some(ip.or_else(bracketed).or_else(with_port)?.to_canonical())
}

fn without_zone(hop: &str) -> String {
    match hop.split_once('%') {
        None => hop.to_owned(),
        Some((address, zone)) => match zone.split_once(']') {
            Some((_, rest)) => format!("{address}]{rest}"),
            None => address.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forwarded(socket: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = axum::http::HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append("x-forwarded-for", line);
        }
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        client(socket.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn addresses_count_from_the_right_past_trusted_proxies() {
        for (socket, lines, right) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            (
                "10.0.0.1",
                &["6.6.6.6, 198.51.100.7, 10.0.0.2"],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, , "], "198.51.100.7"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
        ] {
            assert_eq!(forwarded(socket, lines), right, "{lines:?}");
        }
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (form, right) in [
            ("198.51.100.7:5000", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("\"[2001:db8::7]:443\"", "2001:db8::7"),
            ("[::ffff:198.51.100.7]:80", "198.51.100.7"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:443", "fe80::1"),
            ("6.6.6.6, 198.51.100.7:5000, 10.0.0.2:80", "198.51.100.7"),
        ] {
            assert_eq!(forwarded("10.0.0.1", &[form]), right, "{form}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_client_of_its_own() {
        for form in [
            "nonsense",
            "unknown",
            "198.51.100.7:port",
            "198.51.100.7:99999",
            "[198.51.100.7",
            "300.1.1.1",
            "6.6.6.6, _hidden",
            "6.6.6.6 7.7.7.7",
            "b\u{fc}cher",
        ] {
            assert_eq!(
                forwarded("10.0.0.1", &[form]),
                UNREADABLE.to_string(),
                "{form}"
            );
        }
        assert_eq!(forwarded("192.0.2.1", &["nonsense"]), "192.0.2.1");
    }

    proptest! {
        #[test]
        fn an_untrusted_client_cannot_move_its_address(left in "[ -~]{0,40}", ip: [u8; 4]) {
            let client = IpAddr::from(ip);
            prop_assume!(ip[0] != 10);
            let line = format!("{left},{client}");
            prop_assert_eq!(forwarded("10.0.0.1", &[&line]), client.to_string());
        }
    }
}
