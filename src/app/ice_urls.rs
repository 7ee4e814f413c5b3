//! The ICE URLs that clients are handed, from what is really served.

use crate::address::bracketed;
use crate::auth::credential::IceIssuer;
use crate::config::{Config, Public};
use crate::net::{Announced, Identity};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// URLs by kind, best first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct IceUrls {
    pub(super) stun: Vec<String>,
    pub(super) turn: Vec<String>,
}

/// The listeners that clients can reach, and under which names.
pub(super) struct IceUrlBuilder {
    public: Public,
    announced: Vec<Announced>,
    /// Where STUN and TURN are served over UDP.
    udp: Vec<SocketAddr>,
    /// Where TURN is served over TCP.
    tcp: Vec<SocketAddr>,
    /// Where TURN is served over TLS.
    tls: Vec<SocketAddr>,
}

impl IceUrlBuilder {
    pub(super) fn new(
        config: &Config,
        announced: &[Announced],
        udp: &[SocketAddr],
        tcp: &[SocketAddr],
        tls: &[SocketAddr],
    ) -> Self {
        let relay = |listeners: &[SocketAddr]| match config.turn.enabled {
            true => listeners.to_vec(),
            false => vec![],
        };
        Self {
            public: config.public.clone(),
            announced: announced.to_vec(),
            udp: first_ports(&relay(udp)),
            tcp: relay(tcp),
            tls: relay(tls),
        }
    }

    /// Names every listener, or passes `public.ice_urls` on. `turns:` needs a certificate that
    /// names the host, or clients would refuse it.
    pub(super) fn urls(&self, certificate: Option<&Identity>) -> IceUrls {
        if !self.public.ice_urls.is_empty() {
            let (stun, turn) = self
                .public
                .ice_urls
                .iter()
                .cloned()
                .partition(|url: &String| url.starts_with("stun:"));
            return IceUrls { stun, turn };
        }
        let mut urls = IceUrls::default();
        for (host, port) in hosts(&self.public, &self.announced, &self.udp) {
            let host = bracketed(&host);
            urls.stun.push(format!("stun:{host}:{port}"));
            urls.turn.push(format!("turn:{host}:{port}?transport=udp"));
        }
        for (host, port) in hosts(&self.public, &self.announced, &self.tcp) {
            let host = bracketed(&host);
            urls.turn.push(format!("turn:{host}:{port}?transport=tcp"));
        }
        for (host, port) in hosts(&self.public, &self.announced, &self.tls) {
            if certificate.is_some_and(|shown| shown.names(&host)) {
                let host = bracketed(&host);
                urls.turn.push(format!("turns:{host}:{port}?transport=tcp"));
            }
        }
        urls
    }

