//! What of rooms is to be saved, and what Redis answers.

use super::super::ownership::Fields;
use super::super::redis::Save;
use super::super::seal::NONCE_LEN;
use super::super::store::Fate;
use super::rooms::{IMAGE, Unsaved, image_place};
use super::{Effect, Key, Node, Record};
use rand::RngExt;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

/// Rooms of one save, so that none is larger than an answer may take.
const MAX_SAVES: usize = 1_000;

impl Node {
    /// Takes what has changed, unless something is being saved.
    pub(super) fn take(&mut self, effects: &mut Vec<Effect>) {
        let rooms = &mut self.rooms;
        let busy = rooms.taking || rooms.saving.is_some() || self.membership.mark().is_none();
        if !rooms.changed || busy {
            return;
        }
        rooms.changed = false;
        rooms.taking = true;
        let fresh = mem::take(&mut rooms.fresh).into_iter().collect();
        let gives = self.giving;
        self.handing |= gives;
        effects.push(Effect::Take { fresh, gives });
    }

    pub(super) fn taken(&mut self, records: Vec<Record>, effects: &mut Vec<Effect>) {
        self.rooms.taking = false;
        for record in records {
            let Some(key) = self.room_key(Some(&record.room)) else {
                continue;
            };
            let nothing = record.exists && record.fields.is_empty();
            if nothing || self.ownership.epoch(&key).is_none() {
                continue;
            }
            let names = &mut self.rooms.names;
            names.insert(Key::clone(&key), Arc::clone(&record.room));
            let waiting = self.rooms.unsaved.get(&key);
            if record.exists && waiting.is_some_and(|unsaved| !unsaved.exists) {
                // Its end comes first, so that nothing is left of the room before; then all of it is saved.
                self.rooms.revived.insert(key);
                continue;
            }
            let unsaved = self.rooms.unsaved.entry(key).or_default();
            unsaved.exists = record.exists;
            // What was taken before has no image.
            unsaved.gives |= self.handing && record.exists;
            match record.exists {
                true => unsaved.fields.extend(record.fields),
                false => unsaved.fields.clear(),
            }
        }
        self.save(effects);
    }

    pub(super) fn save(&mut self, effects: &mut Vec<Effect>) {
        if self.rooms.saving.is_some() {
            return;
        }
        let (mut saves, mut images) = (vec![], vec![]);
        let mut saving = vec![];
        let all = mem::take(&mut self.rooms.unsaved);
        for (key, unsaved) in all {
            if saves.len() >= MAX_SAVES {
                self.rooms.changed = true;
                self.rooms.unsaved.insert(key, unsaved);
                continue;
            }
            let Some(epoch) = self.ownership.epoch(&key) else {
                continue;
            };
            let (mut set, mut removed) = (Fields::new(), vec![]);
            for (field, value) in &unsaved.fields {
                match value {
                    Some(text) => {
                        let nonce: [u8; NONCE_LEN] = self.rng.random();
                        match field == IMAGE {
                            true => {
                                let given = epoch.to_be_bytes();
                                let place = image_place(&key, &given);
                                let sealed = self.records.seal(nonce, &place, text);
                                images.push((Key::clone(&key), sealed));
                            }
                            false => {
                                let place: [&[u8]; 2] = [key.as_bytes(), field.as_bytes()];
                                let sealed = self.records.seal(nonce, &place, text);
                                set.insert(field.clone(), sealed);
                            }
                        }
                    }
                    None => removed.push(field.clone()),
                }
            }
            saves.push(Save {
                room: Key::clone(&key),
                epoch,
                fate: match unsaved.exists {
                    true if unsaved.gives => Fate::Give,
                    true => Fate::Keep,
                    false => Fate::End,
                },
                set,
                removed,
            });
            saving.push((key, unsaved));
        }
        if !saves.is_empty() {
            self.rooms.saving = Some(saving);
            let me = self.me;
            effects.push(Effect::Save { me, saves, images });
        } else {
            self.take(effects);
        }
    }

    pub(super) fn saved(
        &mut self,
        now: Instant,
        answer: Option<Vec<bool>>,
        effects: &mut Vec<Effect>,
    ) {
        let saving = self.rooms.saving.take().unwrap_or_default();
        let Some(answers) = answer else {
            // Tried again with the next beat that is answered; what is newer counts.
            for (key, before) in saving {
                let newer = self.rooms.unsaved.remove(&key);
                let both = match newer {
                    Some(newer) if newer.exists && !before.exists => {
                        self.rooms.revived.insert(Key::clone(&key));
                        before
                    }
                    Some(newer) if newer.exists => {
                        let mut fields = before.fields;
                        fields.extend(newer.fields);
                        Unsaved { fields, ..newer }
                    }
                    Some(newer) => newer,
                    None => before,
                };
                self.rooms.unsaved.insert(key, both);
            }
            self.rooms.changed = true;
            return;
        };
        let mut commands = vec![];
        for ((key, unsaved), is_mine) in saving.into_iter().zip(answers) {
            match (is_mine, unsaved.exists) {
                (true, true) if unsaved.gives => {
                    self.ownership.ended(&key);
                    self.rooms.handovers += 1;
                    if let Some(name) = self.rooms.names.remove(&key) {
                        effects.push(Effect::Yield(name));
                    }
                    self.release(now, &key, effects);
                }
                (true, true) => {}
                (true, false) if !self.rooms.revived.remove(&key) => {
                    self.ownership.ended(&key);
                    self.forget_name(&key);
                    if self.rooms.seekers.contains_key(&key) && !self.giving {
                        // Another node may be faster.
                        self.ownership.seek(&key, &mut commands);
                    }
                    self.release(now, &key, effects);
                }
                _ => self.ownership.fenced(&key, &mut commands),
            }
        }
        self.command(commands, effects);
        if !self.rooms.unsaved.is_empty() {
            self.save(effects);
        }
        self.take(effects);
    }
}
