//! `callbox credentials`: TURN REST credentials, and the `iceServers` block they belong in.

use super::Source;
use crate::auth::credential::IceIssuer;
use crate::config::{Config, Span};
use clap::Args;
use serde_json::json;
use std::fmt::Write;

/// For whom, and for how long.
#[derive(Debug, Args)]
pub struct CredentialsArgs {
    /// The configuration, which holds the secret.
    #[command(flatten)]
    pub source: Source,
    /// The user that quotas and revocation go by.
    #[arg(long, default_value = "cli")]
    pub user: String,
    /// How long new allocations may be made, for instance 1h; `turn.ttl` if left out.
    #[arg(long)]
    pub ttl: Option<Span>,
    /// Prints one JSON object.
    #[arg(long, conflicts_with = "uri")]
    pub json: bool,
    /// Prints a URI a line, as libdatachannel and GStreamer take them: turn://user:password@host.
    #[arg(long)]
    pub uri: bool,
}

/// Mints at `now` (Unix seconds) with `issuer`, which is that of `config`.
///
/// # Errors
/// The box has no secret of its own, or no relay; the text says what to do.
pub fn credentials(
    config: &Config,
    mut issuer: IceIssuer,
    args: &CredentialsArgs,
    now: u64,
) -> Result<String, String> {
    if config.turn.made_secret {
        let fix = if args.source.config.is_some() {
            "set it; `openssl rand -hex 20` makes one"
        } else {
            "name the box's configuration with --config FILE"
        };
        return Err(format!(
            "turn.secrets is not set, so a box makes one for each run and nobody else can sign \
             with it: {fix}"
        ));
    }
    if let Some(ttl) = args.ttl {
        issuer.ttl = ttl.0;
    }
    if issuer.ttl.as_secs() == 0 {
        return Err("--ttl is shorter than a second: the credential would be expired".into());
    }
    let servers = issuer.issue(&args.user, now, None);
    let Some(relay) = servers.ice_servers.iter().find(|s| s.username.is_some()) else {
        return Err(
            "this configuration serves no TURN URL: switch turn.enabled on, and see that \
             turn.udp and public.host or public.address name what clients reach"
                .into(),
        );
    };
    let (username, credential) = (&relay.username, &relay.credential);
    if args.uri {
        let (user, password) = (username.as_deref(), credential.as_deref());
        let uri =
            |url: &String| with_user(url, user.unwrap_or_default(), password.unwrap_or_default());
        return Ok(relay.urls.iter().map(|url| uri(url) + "\n").collect());
    }
    if args.json {
        let object = json!({
            "username": username,
            "credential": credential,
            "ttl": servers.ttl,
            "expiresAt": servers.expires_at,
            "uris": relay.urls,
            "iceServers": servers.ice_servers,
        });
        return Ok(format!("{object}\n"));
    }
    let block = json!({ "iceServers": servers.ice_servers });
    Ok(format!(
        "username    {}\ncredential  {}\ngood for    {}\n\n{block:#}\n",
        username.as_deref().unwrap_or_default(),
        credential.as_deref().unwrap_or_default(),
        Span(issuer.ttl),
    ))
}

/// An ICE URL (RFC 7065) with user and password before the host, each percent-encoded.
fn with_user(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("turn", url));
    format!("{scheme}://{}:{}@{rest}", encoded(user), encoded(password))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::credential::Username;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use serde_json::Value;

    const NOW: u64 = 1_700_000_000;

    fn config(env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(None, env).unwrap()
    }

    fn issuer(config: &Config, urls: &[&str]) -> IceIssuer {
        IceIssuer {
            stun_urls: vec!["stun:h:3478".into()],
            turn_urls: urls.iter().map(|u| (*u).to_owned()).collect(),
            secrets: config.turn.secrets.clone(),
            ttl: config.turn.ttl,
        }
    }

    fn args(line: &[&str]) -> CredentialsArgs {
        let words = ["callbox", "credentials"].iter().chain(line);
        match Cli::parse_from(words).command {
            Some(Command::Credentials(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_printed_is_what_the_relay_accepts() {
        let config = config(&[("CALLBOX_TURN__SECRETS", "north,south")]);
        let issuer = issuer(&config, &["turn:h:3478?transport=udp"]);
        let args = args(&["--user", "alice", "--ttl", "90s", "--json"]);
        let text = credentials(&config, issuer, &args, NOW).unwrap();
        let printed: Value = serde_json::from_str(&text).unwrap();
        let username = printed["username"].as_str().unwrap();
        let parsed = Username::parse(username).unwrap();
        assert_eq!((parsed.expiry, parsed.user), (NOW + 90, "alice"));
        let password = printed["credential"].as_str().unwrap();
        assert!(
            config
                .turn
                .secrets
                .passwords(username)
                .any(|p| p == password)
        );
        assert_eq!(printed["iceServers"][1]["credential"], password);
    }

    #[test]
    fn uris_hold_user_and_password_in_percent_encoding() {
        let config = config(&[("CALLBOX_TURN__SECRETS", "north")]);
        let urls = [
            "turn:h:3478?transport=udp",
            "turns:[2001:db8::1]:443?transport=tcp",
        ];
        let text = credentials(&config, issuer(&config, &urls), &args(&["--uri"]), NOW).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("turn://1700003600%3Acli:"), "{text}");
        assert!(lines[0].ends_with("@h:3478?transport=udp"), "{text}");
        assert!(
            lines[1].ends_with("@[2001:db8::1]:443?transport=tcp"),
            "{text}"
        );
        let url = url::Url::parse(lines[0]).unwrap();
        let decoded = |text: &str| {
            let pair = format!("x={}", text.replace('+', "%2B"));
            let (_, value) = form_urlencoded::parse(pair.as_bytes()).next().unwrap();
            value.into_owned()
        };
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap()));
        assert!(
            config
                .turn
                .secrets
                .passwords(&user)
                .any(|own| own == password)
        );
        assert_eq!(encoded("a+/=:@ é"), "a%2B%2F%3D%3A%40%20%C3%A9");
    }

    #[test]
    fn nothing_is_signed_with_a_secret_of_one_run() {
        let config = config(&[]);
        let issuer = issuer(&config, &["turn:h:3478?transport=udp"]);
        let error = credentials(&config, issuer, &args(&[]), NOW).unwrap_err();
        assert!(error.contains("turn.secrets is not set"), "{error}");
    }

    #[test]
    fn a_box_without_a_relay_says_so() {
        let config = config(&[("CALLBOX_TURN__SECRETS", "north")]);
        let issuer = issuer(&config, &[]);
        let error = credentials(&config, issuer, &args(&[]), NOW).unwrap_err();
        assert!(error.contains("turn.enabled"), "{error}");
    }
}
