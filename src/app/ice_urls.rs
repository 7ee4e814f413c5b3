//! The ICE URLs that clients are handed, from what is really served.

use crate::address::bracketed;
use crate::auth::credential::IceIssuer;
use crate::config::{Config, Public};
use crate::http::Query;
use crate::net::{self, Announced, Identity};
use std::net::{IpAddr, SocketAddr};
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
    /// Whether this machine has an address.
    is_here: fn(IpAddr) -> bool,
    /// What keeps clients from the listeners, for `/readyz`.
    away: watch::Sender<Option<Arc<str>>>,
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
            is_here: net::is_here,
            away: watch::Sender::new(None),
        }
    }

    /// Why no client of a family reaches a listener for TURN, as far as that is known.
    pub(super) fn away(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.look_for_listeners();
        self.away.subscribe()
    }

    /// Looks whether the addresses that are listened on are there, and says once when they go and
    /// when they come.
    fn look_for_listeners(&self) {
        let listed = [&self.udp, &self.tcp, &self.tls];
        let listeners = || listed.iter().flat_map(|list| list.iter());
        let families = [true, false].map(|ipv4| {
            let of_family = listeners().filter(|listener| listener.is_ipv4() == ipv4);
            absent(of_family, self.is_here)
        });
        let absent: Vec<String> = families
            .into_iter()
            .flatten()
            .map(|ip| ip.to_string())
            .collect();
        let now = (!absent.is_empty()).then(|| -> Arc<str> {
            let absent = absent.join(" and ");
            format!(
                "STUN and TURN are listened for on {absent}, which this machine does not have at the \
                 moment: they are served once it is back; listen on 0.0.0.0 and [::] to be reached \
                 by every address"
            )
            .into()
        });
        self.away.send_if_modified(|before| {
            let is_new = *before != now;
            match (&now, &before) {
                (Some(reason), _) if is_new => tracing::warn!("{reason}"),
                (None, Some(_)) => tracing::info!("the addresses that are listened on are back"),
                _ => {}
            }
            *before = now;
            is_new
        });
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
        for (host, port) in self.hosts(&self.udp) {
            let host = bracketed(&host);
            urls.stun.push(format!("stun:{host}:{port}"));
            urls.turn.push(format!("turn:{host}:{port}?transport=udp"));
        }
        for (host, port) in self.hosts(&self.tcp) {
            let host = bracketed(&host);
            urls.turn.push(format!("turn:{host}:{port}?transport=tcp"));
        }
        for (host, port) in self.hosts(&self.tls) {
            if certificate.is_some_and(|shown| shown.names(&host)) {
                let host = bracketed(&host);
                urls.turn.push(format!("turns:{host}:{port}?transport=tcp"));
            }
        }
        urls
    }

    fn hosts(&self, listeners: &[SocketAddr]) -> Vec<(String, u16)> {
        hosts(&self.public, &self.announced, listeners, self.is_here)
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
            self.look_for_listeners();
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

/// Names the STUN ports beside those of the ICE URLs, as they are at the time of asking: a browser that asks both
/// from one port tells NATs apart.
pub(super) fn nat_urls(
    config: &Config,
    announced: watch::Receiver<Vec<Announced>>,
    udp: &[SocketAddr],
) -> Query<Vec<String>> {
    let first = first_ports(udp);
    let further: Vec<SocketAddr> = match config.turn.enabled {
        true => udp
            .iter()
            .filter(|listener| !first.contains(listener))
            .copied()
            .collect(),
        false => vec![],
    };
    let public = config.public.clone();
    Box::new(move || {
        // Behind port mappings nobody knows where the second port leads.
        if !public.ice_urls.is_empty() {
            return vec![];
        }
        hosts(&public, &announced.borrow(), &further, net::is_here)
            .into_iter()
            .map(|(host, port)| format!("stun:{}:{port}", bracketed(&host)))
            .collect()
    })
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
fn hosts(
    public: &Public,
    announced: &[Announced],
    listeners: &[SocketAddr],
    is_here: fn(IpAddr) -> bool,
) -> Vec<(String, u16)> {
    let mut hosts: Vec<(String, u16)> = vec![];
    // An address that is listened on beside the one that is announced floats between machines, or was
    // away for a while: it is an address of its own while this machine has it, unless the announced
    // ones are behind a mapping.
    let floats = |listener: &SocketAddr| {
        let is_like = |ip: IpAddr| ip.is_ipv4() == listener.is_ipv4();
        let mut of_family = announced.iter().filter(|a| is_like(a.address)).peekable();
        let is_served = |local: IpAddr| {
            let mut listeners = listeners
                .iter()
                .map(SocketAddr::ip)
                .filter(|ip| is_like(*ip));
            listeners.any(|ip| ip.is_unspecified() || ip == local)
        };
        of_family.peek().is_some()
            && !listener.ip().is_loopback()
            && of_family.all(|a| a.address == a.local && !is_served(a.local))
            && is_here(listener.ip())
    };
    for listener in listeners {
        let of_family = |a: &&Announced| a.address.is_ipv4() == listener.is_ipv4();
        let reached = |a: &&Announced| {
            of_family(a) && (listener.ip().is_unspecified() || listener.ip() == a.local)
        };
        let host = public.turn_host.as_ref().or(public.host.as_ref());
        let names: Vec<String> = match host {
            Some(host) => vec![host.clone()],
            None if floats(listener) => vec![listener.ip().to_string()],
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

/// The first listener's address, where this machine has the address of none: others may have it now.
fn absent<'a>(
    mut listeners: impl Iterator<Item = &'a SocketAddr>,
    is_here: fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let is_served = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback() || is_here(ip);
    let first = listeners.next()?.ip();
    let is_away = !is_served(first) && listeners.all(|listener| !is_served(listener.ip()));
    is_away.then_some(first)
}

/// What a box that runs by `config` mints, with those URLs.
pub(super) fn issuer(config: &Config, urls: IceUrls) -> IceIssuer {
    IceIssuer {
        stun_urls: urls.stun,
        turn_urls: urls.turn,
        secrets: config.turn.secrets.clone(),
        ttl: config.turn.ttl,
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
            turn_host: None,
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
            is_here: |ip| ip != IpAddr::from([192, 0, 2, 12]),
            away: watch::Sender::new(None),
        }
    }

    #[test]
    fn a_listener_on_a_floating_address_is_named_by_it() {
        let named = |known: &[Announced], udp: &[&str]| {
            served(public(None, &[]), known, udp, &[]).urls(None).turn
        };
        let own = [announced("192.0.2.11", "192.0.2.11")];
        let url = ["turn:192.0.2.10:3478?transport=udp"];
        assert_eq!(named(&own, &["192.0.2.10:3478"]), url);
        // Beside a listener on the announced address nothing changes, nor behind a mapping.
        let own_url = ["turn:192.0.2.11:3478?transport=udp"];
        assert_eq!(named(&own, &["10.0.0.1:3478", "192.0.2.11:3478"]), own_url);
        let mapped = [announced("192.0.2.11", "10.0.0.2")];
        assert!(named(&mapped, &["10.0.0.1:3478"]).is_empty());
        assert!(named(&own, &["127.0.0.1:3478"]).is_empty());
        assert!(named(&[], &["192.0.2.10:3478"]).is_empty());
        // Another machine has it at the moment.
        assert!(named(&own, &["192.0.2.12:3478"]).is_empty());
    }

    #[test]
    fn listeners_whose_address_is_away_are_named_until_it_is_back() {
        let away = |udp: &[&str], tls: &[&str]| {
            let mut served = served(public(Some("call.example.org"), &[]), &[], udp, tls);
            let seen = served.away();
            let away = seen.borrow().as_deref().map(str::to_owned);
            served.is_here = |_| true;
            served.look_for_listeners();
            assert_eq!(*seen.borrow(), None);
            away
        };
        let gone = away(&["192.0.2.12:3478"], &["192.0.2.12:443"]).unwrap();
        assert!(
            gone.contains("192.0.2.12, which this machine does not have"),
            "{gone}"
        );
        // One of the family is served, or every address is.
        assert_eq!(away(&["192.0.2.12:3478", "192.0.2.11:3478"], &[]), None);
        assert_eq!(away(&["192.0.2.12:3478"], &["0.0.0.0:443"]), None);
        assert_eq!(away(&["127.0.0.1:3478", "[::]:3478"], &[]), None);
        // Another family does not stand in.
        assert!(away(&["192.0.2.12:3478", "[::]:3478"], &[]).is_some());
        assert_eq!(away(&[], &[]), None);
    }

    fn certificate(name: &str) -> Identity {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Identity::from_pem(cert.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn the_second_stun_port_is_named_apart() {
        let config = Config::load(
            None,
            [(
                "CALLBOX_TURN__UDP".to_owned(),
                "127.0.0.1:3478,127.0.0.1:3479,[::1]:3478".to_owned(),
            )]
            .into_iter(),
        )
        .unwrap();
        let known = vec![announced("127.0.0.1", "127.0.0.1"), announced("::1", "::1")];
        let (_hold, seen) = watch::channel(known);
        let udp = listeners(&["127.0.0.1:3478", "127.0.0.1:3479", "[::1]:3478"]);
        let urls = nat_urls(&config, seen, &udp);
        assert_eq!(urls(), ["stun:127.0.0.1:3479"]);
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
