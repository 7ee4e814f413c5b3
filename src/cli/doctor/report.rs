//! What the doctor says: one line a check, and under a failed one its likeliest cause and fix.

use crate::file;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// Worth knowing, and nothing that is broken.
    Note,
    Failed,
}

/// Why a check failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Diagnosis {
    /// For programs: a word that stays.
    pub(super) finding: &'static str,
    /// One sentence.
    pub(super) cause: String,
    /// One sentence.
    pub(super) fix: String,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) check: String,
    pub(super) status: Status,
    /// What was seen.
    pub(super) detail: String,
    #[serde(rename = "ms", serialize_with = "millis")]
    pub(super) took: Duration,
    #[serde(flatten)]
    pub(super) diagnosis: Option<Diagnosis>,
}

impl Line {
    pub(super) fn ok(check: impl Into<String>, detail: impl Into<String>, took: Duration) -> Self {
        Self {
            check: check.into(),
            status: Status::Ok,
            detail: detail.into(),
            took,
            diagnosis: None,
        }
    }

    pub(super) fn failed(
        check: impl Into<String>,
        detail: impl Into<String>,
        took: Duration,
        diagnosis: Diagnosis,
    ) -> Self {
        Self {
            status: Status::Failed,
            diagnosis: Some(diagnosis),
            ..Self::ok(check, detail, took)
        }
    }

    pub(super) fn note(
        check: impl Into<String>,
        detail: impl Into<String>,
        diagnosis: Diagnosis,
    ) -> Self {
        Self {
            status: Status::Note,
            diagnosis: Some(diagnosis),
            ..Self::ok(check, detail, Duration::ZERO)
        }
    }
}

/// Everything that was found out about one box.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) url: String,
    pub(super) checks: Vec<Line>,
}

impl Report {
    pub(super) fn is_healthy(&self) -> bool {
        self.checks.iter().all(|line| line.status != Status::Failed)
    }

    /// Puts the report in the place of `path` at once, so that nobody reads half of it.
    pub(super) fn write_textfile(&self, path: &Path, now: u64) -> io::Result<()> {
        let (mut file, beside) = file::beside(path)?;
        file.write_all(self.to_metrics(now).as_bytes())?;
        // The exporter runs as another user.
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(beside, path)
    }

    /// The text format of Prometheus.
    fn to_metrics(&self, now: u64) -> String {
        // Of checks with one name the worst counts: a series may stand there once.
        let mut checks: BTreeMap<String, bool> = BTreeMap::new();
        for line in &self.checks {
            let name = line.check.replace('\\', "\\\\").replace('"', "\\\"");
            let is_ok = line.status != Status::Failed;
            *checks.entry(name.replace('\n', " ")).or_insert(true) &= is_ok;
        }
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, samples: &[(String, u64)]| {
            let name = format!("callbox_doctor_{name}");
            text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
            for (labels, value) in samples {
                text += &format!("{name}{labels} {value}\n");
            }
        };
        let healthy = [(String::new(), self.is_healthy().into())];
        gauge(
            "healthy",
            "Whether no check of callbox doctor failed",
            &healthy,
        );
        let checks: Vec<_> = checks
            .into_iter()
            .map(|(check, is_ok)| (format!("{{check=\"{check}\"}}"), is_ok.into()))
            .collect();
        gauge("check_ok", "Whether a check passed", &checks);
        let ran = [(String::new(), now)];
        gauge(
            "run_timestamp_seconds",
            "When callbox doctor ran last",
            &ran,
        );
        text
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!(self);
        object["ok"] = self.is_healthy().into();
        object
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "callbox doctor asks {}\n", self.url)?;
        let width = self.checks.iter().map(|line| line.check.len()).max();
        for line in &self.checks {
            let mark = match line.status {
                Status::Ok => "ok  ",
                Status::Note => "note",
                Status::Failed => "FAIL",
            };
            let took = match line.took.as_millis() {
                0 => String::new(),
                ms => format!("{ms} ms"),
            };
            let width = width.unwrap_or_default();
            writeln!(
                f,
                "{mark}  {:width$}  {took:>8}  {}",
                line.check, line.detail
            )?;
            if let Some(diagnosis) = &line.diagnosis {
                writeln!(f, "      why   {}", diagnosis.cause)?;
                writeln!(f, "      fix   {}", diagnosis.fix)?;
            }
        }
        let failed = self.checks.iter().filter(|l| l.status == Status::Failed);
        match failed.count() {
            0 => writeln!(f, "\neverything that was tried works"),
            1 => writeln!(f, "\n1 check failed"),
            n => writeln!(f, "\n{n} checks failed"),
        }
    }
}

fn millis<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(took.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textfile_has_each_check_once_and_the_worst_counts() {
        let took = Duration::ZERO;
        let diagnosis = Diagnosis {
            finding: "silent",
            cause: String::new(),
            fix: String::new(),
        };
        let report = Report {
            url: String::new(),
            checks: vec![
                Line::ok("health", "", took),
                Line::ok("turn \"udp\"", "", took),
                Line::failed("turn \"udp\"", "", took, diagnosis),
            ],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("callbox.prom");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("callbox.new")).unwrap();
        report.write_textfile(&path, 7).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "the exporter reads it");
        let text = std::fs::read_to_string(&path).unwrap();
        for line in [
            "callbox_doctor_healthy 0",
            "callbox_doctor_check_ok{check=\"health\"} 1",
            "callbox_doctor_check_ok{check=\"turn \\\"udp\\\"\"} 0",
            "callbox_doctor_run_timestamp_seconds 7",
        ] {
            assert_eq!(
                text.lines().filter(|l| *l == line).count(),
                1,
                "{line} in {text}"
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
