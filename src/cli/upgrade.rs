//! `callbox upgrade`: asks the running service to hand everything over to the program on disk.

use crate::app::handover::answer;
use clap::Args;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The service of the Debian package and of `callbox install`.
pub(super) const UNIT: &str = "callbox.service";
/// How long a hand-over may take: the new program is asked for five seconds at most, and ten thousand
/// allocations move in a tenth of a second.
const TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Which process, and whether to wait for it.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The process; else the main process of callbox.service.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Returns once the new program serves, or with the reason why it does not.
    #[arg(long)]
    pub wait: bool,
}

/// Asks, and waits if that is wanted.
///
/// # Errors
/// What is wrong, and what to do.
pub fn upgrade(args: &UpgradeArgs) -> Result<String, String> {
    let process = match args.pid {
        Some(process) => process,
        None => main_process()?,
    };
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("{process} is not a valid process id"))?;
    if !takes_signal(process)? {
        return Err(format!(
            "pid {process} knows no hand-over (it is another program, an earlier callbox, or still \
             starting): restart it, e.g. `systemctl restart callbox`"
        ));
    }
    let waiting = match args.wait {
        true => Some(listen(process)?),
        false => None,
    };
    kill_process(pid, Signal::USR2)
        .map_err(|error| format!("pid {process} cannot be asked: {error}; run this as root"))?;
    match waiting {
        Some(listener) => match wait(&listener, process, pid) {
            Err(reason) if args.pid.is_none() && reason.contains(answer::UNIT_CHANGED) => restart(),
            waited => waited,
        },
        None => Ok(format!("asked pid {process} to hand over\n")),
    }
}

/// A unit that has changed applies from a restart on, through which systemd keeps the sockets.
fn restart() -> Result<String, String> {
    for arguments in [&["daemon-reload"][..], &["restart", UNIT]] {
        let status = Command::new("systemctl").args(arguments).status();
        let words = arguments.join(" ");
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("systemctl {words}: {status}")),
            Err(error) => return Err(format!("systemctl {words}: {error}")),
        }
    }
    Ok("ready: restarted, since the systemd unit has changed\n".into())
}

fn main_process() -> Result<u32, String> {
    let shown = Command::new("systemctl")
        .args(["show", "--property=MainPID", "--value", UNIT])
        .output()
        .map_err(|error| format!("systemctl does not start: {error}; name a process by --pid"))?;
    let text = String::from_utf8_lossy(&shown.stdout);
    match text.trim().parse() {
        Ok(process) if process > 0 => Ok(process),
        _ => Err(format!(
            "{UNIT} does not run: `systemctl start callbox`, or name a process by --pid"
        )),
    }
}

/// Whether the process handles SIGUSR2, which would end it otherwise.
fn takes_signal(process: u32) -> Result<bool, String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .map_err(|error| format!("there is no pid {process}: {error}"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok());
    let bit = Signal::USR2.as_raw() - 1;
    Ok(caught.is_some_and(|caught| caught >> bit & 1 == 1) && is_callbox(&status))
}

fn is_callbox(status: &str) -> bool {
    let name = status.lines().find_map(|line| line.strip_prefix("Name:"));
    name.is_some_and(|name| name.trim().starts_with("callbox"))
}

fn listen(process: u32) -> Result<UnixListener, String> {
    let listener = answer::address(process).and_then(|address| {
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("another upgrade of pid {process} is under way"),
        _ => format!("no answer of pid {process} can be waited for: {error}"),
    })
}

fn wait(listener: &UnixListener, process: u32, pid: Pid) -> Result<String, String> {
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((stream, _)) if is_of(&stream, pid) => return read(stream),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if test_kill_process(pid).is_err() {
                    return Err(format!("pid {process} has ended: look at its log"));
                }
                thread::sleep(LOOK_AGAIN);
            }
            Err(error) => return Err(format!("no answer can be waited for: {error}")),
        }
    }
    Err(format!(
        "pid {process} has not answered within {} s: look at its log",
        TIMEOUT.as_secs()
    ))
}

/// Anybody on the machine may connect; only the process itself is listened to.
fn is_of(stream: &UnixStream, pid: Pid) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.pid == pid)
}

fn read(mut stream: UnixStream) -> Result<String, String> {
    let mut line = String::new();
    let read = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)))
        .and_then(|()| stream.read_to_string(&mut line));
    read.map_err(|error| format!("the answer breaks off: {error}"))?;
    match line.strip_prefix(answer::REFUSED) {
        Some(reason) => Err(format!("not handed over{}", reason.trim_end())),
        None => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_would_be_ended_by_the_signal_is_not_sent_it() {
        let args = |pid| UpgradeArgs {
            pid: Some(pid),
            wait: true,
        };
        let refused = upgrade(&args(std::process::id())).unwrap_err();
        assert!(refused.contains("knows no hand-over"), "{refused}");
        let refused = upgrade(&args(u32::MAX)).unwrap_err();
        assert!(refused.contains("not a valid process id"), "{refused}");
    }

    #[test]
    fn two_do_not_wait_for_the_same_process() {
        // Larger than any process id of Linux.
        let process = (1 << 22) + std::process::id();
        let first = listen(process).unwrap();
        let refused = listen(process).unwrap_err();
        assert!(refused.contains("another upgrade"), "{refused}");
        drop(first);
        assert!(listen(process).is_ok());
    }
}
