//! The networks that nodes of a cluster refuse in common: each change is noted for those that come later, with its
//! time, and the later one counts.

use super::{Denied, Lists, MAX_ADDED};
use crate::clock::{unix_now, unix_now_ms};
use crate::cluster::shell::Note;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// For how long it is known that a network was taken out, ms: a node that was away for longer starts anew.
const KNOWN: u64 = 24 * 3600 * 1000;

/// Has all nodes know something.
pub(in crate::app) type OnChange = Box<dyn Fn(Note) + Send + Sync>;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    network: IpNet,
    /// Unix milliseconds.
    at: u64,
    /// Whether the network was taken out.
    #[serde(default)]
    removed: bool,
    /// Unix seconds; `None`: for good.
    #[serde(default)]
    until: Option<u64>,
}

impl Change {
    /// Whether nobody needs to know it any more.
    fn is_over(&self, now_ms: u64) -> bool {
        match self.removed {
            true => self.at.saturating_add(KNOWN) < now_ms,
            false => (self.until).is_some_and(|until| until <= now_ms / 1000),
        }
    }

    fn note(&self) -> Note {
        Note {
            about: self.network.to_string(),
            text: serde_json::to_string(self).ok(),
        }
    }
}

impl Lists {
    pub(super) fn add(&mut self, network: IpNet, until: Option<u64>, at: u64) {
        self.added.insert(network, until);
        self.added_at.insert(network, at);
        self.removed_at.remove(&network);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, network: IpNet, at: u64) -> bool {
        self.added_at.remove(&network);
        if self.removed_at.len() >= MAX_ADDED
            && let Some((oldest, _)) = self.removed_at.iter().min_by_key(|(_, at)| **at)
        {
            let oldest = *oldest;
            self.removed_at.remove(&oldest);
        }
        self.removed_at.insert(network, at);
        self.added.remove(&network).is_some()
    }

    /// Takes out what was added until now; whether there was something.
    pub(super) fn end(&mut self, now: u64) -> bool {
        let before = self.added.len();
        self.added
            .retain(|_, until| until.is_none_or(|until| until > now));
        let Self {
            added, added_at, ..
        } = self;
        added_at.retain(|network, _| added.contains_key(network));
        before != self.added.len()
    }

    /// What is known of a network.
    fn change(&self, network: IpNet) -> Option<Change> {
        let added = self.added.get(&network).map(|until| Change {
            network,
            at: self.added_at.get(&network).copied().unwrap_or_default(),
            removed: false,
            until: *until,
        });
        let removed = || {
            let at = *self.removed_at.get(&network)?;
            Some(Change {
                network,
                at,
                removed: true,
                until: None,
            })
        };
        added.or_else(removed)
    }

    /// Takes over changes that are later than what is known; returns whether the list has changed, and what is to be
    /// noted: what others do not know, and that which is over.
    fn merge(&mut self, changes: Vec<Change>, now_ms: u64) -> (bool, Vec<Note>) {
        let (mut changed, mut notes) = (false, vec![]);
        let networks = self.added.keys().chain(self.removed_at.keys()).copied();
        let mut lacking: std::collections::BTreeSet<IpNet> = networks.collect();
        for change in changes {
            let own = self.change(change.network);
            if own.as_ref().is_none_or(|own| own.at <= change.at) {
                lacking.remove(&change.network);
            }
            if change.is_over(now_ms) {
                notes.push(Note {
                    about: change.network.to_string(),
                    text: None,
                });
                continue;
            }
            if own.is_some_and(|own| own.at >= change.at) {
                continue;
            }
            if change.removed {
                changed |= self.remove(change.network, change.at);
            } else if self.added.len() < MAX_ADDED || self.added.contains_key(&change.network) {
                self.add(change.network, change.until, change.at);
                changed = true;
            }
        }
        let lacking = lacking
            .into_iter()
            .filter_map(|network| self.change(network));
        let lacking = lacking.filter(|change| !change.is_over(now_ms));
        notes.extend(lacking.map(|change| change.note()));
        (changed, notes)
    }
}

impl Denied {
    /// Has other nodes know each change from here on.
    pub(in crate::app) fn on_change(&self, on_change: OnChange) {
        let _ = self.on_change.set(on_change);
    }

    /// Has other nodes know the last change of a network.
    pub(super) fn say(&self, network: IpNet) {
        let change = self.lists().change(network);
        if let (Some(on_change), Some(change)) = (self.on_change.get(), change) {
            on_change(change.note());
        }
    }

    /// Learns what all nodes know; returns what is to be noted beside.
    pub(in crate::app) fn learn(&self, texts: &[String]) -> Vec<Note> {
        let changes = texts
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok());
        let (changed, notes) = self.lists().merge(changes.collect(), unix_now_ms());
        // What was added for a time that is over is not applied.
        let ended = self.lists().end(unix_now());
        if changed || ended {
            self.apply();
            self.changed.notify_one();
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(host: u8) -> IpNet {
        format!("203.0.113.{host}/32").parse().unwrap()
    }

    fn read(notes: &[Note]) -> Vec<Change> {
        let texts = notes.iter().filter_map(|note| note.text.as_deref());
        texts
            .map(|text| serde_json::from_str(text).unwrap())
            .collect()
    }

    #[test]
    fn the_later_change_counts_wherever_it_was_made() {
        let (mut a, mut b) = (Lists::default(), Lists::default());
        a.add(network(1), None, 1_000);
        a.add(network(2), None, 1_000);
        // b learns both, in an empty store.
        let (changed, notes) = a.merge(vec![], 2_000);
        assert!(!changed && notes.len() == 2);
        let (changed, lacking) = b.merge(read(&notes), 2_000);
        assert!(changed && lacking.is_empty() && b.added == a.added);
        // It was away while a took one out, and has taken out the other meanwhile.
        assert!(a.remove(network(1), 3_000));
        assert!(b.remove(network(2), 3_001));
        let store = read(&a.merge(vec![], 4_000).1);
        let (changed, lacking) = b.merge(store, 4_000);
        assert!(changed && b.added.is_empty());
        let (changed, rest) = a.merge(read(&lacking), 4_000);
        assert!(changed && a.added.is_empty());
        assert_eq!(read(&lacking).len(), 1);
        // The store has the removal of 2 alone there, so that of 1 is noted again.
        assert_eq!(read(&rest)[0].network, network(1));
    }

    #[test]
    fn what_is_over_is_taken_out_of_the_store() {
        let mut lists = Lists::default();
        let change = |removed, until, at| Change {
            network: network(1),
            at,
            removed,
            until,
        };
        let now = 10 * KNOWN;
        for over in [
            change(false, Some(now / 1000 - 1), now - 9_000),
            change(true, None, 5),
        ] {
            let (changed, notes) = lists.merge(vec![over], now);
            assert!(!changed && lists.added.is_empty());
            assert!(notes.len() == 1 && notes[0].text.is_none(), "{notes:?}");
        }
        let (changed, notes) = lists.merge(vec![change(false, None, now)], now);
        assert!(changed && notes.is_empty() && lists.added.contains_key(&network(1)));
    }
}
