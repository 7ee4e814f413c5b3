//! STUN and TURN: a pure [`engine`] and the I/O shells around it.

mod conn;
pub mod engine;
mod server;

pub use server::{RelayAddress, RelayConfig, RelayHandle};
