//! Sockets and addresses: listeners, certificates, and where this box is found from outside.
//!
//! Knows nothing of signaling or TURN.

mod address;
mod listen;
mod owner;
mod tls;

pub use address::{Announced, discover};
pub use listen::{BindError, tcp, udp};
pub use tls::{Identity, TlsError};
