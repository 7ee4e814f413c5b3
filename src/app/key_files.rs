//! The files with keys and secrets that the configuration names, followed as certificates are.
//!
//! Contents are compared, not times: a mounted secret is exchanged by a link.

use super::reload::Reloader;
use crate::config::{FileDigest, digest_of};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a changed file waits at most.
const POLL: Duration = Duration::from_secs(10);

/// Takes over what changes in the files; ends with the runtime. Files that cannot be used change
/// nothing.
pub(super) async fn follow(reloader: Arc<Reloader>) {
    let mut last = files(&reloader);
    loop {
        tokio::time::sleep(POLL).await;
        let applied = files(&reloader);
        // A reload may have named other files.
        if !applied.keys().eq(last.keys()) {
            last.clone_from(&applied);
        }
        let now: BTreeMap<_, _> = applied
            .keys()
            .map(|path| (path.clone(), digest_of(path)))
            .collect();
        if now == last || now == applied {
            last = now;
            continue;
        }
        let changed = now
            .iter()
            .filter(|(path, digest)| last.get(*path) != Some(digest));
        let changed: Vec<_> = changed
            .map(|(path, _)| path.display().to_string())
            .collect();
        let changed = changed.join(", ");
        last = now;
        let reread = reloader.config.borrow().reread();
        match reread {
            Ok(config) => {
                let warnings = config.warnings.clone();
                reloader.apply(config);
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!("read again after a change: {changed}");
            }
            Err(error) => {
                for problem in &error.0 {
                    tracing::error!("{changed} has changed, and what applied stays: {problem}");
                }
            }
        }
    }
}

fn files(reloader: &Reloader) -> BTreeMap<PathBuf, FileDigest> {
    reloader.config.borrow().files.clone()
}

#[cfg(test)]
mod tests {
    use super::super::reload::tests::reloader;
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    const GOOD: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "K",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn config(dir: &Path) -> Config {
        let file = |name: &str| dir.join(name).display().to_string();
        let env = [
            ("AUTH__MODE", "jwt".into()),
            ("AUTH__JWKS", file("jwks")),
            ("AUTH__ADMIN_TOKEN_FILE", file("admin")),
            ("TURN__SECRETS_FILE", file("turn")),
        ];
        let env = env.map(|(key, value)| (format!("CALLBOX_{key}"), value));
        Config::load(None, env.into_iter()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_taken_up_and_broken_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("jwks", GOOD);
        write("admin", "0123456789abcdef");
        write("turn", "north-0123456789abcdef");
        let (reloader, mut verifier) = reloader(config(dir.path()));
        let reloader = Arc::new(reloader);
        let task = tokio::spawn(follow(Arc::clone(&reloader)));
        let applied = || reloader.ice.borrow().secrets.mint("u", 1);
        verifier.mark_unchanged();
        tokio::time::sleep(POLL * 3).await;
        assert!(!verifier.has_changed().unwrap(), "nothing has changed");

        // Time goes on by itself while nothing else is to do.
        write("turn", "south-0123456789abcdef");
        verifier.changed().await.unwrap();
        let south = applied();
        assert_eq!(reloader.config.borrow().turn.secrets.mint("u", 1), south);

        write("jwks", "{");
        write("turn", "east-0123456789abcdef");
        tokio::time::sleep(POLL * 3).await;
        assert!(!verifier.has_changed().unwrap(), "half of a change is none");
        assert_eq!(applied(), south);

        write("jwks", &GOOD.replace("\"K\"", "\"L\""));
        verifier.changed().await.unwrap();
        assert_ne!(applied(), south);

        std::fs::remove_file(dir.path().join("admin")).unwrap();
        tokio::time::sleep(POLL * 3).await;
        assert!(!verifier.has_changed().unwrap());
        assert!(
            reloader.admin_token.borrow().is_some(),
            "the old token stays"
        );
        task.abort();
    }
}
