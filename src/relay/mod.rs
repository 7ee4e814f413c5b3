//! STUN and TURN: a pure [`engine`], the box-wide [`ledger`] its workers share, and the I/O
//! shells around them.

mod conn;
pub mod engine;
pub mod ledger;
mod rate;
mod server;

pub use server::{RelayAddress, RelayConfig, RelayHandle};
