//! Rooms and calls: a pure [`hub`] and the I/O shell around it.

mod connection;
mod dialect;
mod driver;
pub mod hub;
mod outbox;
mod reports;
pub mod room;
pub mod sdp;
mod websocket;

#[cfg(any(test, fuzzing))]
pub use hub::fuzz::fuzz as fuzz_splice;
#[cfg(any(test, fuzzing))]
pub use websocket::fuzz::fuzz as fuzz_websocket;

pub use connection::{
    Authorize, Carrier, ConnectionSettings, Consent, Consult, Consulted, Consulting, Inquiry, run,
};
pub use dialect::{Asked, Closing, Dialect, Incoming, Native, Outgoing, Output};
pub use driver::{
    Admission, ConnectError, ConnectionLimits, DialectStats, Driver, OnRevoke, SentByType, Stats,
};
