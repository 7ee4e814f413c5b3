//! `callbox user`: adds, lists and removes people of `auth.users_file` and programs of
//! `turn.users_file`.

use super::Source;
use crate::auth::{is_name, passwords};
use crate::config::Config;
use crate::file;
use clap::{Args, Subcommand};
use rand::RngExt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Characters of a password that is made here: 32 of them, without those that look alike.
const ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789-";
/// Characters of a password: 120 bits.
const PASSWORD_LEN: usize = 24;
/// What a new file may be read by: its owner and its group, which is the service's.
const MODE: u32 = 0o640;

/// What to do with users.
#[derive(Debug, Args)]
pub struct UserArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: UserAction,
}

/// Adds, lists or removes.
#[derive(Debug, Subcommand)]
pub enum UserAction {
    /// Adds a user with a password that is made here, and prints the password.
    Add(OneUser),
    /// Lists the names of all users.
    List(UsersFile),
    /// Removes a user. After a reload its sessions and relays end within a second.
    Remove(OneUser),
}

/// A user of a file.
#[derive(Debug, Args)]
pub struct OneUser {
    /// The name.
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub file: UsersFile,
}

/// Which file to edit.
#[derive(Debug, Args)]
pub struct UsersFile {
    /// The configuration, which names the file.
    #[command(flatten)]
    pub source: Source,
    /// Edits turn.users_file (programs with a fixed TURN password) in place of auth.users_file
    /// (people who log in).
    #[arg(long)]
    pub turn: bool,
}

impl UserArgs {
    /// The configuration that names the file.
    pub fn source(&self) -> &Source {
        match &self.action {
            UserAction::Add(user) | UserAction::Remove(user) => &user.file.source,
            UserAction::List(file) => &file.source,
        }
    }
}

/// Does it; returns what goes to the standard output, and the note that goes beside it.
///
/// # Errors
/// The configuration names no file, or the file cannot be changed; the text says what to do.
pub fn user(config: &Config, args: &UserArgs) -> Result<super::Printed, String> {
    match &args.action {
        UserAction::Add(user) => add(&path(config, &user.file)?, user),
        UserAction::List(file) => {
            let path = path(config, file)?;
            let names = names(&read(&path)?).map_err(|error| broken(&path, &error))?;
            Ok(super::Printed {
                out: names.iter().map(|name| format!("{name}\n")).collect(),
                note: None,
            })
        }
        UserAction::Remove(user) => remove(&path(config, &user.file)?, user),
    }
}

fn path(config: &Config, file: &UsersFile) -> Result<PathBuf, String> {
    let (key, path, example) = match file.turn {
        true => (
            "turn.users_file",
            &config.turn.users_file,
            "/etc/callbox/turn-users.toml",
        ),
        false => (
            "auth.users_file",
            &config.auth.users_file,
            "/etc/callbox/users.toml",
        ),
    };
    path.clone().ok_or_else(|| {
        let where_ = match file.source.config.is_some() {
            true => format!("write {key} = {example:?} in the configuration"),
            false => "name the box's configuration with --config FILE".to_owned(),
        };
        format!("{key} is not set, so there is no file to edit: {where_}")
    })
}

fn add(path: &Path, user: &OneUser) -> Result<super::Printed, String> {
    let name = &user.name;
    let is_digits = name.bytes().all(|b| b.is_ascii_digit());
    if !is_name(name) || user.file.turn && (name.contains(':') || is_digits) {
        return Err(format!(
            "{name:?} is not a valid name: write 1 to 128 bytes, for TURN without colons and not \
             digits alone"
        ));
    }
    let text = read(path)?;
    if names(&text)
        .map_err(|error| broken(path, &error))?
        .contains(name)
    {
        return Err(format!(
            "{name} is in {} already: remove it first",
            path.display()
        ));
    }
    let mut rng = rand::rng();
    let password: String = (0..PASSWORD_LEN)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect();
    let kept = match user.file.turn {
        true => password.clone(),
        false => passwords::hash(&password, rng.random()),
    };
    let key = toml::Value::String(name.clone());
    let gap = match text.is_empty() || text.ends_with('\n') {
        true => "",
        false => "\n",
    };
    let line = format!("{key} = {}\n", toml::Value::String(kept));
    write(path, &format!("{text}{gap}{line}")).map_err(|error| unwritable(path, &error))?;
    Ok(super::Printed {
        out: format!("{password}\n"),
        note: Some(reload_note(path)),
    })
}

