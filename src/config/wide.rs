//! What is warned of where a list of networks is wider than who wrote it may mean.

use super::collect::Check;
use super::raw::Raw;
use ipnet::IpNet;

impl Check<'_> {
    /// Warns of lists that take in nearly every address.
    pub(super) fn judge_networks(&mut self, raw: &Raw, loopback: bool) {
        if let Some(wide) = raw.turn.allowed_peers.iter().find(|net| is_wide(net)) {
            self.warnings.push(format!(
                "turn.allowed_peers lists {wide}: with a TURN credential, every service of this \
                 machine and of its private networks is reached through the relay. Public addresses \
                 need no entry; list the networks that are meant, e.g. [\"10.1.0.0/16\"]"
            ));
        }
        let mut proxies = raw.http.trusted_proxies.iter();
        if let Some(wide) = proxies.find(|net| is_wide(net)).filter(|_| !loopback) {
            self.warnings.push(format!(
                "http.trusted_proxies lists {wide}: every client may say which address it has, and \
                 no limit by address holds; list the address of the proxy, e.g. [\"127.0.0.1/32\"]"
            ));
        }
    }
}

/// Whether a network takes in public and private addresses alike: the widest private ones are
/// 10.0.0.0/8 and fc00::/7.
fn is_wide(network: &IpNet) -> bool {
    match network {
        IpNet::V4(v4) => v4.prefix_len() < 8,
        IpNet::V6(v6) => v6.prefix_len() < 7,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn warned(toml: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let config = Config::load(Some(file.path()), std::iter::empty()).unwrap();
        config.warnings.join("\n")
    }

    #[test]
    fn lists_that_take_in_every_address_are_warned_of() {
        for wide in ["0.0.0.0/0", "::/0", "128.0.0.0/1"] {
            let warned = warned(&format!(
                "[turn]\nallowed_peers = [\"10.0.0.0/8\", {wide:?}]"
            ));
            assert!(
                warned.contains(&format!("allowed_peers lists {wide}")),
                "{warned}"
            );
        }
        let meant = "[turn]\nallowed_peers = [\"10.0.0.0/8\", \"127.0.0.0/8\", \"fc00::/7\"]";
        assert_eq!(warned(meant), "");
        let proxies = |listen: &str| {
            let http = format!("[http]\nlisten = [{listen:?}]\ntrusted_proxies = [\"0.0.0.0/0\"]");
            warned(&format!("{http}\n[auth]\nmode = \"open\""))
        };
        let reachable = proxies("0.0.0.0:8080");
        assert!(
            reachable.contains("trusted_proxies lists 0.0.0.0/0"),
            "{reachable}"
        );
        assert!(!proxies("127.0.0.1:8080").contains("trusted_proxies"));
    }
}
