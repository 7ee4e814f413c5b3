//! What the engine tells its shell beside datagrams: the lives of allocations, permissions and
//! channels, refusals, counters.
//!
//! Nothing here is decided on; it feeds logs, metrics and the admin API.

use super::five_tuple::FiveTuple;
use super::gro::PayloadRun;
use super::policy::Denial;
use crate::credential::SecretId;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Payload of one direction or one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// Datagrams.
    pub packets: u64,
    /// Bytes of payload, headers not counted.
    pub bytes: u64,
}

impl Flow {
    pub(super) fn count(&mut self, payloads: &PayloadRun<'_>) {
        self.packets += payloads.count() as u64;
        self.bytes += (payloads.count() * payloads.length()) as u64;
    }
}

impl std::ops::AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Something worth a log line or a dashboard row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An allocation came to life.
    Opened {
        /// `<user>` of the REST username.
        user: Arc<str>,
        /// Where the client is.
        five_tuple: FiveTuple,
        /// Announced relayed addresses, one or two.
        relayed: Vec<SocketAddr>,
    },
    /// An allocation is gone, with everything it held.
    Closed {
        /// `<user>` of the REST username.
        user: Arc<str>,
        /// What signed its credential; none of a fixed password.
        secret: Option<SecretId>,
        /// Where the client was.
        five_tuple: FiveTuple,
        /// Announced relayed addresses it still had.
        relayed: Vec<SocketAddr>,
        /// From the client towards peers.
        sent: Flow,
        /// From peers towards the client.
        received: Flow,
        /// How long it lived.
        lived: Duration,
        /// Why it ended.
        reason: CloseReason,
    },
    /// An allocation may exchange datagrams with `peer`, with which it could not before. This event
    /// and the three below come from an engine that is watched
    /// ([`Engine::watch`](super::Engine::watch)); a refresh of what lives has no event.
    PermissionInstalled {
        /// The allocation.
        five_tuple: FiveTuple,
        /// The address that the client has permitted.
        peer: IpAddr,
    },
    /// A permission has run out, its relayed address is gone, or the policy has become stricter.
    PermissionGone {
        /// The allocation.
        five_tuple: FiveTuple,
        /// The address that the client had permitted.
        peer: IpAddr,
    },
    /// A channel was bound that was not bound before.
    ChannelBound {
        /// The allocation.
        five_tuple: FiveTuple,
        /// The number of the channel.
        number: u16,
        /// The peer that the channel leads to.
        peer: SocketAddr,
    },
    /// A channel has run out, or its relayed address is gone.
    ChannelGone {
        /// The allocation.
        five_tuple: FiveTuple,
        /// The number of the channel.
        number: u16,
        /// The peer that the channel led to.
        peer: SocketAddr,
    },
    /// An authenticated request was refused for a reason that an operator may want to see.
    Refused {
        /// Who asked.
        five_tuple: FiveTuple,
        /// `<user>`, where the request proved one.
        user: Option<Arc<str>>,
        /// Which limit or rule.
        refusal: DenyReason,
    },
}

/// Why an allocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client refreshed with lifetime 0.
    Client,
    /// The lifetime ran out without a refresh.
    Expired,
    /// `turn.max_session` was reached.
    SessionEnd,
    /// The user was revoked.
    Revoked,
    /// The stream under it closed.
    Disconnected,
    /// The box ended.
    Stopped,
}

/// Which limit or rule refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyReason {
    /// Wrong password, or a username that is none of ours.
    Credentials,
    /// The credential has expired.
    Expired,
    /// The credential was revoked.
    Revoked,
    /// `turn.user_quota`.
    UserQuota,
    /// `turn.ip_quota`.
    IpQuota,
    /// `turn.total_quota`.
    TotalQuota,
    /// `turn.budget`.
    Budget,
    /// No relay port fits the request.
    NoPort,
    /// The socket of a relay port could not be opened.
    Socket,
    /// No file descriptor was left for the socket of a relay port.
    NoDescriptor,
    /// Too many permissions on one allocation.
    Permissions,
    /// Too many channels on one allocation.
    Channels,
    /// Too many reservations, or the token names none.
    Reservation,
    /// New allocations are refused while draining.
    Draining,
    /// Peer policy.
    Peer(Denial),
}

