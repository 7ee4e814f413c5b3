//! Revocations on disk, so that a restart does not forget them: one line each, appended as they
//! come, and written anew once most of the file has passed.

use crate::file;
use crate::relay::RelayHandle;
use crate::relay::shared::{Revocation, SharedState};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The first words of the file, behind which the seed of the hashes stands.
const HEAD: &str = "callbox-revocations 1";

/// Lines of a file that are never worth writing anew.
const SMALL: usize = 10_000;

/// The file of one box.
pub(super) struct RevocationLog {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
    /// Whether the last attempt failed, which is logged once.
    failed: bool,
}

impl RevocationLog {
    /// Takes over what `folder` holds of an earlier run, and goes on from there; without the time,
    /// `shared` knows more than the file.
    pub(super) fn open(folder: &Path, shared: &SharedState, unix_now: Option<u64>) -> Self {
        let path = folder.join("revocations");
        if let Some(unix_now) = unix_now {
            Self::read(&path, shared, unix_now);
        }
        let mut log = Self {
            path,
            file: None,
            lines: 0,
            failed: false,
        };
        let rewritten = log.rewrite(shared);
        log.note(rewritten);
        log
    }

    fn read(path: &Path, shared: &SharedState, unix_now: u64) {
        match fs::read_to_string(path) {
            Ok(text) => match parse(&text) {
                Some((seed, revocations)) => {
                    shared.restore_revocations(seed, revocations, unix_now);
                }
                None => tracing::warn!(
                    "{} is not a list of revocations: it is written anew, and what was revoked \
                     before is forgotten",
                    path.display()
                ),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("cannot read {}: {error}", path.display()),
        }
    }

    /// Writes down what was revoked since the last time.
    pub(super) fn append(&mut self, shared: &SharedState) {
        let fresh = shared.fresh_revocations();
        let written = match (fresh, &mut self.file) {
            (Some(fresh), Some(file)) if self.lines + fresh.len() <= SMALL.max(2 * self.lines) => {
                let text: String = fresh.iter().map(line).collect();
                self.lines += fresh.len();
                file.write_all(text.as_bytes())
            }
            _ => self.rewrite(shared),
        };
        if written.is_err() {
            // What is in the file may end in half a line.
            self.file = None;
        }
        self.note(written);
    }

    /// Puts a file of what is still refused in the place of the old one.
    fn rewrite(&mut self, shared: &SharedState) -> io::Result<()> {
        // What is fresh is part of the whole.
        let _ = shared.fresh_revocations();
        let (seed, all) = shared.revocations();
        let mut text = format!("{HEAD} {seed:x}\n");
        text.extend(all.iter().map(line));
        let (mut file, beside) = file::beside(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.file = Some(file);
        self.lines = all.len();
        Ok(())
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = &written
            && !self.failed
        {
            tracing::warn!(
                "cannot write {}: {error}; a restart forgets what is revoked from now on",
                self.path.display()
            );
        }
        self.failed = written.is_err();
    }
}

/// Writes down what `relay` revokes, until the task is ended.
pub(super) async fn follow(relay: Arc<RelayHandle>, log: Arc<Mutex<RevocationLog>>) {
    loop {
        relay.revoked().await;
        append(&relay, &log).await;
    }
}

/// Writes down what was revoked so far; it waits for the disk on a thread of its own.
pub(super) async fn append(relay: &Arc<RelayHandle>, log: &Arc<Mutex<RevocationLog>>) {
    let (relay, log) = (Arc::clone(relay), Arc::clone(log));
    let append = move || {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.append(relay.shared());
    };
    let _ = tokio::task::spawn_blocking(append).await;
}

fn line(revocation: &Revocation) -> String {
    let Revocation {
        user,
        network,
        until,
    } = revocation;
    format!("{user:x} {network:x} {until}\n")
}

/// The seed and the revocations of a file; what a crash left of its last line is passed over.
fn parse(text: &str) -> Option<(u64, Vec<Revocation>)> {
    let (head, lines) = text.split_once('\n')?;
    let seed = head.strip_prefix(HEAD)?.trim();
    let seed = u64::from_str_radix(seed, 16).ok()?;
    let whole = &lines[..lines.rfind('\n').map_or(0, |end| end + 1)];
    let revocations = whole.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let user = u64::from_str_radix(words.next()?, 16).ok()?;
        let network = u64::from_str_radix(words.next()?, 16).ok()?;
        let until = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Revocation {
            user,
            network,
            until,
        })
    });
    Some((seed, revocations.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use std::time::Instant;

    fn shared(seed: u8) -> Arc<SharedState> {
        SharedState::new(vec![], 50_000..=50_001, [seed; 32], Instant::now())
    }

    #[test]
    fn the_next_process_refuses_what_this_one_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let before = shared(1);
        let mut log = RevocationLog::open(folder.path(), &before, Some(100));
        before.revoke_client("gone", 1_000, Some("192.0.2.1".parse().unwrap()), 100);
        log.append(&before);
        before.revoke("removed", 900, 100);
        log.append(&before);
        // A crash in the middle of a line.
        log.file.take().unwrap().write_all(b"12ab 3").unwrap();

        let after = shared(2);
        let mut log = RevocationLog::open(folder.path(), &after, Some(200));
        assert!(after.is_revoked("gone", 1_000) && after.is_revoked("removed", 900));
        assert!(!after.is_revoked("gone", 1_001) && !after.is_revoked("other", 1));
        after.revoke("later", 2_000, 200);
        log.append(&after);
        // What has passed does not stay in the file.
        let last = shared(3);
        RevocationLog::open(folder.path(), &last, Some(1_500));
        assert!(last.is_revoked("later", 2_000) && last.revoked_until("gone").is_none());
        let text = fs::read_to_string(folder.path().join("revocations")).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_file_of_something_else_and_a_folder_that_is_gone_keep_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("revocations"), "something else\n").unwrap();
        let shared = shared(1);
        let mut log = RevocationLog::open(folder.path(), &shared, Some(100));
        shared.revoke("a", 1_000, 100);
        log.append(&shared);
        assert!(!log.failed);
        let mut gone = RevocationLog::open(&folder.path().join("absent"), &shared, Some(100));
        assert!(gone.failed);
        gone.append(&shared);
        assert!(shared.is_revoked("a", 1_000));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_relay_has_its_revocations_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let app = App::on_free_ports().await;
        let relay = app.relay.clone().unwrap();
        let log = RevocationLog::open(folder.path(), relay.shared(), Some(0));
        let writing = tokio::spawn(follow(Arc::clone(&relay), Arc::new(Mutex::new(log))));
        let until = crate::clock::unix_now() + 1_000;
        relay.revoke("gone", until);
        let written = || fs::read_to_string(folder.path().join("revocations")).unwrap();
        while written().lines().count() < 2 {
            tokio::task::yield_now().await;
        }
        let after = shared(2);
        RevocationLog::open(folder.path(), &after, Some(0));
        assert!(after.is_revoked("gone", until));
        writing.abort();
    }
}
