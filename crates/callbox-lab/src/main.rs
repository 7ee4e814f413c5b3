//! What `callbox behind` and `callbox natlab` run: arguments and exit code.

mod behind;
mod edge;
mod forward;
mod kind;
mod link;
mod nat;
mod natlab;
mod netns;
mod network;
mod packet;
mod preflight;
mod router;
mod stage;
mod stun_server;
mod user;
mod wan;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Programs behind NATs: what `callbox behind` and `callbox natlab` run.
#[derive(Debug, Parser)]
#[command(name = "callbox", bin_name = "callbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs COMMAND in a network of its own, behind a NAT of a kind.
    Behind(behind::BehindArgs),
    /// Calls between peers behind each kind of NAT, through a box: which path does each take?
    Natlab(natlab::NatlabArgs),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = stage::of(&arguments) {
        std::process::exit(code);
    }
    let cli = match callbox::cli::arguments::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error.to_string()),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Behind(args) => behind::run(args).await.map_err(|e| ("behind", e)),
            Command::Natlab(args) => natlab::run(args).await.map_err(|e| ("natlab", e)),
        }
    });
    // What tasks hold is given back. A thread that still waits for a process is not waited for.
    runtime.shutdown_timeout(ENDS_WITHIN);
    match outcome {
        Ok(code) => std::process::exit(code),
        Err((command, error)) => failure(&format!("{command}: {error}")),
    }
}

fn failure(error: &str) -> ExitCode {
    eprintln!("callbox {error}");
    ExitCode::FAILURE
}
