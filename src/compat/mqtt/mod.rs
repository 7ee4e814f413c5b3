//! MQTT 3.1.1 and 5 over WebSocket: as much of both as signaling needs.

mod dialect;
pub mod packet;
pub mod reader;
mod reason;
pub mod writer;

pub use dialect::{Mqtt, RoomTopics};

#[cfg(any(test, fuzzing))]
mod fuzz;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub use fuzz::fuzz;
