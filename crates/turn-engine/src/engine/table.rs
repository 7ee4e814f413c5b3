//! The allocations of one engine, by five-tuple, by relay, by user and by deadline.
//!
//! Keeps its indices in step; what an allocation means is not its business.

use super::allocation::Allocation;
use super::five_tuple::FiveTuple;
use super::ids::{Family, RelayedKey};
use foldhash::fast::FixedState;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Table<S> {
    slots: Vec<Slot<S>>,
    vacant: Vec<u32>,
    by_tuple: HashMap<FiveTuple, u32, FixedState>,
    by_user: BTreeSet<(Arc<str>, u32)>,
    /// One entry an allocation.
    deadlines: BTreeSet<(Instant, u32)>,
    /// Whether the deadlines take in those of permissions and channels.
    watched: bool,
}

#[derive(Debug)]
struct Slot<S> {
    /// Rises with every allocation in this slot; never 0.
    generation: u32,
    occupant: Option<Occupant<S>>,
}

#[derive(Debug)]
struct Occupant<S> {
    allocation: Box<Allocation<S>>,
    /// What `deadlines` holds for it.
    deadline: Instant,
}

/// Slots that a [`RelayedKey`] can name.
pub(super) const MAX_SLOTS: usize = 1 << (RelayedKey::INDEX_BITS - 1);

