//! Who waits for which room, and what of rooms is to be saved.

use super::super::Incarnation;
use super::super::ownership::{Claimed, Fields, Key, Outcome, Way};
use super::super::redis::Save;
use super::super::seal::NONCE_LEN;
use super::super::store::Fate;
use super::{Effect, Node, PEOPLE, Record, hex};
use crate::signal::hub::ConnId;
use crate::signal::{Found, NodeId, Sought};
use rand::RngExt;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

/// Rooms of one save, so that none is larger than an answer may take.
const MAX_SAVES: usize = 1_000;
/// The field of a room's settings.
pub const SETTINGS: &str = "s";
/// What stands for the image of a room among its fields; it is kept beside them.
pub const IMAGE: &str = "h";

/// What is known of rooms beside who owns them.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Connections that wait, by what they wait for: each waits for one room.
    pub(super) seekers: BTreeMap<Key, Vec<(ConnId, Sought)>>,
    /// What each of them waits for.
    pub(super) waits: BTreeMap<ConnId, Key>,
    /// The names of this node's rooms, and of those that are sought by name.
    pub(super) names: BTreeMap<Key, Arc<str>>,
    /// Owners that may be gone, and what is theirs.
    suspects: BTreeMap<Incarnation, BTreeSet<Key>>,
    /// Rooms that were claimed for somebody who may not have entered.
    fresh: BTreeSet<Arc<str>>,
    /// What is not saved yet, by room.
    unsaved: BTreeMap<Key, Unsaved>,
    /// What is being saved.
    saving: Option<Vec<(Key, Unsaved)>>,
    /// Rooms whose end is being saved, or is about to be, and that were entered since.
    revived: BTreeSet<Key>,
    /// Who waits while the rooms get other keys.
    pub(super) again: Vec<(ConnId, Sought)>,
    pub(super) changed: bool,
    taking: bool,
    pub(super) takeovers: u64,
    pub(super) yields: u64,
    pub(super) handovers: u64,
}

/// The newest state of what is not saved.
#[derive(Debug, Clone, Default)]
struct Unsaved {
    exists: bool,
    fields: BTreeMap<String, Option<Vec<u8>>>,
    /// The room is given up with this.
    gives: bool,
}

impl Rooms {
    /// Somebody may enter a room of this node.
    pub(super) fn used(&mut self, room: &str) {
        let ends = |(key, unsaved): &(Key, Unsaved)| &**key == room && !unsaved.exists;
        let is_ending = self.saving.iter().flatten().any(ends);
        if is_ending
            || self
                .unsaved
                .get(room)
                .is_some_and(|unsaved| !unsaved.exists)
        {
            self.revived.insert(room.into());
        }
        if let Some(name) = self.names.get(room) {
            self.fresh.insert(Arc::clone(name));
            self.changed = true;
        }
    }
}

/// The part of a room's settings that says its name.
#[derive(Deserialize)]
struct Named {
    room: Arc<str>,
}

impl Node {
    fn sought_key(&self, sought: &Sought) -> Option<Key> {
        match sought {
            Sought::Room(room) => self.room_key(Some(room)),
            Sought::People => self.room_key(None),
            Sought::Located(place) => Some(hex(place).into()),
        }
    }

    pub(super) fn seek(&mut self, conn: ConnId, sought: Sought, effects: &mut Vec<Effect>) {
        if self.handing {
            // All connections are closed in a moment, and this one comes again elsewhere.
            return;
        }
        let Some(key) = self.sought_key(&sought) else {
            return effects.push(Effect::Found(conn, Found::Nowhere));
        };
        if self.has_many_seekers() && self.ownership.epoch(&key).is_none() {
            return effects.push(Effect::Found(conn, Found::Nowhere));
        }
        if let Sought::Room(room) = &sought {
            self.rooms.names.insert(Key::clone(&key), Arc::clone(room));
        }
        let mut commands = vec![];
        let way = self.ownership.seek(&key, &mut commands);
        match way {
            Way::Home => {
                effects.push(Effect::Found(conn, Found::Here));
                self.rooms.used(&key);
                self.take(effects);
            }
            Way::Away(owner) if self.living.contains(&owner) => {
                self.forget_name(&key);
                effects.push(Effect::Found(conn, there(owner)));
            }
            Way::Away(owner) => {
                self.wait(&key, conn, sought);
                self.suspect(owner, &key, effects);
            }
            Way::Sought => self.wait(&key, conn, sought),
        }
        self.command(commands, effects);
    }

