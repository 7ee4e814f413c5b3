//! The pages of `docs/integrations`: their blocks are read as what they say they are, and name only what a
//! box serves.

use callbox::cli::Cli;
use callbox::config::Config;
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const HOST: &str = "call.example.org";

/// A fenced block: its language and its lines.
struct Block {
    page: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/integrations");
    let mut blocks = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let page = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let mut parts = text.split("```");
        parts.next();
        while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
            let (language, text) = block.split_once('\n').unwrap();
            blocks.push(Block {
                page: page.clone(),
                language: language.to_owned(),
                text: text.to_owned(),
            });
        }
    }
    blocks
}

/// Keys and items, as far as these pages need YAML: mappings by indentation, lists, plain and quoted
/// scalars, and lists in brackets.
fn check_yaml(text: &str) {
    let mut indents = vec![0];
    let mut may_deepen = true;
    for line in text.lines() {
        assert!(!line.contains('\t'), "a tab: {line}");
        let rest = line.trim_start();
        let indent = line.len() - rest.len();
        assert!(indent % 2 == 0, "{line}");
        while indents.last().is_some_and(|last| *last > indent) {
            indents.pop();
        }
        if indents.last() != Some(&indent) {
            assert!(may_deepen, "deeper for no reason: {line}");
            indents.push(indent);
        }
        let (item, is_item) = match rest.strip_prefix("- ") {
            Some(item) => (item, true),
            None => (rest, false),
        };
        let pair = item
            .split_once(": ")
            .or(item.strip_suffix(':').map(|key| (key, "")));
        let value = match pair.filter(|(key, _)| is_key(key)) {
            Some((_, value)) => {
                if is_item {
                    // More keys of the item may follow.
                    indents.push(indent + 2);
                }
                value
            }
            None => {
                assert!(is_item, "neither key nor item: {line}");
                item
            }
        };
        may_deepen = value.is_empty();
        if value.starts_with(['"', '[']) {
            serde_json::from_str::<serde_json::Value>(value)
                .unwrap_or_else(|e| panic!("{line}: {e}"));
        } else {
            assert!(!value.contains(['"', '#', ':']), "quote it: {line}");
        }
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `KEY=value` lines of environment files.
fn check_ini(text: &str) {
    for line in text.lines() {
        let (key, value) = line
            .split_once('=')
            .unwrap_or_else(|| panic!("no value: {line}"));
        assert!(
            is_key(key) && !value.is_empty() && !value.contains(' '),
            "{line}"
        );
    }
}

/// Assignments with strings, numbers and tables.
fn check_assignments(text: &str, separator: char) {
    let mut depth = 0_i32;
    let mut quotes = 0;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            '"' => quotes += 1,
            _ => {}
        }
        assert!(depth >= 0);
    }
    assert!(depth == 0 && quotes % 2 == 0);
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !matches!(*line, "}" | "};"))
    {
        assert!(line.contains(separator) || line.contains(": {"), "{line}");
    }
}

#[test]
fn every_block_is_what_it_says() {
    let blocks = blocks();
    for Block {
        page,
        language,
        text,
    } in &blocks
    {
        match language.as_str() {
            "yaml" => check_yaml(text),
            "ini" => check_ini(text),
            "lua" | "jcfg" => check_assignments(text, '='),
            "json" => drop(serde_json::from_str::<serde_json::Value>(text).unwrap()),
            "toml" => drop(toml::from_str::<toml::Table>(text).unwrap()),
            "toml callbox" => {
                // The box itself takes it.
                let mut file = tempfile::NamedTempFile::new().unwrap();
                std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
                Config::load(Some(file.path()), std::iter::empty()).unwrap();
            }
            "sh" => {
                assert!(!text.trim().is_empty());
                text.lines().for_each(check_command);
            }
            "uri" | "http" => assert!(!text.trim().is_empty()),
            other => panic!("{page}: {other:?} is not checked"),
        }
    }
    assert!(blocks.len() > 20);
}

/// What a shell is to run, where that is this program.
fn check_command(line: &str) {
    let line = line.split_once(" #").map_or(line, |(command, _)| command);
    if line.starts_with("callbox ") {
        let words = line.split_whitespace();
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn every_command_of_callbox_is_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/integrations");
    let mut commands = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        // Commands in a sentence stand between backquotes, those of blocks begin a line.
        let quoted = text.split('`').skip(1).step_by(2);
        for line in quoted.chain(text.lines()) {
            check_command(line);
            commands += usize::from(line.starts_with("callbox "));
        }
    }
    assert!(commands > 3, "{commands}");
}

#[test]
fn every_url_is_one_that_a_box_serves() {
    let served: BTreeSet<String> = [
        "stun:HOST:3478",
        "turn:HOST:3478?transport=udp",
        "turn:HOST:3478?transport=tcp",
        "turns:HOST:443?transport=tcp",
    ]
    .iter()
    .map(|url| url.replace("HOST", HOST))
    .collect();
    let mut seen = 0;
    for Block { page, text, .. } in blocks() {
        let is_end = |c: char| c.is_whitespace() || "\",<>;]".contains(c);
        for word in text.split(is_end) {
            let word = word
                .rsplit_once('=')
                .filter(|(key, _)| is_key(key))
                .map_or(word, |(_, url)| url);
            let word = match word.find("SERVER_URL=") {
                Some(at) => &word[at + "SERVER_URL=".len()..],
                None => word,
            };
            let is_ice = ["stun:", "turn:", "turns:"]
                .iter()
                .any(|scheme| word.starts_with(scheme));
            if !is_ice || word.ends_with(':') {
                continue;
            }
            if let Some((scheme, rest)) = word.split_once("://") {
                let (user, address) = rest.rsplit_once('@').unwrap();
                assert!(
                    user.contains("%3A") && user.matches(':').count() == 1,
                    "{page}: {word}"
                );
                assert!(
                    served.contains(&format!("{scheme}:{address}")),
                    "{page}: {word}"
                );
            } else {
                assert!(served.contains(word), "{page}: {word}");
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_page_is_listed_and_every_listed_page_is_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/integrations");
    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "{name}"
        );
    }
    for link in index
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        assert!(folder.join(link).exists(), "{link}");
    }
}
