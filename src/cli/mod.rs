//! The command line: what a person types, and what they read back.

mod certificate;
mod check;
mod credentials;
mod doctor;
mod install;
mod lab;
pub mod nat;
mod token;
mod trace;
mod upgrade;
mod user;

pub use certificate::check_certificate;
pub use check::check;
pub use credentials::{CredentialsArgs, credentials};
pub use doctor::{DoctorArgs, doctor, reach};
pub use install::{InstallArgs, install};
pub use lab::{LabArgs, lab};
pub use token::{Printed, RoleName, TokenArgs, token};
pub use trace::{TraceArgs, trace};
pub use upgrade::{UpgradeArgs, upgrade};
pub use user::{UserArgs, user};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Reads the arguments of the program.
///
/// # Errors
/// There is nothing to run: help, the version or what is wrong was printed.
pub fn arguments<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        let _ = error.print();
        match error.use_stderr() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    })
}

/// The one box that a WebRTC app needs: signaling, STUN/TURN, and the credentials between them.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` if nothing is named.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration of `serve`.
    #[command(flatten)]
    pub source: Source,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the box (the default).
    Serve(ServeArgs),
    /// Has the running service hand everything over to the program that is installed now.
    Upgrade(UpgradeArgs),
    /// Validates the configuration without binding a port, and prints what applies.
    Check {
        /// The configuration.
        #[command(flatten)]
        source: Source,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Asks a running box as a client would, and says what is wrong and why.
    Doctor(DoctorArgs),
    /// Mints a token with the configured key.
    Token(TokenArgs),
    /// Mints TURN credentials and prints them with an `iceServers` block.
    Credentials(CredentialsArgs),
    /// Shows who says what to whom in a running box: type, sender, receiver, size and time.
    Trace(TraceArgs),
    /// Adds, lists or removes people who log in, and programs with a fixed TURN password.
    User(UserArgs),
    /// Runs a program behind a NAT of a kind: `callbox behind symmetric -- chromium URL`.
    Behind(LabArgs),
    /// Calls between peers behind each kind of NAT, through a box: which path does each take?
    Natlab(LabArgs),
    /// Installs this program as a systemd service: user, configuration with fresh secrets, unit.
    Install(InstallArgs),
}

/// What `serve` is given.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The configuration.
    #[command(flatten)]
    pub source: Source,
    /// Serves nothing: checks the configuration and prints whether this program goes on from a
    /// hand-over of that format. A running box asks so before it hands over.
    #[arg(long, value_name = "FORMAT")]
    pub check_handover: Option<u32>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// A TOML file; CALLBOX_TABLE__KEY in the environment overrides it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
