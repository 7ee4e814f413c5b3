//! The invariants of ARCHITECTURE.md that a compiler does not check.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file past this many lines asks to be two.
const MAX_LINES: usize = 500;

/// Modules without clock, socket, task, lock or ambient randomness.
const PURE: &[&str] = &[
    "src/protocol/",
    "src/auth/",
    "src/hooks/question.rs",
    "src/hooks/queue",
    "src/hooks/signature.rs",
    "src/compat/",
    "src/signal/hub",
    "src/signal/dialect.rs",
    "src/signal/room.rs",
    "src/signal/sdp",
    "src/signal/websocket",
    "crates/turn-engine/src/engine/",
    "crates/turn-engine/src/credential.rs",
    "crates/turn-engine/src/framing.rs",
    "crates/turn-engine/src/network.rs",
    "crates/turn-engine/src/rate.rs",
    "src/relay/worker/coalesce.rs",
];

/// What a pure module may not name.
const IMPURE: &[&str] = &[
    "tokio::",
    "axum::",
    "hyper::",
    "socket2::",
    "std::net::Tcp",
    "std::net::Udp",
    "UdpSocket",
    "TcpStream",
    "Instant::now",
    "SystemTime::now",
    "rand::rng()",
    "rand::random",
    "thread_rng",
    "std::thread",
    "std::fs",
    "std::env",
    "Mutex",
    "RwLock",
];

/// Who may not know whom: nothing below `.0` names anything in `.1`.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "src/protocol/",
        &["app", "http", "cli", "signal", "relay", "net", "config"],
    ),
    (
        "src/auth/",
        &[
            "app", "http", "cli", "signal", "relay", "net", "config", "protocol",
        ],
    ),
    (
        "src/config",
        &["app", "http", "cli", "signal", "relay", "net"],
    ),
    (
        "src/signal/",
        &["app", "http", "cli", "compat", "relay", "net", "config"],
    ),
    ("src/relay/", &["app", "http", "cli", "signal", "config"]),
    (
        "src/compat/",
        &["app", "http", "cli", "relay", "net", "config"],
    ),
    ("src/net/", &["app", "cli", "signal", "relay"]),
    ("src/http/", &["app", "cli", "relay", "config"]),
    ("src/cli/", &["signal"]),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines of the file without tests and comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests_begin = self.text.find("#[cfg(test)]").unwrap_or(self.text.len());
        self.text[..tests_begin]
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line.split("//").next().unwrap()))
    }

    fn is_test(&self) -> bool {
        // A fuzz body is a test: it starts the virtual clock.
        self.path.contains("/tests") || self.path.ends_with("/fuzz.rs")
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    let mut folders: Vec<PathBuf> = folders.iter().map(|f| root.join(f)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.push(Source {
                    path: name,
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn pure_modules_take_time_and_randomness_as_arguments() {
    let mut findings = vec![];
    let mut judged = 0;
    for source in sources(&["src", "crates"]) {
        if source.is_test() || !PURE.iter().any(|pure| source.path.starts_with(pure)) {
            continue;
        }
        judged += 1;
        for (n, line) in source.code() {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                findings.push(format!("{}:{n}: a pure module names {word}", source.path));
            }
        }
    }
    assert!(
        judged > 20,
        "the pure modules are where this test looks: {judged}"
    );
    assert_none(findings);
}

/// The engine is a library of its own: short locks of its shared state are all that it has of an
/// operating system.
#[test]
fn the_engine_crate_names_no_runtime_clock_or_socket() {
    let mut findings = vec![];
    let mut judged = 0;
    for source in sources(&["crates/turn-engine/src"]) {
        if source.is_test() {
            continue;
        }
        judged += 1;
        let forbidden = IMPURE
            .iter()
            .filter(|word| !["Mutex", "RwLock"].contains(word));
        let forbidden: Vec<&str> = forbidden.copied().chain(["libc", "callbox::"]).collect();
        for (n, line) in source.code() {
            if let Some(word) = forbidden.iter().find(|word| line.contains(**word)) {
                findings.push(format!("{}:{n}: the engine names {word}", source.path));
            }
        }
    }
    assert!(judged > 20, "{judged}");
    assert_none(findings);
}

#[test]
fn knowledge_flows_one_way() {
    let mut findings = vec![];
    for source in sources(&["src"]) {
        for (_, forbidden) in ARROWS
            .iter()
            .filter(|(from, _)| source.path.starts_with(from))
        {
            for (n, line) in source.code() {
                for module in *forbidden {
                    if line.contains(&format!("crate::{module}::"))
                        || line.trim() == format!("use crate::{module};")
                    {
                        findings.push(format!("{}:{n}: names crate::{module}", source.path));
                    }
                }
            }
        }
    }
    assert_none(findings);
}

#[test]
fn unsafe_code_lives_in_one_file_and_gives_its_reason() {
    let mut findings = vec![];
    for source in sources(&["src", "crates"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (n, line) in source.code() {
            if !line.contains("unsafe {") && !line.contains("unsafe impl") {
                continue;
            }
            if source.path != "src/relay/io/udp.rs" && !source.path.starts_with("src/relay/io/udp/")
            {
                findings.push(format!("{}:{n}: unsafe", source.path));
            }
            let reasons = &lines[n.saturating_sub(6)..n];
            if !reasons.iter().any(|line| line.contains("SAFETY:")) {
                findings.push(format!("{}:{n}: no SAFETY: reason", source.path));
            }
        }
    }
    assert_none(findings);
}

#[test]
fn every_module_says_what_it_owns_and_fits_in_the_head() {
    let mut findings = vec![];
    for Source { path, text } in sources(&["src", "crates", "tests", "benches", "fuzz"]) {
        if path.contains("/target/") {
            continue;
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            findings.push(format!("{path}: {lines} lines"));
        }
        if !text.starts_with("//!") && !path.contains("/tests") {
            findings.push(format!("{path}: does not open with //!"));
        }
        for word in ["todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME", "XXX"] {
            if text.contains(word) && path != "tests/tidy.rs" {
                findings.push(format!("{path}: {word}"));
            }
        }
    }
    assert_none(findings);
}
