//! What the application and the operator are told, and whose messages are traced.

use crate::auth::Role;
use crate::protocol::{CallId, LeaveReason, MessageType, PeerId, Report};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Something that happened in rooms or calls. It is serialised as the event that is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Notice {
    /// A room has its first member.
    RoomStarted {
        /// Its name.
        room: Arc<str>,
    },
    /// A room has lost its last member.
    RoomEnded {
        /// Its name.
        room: Arc<str>,
        /// How long it was there.
        seconds: u64,
    },
    /// A peer is a member.
    PeerJoined {
        /// Of this room.
        room: Arc<str>,
        /// The session.
        peer_id: PeerId,
        /// Its name.
        identity: Arc<str>,
        /// Its role at first.
        role: Role,
    },
    /// A peer is a member no longer.
    PeerLeft {
        /// Of this room.
        room: Arc<str>,
        /// The session.
        peer_id: PeerId,
        /// Its name.
        identity: Arc<str>,
        /// Why.
        reason: LeaveReason,
    },
    /// A call rings.
    CallStarted {
        /// Which.
        call_id: CallId,
        /// Who calls.
        from: Party,
        /// Whom: an identity or a peer id.
        to: Arc<str>,
    },
    /// A call is over.
    CallEnded {
        /// Which.
        call_id: CallId,
        /// Who called.
        from: Party,
        /// Whom: an identity or a peer id.
        to: Arc<str>,
        /// Who answered, if anybody did.
        answered_by: Option<Party>,
        /// How long the parties could talk.
        seconds: u64,
        /// `hangup`, `cancelled`, `rejected`, `timeout`, `disconnected` or `draining`.
        reason: &'static str,
    },
    /// A client has told how a connection went.
    Report {
        /// Its session.
        peer_id: PeerId,
        /// Its name.
        identity: Arc<str>,
        /// Its room.
        room: Option<Arc<str>>,
        /// What it told.
        #[serde(flatten)]
        report: Report,
    },
    /// A client of a traced room, or a traced client, has sent a message.
    Message {
        /// The type of the message.
        message: MessageType,
        /// The sender.
        from: PeerId,
        /// Its name.
        identity: Arc<str>,
        /// Its room, before or after the message.
        room: Option<Arc<str>>,
        /// The first receivers.
        to: Vec<PeerId>,
        /// All receivers.
        receivers: usize,
        /// Bytes that each receiver gets.
        size: usize,
        /// The sender got an error.
        refused: bool,
    },
}

/// One side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// The session.
    pub peer_id: PeerId,
    /// Its name.
    pub identity: Arc<str>,
}

/// Whose messages are traced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Those within a room.
    Room(Arc<str>),
    /// Those of a peer, by peer id or identity.
    Peer(Arc<str>),
}

impl Subject {
    /// Whether `notice` is a message of this subject.
    pub fn fits(&self, notice: &Notice) -> bool {
        let Notice::Message {
            from,
            identity,
            room,
            to,
            ..
        } = notice
        else {
            return false;
        };
        match self {
            Self::Room(name) => room.as_ref() == Some(name),
            Self::Peer(name) => {
                let id = PeerId::parse(name);
                identity == name || id.is_some_and(|id| id == *from || to.contains(&id))
            }
        }
    }
}
