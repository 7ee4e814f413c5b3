//! The bytes that were relayed in a month, by user and by secret. Pure: the month is an argument.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Users, and secrets, with an account of their own. Where one more comes, the account with the fewest
/// bytes is added to a shared one: who has used up a budget is never lost among many who have not.
const MAX_NAMES: usize = 10_000;
/// Users with a fixed password, whose accounts stay. The configuration holds no more at a time.
const MAX_FIXED: usize = 10_000;
/// The shared account.
const OTHERS: &str = "(others)";
/// Of sessions of signaling: their peer ids mean nothing a month later.
pub(super) const SESSIONS: &str = "(sessions)";
/// Of credentials over HTTP for nobody known: each has a name of its own that means nothing either.
pub(super) const ANONYMOUS: &str = "(anonymous)";
/// Accounts of many.
const SHARED: [&str; 3] = [OTHERS, SESSIONS, ANONYMOUS];
/// Months whose totals are kept.
const MONTHS: usize = 24;

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Account {
    /// Everybody's.
    Box,
    /// A user's.
    User(String),
    /// Of all credentials that a secret has signed.
    Secret(String),
}

/// What one relay has relayed, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) user: String,
    /// None of a fixed password.
    pub(super) secret: Option<String>,
    pub(super) bytes: u64,
}

/// Bytes by user and by secret, and the totals of earlier months.
#[derive(Debug, Default)]
pub(super) struct UsageRecord {
    /// `2026-11`; empty before anything was counted.
    pub(super) month: String,
    /// The totals of earlier months.
    pub(super) months: BTreeMap<String, u64>,
    /// Every relay is in here.
    users: AccountBytes,
    /// Those with a credential that a secret has signed.
    secrets: AccountBytes,
    /// Which stage of its budget each account has reached.
    stages: BTreeMap<Account, u8>,
    /// Whether the last attempt to write failed, which is logged once.
    pub(super) failed: bool,
}

impl UsageRecord {
    /// Adds a relay that has ended in `month`. What was last seen of living ones may hold its bytes
    /// too until the next look.
    pub(super) fn ended(&mut self, month: &str, entry: &Entry) {
        self.turn_to(month);
        // Only who is in the configuration has a password of its own.
        let is_fixed = entry.secret.is_none();
        let made_room = self.users.ended(&entry.user, entry.bytes, is_fixed);
        if let Some(name) = made_room {
            self.stages.remove(&Account::User(name.to_string()));
        }
        if let Some(secret) = &entry.secret {
            self.secrets.ended(secret, entry.bytes, false);
        }
    }

    /// Takes a look at all living relays.
    pub(super) fn living(&mut self, month: &str, living: impl IntoIterator<Item = Entry>) {
        self.turn_to(month);
        self.users.living.clear();
        self.secrets.living.clear();
        for entry in living {
            if let Some(secret) = entry.secret {
                *self.secrets.living.entry(secret).or_default() += entry.bytes;
            }
            *self.users.living.entry(entry.user).or_default() += entry.bytes;
        }
    }

    /// Bytes of the month.
    pub(super) fn total(&self) -> u64 {
        self.users.total()
    }

    /// Bytes of the month by user.
    pub(super) fn users(&self) -> impl Iterator<Item = (&str, u64)> {
        self.users.iter()
    }

    /// Bytes of the month by user, without the accounts that many share.
    pub(super) fn single_users(&self) -> impl Iterator<Item = (&str, u64)> {
        let users = self.users.iter();
        users.filter(|(name, _)| !SHARED.contains(name))
    }

