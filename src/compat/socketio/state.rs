//! What one connection is about, and all that is remembered of it for the process that goes on with
//! it.

use super::super::memory;
use super::super::tutorial::Tutorial;
use super::engine::Revision;
use super::{ATTACHED_WITHIN, Held, Profile, SocketIo};
use crate::signal::{Dialect, Message};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// How a connection begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opening {
    /// The version of Engine.IO.
    pub revision: Revision,
    /// The session of Engine.IO. Clients of version 3 show it to each other, so that it is the
    /// peer id where there is none.
    pub sid: Option<String>,
    /// Whether a WebSocket may take over.
    pub upgrades: bool,
    /// What the application expects.
    pub profile: Profile,
    /// The largest body, bytes.
    pub max_payload: usize,
    /// The announced address, for a tutorial that asks for it.
    pub address: Option<Arc<str>>,
    /// Whether the token is kept for joins: the box asks for tokens. Absent in what earlier versions
    /// wrote, which kept every token.
    #[serde(default = "is_kept")]
    pub keeps_token: bool,
}

fn is_kept() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Nothing was said.
    Fresh,
    /// The hub has yet to accept it.
    Opening,
    /// Connected to `/`.
    Connected,
    /// Disconnected from `/`; it may connect again.
    Left,
}

/// An event whose attachments have not all come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Partial {
    /// Nothing for an acknowledgement, of which nobody wants to know.
    pub(super) event: Option<(String, Option<u64>)>,
    pub(super) wanted: usize,
    pub(super) attachments: Vec<Vec<u8>>,
}

/// A join without an answer yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Joining {
    pub(super) id: String,
    pub(super) room: String,
    pub(super) ack: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) user: String,
}

#[derive(Serialize, Deserialize)]
struct Memory {
    opening: Opening,
    phase: Phase,
    is_accepted: bool,
    early: u32,
    me: String,
    token: Option<String>,
    /// Milliseconds until each is due.
    connect_by: Option<u64>,
    ping_at: Option<u64>,
    heard_by: Option<u64>,
    next_ping: Option<u64>,
    partial: Option<Partial>,
    attached_by: Option<u64>,
    room: Option<String>,
    joining: Option<Joining>,
    /// Absent in what earlier versions wrote.
    #[serde(default)]
    held: Vec<Message>,
    joins: u32,
    members: Vec<Member>,
    partners: Vec<String>,
    /// [`Dialect::memory`] of the tutorial's translator.
    tutorial: Option<String>,
    has_moved: bool,
}

impl SocketIo {
    pub(super) fn to_memory(&self, now: Instant) -> Option<String> {
        let left = |at: Option<Instant>| at.map(|at| memory::left(at, now));
        let tutorial = match &self.tutorial {
            None => None,
            Some(tutorial) => Some(tutorial.memory(now)?),
        };
        memory::write(&Memory {
            opening: self.opening.clone(),
            phase: self.phase,
            is_accepted: self.is_accepted,
            early: self.early,
            me: self.me.clone(),
            token: (self.token.as_ref()).map(|token| token.expose_secret().to_owned()),
            connect_by: left(self.connect_by),
            ping_at: left(self.ping_at),
            heard_by: left(self.heard_by),
            next_ping: left(self.next_ping),
            partial: self.partial.clone(),
            attached_by: left(self.attached_by),
            room: self.room.clone(),
            joining: self.joining.clone(),
            held: self.held.messages(),
            joins: self.joins,
            members: self.members.clone(),
            partners: self.partners.clone(),
            tutorial,
            has_moved: self.has_moved,
        })
    }

    /// The translator of an earlier process.
    ///
    /// # Errors
    /// The memory is not one.
    pub(in crate::compat) fn remembered(text: &str, now: Instant) -> Result<Self, String> {
        let memory: Memory = memory::read(text)?;
        let at = |left: Option<u64>| left.map(|left| memory::at(left, now));
        let tutorial = match &memory.tutorial {
            None => None,
            Some(tutorial) => Some(Box::new(Tutorial::remembered(tutorial, now)?)),
        };
        Ok(Self {
            opening: memory.opening,
            phase: memory.phase,
            is_accepted: memory.is_accepted,
            early: memory.early.min(1 << 20),
            me: memory.me,
            token: memory.token.map(SecretString::from),
            connect_by: at(memory.connect_by),
            ping_at: at(memory.ping_at),
            heard_by: at(memory.heard_by),
            next_ping: at(memory.next_ping),
            // An earlier version set no time.
            attached_by: at(memory.attached_by)
                .or_else(|| memory.partial.as_ref().map(|_| now + ATTACHED_WITHIN)),
            partial: memory.partial,
            room: memory.room,
            joining: memory.joining,
            held: Held::of(memory.held),
            joins: memory.joins,
            members: memory.members,
            partners: memory.partners,
            tutorial,
            has_moved: memory.has_moved,
        })
    }

    /// How the connection began.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }
}
