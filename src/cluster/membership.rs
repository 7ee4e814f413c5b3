//! Who lives: beats of the own node, the watch over the others, and the lease that the gate goes by.
//!
//! Nobody's clock is compared with another's. A node counts its beats in Redis; the others see the
//! count stand still and bury it, which is never undone. Its own lease ends before that, so that a
//! node which was stopped finds its gate shut when it wakes. Pure: times and answers in, what is to
//! be done out. The times are of a clock that counts a suspended machine in.

use super::Incarnation;
use super::store::memory;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time between beats.
pub const BEAT: Duration = Duration::from_secs(2);
/// By how much the own lease ends before others may bury this node.
const MARGIN: Duration = Duration::from_secs(2);
/// Own beats in a row over which a count stands still before its node is buried.
const LOOKS: u32 = 5;
/// How long the gate stays shut where a node serves on without Redis.
const ISOLATION: Duration = Duration::from_secs(1);
/// Own beats further apart than this were an outage of one's own, which excuses the others.
const OUTAGE: Duration = Duration::from_secs(5);

/// What a node does without Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolated {
    /// It serves the rooms that it has.
    Serve,
    /// It closes its sessions.
    Stop,
}

/// Whether inputs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The lease holds.
    Open,
    /// It has ended: nothing is taken until the next answer of Redis.
    Shut,
    /// It has ended and Redis does not answer; the node serves all the same.
    Isolated,
}

/// What Redis answers to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The store's memory.
    pub mark: Vec<u8>,
    /// The own count; 0: buried.
    pub count: u64,
    /// The counts of all nodes.
    pub counts: BTreeMap<Incarnation, u64>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Buries a node if its count is still that one, in the memory of that mark; then
    /// [`Membership::buried`].
    Bury(Incarnation, u64, Vec<u8>),
    /// Others have buried this node: it begins anew, and its rooms are asked for.
    Reborn,
    /// Redis has another memory than before: everything is written again.
    Forgotten,
}

/// Another node, as it is watched.
#[derive(Debug, Clone, Copy)]
struct Watch {
    count: u64,
    /// When that count was first seen, and in how many answers since.
    since: Instant,
    looks: u32,
}

/// The state of membership.
#[derive(Debug)]
pub struct Membership {
    me: Incarnation,
    lease: Duration,
    isolated: Isolated,
    /// When the last answered beat was sent; `None` before the first.
    held_from: Option<Instant>,
    next_beat: Instant,
    /// Since when the lease is known to have ended, and whether a beat has failed since.
    lapsed: Option<(Instant, bool)>,
    /// When the last beat was answered.
    answered: Option<Instant>,
    mark: Option<Vec<u8>>,
    watches: BTreeMap<Incarnation, Watch>,
}

impl Membership {
    /// Starts; the first beat is due at once.
    pub fn new(me: Incarnation, lease: Duration, isolated: Isolated, now: Instant) -> Self {
        Self {
            me,
            lease,
            isolated,
            held_from: None,
            next_beat: now,
            lapsed: None,
            answered: None,
            mark: None,
            watches: BTreeMap::new(),
        }
    }

    /// The own incarnation.
    pub fn me(&self) -> Incarnation {
        self.me
    }

    /// What the next beat says that this node knows: the store's memory in which it has registered.
    pub fn mark(&self) -> Option<&[u8]> {
        self.mark.as_deref().filter(|_| self.held_from.is_some())
    }

    /// When the next beat is to be sent.
    pub fn next_beat(&self) -> Instant {
        self.next_beat
    }

    /// The other nodes of the last answer.
    pub fn others(&self) -> impl Iterator<Item = Incarnation> {
        self.watches.keys().copied()
    }

    /// What is left of the lease.
    pub fn lease_left(&self, now: Instant) -> Duration {
        self.lease_end()
            .map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
    }

    fn lease_end(&self) -> Option<Instant> {
        self.held_from.map(|sent| sent + (self.lease - MARGIN))
    }

    /// A beat was sent.
    pub fn sent(&mut self, now: Instant) {
        self.next_beat = now + BEAT;
    }

    /// A beat that was sent at `sent` has got no answer.
    pub fn failed(&mut self, sent: Instant) {
        if let Some((since, failed)) = &mut self.lapsed {
            *failed |= sent >= *since;
        }
    }

    /// A beat that was sent at `sent` was answered.
    pub fn answered(&mut self, sent: Instant, now: Instant, beat: Beat, acts: &mut Vec<Act>) {
        let before = self.mark.replace(beat.mark.clone());
        let forgotten = before.is_some_and(|before| memory(&before) != memory(&beat.mark));
        if forgotten {
            self.watches.clear();
            acts.push(Act::Forgotten);
        }
        // Whether a node without a lease was buried is forgotten as well.
        if beat.count == 0 || (forgotten && self.lease_left(now) == Duration::ZERO) {
            acts.push(Act::Reborn);
            return;
        }
        self.held_from = self.held_from.max(Some(sent));
        if self.lease_left(now) > Duration::ZERO {
            self.lapsed = None;
        }
        let steady = self.answered.is_some_and(|before| now < before + OUTAGE);
        self.answered = Some(now);
        self.watches
            .retain(|node, _| beat.counts.contains_key(node));
        for (node, count) in beat.counts {
            if node == self.me {
                continue;
            }
            let fresh = Watch {
                count,
                since: now,
                looks: 0,
            };
            let watch = self.watches.entry(node).or_insert(fresh);
            if watch.count != count || !steady {
                *watch = fresh;
                continue;
            }
            watch.looks += 1;
            if watch.looks >= LOOKS && now >= watch.since + self.lease {
                acts.push(Act::Bury(node, count, beat.mark.clone()));
            }
        }
    }

    /// A node is buried.
    pub fn buried(&mut self, node: Incarnation) {
        self.watches.remove(&node);
    }

    /// Begins anew under another incarnation, which registers with the next beat.
    pub fn reborn(&mut self, me: Incarnation, now: Instant) {
        *self = Self {
            mark: self.mark.take(),
            lapsed: self.lapsed,
            ..Self::new(me, self.lease, self.isolated, now)
        };
    }

    /// Whether inputs may be taken now; asked before each of them. A node that never had a lease
    /// takes none.
    pub fn gate(&mut self, now: Instant) -> Gate {
        if self.lease_end().is_some_and(|end| now < end) {
            return Gate::Open;
        }
        let (since, failed) = *self.lapsed.get_or_insert((now, false));
        // A node that has just woken has not tried yet: others may have its rooms.
        let served = self.isolated == Isolated::Serve && self.mark.is_some();
        match served && failed && now >= since + ISOLATION {
            true => Gate::Isolated,
            false => Gate::Shut,
        }
    }
}

#[cfg(test)]
mod tests;
