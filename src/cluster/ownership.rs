//! Who owns which room: what is claimed, kept, taken over and yielded.
//!
//! Redis has the last word. A claim is the only way in which a room changes hands; a save that Redis
//! refuses is the sign that it has. Pure: answers of Redis in, commands and outcomes out.

use super::Incarnation;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Ways to rooms of others that are remembered; a way that is forgotten costs one claim.
const MAX_WAYS: usize = 100_000;

/// Beats in which every room is renewed once, which is within an hour.
const RENEWAL: usize = 1_800;

/// What stands for a room in Redis.
pub type Key = std::sync::Arc<str>;

/// Fields of a room's record beside owner and epoch, by name.
pub type Fields = BTreeMap<String, Vec<u8>>;

/// What Redis is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The script `claim`; its answer comes to [`Ownership::claimed`].
    Claim {
        /// Names the claim in its answer.
        ticket: u64,
        /// For whom.
        me: Incarnation,
        /// The room.
        room: Key,
        /// Whose it may be: a buried node, or an earlier incarnation of this one.
        expected: Option<Incarnation>,
    },
    /// All fields of a room are to be saved anew.
    SaveAll(Key),
}

/// What an answer means for the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This node is the room's home from here on; the fields are what its last home has saved.
    Home(Key, Fields),
    /// Another node is.
    Away(Key, Incarnation),
    /// This node was, and another one is: the room is dropped without a word.
    Yield(Key, Incarnation),
}

/// What the script `claim` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The room is the asker's.
    Mine {
        /// What saves have to name.
        epoch: u64,
        /// Whether it was before.
        already: bool,
        /// Its record.
        fields: Fields,
    },
    /// It is another one's.
    Theirs(Incarnation),
}

/// Where a room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Here.
    Home,
    /// At another node.
    Away(Incarnation),
    /// Redis was asked, or will be once the nodes have settled; the answer is an [`Outcome`].
    Sought,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own {
    epoch: u64,
    /// Whether Redis is being asked whether it still is.
    asserting: bool,
}

/// A claim that Redis has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    ticket: u64,
    /// Whose the room may be.
    expected: Option<Incarnation>,
    /// Whether it is asked again where Redis does not answer.
    is_wanted: bool,
}

/// The time after Redis has forgotten, in which each node writes its rooms again.
#[derive(Debug, Clone)]
struct Settling {
    until: Instant,
    waits_for: BTreeSet<Incarnation>,
    /// Rooms that somebody wants meanwhile.
    wanted: BTreeSet<Key>,
}

/// The table of rooms.
#[derive(Debug, Clone)]
pub struct Ownership {
    me: Incarnation,
    own: BTreeMap<Key, Own>,
    ways: BTreeMap<Key, Incarnation>,
    /// Rooms about which Redis is being asked.
    sought: BTreeMap<Key, Asked>,
    next_ticket: u64,
    settling: Option<Settling>,
    /// The room that was renewed last, and the share of a room that is due with the next beat.
    renewed: Option<Key>,
    share: usize,
}

impl Ownership {
    /// Starts without rooms.
    pub fn new(me: Incarnation) -> Self {
        Self {
            me,
            own: BTreeMap::new(),
            ways: BTreeMap::new(),
            sought: BTreeMap::new(),
            next_ticket: 0,
            settling: None,
            renewed: None,
            share: 0,
        }
    }

    /// The rooms of this node.
    pub fn own(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.own.keys()
    }

    /// What a save of a room has to name; `None` where it is not this node's.
    pub fn epoch(&self, room: &str) -> Option<u64> {
        self.own.get(room).map(|own| own.epoch)
    }

    /// Finds the home of a room; asks Redis where that is not known.
    pub fn seek(&mut self, room: &Key, commands: &mut Vec<Command>) -> Way {
        if self.own.contains_key(room) {
            return Way::Home;
        }
        if let Some(owner) = self.ways.get(room) {
            return Way::Away(*owner);
        }
        if let Some(settling) = &mut self.settling {
            settling.wanted.insert(Key::clone(room));
            return Way::Sought;
        }
        self.claim(room, None, commands);
        Way::Sought
    }

    fn claim(&mut self, room: &Key, expected: Option<Incarnation>, commands: &mut Vec<Command>) {
        let room = Key::clone(room);
        if let Some(asked) = self.sought.get_mut(&room) {
            asked.is_wanted = true;
            return;
        }
        let (ticket, me) = (self.next_ticket, self.me);
        self.next_ticket += 1;
        let asked = Asked {
            ticket,
            expected,
            is_wanted: true,
        };
        self.sought.insert(Key::clone(&room), asked);
        commands.push(Command::Claim {
            ticket,
            me,
            room,
            expected,
        });
    }

