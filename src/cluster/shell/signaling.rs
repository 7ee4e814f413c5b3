//! What a node asks of the signaling of its box. No clock is read and nothing is waited for, so that the
//! simulation of several nodes takes the same way as a box.

use super::super::Incarnation;
use super::super::node::{Effect, Input, PEOPLE, locator};
use super::records::{records, restore};
use super::{FOREVER, Shared};
use crate::clock;
use crate::protocol::CloseCode;
use crate::signal::hub::Locate;
use crate::signal::{Driver, NodeId, Word};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What an effect has come to.
pub(super) enum Carried {
    /// It is carried out.
    Done,
    /// It is, and the node gets this.
    Answered(Input),
    /// It is not one of signaling.
    Other(Effect),
}

/// Signaling, as its node has it.
pub(super) struct Signaling {
    pub(super) driver: Arc<Driver>,
    shared: Arc<Shared>,
    is_open: bool,
}

impl Shared {
    /// Whether inputs are taken while [`clock::boot`] reads `nanos`.
    pub(super) fn is_open_at(&self, nanos: impl FnOnce() -> u64) -> bool {
        if self.is_handing.load(Ordering::Relaxed) {
            return false;
        }
        let until = self.open_until.load(Ordering::Relaxed);
        until == FOREVER || (until > 0 && nanos() < until)
    }
}

impl Signaling {
    pub(super) fn new(driver: Arc<Driver>, shared: Arc<Shared>) -> Self {
        Self {
            driver,
            shared,
            is_open: false,
        }
    }

    /// Whether the images of all rooms are taken: what happens to members from then on, they see where
    /// they resume.
    pub(super) fn is_handing(&self) -> bool {
        self.shared.is_handing.load(Ordering::Relaxed)
    }

    /// Carries an effect out, where it is one of signaling.
    pub(super) fn carry_out(&mut self, effect: Effect) -> Carried {
        let id = |node: Incarnation| NodeId(node.bits());
        match effect {
            Effect::Take { fresh, gives } => {
                if gives {
                    self.shared.is_handing.store(true, Ordering::Relaxed);
                }
                return Carried::Answered(Input::Taken(records(&self.driver, fresh, gives)));
            }
            Effect::NoteAll(room) => self.driver.with_hub(|hub, _, _| hub.note_all(&room)),
            Effect::Found(conn, found) => self.driver.found(conn, found),
            Effect::Unreadable(room) => tracing::warn!(
                "the record of room {room} does not open with cluster.secret, or was changed: nobody enters it"
            ),
            Effect::Restore {
                image,
                settings,
                members,
            } => restore(&self.driver, image.as_deref(), &settings, &members),
            Effect::Yield(room) => {
                tracing::debug!(room = &*room, "the room is another node's");
                self.driver
                    .with_hub(|hub, now, effects| match *room == *PEOPLE {
                        true => hub.give_up_people(now, effects),
                        false => drop(hub.give_up_room(now, &room, effects)),
                    });
            }
            Effect::Word(_, Word::Revoke { .. } | Word::Ask { .. } | Word::Answer { .. }) => {
                return Carried::Other(effect);
            }
            Effect::Word(from, word) => self.driver.received(id(from), word),
            Effect::Lost(_) | Effect::Reset { .. } if self.is_handing() => {}
            Effect::Lost(node) => {
                tracing::info!("node {node} has left or is given up");
                self.driver.lost_node(id(node));
            }
            Effect::Reset { node, generation } => {
                tracing::debug!("the link to node {node} is reset");
                self.driver.link_reset(id(node), generation);
            }
            Effect::Located(key) => self
                .driver
                .locate(Locate::new(move |room| locator(&key, room))),
            Effect::Open(until) => {
                let nanos = until.map_or(FOREVER, clock::boot_nanos_at);
                self.shared.open_until.store(nanos, Ordering::Relaxed);
                self.shared.has_stopped.store(false, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_open, true) {
                    if until.is_none() {
                        tracing::warn!(
                            "Redis does not answer: rooms of this node go on, others wait \
                             (cluster.isolated = \"serve\")"
                        );
                    }
                    self.driver.gate_opened();
                }
            }
            Effect::Shut => {
                self.is_open = false;
                self.shared.open_until.store(0, Ordering::Relaxed);
            }
            Effect::Stop => {
                self.shared.has_stopped.store(true, Ordering::Relaxed);
                tracing::warn!(
                    "Redis does not answer: all connections are closed (cluster.isolated = \"stop\")"
                );
                let why = "this node has lost the others: try again";
                self.driver.close_all(CloseCode::TryLater, why);
            }
            other => return Carried::Other(other),
        }
        Carried::Done
    }
}
