//! What the box says of itself when it has started.

use super::mode_in_words;
use crate::auth::credential::IceIssuer;
use crate::config::Config;
use crate::net::Announced;
use std::fmt;
use std::net::SocketAddr;

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
        for address in http {
            lines.push(("page", format!("http://{address}/")));
            lines.push(("signaling", format!("ws://{address}/ws")));
        }
        for address in https {
            lines.push(("page", format!("https://{address}/")));
            lines.push(("signaling", format!("wss://{address}/ws")));
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
        if config.turn.enabled && config.turn.made_secret {
            let secret = "made for this run; set turn.secrets to keep credentials over a restart";
            lines.push(("secret", secret.into()));
        }
        let next = if config.loopback {
            "open the page in two tabs; for others to reach it, set public.host and auth.mode"
        } else {
            "open the page from another network, and /check on it if a call does not connect"
        };
        lines.push(("next", next.into()));
        Self { lines }
    }
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
