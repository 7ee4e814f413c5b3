//! The relay over real sockets on loopback: what its shells do that the pure engine cannot show.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod batches;
mod client;
mod datagrams;
mod handover;
mod lifecycle;
mod relay;
mod streams;
