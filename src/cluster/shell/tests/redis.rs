//! Redis as nodes reach it: requests are carried out in the order of a connection, answers take their
//! time, and either may be lost.

use super::super::super::node::{IMAGE, Input};
use super::super::super::ownership::{Claimed, Key};
use super::super::super::redis::Save;
use super::super::super::store::Fate;
use super::super::super::store::model::Model;
use super::planted::Plant;
use crate::cluster::Incarnation;
use crate::cluster::link::BatchId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Steps after which a request counts as not answered.
pub(super) const PATIENCE: u64 = 20;
/// Steps for which an image is kept.
const IMAGE_KEPT: u64 = 600;

/// A request.
pub(super) enum Ask {
    Beat(Incarnation, Option<Vec<u8>>, Vec<u8>),
    Bury(Incarnation, u64, Vec<u8>),
    Claim(u64, Incarnation, Key, Option<Incarnation>),
    Save(Incarnation, Vec<Save>, Vec<(Key, Vec<u8>)>),
    /// The count of another run of the same node, which is to be buried.
    Count(Incarnation),
    Publish(Incarnation, BatchId, Arc<[u8]>, u64),
}

/// A request on its way.
pub(super) struct Call {
    pub(super) ask: Ask,
    pub(super) sent: Instant,
    /// The steps at which it was sent and at which it arrives.
    pub(super) at: u64,
    pub(super) due: u64,
    /// The connection on which alone it is made.
    pub(super) on: Option<u64>,
    /// The node does not wait for the answer any more.
    pub(super) given_up: bool,
}

impl Call {
    /// What the node gets in place of an answer.
    pub(super) fn failure(&self) -> Option<Input> {
        Some(match &self.ask {
            Ask::Beat(..) => Input::BeatFailed(self.sent),
            Ask::Bury(node, ..) => Input::Buried(*node, None),
            Ask::Claim(ticket, _, key, _) => Input::Claimed(*ticket, Key::clone(key), None),
            Ask::Save(..) => Input::Saved(None),
            Ask::Count(_) => return None,
            Ask::Publish(_, _, _, era) => Input::PublishFailed(*era),
        })
    }
}

/// The server, with images beside the rooms.
#[derive(Clone)]
pub(super) struct Store {
    plant: Plant,
    pub(super) model: Model,
    images: BTreeMap<String, (u64, Vec<u8>)>,
}

impl Store {
    pub(super) fn new(plant: Plant) -> Self {
        Self {
            plant,
            model: Model::default(),
            images: BTreeMap::new(),
        }
    }

    /// Carries a request out. `None`: the caller carries out publications, and some requests have no answer.
    pub(super) fn carry_out(&mut self, step: u64, sent: Instant, ask: Ask) -> Option<Input> {
        Some(match ask {
            Ask::Beat(me, known, drawn) => {
                Input::Beat(sent, self.model.beat(me, known.as_deref(), &drawn))
            }
            Ask::Bury(node, count, mark) => {
                Input::Buried(node, Some(self.model.bury(node, count, &mark)))
            }
            Ask::Claim(ticket, me, key, expected) => {
                let expected = match self.plant {
                    Plant::ClaimWithoutLook => self.model.owner(&key),
                    _ => expected,
                };
                let mut answer = self.model.claim(&key, me, expected);
                if let Claimed::Mine {
                    already: false,
                    fields,
                    ..
                } = &mut answer
                    && !fields.is_empty()
                    && let Some((until, image)) = self.images.remove(&*key)
                    && step < until
                {
                    fields.insert(IMAGE.to_owned(), image);
                }
                Input::Claimed(ticket, key, Some(answer))
            }
            Ask::Save(me, saves, images) => {
                for (key, image) in images {
                    self.images
                        .insert(key.to_string(), (step + IMAGE_KEPT, image));
                }
                let saved = saves.into_iter().map(|save| self.save(me, save));
                Input::Saved(Some(saved.collect()))
            }
            Ask::Count(node) => Input::Namesake(node, self.model.count(node)?),
            Ask::Publish(..) => return None,
        })
    }

    fn save(&mut self, me: Incarnation, save: Save) -> bool {
        let (room, epoch) = (&*save.room, save.epoch);
        match save.fate {
            Fate::End if self.plant == Plant::EndWithoutLook => self.model.lose(room),
            Fate::End => self.model.end(room, me, epoch),
            Fate::Keep => (self.model).save(room, me, epoch, save.set, &save.removed),
            Fate::Give => {
                let saved = (self.model).save(room, me, epoch, save.set, &save.removed);
                saved && self.model.give(room, me, epoch)
            }
        }
    }
}
