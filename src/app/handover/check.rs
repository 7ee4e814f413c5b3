//! The successor is asked, before anything stops, whether it reads what it would be given.

use super::container;
use rustix::fs::{OFlags, fcntl_setfl};
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to read a configuration.
const TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bytes of what it says: as many as a pipe holds.
const MAX_WORDS: u64 = 64 * 1024;

/// What `callbox serve --check-handover FORMAT` answers once its configuration is found good: the
/// newest format that this binary reads, and whether it reads `format`.
pub fn check_handover(format: u32) -> (u32, bool) {
    (container::FORMAT, container::reads(format))
}

/// Asks the binary at `program`; returns the format to write for it.
///
/// # Errors
/// Why it is not a successor, in words for the log.
pub(super) fn ask(program: &OsString, config: Option<&Path>) -> Result<u32, String> {
    let shown = Path::new(program).display();
    let mut command = Command::new(program);
    command.args(["serve", "--check-handover", &container::FORMAT.to_string()]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let child = command
        .env_remove("NOTIFY_SOCKET")
        .env_remove(super::VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("{shown} does not start: {error}"))?;
    let good = wait(&mut child).map_err(|why| format!("{shown} {why}"))?;
    let answer = text(child.stdout.take());
    let highest: Option<u32> = answer.trim().parse().ok();
    let Some(highest) = highest else {
        let complaint = text(child.stderr.take());
        let first = complaint.lines().find(|line| !line.trim().is_empty());
        return Err(match first {
            Some(line) if !good => format!("{shown} refuses its configuration: {line}"),
            _ => format!("{shown} knows no hand-over"),
        });
    };
    match container::format_for(highest) {
        Some(format) if good || format < container::FORMAT => Ok(format),
        _ => Err(format!(
            "{shown} reads format {highest} of a hand-over, and this process writes {}",
            container::FORMAT
        )),
    }
}

/// Returns whether it has ended well.
fn wait(child: &mut Child) -> Result<bool, String> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("does not answer within {} s", TIMEOUT.as_secs()));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

/// Its last words: they fit in a pipe, or it would not have ended. What it has left running may hold
/// the other end for ever, so that nothing is waited for.
fn text(pipe: Option<impl Read + AsFd>) -> String {
    let mut bytes = vec![];
    if let Some(pipe) = pipe
        && fcntl_setfl(&pipe, OFlags::NONBLOCK).is_ok()
    {
        let _ = pipe.take(MAX_WORDS).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn successor(script: &str) -> Result<u32, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("successor");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        ask(&path.into(), None)
    }

    #[test]
    fn a_successor_says_which_format_it_reads() {
        assert_eq!(successor("echo 2"), Ok(2));
        assert_eq!(successor("echo 1"), Ok(1), "the one before");
        assert_eq!(
            successor("echo 1; exit 1"),
            Ok(1),
            "it refuses ours, and not the one before"
        );
        assert_eq!(successor("echo 7"), Ok(2), "a later one that reads ours");
        let refused = successor("echo 7; exit 1").unwrap_err();
        assert!(refused.contains("reads format 7"), "{refused}");
    }

    #[test]
    fn what_a_successor_leaves_running_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (path, pid) = (folder.path().join("successor"), folder.path().join("pid"));
        let script = "#!/bin/sh\nsleep 100 &\necho $! >\"$(dirname \"$0\")/pid\"\necho 2\n";
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let began = Instant::now();
        let answer = ask(&path.into(), None);
        let took = began.elapsed();
        let pid = fs::read_to_string(pid).unwrap();
        Command::new("kill").arg(pid.trim()).status().unwrap();
        assert_eq!(answer, Ok(2));
        assert!(took < Duration::from_secs(50), "{took:?}");
    }

    #[test]
    fn what_is_not_a_successor_is_named_with_its_reason() {
        let refused = successor("echo \"error: unexpected argument\" >&2; exit 1").unwrap_err();
        assert!(refused.ends_with("unexpected argument"), "{refused}");
        assert!(
            successor("exit 0")
                .unwrap_err()
                .ends_with("knows no hand-over")
        );
        let absent = ask(&"/nowhere/callbox".into(), None).unwrap_err();
        assert!(absent.contains("does not start"), "{absent}");
    }
}
