//! What dialects without rooms ask of the hub, and what the hub has for them: topics that anyone
//! may subscribe, and names that one connection has at a time.

use crate::auth::credential::IceServers;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// The longest topic, bytes of UTF-8: names are often URLs or hashes.
pub const MAX_TOPIC: usize = 512;

/// A request of a dialect that works with topics or names. Where it has an `id` other than 0, an
/// [`ExchangeReply`] with that `id` answers it.
#[derive(Debug)]
pub enum ExchangeRequest {
    /// Presents the token that was sent inside the protocol, or else the connection's own. Nothing
    /// else is done for a connection before.
    Open {
        /// A token that goes before the connection's own.
        token: Option<SecretString>,
        /// The name that the client is about to claim.
        name: Option<String>,
    },
    /// Subscribes topics.
    Subscribe {
        /// For the reply.
        id: u16,
        /// Which, and how.
        topics: Vec<Wish>,
    },
    /// Ends subscriptions.
    Unsubscribe {
        /// For the reply.
        id: u16,
        /// Of which topics.
        topics: Vec<Arc<str>>,
    },
    /// Sends to all subscribers of a topic, the sender included if it is one.
    Publish {
        /// For the reply.
        id: u16,
        /// What.
        publication: Arc<Publication>,
    },
    /// Sets what is published when the connection is lost; `None` when nothing is.
    Will(Option<Arc<Publication>>),
    /// Takes a name, or takes it over.
    Claim {
        /// The name.
        name: String,
        /// What proves, to the next claim, that it comes from the same client. Where a token names
        /// the client, that is the proof.
        proof: u128,
        /// What becomes of the connection that has the name and proved the same.
        takeover: Takeover,
    },
    /// Gives the name back; the connection stays.
    Release,
    /// Sends to who has a name.
    Send {
        /// The name.
        to: Arc<str>,
        /// What.
        message: Arc<Addressed>,
        /// Whether the message waits a little for a name that nobody has.
        parks: bool,
    },
    /// Asks for TURN credentials, now and whenever they are to be renewed.
    Ice,
    /// A message that asks for nothing: it counts against the rate.
    Idle,
    /// As [`Self::Idle`], where the server's own ping or pace has called for it: a client that waits
    /// says it again and again.
    Alive,
}

/// A wish for a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The topic.
    pub topic: Arc<str>,
    /// How publications are wanted.
    pub options: SubscriptionOptions,
    /// The room that the topic is, if it is one: its members alone may subscribe.
    pub room: Option<Arc<str>>,
    /// Whether it was refused on the way to the hub, which answers so.
    pub is_refused: bool,
}

/// How a subscriber wants publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubscriptionOptions {
    /// The highest quality of service.
    pub qos: u8,
    /// Without the subscriber's own.
    pub no_local: bool,
}

/// Whom a name is for, and what becomes of the connection from which it is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// All clients share the names, as they send to them; the older connection goes on, without the
    /// name.
    Shared,
    /// Each identity, or each network where there is none, has names of its own; the older
    /// connection is closed.
    Private,
}

/// What is sent to a topic: made once, shared by all subscribers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The topic.
    pub topic: Arc<str>,
    /// Properties, in the words of the dialect.
    pub properties: Box<[u8]>,
    /// The message, in the words of the dialect.
    pub payload: Box<[u8]>,
    /// The quality of service that its sender asked for.
    pub qos: u8,
    /// The room that the topic is, if it is one: its members alone may publish.
    #[serde(default)]
    pub room: Option<Arc<str>>,
}

impl Publication {
    /// Bytes that it takes up.
    pub fn cost(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// What is sent to a name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed {
    /// The type, in the words of the dialect.
    pub kind: Cow<'static, str>,
    /// The payload as JSON, where there is one.
    pub payload: Option<Box<str>>,
}

impl Addressed {
    /// Bytes that it takes up.
    pub fn cost(&self) -> usize {
        self.payload.as_ref().map_or(0, |payload| payload.len())
    }
}

/// What the hub tells one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeReply {
    /// The connection may go on.
    Opened,
    /// The answer to a subscription, a code for each topic.
    Subscribed {
        /// Of the request.
        id: u16,
        /// The granted quality of service, or why there is none.
        codes: Vec<Result<u8, Denied>>,
    },
    /// The answer to the end of subscriptions: whether there was one of each topic.
    Unsubscribed {
        /// Of the request.
        id: u16,
        /// In the order of the topics.
        found: Vec<bool>,
    },
    /// The publication went to that many subscribers, or nowhere.
    Published {
        /// Of the request.
        id: u16,
        /// Subscribers, or why it went nowhere.
        clients: Result<u32, Denied>,
    },
    /// The connection has the name now.
    Claimed {
        /// The name.
        name: Arc<str>,
    },
    /// The name belongs to another connection.
    Taken,
    /// Nobody has this name, and what was sent to it is dropped.
    Absent {
        /// The name.
        name: Arc<str>,
        /// The name of the connection that is told.
        own: Arc<str>,
    },
    /// Fresh TURN credentials.
    Ice(IceServers),
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denied {
    /// The token is not for this topic, the backend or a rule refuses it, or the client is not a member
    /// of the room that the topic is.
    Forbidden,
    /// A limit is reached.
    Full,
    /// Too many messages, or too many deliveries.
    TooFast,
}

impl ExchangeReply {
    /// Bytes that it takes up, roughly.
    pub fn cost(&self) -> usize {
        match self {
            Self::Subscribed { codes, .. } => 64 + codes.len() * 2,
            Self::Unsubscribed { found, .. } => 64 + found.len(),
            Self::Ice(_) => 1_024,
            _ => 64,
        }
    }
}
