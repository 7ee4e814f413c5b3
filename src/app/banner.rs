//! What the box says of itself when it has started.

use crate::address::bracketed;
use crate::auth::credential::IceIssuer;
use crate::auth::page_link;
use crate::config::{Config, Mode};
use crate::net::{Announced, NO_IPV4};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ten lines at most: where it listens, what it hands out, what to do next.
#[derive(Debug, Clone)]
pub struct Banner {
    lines: Vec<(&'static str, String)>,
}

impl Banner {
    pub(super) fn new(
        config: &Config,
        http: &[SocketAddr],
        https: &[SocketAddr],
        announced: &[Announced],
        ice: &IceIssuer,
    ) -> Self {
        let mut lines = vec![];
        for (kind, places) in [("", places(http)), ("s", named(config, https))] {
            if !places.is_empty() {
                let urls = |scheme: &str, path: &str| -> String {
                    let urls: Vec<_> = places
                        .iter()
                        .map(|place| format!("{scheme}{kind}://{place}/{path}"))
                        .collect();
                    urls.join(" ")
                };
                lines.push(("page", urls("http", "")));
                lines.push(("signaling", urls("ws", "ws")));
            }
        }
        lines.push(("mode", mode_in_words(config.auth.mode).into()));
        let urls: Vec<&str> = ice
            .turn_urls
            .iter()
            .chain(&ice.stun_urls)
            .map(String::as_str)
            .collect();
        lines.push((
            "ice",
            if urls.is_empty() {
                "none handed out".into()
            } else {
                urls.join(" ")
            },
        ));
        let addresses: Vec<String> = announced
            .iter()
            .map(|a| format!("{} ({})", a.address, a.how))
            .collect();
        lines.push(("address", addresses.join(", ")));
        if config.turn.enabled && !announced.iter().any(|a| a.address.is_ipv4()) {
            lines.push(("warning", NO_IPV4.into()));
        }
        if config.turn.enabled && config.turn.made_secret {
            let secret = "made for this run; set turn.secrets to keep credentials over a restart";
            lines.push(("secret", secret.into()));
        }
        let room = format!("{:08x}", rand::random::<u32>());
        if config.http.pages {
            let page = page_url(config, http, https);
            lines.push(("room", page_link(&page, &room, None)));
        }
        let next = match (config.auth.mode, &config.auth.signer) {
            (Mode::Jwt, Some(_)) => format!(
                "`callbox token --room {room} --identity NAME` prints a token for that room, and the \
                 link with it"
            ),
            (Mode::Jwt, None) => format!(
                "give the page a token with \"room\": \"{room}\", signed with the key that auth names"
            ),
            (Mode::Open, _) if config.loopback => {
                "open the room's link in two tabs; for others to reach it, set public.host and \
                 auth.mode"
                    .into()
            }
            (Mode::Open, _) => {
                "open the page from another network, and /check on it if a call does not connect"
                    .into()
            }
        };
        lines.push(("next", next));
        Self { lines }
    }
}

/// What a mode means, in words.
fn mode_in_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => "open: anyone who reaches it may join, under any name",
        Mode::Jwt => "jwt: a signed token is asked for",
    }
}

/// The URL of the call page as clients reach it.
pub(super) fn page_url(config: &Config, http: &[SocketAddr], https: &[SocketAddr]) -> String {
    config.call_page(origin(config, http, https))
}

fn origin(config: &Config, http: &[SocketAddr], https: &[SocketAddr]) -> String {
    match (
        named(config, https).first(),
        &config.public.host,
        http.first(),
    ) {
        (Some(place), _, _) => format!("https://{place}/"),
        // A proxy in front of a loopback listener has the certificate.
        (None, Some(host), _) => format!("https://{}/", bracketed(host)),
        (None, None, Some(place)) => format!("http://{}/", reachable(*place)),
        (None, None, None) => "http://localhost/".into(),
    }
}

/// The URL of the call page for browsers on this machine, if plain HTTP listens there.
pub(super) fn local_page_url(config: &Config, http: &[SocketAddr]) -> Option<String> {
    let mut listeners = http.iter().map(|listener| reachable(*listener));
    let local = listeners.find(|listener| listener.ip().is_loopback())?;
    Some(config.call_page(format!("http://{local}/")))
}

/// A listener on every address is reached on this machine by loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    match listener.ip().is_unspecified() {
        true if listener.is_ipv4() => (Ipv4Addr::LOCALHOST, listener.port()).into(),
        true => (Ipv6Addr::LOCALHOST, listener.port()).into(),
        false => listener,
    }
}

