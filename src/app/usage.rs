//! What was relayed in a month, in all, by user and by secret: counted, kept over restarts, and held
//! against `turn.budget`.

mod month;

use crate::auth::credential::{SecretId, http_user};
use crate::clock::unix_now;
use crate::config::{Budget, Config, Mode};
use crate::file;
use crate::http::AsyncQuery;
use crate::protocol::PeerId;
use crate::relay::RelayHandle;
use crate::relay::engine::{Event, Spent};
use crate::service::state_directory;
use month::{ANONYMOUS, Account, Entry, SESSIONS, UsageRecord, month_of};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often living relays are looked at, and the record is written down.
const INTERVAL: Duration = Duration::from_secs(30);

/// The record of usage of this box.
pub(super) struct Usage {
    record: Mutex<UsageRecord>,
    /// Whether a relay has ended since [`Self::text`].
    has_news: AtomicBool,
    /// What the workers know.
    spent: Mutex<Spent>,
    /// Where they are kept, if anywhere.
    path: Option<PathBuf>,
    relay: Arc<RelayHandle>,
    config: watch::Receiver<Config>,
}

impl Usage {
    /// Goes on where an earlier process has left off, or else where the state directory says that an
    /// earlier run has ended.
    pub(super) fn open(
        relay: &Arc<RelayHandle>,
        config: watch::Receiver<Config>,
        left: Option<&str>,
    ) -> Arc<Self> {
        let path = state_directory().map(|folder| folder.join("usage.json"));
        let record = left.and_then(UsageRecord::from_json);
        let record = record
            .or_else(|| path.as_deref().map(read))
            .unwrap_or_default();
        Arc::new(Self {
            record: Mutex::new(record),
            has_news: AtomicBool::new(false),
            spent: Mutex::default(),
            path,
            relay: Arc::clone(relay),
            config,
        })
    }

    /// Counts an allocation that has ended.
    pub(super) fn count(&self, event: &Event) {
        if let Event::Closed {
            user,
            secret,
            sent,
            received,
            ..
        } = event
        {
            let mode = self.config.borrow().auth.mode;
            let entry = entry(user, *secret, sent.bytes + received.bytes, mode);
            if entry.bytes > 0 {
                self.record().ended(&month_of(unix_now()), &entry);
                self.has_news.store(true, Ordering::Release);
            }
        }
    }

    /// Looks at living relays now and then, until the task is ended.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut turns = tokio::time::interval(INTERVAL);
        loop {
            turns.tick().await;
            self.look().await;
            let usage = Arc::clone(&self);
            // It waits for the disk.
            let _ = tokio::task::spawn_blocking(move || usage.write()).await;
        }
    }

    async fn look(&self) {
        let living = self.relay.allocations().await;
        let (budget, secrets, mode) = {
            let config = self.config.borrow();
            let secrets: Vec<_> = config.turn.secrets.ids().collect();
            (config.turn.budget.clone(), secrets, config.auth.mode)
        };
        let month = month_of(unix_now());
        let spent = {
            let mut record = self.record();
            let living = living.iter().map(|view| {
                let bytes = view.sent.bytes + view.received.bytes;
                entry(&view.user, view.secret, bytes, mode)
            });
            record.living(&month, living);
            warn(&mut record, &budget);
            spent(&record, &budget, &secrets)
        };
        let mut known = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != spent {
            known.clone_from(&spent);
            self.relay.spend(spent);
        }
    }

    /// What `GET /v1/usage` shows.
    pub(super) fn query(usage: Option<Arc<Self>>) -> AsyncQuery<String> {
        Box::new(move || {
            let usage = usage.clone();
            Box::pin(async move {
                let Some(usage) = usage else {
                    return json!({
                        "month": null, "total": 0, "users": {}, "secrets": {}, "months": {},
                    })
                    .to_string();
                };
                usage.look().await;
                let record = usage.record();
                json!({
                    "month": record.month,
                    "total": record.total(),
                    "users": record.users().collect::<BTreeMap<_, _>>(),
                    "secrets": record.secrets().collect::<BTreeMap<_, _>>(),
                    "months": record.months,
                })
                .to_string()
            })
        })
    }

    /// Bytes of this month, for metrics.
    pub(super) fn total(&self) -> u64 {
        self.record().total()
    }

    /// Writes the record down; all relays have ended.
    pub(super) fn close(&self) {
        self.record()
            .living(&month_of(unix_now()), std::iter::empty());
        self.write();
    }

    /// The record, for the process that goes on.
    pub(super) fn text(&self) -> String {
        self.has_news.store(false, Ordering::Release);
        self.record().to_json()
    }

    /// The record, if relays have ended since [`Self::text`]. Packets wait meanwhile.
    pub(super) fn newer_text(&self) -> Option<String> {
        let has_news = self.has_news.load(Ordering::Acquire);
        has_news.then(|| self.record().to_json())
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        let text = self.record().to_json();
        let failed = replace(path, &text).err();
        let mut record = self.record();
        if let Some(error) = &failed
            && !record.failed
        {
            tracing::warn!(
                "cannot write {}: {error}; a restart forgets what was relayed this month",
                path.display()
            );
        }
        record.failed = failed.is_some();
    }

    fn record(&self) -> MutexGuard<'_, UsageRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In open mode nobody has a name over HTTP.
