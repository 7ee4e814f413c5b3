//! From the lab's own process to COMMAND, in three steps that are each this program again.
//!
//! 1. `@inner` leaves the machine's process ids and mounts, and shows COMMAND its `resolv.conf`.
//! 2. `@init` is process 1 of the new process ids: when it ends, for whatever reason, the kernel
//!    ends everything that COMMAND has started.
//! 3. `@enter` becomes the calling user and then COMMAND.
//!
//! `@follow` is a step of its own: a command without namespaces.
//!
//! Each asks the kernel to be killed with its parent. So a `kill -9` of the lab ends COMMAND, the
//! namespaces and their interfaces without anybody who cleans up.

use crate::user::Caller;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, getppid, tcsetpgrp};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

/// What a shell says of a command that cannot be started, and of one that is not there.
const CANNOT_START: i32 = 126;
const NOT_FOUND: i32 = 127;
/// And of one that a signal ended.
const BY_SIGNAL: i32 = 128;

/// What is to be run, and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whose process it is.
    pub caller: Caller,
    /// Shown to COMMAND as `/etc/resolv.conf`.
    pub resolv: Option<PathBuf>,
    /// COMMAND gets the terminal, so that ^C reaches it alone.
    pub terminal: bool,
    /// The process that is to be outlived by nothing.
    pub lab: u32,
}

/// Which step this process is, if it is one.
#[must_use]
pub fn of(arguments: &[String]) -> Option<i32> {
    let step = match arguments.first()?.as_str() {
        "@inner" => inner,
        "@init" => init,
        "@enter" => enter,
        "@follow" => follow,
        _ => return None,
    };
    let job: Job = serde_json::from_str(arguments.get(1)?).ok()?;
    Some(step(&job).unwrap_or_else(|error| {
        eprintln!("callbox-lab: {error}");
        CANNOT_START
    }))
}

/// The command line of a step.
///
/// # Errors
/// The program does not know where it is.
pub fn command(step: &str, job: &Job) -> Result<Command, String> {
    let broken = |error: &dyn std::fmt::Display| format!("{step} cannot be started: {error}");
    let program = std::env::current_exe().map_err(|error| broken(&error))?;
    let job = serde_json::to_string(job).map_err(|error| broken(&error))?;
    let mut command = Command::new(program);
    command.arg0("callbox-lab").arg(step).arg(job);
    Ok(command)
}

fn inner(job: &Job) -> Result<i32, String> {
    die_with_parent()?;
    // It may have ended just before.
    if getppid().as_raw().cast_unsigned() != job.lab {
        return Err("the lab has ended".into());
    }
    let signals = blocked();
    let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|errno| format!("namespaces for processes and mounts: {errno}"))?;
    let root = |flags| mount(None::<&str>, "/", None::<&str>, flags, None::<&str>);
    root(MsFlags::MS_REC | MsFlags::MS_PRIVATE).map_err(|errno| format!("mounts: {errno}"))?;
    if let Some(resolv) = &job.resolv {
        // A machine without the file resolves no names either.
        if let Ok(shown) = fs::canonicalize("/etc/resolv.conf") {
            let bind = MsFlags::MS_BIND;
            mount(Some(resolv), &shown, None::<&str>, bind, None::<&str>)
                .map_err(|errno| format!("{}: {errno}", shown.display()))?;
        }
    }
    let child = start(command("@init", job)?.process_group(0))?;
    let pid = pid_of(&child);
    Ok(watch(&signals, pid, |signal| {
        let _ = kill(pid, signal);
    }))
}

fn init(job: &Job) -> Result<i32, String> {
    die_with_parent()?;
    let signals = blocked();
    let proc = Some("proc");
    mount(proc, "/proc", proc, MsFlags::empty(), None::<&str>)
        .map_err(|errno| format!("/proc: {errno}"))?;
    let child = start(command("@enter", job)?.process_group(0))?;
    let pid = pid_of(&child);
    if job.terminal {
        // From the background, which is allowed while SIGTTOU is blocked.
        let _ = tcsetpgrp(io::stdin(), pid);
    }
    Ok(watch(&signals, pid, |signal| {
        let _ = killpg(pid, signal);
    }))
}

fn enter(job: &Job) -> Result<i32, String> {
    job.caller.become_it()?;
    let [program, arguments @ ..] = &job.command[..] else {
        return Err("no command was given".into());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    job.caller
        .environment()
        .into_iter()
        .for_each(|(key, value)| {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        });
    // What the steps before have blocked.
    let _ = SigSet::all().thread_unblock();
    let error = command.exec();
    eprintln!("callbox behind: {program}: {error}");
    Ok(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_START,
    })
}

/// A command without namespaces of its own, which is not to outlive the lab either.
fn follow(job: &Job) -> Result<i32, String> {
    die_with_parent()?;
    if getppid().as_raw().cast_unsigned() != job.lab {
        return Err("the lab has ended".into());
    }
    enter(job)
}

/// Hands signals on and reaps what ends, until `main` has ended; returns its exit code.
fn watch(signals: &SigSet, main: Pid, hand_on: impl Fn(Signal)) -> i32 {
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(main) {
                    return code;
                }
            }
            Ok(Signal::SIGTTOU) | Err(_) => {}
            Ok(signal) => hand_on(signal),
        }
    }
}

fn reap(main: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                return Some(BY_SIGNAL + signal as i32);
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) => {}
            // There is no child left, and the main one was not seen to end.
            Err(_) => return Some(BY_SIGNAL),
        }
    }
}

/// What a shell would say of it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    let by_signal = || BY_SIGNAL + status.signal().unwrap_or(0);
    status.code().unwrap_or_else(by_signal)
}

/// Takes the terminal back after COMMAND had it.
pub fn take_terminal_back() {
    if io::stdin().is_terminal() {
        let mut background = SigSet::empty();
        background.add(Signal::SIGTTOU);
        let _ = background.thread_block();
        let _ = tcsetpgrp(io::stdin(), getpgrp());
    }
}

fn die_with_parent() -> Result<(), String> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("PR_SET_PDEATHSIG: {errno}"))
}

/// Signals that are waited for; a process that is started is free of them.
fn blocked() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGCHLD,
        Signal::SIGTTOU,
    ] {
        signals.add(signal);
    }
    let _ = signals.thread_block();
    signals
}

fn start(command: &mut Command) -> Result<Child, String> {
    command
        .spawn()
        .map_err(|error| format!("a process cannot be started: {error}"))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}
