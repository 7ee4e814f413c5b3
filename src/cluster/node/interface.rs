//! What a node and its shell say to each other.

use super::super::Incarnation;
use super::super::link::{BatchId, Reset};
use super::super::membership::{Beat, Isolated};
use super::super::ownership::{Claimed, Key};
use super::super::redis::Save;
use super::super::seal::Secrets;
use crate::signal::hub::ConnId;
use crate::signal::{Found, Sought, Word};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a node runs by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seal what it says and stores.
    pub secrets: Secrets,
    /// How long a node lives on without a sign of life.
    pub lease: Duration,
    /// What it does without Redis.
    pub isolated: Isolated,
}

/// A room whose record is to be saved, or that is gone: what has changed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The room.
    pub room: Arc<str>,
    /// Whether there still is such a room.
    pub exists: bool,
    /// The fields that have changed; `None`: the field goes.
    pub fields: Vec<(String, Option<Vec<u8>>)>,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// The inbox of an incarnation is listened to.
    Listening(Incarnation),
    /// The subscription was interrupted.
    Deaf,
    /// An attempt to listen that was begun then has failed: no beat is sent before one succeeds.
    Unreached(Instant),
    /// A beat that was sent then was answered.
    Beat(Instant, Beat),
    /// A beat that was sent then was not.
    BeatFailed(Instant),
    /// The next beat was answered on another connection than the last one.
    Reconnected,
    /// Another node of this one's name was found, with that count.
    Namesake(Incarnation, u64),
    /// Whether a node is buried; `None`: Redis did not answer.
    Buried(Incarnation, Option<bool>),
    /// A claim was answered; `None`: Redis did not answer.
    Claimed(u64, Key, Option<Claimed>),
    /// What Redis has under the name of a room is not a room's record.
    Unclaimable(u64, Key),
    /// What [`Effect::Take`] has taken.
    Taken(Vec<Record>),
    /// Of each save whether this node still is the home; `None`: Redis did not answer.
    Saved(Option<Vec<bool>>),
    /// A batch was published to so many.
    Published(Incarnation, BatchId, u64),
    /// Batches of that era were not published.
    PublishFailed(u64),
    /// A batch has arrived.
    Received(Vec<u8>),
    /// A connection needs the home of something.
    Seek(ConnId, Sought),
    /// It does not any more.
    Unsought(ConnId),
    /// Something is said to another node.
    Say(Incarnation, Word),
    /// Something is said to all other nodes.
    SayAll(Word),
    /// The answer to a question of a node is there.
    Answer(Incarnation, u64, String),
    /// So much was to be said to a node that something is lost.
    Full(Incarnation),
    /// Signaling has changes to be saved.
    Changed,
    /// All rooms are to be given up, for other nodes to have them.
    GiveUp,
}

/// What the shell has to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Listens to the inbox of an incarnation, and to no other.
    Listen(Incarnation),
    /// Sends a beat.
    Beat {
        /// Whose.
        me: Incarnation,
        /// The memory of the store in which it has registered.
        known: Option<Vec<u8>>,
        /// One for a store that has none.
        drawn: Vec<u8>,
    },
    /// Buries a node whose count is that.
    Bury(Incarnation, u64, Vec<u8>),
    /// Claims a room, on the connection on which the last beat was answered and no other.
    Claim {
        /// Names the claim.
        ticket: u64,
        /// For whom.
        me: Incarnation,
        /// The room.
        room: Key,
        /// Whose it may be.
        expected: Option<Incarnation>,
    },
    /// Takes what has changed of rooms, and looks whether those rooms are there.
    Take {
        /// The rooms.
        fresh: Vec<Arc<str>>,
        /// Whether whole images are taken, as the rooms are given up.
        gives: bool,
    },
    /// Notes all of a room as changed.
    NoteAll(Arc<str>),
    /// Saves.
    Save {
        /// Whose rooms they are.
        me: Incarnation,
        /// What is saved.
        saves: Vec<Save>,
        /// Images of rooms that are given up with these saves; they go first.
        images: Vec<(Key, Vec<u8>)>,
    },
    /// Publishes a batch, behind those before it.
    Publish {
        /// To whom.
        to: Incarnation,
        /// Names it in its answer.
        id: BatchId,
        /// What.
        batch: Arc<[u8]>,
        /// Names what fails together.
        era: u64,
    },
    /// Where something is.
    Found(ConnId, Found),
    /// A room is this node's from here on, with the settings and members that its last home saved.
    Restore {
        /// The whole room, where it was given up in order.
        image: Option<Vec<u8>>,
        /// Its settings with its name.
        settings: Vec<u8>,
        /// Its members.
        members: Vec<Vec<u8>>,
    },
    /// A room's record cannot be read, and the room stays nobody's.
    Unreadable(Key),
    /// A room is another node's from here on.
    Yield(Arc<str>),
    /// A word of another node.
    Word(Incarnation, Word),
    /// A node is gone for good, and what was on the way to and from it is lost.
    Lost(Incarnation),
    /// The link to a node was reset: what was on the way may be lost, and both go on.
    Reset {
        /// To which.
        node: Incarnation,
        /// Names what both ends say from here on.
        generation: u32,
    },
    /// Rooms are found by these bytes from here on.
    Located([u8; 32]),
    /// Inputs are taken until then; `None`: as long as nothing else is said.
    Open(Option<Instant>),
    /// No inputs are taken.
    Shut,
    /// Every connection is to be closed: the node may not serve.
    Stop,
    /// The node has registered: it may serve.
    Joined,
    /// The store is of a cluster with another secret.
    Foreign,
    /// It is not, after all.
    Familiar,
}

/// What a node shows of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Whether Redis has answered within the lease.
    pub up: bool,
    /// Whether it serves without Redis.
    pub isolated: bool,
    /// Nodes that live, this one included.
    pub nodes: usize,
    /// What is left of the lease.
    pub lease: Duration,
    /// Rooms of this node.
    pub rooms: usize,
    /// Bytes that wait for Redis.
    pub link_bytes: usize,
    /// Resets of links so far, in the order of [`Reset::ALL`].
    pub resets: [u64; Reset::ALL.len()],
    /// Rooms that were another node's.
    pub takeovers: u64,
    /// Rooms that are another node's now.
    pub yields: u64,
    /// Rooms that were given up in order.
    pub handovers: u64,
}
