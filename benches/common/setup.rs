//! What both programs are told on the command line, and what they do of it before they measure.

use super::process::Cores;
use super::sched;
use anyhow::{Context, Result};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Setup {
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// How often each server is measured (memory of signaling servers: once).
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Length of one measurement.
    #[arg(long, default_value_t = 1.5)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// The binary under test; $CALLBOX_BIN or `target/release/callbox` by default.
    #[arg(long)]
    callbox: Option<PathBuf>,
}

impl Setup {
    /// Raises the limit on open files and goes to the generator's core.
    pub(crate) fn take_place(&self) -> Result<Cores> {
        let cores = Cores {
            generator: self.generator_core,
            server: self.server_core,
        };
        sched::raise_open_files().context("raising the limit on open files")?;
        sched::pin_to_core(cores.generator)?;
        Ok(cores)
    }

    /// The binary under test.
    pub(crate) fn callbox(&self) -> PathBuf {
        let named = self.callbox.clone();
        named
            .or_else(|| std::env::var_os("CALLBOX_BIN").map(PathBuf::from))
            .unwrap_or_else(|| target().join("release/callbox"))
    }
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("..")
}
