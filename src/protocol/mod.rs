//! The wire protocol of signaling: messages, ids, limits, error and close codes.
//!
//! Pure: text in, types out, and back. It knows no rooms, sessions, sockets or clocks.

/// Defines an enum whose values have one fixed name on the wire each.
macro_rules! named {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order: `ALL[v as usize] == v`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of that name; `None` for any other text.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::from_name(&name)
                    .ok_or_else(|| serde::de::Error::custom(concat!("unknown ", stringify!($name))))
            }
        }
    };
}

mod client;
mod dialect;
mod exchange;
mod id;
pub mod schema;
mod server;

pub use client::{
    CallSignal, ClientMessage, Forward, FrameError, InviteRequest, Join, MAX_INVITE, Media, Path,
    Payload, Report, Request, RoomPatch, Transport, folds_to, is_deeper_than, parse,
};
pub use dialect::{DialectKind, is_foreign_room, room_name, room_of_lobby};
pub use exchange::{
    Addressed, Denied, ExchangeReply, ExchangeRequest, MAX_TOPIC, Publication, SubscriptionOptions,
    Takeover, Wish,
};
pub use id::{CallId, Locator, PeerId, ResumeToken};
pub use server::{
    Body, Entry, Ice, PeerView, Presence, Resumption, RoomView, ServerMessage, StateView,
    TransportPolicy, frame_len, write_frame, write_json_str,
};

#[cfg(test)]
pub(crate) use server::frame;

pub use crate::auth::{MAX_METADATA, MAX_METADATA_DEPTH, MAX_NAME};

use std::borrow::Cow;
use std::time::Duration;

/// The version that `welcome` announces.
pub const PROTOCOL_VERSION: u8 = 1;
/// Longest `id` of a request, bytes: room for a UUID with a prefix.
pub const MAX_ID: usize = 64;
/// Deepest nesting of a frame, whose own object is the first level: some decoders take no more.
pub const MAX_DEPTH: usize = 64;
/// Longest room password, bytes: beyond any passphrase that is typed.
pub const MAX_PASSWORD: usize = 256;
/// Longest `reason`, bytes: one line of text.
pub const MAX_REASON: usize = 256;

named! {
    /// The `type` of a client message.
    pub enum MessageType {
        /// Takes a name without entering a room.
        Register = "register",
        /// Enters a room.
        Join = "join",
        /// Takes a session over from a lost connection.
        Resume = "resume",
        /// Ends the session.
        Leave = "leave",
        /// Forwards an SDP offer.
        Offer = "offer",
        /// Forwards an SDP answer.
        Answer = "answer",
        /// Forwards an ICE candidate or the end of them.
        Candidate = "candidate",
        /// Rings an identity.
        Call = "call",
        /// Takes a call.
        Accept = "accept",
        /// Declines a call.
        Reject = "reject",
        /// Ends a call, or tells peers that media ends.
        Hangup = "hangup",
        /// Forwards anything.
        Message = "message",
        /// Merges into the peer's own state.
        State = "state",
        /// Marks a kind of media muted, or asks a peer to mute.
        Mute = "mute",
        /// The reverse of `mute`.
        Unmute = "unmute",
        /// Forwards a description of published tracks.
        Publish = "publish",
        /// Forwards a wish for tracks.
        Subscribe = "subscribe",
        /// Asks for the members of the room.
        List = "list",
        /// Asks for the rooms of the server.
        Rooms = "rooms",
        /// Asks for fresh TURN credentials.
        IceServers = "ice",
        /// Removes a member.
        Kick = "kick",
        /// Changes the room.
        Room = "room",
        /// Changes a member's role.
        Grant = "grant",
        /// Asks for an invitation to the room.
        Invite = "invite",
        /// Tells how a connection between peers went.
        Report = "report",
        /// Asks for a `pong`.
        Ping = "ping",
    }
}

named! {
    /// The `type` of a frame to a client.
    pub enum FrameType {
        /// A request was done.
        Ack = "ack",
        /// The reply to `invite`.
        Invited = "invited",
        /// Relayed.
        Candidate = "candidate",
        /// Relayed.
        Message = "message",
        /// Relayed.
        Offer = "offer",
        /// Relayed.
        Answer = "answer",
        /// Another peer's state, role or presence.
        PeerState = "peer-state",
        /// A newcomer.
        PeerJoined = "peer-joined",
        /// A peer is gone.
        PeerLeft = "peer-left",
        /// The reply to `ping`.
        Pong = "pong",
        /// A request was refused.
        Error = "error",
        /// Fresh TURN credentials.
        IceServers = "ice-servers",
        /// The first frame of a connection.
        Welcome = "welcome",
        /// The reply to `join`.
        Joined = "joined",
        /// The reply to `register`.
        Registered = "registered",
        /// The reply to `resume`.
        Resumed = "resumed",
        /// The reply to `leave`.
        Left = "left",
        /// A call rings.
        Call = "call",
        /// The reply to `call`.
        Calling = "calling",
        /// A call was accepted.
        Accept = "accept",
        /// A call was declined.
        Reject = "reject",
        /// A call or its media ended.
        Hangup = "hangup",
        /// Relayed.
        Publish = "publish",
        /// Relayed.
        Subscribe = "subscribe",
        /// A host asks to mute.
        Mute = "mute",
        /// A host asks to unmute.
        Unmute = "unmute",
        /// The reply to `list`.
        Peers = "peers",
        /// The reply to `rooms`.
        Rooms = "rooms",
        /// The room was changed.
        RoomUpdated = "room-updated",
        /// The operator's words.
        Notify = "notify",
        /// The receiver was removed.
        Kicked = "kicked",
        /// The server is shutting down.
        Draining = "draining",
    }
}

