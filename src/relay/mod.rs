//! STUN and TURN: a pure [`engine`], the box-wide [`shared`] its workers share, and the I/O
//! shells around them.

mod accept;
pub mod engine;
pub mod framing;
mod handle;
mod intake;
mod io;
mod rate;
pub mod shared;
mod stats;
mod worker;

pub use handle::{Listeners, RelayConfig, RelayHandle};
pub use intake::{Admit, ClientStream, Place};
pub use io::udp::{Offload, kernel_shortcomings};
pub use stats::{IoStats, RelayStats, WorkerLoad};
