//! STUN and TURN: the I/O shells around `crates/turn-engine`, which is the pure [`engine`], the
//! box-wide [`shared`] state of its workers, and [`framing`].

mod accept;
mod handle;
mod handover;
mod intake;
mod io;
mod stats;
mod worker;

pub use handle::{Listeners, RelayConfig, RelayHandle};
pub use handover::{RelayState, Takeover};
pub use intake::{Admit, ClientStream};
pub use io::stream::Place;
pub use io::udp::{Offload, kernel_shortcomings};
pub use stats::{IoStats, RelayStats, WorkerLoad};
pub use turn_engine::{engine, framing, shared};
pub use worker::allocation_log::OnAllocation;
pub use worker::give_up::WorkerState;
pub use worker::handover::Restored;
