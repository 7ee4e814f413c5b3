//! Rooms and calls: a pure hub and its I/O shell.

pub mod hub;
pub mod room;
pub mod sdp;