    /// Redis has answered a claim. A failed connection answers nothing: [`Self::reconnected`] asks
    /// again, and what was asked before is of no interest any more.
    pub fn claimed(
        &mut self,
        ticket: u64,
        room: &Key,
        answer: Claimed,
        commands: &mut Vec<Command>,
        outcomes: &mut Vec<Outcome>,
    ) {
        if self
            .sought
            .get(room)
            .is_none_or(|asked| asked.ticket != ticket)
        {
            return;
        }
        self.sought.remove(room);
        let before = self.own.remove(room);
        match answer {
            Claimed::Mine {
                epoch,
                already,
                fields,
            } => {
                let asserting = false;
                let own = Own { epoch, asserting };
                self.own.insert(Key::clone(room), own);
                self.ways.remove(room);
                match before {
                    // Taken by nobody, but perhaps forgotten, or with less than was saved.
                    Some(before) if !already || before.asserting => {
                        commands.push(Command::SaveAll(Key::clone(room)));
                    }
                    Some(_) => {}
                    None => outcomes.push(Outcome::Home(Key::clone(room), fields)),
                }
            }
            Claimed::Theirs(owner) => {
                if self.ways.len() >= MAX_WAYS {
                    self.ways.pop_first();
                }
                self.ways.insert(Key::clone(room), owner);
                outcomes.push(match before {
                    Some(_) => Outcome::Yield(Key::clone(room), owner),
                    None => Outcome::Away(Key::clone(room), owner),
                });
            }
        }
    }

    /// Redis has refused a save: the room is another's, or Redis has lost it.
    pub fn fenced(&mut self, room: &Key, commands: &mut Vec<Command>) {
        if let Some(own) = self.own.get_mut(room) {
            own.asserting = true;
            self.claim(room, None, commands);
        }
    }

    /// A claim was refused, as what is in the room's place is not its record. Returns whether the room
    /// was this node's.
    pub fn unclaimable(&mut self, ticket: u64, room: &Key) -> bool {
        let asked = (self.sought.get(room)).is_some_and(|asked| asked.ticket == ticket);
        if asked {
            self.sought.remove(room);
        }
        asked && self.own.remove(room).is_some()
    }

    /// Claims the next of the own rooms, so that Redis keeps their records. Called with each beat.
    pub fn renew(&mut self, commands: &mut Vec<Command>) {
        self.share += self.own.len();
        while self.share >= RENEWAL {
            self.share -= RENEWAL;
            let behind = |room: &Key| {
                let from = (Bound::Excluded(Key::clone(room)), Bound::Unbounded);
                Some(Key::clone(self.own.range(from).next()?.0))
            };
            let next = self.renewed.as_ref().and_then(behind);
            let Some(next) = next.or_else(|| self.own.keys().next().cloned()) else {
                return;
            };
            self.claim(&next, Some(self.me), commands);
            self.renewed = Some(next);
        }
    }

    /// A room has no members left, or was given up.
    pub fn ended(&mut self, room: &str) {
        self.own.remove(room);
    }

    /// Rooms are known under other keys from here on; those that have none are no longer known.
    /// What is sought is forgotten.
    pub fn rename(&mut self, renamed: &BTreeMap<Key, Key>) {
        let own = std::mem::take(&mut self.own);
        let renamed = |(key, own)| Some((Key::clone(renamed.get(&key)?), own));
        self.own = own.into_iter().filter_map(renamed).collect();
        self.ways.clear();
        self.sought.clear();
        if let Some(settling) = &mut self.settling {
            settling.wanted.clear();
        }
    }

    /// Somebody has said that a room has another home, or that a node is not the home of a room.
    pub fn moved(&mut self, room: &str) {
        self.ways.remove(room);
    }

    /// A node is buried: the ways to it end, and those of its rooms that this node `wants` are
    /// claimed.
    pub fn buried(
        &mut self,
        node: Incarnation,
        wants: impl Fn(&Key) -> bool,
        commands: &mut Vec<Command>,
    ) {
        let lost: Vec<_> = (self.ways.iter())
            .filter(|(_, owner)| **owner == node)
            .map(|(room, _)| Key::clone(room))
            .collect();
        for room in lost {
            self.ways.remove(&room);
            if wants(&room) {
                self.claim(&room, Some(node), commands);
            }
        }
        if let Some(settling) = &mut self.settling {
            settling.waits_for.remove(&node);
        }
    }

    /// A way has led to a buried node that Redis still names as owner: the room is claimed from it.
    pub fn inherit(&mut self, room: &Key, from: Incarnation, commands: &mut Vec<Command>) {
        self.ways.remove(room);
        self.claim(room, Some(from), commands);
    }