    /// Bytes of the month by secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = (&str, u64)> {
        self.secrets.iter()
    }

    /// Notes that an account is at that stage; returns whether it is for the first time this month.
    pub(super) fn reaches(&mut self, account: &Account, stage: u8) -> bool {
        let reached = self.stages.entry(account.clone()).or_default();
        let is_new = *reached < stage;
        *reached = stage.max(*reached);
        is_new
    }

    /// As a file holds them.
    pub(super) fn to_json(&self) -> String {
        json!({
            "month": self.month,
            "users": self.users.to_json(),
            "secrets": self.secrets.to_json(),
            "months": self.months,
            "fixed": self.users.fixed,
            "stages": self.stages.iter().map(|(account, stage)| match account {
                Account::Box => json!([stage]),
                Account::User(user) => json!([stage, "user", user]),
                Account::Secret(id) => json!([stage, "secret", id]),
            }).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// `None`: the text is not of [`Self::to_json`]. An earlier version wrote no `secrets`, `fixed` and
    /// `stages`.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        let file: Value = serde_json::from_str(text).ok()?;
        let table = |table: &Value| -> Option<BTreeMap<String, u64>> {
            let table = table.as_object()?.iter();
            table.map(|(k, v)| Some((k.clone(), v.as_u64()?))).collect()
        };
        let secrets = match &file["secrets"] {
            Value::Null => BTreeMap::new(),
            secrets => table(secrets)?,
        };
        let list = |list: &Value| list.as_array().cloned().unwrap_or_default();
        let fixed = list(&file["fixed"]);
        let fixed = fixed.iter().filter_map(Value::as_str).map(Arc::from);
        let stage = |stage: &Value| {
            let reached = u8::try_from(stage[0].as_u64()?).ok()?;
            let name = || stage[2].as_str().map(str::to_owned);
            let account = match stage[1].as_str() {
                None => Account::Box,
                Some("user") => Account::User(name()?),
                Some(_) => Account::Secret(name()?),
            };
            Some((account, reached))
        };
        Some(Self {
            month: file["month"].as_str()?.to_owned(),
            months: table(&file["months"])?,
            users: AccountBytes::with(table(&file["users"])?, fixed.collect()),
            secrets: AccountBytes::with(secrets, BTreeSet::new()),
            stages: list(&file["stages"]).iter().filter_map(stage).collect(),
            failed: false,
        })
    }

    fn turn_to(&mut self, month: &str) {
        if self.month == month {
            return;
        }
        if !self.month.is_empty() {
            // What lives goes on in the new month, and counts where it ends.
            let total = self.users.ended.values().sum();
            self.months.insert(std::mem::take(&mut self.month), total);
            while self.months.len() > MONTHS {
                self.months.pop_first();
            }
        }
        self.users.clear();
        self.secrets.clear();
        self.stages.clear();
        month.clone_into(&mut self.month);
    }
}

/// Bytes by name.
#[derive(Debug, Default)]
struct AccountBytes {
    /// Of relays that have ended.
    ended: BTreeMap<Arc<str>, u64>,
    /// Those of `ended` that may make room, by their bytes.
    by_bytes: BTreeSet<(u64, Arc<str>)>,
    /// Those whose account stays.
    fixed: BTreeSet<Arc<str>>,
    /// Of relays that live, as they were last seen.
    living: BTreeMap<String, u64>,
}

impl AccountBytes {
    fn with(ended: BTreeMap<String, u64>, mut fixed: BTreeSet<Arc<str>>) -> Self {
        let ended: BTreeMap<Arc<str>, u64> =
            ended.into_iter().map(|(k, v)| (k.into(), v)).collect();
        fixed.retain(|name| ended.contains_key(name));
        let others = ended.iter();
        let others =
            others.filter(|(name, _)| !SHARED.contains(&&***name) && !fixed.contains(*name));
        let mut accounts = Self {
            by_bytes: others.map(|(name, bytes)| (*bytes, name.clone())).collect(),
            ended,
            fixed,
            living: BTreeMap::new(),
        };
        // A file has those that lived as well.
        while accounts.make_room("").is_some() {}
        accounts
    }

    /// Adds to an account. Returns the one that made room, if one had to.
    fn ended(&mut self, name: &str, bytes: u64, is_fixed: bool) -> Option<Arc<str>> {
        if let Some(seen) = self.living.get_mut(name) {
            *seen = seen.saturating_sub(bytes);
        }
        let name = match self.ended.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let sum = self.ended.entry(name.clone()).or_default();
        let before = (*sum, name.clone());
        *sum += bytes;
        let after = (*sum, name.clone());
        if is_fixed && self.fixed.len() < MAX_FIXED {
            self.fixed.insert(name.clone());
        }
        self.by_bytes.remove(&before);
        if !self.fixed.contains(&name) && !SHARED.contains(&&*name) {
            self.by_bytes.insert(after);
        }
        // Not the one that came just now: else the first of many never keeps its bytes.
        self.make_room(&name)
    }

    /// Adds the account with the fewest bytes, but not that of `newest`, to the shared one where there are
    /// too many.
    fn make_room(&mut self, newest: &str) -> Option<Arc<str>> {
        if self.by_bytes.len() <= MAX_NAMES {
            return None;
        }
        let least = self.by_bytes.iter().find(|(_, least)| **least != *newest)?;
        let (bytes, least) = least.clone();
        self.by_bytes.remove(&(bytes, least.clone()));
        self.ended.remove(&least);
        *self.ended.entry(OTHERS.into()).or_default() += bytes;
        Some(least)
    }

    fn clear(&mut self) {
        self.ended.clear();
        self.by_bytes.clear();
        self.fixed.clear();
    }

    fn total(&self) -> u64 {
        self.ended.values().chain(self.living.values()).sum()
    }

    fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let only_living = self.living.iter();
        let only_living = only_living.filter(|(name, _)| !self.ended.contains_key(name.as_str()));
        let ended = self.ended.iter().map(|(name, bytes)| {
            let living = self.living.get(&**name).copied().unwrap_or_default();
            (&**name, bytes + living)
        });
        ended.chain(only_living.map(|(name, bytes)| (name.as_str(), *bytes)))
    }

    fn to_json(&self) -> Map<String, Value> {
        let names = self.iter();
        names.map(|(name, n)| (name.to_owned(), n.into())).collect()
    }
}

