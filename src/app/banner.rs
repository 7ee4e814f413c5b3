//! What the box says of itself when it has started.

use super::mode_in_words;
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
        if config.http.pages && config.auth.mode == Mode::Open {
            let room: u32 = rand::random();
            let page = page_url(config, http, https);
            lines.push(("room", page_link(&page, &format!("{room:08x}"), None)));
        }
        let next = if config.auth.mode == Mode::Jwt {
            "`callbox token --room R --identity I` prints a token and the page's link with it"
        } else if config.loopback {
            "open the room's link in two tabs; for others to reach it, set public.host and auth.mode"
        } else {
            "open the page from another network, and /check on it if a call does not connect"
        };
        lines.push(("next", next.into()));
        Self { lines }
    }
}

/// The URL of the call page as clients reach it.
pub(super) fn page_url(config: &Config, http: &[SocketAddr], https: &[SocketAddr]) -> String {
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
        let config = Config::load(None, std::iter::empty()).unwrap();
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
}
