//! User stories over real sockets.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod admin;
mod bad_input;
mod calls;
mod harness;
mod http;
mod limits;
mod moderation;
mod peers;
mod relay_only;
mod relayed_call;
mod resume;
mod room;
mod tls;
mod tokens;
