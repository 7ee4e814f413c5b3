//! Rooms and calls: a pure [`hub`] and the I/O shell around it.

mod base64;
mod carrier;
mod connection;
mod dialect;
mod driver;
pub mod histogram;
pub mod hub;
mod id_map;
mod mailbox;
mod nodes;
mod outbox;
#[cfg(test)]
pub mod panics;
mod parked;
mod reports;
pub mod room;
pub mod sdp;
mod websocket;

#[cfg(any(test, fuzzing))]
pub use hub::fuzz::fuzz as fuzz_splice;
#[cfg(any(test, fuzzing))]
pub use mailbox::server_messages;
#[cfg(any(test, fuzzing))]
pub use sdp::fuzz::fuzz as fuzz_sdp;
#[cfg(any(test, fuzzing))]
pub use websocket::fuzz::fuzz as fuzz_websocket;

pub use carrier::{Carrier, Detached, Message, ParkedMailbox};
pub use connection::{
    Authorize, ConnectionSettings, Consent, Consult, Consulted, Consulting, FetchKey, Fetching,
    Inquiry, resume, run,
};
pub use dialect::{Asked, Closing, Dialect, Incoming, Native, Outgoing, Output};
#[cfg(test)]
pub(crate) use driver::tests::socket::{Socket, seeded};
pub use driver::{
    Admission, ConnectError, ConnectionLimits, DialectStats, Driver, LeftBehind, OnNotice,
    OnRevoke, Remote, SentByType, SignalSnapshot, Stats,
};
pub use mailbox::{Closed, Fetch, Fetched, Gap, Goodbye, Mailbox, MailboxCarrier, Probe};
pub use nodes::{Found, Frame, NodeId, Nodes, Sought, Target, Word};
pub use parked::ParkedConnection;
