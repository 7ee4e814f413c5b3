//! What nodes say to each other, on its way out and in.

use super::super::Incarnation;
use super::super::membership::Gate;
use super::super::ownership::Way;
use super::{Effect, Key, MAX_HELD, Node, hex};
use crate::signal::Word;
use std::time::Instant;

/// Bytes of an answer at most: with as many that wait before it, a link has room for it.
pub const MAX_ANSWER: usize = 4 << 20;

impl Node {
    pub(super) fn say(
        &mut self,
        now: Instant,
        to: Incarnation,
        word: &Word,
        effects: &mut Vec<Effect>,
    ) {
        if self.gone.contains(&to) || to == self.me {
            return;
        }
        let pair = (&self.settings.secrets, self.me);
        self.links.say(now, pair, to, word, effects);
    }

    /// Answers, where so little waits that the answer harms nothing else.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        to: Incarnation,
        id: u64,
        answer: String,
        effects: &mut Vec<Effect>,
    ) {
        if answer.len() <= MAX_ANSWER && self.links.heavy().all(|node| node != to) {
            self.say(now, to, &Word::Answer { id, answer }, effects);
        }
    }

    pub(super) fn say_all(&mut self, now: Instant, word: &Word, effects: &mut Vec<Effect>) {
        for node in self.living.clone() {
            self.say(now, node, word, effects);
        }
    }

    pub(super) fn received(&mut self, now: Instant, batch: &[u8], effects: &mut Vec<Effect>) {
        let pair = (&self.settings.secrets, self.me);
        let gone = &self.gone;
        let Some((from, words)) =
            self.links
                .received(pair, batch, |node| gone.contains(&node), effects)
        else {
            return;
        };
        for word in words {
            match self.gate {
                Gate::Open | Gate::Isolated if !self.handing => {
                    self.word(now, from, word, effects);
                }
                _ if self.held.len() < MAX_HELD => self.held.push((from, word)),
                _ => {
                    self.held.clear();
                    return self.links.deafened(effects);
                }
            }
        }
    }

    /// Takes the words that have waited.
    pub(super) fn take_held(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for (from, word) in std::mem::take(&mut self.held) {
            self.word(now, from, word, effects);
        }
    }

    pub(super) fn word(
        &mut self,
        now: Instant,
        from: Incarnation,
        word: Word,
        effects: &mut Vec<Effect>,
    ) {
        match &word {
            Word::Enter { vconn, place, .. } => {
                let room = Key::from(hex(place));
                if self.ownership.epoch(&room).is_none() {
                    let (vconn, place) = (*vconn, *place);
                    let mut commands = vec![];
                    // A claim of this node may have been carried out and not been answered: then nobody
                    // else is the room's home.
                    let is_asked =
                        !self.giving && self.ownership.seek(&room, &mut commands) == Way::Sought;
                    if is_asked {
                        self.hold(room, from, vconn, place);
                        return self.command(commands, effects);
                    }
                    let word = Word::Astray { vconn, place };
                    return self.say(now, from, &word, effects);
                }
                if self.is_unsure(&room) {
                    return self.hold(room, from, *vconn, *place);
                }
                // Looked at once the word has had its effect.
                self.rooms.used(&room);
                effects.push(Effect::Word(from, word));
                return self.take(effects);
            }
            Word::Astray { place, .. } => self.ownership.moved(&hex(place)),
            Word::Settled => {
                let mut commands = vec![];
                self.ownership.settled(from, now, &mut commands);
                return self.command(commands, effects);
            }
            _ => {}
        }
        effects.push(Effect::Word(from, word));
    }
}