fn remove(path: &Path, user: &OneUser) -> Result<super::Printed, String> {
    let text = read(path)?;
    let name = &user.name;
    if !names(&text)
        .map_err(|error| broken(path, &error))?
        .contains(name)
    {
        return Err(format!("there is no {name} in {}", path.display()));
    }
    let others = |line: &&str| !names(line).is_ok_and(|names| names.contains(name));
    let rest: String = text.split_inclusive('\n').filter(others).collect();
    match names(&rest) {
        Ok(names) if !names.contains(name) => {}
        _ => {
            return Err(format!(
                "{name} is not on a line of its own: edit {}",
                path.display()
            ));
        }
    }
    write(path, &rest).map_err(|error| unwritable(path, &error))?;
    Ok(super::Printed {
        out: String::new(),
        note: Some(reload_note(path)),
    })
}

fn reload_note(path: &Path) -> String {
    format!(
        "{} is written; a running box takes it over with `systemctl reload callbox` (SIGHUP)\n",
        path.display()
    )
}

fn read(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| format!("cannot read {}: {error}", path.display())),
    }
}

fn names(text: &str) -> Result<Vec<String>, toml::de::Error> {
    let table: toml::Table = text.parse()?;
    Ok(table.keys().cloned().collect())
}

fn broken(path: &Path, error: &toml::de::Error) -> String {
    format!("{} is not valid TOML: {}", path.display(), error.message())
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!(
        "cannot write {}: {error}; run this as the user that owns the file, with sudo for instance",
        path.display()
    )
}

/// Puts a whole new file in the place of the old one, with its owner, group and mode. A new one gets
/// the group of its folder.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let (mut file, beside) = file::beside(path)?;
    file.write_all(text.as_bytes())?;
    let (owner, group, mode) = match fs::metadata(path) {
        Ok(old) => (Some(old.uid()), Some(old.gid()), old.permissions().mode()),
        Err(_) => {
            let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
            (None, folder.map(|folder| folder.gid()), MODE)
        }
    };
    // Without the right to give the file away it stays with who runs this.
    let given = chown(&beside, owner, group);
    file.set_permissions(fs::Permissions::from_mode(match given {
        Ok(()) => mode & 0o777,
        Err(_) => 0o600,
    }))?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn run(config: &Config, line: &[&str]) -> Result<super::super::Printed, String> {
        let words = ["callbox", "user"].iter().chain(line);
        match Cli::parse_from(words).command {
            Some(Command::User(args)) => user(config, &args),
            other => panic!("{other:?}"),
        }
    }

    fn config(table: &str, path: &Path) -> Config {
        let variable = format!("CALLBOX_{table}__USERS_FILE");
        let env = [(variable, path.display().to_string())];
        Config::load(None, env.into_iter()).unwrap()
    }

    #[test]
    fn a_user_is_added_listed_and_removed_and_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        fs::write(
            &path,
            "# cameras\nold = \"0123456789abcdef\" # at the door\n",
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let load = || config("TURN", &path);
        let added = run(&load(), &["add", "go 2 rtc", "--turn"]).unwrap();
        let password = added.out.trim();
        assert_eq!(password.len(), PASSWORD_LEN);
        assert!(load().turn.users.contains("go 2 rtc"));
        assert!(fs::read_to_string(&path).unwrap().contains(password));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let again = run(&load(), &["add", "go 2 rtc", "--turn"]).err().unwrap();
        assert!(again.contains("already"), "{again}");
        let list = run(&load(), &["list", "--turn"]).unwrap();
        assert_eq!(list.out, "go 2 rtc\nold\n");
        run(&load(), &["remove", "go 2 rtc", "--turn"]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# cameras\nold = \"0123456789abcdef\" # at the door\n"
        );
        assert!(run(&load(), &["remove", "nobody", "--turn"]).is_err());
    }

    #[test]
    fn a_person_is_kept_as_a_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        fs::write(&path, "").unwrap();
        let added = run(&config("AUTH", &path), &["add", "ann@example.org"]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("$argon2id$"), "{text}");
        assert!(!text.contains(added.out.trim()));
    }

    #[test]
    fn without_a_file_the_error_names_the_key() {
        let config = Config::load(None, std::iter::empty()).unwrap();
        let error = run(&config, &["list", "--turn"]).err().unwrap();
        assert!(error.contains("turn.users_file is not set"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = self::config("TURN", file.path());
        for name in ["17", "a:b", ""] {
            let error = run(&config, &["add", name, "--turn"]).err().unwrap();
            assert!(error.contains("is not a valid name"), "{error}");
        }
    }
}
