//! The forms in which values are written: lists, words, networks, tables of names and passwords. Each has one that an
//! environment variable can hold.

use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::value::Error as Unworded;
use serde::de::{self, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

/// A list, or text with commas between its items.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct List<T>(PhantomData<T>);

    impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            items.map(parsed).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = vec![];
            while let Some(item) = items.next_element::<String>()? {
                list.push(parsed(&item)?);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(List(PhantomData))
}

fn parsed<T: FromStr<Err: fmt::Display>, E: de::Error>(item: &str) -> Result<T, E> {
    item.parse().map_err(|error| {
        let error = format!("{error}");
        let colon = if error.starts_with("is ") { "" } else { ":" };
        E::custom(format!("{item:?}{colon} {error}"))
    })
}

pub(super) fn some_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    list(deserializer).map(Some)
}

/// A list of networks; an address alone is a network of its own.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Network(IpNet);

    impl FromStr for Network {
        type Err = &'static str;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            let alone = text.parse::<IpAddr>().map(IpNet::from);
            let network = alone.or_else(|_| text.parse());
            network.map(Self).map_err(|_| {
                "is not a network; write e.g. \"203.0.113.0/24\", or an address like \"203.0.113.7\""
            })
        }
    }

    let networks = list::<D, Network>(deserializer)?;
    Ok(networks.into_iter().map(|network| network.0).collect())
}

/// One of several words, in any case. An error names them.
pub(super) fn word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let text = String::deserialize(deserializer)?;
    let known = T::deserialize(text.to_ascii_lowercase().into_deserializer());
    known.map_err(|error: Unworded| {
        let words = error.to_string();
        let words = words.split_once("expected ").map_or("", |(_, words)| words);
        de::Error::custom(format!(
            "{text:?} is not one of its words; write {}",
            words.replace('`', "\"")
        ))
    })
}

pub(super) fn some_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    word(deserializer).map(Some)
}

pub(super) fn secrets<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SecretString>, D::Error> {
    Ok(list::<D, String>(deserializer)?
        .into_iter()
        .map(SecretString::from)
        .collect())
}

/// A table of names and secrets, or text: `name:secret,name:secret`, or the table as JSON. No error shows what
/// is written, since it holds secrets.
pub(super) fn passwords<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, SecretString>, D::Error> {
    struct Passwords;

    impl<'de> Visitor<'de> for Passwords {
        type Value = BTreeMap<String, SecretString>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of names and passwords")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut table = BTreeMap::new();
            while let Some((name, secret)) = entries.next_entry::<String, String>()? {
                table.insert(name, secret.into());
            }
            Ok(table)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            if text.trim_start().starts_with('{') {
                let table: Option<BTreeMap<String, String>> = serde_json::from_str(text).ok();
                let table = table.ok_or_else(|| {
                    E::custom("is not a JSON object; write {\"NAME\": \"PASSWORD\"} or NAME:PASSWORD,NAME:PASSWORD")
                })?;
                return Ok(table.into_iter().map(|(n, p)| (n, p.into())).collect());
            }
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let items = items
                .enumerate()
                .map(|(at, item)| match item.split_once(':') {
                    Some((name, password)) => Ok((name.trim().to_owned(), password.trim().into())),
                    None => Err(E::custom(format!(
                        "has no colon in its item {}; write NAME:PASSWORD,NAME:PASSWORD",
                        at + 1
                    ))),
                });
            items.collect()
        }
    }

    deserializer.deserialize_any(Passwords)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::io::Write;

    fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(file.path()), env).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_alone_is_a_network() {
        let config = load(
            "[net]\ndenied_clients = [\"203.0.113.7\", \"2001:db8::/32\"]",
            &[],
        );
        let denied = config.unwrap().denied_clients;
        assert_eq!(
            denied,
            [
                "203.0.113.7/32".parse().unwrap(),
                "2001:db8::/32".parse().unwrap()
            ]
        );
        let env = [("CALLBOX_TURN__DENIED_PEERS", "192.0.2.1, 198.51.100.0/24")];
        assert_eq!(load("", &env).unwrap().turn.denied_peers.len(), 2);
    }

    #[test]
    fn an_error_names_the_place_the_value_and_what_to_write() {
        for (toml, expected) in [
            (
                "[net]\ndenied_clients = [\"1.2.3.0/99\"]",
                "net.denied_clients (FILE): \"1.2.3.0/99\" is not a network; write e.g. \"203.0.113.0/24\", or an address like \"203.0.113.7\"",
            ),
            (
                "[turn.budget]\nthen = \"stop\"",
                "turn.budget.then (FILE): \"stop\" is not one of its words; write \"warn\" or \"refuse\"",
            ),
            (
                "[log]\naddresses = \"some\"",
                "log.addresses (FILE): \"some\" is not one of its words; write one of \"full\", \"network\", \"none\"",
            ),
            (
                "[auth]\nmode = \"Some\"",
                "auth.mode (FILE): \"Some\" is not one of its words; write \"open\" or \"jwt\"",
            ),
            (
                "[[policy.messages]]\nmax = \"big\"",
                "policy.messages[0].max (FILE): \"big\" is not a size; write e.g. \"64KiB\" or \"256MiB\"",
            ),
            (
                "[[policy.messages]]\nrole = \"boss\"",
                "policy.messages[0].role (FILE): \"boss\" is not one of its words; write one of \"host\", \"member\", \"viewer\"",
            ),
            (
                "[policy]\ncalls = [\"boss\"]",
                "policy.calls[0] (FILE): invalid type: string \"boss\", expected a table; config/callbox.toml shows how it is written",
            ),
            (
                "[compat]\nenabled = [\"sip\"]",
                "compat.enabled (FILE): \"sip\" is not a protocol that the box speaks: tutorials, socketio, polling, peerjs, y-webrtc, trystero, mqtt; config/callbox.toml shows how it is written",
            ),
            (
                "[auth.admin_tokens]\nops = \"hidden-word\"",
                "auth.admin_tokens.ops (FILE): is not a table; write { token = \"…\", scope = \"read\" }",
            ),
            (
                "[auth.admin_tokens]\nops = { token = \"hidden-word\", scope = 7 }",
                "auth.admin_tokens.ops.scope (FILE): is not a list of scopes; write \"read\", \"act\", \"mint\", or a list of them",
            ),
            (
                "[turn]\nusers = [\"hidden-word\"]",
                "turn.users (FILE): invalid type: sequence, expected a table of names and passwords; config/callbox.toml shows how it is written",
            ),
            (
                "[turn]\nusers = \"cam:x,hidden-word\"",
                "turn.users (FILE): has no colon in its item 2; write NAME:PASSWORD,NAME:PASSWORD",
            ),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(toml.as_bytes()).unwrap();
            let error = Config::load(Some(file.path()), std::iter::empty()).unwrap_err();
            let shown = error
                .to_string()
                .replace(&file.path().display().to_string(), "FILE");
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn users_in_a_variable_are_pairs_or_json() {
        let users = |text| load("", &[("CALLBOX_TURN__USERS", text)]).map(|c| c.turn.users);
        let json = users(r#"{"cam": "secret,with:signs", "door": "0123456789abcdef"}"#).unwrap();
        assert!(json.len() == 2 && json.contains("cam") && json.contains("door"));
        for (wrong, expected) in [
            ("{\"cam\": hidden-word}", "is not a JSON object"),
            ("cam=hidden-word", "write NAME:PASSWORD"),
        ] {
            let error = users(wrong).map(|users| users.len()).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("hidden-word"),
                "{error}"
            );
        }
    }
}
