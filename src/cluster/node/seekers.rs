//! Connections that wait until it is known where a room is.

use super::super::Incarnation;
use super::super::ownership::Key;
use super::{Effect, Node};
use crate::protocol::Locator;
use crate::signal::hub::ConnId;
use crate::signal::{Found, Sought, Word};
use std::time::Instant;

/// Connections that wait at most; with more, the next ones come again later.
const MAX_SEEKERS: usize = 65_536;

impl Node {
    /// Whether nobody else may wait.
    pub(super) fn has_many_seekers(&self) -> bool {
        self.rooms.waits.len() >= MAX_SEEKERS
    }

    pub(super) fn wait(&mut self, key: &Key, conn: ConnId, sought: Sought) {
        if self.rooms.waits.get(&conn) != Some(key) {
            self.unsought(conn);
        }
        self.rooms.waits.insert(conn, Key::clone(key));
        let seekers = self.rooms.seekers.entry(Key::clone(key)).or_default();
        seekers.retain(|(other, _)| *other != conn);
        seekers.push((conn, sought));
    }

    /// A connection waits no more.
    pub(super) fn unsought(&mut self, conn: ConnId) {
        self.rooms.again.retain(|(other, _)| *other != conn);
        let Some(key) = self.rooms.waits.remove(&conn) else {
            return;
        };
        let is_last = self.rooms.seekers.get_mut(&key).is_some_and(|seekers| {
            seekers.retain(|(other, _)| *other != conn);
            seekers.is_empty()
        });
        if is_last {
            self.rooms.seekers.remove(&key);
            // What is asked may be answered to nobody, and a node that leaves has to give it back.
            if !self.giving && !self.rooms.held.contains_key(&key) {
                self.ownership.unwanted(&key);
            }
            self.forget_name(&key);
        }
    }

    pub(super) fn found(&mut self, key: &Key, found: Found, effects: &mut Vec<Effect>) {
        for (conn, _) in self.rooms.seekers.remove(key).unwrap_or_default() {
            self.rooms.waits.remove(&conn);
            effects.push(Effect::Found(conn, found));
        }
    }

    pub(super) fn forget_name(&mut self, key: &Key) {
        if self.ownership.epoch(key).is_none() && !self.rooms.seekers.contains_key(key) {
            self.rooms.names.remove(key);
        }
    }

    /// Whether Redis has yet to say that a room of this node is over, or still is this node's.
    pub(super) fn is_unsure(&self, key: &Key) -> bool {
        self.rooms.is_ending(key) || self.ownership.is_asserting(key)
    }

    /// Keeps a connection of another node that wants a room, until it is known whose that is.
    pub(super) fn hold(&mut self, key: Key, from: Incarnation, vconn: u64, place: Locator) {
        let held = self.rooms.held.entry(key).or_default();
        held.push((from, vconn, place));
    }

    /// It may be known: who waits at other nodes seeks the room again.
    pub(super) fn release(&mut self, now: Instant, key: &Key, effects: &mut Vec<Effect>) {
        if self.is_unsure(key) || self.ownership.is_sought(key) {
            return;
        }
        for (to, vconn, place) in self.rooms.held.remove(key).unwrap_or_default() {
            self.say(now, to, &Word::Astray { vconn, place }, effects);
        }
    }
}
