//! One node of a cluster: membership, ownership and links put together.
//!
//! Pure: answers of Redis, words of other nodes and wishes of signaling in, effects out, to be carried
//! out in order. The only randomness is of the seed.

mod interface;
mod link_table;
mod memory;
mod place;
mod rooms;
mod saves;
mod seekers;
mod words;

use super::Incarnation;
use super::membership::{Act, Beat, Gate, Isolated, Membership};
use super::ownership::{Command, Key, Ownership};
use super::seal::{RecordKey, room_hash};
use crate::signal::Word;
pub use interface::{Effect, Gauges, Input, Record, Settings};
use link_table::LinkTable;
pub use place::{hex, locator};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rooms::Rooms;
pub use rooms::{IMAGE, SETTINGS};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
pub use words::MAX_ANSWER;

/// How often a node without a lease looks whether its gate may open.
const SHUT_LOOK: Duration = Duration::from_millis(100);
/// How long a node without a lease waits until it stops, where it is to stop.
const STOP_AFTER: Duration = Duration::from_secs(1);
/// Stands for those who are registered and in no room: no room has a control in its name.
pub const PEOPLE: &str = "\u{0}people";
/// Words that wait for the gate; with more, the links are reset.
const MAX_HELD: usize = 65_536;
/// Incarnations that are known to be gone: none of them comes back.
const MAX_GONE: usize = 65_536;

/// The state of a node.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    rng: StdRng,
    me: Incarnation,
    records: RecordKey,
    membership: Membership,
    ownership: Ownership,
    links: LinkTable,
    rooms: Rooms,
    /// The bytes by which rooms are found, and the mark that holds them.
    key: Option<[u8; 32]>,
    mark: Option<Vec<u8>>,
    listening: bool,
    beating: bool,
    /// The nodes of the last answer; this one too.
    living: BTreeSet<Incarnation>,
    /// Nodes that a store knew that has forgotten: they live on until then, unless they register again.
    awaited: BTreeSet<Incarnation>,
    awaited_until: Instant,
    gone: BTreeSet<Incarnation>,
    /// Claims that wait until this incarnation has registered.
    early: Vec<Command>,
    /// Set from a rebirth until each room is known to be this node's or another's.
    reasserting: bool,
    /// Set from when the store has forgotten until all rooms are written again.
    settling: bool,
    /// Redis may have missed a claim.
    missed: bool,
    /// The mark of this node's last beat, for a store that had none.
    drawn: Vec<u8>,
    /// The mark of the store was not to be read.
    is_foreign: bool,
    /// Until when a newcomer leaves rooms to nodes that may have them.
    young_until: Option<Instant>,
    /// What the shell knows of the gate.
    gate: Gate,
    open_until: Option<Instant>,
    shut_since: Option<Instant>,
    beat_failed: bool,
    stopped: bool,
    held: Vec<(Incarnation, Word)>,
    joined: bool,
    /// All rooms are to be given up.
    giving: bool,
    /// Set from when their images are taken until they are given up: nothing may change in them.
    handing: bool,
}

impl Node {
    /// Starts; `seed` comes from the operating system.
    pub fn new(
        settings: Settings,
        seed: [u8; 32],
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let me = Incarnation::from_bits(rng.random());
        effects.extend([Effect::Shut, Effect::Listen(me)]);
        Self {
            me,
            records: settings.secrets.records(me),
            membership: Membership::new(me, settings.lease, settings.isolated, now),
            ownership: Ownership::new(me),
            links: LinkTable::default(),
            rooms: Rooms::default(),
            key: None,
            mark: None,
            listening: false,
            beating: false,
            living: BTreeSet::new(),
            awaited: BTreeSet::new(),
            awaited_until: now,
            gone: BTreeSet::new(),
            early: vec![],
            reasserting: false,
            settling: false,
            missed: false,
            drawn: vec![],
            is_foreign: false,
            young_until: None,
            gate: Gate::Shut,
            open_until: None,
            shut_since: Some(now),
            beat_failed: false,
            stopped: false,
            held: vec![],
            joined: false,
            giving: false,
            handing: false,
            rng,
            settings,
        }
    }

