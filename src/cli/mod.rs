//! The command line: what a person types, and what they read back.

mod certificate;
mod check;
mod credentials;
mod doctor;
mod install;
mod lab;
pub mod nat;
mod token;

pub use certificate::check_certificate;
pub use check::check;
pub use credentials::{CredentialsArgs, credentials};
pub use doctor::{DoctorArgs, doctor};
pub use install::{InstallArgs, install};
pub use lab::{LabArgs, lab};
pub use token::{Printed, RoleName, TokenArgs, token};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

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
    Serve(Source),
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
    /// Runs a program behind a NAT of a kind: `callbox behind symmetric -- chromium URL`.
    Behind(LabArgs),
    /// Installs this program as a systemd service: user, configuration with fresh secrets, unit.
    Install(InstallArgs),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// A TOML file; CALLBOX_TABLE__KEY in the environment overrides it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
