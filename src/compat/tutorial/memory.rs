//! What is remembered of a client, for the process that goes on with it.

use super::super::memory;
use super::{Form, MAX_HELD, MAX_JOINING, Tutorial};
use crate::protocol::{DialectKind, PeerId};
use serde::{Deserialize, Serialize};
use std::time::Instant;

#[derive(Serialize, Deserialize)]
struct Memory {
    speaks: Option<DialectKind>,
    peer: Option<PeerId>,
    room: Option<String>,
    heading: Option<String>,
    name: Option<String>,
    form: Option<Form>,
    partner: Option<String>,
    joining: Vec<(String, bool)>,
    joins: u64,
    entering: bool,
    /// Each with the milliseconds for which it is still held.
    held: Vec<(u64, String, String)>,
}

impl Tutorial {
    pub(super) fn to_memory(&self, now: Instant) -> Option<String> {
        let held = self.held.iter();
        memory::write(&Memory {
            speaks: self.speaks,
            peer: self.peer,
            room: self.room.clone(),
            heading: self.heading.clone(),
            name: self.name.clone(),
            form: self.form,
            partner: self.partner.clone(),
            joining: self.joining.iter().cloned().collect(),
            joins: self.joins,
            entering: self.entering,
            held: held
                .map(|(at, peer, text)| (memory::left(*at, now), peer.clone(), text.clone()))
                .collect(),
        })
    }

    /// The translator of an earlier process.
    ///
    /// # Errors
    /// The memory is not one.
    pub(in crate::compat) fn remembered(text: &str, now: Instant) -> Result<Self, String> {
        let memory: Memory = memory::read(text)?;
        let held = memory.held.into_iter().take(MAX_HELD);
        Ok(Self {
            speaks: memory.speaks,
            peer: memory.peer,
            // Absent in what earlier versions wrote.
            heading: memory.heading.or_else(|| memory.room.clone()),
            room: memory.room,
            name: memory.name,
            form: memory.form,
            partner: memory.partner,
            joining: memory.joining.into_iter().take(MAX_JOINING).collect(),
            joins: memory.joins.min(1 << 32),
            entering: memory.entering,
            held: held
                .map(|(left, peer, text)| (memory::at(left, now), peer, text))
                .collect(),
        })
    }
}
