//! `callbox natlab [KIND/KIND …]`: calls between peers behind each kind of NAT, through a box; the
//! path of each is compared with the expected one.

mod bridge;
mod ground;
mod matrix;
mod peer;
mod real;
mod relay;
mod report;
mod rtc;
mod run;
mod session;
mod verdict;
mod virtual_box;
mod vnet;

use crate::behind::{Signals, duration, percent};
use crate::link::Impairment;
use crate::preflight;
use clap::{Args, ValueEnum};
use ground::Ground;
use matrix::Pair;
use report::Proof;
use run::{Disturbance, Options};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use verdict::Row;

/// The arguments of `callbox natlab`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo callbox natlab                              the whole matrix, through a box of its own
  sudo callbox natlab symmetric/symmetric          one pair
  sudo callbox natlab --relay-only --only udp,tcp,tls none/none
  sudo callbox natlab --url https://call.example.org symmetric/no-udp --junit natlab.xml
A variable of the environment reaches the command's own box: with CALLBOX_TURN__ENABLED=false, the
calls that need the relay fail.")]
pub struct NatlabArgs {
    /// Who calls whom: symmetric/no-udp. All 49 pairs if left out.
    #[arg(value_name = "KIND/KIND")]
    pairs: Vec<Pair>,
    /// A running box, in place of one of the command's own.
    #[arg(long)]
    url: Option<String>,
    /// A token to join with, where that box asks for one; CALLBOX_TOKEN keeps it out of the list of
    /// processes.
    #[arg(long, requires = "url")]
    token: Option<String>,
    /// The transports to the relay: a call for each, in which both sides use no other.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TRANSPORTS")]
    only: Vec<OnlyVia>,
    /// Neither side gives away its own addresses: every call goes by the relay.
    #[arg(long)]
    relay_only: bool,
    /// How long each packet is on the way, in each direction of each side's link: 80ms.
    #[arg(long, value_parser = duration, default_value = "0ms")]
    delay: Duration,
    /// How many of a hundred packets are lost, in each direction of each side's link: 2 or 2%.
    #[arg(long, value_parser = percent, default_value = "0")]
    loss: f64,
    /// Kills the box in the middle of each call, and starts it again.
    #[arg(long, conflicts_with_all = ["url", "move_"])]
    restart: bool,
    /// Gives the first side another public address in the middle of each call.
    #[arg(long = "move")]
    move_: bool,
    /// The same without root, for containers: on a virtual network in the process, with the box's engine
    /// as a host of it. It has no TCP, which leads to the engine directly where a network passes it.
    #[arg(long = "virtual", conflicts_with_all = ["url", "delay", "loss", "restart", "move_"])]
    virtual_: bool,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    /// Writes the results to FILE, as JUnit does.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A transport to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnlyVia {
    Udp,
    Tcp,
    Tls,
}

/// Runs the calls; returns the exit code: 1 where one did not go as expected.
///
/// # Errors
/// A sentence.
pub async fn run(args: NatlabArgs) -> Result<i32, String> {
    if !args.virtual_ {
        preflight::all("callbox natlab")?;
    }
    // Two of rustls' providers are compiled in: ring by the peers, aws-lc by the box.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut signals = Signals::new()?;
    tokio::select! {
        outcome = work(&args) => outcome,
        // All of it is in this process, and ends with it.
        signal = signals.next() => Ok(128 + signal as i32),
    }
}

async fn work(args: &NatlabArgs) -> Result<i32, String> {
    let begun = Instant::now();
    let pairs = match &args.pairs[..] {
        [] => matrix::all_pairs(),
        pairs => pairs.to_vec(),
    };
    let only: Vec<_> = args.only.iter().map(|via| (*via).into()).collect();
    let calls = matrix::calls(&pairs, &only, args.relay_only);
    let impairment = Impairment {
        delay: args.delay,
        loss: args.loss,
        rate: None,
    };
    let (ground, proofs) = if args.virtual_ {
        let (ground, proofs) = vnet::Ground::new(&pairs).await?;
        (Ground::Virtual(Box::new(ground)), proofs)
    } else {
        let (ground, proofs) = real::Ground::new(&pairs, args.url.as_deref(), impairment).await?;
        (Ground::Real(Box::new(ground)), proofs)
    };
    let shows = !args.json;
    if shows {
        proofs.iter().for_each(show_proof);
        show(&format!("\n{}", report::head()));
    }
    let variable = || std::env::var("CALLBOX_TOKEN").ok();
    let options = Options {
        token: args.token.clone().or_else(variable),
        disturbance: match (args.restart, args.move_) {
            (true, _) => Some(Disturbance::Restart),
            (_, true) => Some(Disturbance::Move),
            _ => None,
        },
        is_lossy: args.loss > 0.0,
    };
    let box_url = ground.url().to_string();
    let outcome = run::all(&ground, &calls, &options, |row| {
        if shows {
            show(&report::line(row));
        }
    })
    .await;
    ground.close().await;
    let rows = outcome?;
    let seconds = begun.elapsed().as_secs_f64();
    if shows {
        show(&format!("\n{}", report::summary(&rows, seconds)));
    } else {
        let json = report::to_json(&box_url, &proofs, &rows, seconds);
        show(&format!("{json:#}\n"));
    }
    if let Some(path) = &args.junit {
        write(path, &report::to_junit(&proofs, &rows, seconds))?;
    }
    Ok(i32::from(!rows.iter().all(Row::is_good)))
}

fn show_proof(proof: &Proof) {
    show(&format!("{:<28} {}\n", proof.network, proof.found));
}

/// A reader that has gone away does not end the run.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

impl From<OnlyVia> for callbox::cli::reach::Via {
    fn from(via: OnlyVia) -> Self {
        match via {
            OnlyVia::Udp => Self::Udp,
            OnlyVia::Tcp => Self::Tcp,
            OnlyVia::Tls => Self::Tls,
        }
    }
}
