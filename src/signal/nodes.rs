//! What the nodes of a cluster say to each other of connections and sessions, and what signaling asks
//! of whatever carries it.

use super::hub::{ConnId, EndedSession, Loss};
use crate::protocol::{CloseCode, DialectKind, FrameType, Locator, PeerId, Publication};
use std::net::IpAddr;
use std::sync::Arc;

/// One run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// What is sought: the node whose hub has it, or would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// A room.
    Room(Arc<str>),
    /// Those who are registered and in no room, and the names that clients of all nodes share.
    People,
    /// What a resume token names.
    Located(Locator),
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// At this node.
    Here,
    /// At another one.
    There(NodeId),
    /// Nobody can say at the moment.
    Nowhere,
}

/// What carries words between nodes and knows who is where. Its methods are called under the lock of
/// the hub and do not wait.
pub trait Nodes: Send + Sync {
    /// Whether inputs may be taken: other nodes cannot have this one's rooms yet.
    fn is_open(&self) -> bool;
    /// Whether nobody is served for as long as Redis is away.
    fn has_stopped(&self) -> bool {
        false
    }
    /// Whether the images of all rooms are taken: what sessions get from here on, they get where they resume.
    fn has_handed(&self) -> bool {
        false
    }
    /// Finds the node for a connection; the answer comes to [`Driver::found`](super::Driver::found).
    fn seek(&self, conn: ConnId, sought: &Sought);
    /// A connection does not wait for what it sought any more.
    fn unsought(&self, _conn: ConnId) {}
    /// Sends a word to another node, behind those before it.
    fn say(&self, node: NodeId, word: Word);
    /// Sends a word to all other nodes, where there are some.
    fn say_all(&self, _word: &Word) {}
    /// Whether so little waits for a node that more may be said to it.
    fn is_light(&self, node: NodeId) -> bool;
    /// The hub has changes to be saved.
    fn changed(&self);
    /// Asks all other nodes for their rooms; those of the nodes that have answered come to
    /// [`Driver::other_rooms`](super::Driver::other_rooms).
    fn list_rooms(&self) {}
}

