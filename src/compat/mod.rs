//! Foreign protocols: each a pure translator between its own frames and the hub.

pub mod mqtt;
