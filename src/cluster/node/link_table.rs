//! All links of a node.

use super::super::Incarnation;
use super::super::link::{BatchId, Effect as LinkEffect, Link, Reset};
use super::super::seal::Secrets;
use super::super::wire::Head;
use super::Effect;
use crate::signal::Word;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// When batches that were not published go again.
const RETRY: Duration = Duration::from_millis(200);

/// Who is at the near end of all links.
type Near<'a> = (&'a Secrets, Incarnation);

/// The links, by their far ends: as many as nodes live.
#[derive(Debug, Default)]
pub(super) struct LinkTable {
    links: BTreeMap<Incarnation, Link>,
    /// What fails together has one era; what was made before it is made again.
    era: u64,
    retry: Option<Instant>,
    /// How many links were reset, by [`Reset`].
    pub(super) resets: [u64; Reset::ALL.len()],
}

impl LinkTable {
    pub(super) fn bytes(&self) -> usize {
        self.links.values().map(Link::bytes).sum()
    }

    pub(super) fn heavy(&self) -> impl Iterator<Item = Incarnation> {
        let heavy = self.links.iter().filter(|(_, link)| !link.is_light());
        heavy.map(|(node, _)| *node)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = self.links.values().filter_map(Link::next_timeout);
        due.chain(self.retry).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let again = self.retry.take_if(|at| *at <= now).is_some();
        for node in self.nodes() {
            self.with(node, effects, |link, out| {
                if again {
                    link.reconnected(out);
                }
                link.flush(now, out);
            });
        }
    }

    /// Batches of that era were not published; they go again in order.
    pub(super) fn failed(&mut self, now: Instant, era: u64) {
        if era == self.era {
            self.era += 1;
            self.retry = Some(now + RETRY);
        }
    }

    pub(super) fn published(
        &mut self,
        now: Instant,
        to: Incarnation,
        id: BatchId,
        listeners: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.with(to, effects, |link, out| {
            link.published(now, id, listeners, out)
        });
    }

    pub(super) fn say(
        &mut self,
        now: Instant,
        (secrets, me): Near<'_>,
        to: Incarnation,
        word: &Word,
        effects: &mut Vec<Effect>,
    ) {
        let new = || Link::new(secrets, me, to);
        self.links.entry(to).or_insert_with(new);
        self.with(to, effects, |link, out| link.say(now, word, out));
    }

    /// Takes a batch: who sent it, and what it says now.
    pub(super) fn received(
        &mut self,
        (secrets, me): Near<'_>,
        batch: &[u8],
        is_gone: impl Fn(Incarnation) -> bool,
        effects: &mut Vec<Effect>,
    ) -> Option<(Incarnation, Vec<Word>)> {
        let from = Head::read(batch).ok()?.from;
        if from == me || is_gone(from) {
            return None;
        }
        let mut out = vec![];
        match self.links.get_mut(&from) {
            Some(link) => link.received(batch, &mut out).ok()?,
            None => {
                // A link is made only for who has the secret.
                let mut link = Link::new(secrets, me, from);
                link.received(batch, &mut out).ok()?;
                self.links.insert(from, link);
            }
        }
        Some((from, self.carry_out(from, out, effects)))
    }

    pub(super) fn deafened(&mut self, effects: &mut Vec<Effect>) {
        for node in self.nodes() {
            self.with(node, effects, Link::deafened);
        }
    }

    /// Something for a node was lost before it came to the link.
    pub(super) fn full(&mut self, node: Incarnation, effects: &mut Vec<Effect>) {
        self.with(node, effects, Link::overflowed);
    }

    pub(super) fn remove(&mut self, node: Incarnation) {
        self.links.remove(&node);
    }

    /// Forgets all links, as the near end is another incarnation.
    pub(super) fn clear(&mut self, effects: &mut Vec<Effect>) {
        for node in std::mem::take(&mut self.links).into_keys() {
            effects.push(Effect::Lost(node));
        }
    }

    pub(super) fn nodes(&self) -> Vec<Incarnation> {
        self.links.keys().copied().collect()
    }

    fn with(
        &mut self,
        node: Incarnation,
        effects: &mut Vec<Effect>,
        call: impl FnOnce(&mut Link, &mut Vec<LinkEffect>),
    ) {
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        let mut out = vec![];
        call(link, &mut out);
        self.carry_out(node, out, effects);
    }

    fn carry_out(
        &mut self,
        node: Incarnation,
        out: Vec<LinkEffect>,
        effects: &mut Vec<Effect>,
    ) -> Vec<Word> {
        let mut words = vec![];
        let generation = self.links.get(&node).map_or(0, Link::generation);
        for effect in out {
            match effect {
                LinkEffect::Publish(id, batch) => effects.push(Effect::Publish {
                    to: node,
                    id,
                    batch,
                    era: self.era,
                }),
                LinkEffect::Deliver(entries) => words.extend(entries),
                LinkEffect::Reset(why) => {
                    self.resets[why as usize] += 1;
                    words.clear();
                    effects.push(Effect::Reset { node, generation });
                }
            }
        }
        words
    }
}
