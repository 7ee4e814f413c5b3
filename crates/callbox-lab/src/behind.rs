//! `callbox behind KIND -- COMMAND…`: a program behind a NAT of a kind, proven before it starts.

use crate::kind::Kind;
use crate::link::Impairment;
use crate::nat::Counts;
use crate::network::{Network, Settings};
use crate::stage::{self, Job};
use crate::user::Caller;
use crate::{forward, preflight, wan};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A command that has not ended after two signals is killed by the third.
const MAX_SIGNALS: u32 = 3;

/// The arguments of `callbox behind`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo callbox behind symmetric -- chromium https://call.example.org
  sudo callbox behind tls-only --to https://call.example.org -- curl -v https://call.example.org
  sudo callbox behind full --delay 80ms --loss 2% --rate 2Mbit -- firefox
  sudo callbox behind --clean")]
pub struct BehindArgs {
    /// none, full, restricted, port-restricted, symmetric, no-udp or tls-only.
    #[arg(value_enum, required_unless_present = "clean")]
    kind: Option<Kind>,
    /// What is to be reached from there: it is tried before COMMAND starts. An address of this
    /// machine's loopback is reached too, over TCP.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// How long each packet is on the way, in each direction: 80ms.
    #[arg(long, value_parser = duration, default_value = "0ms")]
    delay: Duration,
    /// How many of a hundred packets are lost, in each direction: 2 or 2%.
    #[arg(long, value_parser = percent, default_value = "0")]
    loss: f64,
    /// Bits a second, in each direction: 2Mbit.
    #[arg(long, value_parser = rate)]
    rate: Option<u64>,
    /// No IPv4 inside: IPv4 hosts are reached by NAT64 at 64:ff9b::/96.
    #[arg(long)]
    v6_only: bool,
    /// Writes the probe's result and the packets by remote address to FILE at the end.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Removes what a crash left behind, and ends.
    #[arg(long, exclusive = true)]
    clean: bool,
    /// The program and its arguments.
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "clean")]
    command: Vec<String>,
}

