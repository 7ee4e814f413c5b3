//! The collector of problems, and what every check needs: secrets and files.

use super::problem::Problem;
use super::source::Layers;
use secrecy::SecretString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Collects what is wrong while raw values become valid ones.
pub(super) struct Check<'a> {
    layers: &'a Layers,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self {
            layers,
            problems: vec![],
            warnings: vec![],
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
        std::fs::read_to_string(path)
            .map_err(|error| {
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
