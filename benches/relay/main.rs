//! Measures TURN servers side by side: CPU µs of the server per relayed packet, server and
//! generator on a core each, servers in turn, round after round. `docs/performance.md` explains.

#[path = "../common/mod.rs"]
mod common;

mod baseline;
mod client;
mod control;
mod fleet;
mod floor;
mod flow;
mod kind;
mod load;
mod place;
mod results;
mod servers;
mod sys;
mod tls;
mod turn;
mod turns;
mod wire;
mod workload;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use common::setup::{Setup, target};
use kind::Kind;
use place::Place;
use results::Results;
use servers::{Launcher, Other};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;
use turns::Round;
use workload::{Workload, catalogue};

/// CPU cost of TURN servers, side by side.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    server: Option<OwnServer>,
    #[command(flatten)]
    setup: Setup,
    /// Workloads, by key or the beginning of one; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// A second binary of callbox to measure as `beside`.
    #[arg(long)]
    beside: Option<PathBuf>,
    #[command(flatten)]
    other: Other,
}

#[derive(Subcommand)]
enum OwnServer {
    /// Runs the bare forwarder.
    Floor {
        listen: SocketAddrV4,
        #[arg(long)]
        batched: bool,
    },
    /// Runs `turn::server`.
    Baseline {
        listen: SocketAddrV4,
        username: String,
        password: String,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.server {
        Some(OwnServer::Floor { listen, batched }) => floor::serve(listen, batched),
        Some(OwnServer::Baseline {
            listen,
            username,
            password,
        }) => baseline::serve(
            listen,
            servers::REALM,
            turn::Credential { username, password },
        ),
        None if std::env::args().len() == 1 => {
            eprintln!("nothing measured: run `cargo bench --bench relay`, or see --help");
            Ok(())
        }
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let setup = &arguments.setup;
    // With all servers in turn, permissions would run out: they live five minutes.
    ensure!(
        (0.1..=30.0).contains(&setup.seconds),
        "--seconds takes 0.1 to 30; --rounds repeats"
    );
    let folder = target().join("bench-relay");
    let beside = arguments.beside.clone();
    let other = arguments.other.clone();
    let launcher = Launcher::new(setup.take_place()?, folder, setup.callbox(), beside, other)?;
    let mut servers = match arguments.servers.as_slice() {
        [] => Kind::ALL.to_vec(),
        chosen => chosen.to_vec(),
    };
    servers.retain(|&kind| match kind {
        Kind::Beside => arguments.beside.is_some(),
        Kind::Other => arguments.other.is_given(),
        _ => true,
    });
    ensure!(
        !servers.contains(&Kind::Callbox) || launcher.callbox.is_file(),
        "{} is missing: `cargo build --release`, or give --callbox",
        launcher.callbox.display()
    );
    let loopback = Place::loopback();
    let veth = Place::veth();
    if let Err(error) = &veth {
        eprintln!("no veth pair, so no measurement with real GRO: {error:#}");
    }
    let mut results = Results::default();
    for workload in catalogue().iter().filter(|w| arguments.wants(w)) {
        let place = if workload.veth {
            veth.as_ref().ok()
        } else {
            Some(&loopback)
        };
        let Some(place) = place else { continue };
        let suited: Vec<Kind> = servers
            .iter()
            .copied()
            .filter(|&kind| workload.suits(kind))
            .collect();
        let round = Round {
            launcher: &launcher,
            place,
            workload,
            length: Duration::from_secs_f64(setup.seconds),
        };
        for _ in 0..setup.rounds {
            for (kind, sample) in round.measure(&suited) {
                match sample {
                    Ok(sample) => results.add(workload, kind, Some(sample)),
                    Err(error) => {
                        eprintln!("{} on {}: {error:#}", workload.key, kind.name());
                        results.add(workload, kind, None);
                    }
                }
            }
        }
        results.print(workload);
    }
    results.print_summary();
    Ok(())
}

impl Arguments {
    fn wants(&self, workload: &Workload) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|key| workload.key.starts_with(key.as_str()))
    }
}