/// One living allocation, for the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationView {
    /// `<user>` of the REST username.
    pub user: Arc<str>,
    /// What signed its credential; none of a fixed password.
    pub secret: Option<SecretId>,
    /// Where the client is.
    pub five_tuple: FiveTuple,
    /// Announced relayed addresses, one or two.
    pub relayed: Vec<SocketAddr>,
    /// From the client towards peers.
    pub sent: Flow,
    /// From peers towards the client.
    pub received: Flow,
    /// How long it has lived.
    pub age: Duration,
    /// How long it still lives without a refresh.
    pub expires_in: Duration,
    /// Live permissions.
    pub permissions: usize,
    /// Live channels.
    pub channels: usize,
}

/// Plain counters of one engine; sums over the workers are the box's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Payload from clients to peers by socket.
    pub to_peers: Flow,
    /// Payload to clients, from sockets and hairpins alike.
    pub to_clients: Flow,
    /// Payload handed from relay to relay inside the process.
    pub hairpinned: Flow,
    /// Binding requests answered.
    pub bindings: u64,
    /// Successful requests other than Binding.
    pub requests: u64,
    /// Relay ports that turned out to be held by another program.
    pub ports_held: u64,
    /// Allocations made since the start.
    pub allocations_opened: u64,
    /// Allocations gone since the start.
    pub allocations_closed: u64,
    /// Refused requests by STUN error code.
    pub refused: RefusedByCode,
    /// Peers refused by policy, in requests.
    pub policy_denials: u64,
    /// Requests with credentials that are wrong, expired or revoked, answered or not.
    pub auth_failures: u64,
    /// What was thrown away, by cause.
    pub dropped: Dropped,
}

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// Every counter with its name, for export.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) { $(self.$field += other.$field;)* }
        }
    };
}

counters! {
    /// Datagrams thrown away, by cause.
    Dropped {
        /// Neither STUN nor ChannelData, or broken.
        malformed,
        /// A good message that a server has no business with.
        unexpected,
        /// For an allocation, channel or relay that does not exist.
        no_allocation,
        /// No live permission for the peer.
        no_permission,
        /// From or towards the box's own addresses without a live relay there.
        own_address,
        /// Over `turn.max_rate`.
        allocation_rate,
        /// Over `turn.total_rate`.
        total_rate,
        /// Replies withheld because they would amplify.
        amplification,
    }
}

counters! {
    /// Error responses, by STUN code.
    RefusedByCode {
        /// Try Alternate.
        code_300,
        /// Bad Request.
        code_400,
        /// Unauthenticated.
        code_401,
        /// Forbidden.
        code_403,
        /// Unknown Attribute.
        code_420,
        /// Allocation Mismatch.
        code_437,
        /// Stale Nonce.
        code_438,
        /// Address Family not Supported.
        code_440,
        /// Wrong Credentials.
        code_441,
        /// Unsupported Transport Protocol.
        code_442,
        /// Peer Address Family Mismatch.
        code_443,
        /// Allocation Quota Reached.
        code_486,
        /// Insufficient Capacity.
        code_508,
    }
}

impl std::ops::AddAssign<&Stats> for Stats {
    fn add_assign(&mut self, other: &Self) {
        self.to_peers += other.to_peers;
        self.to_clients += other.to_clients;
        self.hairpinned += other.hairpinned;
        self.bindings += other.bindings;
        self.requests += other.requests;
        self.ports_held += other.ports_held;
        self.allocations_opened += other.allocations_opened;
        self.allocations_closed += other.allocations_closed;
        self.refused += other.refused;
        self.policy_denials += other.policy_denials;
        self.auth_failures += other.auth_failures;
        self.dropped += other.dropped;
    }
}
