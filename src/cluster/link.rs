//! The link between two incarnations: in order and once, or reset.
//!
//! Batches are numbered in each direction. The sender keeps those whose PUBLISH Redis has not
//! answered, and repeats them on another connection. Nothing else is sent again: whatever is lost
//! resets the link, which begins another generation, and the sessions that had something on the way
//! recover as from a lost connection. Pure: bytes and times in, effects out.
//!
//! A link lives as long as both incarnations do: made anew for the same two, it would number anew,
//! and no number may be used twice under one key.

use super::Incarnation;
use super::seal::{LinkKeys, Secrets};
use super::wire::{Entry, Head, WireError, open_batch, seal_batch, write_entry};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long entries may wait for others while a batch is on its way.
const FLUSH: Duration = Duration::from_micros(200);
/// Bytes of a batch at which it goes at once.
const BATCH: usize = 256 << 10;
/// Bytes that may wait: beyond, the link is reset.
const MOST: usize = 8 << 20;
/// How long a link waits before it tries one again that nobody listened to.
const SILENCE: Duration = Duration::from_secs(1);
/// Bytes that wait above which the edge reads less.
const LIGHT: usize = 1 << 20;

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Publishes a batch to the other's inbox.
    Publish(BatchId, Arc<[u8]>),
    /// Hands entries on.
    Deliver(Vec<Entry>),
    /// Whatever was on the way in either direction may be lost.
    Reset(Reset),
}

/// Names a batch of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchId {
    generation: u32,
    number: u64,
}

/// Why a link was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// A number was missing.
    Hole,
    /// The own subscription was interrupted.
    Deaf,
    /// Nobody listened at the other end.
    Unheard,
    /// Too much waited.
    Full,
    /// The other end has reset it.
    Other,
}

impl Reset {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Hole,
        Self::Deaf,
        Self::Unheard,
        Self::Full,
        Self::Other,
    ];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hole => "hole",
            Self::Deaf => "deaf",
            Self::Unheard => "unheard",
            Self::Full => "full",
            Self::Other => "other",
        }
    }
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    me: Incarnation,
    peer: Incarnation,
    outward: LinkKeys,
    inward: LinkKeys,
    generation: u32,
    /// The number of the next batch to be sent, and of the one that is expected.
    next: u64,
    expected: u64,
    /// Entries that wait for the next batch, written, and when it goes at the latest.
    waiting: Vec<u8>,
    due: Option<Instant>,
    /// Until when nothing is sent, as nobody listened.
    silent_until: Option<Instant>,
    /// Batches whose PUBLISH is not answered.
    kept: VecDeque<(BatchId, Arc<[u8]>)>,
    kept_bytes: usize,
}

impl Link {
    /// Begins a link of two incarnations that had none.
    pub fn new(secrets: &Secrets, me: Incarnation, peer: Incarnation) -> Self {
        Self {
            me,
            peer,
            outward: secrets.link(me, peer),
            inward: secrets.link(peer, me),
            generation: 1,
            next: 1,
            expected: 1,
            waiting: vec![],
            due: None,
            silent_until: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// The generation, which each reset raises.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Bytes that wait for Redis.
    pub fn bytes(&self) -> usize {
        self.waiting.len() + self.kept_bytes
    }

    /// Whether so little waits that more may be read for this link.
    pub fn is_light(&self) -> bool {
        self.bytes() <= LIGHT
    }

    /// When [`Self::flush`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Sends an entry: at once where nothing is on its way, else with those that follow shortly.
    pub fn say(&mut self, now: Instant, entry: &Entry, effects: &mut Vec<Effect>) {
        write_entry(&mut self.waiting, entry);
        if self.bytes() > MOST {
            return self.reset(Reset::Full, effects);
        }
        if self.silent_until.is_some() {
            self.due = self.silent_until;
        } else if self.kept.is_empty() || self.waiting.len() >= BATCH {
            self.send(effects);
        } else {
            self.due.get_or_insert(now + FLUSH);
        }
    }

    /// Sends what has waited for long enough.
    pub fn flush(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.due.is_some_and(|due| due <= now) {
            self.silent_until = None;
            self.send(effects);
        }
    }

    /// Redis has answered the PUBLISH of a batch: so many listen. Answers come in order.
    pub fn published(
        &mut self,
        now: Instant,
        id: BatchId,
        listeners: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, batch)) = self.kept.pop_front_if(|(kept, _)| *kept == id) else {
            return;
        };
        self.kept_bytes -= batch.len();
        if listeners == 0 {
            // The batch that says so would not be received either.
            self.begin(self.generation.saturating_add(1));
            self.silent_until = Some(now + SILENCE);
            effects.push(Effect::Reset(Reset::Unheard));
        } else if self.kept.is_empty() && !self.waiting.is_empty() {
            self.send(effects);
        }
    }

