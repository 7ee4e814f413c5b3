//! `policy`: what members may send, and who may call whom.

use super::collect::Check;
use super::raw::Raw;
use super::rules::CallRule;
use super::values::Size;
use crate::auth::Role;
use crate::protocol::MessageType;

/// Rules of one list at most: each message is held against them.
const MAX_RULES: usize = 100;
/// Types that a rule may name: those that reach other members.
const GOVERNED: &[MessageType] = &[
    MessageType::Offer,
    MessageType::Answer,
    MessageType::Candidate,
    MessageType::Hangup,
    MessageType::Message,
    MessageType::State,
    MessageType::Mute,
    MessageType::Unmute,
    MessageType::Publish,
    MessageType::Subscribe,
];

/// The rules, their types known.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Who may send what.
    pub messages: Vec<KnownMessageRule>,
    /// Who may call whom.
    pub calls: Vec<CallRule>,
}

/// A rule for messages whose types are known.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "config/callbox.toml describes the keys")]
pub struct KnownMessageRule {
    pub role: Option<Role>,
    pub allow: Option<Vec<MessageType>>,
    pub deny: Vec<MessageType>,
    pub max: Option<Size>,
}

impl Check<'_> {
    pub(super) fn policy(&mut self, raw: &Raw) -> Policy {
        let policy = &raw.policy;
        for (key, count) in [
            ("policy.messages", policy.messages.len()),
            ("policy.calls", policy.calls.len()),
        ] {
            if count > MAX_RULES {
                self.problem(key, count, "is more rules than a list may have")
                    .set_fix(format!(
                        "keep {MAX_RULES} at most: globs and roles cover many"
                    ));
            }
        }
        let mut messages = vec![];
        for rule in &policy.messages {
            let allow = rule.allow.as_ref();
            messages.push(KnownMessageRule {
                role: rule.role,
                allow: allow.map(|types| self.message_types(types)),
                deny: self.message_types(&rule.deny),
                max: rule.max,
            });
        }
        Policy {
            messages,
            calls: policy.calls.clone(),
        }
    }

    fn message_types(&mut self, names: &[String]) -> Vec<MessageType> {
        let mut types = vec![];
        for name in names {
            let known = MessageType::from_name(name).filter(|kind| GOVERNED.contains(kind));
            match known {
                Some(kind) => types.push(kind),
                None => {
                    let all: Vec<_> = GOVERNED.iter().map(|kind| kind.as_str()).collect();
                    self.problem(
                        "policy.messages",
                        format!("{name:?}"),
                        "is not a type that reaches other members",
                    )
                    .set_fix(format!("name some of {}", all.join(", ")));
                }
            }
        }
        types
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::io::Write;

    fn load(toml: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        Config::load(Some(file.path()), std::iter::empty()).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_in_order_and_shown_again() {
        let toml = "[[policy.messages]]\nrole = \"viewer\"\ndeny = [\"message\"]\nmax = \"1KiB\"\n\
                    [[policy.calls]]\nfrom = \"agent-*\"\nto = \"*\"\n\
                    [[policy.calls]]\nsame_team = true\n";
        let config = load(toml).unwrap();
        assert_eq!(config.policy.messages[0].max.unwrap().0, 1024);
        assert_eq!(config.policy.calls.len(), 2);
        assert!(config.to_toml().contains("agent-*"));
    }

    #[test]
    fn a_rule_that_means_nothing_is_named() {
        for (toml, expected) in [
            ("[[policy.messages]]\ndeny = [\"mesage\"]", "mesage"),
            ("[[policy.messages]]\ndeny = [\"join\"]", "is not a type"),
            ("[[policy.messages]]\nroles = \"viewer\"", "roles"),
            ("[[policy.calls]]\nfrm = \"a\"", "frm"),
            ("[[policy.messages]]\nrole = \"guest\"", "guest"),
        ] {
            let error = load(toml).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