/// Runs the command; returns its exit code.
///
/// # Errors
/// A sentence.
pub async fn run(args: BehindArgs) -> Result<i32, String> {
    if args.clean {
        preflight::root("callbox behind --clean")?;
        eprint!("{}", wan::clean()?);
        return Ok(0);
    }
    let kind = args.kind.ok_or("name a kind")?;
    preflight::all("callbox behind")?;
    let caller = Caller::find()?;
    // From here on ^C ends things in order.
    let mut signals = Signals::new()?;
    let settings = Settings {
        kind,
        impairment: Impairment {
            delay: args.delay,
            loss: args.loss,
            rate: args.rate,
        },
        v6_only: args.v6_only,
        internet: true,
    };
    let setup = async {
        let network = Network::start(settings).await?;
        let proof = network.prove().await?;
        let forwards = forward::open(&network, args.to.as_deref()).await?;
        if let Some(url) = &args.to {
            forward::reach(&network, url).await?;
        }
        Ok::<_, String>((network, proof, forwards))
    };
    let (network, proof, forwards) = tokio::select! {
        outcome = setup => outcome?,
        // What is set up so far is in this process alone and ends with it.
        signal = signals.next() => return Ok(128 + signal as i32),
    };
    eprintln!("behind {kind}: {proof}");
    eprintln!("{}", expectation(kind));
    network.reset_counts().await;
    let job = Job {
        command: args.command,
        caller,
        resolv: network.resolv.clone(),
        terminal: std::io::stdin().is_terminal(),
        lab: std::process::id(),
    };
    let code = execute(&network, &job, &mut signals).await;
    stage::take_terminal_back();
    if let Some(path) = &args.report {
        let counts = network.counts().await;
        let report = format!("{:#}\n", report(kind, &proof, &counts));
        std::fs::write(path, report).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    drop(forwards);
    network.close().await;
    code
}

async fn execute(network: &Network, job: &Job, signals: &mut Signals) -> Result<i32, String> {
    let mut command = stage::command("@inner", job)?;
    // A process group of its own: what a terminal sends to ours is handed on once.
    command.process_group(0);
    let spawned = network.inside.run(move || command.spawn()).await?;
    let child = spawned.map_err(|error| format!("the command cannot be started: {error}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let mut handed_on = 0;
    let mut ended = tokio::task::spawn_blocking(move || wait(child));
    loop {
        tokio::select! {
            outcome = &mut ended => {
                return outcome.unwrap_or_else(|_| Err("the command was lost".into()));
            }
            signal = signals.next() => {
                handed_on += 1;
                let is_enough = handed_on >= MAX_SIGNALS;
                let signal = if is_enough { Signal::SIGKILL } else { signal };
                let _ = kill(pid, signal);
            }
        }
    }
}

fn wait(mut child: Child) -> Result<i32, String> {
    let status = child.wait();
    status
        .map(stage::exit_code)
        .map_err(|error| format!("the command was lost: {error}"))
}

/// Whom a caller behind `kind` is to reach, and how.
fn expectation(kind: Kind) -> String {
    let names = |direct: bool| {
        let names: Vec<&str> = Kind::ALL
            .into_iter()
            .filter(|other| kind.meets_directly(*other) == direct)
            .map(Kind::name)
            .collect();
        names.join(", ")
    };
    match names(true).as_str() {
        "" => "calls from here need the relay, whatever the other side is behind".into(),
        direct => format!(
            "calls from here go directly to peers behind {direct}; by the relay to {}",
            names(false)
        ),
    }
}

fn report(kind: Kind, proof: &str, counts: &Counts) -> serde_json::Value {
    let packets: Vec<_> = counts
        .iter()
        .map(|((protocol, remote), count)| {
            json!({
                "protocol": protocol, "remote": remote, "out": count.out, "in": count.r#in,
                "filtered": count.filtered,
            })
        })
        .collect();
    json!({"kind": kind.name(), "probe": proof, "packets": packets})
}

/// Signals that are handed on to COMMAND.
pub struct Signals {
    streams: Vec<(Signal, tokio::signal::unix::Signal)>,
}

impl Signals {
    /// From here on they no longer end the process.
    ///
    /// # Errors
    /// A sentence.
    pub fn new() -> Result<Self, String> {
        let kinds = [
            (Signal::SIGINT, SignalKind::interrupt()),
            (Signal::SIGTERM, SignalKind::terminate()),
            (Signal::SIGHUP, SignalKind::hangup()),
            (Signal::SIGQUIT, SignalKind::quit()),
        ];
        let streams: std::io::Result<Vec<_>> = kinds
            .into_iter()
            .map(|(name, kind)| Ok((name, signal(kind)?)))
            .collect();
        let streams = streams.map_err(|error| format!("signals: {error}"))?;
        Ok(Self { streams })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (name, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Reads `80ms`.
///
/// # Errors
/// Says what is wrong.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read = humantime::parse_duration(text);
    read.map_err(|_| format!("{text:?} is not a duration: write 80ms or 2s"))
}

/// Reads `2` or `2%`.
///
/// # Errors
/// Says what is wrong.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not between 0% and 100%")),
    }
}

/// Reads `2Mbit`.
///
/// # Errors
/// Says what is wrong.
pub fn rate(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a rate: write 500kbit or 2Mbit");
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("/s").unwrap_or(&lower);
    let number = lower.strip_suffix("bit").unwrap_or(lower);
    let (number, unit) = match number.strip_suffix(['k', 'm', 'g']) {
        Some(rest) if number.ends_with('k') => (rest, 1_000),
        Some(rest) if number.ends_with('m') => (rest, 1_000_000),
        Some(rest) => (rest, 1_000_000_000),
        None => (number, 1),
    };
    let number: u64 = number.trim().parse().map_err(|_| bad())?;
    let bits = number.checked_mul(unit).ok_or_else(bad)?;
    if bits < 1_000 {
        return Err(bad());
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_losses_are_read_with_their_units() {
        assert_eq!(rate("2Mbit"), Ok(2_000_000));
        assert_eq!(rate("500kbit/s"), Ok(500_000));
        assert_eq!(rate("64000"), Ok(64_000));
        for bad in ["", "fast", "0", "2MB", "-1Mbit"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(percent("2%"), Ok(2.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        assert!(percent("101").is_err() && percent("NaN").is_err());
    }
}
