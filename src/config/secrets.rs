//! What is warned of where secrets are weak, or open to everybody on the machine.

use super::collect::Check;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A secret of fewer bytes can be guessed from what it signed.
const SHORT: usize = 16;
/// Different bytes in what somebody has drawn: fewer are the filling of an example. Sixteen hexadecimal
/// digits by chance have so few once in thirty thousand times.
const DIFFERENT: usize = 6;
/// The permission of everybody to read, of chmod(2).
const OTHERS_READ: u32 = 0o004;

impl Check<'_> {
    /// Warns of a secret that is short, and of a file with it that others may read: `file`, or the
    /// one in which `key` was written.
    pub(super) fn judge_secret(&mut self, key: &str, secret: &str, file: Option<&Path>) {
        let length = secret.len();
        if (1..SHORT).contains(&length) {
            self.warnings.push(format!(
                "{key} has {length} bytes and can be guessed: `openssl rand -hex 32` makes one that \
                 cannot"
            ));
        } else if length > 0 && secret.bytes().collect::<BTreeSet<_>>().len() < DIFFERENT {
            self.warnings.push(format!(
                "{key} repeats a few characters and can be guessed: `openssl rand -hex 32` makes one \
                 that cannot"
            ));
        }
        let written = self.origin_of(key);
        if let Some(file) = file.or(written.as_deref().map(Path::new)) {
            self.judge_file(key, file);
        }
    }

    /// Warns of an admin token that a list of words has, and of one that no request can bring.
    pub(super) fn judge_admin_token(&mut self, key: &str, token: &str) {
        let is_visible = |c: char| c.is_ascii() && !c.is_ascii_control();
        if token.trim() != token || !token.chars().all(is_visible) {
            self.warnings.push(format!(
                "{key} begins or ends with a space, or has a character that is not ASCII: no \
                 Authorization header brings it, and the admin API refuses everybody; \
                 `openssl rand -hex 32` makes a token"
            ));
        }
        let is_word = !token.is_empty()
            && token
                .chars()
                .all(|c| c.is_alphabetic() || c == '-' || c == '_')
            && token.chars().skip(1).all(|c| !c.is_uppercase());
        if is_word {
            self.warnings.push(format!(
                "{key} is a word, and words are tried first: `openssl rand -hex 32` makes a token"
            ));
        }
    }

    /// Warns of a file with a secret that everybody on the machine may read.
    pub(super) fn judge_file(&mut self, key: &str, file: &Path) {
        let Ok(metadata) = std::fs::metadata(file) else {
            return;
        };
        if !metadata.is_file() || metadata.permissions().mode() & OTHERS_READ == 0 {
            return;
        }
        let shown = file.display();
        let about = format!("{shown} holds ");
        if self
            .warnings
            .iter()
            .any(|warning| warning.starts_with(&about))
        {
            return;
        }
        self.warnings.push(format!(
            "{about}{key}, and everybody on this machine may read it: `chmod o-r {shown}`"
        ));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn warnings(dir: &Path, toml: &str, mode: u32) -> String {
        let file = dir.join("box.toml");
        std::fs::write(&file, toml).unwrap();
        set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let config = Config::load(Some(&file), std::iter::empty()).unwrap();
        config.warnings.join("\n")
    }

    #[test]
    fn weak_secrets_are_warned_of_and_never_refused() {
        let dir = tempfile::tempdir().unwrap();
        let warned = |toml: &str| warnings(dir.path(), toml, 0o600);
        let strong = "[auth]\nmode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                      admin_token = \"0123456789abcdef0123\"\n[turn]\nsecrets = [\"0123456789abcdef\"]";
        assert_eq!(warned(strong), "");
        let turn = warned("[turn]\nsecrets = [\"0123456789abcdef\", \"north\"]");
        assert!(turn.starts_with("turn.secrets has 5 bytes"), "{turn}");
        let short = warned("[auth]\nadmin_token = \"tr0ub4dor\"");
        assert!(short.starts_with("auth.admin_token has 9 bytes"), "{short}");
        for word in ["sesame", "Sesame", "correct-horse-battery-staple"] {
            let word = warned(&format!("[auth]\nadmin_token = {word:?}"));
            assert!(word.contains("auth.admin_token is a word"), "{word}");
        }
        let auth = warned("[auth]\nmode = \"jwt\"\nsecret = \"short\"");
        assert!(auth.contains("auth.secret has 5 bytes"), "{auth}");
        for filling in ["ssssssssssssssssssssssssssssssss", "00000000000000000000"] {
            let auth = warned(&format!("[auth]\nmode = \"jwt\"\nsecret = {filling:?}"));
            assert!(auth.contains("auth.secret repeats"), "{auth}");
        }
        for dead in [
            " 0123456789abcdef",
            "0123456789\nabcdef",
            "0123456789abcdefñ",
        ] {
            let dead = warned(&format!("[auth]\nadmin_token = {dead:?}"));
            assert!(dead.contains("admin API refuses everybody"), "{dead}");
        }
        let hooks = warned("[hooks]\nurl = \"https://app.example/\"\nsecret = \"short\"");
        assert!(hooks.contains("hooks.secret has 5 bytes"), "{hooks}");
    }

    #[test]
    fn files_that_everybody_reads_are_warned_of_once() {
        let dir = tempfile::tempdir().unwrap();
        let inline =
            "[auth]\nadmin_token = \"0123456789abcdef0\"\n[turn]\nsecrets = [\"0123456789abcdef\"]";
        assert_eq!(warnings(dir.path(), inline, 0o640), "");
        let open = warnings(dir.path(), inline, 0o644);
        assert_eq!(open.lines().count(), 1, "{open}");
        assert!(
            open.contains("chmod o-r") && open.contains("box.toml"),
            "{open}"
        );
        assert_eq!(warnings(dir.path(), "[turn]\nuser_quota = 3", 0o644), "");

        let secret = dir.path().join("secret");
        std::fs::write(&secret, "0123456789abcdef").unwrap();
        set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
        for key in ["turn.secrets_file", "auth.admin_token_file"] {
            let (table, key) = key.split_once('.').unwrap();
            let toml = format!("[{table}]\n{key} = {secret:?}");
            let warned = warnings(dir.path(), &toml, 0o644);
            assert!(warned.contains("/secret holds"), "{warned}");
            assert_eq!(warned.lines().count(), 1, "{warned}");
        }
    }
}
