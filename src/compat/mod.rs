//! Foreign protocols: each a pure translator between its own frames and the hub.

pub mod mqtt;
pub mod object;
pub mod peerjs;
pub mod trystero;
pub mod y_webrtc;

#[cfg(test)]
mod tests;