    /// The own incarnation.
    pub fn me(&self) -> Incarnation {
        self.me
    }

    /// Nodes that live, this one included.
    pub fn living(&self) -> impl Iterator<Item = Incarnation> {
        self.living.iter().copied()
    }

    /// What it shows.
    pub fn gauges(&self, now: Instant) -> Gauges {
        let lease = self.membership.lease_left(now);
        Gauges {
            up: lease > Duration::ZERO,
            isolated: self.gate == Gate::Isolated,
            nodes: self.living.len(),
            lease,
            rooms: self.ownership.own().len(),
            link_bytes: self.links.bytes(),
            resets: self.links.resets,
            takeovers: self.rooms.takeovers,
            yields: self.rooms.yields,
            handovers: self.rooms.handovers,
        }
    }

    /// The nodes for which much waits.
    pub fn heavy(&self) -> impl Iterator<Item = Incarnation> {
        self.links.heavy()
    }

    /// Whether a room is this node's, as far as it knows.
    pub fn owns(&self, room: &str) -> bool {
        self.ownership.epoch(room).is_some()
    }

    /// What stands for a room in Redis.
    pub fn room_key(&self, room: Option<&str>) -> Option<Key> {
        Some(room_hash(&self.key?, room.unwrap_or(PEOPLE)).into())
    }

    /// Takes one input and appends what follows from it.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        self.look_at_gate(now, effects);
        match input {
            Input::Listening(inbox) if inbox == self.me => self.listening = true,
            Input::Listening(_) => {}
            Input::Deaf => {
                self.listening = false;
                self.links.deafened(effects);
            }
            Input::Unreached(tried) => {
                self.beat_failed = true;
                self.membership.failed(tried);
            }
            Input::Beat(sent, beat) => self.beat(now, sent, beat, effects),
            Input::BeatFailed(sent) => {
                self.beating = false;
                self.beat_failed = true;
                self.membership.failed(sent);
            }
            Input::Reconnected => self.missed = true,
            Input::Namesake(node, count) => {
                if let Some(mark) = self.mark.clone().filter(|_| node != self.me) {
                    effects.push(Effect::Bury(node, count, mark));
                }
            }
            Input::Buried(node, gone) => self.buried(node, gone, effects),
            Input::Claimed(ticket, room, Some(answer)) => {
                self.claimed(now, ticket, &room, answer, effects);
            }
            Input::Claimed(_, _, None) => self.missed = true,
            Input::Unclaimable(ticket, room) => self.unclaimable(now, ticket, &room, effects),
            Input::Taken(records) => self.taken(records, effects),
            Input::Saved(answer) => self.saved(now, answer, effects),
            Input::Published(to, id, listeners) => {
                self.links.published(now, to, id, listeners, effects);
            }
            Input::PublishFailed(era) => self.links.failed(now, era),
            Input::Received(batch) => self.received(now, &batch, effects),
            Input::Seek(conn, sought) => self.seek(conn, sought, effects),
            Input::Unsought(conn) => self.unsought(conn),
            Input::Say(to, word) => self.say(now, to, &word, effects),
            Input::Answer(to, id, answer) => self.answer(now, to, id, answer, effects),
            Input::Full(node) => self.links.full(node, effects),
            Input::SayAll(word) => self.say_all(now, &word, effects),
            Input::Changed => {
                self.rooms.changed = true;
                self.take(effects);
            }
            Input::GiveUp => {
                self.giving = true;
                // What was not asked yet is not asked any more.
                self.early.retain(|command| match command {
                    Command::Claim { ticket, room, .. } if self.ownership.epoch(room).is_none() => {
                        self.ownership.forget_claim(*ticket, room);
                        false
                    }
                    _ => true,
                });
                self.ownership.leave();
                let own: Vec<_> = self.ownership.own().cloned().collect();
                for room in own {
                    self.give_up(&room, effects);
                }
                self.take(effects);
            }
        }
        if self.handing && self.has_given_up() {
            self.handing = false;
            self.take_held(now, effects);
        }
        self.settle(now, effects);
        self.look_at_gate(now, effects);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let beat = (self.listening && !self.beating).then(|| self.membership.next_beat());
        let gate = match self.gate {
            Gate::Open => self.open_until,
            Gate::Shut | Gate::Isolated => Some(now + SHUT_LOOK),
        };
        let ownership = self.ownership.next_timeout();
        [beat, gate, ownership, self.links.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.look_at_gate(now, effects);
        if self.listening && !self.beating && now >= self.membership.next_beat() {
            self.beating = true;
            self.membership.sent(now);
            let known = self.membership.mark().map(<[u8]>::to_vec);
            let drawn = self.draw_mark();
            self.drawn.clone_from(&drawn);
            let me = self.me;
            effects.push(Effect::Beat { me, known, drawn });
        }
        self.links.handle_timeout(now, effects);
        let mut commands = vec![];
        self.ownership.handle_timeout(now, &mut commands);
        self.command(commands, effects);
        self.settle(now, effects);
        self.look_at_gate(now, effects);
    }

