//! `callbox token`: a JWT signed with the configured key.

use super::Source;
use crate::auth::{Bearer, MAX_NAME, Role, is_name, page_link};
use crate::config::{Config, Span};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::net::SocketAddr;

/// What the new token is to say.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The configuration, which holds the key.
    #[command(flatten)]
    pub source: Source,
    /// A room that the bearer may join, or a glob ("team-*"); may be given more than once.
    /// Without any the token is for registering and calling only.
    #[arg(long = "room", value_name = "ROOM")]
    pub rooms: Vec<String>,
    /// Who the bearer is.
    #[arg(long)]
    pub identity: String,
    /// The bearer's role in its rooms; without one the room decides.
    #[arg(long, value_enum)]
    pub role: Option<RoleName>,
    /// Lets a token with rooms place calls as well.
    #[arg(long)]
    pub call: bool,
    /// How long the token is good for, for instance 30m, 1h or 7days.
    #[arg(long, default_value = "1h")]
    pub ttl: Span,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// A role as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the roles of the protocol")]
pub enum RoleName {
    Host,
    Member,
    Viewer,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Host => Self::Host,
            RoleName::Member => Self::Member,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

/// Mints a token at `now` (Unix seconds).
///
/// # Errors
/// The configuration has no key that can sign, or the lifetime is nothing; the text says what
/// to do.
pub fn token(config: &Config, args: &TokenArgs, now: u64) -> Result<Printed, String> {
    let signer = config
        .auth
        .signer
        .as_ref()
        .ok_or_else(|| no_signer(config, args.source.config.is_some()))?;
    if args.ttl.0.as_secs() == 0 {
        return Err("--ttl is shorter than a second: the token would be expired".into());
    }
    if !is_name(&args.identity) {
        return Err(format!(
            "--identity has 1 to {MAX_NAME} bytes, none of them controls: the box would refuse it"
        ));
    }
    let bearer = Bearer {
        identity: args.identity.clone(),
        rooms: args.rooms.clone(),
        role: args.role.map(Role::from),
        call: args.call.then_some(true),
        login: None,
    };
    let (token, expires_at) = signer.sign(&bearer, now, args.ttl.0);
    let url = page_link(&page(config), link_room(&args.rooms), Some(&token));
    let (out, note) = if args.json {
        let object = json!({
            "token": token,
            "url": url,
            "expiresAt": expires_at,
            "claims": bearer,
        });
        (format!("{object}\n"), None)
    } else {
        (format!("{token}\n"), Some(format!("{url}\n")))
    };
    Ok(Printed { out, note })
}

/// What a command prints.
#[derive(Debug)]
pub struct Printed {
    /// For standard output, which scripts read.
    pub out: String,
    /// For standard error: what a person may want beside it.
    pub note: Option<String>,
}

/// The room that the link names: a glob is none.
fn link_room(rooms: &[String]) -> &str {
    let room = rooms.first().map_or("", String::as_str);
    if room.contains('*') { "" } else { room }
}

/// The call page of a box that runs by this configuration.
fn page(config: &Config) -> String {
    let place = |host: &str, port: u16, default: u16| match (host.contains(':'), port == default) {
        (true, true) => format!("[{host}]"),
        (true, false) => format!("[{host}]:{port}"),
        (false, true) => host.to_owned(),
        (false, false) => format!("{host}:{port}"),
    };
    let listener = |address: &SocketAddr| match address.ip().is_unspecified() {
        true => "localhost".to_owned(),
        false => address.ip().to_string(),
    };
    let origin = match (
        &config.public.host,
        config.tls.listen.first(),
        config.http.listen.first(),
    ) {
        (Some(host), Some(tls), _) => format!("https://{}/", place(host, tls.port(), 443)),
        (Some(host), None, _) => format!("https://{}/", place(host, 443, 443)),
        (None, Some(tls), _) => format!("https://{}/", place(&listener(tls), tls.port(), 443)),
        (None, None, Some(http)) => format!("http://{}/", place(&listener(http), http.port(), 80)),
        (None, None, None) => "http://localhost/".into(),
    };
    config.call_page(origin)
}

fn no_signer(config: &Config, has_file: bool) -> String {
    if config.auth.verifier.is_some() {
        return "the configured key is public: it checks tokens and cannot sign any. Sign them \
                with its private half where your app logs people in, or set auth.secret as well"
            .into();
    }
    let fix = if has_file {
        "set auth.secret in it; `openssl rand -hex 32` makes one"
    } else {
        "name the box's configuration with --config FILE"
    };
    format!("there is no auth.secret to sign with: {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use serde_json::Value;

    const NOW: u64 = 1_700_000_000;

    fn config(env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(None, env).unwrap()
    }

    fn args(line: &str) -> TokenArgs {
        let words = ["callbox", "token"].into_iter().chain(line.split(' '));
        match Cli::parse_from(words).command {
            Some(Command::Token(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_minted_token_opens_what_was_asked_for() {
        let config = config(&[
            ("CALLBOX_AUTH__MODE", "jwt"),
            ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
        ]);
        let args = args("--room demo --identity alice --role host --ttl 2h --json");
        let printed: Value =
            serde_json::from_str(&token(&config, &args, NOW).unwrap().out).unwrap();
        assert_eq!(printed["expiresAt"], NOW + 7200);
        let url = printed["url"].as_str().unwrap();
        assert!(
            url.starts_with("http://127.0.0.1:8080/#room=demo&token="),
            "{url}"
        );
        let verifier = config.auth.verifier.unwrap();
        let grant = verifier
            .verify(printed["token"].as_str().unwrap(), NOW + 7199)
            .unwrap();
        assert_eq!(grant.identity.as_deref(), Some("alice"));
        assert_eq!(grant.role, Some(Role::Host));
        assert!(grant.rooms.allows("demo") && !grant.rooms.allows("other"));
        assert!(!grant.call);
    }

    #[test]
    fn beside_an_application_of_its_own_the_link_is_to_the_call_page() {
        let config = config(&[
            ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
            ("CALLBOX_HTTP__ROOT", env!("CARGO_MANIFEST_DIR")),
        ]);
        let asked = args("--room demo --identity alice --json");
        let printed: Value =
            serde_json::from_str(&token(&config, &asked, NOW).unwrap().out).unwrap();
        let url = printed["url"].as_str().unwrap();
        assert!(
            url.starts_with("http://127.0.0.1:8080/call#room=demo&token="),
            "{url}"
        );
    }

    #[test]
    fn a_missing_key_is_named_with_its_fix() {
        let asked = args("--identity a");
        let error = token(&config(&[]), &asked, NOW).unwrap_err();
        assert!(error.contains("--config FILE"), "{error}");
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEA2+Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVj8=\n\
            -----END PUBLIC KEY-----";
        let config = config(&[
            ("CALLBOX_AUTH__MODE", "jwt"),
            ("CALLBOX_AUTH__PUBLIC_KEY", public),
        ]);
        let error = token(&config, &asked, NOW).unwrap_err();
        assert!(error.contains("cannot sign"), "{error}");
    }

    #[test]
    fn a_name_that_the_box_would_refuse_is_not_signed() {
        let config = config(&[("CALLBOX_AUTH__SECRET", "s")]);
        let long = format!("--identity {}", "x".repeat(129));
        let error = token(&config, &args(&long), NOW).unwrap_err();
        assert!(error.contains("--identity"), "{error}");
    }

    #[test]
    fn a_lifetime_of_nothing_is_refused() {
        let config = config(&[("CALLBOX_AUTH__SECRET", "s")]);
        let error = token(&config, &args("--identity a --ttl 0s"), NOW).unwrap_err();
        assert!(error.contains("--ttl"), "{error}");
    }
}
