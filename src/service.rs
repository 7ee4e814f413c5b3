//! The service manager: readiness, a status line and the watchdog of sd_notify(3).
//!
//! Without systemd every call does nothing.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What closing listeners and relays may take after the drain, on a machine that is busy.
const CLOSING: Duration = Duration::from_secs(15);

/// How long systemd may take to read what it was sent.
const SETTLING: Duration = Duration::from_secs(5);

/// How often systemd is asked to wait on.
const EXTENSION: Duration = Duration::from_secs(600);

/// The folder that systemd keeps for the unit's state (StateDirectory=).
pub fn state_directory() -> Option<PathBuf> {
    let folders = std::env::var_os("STATE_DIRECTORY")?;
    // Of several, separated by colons, the first one.
    std::env::split_paths(&folders)
        .next()
        .filter(|folder| folder.is_absolute())
}

/// Everything serves; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The drain begins, and takes `grace` at most: systemd is asked to wait that long, whatever
/// TimeoutStopSec= says, and again, as one request reaches no further than 71 minutes. Never ends.
pub async fn stopping(grace: Duration) {
    let ends = Instant::now() + grace + CLOSING;
    tell(&[NotifyState::Stopping]);
    let mut turns = tokio::time::interval(EXTENSION);
    loop {
        turns.tick().await;
        let left = ends.saturating_duration_since(Instant::now());
        let micros = u32::try_from(left.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }
}

/// Feeds the watchdog for ever, as long as `status` comes back with the line to show: a
/// box that hangs in it is restarted by systemd.
pub async fn watchdog<F: Future<Output = String>>(status: impl Fn() -> F) {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // sd_watchdog_enabled(3) recommends half the time; a third forgives one late turn.
    let mut turns = tokio::time::interval((deadline / 3).max(Duration::from_millis(100)));
    loop {
        turns.tick().await;
        let status = status().await;
        tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

/// Has systemd keep `fd` as `name` for the next process of this service (FileDescriptorStoreMax=),
/// whatever becomes of its other end.
///
/// # Errors
/// There is no systemd, or it cannot be reached.
pub fn keep(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[fd])
}

/// Has systemd close what it keeps as `name`.
///
/// # Errors
/// As [`keep`].
pub fn forget(name: &str) -> io::Result<()> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
}

/// Waits until systemd has read everything that it was sent.
///
/// # Errors
/// As [`keep`], or it takes too long.
pub fn settle() -> io::Result<()> {
    let (read, written) = io::pipe()?;
    send("BARRIER=1", &[written.as_fd()])?;
    drop(written);
    // systemd closes its end when it gets there.
    let mut ends = [PollFd::new(&read, PollFlags::empty())];
    let patience = Timespec::try_from(SETTLING).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut ends, Some(&patience))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn send(message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or(io::ErrorKind::NotFound)?;
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !passed.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let text = [IoSlice::new(message.as_bytes())];
    sendmsg(&socket, &text, &mut passed, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}
