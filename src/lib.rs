//! callbox: signaling, STUN/TURN and short-lived credentials in one process.
//!
//! Two engines that never name each other, each a pure core with an I/O shell around it:
//! [`signal`] (rooms and calls) and [`relay`] (STUN/TURN). [`app`] joins them.
//! ARCHITECTURE.md says which module may know which; `tests/tidy/` checks it.

pub mod address;
pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod compat;
pub mod config;
pub mod file;
pub mod hooks;
pub mod http;
pub mod log;
pub mod net;
pub mod origin;
pub mod protocol;
pub mod relay;
pub mod service;
pub mod signal;

pub use turn_engine::{network, rate};
