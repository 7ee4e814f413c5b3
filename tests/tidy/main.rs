//! The invariants of ARCHITECTURE.md that a compiler does not check.

#![allow(clippy::unwrap_used)]

mod graph;
mod planted;
mod source;

use graph::Graph;
use source::Facts;
use std::collections::BTreeSet;
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
    "src/app/usage/month.rs",
    "src/cli/doctor/diagnose.rs",
    "src/compat/",
    "src/cluster/link",
    "src/cluster/membership",
    "src/cluster/node",
    "src/cluster/ownership",
    "src/cluster/seal.rs",
    "src/cluster/store",
    "src/cluster/wire",
    "src/signal/hub",
    "src/signal/dialect.rs",
    "src/signal/driver/nodes/ends.rs",
    "src/signal/parked.rs",
    "src/signal/room.rs",
    "src/signal/sdp",
    "src/signal/websocket",
    "crates/turn-engine/src/engine/",
    "crates/turn-engine/src/credential.rs",
    "crates/turn-engine/src/framing.rs",
    "crates/turn-engine/src/network.rs",
    "crates/turn-engine/src/rate.rs",
    "src/relay/worker/coalesce.rs",
    "crates/callbox-lab/src/link.rs",
    "crates/callbox-lab/src/nat.rs",
    "crates/callbox-lab/src/packet",
];

/// Pure but for locks, which guard what all workers share. What [`PURE`] names has none.
const PURE_WITH_LOCKS: &[&str] = &["crates/turn-engine/src/"];

/// Crates and modules that a pure module does not name.
const IMPURE: &[&str] = &[
    "tokio",
    "axum",
    "hyper",
    "hyper_util",
    "getrandom",
    "socket2",
    "rustix",
    "libc",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::os",
];

/// Names that no path of a pure module holds.
const IMPURE_NAMES: &[&str] = &[
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "SysRng",
    "ThreadRng",
    "make_rng",
    "random_bool",
    "random_iter",
    "random_range",
    "random_ratio",
];
const LOCKS: &[&str] = &["Mutex", "RwLock", "Condvar"];

/// Functions that a pure module does not call.
const IMPURE_CALLS: &[&str] = &[
    "Instant::now",
    "Instant::elapsed",
    "SystemTime::now",
    "rand::rng",
    "rand::fill",
    "rand::random",
];

/// Where unsafe code may be.
const UNSAFE: &[&str] = &[
    "src/relay/io/udp.rs",
    "src/relay/io/udp/",
    "src/app/handover/fds.rs",
];

/// The file of the relay's engine that names webrtc-rs.
const CODEC: &str = "crates/turn-engine/src/engine/codec.rs";

/// Which modules each module of the top level may know; itself aside. A module that is not listed is
/// a finding.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "main",
        &["app", "cli", "clock", "config", "log", "net", "service"],
    ),
    (
        "app",
        &[
            "address", "auth", "clock", "cluster", "compat", "config", "file", "hooks", "http",
            "log", "net", "network", "origin", "protocol", "rate", "relay", "service", "signal",
        ],
    ),
    ("callbox_lab", &["cli", "clock", "turn_engine"]),
    (
        "cli",
        &[
            "origin",
            "address",
            "app",
            "auth",
            "clock",
            "config",
            "http",
            "net",
            "network",
            "protocol",
            "relay",
            "service",
            "turn_engine",
        ],
    ),
    (
        "http",
        &[
            "origin", "address", "auth", "clock", "cluster", "compat", "hooks", "net", "network",
            "protocol", "rate", "signal",
        ],
    ),
    (
        "compat",
        &[
            "origin", "address", "auth", "clock", "protocol", "rate", "signal",
        ],
    ),
    (
        "cluster",
        &[
            "origin", "address", "auth", "clock", "net", "protocol", "rate", "signal",
        ],
    ),
    (
        "hooks",
        &[
            "address", "auth", "clock", "net", "protocol", "rate", "signal",
        ],
    ),
    (
        "signal",
        &["address", "auth", "clock", "network", "protocol", "rate"],
    ),
    (
        "relay",
        &["address", "auth", "clock", "network", "rate", "turn_engine"],
    ),
    (
        "net",
        &[
            "origin", "address", "auth", "clock", "config", "network", "protocol", "rate",
        ],
    ),
    ("config", &["origin", "address", "auth", "protocol"]),
    ("protocol", &["address", "auth"]),
    ("auth", &["clock", "turn_engine"]),
    ("log", &["clock", "config"]),
    ("service", &["clock"]),
    ("turn_engine", &[]),
    ("network", &[]),
    ("rate", &[]),
    ("clock", &[]),
    ("origin", &[]),
    ("address", &[]),
];