/// One thing that a node says. A `vconn` is the number of a connection at the node that has its socket,
/// which is the *edge*; the node that has its session is the *home*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Edge to home: a connection wants a session there.
    Enter {
        /// Which.
        vconn: u64,
        /// Its peer id.
        peer: PeerId,
        /// The far end.
        client: IpAddr,
        /// What it speaks.
        dialect: DialectKind,
        /// The highest expiry of credentials that were revoked from its peer id.
        revoked_until: Option<u64>,
        /// What stands for the room, so that the home looks whether it is its home.
        place: Locator,
        /// What the client asks.
        frame: Frame,
    },
    /// Edge to home: its client says something in its session.
    Frame {
        /// On which connection.
        vconn: u64,
        /// Its number on this connection.
        number: u64,
        /// What.
        frame: Frame,
    },
    /// Edge to home: after the link was reset, how far a connection is.
    Attach {
        /// What the reset has begun.
        generation: u32,
        /// Which.
        vconn: u64,
        /// Whose session it has.
        peer: PeerId,
        /// The last number that went to the client.
        seq: u64,
        /// Frames that went to the client and that no ring keeps.
        received: u64,
        /// Frames of the client that went to the home.
        said: u64,
    },
    /// Edge to home: connections of before the reset that it has not named are gone.
    AllNamed {
        /// What the reset has begun.
        generation: u32,
    },
    /// Home to edge: the connection goes on, and what it lacks follows.
    Attached {
        /// Which.
        vconn: u64,
    },
    /// Home to edge: something is lost that nobody can repeat, and the session waits for a `resume`.
    Detached {
        /// Which.
        vconn: u64,
    },
    /// Edge to home: the client has everything up to that number.
    Confirmed {
        /// On which connection.
        vconn: u64,
        /// Whose session has the number.
        peer: PeerId,
        /// The number.
        seq: u64,
    },
    /// Edge to home: the connection is gone.
    Closed {
        /// Which.
        vconn: u64,
        /// How it was found.
        loss: Loss,
    },
    /// Edge to home: the connection has a session at another node from here on.
    Leave {
        /// Which.
        vconn: u64,
    },
    /// Edge to home: the client of a connection that wants a session there does not wait any more, and
    /// has got nothing of such a session: it ends at once, and nothing of it is revoked, as the client may
    /// have another one under the same peer id.
    Cancel {
        /// Which.
        vconn: u64,
    },
    /// Home to edge: the connection has a session, and its first frame follows.
    Entered {
        /// Which.
        vconn: u64,
        /// Whose session it is.
        peer: PeerId,
        /// The name of its client.
        identity: Option<String>,
        /// Its room.
        room: Option<String>,
    },
    /// Home to edge: the connection has got an answer and no session; all is as it was.
    Refused {
        /// Which.
        vconn: u64,
    },
    /// Home to edge: the room of an `Enter` is not at this node.
    Astray {
        /// Which connection.
        vconn: u64,
        /// What stands for the room.
        place: Locator,
    },
    /// Home to edge: a frame for clients of that edge, once for all of them.
    Send {
        /// Its type.
        kind: FrameType,
        /// What the client speaks whose message it is.
        sender: Option<DialectKind>,
        /// The text without a number.
        text: Arc<str>,
        /// To which connections, of whose sessions, with which numbers.
        to: Vec<Target>,
    },
    /// Home to edge: something that is no frame of the native protocol, for one client.
    Event {
        /// On which connection.
        vconn: u64,
        /// Its peer id.
        peer: PeerId,
        /// The event, as JSON.
        text: String,
    },
    /// Home to edge: the client is not to be read for that long.
    Hold {
        /// On which connection.
        vconn: u64,
        /// Milliseconds.
        ms: u64,
    },
    /// Home to edge: the connection ends behind what was sent before.
    Close {
        /// Which.
        vconn: u64,
        /// With which status.
        code: CloseCode,
        /// For the close frame.
        reason: String,
    },
    /// Home to edge: the session has ended and the connection has not; what is revoked of it.
    Left {
        /// Which.
        vconn: u64,
        /// The highest expiry that was revoked.
        revoked_until: Option<u64>,
    },
    /// To all: the relays of a user end, and its credentials are refused up to an expiry.
    Revoke {
        /// The user.
        user: String,
        /// The expiry.
        until: u64,
    },
    /// To all: after Redis has forgotten, this node has written its rooms again.
    Settled,
    /// To all: something was published, for those who have subscribed its topic there.
    Published {
        /// The dialect whose topic it is.
        realm: DialectKind,
        /// What.
        publication: Arc<Publication>,
    },
    /// To all: a session was ended, and its client may come to resume it.
    Ended(EndedSession),
    /// A request of an operator that this node is to carry out.
    Ask {
        /// Names the answer.
        id: u64,
        /// As the HTTP surface writes it.
        question: String,
    },
    /// What came of an [`Word::Ask`].
    Answer {
        /// Of the question.
        id: u64,
        /// As the HTTP surface writes it.
        answer: String,
    },
}

/// A message of a client, as its node has read and judged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message, as [`ClientMessage::to_text`](crate::protocol::ClientMessage::to_text) writes it.
    pub text: String,
    /// The room, where no text can name it.
    pub room: Option<String>,
    /// Which client of a foreign protocol this turned out to be.
    pub dialect: Option<DialectKind>,
    /// The grant, as JSON; `None`: the token allows nothing, or nobody looks at it.
    pub grant: Option<String>,
}

/// A receiver of [`Word::Send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The connection.
    pub vconn: u64,
    /// Whose session.
    pub peer: PeerId,
    /// The number in the session; `None` outside of one.
    pub seq: Option<u64>,
}