    /// The connection that publishes is another one: what was not answered goes again, in order.
    pub fn reconnected(&mut self, effects: &mut Vec<Effect>) {
        let again = self.kept.iter().cloned();
        effects.extend(again.map(|(id, batch)| Effect::Publish(id, batch)));
    }

    /// The own subscription was interrupted: what came meanwhile is lost.
    pub fn deafened(&mut self, effects: &mut Vec<Effect>) {
        self.reset(Reset::Deaf, effects);
    }

    /// Something was lost before it came here, as too much waited.
    pub fn overflowed(&mut self, effects: &mut Vec<Effect>) {
        self.reset(Reset::Full, effects);
    }

    /// Takes a batch of the other end.
    ///
    /// # Errors
    /// It is not of the other end, or not readable. Nothing has changed.
    pub fn received(&mut self, batch: &[u8], effects: &mut Vec<Effect>) -> Result<(), WireError> {
        let head = Head::read(batch)?;
        if (head.from, head.to) != (self.peer, self.me) {
            return Err(WireError::Malformed);
        }
        let entries = open_batch(batch, &self.inward)?;
        if self.silent_until.take().is_some() && !self.waiting.is_empty() {
            self.send(effects);
        }
        if head.generation < self.generation {
            // The other end does not know yet: the batch that said so was lost, or is on its way.
            if self.kept.is_empty() && self.waiting.is_empty() {
                self.send(effects);
            }
            return Ok(());
        }
        if head.generation > self.generation {
            self.begin(head.generation);
            effects.push(Effect::Reset(Reset::Other));
        }
        if head.number > self.expected {
            self.reset(Reset::Hole, effects);
        } else if head.number == self.expected {
            self.expected += 1;
            if !entries.is_empty() {
                effects.push(Effect::Deliver(entries));
            }
        }
        Ok(())
    }

    /// Begins another generation and says so.
    fn reset(&mut self, why: Reset, effects: &mut Vec<Effect>) {
        // Four thousand million resets are more than any incarnation lives to see.
        self.begin(self.generation.saturating_add(1));
        effects.push(Effect::Reset(why));
        self.send(effects);
    }

    fn begin(&mut self, generation: u32) {
        self.generation = generation;
        (self.next, self.expected) = (1, 1);
        self.waiting = vec![];
        self.due = None;
        self.silent_until = None;
        self.kept.clear();
        self.kept_bytes = 0;
    }

    /// Sends what waits, be it nothing.
    fn send(&mut self, effects: &mut Vec<Effect>) {
        let id = BatchId {
            generation: self.generation,
            number: self.next,
        };
        let head = Head {
            from: self.me,
            to: self.peer,
            generation: id.generation,
            number: id.number,
        };
        self.next += 1;
        self.due = None;
        let entries = std::mem::take(&mut self.waiting);
        let batch: Arc<[u8]> = seal_batch(head, &self.outward, entries).into();
        self.kept_bytes += batch.len();
        self.kept.push_back((id, Arc::clone(&batch)));
        effects.push(Effect::Publish(id, batch));
    }
}

#[cfg(test)]
mod tests;
