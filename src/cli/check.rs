//! `callbox check`: the effective configuration, and what would surprise.

use super::check_certificate;
use crate::config::{Config, ConfigError};
use crate::net;
use crate::relay;
use crate::service;
use serde_json::json;

/// Whether relays will have no IPv4 address. What a name or a STUN server says is not known
/// before the start.
fn lacks_ipv4(config: &Config) -> bool {
    let public = &config.public;
    !config.loopback && public.addresses.is_empty() && public.stun.is_none() && !net::has_ipv4()
}

/// Renders the outcome of loading a configuration: the text, and whether it is valid.
pub fn check(loaded: Result<Config, ConfigError>, as_json: bool) -> (String, bool) {
    let loaded = loaded.and_then(check_certificate).map(|mut config| {
        if config.turn.enabled {
            config.warnings.extend(relay::kernel_shortcomings());
            if !config.turn.made_secret && service::state_directory().is_none() {
                config.warnings.push(
                    "revoked TURN credentials are kept in memory: a restart forgets them \
                     ($STATE_DIRECTORY names no folder; under systemd it does)"
                        .into(),
                );
            }
            let budget = &config.turn.budget;
            let has_budget = [budget.total, budget.user, budget.secret] != [None; 3];
            if has_budget && service::state_directory().is_none() {
                config.warnings.push(
                    "turn.budget is counted in memory: a restart begins the month at nothing \
                     ($STATE_DIRECTORY names no folder; under systemd it does)"
                        .into(),
                );
            }
            if lacks_ipv4(&config) {
                config.warnings.push(net::NO_IPV4.into());
            }
        }
        config
            .warnings
            .extend(crate::app::unreachable_backends(&config));
        config
    });
    match loaded {
        Ok(config) if as_json => {
            let report = json!({
                "ok": true,
                "config": config.to_json(),
                "warnings": config.warnings,
            });
            (format!("{report}\n"), true)
        }
        Ok(config) => {
            let mut text = config.to_toml();
            for warning in &config.warnings {
                text += &format!("\n# warning: {warning}");
            }
            text += "\n# the configuration is valid\n";
            (text, true)
        }
        Err(error) if as_json => {
            let errors: Vec<String> = error.0.iter().map(ToString::to_string).collect();
            (
                format!("{}\n", json!({ "ok": false, "errors": errors })),
                false,
            )
        }
        Err(error) => (format!("{error}\n"), false),
    }
}
