//! Measures WebSocket signaling servers side by side: memory a connection, CPU µs a message, and
//! latency, server and generator on a core each. `docs/performance.md` explains.

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod dialect;
mod fleet;
mod floor;
mod herd;
mod pool;
mod scenarios;
mod servers;
mod socket;
#[allow(dead_code, reason = "shared with the benchmark of relays")]
#[path = "../relay/turn.rs"]
mod turn;
#[allow(dead_code, reason = "shared with the benchmark of relays")]
#[path = "../relay/wire.rs"]
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};
use common::report::{Spread, Table, figure, machine};
use common::setup::Setup;
use servers::{Kind, Launcher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Cost of WebSocket signaling servers, side by side.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    server: Option<OwnServer>,
    #[command(flatten)]
    setup: Setup,
    /// Scenarios; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// A second binary of callbox to measure as `beside`.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Measures two nodes over a Redis instead, with so many rooms to be taken over.
    #[arg(long, num_args = 0..=1, default_missing_value = "10000")]
    cluster: Option<usize>,
    /// Clients that come back at once in the scenarios `herd` and `fleet`.
    #[arg(long, default_value_t = 20_000)]
    clients: usize,
}

#[derive(Subcommand)]
enum OwnServer {
    /// Runs the bare room router.
    Floor { listen: SocketAddr },
    /// Runs clients of a fleet.
    #[command(hide = true)]
    Part { arguments: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    Idle,
    Relay200,
    Relay3k,
    Latency,
    Joining,
    Sessions,
    FanOut,
    Stalled,
    Herd,
    /// Two nodes over a Redis, and their clients in processes of their own: by itself alone.
    Fleet,
}

impl Scenario {
    const ALL: [Self; 9] = [
        Self::Relay200,
        Self::Relay3k,
        Self::Latency,
        Self::Joining,
        Self::Sessions,
        Self::FanOut,
        Self::Stalled,
        Self::Idle,
        Self::Herd,
    ];

    /// The figures it gives.
    fn titles(self) -> &'static [&'static str] {
        match self {
            Self::Idle => &[
                "KiB/connection, joined",
                "KiB/connection, after 3 KB and a heartbeat",
            ],
            Self::Relay200 => &["µs/message, 200 B"],
            Self::Relay3k => &["µs/message, 3 KB"],
            Self::Latency => &[
                "p99 µs at a fifth of saturation",
                "p99 µs at 15,000 messages/s",
            ],
            Self::Joining => &["µs from connecting to joined"],
            Self::Sessions => &["µs/session: join, exchange, leave"],
            Self::FanOut => &["µs/delivery in a room of 200"],
            Self::Stalled => &["MB grown by a stalled consumer"],
            Self::Herd => &["s until a herd has joined and allocated", "refused of it"],
            Self::Fleet => &[],
        }
    }

