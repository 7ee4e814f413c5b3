//! What `callbox behind` runs: arguments and exit code.

mod behind;
mod edge;
mod forward;
mod kind;
mod link;
mod nat;
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

/// Programs behind NATs: what `callbox behind` runs.
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
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = stage::of(&arguments) {
        std::process::exit(code);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
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
        }
    });
    // A thread that still waits for a process is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => std::process::exit(code),
        Err((command, error)) => failure(&format!("{command}: {error}")),
    }
}

fn failure(error: &str) -> ExitCode {
    eprintln!("callbox {error}");
    ExitCode::FAILURE
}