    /// An owner is not in the list of nodes: it is gone, or has come just now.
    fn suspect(&mut self, owner: Incarnation, key: &Key, effects: &mut Vec<Effect>) {
        let Some(mark) = self.mark.clone() else {
            return;
        };
        let suspects = self.rooms.suspects.entry(owner).or_default();
        suspects.insert(Key::clone(key));
        // No node that has registered has this count.
        effects.push(Effect::Bury(owner, 0, mark));
    }

    pub(super) fn suspect_is(
        &mut self,
        owner: Incarnation,
        gone: Option<bool>,
        effects: &mut Vec<Effect>,
    ) {
        let mut commands = vec![];
        for key in self.rooms.suspects.remove(&owner).unwrap_or_default() {
            match gone {
                Some(true) => self.ownership.inherit(&key, owner, &mut commands),
                Some(false) => self.found(&key, there(owner), effects),
                None => self.found(&key, Found::Nowhere, effects),
            }
        }
        self.command(commands, effects);
    }

    pub(super) fn claimed(
        &mut self,
        ticket: u64,
        key: &Key,
        answer: Claimed,
        effects: &mut Vec<Effect>,
    ) {
        let (mut commands, mut outcomes) = (vec![], vec![]);
        self.ownership
            .claimed(ticket, key, answer, &mut commands, &mut outcomes);
        self.command(commands, effects);
        for outcome in outcomes {
            match outcome {
                Outcome::Home(key, fields) => self.home(&key, &fields, effects),
                Outcome::Away(key, owner) if self.living.contains(&owner) => {
                    self.found(&key, there(owner), effects);
                    self.forget_name(&key);
                }
                Outcome::Away(key, owner) => self.suspect(owner, &key, effects),
                Outcome::Yield(key, owner) => {
                    self.rooms.yields += 1;
                    self.rooms.unsaved.remove(&key);
                    if let Some(name) = self.rooms.names.remove(&key) {
                        effects.push(Effect::Yield(name));
                    }
                    self.found(&key, there(owner), effects);
                }
            }
        }
    }

    /// Nobody can be the home of a room: somebody else has put something in its place.
    pub(super) fn unclaimable(&mut self, ticket: u64, key: &Key, effects: &mut Vec<Effect>) {
        if self.ownership.unclaimable(ticket, key) {
            self.rooms.yields += 1;
            self.rooms.unsaved.remove(key);
            if let Some(name) = self.rooms.names.remove(key) {
                effects.push(Effect::Yield(name));
            }
        }
        self.found(key, Found::Nowhere, effects);
        self.forget_name(key);
    }

    /// A room has become this node's.
    fn home(&mut self, key: &Key, fields: &Fields, effects: &mut Vec<Effect>) {
        let open = |field: &str, sealed: &[u8]| {
            let place: [&[u8]; 2] = [key.as_bytes(), field.as_bytes()];
            self.settings.secrets.open_record(&place, sealed)
        };
        let settings = fields
            .get(SETTINGS)
            .and_then(|sealed| open(SETTINGS, sealed));
        let named = settings
            .as_deref()
            .and_then(|text| serde_json::from_slice(text).ok());
        let has_settings = fields.contains_key(SETTINGS);
        let mut restored = BTreeSet::new();
        if let (Some(settings), Some(Named { room })) = (settings, named) {
            let members = fields.iter().filter(|(field, _)| field.starts_with("m:"));
            let members = members.filter_map(|(field, sealed)| {
                let member = open(field, sealed)?;
                restored.insert(field);
                Some(member)
            });
            effects.push(Effect::Restore {
                image: fields.get(IMAGE).and_then(|sealed| open(IMAGE, sealed)),
                settings,
                members: members.collect(),
            });
            self.rooms.names.insert(Key::clone(key), room);
            self.rooms.takeovers += 1;
        } else if has_settings {
            // As a room without settings it would open to everybody.
            let unsaved = Unsaved {
                exists: true,
                gives: true,
                ..Unsaved::default()
            };
            self.rooms.unsaved.insert(Key::clone(key), unsaved);
            effects.push(Effect::Unreadable(Key::clone(key)));
            self.found(key, Found::Nowhere, effects);
            self.rooms.names.remove(key);
            return self.save(effects);
        }
        let is_lost = |field: &&String| field.starts_with("m:") && !restored.contains(*field);
        let lost: Vec<_> = fields.keys().filter(is_lost).cloned().collect();
        if !lost.is_empty() {
            let unsaved = self.rooms.unsaved.entry(Key::clone(key)).or_default();
            unsaved.exists = true;
            (unsaved.fields).extend(lost.into_iter().map(|field| (field, None)));
        }
        self.found(key, Found::Here, effects);
        let is_old = |(field, sealed): (&String, &Vec<u8>)| {
            let place: [&[u8]; 2] = [key.as_bytes(), field.as_bytes()];
            field != IMAGE && !self.settings.secrets.is_current(&place, sealed)
        };
        if fields.iter().any(is_old) {
            self.save_all(key, effects);
        }
        if self.room_key(None).as_ref() == Some(key) {
            self.rooms.names.insert(Key::clone(key), PEOPLE.into());
        }
        match self.rooms.names.get(key) {
            Some(name) => {
                self.rooms.fresh.insert(Arc::clone(name));
            }
            // Nobody can enter it: it was sought by a token of a session that is gone.
            None => {
                self.rooms
                    .unsaved
                    .insert(Key::clone(key), Unsaved::default());
            }
        }
        self.rooms.changed = true;
        self.take(effects);
    }