    /// Those that take long and vary little run once.
    fn rounds(self, asked: usize) -> usize {
        if matches!(self, Self::Idle | Self::Stalled | Self::Herd) {
            1
        } else {
            asked
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.server {
        Some(OwnServer::Floor { listen }) => floor::serve(*listen),
        Some(OwnServer::Part { arguments }) => fleet::part::run(arguments),
        None if std::env::args().len() == 1 => {
            eprintln!("nothing measured: run `cargo bench --bench signaling`, or see --help");
            Ok(())
        }
        None => compare(&arguments),
    }
}

#[allow(
    clippy::print_stdout,
    reason = "the figures are what the program is run for"
)]
fn compare(arguments: &Arguments) -> Result<()> {
    let setup = &arguments.setup;
    let launcher = Launcher::new(
        setup.take_place()?,
        setup.callbox(),
        arguments.beside.clone(),
    )?;
    if let Some(rooms) = arguments.cluster {
        let length = Duration::from_secs_f64(setup.seconds);
        return cluster::measure(&launcher, length, rooms);
    }
    if arguments.only == [Scenario::Fleet] {
        return fleet::measure(&launcher, arguments.clients);
    }
    let servers: Vec<Kind> = match arguments.servers.as_slice() {
        [] => Kind::ALL
            .into_iter()
            .filter(|&kind| launcher.has(kind))
            .collect(),
        chosen => chosen.to_vec(),
    };
    let mut header = vec!["figure"];
    header.extend(servers.iter().map(|kind| kind.name()));
    let mut table = Table::new(&header);
    for scenario in Scenario::ALL {
        if !arguments.only.is_empty() && !arguments.only.contains(&scenario) {
            continue;
        }
        let mut samples = vec![vec![vec![]; servers.len()]; scenario.titles().len()];
        for _ in 0..scenario.rounds(setup.rounds) {
            for (column, &kind) in servers.iter().enumerate() {
                match measure(&launcher, kind, scenario, arguments) {
                    Ok(values) => {
                        for (figure, value) in values.into_iter().enumerate() {
                            samples[figure][column].push(value);
                        }
                    }
                    Err(error) => eprintln!("{scenario:?} on {}: {error:#}", kind.name()),
                }
            }
        }
        for (title, by_server) in scenario.titles().iter().zip(&samples) {
            let mut row = vec![(*title).to_owned()];
            row.extend(by_server.iter().map(|values| cell(values)));
            println!("{}", row.join(" | "));
            table.row(row);
            if let Some(ratio) = beside(&servers, by_server) {
                println!("callbox × beside: {ratio}");
            }
        }
    }
    println!("\nMedians (min–max). {}.\n", machine());
    table.print();
    Ok(())
}

/// callbox's figures over those of `--beside`, round by round.
fn beside(servers: &[Kind], by_server: &[Vec<f64>]) -> Option<String> {
    let of = |kind| servers.iter().position(|&server| server == kind);
    let (ours, theirs) = (
        &by_server[of(Kind::Callbox)?],
        &by_server[of(Kind::Beside)?],
    );
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    let Spread { median, min, max } = Spread::of(&ratios)?;
    Some(format!("{median:.3} ({min:.3}–{max:.3})"))
}

fn cell(values: &[f64]) -> String {
    match Spread::of(values) {
        None => "–".to_owned(),
        Some(spread) if values.len() == 1 => figure(spread.median),
        Some(Spread { median, min, max }) => {
            format!("{} ({}–{})", figure(median), figure(min), figure(max))
        }
    }
}

/// One server, freshly started, in one scenario; nothing where its protocol has no such thing.
fn measure(
    launcher: &Launcher,
    kind: Kind,
    scenario: Scenario,
    arguments: &Arguments,
) -> Result<Vec<f64>> {
    if scenario == Scenario::Herd {
        // A herd has to be sure of whom it comes back to, and callbox alone hands out relays.
        if kind != Kind::CallboxTls {
            return Ok(vec![]);
        }
        let clients = arguments.clients;
        let subject = launcher.start_with(kind, &herd::settings(clients))?;
        return Ok(herd::herd(&subject, clients, common::sched::open_files()?)?.to_vec());
    }
    if scenario == Scenario::FanOut && !kind.dialect().broadcasts() {
        return Ok(vec![]);
    }
    let subject = launcher.start(kind)?;
    let length = Duration::from_secs_f64(arguments.setup.seconds);
    Ok(match scenario {
        Scenario::Idle => scenarios::idle(&subject)?.to_vec(),
        Scenario::Relay200 => vec![scenarios::relay(&subject, 200, length)?],
        Scenario::Relay3k => vec![scenarios::relay(&subject, 3_000, length)?],
        Scenario::Latency => scenarios::latency(&subject, length)?.to_vec(),
        Scenario::Joining => vec![scenarios::joining(&subject)?],
        Scenario::Sessions => vec![scenarios::sessions(&subject, length)?],
        Scenario::FanOut => vec![scenarios::fan_out(&subject, length)?],
        Scenario::Stalled => {
            let (growth, fate) = scenarios::stalled(&subject)?;
            eprintln!("stalled consumer of {}: {fate}", kind.name());
            vec![growth]
        }
        Scenario::Herd | Scenario::Fleet => vec![],
    })
}
