//! The ICE URLs that clients are handed, from what is really served.

use crate::config::Public;
use crate::net::Announced;
use std::net::{IpAddr, SocketAddr};

/// URLs by kind, best first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct IceUrls {
    pub(super) stun: Vec<String>,
    pub(super) turn: Vec<String>,
}

/// Where TURN is served.
#[derive(Debug, Default)]
pub(super) struct Served<'a> {
    pub(super) udp: &'a [SocketAddr],
    pub(super) tcp: &'a [SocketAddr],
    pub(super) tls: &'a [SocketAddr],
}

/// Names every listener that clients can reach, or passes `public.ice_urls` on. `certified` tells
/// whether the certificate is good for a host, without which `turns:` would only fail.
pub(super) fn of(
    public: &Public,
    announced: &[Announced],
    served: &Served<'_>,
    certified: impl Fn(&str) -> bool,
) -> IceUrls {
    if !public.ice_urls.is_empty() {
        let (stun, turn) = public
            .ice_urls
            .iter()
            .cloned()
            .partition(|url: &String| url.starts_with("stun:"));
        return IceUrls { stun, turn };
    }
    let mut urls = IceUrls::default();
    for (host, port) in hosts(public, announced, served.udp) {
        let host = bracketed(&host);
        urls.stun.push(format!("stun:{host}:{port}"));
        urls.turn.push(format!("turn:{host}:{port}?transport=udp"));
    }
    for (host, port) in hosts(public, announced, served.tcp) {
        let host = bracketed(&host);
        urls.turn.push(format!("turn:{host}:{port}?transport=tcp"));
    }
    for (host, port) in hosts(public, announced, served.tls) {
        if certified(&host) {
            let host = bracketed(&host);
            urls.turn.push(format!("turns:{host}:{port}?transport=tcp"));
        }
    }
    urls
}

/// The `HOST` and port under which each listener is reached: the public name once a port, or each
/// announced address of the listener's family.
fn hosts(public: &Public, announced: &[Announced], listeners: &[SocketAddr]) -> Vec<(String, u16)> {
    let mut hosts: Vec<(String, u16)> = vec![];
    for listener in listeners {
        let reached = |a: &&Announced| {
            a.address.is_ipv4() == listener.is_ipv4()
                && (listener.ip().is_unspecified() || listener.ip() == a.local)
        };
        let names: Vec<String> = match &public.host {
            Some(host) => vec![host.clone()],
            None => announced
                .iter()
                .filter(reached)
                .map(|a| a.address.to_string())
                .collect(),
        };
        for name in names {
            let entry = (name, listener.port());
            if !hosts.contains(&entry) {
                hosts.push(entry);
            }
        }
    }
    hosts
}

fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(address: &str, local: &str) -> Announced {
        Announced {
            address: address.parse().unwrap(),
            local: local.parse().unwrap(),
            how: String::new(),
        }
    }

    fn public(host: Option<&str>, ice_urls: &[&str]) -> Public {
        Public {
            host: host.map(str::to_owned),
            ice_urls: ice_urls.iter().map(|u| (*u).to_owned()).collect(),
            addresses: vec![],
            stun: None,
        }
    }

    fn listeners(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn of_udp(public: &Public, announced: &[Announced], udp: &[&str]) -> IceUrls {
        let served = Served {
            udp: &listeners(udp),
            ..Served::default()
        };
        of(public, announced, &served, |_| true)
    }

    #[test]
    fn a_name_covers_both_families_once() {
        let named = public(Some("call.example.org"), &[]);
        let urls = of_udp(&named, &[], &["0.0.0.0:3478", "[::]:3478"]);
        assert_eq!(urls.stun, ["stun:call.example.org:3478"]);
        assert_eq!(urls.turn, ["turn:call.example.org:3478?transport=udp"]);
    }

    #[test]
    fn streams_come_after_datagrams_and_tls_where_the_certificate_fits() {
        let named = public(Some("call.example.org"), &[]);
        let served = Served {
            udp: &listeners(&["0.0.0.0:3478"]),
            tcp: &listeners(&["0.0.0.0:3479"]),
            tls: &listeners(&["0.0.0.0:443"]),
        };
        let certified = |host: &str| host == "call.example.org";
        assert_eq!(
            of(&named, &[], &served, certified).turn,
            [
                "turn:call.example.org:3478?transport=udp",
                "turn:call.example.org:3479?transport=tcp",
                "turns:call.example.org:443?transport=tcp",
            ]
        );
        let other = public(Some("2001:db8::7"), &[]);
        assert_eq!(
            of(&other, &[], &served, certified).turn,
            [
                "turn:[2001:db8::7]:3478?transport=udp",
                "turn:[2001:db8::7]:3479?transport=tcp",
            ]
        );
    }

    #[test]
    fn without_a_name_the_public_addresses_stand_in() {
        let found = [
            announced("198.51.100.7", "10.0.0.5"),
            announced("2001:db8::7", "2001:db8::7"),
        ];
        let unnamed = public(None, &[]);
        let urls = of_udp(&unnamed, &found, &["0.0.0.0:3478", "[::]:3479"]);
        assert_eq!(
            urls.turn,
            [
                "turn:198.51.100.7:3478?transport=udp",
                "turn:[2001:db8::7]:3479?transport=udp"
            ]
        );
        assert_eq!(
            of_udp(&unnamed, &found, &["127.0.0.1:3478"]),
            IceUrls::default(),
            "a listener that the address does not reach"
        );
    }

    #[test]
    fn configured_urls_are_passed_on_verbatim() {
        let configured = public(Some("h"), &["stun:a:1", "turns:b:443?transport=tcp"]);
        let urls = of_udp(&configured, &[], &["0.0.0.0:3478"]);
        assert_eq!(urls.stun, ["stun:a:1"]);
        assert_eq!(urls.turn, ["turns:b:443?transport=tcp"]);
    }
}
