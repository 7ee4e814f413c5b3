//! STUN and TURN: the I/O shells around `crates/turn-engine`, which is the pure [`engine`], the
//! box-wide [`shared`] state of its workers, and [`framing`].

mod accept;
mod handle;
mod io;
mod stats;
mod worker;

pub use handle::{Admit, ClientStream, Listeners, Place, RelayConfig, RelayHandle};
pub use io::udp::{Offload, kernel_shortcomings};
pub use stats::{IoStats, RelayStats, WorkerLoad};
pub use turn_engine::{engine, framing, shared};