impl<S> Table<S> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_tuple: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_user: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            watched: false,
        }
    }

    /// Where the next allocation goes, and its generation; `None` if the table is full.
    pub(super) fn vacancy(&mut self) -> Option<(u32, u32)> {
        if self.vacant.is_empty() {
            if self.slots.len() == MAX_SLOTS {
                return None;
            }
            self.vacant.push(self.slots.len() as u32);
            self.slots.push(Slot {
                generation: 1,
                occupant: None,
            });
        }
        let slot = *self.vacant.last()?;
        Some((slot, self.slots[slot as usize].generation))
    }

    /// Puts `allocation` into the slot that [`vacancy`](Self::vacancy) named last.
    pub(super) fn insert(&mut self, allocation: Box<Allocation<S>>) -> u32 {
        let slot = self.vacant.pop().expect("a vacancy was asked for");
        self.put(slot, allocation);
        slot
    }

    /// Puts `allocation` into a slot without one.
    pub(super) fn put(&mut self, slot: u32, allocation: Box<Allocation<S>>) {
        let deadline = self.deadline_of(&allocation);
        self.by_tuple.insert(allocation.five_tuple, slot);
        self.by_user.insert((Arc::clone(&allocation.user), slot));
        self.deadlines.insert((deadline, slot));
        self.slots[slot as usize].occupant = Some(Occupant {
            allocation,
            deadline,
        });
    }

    /// Adds a slot without an allocation, which is not yet among the vacant ones.
    pub(super) fn add_slot(&mut self, generation: u32) -> u32 {
        self.slots.push(Slot {
            generation,
            occupant: None,
        });
        self.slots.len() as u32 - 1
    }

    /// Has the slots without an allocation taken in the order of `vacant`, from its end; those that
    /// are missing there come last.
    pub(super) fn set_vacant(&mut self, vacant: &[u32]) {
        let mut is_vacant: Vec<bool> = self.slots.iter().map(|s| s.occupant.is_none()).collect();
        let mut take = |slot: u32| is_vacant.get_mut(slot as usize).is_some_and(std::mem::take);
        let mut listed: Vec<u32> = vacant.iter().copied().filter(|slot| take(*slot)).collect();
        self.vacant = (0..self.slots.len() as u32)
            .filter(|slot| take(*slot))
            .collect();
        self.vacant.append(&mut listed);
    }

    /// The slots without an allocation.
    pub(super) fn vacant(&self) -> &[u32] {
        &self.vacant
    }

    /// Every slot: its generation, and its allocation if it has one.
    pub(super) fn all_slots(&self) -> impl Iterator<Item = (u32, Option<&Allocation<S>>)> {
        self.slots.iter().map(|slot| {
            let allocation = slot.occupant.as_ref().map(|o| &*o.allocation);
            (slot.generation, allocation)
        })
    }

    /// Every allocation with its slot and generation, in the order of the slots.
    pub(super) fn into_allocations(self) -> impl Iterator<Item = (u32, u32, Allocation<S>)> {
        self.slots.into_iter().zip(0..).filter_map(|(slot, index)| {
            let occupant = slot.occupant?;
            Some((index, slot.generation, *occupant.allocation))
        })
    }

    pub(super) fn remove(&mut self, slot: u32) -> Box<Allocation<S>> {
        let entry = &mut self.slots[slot as usize];
        let Occupant {
            allocation,
            deadline,
        } = entry
            .occupant
            .take()
            .expect("only occupied slots are removed");
        entry.generation = entry.generation.wrapping_add(1).max(1);
        self.vacant.push(slot);
        self.by_tuple.remove(&allocation.five_tuple);
        self.by_user.remove(&(Arc::clone(&allocation.user), slot));
        self.deadlines.remove(&(deadline, slot));
        allocation
    }

    pub(super) fn slot_of(&self, five_tuple: &FiveTuple) -> Option<u32> {
        self.by_tuple.get(five_tuple).copied()
    }

    /// The slot of a living allocation that has this relayed address.
    pub(super) fn slot_of_relay(&self, key: RelayedKey) -> Option<u32> {
        let slot = self.slots.get(key.slot() as usize)?;
        let allocation = &slot.occupant.as_ref()?.allocation;
        let lives = allocation.relays[key.family() as usize].is_some();
        (slot.generation == key.generation && lives).then_some(key.slot())
    }

    /// Names the relayed address of `family` that the allocation in `slot` has.
    pub(super) fn key(&self, slot: u32, family: Family) -> RelayedKey {
        RelayedKey::new(slot, family, self.slots[slot as usize].generation)
    }

    pub(super) fn get(&self, slot: u32) -> &Allocation<S> {
        let occupant = self.slots[slot as usize].occupant.as_ref();
        &occupant.expect("slots are looked up before use").allocation
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Allocation<S> {
        let occupant = self.slots[slot as usize].occupant.as_mut();
        &mut occupant.expect("slots are looked up before use").allocation
    }

    /// Takes in the deadlines of permissions and channels from here on.
    pub(super) fn watch(&mut self) {
        self.watched = true;
        for slot in self.slots() {
            self.rearm(slot);
        }
    }

    /// Brings the deadline of an allocation up to date after its relayed addresses changed; where the
    /// table is watched, after its permissions and channels changed too.
    pub(super) fn rearm(&mut self, slot: u32) {
        let deadline = self.deadline_of(self.get(slot));
        if let Some(occupant) = &mut self.slots[slot as usize].occupant {
            self.deadlines.remove(&(occupant.deadline, slot));
            occupant.deadline = deadline;
            self.deadlines.insert((deadline, slot));
        }
    }

    fn deadline_of(&self, allocation: &Allocation<S>) -> Instant {
        match self.watched {
            true => allocation.first_end(),
            false => allocation.deadline(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// An allocation whose deadline is not after `now`.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        self.deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
            .map(|&(_, slot)| slot)
    }

    /// Slots ever made: what the table holds on to.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn of_user(&self, user: &str) -> Vec<u32> {
        let user: Arc<str> = user.into();
        let range = (Arc::clone(&user), 0)..=(user, u32::MAX);
        self.by_user.range(range).map(|&(_, slot)| slot).collect()
    }

    pub(super) fn slots(&self) -> Vec<u32> {
        self.by_user.iter().map(|&(_, slot)| slot).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Allocation<S>> {
        self.slots
            .iter()
            .filter_map(|slot| Some(&*slot.occupant.as_ref()?.allocation))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Allocation<S>> {
        self.slots
            .iter_mut()
            .filter_map(|slot| Some(&mut *slot.occupant.as_mut()?.allocation))
    }
}