    /// This node was buried and begins anew: each of its rooms is asked for, and each that it may
    /// have become the home of meanwhile.
    pub fn reborn(&mut self, me: Incarnation, commands: &mut Vec<Command>) {
        let before = std::mem::replace(&mut self.me, me);
        let sought = std::mem::take(&mut self.sought);
        self.assert_all(Some(before), commands);
        for room in sought.into_keys() {
            self.claim(&room, Some(before), commands);
        }
    }

    /// Redis answers again on another connection, perhaps one with an older memory: all rooms are
    /// asserted, and what was not answered is asked again.
    pub fn reconnected(&mut self, commands: &mut Vec<Command>) {
        let sought = std::mem::take(&mut self.sought);
        self.assert_all(Some(self.me), commands);
        for (room, asked) in sought {
            if asked.is_wanted {
                self.claim(&room, asked.expected, commands);
            }
        }
    }

    /// Nobody wants a room any more that is being sought: it is not sought again where Redis does not
    /// answer. What Redis answers counts all the same.
    pub fn unwanted(&mut self, room: &str) {
        if let Some(asked) = self.sought.get_mut(room) {
            asked.is_wanted = self.own.contains_key(room);
        }
        if let Some(settling) = &mut self.settling {
            settling.wanted.remove(room);
        }
    }

    /// Whether a claim that was not made yet is still to be made; it is forgotten otherwise.
    pub fn is_wanted(&mut self, ticket: u64, room: &str) -> bool {
        let is_asked = |asked: &&Asked| asked.ticket == ticket;
        match self.sought.get(room).filter(is_asked) {
            Some(asked) if asked.is_wanted => true,
            Some(_) => {
                self.sought.remove(room);
                false
            }
            None => true,
        }
    }

    fn assert_all(&mut self, expected: Option<Incarnation>, commands: &mut Vec<Command>) {
        let own: Vec<_> = self.own.keys().map(Key::clone).collect();
        for room in own {
            if let Some(own) = self.own.get_mut(&room) {
                own.asserting = true;
            }
            self.sought.remove(&room);
            self.claim(&room, expected, commands);
        }
    }

    /// Redis has forgotten everything: this node's rooms are written again, and rooms that it does
    /// not know wait until the others have done so, `lease` at most.
    pub fn forgotten(
        &mut self,
        now: Instant,
        lease: Duration,
        others: impl Iterator<Item = Incarnation>,
        commands: &mut Vec<Command>,
    ) {
        self.ways.clear();
        // Another node may be about to write what is sought.
        let sought = std::mem::take(&mut self.sought).into_keys();
        let wanted = sought.filter(|room| !self.own.contains_key(room)).collect();
        self.settling = Some(Settling {
            until: now + lease,
            waits_for: others.collect(),
            wanted,
        });
        self.reconnected(commands);
    }

    /// Whether Redis is being asked whether a room still is this node's.
    pub fn is_asserting(&self, room: &str) -> bool {
        self.own.get(room).is_some_and(|own| own.asserting)
    }

    /// Whether Redis has yet to say whose a room is.
    pub fn is_sought(&self, room: &str) -> bool {
        let settling = self.settling.as_ref();
        self.sought.contains_key(room)
            || settling.is_some_and(|settling| settling.wanted.contains(room))
    }

    /// A claim is not made after all.
    pub fn forget_claim(&mut self, ticket: u64, room: &str) {
        if (self.sought.get(room)).is_some_and(|asked| asked.ticket == ticket) {
            self.sought.remove(room);
        }
    }

    /// Whether Redis has yet to answer claims: each may make this node the home of a room.
    pub fn is_claiming(&self) -> bool {
        !self.sought.is_empty()
    }

    /// No room is wanted any more, as this node leaves; what was asked is asked again until Redis answers.
    pub fn leave(&mut self) {
        self.settling = None;
        for asked in self.sought.values_mut() {
            asked.is_wanted = true;
        }
    }

    /// Whether this node has written all of its rooms again.
    pub fn has_settled(&self) -> bool {
        self.own.values().all(|own| !own.asserting)
    }

    /// Another node has written all of its rooms again.
    pub fn settled(&mut self, node: Incarnation, now: Instant, commands: &mut Vec<Command>) {
        if let Some(settling) = &mut self.settling {
            settling.waits_for.remove(&node);
        }
        self.handle_timeout(now, commands);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.settling.as_ref().map(|settling| settling.until)
    }

    /// Ends the wait for others that has lasted long enough.
    pub fn handle_timeout(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let over = |s: &mut Settling| s.waits_for.is_empty() || now >= s.until;
        if let Some(settling) = self.settling.take_if(over) {
            for room in settling.wanted {
                if !self.own.contains_key(&room) {
                    self.claim(&room, None, commands);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
