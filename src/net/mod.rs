//! Sockets and addresses: listeners, and where this box is found from outside.
//!
//! Knows nothing of signaling or TURN.

mod address;
mod inherited;
mod listen;
mod owner;

pub use address::{Announced, discover};
pub use inherited::{Inherited, InheritedError, Listener};
pub use listen::{BindError, tcp, udp};
pub use owner::{Owner, of_port as owner_of_port};
