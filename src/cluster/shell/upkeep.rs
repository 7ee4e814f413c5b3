//! What a node has Redis keep for those that come later, and learns of it: revocations and notes. Who else has its name.

use super::super::Incarnation;
use super::notes::Note;
use super::{Stage, Task};
use crate::clock;

/// Revocations, and the texts of notes.
pub(super) type Known = (Vec<(String, u64)>, Vec<String>);

/// Revocations that wait for Redis, at most: each is said to the nodes that live in any case.
const MAX_REVOCATIONS: usize = 10_000;
/// Notes that wait for Redis, at most.
const MAX_NOTES: usize = 10_000;

impl Task {
    /// Redis has that of revocations and notes.
    pub(super) fn learn(&mut self, users: Vec<(String, u64)>, noted: Vec<String>) {
        let lacking = (self.on_noted)(noted);
        self.keep_later(lacking, true);
        self.keep_notes();
        for (user, until) in users {
            (self.on_revoke)(&user, until);
        }
        // Nobody is served by credentials that were revoked before the start.
        if *self.stage.borrow() == Stage::Starting {
            self.stage.send_replace(Stage::Joined);
        }
    }

    /// What was on the way to and from a node may be lost, revocations and answers among it.
    pub(super) fn missed(&mut self, node: Incarnation) {
        self.misses |= *self.stage.borrow() != Stage::Starting;
        self.shared.questions.lost(node);
    }

    pub(super) fn keep_unsent(&mut self, users: Vec<(String, u64)>) {
        let free = MAX_REVOCATIONS.saturating_sub(self.unsent.len());
        if free < users.len() {
            tracing::warn!(
                "{MAX_REVOCATIONS} revocations wait for Redis: {} more are known to the nodes that live now, and \
                 not to those that start later",
                users.len() - free
            );
        }
        self.unsent.extend(users.into_iter().take(free));
    }

    pub(super) fn send_revocations(&mut self) {
        if self.is_up() {
            self.calls.revoke(self.unsent.drain(..).collect());
        }
    }

    /// Has notes wait for Redis; those that come back from it give way to newer ones.
    pub(super) fn keep_later(&mut self, notes: Vec<Note>, are_newer: bool) {
        for note in notes {
            let waits = self.unkept.contains_key(&note.about);
            if !waits && self.unkept.len() >= MAX_NOTES {
                tracing::warn!(
                    "{MAX_NOTES} notes wait for Redis: nodes that start later do not learn of the next one"
                );
            } else if are_newer || !waits {
                self.unkept.insert(note.about.clone(), note);
            }
        }
    }

    pub(super) fn keep_notes(&mut self) {
        if self.is_up() {
            let notes = std::mem::take(&mut self.unkept);
            self.calls.keep_notes(notes.into_values().collect());
        }
    }

    fn is_up(&self) -> bool {
        self.node.gauges(clock::boot_instant()).up
    }

    /// Looks for living nodes of this one's name, where it is time to.
    pub(super) fn look_for_namesakes(&mut self) {
        if self.namesakes.is_due(clock::boot_instant()) {
            let living = self.node.living().collect();
            self.calls.count_namesakes(self.node.me(), living);
        }
    }

    pub(super) fn has_namesakes(&mut self, name: &str, others: &[Incarnation]) {
        let again = self.namesakes.found(clock::boot_instant());
        let others: Vec<_> = others.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "another node that lives has the name {name} too ({}): give each node a cluster.node of its own; the next \
             look is in {again} s",
            others.join(", ")
        );
    }
}
