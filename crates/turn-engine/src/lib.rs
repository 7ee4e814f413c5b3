//! A STUN/TURN server as a state machine (RFC 8489, RFC 8656, RFC 5780): bytes, a five-tuple and a
//! reading of the clock go in; datagrams, relay sockets to open, events and a next timeout come out.
//!
//! The crate opens no socket, reads no clock, starts no task and has no randomness of its own. A
//! *shell* does that: it implements [`RelaySockets`], which opens the sockets of relayed addresses,
//! and [`Output`], which takes what the engine wants sent. So the engine runs under any runtime, in
//! tests hours of allocation lifetimes pass in milliseconds, and every run can be repeated.
//!
//! - [`Engine`] serves the clients of one thread. A server of several threads has one engine each;
//!   they share ports, quotas, reservations and revocations in one [`shared::SharedState`].
//! - [`Settings`] is what an operator decides: realm, secrets, limits, and by [`PeerPolicy`] which
//!   peers may be reached. Private and special addresses are denied unless they are allowed.
//! - [`Output::event`] gets what becomes of allocations, and after [`Engine::watch`] what becomes of
//!   their permissions and channels.
//! - [`credential`] mints and checks the short-lived credentials of the TURN REST scheme.
//! - [`framing`] cuts a TCP or TLS stream into messages.
//!
//! # A server in a few lines
//!
//! ```
//! use std::{net::SocketAddr, sync::Arc, time::Instant};
//! use turn_engine::*;
//!
//! /// Opens sockets that send nowhere.
//! struct NoSockets;
//!
//! impl RelaySockets for NoSockets {
//!     type Socket = SocketAddr;
//!
//!     fn open(&mut self, address: SocketAddr, _: RelayedKey) -> Result<SocketAddr, OpenError> {
//!         Ok(address)
//!     }
//! }
//!
//! /// Keeps what clients are answered.
//! #[derive(Default)]
//! struct Replies(Vec<Vec<u8>>);
//!
//! impl<'a> Output<'a, SocketAddr> for Replies {
//!     fn reply(&mut self, _: &FiveTuple, message: &[u8]) {
//!         self.0.push(message.to_vec());
//!     }
//!     fn to_client(&mut self, _: &FiveTuple, _: &[u8], _: PayloadRun<'a>, _: usize) {}
//!     fn to_peer(&mut self, _: &SocketAddr, _: SocketAddr, _: PayloadRun<'a>, _: bool) {}
//!     fn to_worker(&mut self, _: WorkerId, _: RelayedKey, _: SocketAddr, _: PayloadRun<'a>) {}
//!     fn event(&mut self, _: Event) {}
//! }
//!
//! let now = Now { instant: Instant::now(), unix: 1_700_000_000 };
//! let ip = "192.0.2.1".parse().unwrap();
//! let relays = vec![shared::RelayAddress { bind: ip, announced: ip }];
//! let shared = shared::SharedState::new(relays, 49_152..=65_535, [1; 32], now.instant);
//! let secrets = credential::TurnSecrets::new(vec!["a secret".into()]).unwrap();
//! let settings = Arc::new(Settings::new("example.org", secrets));
//! let mut engine = Engine::new(WorkerId(0), settings, shared, NoSockets, [2; 32], now.instant);
//!
//! // A Binding request: its header alone.
//! let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
//! let five_tuple = FiveTuple {
//!     transport: Transport::Udp,
//!     client: "198.51.100.7:5000".parse().unwrap(),
//!     server: "192.0.2.1:3478".parse().unwrap(),
//! };
//! let mut out = Replies::default();
//! engine.from_client(now, &five_tuple, request.as_slice().into(), &mut out);
//! assert_eq!(out.0[0][..2], [1, 1], "a Binding success response");
//! ```
//!
//! `examples/two_sockets.rs` is a whole server over plain sockets.

#![warn(missing_docs)]

pub mod credential;
pub mod engine;
pub mod framing;
pub mod network;
pub mod rate;
mod restoring;
pub mod shared;
pub mod text;
pub mod users;

pub use engine::*;
