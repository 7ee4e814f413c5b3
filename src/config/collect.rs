//! The collector of problems, and what every check needs: secrets and files.

use super::problem::Problem;
use super::source::Layers;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A digest of what is in a file, or of the error that reading it gave.
pub type FileDigest = [u8; 32];

/// Collects what is wrong while raw values become valid ones.
pub(super) struct Check<'a> {
    layers: &'a Layers,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// The files that were read, and what was in them.
    pub(super) files: BTreeMap<PathBuf, FileDigest>,
}

impl<'a> Check<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self {
            layers,
            problems: vec![],
            warnings: vec![],
            files: BTreeMap::new(),
        }
    }
}

impl Check<'_> {
    /// Where a key was written: the path of a file, or the name of a variable.
    pub(super) fn origin_of(&self, key: &str) -> Option<String> {
        self.layers.origin(key)
    }

    pub(super) fn secret(
        &mut self,
        key: &str,
        inline: Option<SecretString>,
        file: &Option<PathBuf>,
    ) -> Option<SecretString> {
        match (inline, file) {
            (Some(_), Some(_)) => {
                self.both(key);
                None
            }
            (None, Some(path)) => {
                let text = self.read(&format!("{key}_file"), path)?;
                Some(SecretString::from(text.trim_end_matches(['\r', '\n'])))
            }
            (inline, None) => inline,
        }
    }

    pub(super) fn read(&mut self, key: &str, path: &Path) -> Option<String> {
        let read = std::fs::read_to_string(path);
        self.files.insert(path.to_owned(), digest(&read));
        self.readable(key, path, read)
    }

    /// As [`Check::read`], for a file that is followed by its own watcher.
    pub(super) fn read_once(&mut self, key: &str, path: &Path) -> Option<String> {
        self.readable(key, path, std::fs::read_to_string(path))
    }

    /// Whether a file that need not be text can be read.
    pub(super) fn can_read(&mut self, key: &str, path: &Path) -> bool {
        self.readable(key, path, std::fs::read(path)).is_some()
    }

    fn readable<T>(&mut self, key: &str, path: &Path, read: io::Result<T>) -> Option<T> {
        read.map_err(|error| {
            self.problem(key, path.display(), error)
                .set_fix("name a file that this user can read");
        })
        .ok()
    }

    pub(super) fn both(&mut self, key: &str) {
        self.problem(
            &format!("{key}_file"),
            "",
            format!("is set, and so is {key}"),
        )
        .set_fix("keep one of the two");
    }

    pub(super) fn problem(
        &mut self,
        key: &str,
        value: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> &mut Problem {
        let problem = Problem::new(key, value, reason).origin(self.layers.origin(key));
        self.problems.push(problem);
        self.problems.last_mut().expect("one was pushed")
    }
}

/// The digest of a file as it is now.
pub fn digest_of(path: &Path) -> FileDigest {
    digest(&std::fs::read_to_string(path))
}

fn digest(read: &io::Result<String>) -> FileDigest {
    match read {
        Ok(text) => Sha256::digest(text).into(),
        Err(error) => Sha256::digest(error.to_string()).into(),
    }
}

/// Whether that is a bare host name or an address.
pub(super) fn is_host(host: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    !host.is_empty() && host.bytes().all(is_plain) || host.parse::<IpAddr>().is_ok()
}