impl FrameType {
    /// The type under which a client's message reaches other clients; `None` if it never does.
    pub const fn relayed(kind: MessageType) -> Option<Self> {
        Some(match kind {
            MessageType::Offer => Self::Offer,
            MessageType::Answer => Self::Answer,
            MessageType::Candidate => Self::Candidate,
            MessageType::Message => Self::Message,
            MessageType::Publish => Self::Publish,
            MessageType::Subscribe => Self::Subscribe,
            MessageType::Call => Self::Call,
            MessageType::Accept => Self::Accept,
            MessageType::Reject => Self::Reject,
            MessageType::Hangup => Self::Hangup,
            MessageType::Mute => Self::Mute,
            MessageType::Unmute => Self::Unmute,
            _ => return None,
        })
    }
}

named! {
    /// The `code` of an `error`.
    pub enum ErrorCode {
        /// Not JSON.
        InvalidJson = "invalid-json",
        /// JSON, but not a message of its type.
        InvalidMessage = "invalid-message",
        /// A `type` that the server does not know.
        UnknownType = "unknown-type",
        /// A frame or field over its limit.
        TooLarge = "too-large",
        /// Too many messages; `retryAfter` says when to go on.
        RateLimited = "rate-limited",
        /// No token, or one that does not verify.
        Unauthorized = "unauthorized",
        /// A token past its `exp`.
        TokenExpired = "token-expired",
        /// Not within the sender's rights.
        Forbidden = "forbidden",
        /// The request needs a room (or at least a registration).
        NotInRoom = "not-in-room",
        /// The room, or the server, holds as many as it may.
        RoomFull = "room-full",
        /// The host has locked the room.
        RoomLocked = "room-locked",
        /// The room's password is missing or wrong.
        BadPassword = "bad-password",
        /// The target is absent.
        NoSuchPeer = "no-such-peer",
        /// The room does not exist.
        NoSuchRoom = "no-such-room",
        /// The call does not exist, or not for the sender.
        NoSuchCall = "no-such-call",
        /// Another session holds the identity.
        IdentityTaken = "identity-taken",
        /// The session to resume is gone.
        ResumeFailed = "resume-failed",
        /// `relayOnly` on a server without a relay.
        NoRelay = "no-relay",
        /// The server is shutting down.
        Draining = "draining",
        /// A fault of the server.
        Internal = "internal",
    }
}

named! {
    /// Why a peer left its room.
    pub enum LeaveReason {
        /// By its own `leave`, or by joining elsewhere.
        Left = "left",
        /// Its socket was lost and the resume window ended.
        Disconnected = "disconnected",
        /// A host or the operator removed it.
        Kicked = "kicked",
        /// A newer session of its identity took its place.
        Replaced = "replaced",
        /// Its socket fell silent and the resume window ended.
        Timeout = "timeout",
        /// The operator closed the room.
        RoomClosed = "room-closed",
        /// The server shut down.
        Draining = "draining",
    }
}

/// Status codes of a WebSocket close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// Nothing is wrong.
    Normal = 1000,
    /// The server shuts down.
    Draining = 1001,
    /// A frame against RFC 6455.
    ProtocolError = 1002,
    /// A text frame that is not UTF-8.
    BadUtf8 = 1007,
    /// Ten malformed frames in a row.
    Malformed = 1008,
    /// A frame over the limit.
    TooLarge = 1009,
    /// The node restarts or the room moves: a client resumes at once.
    Restart = 1012,
    /// The server cannot serve right now: a client resumes after a while.
    TryLater = 1013,
    /// No session within the deadline, or a token that does not verify.
    Unauthorized = 4001,
    /// Removed by a host or the operator.
    Kicked = 4002,
    /// The client does not read fast enough.
    SlowConsumer = 4003,
    /// Another connection or session took its place.
    Replaced = 4004,
    /// No pong within the deadline.
    HeartbeatTimeout = 4005,
    /// The client went on in spite of `rate-limited`.
    RateLimited = 4006,
    /// The operator closed the room.
    RoomClosed = 4007,
}

impl CloseCode {
    /// Every code.
    pub const ALL: &'static [Self] = &[
        Self::Normal,
        Self::Draining,
        Self::ProtocolError,
        Self::BadUtf8,
        Self::Malformed,
        Self::TooLarge,
        Self::Restart,
        Self::TryLater,
        Self::Unauthorized,
        Self::Kicked,
        Self::SlowConsumer,
        Self::Replaced,
        Self::HeartbeatTimeout,
        Self::RateLimited,
        Self::RoomClosed,
    ];

    /// The code of that number; `None` for any other number.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|known| *known as u16 == code)
    }
}

/// Why a request was not granted: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError {
    /// Machine-readable reason.
    pub code: ErrorCode,
    /// One sentence for a developer's eyes.
    pub message: Cow<'static, str>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
}

impl RequestError {
    /// Refuses for good.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Refuses with `rate-limited` until `retry_after` has passed.
    pub fn slow_down(retry_after: Duration) -> Self {
        Self {
            code: ErrorCode::RateLimited,
            message: "too many requests".into(),
            retry_after: Some(retry_after),
        }
    }
}
