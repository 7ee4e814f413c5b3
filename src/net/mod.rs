//! Sockets and addresses: listeners, what is told apart on a shared port, TLS and its
//! certificates, and where this box is found from outside.
//!
//! Knows nothing of signaling or TURN: accepted connections are handed over.

mod acme;
mod address;
mod certs;
mod connections;
mod front;
pub mod https;
mod inherited;
mod interfaces;
mod jwks;
mod kernel;
mod listen;
mod names;
mod owner;
pub mod stun;

pub use acme::AcmeOrders;
pub use address::{discover, rediscover};
pub use certs::{CertStore, Identity, IdentityError, PemFiles};
pub use connections::{BodyLease, Charge, ConnectionCaps, Connections, FileCharge, Full, Place};
pub use front::{Accepted, Front, Protocol, Wire};
pub use inherited::{Inherited, InheritedError, KEPT_PREFIX, Listener};
pub use interfaces::{Announced, NO_ADDRESS, NO_IPV4, has_ipv4, is_here};
pub use jwks::{NO_KEYS, RemoteKeys, Trust};
pub use kernel::AddressChanges;
pub use listen::{BindError, connection_budget, raise_descriptor_limit, tcp, udp};
pub use names::{Find, NameCounters, Names, Resolve};
pub use owner::{Owner, of_address as owner_of};
