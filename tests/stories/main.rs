//! User stories over real sockets.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod bad_input;
mod harness;
mod http;
mod peers;
mod relayed_call;
mod room;
mod tls;
