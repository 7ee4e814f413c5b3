//! `callbox behind` and `callbox natlab`: started here, done by the program `callbox-lab`, so that
//! the box itself carries no NAT and no peer connection.

use clap::Args;
use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "callbox-lab";

/// Everything behind the name of the command.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct LabArgs {
    /// `callbox behind --help` and `callbox natlab --help` list them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes `callbox-lab`, which does the work of `command`. Comes back only if it cannot.
#[must_use]
pub fn lab(command: &str, args: &LabArgs) -> String {
    let program = beside_this_one().unwrap_or_else(|| PathBuf::from(PROGRAM));
    let error = Command::new(&program)
        .arg(command)
        .args(&args.arguments)
        .exec();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{command} needs the program {PROGRAM}, which is not beside this one and not in PATH: \
             the Debian package brings it; from the source, build it with `cargo build --release \
             -p {PROGRAM}`"
        ),
        _ => format!("{}: {error}", program.display()),
    }
}

fn beside_this_one() -> Option<PathBuf> {
    let beside = env::current_exe().ok()?.with_file_name(PROGRAM);
    beside.is_file().then_some(beside)
}
