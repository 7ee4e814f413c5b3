//! Faults that are put between the parts on purpose: the simulation has to find each of them.

use super::machine::Machine;
use super::redis::Ask;
use super::world::{Kind, World};
use super::*;
use crate::cluster::node::SETTINGS;
use crate::cluster::seal::Secrets;
use crate::cluster::store::MEMORY;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    /// None.
    Nothing,
    /// A node keeps rooms that another one has.
    NoYield,
    /// A node that was frozen takes inputs before it has looked.
    NoGate,
    /// Members who go are not taken out of the record.
    KickNotSaved,
    /// Of a room's settings only the first are saved.
    SettingsNotSaved,
    /// Rooms are given up without their images, and so without the numbers of frames.
    NoImage,
    /// A newcomer draws other bytes by which rooms are found.
    OtherBytes,
    /// The end of a room is saved without a look at who is its home by then.
    EndWithoutLook,
    /// A claim takes the room from any home.
    ClaimWithoutLook,
    /// Signaling does not learn that something on a link may be lost.
    NoReset,
    /// Who was host is not after a take-over.
    RolesLost,
    /// A word of two hundred is lost.
    WordsLost,
    /// A room is restored without its members.
    MembersLost,
}

/// Each with the kind in which it is looked for.
const ALL: [(Plant, Kind); 12] = [
    (Plant::NoYield, Kind::Stop),
    (Plant::NoGate, Kind::Stop),
    (Plant::KickNotSaved, Kind::Stop),
    (Plant::SettingsNotSaved, Kind::Stop),
    (Plant::NoImage, Kind::Deploy),
    (Plant::OtherBytes, Kind::Stop),
    (Plant::EndWithoutLook, Kind::Stop),
    (Plant::ClaimWithoutLook, Kind::Stop),
    (Plant::NoReset, Kind::Stop),
    (Plant::RolesLost, Kind::Stop),
    (Plant::WordsLost, Kind::Deploy),
    (Plant::MembersLost, Kind::Stop),
];

/// Seeds in which a planted fault is looked for.
const SEEDS: u64 = 60;

impl Machine {
    /// What becomes of an effect.
    pub(super) fn plant_in(&mut self, effect: Effect) -> Option<Effect> {
        match (self.plant, effect) {
            (Plant::NoYield, Effect::Yield(_)) => None,
            (Plant::NoGate, Effect::Shut) => None,
            (Plant::NoGate, Effect::Open(_)) => Some(Effect::Open(None)),
            (Plant::NoReset, Effect::Reset { .. }) => None,
            (Plant::WordsLost, Effect::Word(from, word)) => {
                self.words += 1;
                (!self.words.is_multiple_of(200)).then_some(Effect::Word(from, word))
            }
            (
                Plant::RolesLost,
                Effect::Restore {
                    image,
                    settings,
                    members,
                },
            ) => {
                let demoted = |member: Vec<u8>| {
                    let text = String::from_utf8(member).unwrap();
                    let text = text.replace("\"host\"", "\"member\"");
                    text.replace("\"Host\"", "\"Member\"").into_bytes()
                };
                Some(Effect::Restore {
                    image,
                    settings,
                    members: members.into_iter().map(demoted).collect(),
                })
            }
            (
                Plant::MembersLost,
                Effect::Restore {
                    image, settings, ..
                },
            ) => Some(Effect::Restore {
                image,
                settings,
                members: vec![],
            }),
            (_, effect) => Some(effect),
        }
    }

    /// What becomes of a request.
    pub(super) fn plant_into(&mut self, ask: Ask) -> Ask {
        match (self.plant, ask) {
            (Plant::KickNotSaved, Ask::Save(me, mut saves, images)) => {
                for save in &mut saves {
                    save.removed.clear();
                }
                Ask::Save(me, saves, images)
            }
            (Plant::SettingsNotSaved, Ask::Save(me, mut saves, images)) => {
                for save in &mut saves {
                    if !self.saved.insert(save.room.to_string()) {
                        save.set.remove(SETTINGS);
                    }
                }
                Ask::Save(me, saves, images)
            }
            (Plant::NoImage, Ask::Save(me, saves, _)) => Ask::Save(me, saves, vec![]),
            (Plant::OtherBytes, Ask::Beat(me, None, mut drawn)) => {
                let mut rng = StdRng::seed_from_u64(me.bits());
                let secrets = Secrets::new(&["s".repeat(32).into()]).unwrap();
                let bytes: [u8; 32] = rng.random();
                drawn.truncate(MEMORY);
                drawn.extend(secrets.records(me).seal(rng.random(), &[b"mark"], &bytes));
                Ask::Beat(me, None, drawn)
            }
            (_, ask) => ask,
        }
    }
}

#[test]
#[ignore = "it takes as long as many seeds do"]
fn planted_faults_are_found() {
    let only = std::env::var("CALLBOX_PLANT").ok();
    for (plant, kind) in ALL {
        if only
            .as_ref()
            .is_some_and(|only| *only != format!("{plant:?}"))
        {
            continue;
        }
        let fails = |seed: &u64| {
            let run = || World::with(kind, *seed, plant).run();
            catch_unwind(AssertUnwindSafe(run)).is_err()
        };
        let found = (0..SEEDS).find(fails);
        eprintln!("{plant:?}: found with seed {found:?}");
        assert!(found.is_some(), "{plant:?} is not found");
    }
}