    /// Hands out `turns:` as soon as a certificate allows it and no longer than that, and the
    /// public addresses that apply, where URLs name them; ends with the
    /// latter. A box without TLS has no certificates to follow.
    pub(super) async fn follow(
        mut self,
        mut certificates: watch::Receiver<Option<Arc<Identity>>>,
        mut announced: watch::Receiver<Vec<Announced>>,
        ice: watch::Sender<IceIssuer>,
    ) {
        loop {
            let shown = certificates.borrow_and_update().clone();
            self.announced.clone_from(&announced.borrow_and_update());
            let urls = self.urls(shown.as_deref());
            ice.send_if_modified(|ice| {
                let is_new = (&ice.stun_urls, &ice.turn_urls) != (&urls.stun, &urls.turn);
                (ice.stun_urls, ice.turn_urls) = (urls.stun, urls.turn);
                is_new
            });
            tokio::select! {
                Ok(()) = certificates.changed() => {}
                changed = announced.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Of each address the listener that comes first: a further port is for telling NATs.
fn first_ports(listeners: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut first: Vec<SocketAddr> = vec![];
    for listener in listeners {
        if !first.iter().any(|known| known.ip() == listener.ip()) {
            first.push(*listener);
        }
    }
    first
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

    fn served(
        public: Public,
        announced: &[Announced],
        udp: &[&str],
        tls: &[&str],
    ) -> IceUrlBuilder {
        IceUrlBuilder {
            public,
            announced: announced.to_vec(),
            udp: listeners(udp),
            tcp: vec![],
            tls: listeners(tls),
        }
    }

    fn certificate(name: &str) -> Identity {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Identity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_covers_both_families_once() {
        let both = ["0.0.0.0:3478", "[::]:3478"];
        let urls = served(public(Some("call.example.org"), &[]), &[], &both, &[]).urls(None);
        assert_eq!(urls.stun, ["stun:call.example.org:3478"]);
        assert_eq!(urls.turn, ["turn:call.example.org:3478?transport=udp"]);
    }

    #[test]
    fn of_several_udp_ports_of_an_address_the_first_is_named() {
        let mut env = vec![("CALLBOX_PUBLIC__HOST", "call.example.org")];
        env.extend([("CALLBOX_AUTH__MODE", "open"), ("CALLBOX_TURN__TCP", "")]);
        let env = env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
        let config = Config::load(None, env).unwrap();
        let udp = &config.turn.udp.addresses;
        assert_eq!(udp.len(), 4, "3478 and 3479 of both families: {udp:?}");
        let urls = IceUrlBuilder::new(&config, &[], udp, &[], &[]).urls(None);
        assert_eq!(urls.stun, ["stun:call.example.org:3478"]);
        assert_eq!(urls.turn, ["turn:call.example.org:3478?transport=udp"]);
    }

    #[test]
    fn streams_come_after_datagrams_and_tls_last() {
        let mut served = served(
            public(Some("call.example.org"), &[]),
            &[],
            &["0.0.0.0:3478"],
            &["0.0.0.0:443"],
        );
        served.tcp = listeners(&["0.0.0.0:3479"]);
        assert_eq!(
            served.urls(Some(&certificate("call.example.org"))).turn,
            [
                "turn:call.example.org:3478?transport=udp",
                "turn:call.example.org:3479?transport=tcp",
                "turns:call.example.org:443?transport=tcp",
            ]
        );
    }

    #[test]
    fn without_a_name_the_public_addresses_stand_in() {
        let found = [
            announced("198.51.100.7", "10.0.0.5"),
            announced("2001:db8::7", "2001:db8::7"),
        ];
        let udp = ["0.0.0.0:3478", "[::]:3479"];
        let urls = served(public(None, &[]), &found, &udp, &["[::]:443"])
            .urls(Some(&certificate("2001:db8::7")));
        assert_eq!(
            urls.turn,
            [
                "turn:198.51.100.7:3478?transport=udp",
                "turn:[2001:db8::7]:3479?transport=udp",
                "turns:[2001:db8::7]:443?transport=tcp",
            ]
        );
        let other = served(public(None, &[]), &found, &["127.0.0.1:3478"], &[]).urls(None);
        assert_eq!(
            other,
            IceUrls::default(),
            "a listener that the address does not reach"
        );
    }

    #[test]
    fn turns_needs_a_certificate_that_names_the_host() {
        let host = public(Some("call.example.org"), &[]);
        let served = served(host, &[], &[], &["0.0.0.0:443", "[::]:443"]);
        let turns = ["turns:call.example.org:443?transport=tcp"];
        assert_eq!(served.urls(Some(&certificate("*.example.org"))).turn, turns);
        assert!(
            served
                .urls(Some(&certificate("example.org")))
                .turn
                .is_empty()
        );
        assert!(served.urls(None).turn.is_empty());
    }

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        let host = public(Some("2001:db8::7"), &[]);
        let urls = served(host, &[], &["[::]:3478"], &[]).urls(None);
        assert_eq!(urls.stun, ["stun:[2001:db8::7]:3478"]);
    }

    #[test]
    fn configured_urls_are_passed_on_verbatim() {
        let configured = public(Some("h"), &["stun:a:1", "turns:b:443?transport=tcp"]);
        let urls = served(configured, &[], &["0.0.0.0:3478"], &[]).urls(None);
        assert_eq!(urls.stun, ["stun:a:1"]);
        assert_eq!(urls.turn, ["turns:b:443?transport=tcp"]);
    }
}
