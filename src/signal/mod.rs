//! Rooms and calls: a pure [`hub`] and the I/O shell around it.

mod driver;
pub mod hub;
mod outbox;
pub mod room;
pub mod sdp;
mod sent;
mod session;
mod websocket;

#[cfg(any(test, fuzzing))]
pub use hub::fuzz::fuzz as fuzz_splice;
#[cfg(any(test, fuzzing))]
pub use websocket::fuzz::fuzz as fuzz_websocket;

pub use driver::{Admission, ConnectError, ConnectionLimits, Driver, OnRevoke, Stats};
pub use sent::SentByType;
pub use session::{Authorize, SessionSettings, run};
