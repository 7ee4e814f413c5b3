//! Why a packet, or a connection, is refused.

use serde::{Deserialize, Serialize};

/// Reason codes (MQTT 5.0, 2.4); 3.1.1 has none but those of CONNACK and SUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Reason {
    /// Success, normal disconnection, granted QoS 0.
    Success = 0x00,
    /// Nobody has subscribed.
    NoMatchingSubscribers = 0x10,
    /// The filter was not subscribed.
    NoSubscription = 0x11,
    /// The bytes are not a packet.
    Malformed = 0x81,
    /// A packet that may not stand here.
    ProtocolError = 0x82,
    /// The protocol level is neither 4 nor 5.
    UnsupportedVersion = 0x84,
    /// The client id is not acceptable.
    ClientId = 0x85,
    /// The token does not verify.
    BadCredentials = 0x86,
    /// The token does not allow this.
    NotAuthorized = 0x87,
    /// The server is shutting down.
    ShuttingDown = 0x8B,
    /// Extended authentication is not offered.
    AuthMethod = 0x8C,
    /// Nothing was sent for one and a half keep-alive intervals.
    KeepAlive = 0x8D,
    /// Another connection took over the client id.
    TakenOver = 0x8E,
    /// The filter is not acceptable.
    FilterInvalid = 0x8F,
    /// The topic name is not acceptable.
    TopicInvalid = 0x90,
    /// The packet id is not in use.
    UnknownPacketId = 0x92,
    /// More publications are unacknowledged than were announced as the maximum.
    ReceiveMaximum = 0x93,
    /// Topic aliases are not offered.
    TopicAlias = 0x94,
    /// The packet is over the maximum size.
    TooLarge = 0x95,
    /// Too many messages.
    RateTooHigh = 0x96,
    /// A limit of this server is reached.
    QuotaExceeded = 0x97,
    /// The operator ended the connection.
    Administrative = 0x98,
    /// Retained messages are not offered.
    RetainUnavailable = 0x9A,
    /// Shared subscriptions are not offered.
    SharedUnavailable = 0x9E,
    /// Subscription identifiers are not offered.
    IdentifiersUnavailable = 0xA1,
    /// Wildcards are not offered.
    WildcardsUnavailable = 0xA2,
}
