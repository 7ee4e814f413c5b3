//! The scripts, as they are meant: what Redis is compared with, and what simulations run against.

use super::super::Incarnation;
use super::super::membership::Beat;
use super::super::ownership::{Claimed, Fields};
use super::memory;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
struct Record {
    owner: Option<Incarnation>,
    epoch: u64,
    fields: Fields,
}

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    mark: Option<Vec<u8>>,
    nodes: BTreeMap<Incarnation, u64>,
    rooms: BTreeMap<String, Record>,
}

impl Model {
    pub(crate) fn beat(&mut self, me: Incarnation, known: Option<&[u8]>, drawn: &[u8]) -> Beat {
        let is_anew = |mark: &Vec<u8>| known == Some(mark) && memory(mark) == memory(drawn);
        if self.mark.as_ref().is_none_or(is_anew) {
            self.mark = Some(drawn.to_vec());
        }
        let mark = self.mark.clone().unwrap_or_default();
        let mut count = 0;
        if known.map(memory) != Some(memory(&mark)) || self.nodes.contains_key(&me) {
            let entry = self.nodes.entry(me).or_insert(0);
            *entry += 1;
            count = *entry;
        }
        Beat {
            mark,
            count,
            counts: self.nodes.clone(),
        }
    }

    pub(crate) fn bury(&mut self, node: Incarnation, seen: u64, mark: &[u8]) -> bool {
        if self.mark.as_deref().map(memory) != Some(memory(mark)) {
            return false;
        }
        match self.nodes.get(&node) {
            Some(count) if *count != seen => false,
            _ => {
                self.nodes.remove(&node);
                true
            }
        }
    }

    pub(crate) fn count(&self, node: Incarnation) -> Option<u64> {
        self.nodes.get(&node).copied()
    }

    /// Takes a node that leaves in order out of the list.
    pub(crate) fn leave(&mut self, node: Incarnation) {
        self.nodes.remove(&node);
    }

    /// A room's record goes, without a look at its home.
    pub(crate) fn lose(&mut self, room: &str) -> bool {
        self.rooms.remove(room).is_some()
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &String> {
        self.rooms.keys()
    }

    pub(crate) fn lives(&self, node: Incarnation) -> bool {
        self.nodes.contains_key(&node)
    }

    pub(crate) fn claim(
        &mut self,
        room: &str,
        me: Incarnation,
        expected: Option<Incarnation>,
    ) -> Claimed {
        let record = self.rooms.entry(room.to_owned()).or_default();
        let already = record.owner == Some(me);
        match record.owner {
            Some(owner) if !already && Some(owner) != expected => return Claimed::Theirs(owner),
            _ => {}
        }
        if !already {
            record.owner = Some(me);
            record.epoch += 1;
        }
        Claimed::Mine {
            epoch: record.epoch,
            already,
            fields: record.fields.clone(),
        }
    }

    pub(crate) fn save(
        &mut self,
        room: &str,
        me: Incarnation,
        epoch: u64,
        set: Fields,
        removed: &[String],
    ) -> bool {
        if !self.is_owned(room, me, epoch) {
            return false;
        }
        if let Some(record) = self.rooms.get_mut(room) {
            record.fields.extend(set);
            record.fields.retain(|field, _| !removed.contains(field));
        }
        true
    }

    pub(crate) fn end(&mut self, room: &str, me: Incarnation, epoch: u64) -> bool {
        self.is_owned(room, me, epoch) && self.rooms.remove(room).is_some()
    }

    pub(crate) fn give(&mut self, room: &str, me: Incarnation, epoch: u64) -> bool {
        let is_owned = self.is_owned(room, me, epoch);
        if is_owned && let Some(record) = self.rooms.get_mut(room) {
            record.owner = None;
        }
        is_owned
    }

    pub(crate) fn is_owned(&self, room: &str, me: Incarnation, epoch: u64) -> bool {
        let record = self.rooms.get(room);
        record.is_some_and(|record| (record.owner, record.epoch) == (Some(me), epoch))
    }

    pub(crate) fn owner(&self, room: &str) -> Option<Incarnation> {
        self.rooms.get(room)?.owner
    }

    pub(crate) fn fields(&self, room: &str) -> Fields {
        let record = self.rooms.get(room);
        record.map_or_else(Fields::new, |record| record.fields.clone())
    }
}
