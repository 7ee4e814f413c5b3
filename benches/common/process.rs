//! A server under test: a child process on its own core, which ends when its handle is dropped, or
//! one that somebody else has started.

use super::sched;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Which cores the two sides run on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) generator: usize,
    pub(crate) server: usize,
}

pub(crate) struct ServerProcess {
    id: u32,
    /// Nothing where somebody else has started it.
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts `command` pinned to the server's core, its output in `log`.
    pub(crate) fn spawn(command: &mut Command, cores: Cores, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // Affinity is inherited: the generator visits the other core for the length of a fork.
        sched::pin_to_core(cores.server)?;
        let child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"));
        sched::pin_to_core(cores.generator)?;
        Ok(Self::child(child?))
    }

    /// One that this process has started, on whatever core.
    pub(crate) fn child(child: Child) -> Self {
        Self {
            id: child.id(),
            child: Some(child),
        }
    }

    /// One that runs already, on whatever core, and goes on.
    #[allow(dead_code, reason = "not every benchmark has use for it")]
    pub(crate) fn running(id: u32) -> Self {
        Self { id, child: None }
    }

    /// Ends it at once, as a failing machine does.
    #[allow(dead_code, reason = "not every benchmark has use for it")]
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        sched::cpu_time(self.id).context("reading the server's CPU time")
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id);
        fs::read_to_string(&path)?
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("{path} has no VmRSS"))
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => !Path::new(&format!("/proc/{}", self.id)).exists(),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already; either way nothing is left to do about it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `ip` of iproute2.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.context("running ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(())
}
