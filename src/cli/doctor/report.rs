//! What the doctor says: one line a check, and under a failed one its likeliest cause and fix.

use serde::Serialize;
use std::fmt;
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
