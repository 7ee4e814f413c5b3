//! STUN and TURN: a pure [`engine`] and the I/O shells around it.

pub mod engine;
