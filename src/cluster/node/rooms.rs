//! Who waits for which room, and what of rooms is to be saved.

use super::super::Incarnation;
use super::super::ownership::{Claimed, Fields, Key, Outcome, Way};
use super::{Effect, Node, PEOPLE, hex};
use crate::protocol::Locator;
use crate::signal::hub::ConnId;
use crate::signal::{Found, NodeId, Sought};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

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
    pub(super) fresh: BTreeSet<Arc<str>>,
    /// What is not saved yet, by room.
    pub(super) unsaved: BTreeMap<Key, Unsaved>,
    /// What is being saved.
    pub(super) saving: Option<Vec<(Key, Unsaved)>>,
    /// Rooms whose end is being saved, or is about to be, and that were entered since.
    pub(super) revived: BTreeSet<Key>,
    /// Connections of other nodes that want a room of which Redis has yet to say whether it is over.
    pub(super) held: BTreeMap<Key, Vec<(Incarnation, u64, Locator)>>,
    /// Who waits while the rooms get other keys.
    pub(super) again: Vec<(ConnId, Sought)>,
    pub(super) changed: bool,
    pub(super) taking: bool,
    pub(super) takeovers: u64,
    pub(super) yields: u64,
    pub(super) handovers: u64,
}

/// The newest state of what is not saved.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsaved {
    pub(super) exists: bool,
    pub(super) fields: BTreeMap<String, Option<Vec<u8>>>,
    /// The room is given up with this.
    pub(super) gives: bool,
}

impl Rooms {
    /// Whether a room's end is being saved, or is about to be.
    pub(super) fn is_ending(&self, room: &str) -> bool {
        let ends = |(key, unsaved): &(Key, Unsaved)| &**key == room && !unsaved.exists;
        let waits = self.unsaved.get(room);
        self.saving.iter().flatten().any(ends) || waits.is_some_and(|unsaved| !unsaved.exists)
    }

    /// Somebody may enter a room of this node.
    pub(super) fn used(&mut self, room: &str) {
        if self.is_ending(room) {
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

/// Where an image belongs: to the epoch in which the room was given up. A node may write one after another
/// node has taken the room, and what has happened there since would be undone by it.
pub(super) fn image_place<'a>(key: &'a Key, given: &'a [u8; 8]) -> [&'a [u8]; 3] {
    [key.as_bytes(), IMAGE.as_bytes(), given]
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
            // Another node may be about to have it: two rooms would come of one.
            Way::Home if self.is_unsure(&key) => self.wait(&key, conn, sought),
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
        now: Instant,
        ticket: u64,
        key: &Key,
        answer: Claimed,
        effects: &mut Vec<Effect>,
    ) {
        let (mut commands, mut outcomes) = (vec![], vec![]);
        self.ownership
            .claimed(ticket, key, answer, &mut commands, &mut outcomes);
        let is_waited_for = self.rooms.seekers.contains_key(key);
        if outcomes.is_empty() && is_waited_for && self.owns(key) && !self.is_unsure(key) {
            // It still is this node's. They enter it before all of it is saved.
            self.found(key, Found::Here, effects);
            self.rooms.used(key);
            self.take(effects);
        }
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
        self.release(now, key, effects);
    }

    /// Nobody can be the home of a room: somebody else has put something in its place.
    pub(super) fn unclaimable(
        &mut self,
        now: Instant,
        ticket: u64,
        key: &Key,
        effects: &mut Vec<Effect>,
    ) {
        if self.ownership.unclaimable(ticket, key) {
            self.rooms.yields += 1;
            self.rooms.unsaved.remove(key);
            if let Some(name) = self.rooms.names.remove(key) {
                effects.push(Effect::Yield(name));
            }
        }
        self.found(key, Found::Nowhere, effects);
        self.forget_name(key);
        self.release(now, key, effects);
    }

    /// A room has become this node's.
    fn home(&mut self, key: &Key, fields: &Fields, effects: &mut Vec<Effect>) {
        let open = |field: &str, sealed: &[u8]| {
            let place: [&[u8]; 2] = [key.as_bytes(), field.as_bytes()];
            self.settings.secrets.open_record(&place, sealed)
        };
        let given = self
            .ownership
            .epoch(key)
            .unwrap_or_default()
            .wrapping_sub(1);
        let given = given.to_be_bytes();
        let image = fields.get(IMAGE).and_then(|sealed| {
            let place = image_place(key, &given);
            self.settings.secrets.open_record(&place, sealed)
        });
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
                image,
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
        self.rooms.held.clear();
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
        self.giving
            && self.ownership.own().next().is_none()
            && self.rooms.saving.is_none()
            && !self.ownership.is_claiming()
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
