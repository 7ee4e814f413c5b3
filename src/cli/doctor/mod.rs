//! `callbox doctor`: asks a running box as a client would, and says what is wrong and why.
//!
//! Probes observe ([`web`], [`relay`]), [`diagnose`] explains; here they are put in order. It
//! changes nothing: no file, no setting, and every allocation is given back.

mod cluster;
mod diagnose;
mod dial;
mod examination;
mod fault;
mod local;
mod own_nat;
pub mod reach;
mod relay;
mod report;
mod turn;
mod url;
mod web;
mod wire;

use super::Source;
use crate::auth::Bearer;
use crate::config::Config;
use crate::relay::engine::is_public;
use clap::Args;
use diagnose::Observations;
use examination::Examination;
use report::Report;
use std::path::PathBuf;
use std::time::Duration;
use url::BaseUrl;

/// How long credentials are good for that the doctor makes by itself.
const OWN_TTL: Duration = Duration::from_secs(600);

/// Which box to ask, and as whom.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The box's configuration: where it is, and the keys that it should go by.
    #[command(flatten)]
    pub source: Source,
    /// Where the box is, for instance `https://call.example.org`; found in the configuration if
    /// left out.
    #[arg(long)]
    pub url: Option<String>,
    /// A token to join with; made with the configured key if left out. Everybody on the machine
    /// sees it in the list of processes: CALLBOX_TOKEN, `@FILE`, and `-` for the standard input
    /// keep it out of there.
    #[arg(long)]
    pub token: Option<String>,
    /// Only tells what kind of NAT this machine is behind, by the box's STUN server (RFC 5780).
    #[arg(long)]
    pub nat: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Writes what was found into this file as well, for the textfile collector of node_exporter.
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
}

/// Where a box that runs by `config` is asked.
///
/// # Errors
/// It has no address that can be known.
pub(super) fn box_url(config: &Config) -> Result<String, String> {
    local::base_url(config).map(|base| base.to_string())
}

/// The token that is given, or that a given file or `CALLBOX_TOKEN` holds.
pub(super) fn given_token(
    given: Option<&str>,
    variable: Option<String>,
) -> Result<Option<String>, String> {
    let read = match given {
        None => return Ok(variable.filter(|token| !token.is_empty())),
        Some("-") => std::io::read_to_string(std::io::stdin()),
        Some(given) => match given.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file),
            None => return Ok(Some(given.to_owned())),
        },
    };
    let text = read.map_err(|error| format!("--token: {error}"))?;
    match text.trim() {
        "" => Err("--token: there is no token in it".into()),
        token => Ok(Some(token.to_owned())),
    }
}

/// Examines a box at `now` (Unix seconds); `config` is its configuration where one was named.
/// Returns what to print, and whether nothing failed.
///
/// # Errors
/// `--url` is not a valid URL, or the textfile cannot be written.
pub async fn doctor(
    args: &DoctorArgs,
    config: Option<&Config>,
    now: u64,
) -> Result<(String, bool), String> {
    let base = match (&args.url, config) {
        (Some(url), _) => BaseUrl::parse(url)?,
        (None, Some(config)) => local::base_url(config)?,
        (None, None) => BaseUrl::parse("http://127.0.0.1:8080")?,
    };
    let own_token = || {
        let signer = config?.auth.signer.as_ref()?;
        let bearer = Bearer {
            identity: "doctor".into(),
            rooms: vec!["doctor-*".into()],
            role: None,
            call: None,
            login: None,
        };
        Some(signer.sign(&bearer, now, OWN_TTL).0)
    };
    let variable = std::env::var("CALLBOX_TOKEN").ok();
    let token = given_token(args.token.as_deref(), variable)?.or_else(own_token);
    let mut examination = Examination {
        trust: dial::trust(),
        seen: Observations {
            token: token.is_some(),
            relay_ports: config.map_or("49152-65535".into(), |c| c.turn.relay_ports.to_string()),
            ..Observations::default()
        },
        lines: vec![],
    };
    if args.nat {
        examination.own_nat(&base, token.as_deref()).await;
        return printed(args, &base, examination, now);
    }
    if let Some(config) = config.filter(|_| args.url.is_none()) {
        examination.lines.extend(local::foreign_holders(config));
        examination.lines.extend(local::certificate_faults(config));
    }
    examination
        .examine(&base, token.as_deref(), config, now)
        .await;
    printed(args, &base, examination, now)
}

fn printed(
    args: &DoctorArgs,
    base: &BaseUrl,
    examination: Examination,
    now: u64,
) -> Result<(String, bool), String> {
    let report = Report {
        url: base.to_string(),
        checks: examination.lines,
    };
    if let Some(path) = &args.textfile {
        report
            .write_textfile(path, now)
            .map_err(|error| format!("--textfile {}: {error}", path.display()))?;
    }
    let text = if args.json {
        format!("{}\n", report.to_json())
    } else {
        report.to_string()
    };
    Ok((text, report.is_healthy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_need_not_stand_on_the_command_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "of.a.file\n").unwrap();
        let at = format!("@{}", file.path().display());
        let variable = || Some("of.a.variable".to_owned());
        let given = |given: &str| given_token(Some(given), variable()).unwrap().unwrap();
        assert_eq!(given("of.the.line"), "of.the.line");
        assert_eq!(given(&at), "of.a.file");
        assert_eq!(given_token(None, variable()).unwrap(), variable());
        assert_eq!(given_token(None, Some(String::new())).unwrap(), None);
        assert!(given_token(Some("@/nonexistent"), None).is_err());
        std::fs::write(file.path(), "").unwrap();
        assert!(given_token(Some(&at), variable()).is_err());
    }
}