    fn beat(&mut self, now: Instant, sent: Instant, beat: Beat, effects: &mut Vec<Effect>) {
        self.beating = false;
        self.beat_failed = false;
        if self.mark.as_ref() != Some(&beat.mark) && !self.learn_mark(&beat.mark, effects) {
            return;
        }
        self.look_at_age(now, &beat, effects);
        let mut counts: BTreeSet<_> = beat.counts.keys().copied().collect();
        let mut acts = vec![];
        self.membership.answered(sent, now, beat, &mut acts);
        let me = self.me;
        if acts.contains(&Act::Forgotten) {
            self.awaited.clone_from(&self.living);
            self.awaited.extend(self.links.nodes());
            self.awaited.remove(&me);
            self.awaited_until = now + self.settings.lease;
        }
        self.awaited.retain(|node| !counts.contains(node));
        if now >= self.awaited_until {
            self.awaited.clear();
        }
        counts.extend(&self.awaited);
        let left = self.living.difference(&counts).copied();
        let left: Vec<_> = left.filter(|node| *node != me).collect();
        self.living = counts;
        for act in acts {
            match act {
                Act::Bury(node, count, mark) => effects.push(Effect::Bury(node, count, mark)),
                Act::Reborn => {
                    self.reborn(now, effects);
                    return;
                }
                Act::Forgotten => self.forgotten(now, effects),
            }
        }
        for node in left {
            self.bury(node, effects);
        }
        // One that has come and gone between two beats is in neither list.
        let unlisted = self.links.nodes().into_iter();
        let unlisted = unlisted.filter(|node| !self.living.contains(node));
        if let Some(mark) = &self.mark {
            effects.extend(unlisted.map(|node| Effect::Bury(node, 0, mark.clone())));
        }
        self.seek_again(effects);
        if self.is_registered() {
            let is_young = self.young_until.is_some_and(|until| now < until);
            if !is_young && !std::mem::replace(&mut self.joined, true) {
                effects.push(Effect::Joined);
            }
            let mut early = std::mem::take(&mut self.early);
            early.retain(|command| match command {
                Command::Claim { ticket, room, .. } => self.ownership.is_wanted(*ticket, room),
                Command::SaveAll(_) => true,
            });
            self.command(early, effects);
            if std::mem::take(&mut self.missed) {
                self.reassert(effects);
            }
            let mut commands = vec![];
            self.ownership.renew(&mut commands);
            self.command(commands, effects);
            self.take(effects);
        }
    }