/// The month of a time in UTC, `2026-11`: the civil calendar from days since 1970.
pub(super) fn month_of(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Counted from March, so that the leap day is the last one.
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `date -u -d @…`.
    #[test]
    fn months_are_those_of_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01"),
            (951_782_399, "2000-02"),
            (951_868_800, "2000-03"),
            (1_709_164_800, "2024-02"),
            (1_735_689_599, "2024-12"),
            (1_735_689_600, "2025-01"),
        ] {
            assert_eq!(month_of(unix_s), expected, "{unix_s}");
        }
    }

    fn entry(user: &str, bytes: u64) -> Entry {
        Entry {
            user: user.to_owned(),
            secret: Some("s".to_owned()),
            bytes,
        }
    }

    #[test]
    fn a_month_ends_with_its_total_and_the_next_begins_at_what_lives() {
        let mut record = UsageRecord::default();
        let a = Account::User("a".to_owned());
        record.ended("2026-11", &entry("a", 5));
        record.living("2026-11", [entry("b", 7)]);
        assert_eq!(record.total(), 12);
        assert!(record.reaches(&a, 1) && !record.reaches(&a, 1) && record.reaches(&a, 2));
        assert!(record.reaches(&Account::Secret("a".to_owned()), 1));
        record.ended("2026-12", &entry("b", 9));
        assert_eq!(record.months["2026-11"], 5);
        assert_eq!(record.total(), 9, "the look before is stale");
        assert!(record.reaches(&a, 1));
        let users: Vec<_> = record.users().collect();
        assert_eq!(users, [("b", 9)]);
        let secrets: Vec<_> = record.secrets().collect();
        assert_eq!(secrets, [("s", 9)]);
    }

    #[test]
    fn a_fixed_password_is_counted_under_no_secret() {
        let mut record = UsageRecord::default();
        let fixed = Entry {
            secret: None,
            ..entry("cam", 3)
        };
        record.ended("2026-11", &fixed);
        record.living("2026-11", [fixed, entry("ann", 4)]);
        assert_eq!(record.total(), 10);
        assert_eq!(record.secrets().collect::<Vec<_>>(), [("s", 4)]);
    }

    /// 10,000 names of a moment hide nobody: neither who has used much, nor who has a fixed password.
    #[test]
    fn no_crowd_of_names_hides_a_user_from_its_budget() {
        let mut record = UsageRecord::default();
        let fixed = |bytes| Entry {
            secret: None,
            ..entry("cam", bytes)
        };
        record.ended("2026-11", &fixed(1));
        record.ended("2026-11", &entry("heavy", 100));
        for n in 0..MAX_NAMES + 50 {
            record.ended("2026-11", &entry(&n.to_string(), 2));
        }
        for _ in 0..10 {
            record.ended("2026-11", &entry("late", 10));
        }
        let mut again = UsageRecord::from_json(&record.to_json()).unwrap();
        for record in [&mut record, &mut again] {
            record.ended("2026-11", &entry("later", 3));
            let users: BTreeMap<_, _> = record.single_users().collect();
            let bytes = ["cam", "heavy", "late", "later"].map(|name| users[name]);
            assert_eq!(bytes, [1, 100, 100, 3]);
            assert!(users.len() <= MAX_NAMES + 1);
        }
    }

    #[test]
    fn what_was_warned_of_is_known_after_a_restart() {
        let mut record = UsageRecord::default();
        let accounts = || {
            let (user, secret) = (Account::User("a".into()), Account::Secret("a".into()));
            [Account::Box, user, secret]
        };
        record.ended("2026-11", &entry("a", 5));
        for (stage, account) in (1..).zip(accounts()) {
            assert!(record.reaches(&account, stage));
        }
        let mut again = UsageRecord::from_json(&record.to_json()).unwrap();
        for (stage, account) in (1..).zip(accounts()) {
            assert!(!again.reaches(&account, stage) && again.reaches(&account, stage + 1));
        }
    }

    #[test]
    fn names_are_bounded_and_nothing_is_lost() {
        let mut record = UsageRecord::default();
        for n in 0..MAX_NAMES + 50 {
            record.ended("2026-11", &entry(&n.to_string(), 1));
        }
        assert_eq!(record.users().count(), MAX_NAMES + 1);
        let total = MAX_NAMES as u64 + 50;
        assert_eq!(record.total(), total);
        let again = UsageRecord::from_json(&record.to_json()).unwrap();
        assert_eq!((again.total(), again.month.as_str()), (total, "2026-11"));
        assert_eq!(again.secrets().collect::<Vec<_>>(), [("s", total)]);
        let before = r#"{"month": "2026-11", "users": {"cam": 7}, "months": {}}"#;
        assert_eq!(UsageRecord::from_json(before).unwrap().total(), 7);
    }
}