/// A file of the product, of the tests or of the benchmarks.
struct Source {
    path: String,
    text: String,
    facts: Facts,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let facts = match is_product(path) {
            true => source::facts(&text),
            false => Facts::default(),
        };
        Self {
            path: path.into(),
            text,
            facts,
        }
    }

    /// The module that the file is, from its crate on.
    fn module(&self) -> String {
        let (root, file) = match self.path.strip_prefix("crates/") {
            Some(rest) => rest.split_once("/src/").unwrap_or((rest, "lib.rs")),
            None => ("callbox", self.path.trim_start_matches("src/")),
        };
        let mut module = root.replace('-', "_");
        for part in file.trim_end_matches(".rs").split('/') {
            if !["mod", "lib"].contains(&part) {
                module = format!("{module}::{part}");
            }
        }
        module
    }

    /// What [`ARROWS`] calls the part of the program that an absolute path leads to.
    fn part(absolute: &str) -> &str {
        let mut names = absolute.split("::");
        match names.next() {
            Some("callbox") => names.next().unwrap_or_default(),
            Some(other) => other,
            None => "",
        }
    }
}

/// A fuzz body is a test: it starts the virtual clock.
fn is_product(path: &str) -> bool {
    (path.starts_with("src/") || (path.starts_with("crates/") && path.contains("/src/")))
        && !path.contains("/tests")
        && !path.ends_with("/fuzz.rs")
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
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                files.push(Source::new(name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn product() -> Vec<Source> {
    let mut files = sources(&["src", "crates"]);
    files.retain(|source| is_product(&source.path));
    files
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn below(path: &str, folders: &[&str]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

fn impurities(sources: &[Source]) -> Vec<String> {
    let graph = Graph::new(sources);
    let mut findings = vec![];
    for source in sources {
        let is_pure = below(&source.path, PURE);
        if !is_pure && !below(&source.path, PURE_WITH_LOCKS) {
            continue;
        }
        for (line, path) in &source.facts.paths {
            let path = graph.absolute(source, path).unwrap_or_else(|| path.clone());
            let begins = |with: &&&str| path == **with || path.starts_with(&format!("{with}::"));
            let ends = |with: &&&str| path == **with || path.ends_with(&format!("::{with}"));
            let names = |name: &&&str| path.split("::").any(|part| part == **name);
            let locks = LOCKS.iter().filter(|_| is_pure).find(names);
            let found = IMPURE
                .iter()
                .find(begins)
                .or(IMPURE_NAMES.iter().find(names));
            if let Some(word) = found.or(IMPURE_CALLS.iter().find(ends)).or(locks) {
                findings.push(format!(
                    "{}:{line}: a pure module names {word}",
                    source.path
                ));
            }
        }
    }
    findings
}

fn wrong_arrows(sources: &[Source]) -> Vec<String> {
    let graph = Graph::new(sources);
    let mut findings = vec![];
    for source in sources.iter().filter(|source| source.path != "src/lib.rs") {
        let module = source.module();
        let from = Source::part(&module);
        let Some((_, known)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            findings.push(format!(
                "{}: {from} has no arrows in this test",
                source.path
            ));
            continue;
        };
        for (line, path) in &source.facts.paths {
            let Some(path) = graph.absolute(source, path) else {
                continue;
            };
            let to = Source::part(&path);
            if to == from || known.contains(&to) {
                continue;
            }
            if (sources.iter()).any(|other| Source::part(&other.module()) == to) {
                findings.push(format!("{}:{line}: {from} names {to}", source.path));
            }
        }
    }
    findings
}

fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let mut findings = vec![];
    for source in sources {
        let lines: Vec<&str> = source.text.lines().collect();
        for line in &source.facts.unsafe_code {
            if !below(&source.path, UNSAFE) {
                findings.push(format!("{}:{line}: unsafe", source.path));
            }
            let reasons = &lines[line.saturating_sub(6)..*line];
            if !reasons
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
            {
                findings.push(format!("{}:{line}: no SAFETY: reason", source.path));
            }
        }
    }
    findings
}

fn circles(sources: &[Source]) -> Vec<String> {
    let circles = Graph::new(sources).circles();
    circles
        .into_iter()
        .map(|circle| circle.join(" → "))
        .collect()
}

#[test]
fn pure_modules_take_time_and_randomness_as_arguments() {
    let product = product();
    let pure = |source: &&Source| below(&source.path, PURE) || below(&source.path, PURE_WITH_LOCKS);
    let judged = product.iter().filter(pure).count();
    assert!(
        judged > 20,
        "the pure modules are where this test looks: {judged}"
    );
    for folder in PURE {
        let found = product.iter().any(|source| source.path.starts_with(folder));
        assert!(found, "{folder} is listed and holds nothing");
    }
    assert_none(impurities(&product));
}

#[test]
fn knowledge_flows_one_way() {
    assert_none(wrong_arrows(&product()));
}

#[test]
fn the_wall_clock_is_read_in_one_file() {
    let product = product();
    let graph = Graph::new(&product);
    let mut findings = vec![];
    for source in product
        .iter()
        .filter(|source| source.path != "src/clock.rs")
    {
        for (line, path) in &source.facts.paths {
            let path = graph.absolute(source, path).unwrap_or_else(|| path.clone());
            if path.ends_with("SystemTime::now") {
                findings.push(format!("{}:{line}: reads the wall clock", source.path));
            }
        }
    }
    assert_none(findings);
}

#[test]
fn one_file_of_the_engine_names_webrtc_rs() {
    let product = product();
    let engine = |source: &&Source| source.path.starts_with("crates/turn-engine/src/");
    let mut findings = vec![];
    for source in product.iter().filter(engine) {
        let names = |path: &str| ["stun", "turn"].contains(&path.split("::").next().unwrap());
        let found = source.facts.paths.iter().find(|(_, path)| names(path));
        match (found, source.path == CODEC) {
            (Some((line, path)), false) => findings.push(format!("{}:{line}: {path}", source.path)),
            (None, true) => findings.push(format!("{CODEC} names nothing of it")),
            _ => {}
        }
    }
    assert_none(findings);
}

#[test]
fn no_two_files_know_each_other() {
    assert_none(circles(&product()));
}

#[test]
fn unsafe_code_lives_in_one_file_and_gives_its_reason() {
    assert_none(unsafe_code(&product()));
}

#[test]
fn every_module_says_what_it_owns_and_fits_in_the_head() {
    let mut findings = vec![];
    for Source { path, text, .. } in sources(&["src", "crates", "tests", "benches", "fuzz"]) {
        if path.contains("/target/") || path.contains("/node_modules/") {
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
            if text.contains(word) && path != "tests/tidy/main.rs" {
                findings.push(format!("{path}: {word}"));
            }
        }
    }
    assert_none(findings);
}

#[test]
fn the_documented_claims_are_those_that_are_read() {
    let code = include_str!("../../src/auth/token.rs");
    let calls = [".take(\"", ".take::<String>(\"", ".flag(\"", ".date(\""];
    let read: BTreeSet<String> = (calls.iter())
        .flat_map(|call| code.match_indices(call))
        .map(|(at, call)| {
            let name = code[at + call.len()..].split('"').next().unwrap();
            let within = ["", "video."][usize::from(code[..at].ends_with("video"))];
            format!("{within}{name}")
        })
        // Of the box's own tokens; and what the names below it document.
        .filter(|name| !["callbox_login", "video"].contains(&name.as_str()))
        .collect();
    let page = include_str!("../../docs/protocol.md");
    let table = page.split("| claim | meaning |").nth(1).unwrap();
    let documented: BTreeSet<String> = (table.lines().skip(2))
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            line.split('|')
                .nth(1)
                .unwrap()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .map(str::to_owned)
        .collect();
    assert!(read.len() > 12, "{read:?}");
    assert_eq!(read, documented);
}