    fn is_registered(&self) -> bool {
        self.membership.mark().is_some()
    }

    fn reborn(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let before = self.me;
        self.me = Incarnation::from_bits(self.rng.random());
        self.records = self.settings.secrets.records(self.me);
        self.membership.reborn(self.me, now);
        self.links.clear(effects);
        self.held.clear();
        self.living.remove(&before);
        self.remember_gone(before);
        self.reasserting = true;
        // All that was asked is asked again once it has registered.
        self.missed = false;
        self.listening = false;
        effects.push(Effect::Listen(self.me));
        let mut commands = vec![];
        self.ownership.reborn(self.me, &mut commands);
        self.command(commands, effects);
    }

    fn reassert(&mut self, effects: &mut Vec<Effect>) {
        let mut commands = vec![];
        self.ownership.reconnected(&mut commands);
        self.command(commands, effects);
    }

    /// Says that all rooms are written again, and opens the gate of one that was reborn.
    fn settle(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !(self.settling || self.reasserting) || !self.ownership.has_settled() {
            return;
        }
        self.reasserting &= !self.is_registered();
        if std::mem::take(&mut self.settling) {
            self.say_all(now, &Word::Settled, effects);
        }
    }

    fn buried(&mut self, node: Incarnation, gone: Option<bool>, effects: &mut Vec<Effect>) {
        if gone == Some(true) && node != self.me {
            self.membership.buried(node);
            self.living.remove(&node);
            self.bury(node, effects);
        }
        self.suspect_is(node, gone, effects);
    }

    /// A node is gone for good.
    fn bury(&mut self, node: Incarnation, effects: &mut Vec<Effect>) {
        self.remember_gone(node);
        self.links.remove(node);
        self.held.retain(|(from, _)| *from != node);
        effects.push(Effect::Lost(node));
        let mut commands = vec![];
        let seekers = &self.rooms.seekers;
        self.ownership
            .buried(node, |room| seekers.contains_key(room), &mut commands);
        self.command(commands, effects);
    }

    fn remember_gone(&mut self, node: Incarnation) {
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_first();
        }
        self.gone.insert(node);
    }

    fn look_at_gate(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let gate = match self.reasserting {
            true => {
                self.membership.gate(now);
                Gate::Shut
            }
            false => self.membership.gate(now),
        };
        let before = std::mem::replace(&mut self.gate, gate);
        match gate {
            Gate::Open => {
                let until = Some(now + self.membership.lease_left(now));
                if before != Gate::Open || self.open_until != until {
                    self.open_until = until;
                    effects.push(Effect::Open(until));
                }
            }
            Gate::Isolated if before != Gate::Isolated => effects.push(Effect::Open(None)),
            Gate::Isolated => {}
            Gate::Shut => {
                if before != Gate::Shut {
                    effects.push(Effect::Shut);
                }
                let since = *self.shut_since.get_or_insert(now);
                let stops = self.settings.isolated == Isolated::Stop && self.joined;
                if stops && self.beat_failed && now >= since + STOP_AFTER && !self.stopped {
                    self.stopped = true;
                    effects.push(Effect::Stop);
                }
                return;
            }
        }
        self.shut_since = None;
        self.stopped = false;
        if before == Gate::Shut && !self.handing {
            self.take_held(now, effects);
        }
    }

    fn command(&mut self, commands: Vec<Command>, effects: &mut Vec<Effect>) {
        for command in commands {
            match command {
                Command::Claim { .. } if !self.is_registered() => self.early.push(command),
                Command::Claim {
                    ticket,
                    me,
                    room,
                    expected,
                } => effects.push(Effect::Claim {
                    ticket,
                    me,
                    room,
                    expected,
                }),
                Command::SaveAll(room) => self.save_all(&room, effects),
            }
        }
    }
}

#[cfg(test)]
mod tests;
