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

/// Names every listener that clients can reach, or passes `public.ice_urls` on.
pub(super) fn of(public: &Public, announced: &[Announced], udp: &[SocketAddr]) -> IceUrls {
    if !public.ice_urls.is_empty() {
        let (stun, turn) = public
            .ice_urls
            .iter()
            .cloned()
            .partition(|url: &String| url.starts_with("stun:"));
        return IceUrls { stun, turn };
    }
    let mut urls = IceUrls::default();
    for (host, port) in hosts(public, announced, udp) {
        urls.stun.push(format!("stun:{host}:{port}"));
        urls.turn.push(format!("turn:{host}:{port}?transport=udp"));
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
            Some(host) => vec![bracketed(host)],
            None => announced
                .iter()
                .filter(reached)
                .map(|a| bracketed(&a.address.to_string()))
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

    #[test]
    fn a_name_covers_both_families_once() {
        let udp = listeners(&["0.0.0.0:3478", "[::]:3478"]);
        let urls = of(&public(Some("call.example.org"), &[]), &[], &udp);
        assert_eq!(urls.stun, ["stun:call.example.org:3478"]);
        assert_eq!(urls.turn, ["turn:call.example.org:3478?transport=udp"]);
    }

    #[test]
    fn without_a_name_the_public_addresses_stand_in() {
        let found = [
            announced("198.51.100.7", "10.0.0.5"),
            announced("2001:db8::7", "2001:db8::7"),
        ];
        let udp = listeners(&["0.0.0.0:3478", "[::]:3479"]);
        let urls = of(&public(None, &[]), &found, &udp);
        assert_eq!(
            urls.turn,
            [
                "turn:198.51.100.7:3478?transport=udp",
                "turn:[2001:db8::7]:3479?transport=udp"
            ]
        );
        let other = of(&public(None, &[]), &found, &listeners(&["127.0.0.1:3478"]));
        assert_eq!(
            other,
            IceUrls::default(),
            "a listener that the address does not reach"
        );
    }

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        let urls = of(
            &public(Some("2001:db8::7"), &[]),
            &[],
            &listeners(&["[::]:3478"]),
        );
        assert_eq!(urls.stun, ["stun:[2001:db8::7]:3478"]);
    }

    #[test]
    fn configured_urls_are_passed_on_verbatim() {
        let configured = public(Some("h"), &["stun:a:1", "turns:b:443?transport=tcp"]);
        let urls = of(&configured, &[], &listeners(&["0.0.0.0:3478"]));
        assert_eq!(urls.stun, ["stun:a:1"]);
        assert_eq!(urls.turn, ["turns:b:443?transport=tcp"]);
    }
}