fn entry(user: &str, secret: Option<SecretId>, bytes: u64, mode: Mode) -> Entry {
    let user = match PeerId::parse(user) {
        // A fixed password, whatever its name looks like.
        _ if secret.is_none() => user,
        Some(_) => SESSIONS,
        None if mode == Mode::Open && user.starts_with(&http_user("")) => ANONYMOUS,
        None => user,
    };
    Entry {
        user: user.to_owned(),
        secret: secret.map(|secret| secret.to_string()),
        bytes,
    }
}

/// Warns once a month at 80 % and once at the end.
fn warn(record: &mut UsageRecord, budget: &Budget) {
    let then = match budget.refuses {
        true => "new relays are refused until the month ends",
        false => "relays go on (turn.budget.then)",
    };
    let mut about = vec![];
    if let Some(limit) = budget.total {
        about.push((Account::Box, record.total(), limit));
    }
    if let Some(limit) = budget.user {
        let users = record.single_users();
        about.extend(users.map(|(name, bytes)| (Account::User(name.to_owned()), bytes, limit)));
    }
    if let Some(limit) = budget.secret {
        let secrets = record.secrets();
        about.extend(secrets.map(|(id, bytes)| (Account::Secret(id.to_owned()), bytes, limit)));
    }
    for (account, bytes, limit) in about {
        let stage = match bytes {
            bytes if bytes >= limit => 2,
            // In u128: a budget may be any number of bytes.
            bytes if u128::from(bytes) * 10 >= u128::from(limit) * 8 => 1,
            _ => continue,
        };
        if !record.reaches(&account, stage) {
            continue;
        }
        let whose = match account {
            Account::Box => "the box has".to_owned(),
            Account::User(user) => format!("the TURN user {user} has"),
            Account::Secret(id) => format!("the TURN secret {id} has"),
        };
        match stage {
            2 => tracing::warn!(bytes, limit, "{whose} used up its turn.budget: {then}"),
            _ => tracing::warn!(bytes, limit, "{whose} used 80 % of its turn.budget"),
        }
    }
}

fn spent(record: &UsageRecord, budget: &Budget, secrets: &[SecretId]) -> Spent {
    if !budget.refuses {
        return Spent::default();
    }
    let is_up = |limit: Option<u64>, bytes: u64| limit.is_some_and(|limit| bytes >= limit);
    let users = record.single_users();
    let users = users.filter(|(_, bytes)| is_up(budget.user, *bytes));
    let used: BTreeMap<_, _> = record.secrets().collect();
    let secrets = secrets.iter().filter(|id| {
        let bytes = used.get(id.to_string().as_str());
        bytes.is_some_and(|bytes| is_up(budget.secret, *bytes))
    });
    Spent {
        all: is_up(budget.total, record.total()),
        users: users.map(|(name, _)| name.into()).collect(),
        secrets: secrets.copied().collect(),
    }
}

