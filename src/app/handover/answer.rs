//! What became of a hand-over, said to the `callbox upgrade` that waits for it.
//!
//! It listens on an abstract Unix address named after the process, so that neither side needs a
//! folder that the other may write to. Nobody may be waiting.

use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::Duration;

/// How long the program that waits may take to read a line.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The first words of an answer.
pub const READY: &str = "ready";
/// The same where there is no hand-over.
pub const REFUSED: &str = "refused";
/// How a reason begins that takes a restart.
pub const UNIT_CHANGED: &str = "the systemd unit has changed";

/// Where a hand-over of `process` is waited for.
///
/// # Errors
/// Never: the name is short.
pub fn address(process: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("callbox-upgrade-{process}"))
}

/// Says how it ended, without waiting for anybody.
pub fn say(word: &'static str, text: String) {
    let process = std::process::id();
    let say = move || {
        let sent = address(process)
            .and_then(|address| UnixStream::connect_addr(&address))
            .and_then(|mut stream| {
                stream.set_write_timeout(Some(TIMEOUT))?;
                writeln!(stream, "{word}: {text}")
            });
        if let Err(error) = sent {
            tracing::debug!("nobody waits for the end of an upgrade: {error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("answer".into()).spawn(say) {
        tracing::debug!("the end of an upgrade cannot be said: {error}");
    }
}
