//! Where a configuration comes from: a TOML file beneath `CALLBOX_…` variables.

use super::raw::Raw;
use super::{ConfigError, Problem};
use config::{File, FileFormat, Map, Source, Value, ValueKind};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

const PREFIX: &str = "CALLBOX_";

/// The merged tables, kept so that an error can tell where a value was written.
pub(super) struct Layers {
    root: Value,
    known: BTreeMap<String, serde_json::Value>,
}

impl fmt::Debug for Layers {
    /// The values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

impl Layers {
    /// Reads `file` (if any) and lays `env` over it.
    pub(super) fn read(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let known = known_keys();
        let environment = Environment {
            variables: env
                .filter_map(|(name, value)| Some((key_of(&name)?, name, value)))
                .collect(),
        };
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let bytes = std::fs::read(path).map_err(|error| {
                Problem::new("--config", path.display(), error)
                    .fix("name a file that this user can read")
            })?;
            let text = String::from_utf8(bytes).map_err(|error| {
                Problem::new("--config", path.display(), not_utf8(error.as_bytes()))
                    .fix("save it as UTF-8")
            })?;
            // Parsed by itself first: this error shows the line, the merged one would not.
            text.parse::<toml::Table>().map_err(|error| {
                Problem::new("--config", path.display(), not_toml(&text, &error))
                    .fix("correct the line; values are TOML, strings in double quotes")
            })?;
            builder = builder.add_source(NamedFile {
                path: path.display().to_string(),
                text,
            });
        }
        let merged = builder
            .add_source(environment)
            .build()
            .map_err(|e| foreign(&e))?;
        Ok(Self {
            root: merged.cache,
            known,
        })
    }

    /// Types the merged values.
    pub(super) fn raw(&self) -> Result<Raw, ConfigError> {
        let unknown = self.unknown_keys();
        if !unknown.is_empty() {
            return Err(ConfigError(unknown));
        }
        self.root
            .clone()
            .try_deserialize()
            .map_err(|error| self.mistyped(&error))
    }

    /// Where `key` was written: a file's path or a variable's name.
    pub(super) fn origin(&self, key: &str) -> Option<String> {
        let mut value = &self.root;
        for part in key.split('.') {
            let ValueKind::Table(table) = &value.kind else {
                break;
            };
            value = table.get(part)?;
        }
        value.origin().map(str::to_owned)
    }

    fn unknown_keys(&self) -> Vec<Problem> {
        let mut written = Vec::new();
        flatten("", &self.root, &mut written);
        written
            .into_iter()
            .filter(|(key, value)| !self.is_known(key, value))
            .map(|(key, value)| {
                let problem = Problem::new(&key, shown(value), "is not a key of callbox")
                    .origin(value.origin().map(str::to_owned));
                match nearest(&key, self.known.keys()) {
                    Some(known) => problem.fix(format!("did you mean {known}?")),
                    None => problem.fix("config/callbox.toml lists every key"),
                }
            })
            .collect()
    }

    fn is_known(&self, key: &str, value: &Value) -> bool {
        let is_table = |known: &String| {
            known
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let is_named_by_operator = |(known, default): (&String, &serde_json::Value)| {
            let inside = key.strip_prefix(known.as_str());
            default.is_object() && inside.is_some_and(|rest| rest.starts_with('.'))
        };
        self.known.contains_key(key)
            || self.known.iter().any(is_named_by_operator)
            || matches!(value.kind, ValueKind::Table(_)) && self.known.keys().any(is_table)
    }

    fn mistyped(&self, error: &config::ConfigError) -> ConfigError {
        let (key, reason) = match error {
            config::ConfigError::Type {
                key,
                unexpected,
                expected,
                ..
            } => (key.clone(), format!("{unexpected} is not {expected}")),
            config::ConfigError::At { error, key, .. } => (key.clone(), error.to_string()),
            other => (None, other.to_string()),
        };
        // Inside of a list the library leaves the dot out.
        let key = dotted(&key.unwrap_or_default());
        let outer = key.split('[').next().unwrap_or_default();
        let origin = self.origin(outer);
        // What is written may be a token, and stays hidden.
        if let Some(name) = key.strip_prefix("auth.admin_tokens.")
            && !reason.starts_with("unknown field")
        {
            let (reason, fix) = match name.rsplit_once('.') {
                Some((_, "scope")) => (
                    "is not a list of scopes",
                    "write \"read\", \"act\", \"mint\", or a list of them",
                ),
                Some(_) => ("is not text", "write it in double quotes"),
                None => (
                    "is not a table",
                    "write { token = \"…\", scope = \"read\" }",
                ),
            };
            return Problem::new(&key, "", reason)
                .origin(origin)
                .fix(fix)
                .into();
        }
        let reason = match reason.split_once(", expected struct ") {
            Some((unexpected, _)) => format!("{unexpected}, expected a table"),
            None => reason,
        };
        let says_nothing = |default: &serde_json::Value| {
            default.is_null() || default == &json!([]) || default == &json!({})
        };
        let fix = match self.known.get(outer) {
            // The form has said it.
            _ if reason.contains("; write ") => String::new(),
            Some(default) if !says_nothing(default) => {
                format!("write it like its default, {default}")
            }
            _ => "config/callbox.toml shows how it is written".into(),
        };
        Problem::new(key, "", reason).origin(origin).fix(fix).into()
    }
}

/// `list[0]key` as `list[0].key`.
fn dotted(key: &str) -> String {
    let mut dotted = String::new();
    for letter in key.chars() {
        if dotted.ends_with(']') && letter.is_alphanumeric() {
            dotted.push('.');
        }
        dotted.push(letter);
    }
    dotted
}

/// Names the place and the fault. The library would show the line, and a secret may stand on it.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |tail| tail.chars().count())
        + 1;
    format!(
        "is not valid TOML at line {line}, column {column}: {}",
        error.message()
    )
}

