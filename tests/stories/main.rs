//! User stories over real sockets.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod admin;
mod bad_input;
mod calls;
mod carriers;
mod clients;
mod command_line;
mod connection;
mod dialects;
mod events;
mod foreign;
mod harness;
mod hooks;
mod http;
mod integrations;
mod limits;
mod log;
mod memory;
mod moderation;
mod monitoring;
mod nat;
mod operation;
mod operators;
mod own_addresses;
mod peers;
mod relay_only;
mod relayed_call;
mod removal;
mod resume;
mod room;
mod sessions;
mod tls;
mod tokens;
#[allow(dead_code, reason = "shared with the stories about the relay")]
#[path = "../relay/client.rs"]
mod turn_client;
mod tutorials;
mod usage;
mod users;
