//! Entries of `policy` and of `auth.admin_tokens`, as they are written.

use super::forms::some_word;
use super::values::Size;
use crate::auth::Role;
use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};
use std::path::PathBuf;

/// One entry of `policy.messages`, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/callbox.toml describes the keys")]
pub struct MessageRule {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_word"
    )]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Size>,
}

/// One entry of `policy.calls`, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/callbox.toml describes the keys")]
pub struct CallRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub same_team: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub same_room: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deny: bool,
}

/// One entry of `auth.admin_tokens`, as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "config/callbox.toml describes the keys")]
pub struct NamedToken {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact")]
    pub token: Option<SecretString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    pub scope: Scopes,
}

/// One scope, or several.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scopes {
    /// `"read"`.
    One(String),
    /// `["read", "act"]`.
    Many(Vec<String>),
}

impl Default for Scopes {
    fn default() -> Self {
        Self::Many(vec![])
    }
}

fn redact<S: Serializer>(_: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("(redacted)")
}
