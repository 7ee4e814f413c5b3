//! Network namespaces without a name: a thread lives in each, and with the thread it goes.
//!
//! What has no name is in no list (`ip netns`) and cannot be left behind: the kernel removes a
//! namespace and its interfaces with the last process or descriptor that is in it.

use nix::sched::{CloneFlags, unshare};
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace and the thread that is in it.
pub struct Namespace {
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// A sentence that says what the machine does not allow.
    pub async fn new() -> Result<Self, String> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (made, outcome) = oneshot::channel();
        thread::Builder::new()
            .name("namespace".into())
            .spawn(move || {
                let is_made = unshare(CloneFlags::CLONE_NEWNET);
                let failed = is_made.is_err();
                let _ = made.send(is_made);
                if !failed {
                    todo.into_iter().for_each(|job| job());
                }
            })
            .map_err(|error| format!("a thread cannot be started: {error}"))?;
        match outcome.await {
            Ok(Ok(())) => Ok(Self { jobs }),
            Ok(Err(errno)) => Err(format!(
                "a network namespace cannot be made ({errno}): in a container, give it \
                 CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --cap-add SYS_ADMIN --cap-add \
                 NET_ADMIN --device /dev/net/tun)"
            )),
            Err(_) => Err("the thread of a network namespace ended".into()),
        }
    }

    /// Runs `job` inside. What it opens stays inside; a process that it starts is inside.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let ended = || "the thread of a network namespace ended".to_owned();
        let (done, outcome) = oneshot::channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs.send(job).map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())
    }
}

/// Runs the lines of an `ip -batch` script in the namespace of the calling thread.
///
/// # Errors
/// A sentence with what `ip` said.
pub fn ip(script: &str) -> Result<(), String> {
    feed(&["ip", "-batch", "-"], script, "iproute2")
}

/// Loads an nftables script in the namespace of the calling thread.
///
/// # Errors
/// A sentence with what `nft` said.
pub fn nft(script: &str) -> Result<(), String> {
    feed(&["nft", "-f", "-"], script, "nftables")
}

fn feed(command: &[&str], script: &str, package: &str) -> Result<(), String> {
    let name = command[0];
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{name} is not installed: install the package {package}")
        }
        _ => format!("{name} cannot be started: {error}"),
    };
    let mut child = Command::new(name)
        .args(&command[1..])
        // Administrators' tools may be in sbin alone.
        .env("PATH", search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed: {}", said.trim()))
}

/// `PATH` with the folders of administrators' tools.
#[must_use]
pub fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
}