/// Every key there is with its default, for instance `turn.user_quota` → 128.
pub(super) fn known_keys() -> BTreeMap<String, serde_json::Value> {
    flat(&Raw::default())
}

/// Each key with its value.
pub(super) fn flat(raw: &Raw) -> BTreeMap<String, serde_json::Value> {
    let values = serde_json::to_value(raw).expect("the configuration is plain data");
    let mut keys = BTreeMap::new();
    leaves("", &values, &mut keys);
    keys
}

fn leaves(prefix: &str, value: &serde_json::Value, out: &mut BTreeMap<String, serde_json::Value>) {
    match value.as_object() {
        // An empty table is one whose keys are the operator's.
        Some(table) if !table.is_empty() => {
            for (key, inner) in table {
                leaves(&joined(prefix, key), inner, out);
            }
        }
        _ => {
            out.insert(prefix.to_owned(), value.clone());
        }
    }
}

fn joined(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.to_owned()
    } else {
        format!("{prefix}.{key}")
    }
}

fn foreign(error: &config::ConfigError) -> ConfigError {
    Problem::new("", "", error)
        .fix("config/callbox.toml shows how each key is written")
        .into()
}

fn flatten<'v>(prefix: &str, value: &'v Value, out: &mut Vec<(String, &'v Value)>) {
    match &value.kind {
        // An empty table is written down as well: `[trun]` is a slip like any other.
        ValueKind::Table(table) if !table.is_empty() || prefix.is_empty() => {
            for (key, inner) in table {
                flatten(&joined(prefix, key), inner, out);
            }
        }
        _ => out.push((prefix.to_owned(), value)),
    }
}

/// A value whose key is unknown may be a misspelt secret: only its kind is told.
fn shown(value: &Value) -> &'static str {
    match value.kind {
        ValueKind::String(_) => "a string",
        ValueKind::Array(_) => "a list",
        _ => "a value",
    }
}

fn nearest<'k>(key: &str, known: impl Iterator<Item = &'k String>) -> Option<&'k String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The `CALLBOX_…` variables of this process. What is not UTF-8 is shown as far as it goes, and is
/// then no valid value.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name
            .into_string()
            .ok()
            .filter(|name| name.starts_with(PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// `CALLBOX_TURN__USER_QUOTA` → `turn.user_quota`. Names without a double underscore belong to
/// somebody else: Kubernetes sets `CALLBOX_PORT` for a service of that name.
fn key_of(variable: &str) -> Option<String> {
    let (table, key) = variable.strip_prefix(PREFIX)?.split_once("__")?;
    Some(format!(
        "{}.{}",
        table.to_lowercase(),
        key.replace("__", ".").to_lowercase()
    ))
}

/// A file read beforehand, so that reading and parsing errors are ours to word.
#[derive(Debug, Clone)]
struct NamedFile {
    path: String,
    text: String,
}

impl Source for NamedFile {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let mut tables = File::from_str(&self.text, FileFormat::Toml).collect()?;
        tables
            .values_mut()
            .for_each(|value| name_origin(value, &self.path));
        Ok(tables)
    }
}

fn name_origin(value: &mut Value, origin: &str) {
    let mut kind = std::mem::replace(&mut value.kind, ValueKind::Nil);
    match &mut kind {
        ValueKind::Table(table) => table.values_mut().for_each(|v| name_origin(v, origin)),
        ValueKind::Array(items) => items.iter_mut().for_each(|v| name_origin(v, origin)),
        _ => {}
    }
    *value = Value::new(Some(&origin.to_owned()), kind);
}

/// The `CALLBOX_…` variables. A list may be TOML (`["a", "b"]`); anything else is taken as text and
/// converted by the type of its key.
#[derive(Debug, Clone)]
struct Environment {
    /// Key, name of the variable, text.
    variables: Vec<(String, String, String)>,
}

impl Source for Environment {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let mut values = Map::new();
        for (key, name, text) in &self.variables {
            let kind = match array(text) {
                Some(items) => ValueKind::Array(
                    items
                        .into_iter()
                        .map(|item| Value::new(Some(name), item))
                        .collect(),
                ),
                None => ValueKind::String(text.clone()),
            };
            values.insert(key.clone(), Value::new(Some(name), kind));
        }
        Ok(values)
    }
}

fn array(text: &str) -> Option<Vec<String>> {
    let toml::Value::Array(items) = text.trim().parse().ok()? else {
        return None;
    };
    let text = |item| match item {
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    Some(items.into_iter().map(text).collect())
}

/// What a text is that is not UTF-8.
fn not_utf8(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16, which some editors call Unicode",
        bytes if bytes.iter().take(64).any(|byte| *byte == 0) => "is UTF-16, or not a text",
        _ => "is not UTF-8",
    }
}
