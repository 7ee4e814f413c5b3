//! What the hub and its shell say to each other.

use super::notice::Notice;
use super::rules::Policy;
use crate::auth::Grant;
use crate::protocol::{
    Addressed, Body, ClientMessage, CloseCode, DialectKind, ExchangeReply, FrameError, FrameType,
    PeerId, Publication, Report, RequestError,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names one socket, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The time of an input.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For stamps and credentials: Unix milliseconds.
    pub unix_ms: u64,
}

/// What a token allows, or why it allows nothing; `None` stands for [`Grant::open`]. Boxed, as it is larger
/// than everything else that a frame brings, and few frames bring one.
pub type Granted = Option<Box<Result<Grant, RequestError>>>;

/// The rights themselves.
pub(in crate::signal) fn granted(grant: Granted) -> Result<Grant, RequestError> {
    grant.map_or_else(|| Ok(Grant::open()), |grant| *grant)
}

/// What happens to the hub.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every input is the large one"
)]
pub enum Input {
    /// A socket was opened.
    Connected {
        /// Which.
        conn: ConnId,
        /// The far end, proxies seen through.
        client: IpAddr,
        /// What it speaks.
        dialect: DialectKind,
        /// Those of one lobby are called together by the first of them that speaks; `None` for a
        /// client that names its rooms.
        lobby: Option<Arc<str>>,
    },
    /// A frame arrived.
    Frame {
        /// On which socket.
        conn: ConnId,
        /// What it says.
        message: Result<ClientMessage, FrameError>,
        /// What the frame's or the connection's token allows. Looked at only where
        /// [`ClientMessage::wants_grant`].
        grant: Granted,
    },
    /// The client has everything up to `seq`: the pong to a ping before which that was the last
    /// number sent. The shell forgets a ping's number when it sends a frame numbered 1, which
    /// begins another session of the same peer on the same socket.
    Confirmed {
        /// On which socket.
        conn: ConnId,
        /// Whose session has that number: the socket may carry another one by now.
        peer: PeerId,
        /// The last number sent before the ping.
        seq: u64,
    },
    /// The client answered an [`Event::Probe`].
    Alive {
        /// On which socket.
        conn: ConnId,
    },
    /// A socket is gone, for whatever reason but [`Effect::Close`].
    Closed {
        /// Which.
        conn: ConnId,
        /// How it was found.
        loss: Loss,
    },
    /// No newcomers from here on; everything ends at `grace_ends`.
    Drain {
        /// When.
        grace_ends: Instant,
        /// Whether clients have somewhere else to go at once.
        alternate: bool,
    },
}

/// How a socket was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It was closed, by whichever side.
    Disconnected,
    /// It fell silent past the heartbeat's deadline.
    Timeout,
}

/// What the hub has for a client. The client's connection puts it into the words of its protocol;
/// whatever is large is shared by all receivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A frame of the native protocol, which other dialects read too.
    Native(Body),
    /// What somebody sent to a topic.
    Published {
        /// Shared by all subscribers.
        publication: Arc<Publication>,
        /// How many there are.
        clients: u32,
        /// With which quality of service.
        qos: u8,
    },
    /// What somebody sent to the client's name.
    Addressed {
        /// The sender's name.
        from: Arc<str>,
        /// What.
        message: Arc<Addressed>,
    },
    /// An answer, or what else concerns topics and names.
    Exchange(Box<ExchangeReply>),
    /// Asks for a sign of life: the connection pings, and its pong is an [`Input::Alive`].
    Probe,
}

impl Event {
    /// Bytes that the event takes up while it waits.
    pub fn cost(&self) -> usize {
        match self {
            Self::Native(body) => body.len(),
            Self::Published { publication, .. } => publication.cost(),
            Self::Addressed { from, message } => from.len() + message.cost(),
            Self::Exchange(reply) => reply.cost(),
            Self::Probe => 0,
        }
    }

