//! The STUN/TURN server as a state machine.

pub mod policy;