fn read(path: &Path) -> UsageRecord {
    match fs::read_to_string(path) {
        Ok(text) => UsageRecord::from_json(&text).unwrap_or_else(|| {
            tracing::warn!(
                "{} is not a record of usage: the month begins at nothing",
                path.display()
            );
            UsageRecord::default()
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => UsageRecord::default(),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", path.display());
            UsageRecord::default()
        }
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (mut file, beside) = file::beside(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::credential::TurnSecrets;

    fn budget(total: Option<u64>, user: Option<u64>, secret: Option<u64>) -> Budget {
        Budget {
            total,
            user,
            secret,
            refuses: true,
        }
    }

    fn of(user: &str, secret: &str, bytes: u64) -> Entry {
        Entry {
            user: user.to_owned(),
            secret: Some(secret.to_owned()),
            bytes,
        }
    }

    #[test]
    fn who_has_used_up_its_budget_is_refused_and_sessions_only_with_everybody() {
        let secrets = TurnSecrets::new(vec!["north".into(), "south".into()]).unwrap();
        let ids: Vec<_> = secrets.ids().collect();
        let [north, south] = [0, 1].map(|n| ids[n].to_string());
        let mut record = UsageRecord::default();
        record.ended("2026-11", &of("cam", &south, 100));
        record.ended("2026-11", &of(SESSIONS, &north, 250));
        record.ended("2026-11", &of(ANONYMOUS, &north, 250));
        let spent = |budget| spent(&record, &budget, &ids);
        let by_user = spent(budget(None, Some(100), None));
        assert_eq!((by_user.all, by_user.users.len()), (false, 1));
        assert!(by_user.users.contains("cam") && by_user.secrets.is_empty());
        assert!(spent(budget(Some(600), None, None)).all);
        assert!(!spent(budget(Some(601), None, None)).all);
        let by_secret = spent(budget(None, None, Some(101)));
        assert!(by_secret.secrets.iter().eq([&ids[0]]) && by_secret.users.is_empty());
        let warned_only = Budget {
            refuses: false,
            ..budget(Some(1), Some(1), Some(1))
        };
        assert_eq!(spent(warned_only), Spent::default());
    }

    #[test]
    fn names_that_the_box_makes_share_an_account_each() {
        let (secret, secrets) = (None, TurnSecrets::new(vec!["north".into()]).unwrap());
        let signed = secrets.ids().next();
        let account = |user: &str, secret, mode| entry(user, secret, 1, mode).user;
        let peer = PeerId::from_bits(7).to_string();
        let anonymous = http_user("0123456789abcdef0123456789abcdef");
        for (user, secret, mode, expected) in [
            (&*peer, signed, Mode::Jwt, SESSIONS),
            (&*anonymous, signed, Mode::Open, ANONYMOUS),
            // A `sub` may look like that.
            (&*anonymous, signed, Mode::Jwt, &*anonymous),
            ("http-cam", secret, Mode::Open, "http-cam"),
            ("ann", signed, Mode::Open, "ann"),
        ] {
            assert_eq!(account(user, secret, mode), expected);
        }
    }

    #[test]
    fn the_totals_outlive_a_restart_and_nonsense_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.json");
        let mut record = UsageRecord::default();
        record.ended("2026-11", &of("cam", "s", 7));
        record.living("2026-11", [of("cam", "s", 3)]);
        replace(&path, &record.to_json()).unwrap();
        let again = read(&path);
        assert_eq!(again.total(), 10, "what lives counts too");
        assert_eq!(again.secrets().collect::<Vec<_>>(), [("s", 10)]);
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(read(&path).total(), 0);
        assert_eq!(read(&folder.path().join("none")).total(), 0);
    }
}
