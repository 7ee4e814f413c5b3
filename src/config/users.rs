//! Tables of names and secrets: `turn.users`, and the files beside them.

use super::AdminTokenOf;
use super::collect::Check;
use super::raw::{Mode, Raw};
use super::rules::Scopes;
use crate::auth::{People, TurnUsers, is_name, passwords};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::path::Path;

/// Names of one table at most.
const MAX_USERS: usize = 10_000;

impl Check<'_> {
    pub(super) fn turn_users(&mut self, raw: &Raw) -> TurnUsers {
        let turn = &raw.turn;
        let users = self.with_file("turn.users", &turn.users, turn.users_file.as_deref());
        for (name, password) in &users {
            let is_username_of_rest = name.bytes().all(|b| b.is_ascii_digit());
            if !is_name(name) || name.contains(':') || is_username_of_rest {
                self.problem("turn.users", format!("{name:?}"), "is not a valid name")
                    .set_fix("write 1 to 128 bytes without colons and not digits alone");
            }
            let file = turn.users_file.as_deref();
            self.judge_secret("turn.users", password.expose_secret(), file);
        }
        let users = users.into_iter().map(|(name, p)| (name.into(), p));
        TurnUsers::new(users.collect())
    }

    pub(super) fn admin_tokens(&mut self, raw: &Raw) -> Vec<AdminTokenOf> {
        const SCOPES: [&str; 3] = ["read", "act", "mint"];
        let mut tokens = vec![];
        for (name, written) in &raw.auth.admin_tokens {
            let key = format!("auth.admin_tokens.{name}.token");
            let scopes = match &written.scope {
                Scopes::One(one) => vec![one.clone()],
                Scopes::Many(many) => many.clone(),
            };
            if scopes.is_empty() || scopes.iter().any(|s| !SCOPES.contains(&s.as_str())) {
                let key = format!("auth.admin_tokens.{name}.scope");
                self.problem(&key, format!("{scopes:?}"), "is not a list of scopes")
                    .set_fix("write \"read\", \"act\", \"mint\", or a list of them");
            }
            let token = self.secret(&key, written.token.clone(), &written.token_file);
            let Some(token) = token.filter(|token| !token.expose_secret().is_empty()) else {
                self.problem(&key, "", "is not set")
                    .set_fix("`openssl rand -hex 32` makes one; token_file names a file with it");
                continue;
            };
            self.judge_secret(&key, token.expose_secret(), written.token_file.as_deref());
            self.judge_admin_token(&key, token.expose_secret());
            tokens.push(AdminTokenOf {
                name: name.clone(),
                token,
                scopes,
            });
        }
        tokens
    }

    /// People who log in; `signs`: the box has a key for their tokens.
    pub(super) fn people(&mut self, raw: &Raw, mode: Mode, signs: bool) -> People {
        let auth = &raw.auth;
        let people = self.with_file("auth.users", &auth.users, auth.users_file.as_deref());
        for (name, hash) in &people {
            if !is_name(name) {
                self.problem("auth.users", format!("{name:?}"), "is not a valid name")
                    .set_fix("write 1 to 128 bytes, none of them controls");
            }
            if let Some(fault) = passwords::fault(hash.expose_secret()) {
                self.problem("auth.users", format!("{name:?}"), fault)
                    .set_fix("`callbox user add NAME` makes a password and keeps its hash");
            }
        }
        if !people.is_empty() && mode == Mode::Jwt && !signs {
            self.problem(
                "auth.secret",
                "",
                "is not set, and auth.users need a key for their tokens",
            )
            .set_fix("`openssl rand -hex 32` makes a secret");
        }
        if !people.is_empty() && mode == Mode::Open {
            self.warnings.push(
                "auth.users is set, but auth.mode is \"open\": nobody is asked to log in".into(),
            );
        }
        People::new(people)
    }

    /// What is written under `key` and in the file, which is TOML with `name = "…"` on each line.
    pub(super) fn with_file(
        &mut self,
        key: &str,
        inline: &BTreeMap<String, SecretString>,
        file: Option<&Path>,
    ) -> BTreeMap<String, SecretString> {
        let mut users = inline.clone();
        if let Some(path) = file {
            for (name, secret) in self.users_file(&format!("{key}_file"), path) {
                if users.insert(name.clone(), secret).is_some() {
                    self.problem(key, format!("{name:?}"), "is in the file as well")
                        .set_fix("keep one of the two");
                }
            }
        }
        if users.len() > MAX_USERS {
            self.problem(key, users.len(), "is more names than a table may have")
                .set_fix(format!(
                    "keep {MAX_USERS} at most, or mint credentials with turn.secrets"
                ));
        }
        if let Some((name, _)) = users.iter().find(|(_, s)| s.expose_secret().is_empty()) {
            self.problem(key, format!("{name:?}"), "has an empty secret")
                .set_fix("`callbox user add NAME` makes a password");
        }
        users
    }

    fn users_file(&mut self, key: &str, path: &Path) -> BTreeMap<String, SecretString> {
        // `callbox user add` makes the file, and reads the configuration that names it first.
        if matches!(path.try_exists(), Ok(false)) {
            let command = match key {
                "turn.users_file" => "callbox user add NAME --turn",
                _ => "callbox user add NAME",
            };
            let path = path.display();
            self.warnings.push(format!(
                "{key} = {path}: there is no such file yet; `{command}` makes it"
            ));
            return BTreeMap::new();
        }
        let Some(text) = self.read(key, path) else {
            return BTreeMap::new();
        };
        match toml::from_str::<BTreeMap<String, String>>(&text) {
            Ok(users) => users.into_iter().map(|(n, s)| (n, s.into())).collect(),
            Err(error) => {
                // Its message would show the line, and a password stands there.
                let before = error.span().map_or(0, |span| span.start.min(text.len()));
                let line = text[..before].matches('\n').count() + 1;
                let reason = format!("is not a list of users at line {line}");
                self.problem(key, path.display(), reason)
                    .set_fix("write name = \"password\" on each line, and nothing else");
                BTreeMap::new()
            }
        }
    }
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
    fn relay_users_come_from_the_file_the_table_and_the_environment() {
        let mut users = tempfile::NamedTempFile::new().unwrap();
        users
            .write_all(b"# cameras\nDoor = \"0123456789abcdef\"\n")
            .unwrap();
        let toml = format!(
            "[turn]\nusers_file = {:?}\n[turn.users]\ngo2rtc = \"0123456789abcdef\"\n",
            users.path()
        );
        let config = load(&toml, &[]).unwrap();
        assert!(config.turn.users.contains("Door") && config.turn.users.contains("go2rtc"));
        assert!(!config.to_toml().contains("0123456789abcdef"));
        assert!(config.to_toml().contains("go2rtc"));

        let config = load("", &[("CALLBOX_TURN__USERS", "cam: pass:word , Pi:other")]).unwrap();
        assert_eq!(config.turn.users.len(), 2);
        assert!(config.turn.users.contains("Pi"));
    }

    #[test]
    fn people_need_hashes_and_a_key_for_their_tokens() {
        let hash = crate::auth::passwords::hash("sesame", [1; 16]);
        let users = format!("[auth.users]\nann = {hash:?}\n");
        let jwt = [("CALLBOX_AUTH__MODE", "jwt")];
        let error = load(&users, &jwt).unwrap_err();
        assert!(error.contains("auth.secret"), "{error}");
        let secret = ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef");
        let config = load(&users, &[jwt[0], secret]).unwrap();
        assert!(config.auth.people.verify("ann", "sesame"));
        let plain = load("[auth.users]\nann = \"sesame\"\n", &[jwt[0], secret]);
        let error = plain.unwrap_err();
        assert!(error.contains("is not an Argon2id hash"), "{error}");
        assert!(!error.contains("sesame"), "{error}");
        let open = load(&users, &[]).unwrap();
        assert!(open.warnings.iter().any(|w| w.contains("auth.users")));
    }

    #[test]
    fn bad_names_and_lines_are_named_and_passwords_are_not_shown() {
        for name in ["17", "a:b", "\"\""] {
            let name = name.trim_matches('"');
            let error = load(&format!("[turn.users]\n{name:?} = \"sesame-open\""), &[]);
            let error = error.unwrap_err();
            assert!(error.contains("is not a valid name"), "{error}");
            assert!(!error.contains("sesame-open"));
        }
        let mut users = tempfile::NamedTempFile::new().unwrap();
        users.write_all(b"a = \"x\"\nb = sesame\n").unwrap();
        let toml = format!("[turn]\nusers_file = {:?}\n", users.path());
        let error = load(&toml, &[]).unwrap_err();
        assert!(
            error.contains("at line 2") && !error.contains("sesame"),
            "{error}"
        );
        let both = format!("{toml}users = {{ a = \"y\" }}\n");
        users.as_file().set_len(8).unwrap();
        let error = load(&both, &[]).unwrap_err();
        assert!(error.contains("in the file as well"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_yet_has_nobody_and_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        for (table, command) in [("turn", "user add NAME --turn"), ("auth", "user add NAME`")] {
            let path = dir.path().join("users.toml");
            let key = "auth = { mode = \"jwt\", secret = \"0123456789abcdef0123456789abcdef\" }";
            let toml = match table {
                "turn" => format!("{key}\n[turn]\nusers_file = {path:?}\n"),
                _ => format!(
                    "[auth]\nmode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nusers_file = {path:?}\n"
                ),
            };
            let config = load(&toml, &[]).unwrap();
            let warned = config.warnings.join("\n");
            assert!(warned.contains(command), "{warned}");
        }
    }
}