fn places(listeners: &[SocketAddr]) -> Vec<String> {
    listeners.iter().map(ToString::to_string).collect()
}

/// The name that the certificate is for, if there is one: a browser refuses a bare address.
fn named(config: &Config, listeners: &[SocketAddr]) -> Vec<String> {
    let Some(host) = &config.public.host else {
        return places(listeners);
    };
    let host = bracketed(host);
    let mut places: Vec<String> = listeners
        .iter()
        .map(|listener| match listener.port() {
            443 => host.clone(),
            port => format!("{host}:{port}"),
        })
        .collect();
    places.dedup();
    places
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "callbox {} is ready", env!("CARGO_PKG_VERSION"))?;
        for (name, value) in &self.lines {
            write!(f, "\n  {name:<10} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::credential::TurnSecrets;

    fn banner(addresses: &[&str]) -> String {
        banner_of(&[], addresses)
    }

    fn banner_of(auth: &[(&str, &str)], addresses: &[&str]) -> String {
        let env = auth.iter();
        let env = env.map(|(key, value)| (format!("CALLBOX_AUTH__{key}"), (*value).to_owned()));
        let config = Config::load(None, env).unwrap();
        let announced: Vec<Announced> = addresses
            .iter()
            .map(|address| Announced {
                address: address.parse().unwrap(),
                local: address.parse().unwrap(),
                how: "network interface".into(),
            })
            .collect();
        let ice = IceIssuer {
            stun_urls: vec![],
            turn_urls: vec![],
            secrets: TurnSecrets::new(vec!["s".into()]).unwrap(),
            ttl: config.turn.ttl,
        };
        Banner::new(&config, &[], &[], &announced, &ice).to_string()
    }

    #[test]
    fn a_box_without_ipv4_says_so() {
        assert!(banner(&["2001:db8::7"]).contains("no IPv4"));
        assert!(!banner(&["198.51.100.7", "2001:db8::7"]).contains("no IPv4"));
    }

    #[test]
    fn every_box_with_pages_prints_a_room_and_what_opens_it() {
        let room = |banner: &str| {
            let link = banner.lines().find(|line| line.starts_with("  room "));
            let (_, room) = link.unwrap().split_once("room=").unwrap();
            room.to_owned()
        };
        let open = banner(&["198.51.100.7"]);
        assert_eq!(room(&open).len(), 8, "{open}");
        assert!(open.contains("two tabs"), "{open}");
        let secret = [
            ("MODE", "jwt"),
            ("SECRET", "0123456789abcdef0123456789abcdef"),
        ];
        let signed = banner_of(&secret, &["198.51.100.7"]);
        let command = format!("callbox token --room {} ", room(&signed));
        assert!(signed.contains(&command), "{signed}");
        let jwks = [("MODE", "jwt"), ("JWKS", "https://id.example.org/jwks")];
        let foreign = banner_of(&jwks, &["198.51.100.7"]);
        let claim = format!("\"room\": \"{}\"", room(&foreign));
        assert!(foreign.contains(&claim), "{foreign}");
        assert!(!foreign.contains("callbox token"), "{foreign}");
    }

    #[test]
    fn the_page_on_this_machine_is_named_where_one_is_listened_on() {
        let local_of = |env: &[(&str, &str)], listeners: &[&str]| {
            let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let listeners: Vec<_> = listeners.iter().map(|at| at.parse().unwrap()).collect();
            local_page_url(&Config::load(None, env).unwrap(), &listeners)
        };
        let local = |listeners: &[&str]| local_of(&[], listeners);
        let at = |url: &str| Some(url.to_owned());
        assert_eq!(
            local(&["192.0.2.7:80", "127.0.0.1:8080"]),
            at("http://127.0.0.1:8080/")
        );
        assert_eq!(local(&["0.0.0.0:8080"]), at("http://127.0.0.1:8080/"));
        assert_eq!(local(&["[::]:8080"]), at("http://[::1]:8080/"));
        assert_eq!(local(&["192.0.2.7:80"]), None);
        assert_eq!(local(&[]), None);
        // At the root is the application's own page.
        let root = [("CALLBOX_HTTP__ROOT", env!("CARGO_MANIFEST_DIR"))];
        assert_eq!(
            local_of(&root, &["127.0.0.1:8080"]),
            at("http://127.0.0.1:8080/call")
        );
    }
}