    /// What metrics count it as.
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Native(body) => body.kind(),
            Self::Published { .. } => FrameType::Publish,
            Self::Addressed { .. } => FrameType::Message,
            Self::Exchange(reply) => match **reply {
                ExchangeReply::Ice(_) => FrameType::IceServers,
                ExchangeReply::Taken | ExchangeReply::Absent { .. } => FrameType::Error,
                _ => FrameType::Ack,
            },
            Self::Probe => FrameType::Pong,
        }
    }
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sends an event; a native one as [`crate::protocol::write_frame`]`(seq, body)` writes it.
    Send {
        /// On which socket.
        conn: ConnId,
        /// Whose.
        peer: PeerId,
        /// The number in the session; `None` outside of one.
        seq: Option<u64>,
        /// What it is told.
        event: Event,
    },
    /// Counts how a connection between peers went.
    Report(Report),
    /// Tells the application's backend and the operator; none where nobody listens.
    Notice(Box<Notice>),
    /// Tells the operator that a client found no place in a topic, of which its protocol cannot tell it.
    NoTopic {
        /// The protocol.
        dialect: DialectKind,
    },
    /// Reads nothing more from the socket until then: its client has sent others enough for now.
    Hold {
        /// Which.
        conn: ConnId,
        /// When its client may go on.
        until: Instant,
    },
    /// Closes the socket once what was sent before is out. The hub has forgotten it already.
    Close {
        /// Which.
        conn: ConnId,
        /// With which status.
        code: CloseCode,
        /// For the close frame.
        reason: &'static str,
    },
    /// Closes the relays of a user and refuses its credentials up to an expiry.
    Revoke {
        /// The `<user>` of its credentials.
        user: PeerId,
        /// The highest expiry minted for it, Unix seconds.
        revoked_until: u64,
        /// Where it came from: it pays for the entry.
        network: IpAddr,
    },
    /// The same for all that a person, named by a token, was given outside of sessions.
    RevokeIdentity {
        /// The name.
        identity: Arc<str>,
        /// Where its session came from: it pays for the entry.
        network: IpAddr,
    },
}

/// What the operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Members of a room at most.
    pub max_peers: u32,
    /// Rooms at most.
    pub max_rooms: usize,
    /// Sessions at most, those away included.
    pub max_sessions: usize,
    /// Sessions of one network ([`NetworkCounts`](crate::network::NetworkCounts)) at most, those away
    /// included: connections are counted by the shell, but a session outlives its connection.
    pub sessions_per_network: u32,
    /// Direct calls at most, ringing or answered.
    pub max_calls: usize,
    /// What a second session of an identity in a room does.
    pub unique_identity: UniqueIdentity,
    /// Whether everyone may list rooms.
    pub list_rooms: bool,
    /// Announced in `welcome`; the shell does the pinging.
    pub heartbeat: Duration,
    /// How long a session outlives its socket.
    pub resume_window: Duration,
    /// How long a socket may go without a session.
    pub join_deadline: Duration,
    /// Bytes of unconfirmed frames kept for one session.
    pub ring: usize,
    /// Bytes of unconfirmed frames kept in all.
    pub ring_total: usize,
    /// Messages a second from one connection; 0 for no limit. Bursts of ten times that pass.
    pub rate: u32,
    /// Candidates a second from one connection, likewise.
    pub candidate_rate: u32,
    /// The URL of the call page, which invitations are links to.
    pub page: String,
    /// Whether invitations hold tokens; in open mode a link is enough.
    pub invite_tokens: bool,
    /// Bytes a second that one connection may send to others; 0 for no limit.
    pub byte_rate: u64,
    /// Bytes that it may send at once.
    pub byte_burst: u64,
    /// What members may send, and whom they may call.
    pub policy: Policy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_peers: 50,
            max_rooms: 10_000,
            max_sessions: 200_000,
            sessions_per_network: 1_000,
            max_calls: 50_000,
            unique_identity: UniqueIdentity::Allow,
            list_rooms: false,
            heartbeat: Duration::from_secs(25),
            resume_window: Duration::from_secs(30),
            join_deadline: Duration::from_secs(10),
            ring: 64 * 1024,
            ring_total: 256 * 1024 * 1024,
            rate: 100,
            candidate_rate: 50,
            page: "http://localhost/".into(),
            invite_tokens: true,
            byte_rate: 256 * 1024,
            byte_burst: 128 * 1024,
            policy: Policy::default(),
        }
    }
}

/// What a second session of an identity in a room does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniqueIdentity {
    /// It is welcome.
    Allow,
    /// It pushes the older one out.
    Replace,
    /// It is refused.
    Reject,
}