    /// All of a room is to be saved.
    pub(super) fn save_all(&mut self, key: &Key, effects: &mut Vec<Effect>) {
        if let Some(name) = self.rooms.names.get(key) {
            effects.push(Effect::NoteAll(Arc::clone(name)));
            self.rooms.changed = true;
            self.take(effects);
        }
    }

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

    fn save(&mut self, effects: &mut Vec<Effect>) {
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
                        let place: [&[u8]; 2] = [key.as_bytes(), field.as_bytes()];
                        let sealed = self.records.seal(nonce, &place, text);
                        match field == IMAGE {
                            true => images.push((Key::clone(&key), sealed)),
                            false => drop(set.insert(field.clone(), sealed)),
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

    pub(super) fn saved(&mut self, answer: Option<Vec<bool>>, effects: &mut Vec<Effect>) {
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
                }
                (true, true) => {}
                (true, false) if !self.rooms.revived.remove(&key) => {
                    self.ownership.ended(&key);
                    self.forget_name(&key);
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

    /// Rooms are found by other bytes: all are sought and owned under other keys.
    pub(super) fn renamed(&mut self) {
        let names = mem::take(&mut self.rooms.names);
        let people = self.room_key(None);
        let new = |key: &Key| match names.get(key) {
            Some(name) => self.room_key(Some(name)),
            None => people.clone(),
        };
        let renamed: BTreeMap<_, _> = (self.ownership.own())
            .filter_map(|key| Some((Key::clone(key), new(key)?)))
            .collect();
        self.ownership.rename(&renamed);
        for (key, name) in names {
            if let Some(key) = renamed.get(&key) {
                self.rooms.names.insert(Key::clone(key), name);
            }
        }
        self.rooms.unsaved.clear();
        self.rooms.suspects.clear();
        let seekers = mem::take(&mut self.rooms.seekers);
        self.rooms.waits.clear();
        self.rooms.again.extend(seekers.into_values().flatten());
    }

    /// Seeks what was sought under other keys.
    pub(super) fn seek_again(&mut self, effects: &mut Vec<Effect>) {
        for (conn, sought) in mem::take(&mut self.rooms.again) {
            self.seek(conn, sought, effects);
        }
    }

    /// Whether every room was given up, after [`Input::GiveUp`](super::Input::GiveUp).
    pub fn has_given_up(&self) -> bool {
        self.giving && self.ownership.own().next().is_none() && self.rooms.saving.is_none()
    }

    /// Has a room saved whole, and owned by nobody.
    pub(super) fn give_up(&mut self, key: &Key, effects: &mut Vec<Effect>) {
        match self.rooms.names.get(key) {
            Some(name) => {
                effects.push(Effect::NoteAll(Arc::clone(name)));
                self.rooms.fresh.insert(Arc::clone(name));
            }
            None => {
                self.rooms
                    .unsaved
                    .insert(Key::clone(key), Unsaved::default());
            }
        }
        self.rooms.changed = true;
    }
}

fn there(node: Incarnation) -> Found {
    Found::There(NodeId(node.bits()))
}
