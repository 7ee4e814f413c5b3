//! What a store remembers: by which bytes rooms are found in it, and whether it has forgotten.

use super::super::membership::Beat;
use super::super::seal::NONCE_LEN;
use super::super::store::{MEMORY, memory};
use super::{Effect, Node};
use rand::RngExt;
use std::time::{Duration, Instant};

/// Beats that a node has sent by the time at which those that lived before the store forgot are back, and
/// how long a newcomer waits for them.
const YOUNG: u64 = 2;
const YOUTH: Duration = Duration::from_millis(3_500);

/// What of a mark says how rooms are found.
fn sealed(mark: &[u8]) -> &[u8] {
    mark.get(MEMORY..).unwrap_or_default()
}

impl Node {
    /// A mark for a store that has none: another memory with the same way to find rooms. Where the store's
    /// own is sealed by a secret that is about to go, the same memory, sealed anew.
    pub(super) fn draw_mark(&mut self) -> Vec<u8> {
        let key = self.key.unwrap_or_else(|| self.settings.secrets.rooms());
        let nonce: [u8; NONCE_LEN] = self.rng.random();
        let is_old = |mark: &&Vec<u8>| !self.settings.secrets.is_current(&[b"mark"], sealed(mark));
        let mut mark = match self.mark.as_ref().filter(is_old) {
            Some(mark) => memory(mark).to_vec(),
            None => self.rng.random::<[u8; MEMORY]>().to_vec(),
        };
        mark.extend(self.records.seal(nonce, &[b"mark"], &key));
        mark
    }

    /// A newcomer that finds a store without a past cannot know whether it has forgotten: nodes that have
    /// rooms may be about to come back, and write them before anybody else claims them.
    pub(super) fn look_at_age(&mut self, now: Instant, beat: &Beat, effects: &mut Vec<Effect>) {
        if self.joined || self.young_until.is_some() {
            return;
        }
        let others = beat.counts.iter().filter(|(node, _)| **node != self.me);
        let oldest = others.map(|(_, count)| *count).max();
        if beat.mark == self.drawn || oldest.is_some_and(|count| count <= YOUNG) {
            let youth = YOUTH.min(self.settings.lease);
            self.young_until = Some(now + youth);
            let mut commands = vec![];
            self.ownership
                .forgotten(now, youth, std::iter::once(self.me), &mut commands);
            self.command(commands, effects);
        }
    }

    /// Reads by which bytes rooms are found in this store.
    pub(super) fn learn_mark(&mut self, mark: &[u8], effects: &mut Vec<Effect>) -> bool {
        let secrets = &self.settings.secrets;
        let opened = secrets.open_record(&[b"mark"], sealed(mark));
        let Some(key) = opened.and_then(|key| <[u8; 32]>::try_from(key).ok()) else {
            self.is_foreign = true;
            effects.push(Effect::Foreign);
            return false;
        };
        if std::mem::take(&mut self.is_foreign) {
            effects.push(Effect::Familiar);
        }
        self.mark = Some(mark.to_vec());
        if self.key != Some(key) {
            self.key = Some(key);
            effects.push(Effect::Located(key));
            self.renamed();
        }
        true
    }

    pub(super) fn forgotten(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.settling = true;
        // All rooms are asserted here, and what is sought waits for the others.
        self.missed = false;
        let others: Vec<_> = self
            .membership
            .others()
            .chain(self.living.iter().copied())
            .collect();
        let others = others.into_iter().filter(|node| *node != self.me);
        let mut commands = vec![];
        let lease = self.settings.lease;
        self.ownership.forgotten(now, lease, others, &mut commands);
        self.command(commands, effects);
    }
}
