//! STUN and TURN: a pure [`engine`], the box-wide [`ledger`] its workers share, and the I/O
//! shells around them.

mod accept;
mod coalesce;
pub mod engine;
mod exits;
pub mod framing;
mod handle;
mod journal;
pub mod ledger;
mod listener;
mod mailbox;
mod outbound;
mod rate;
mod readiness;
mod source;
mod stats;
mod stream;
mod udp;
mod worker;

pub use handle::{Admit, ClientStream, Listeners, Place, RelayConfig, RelayHandle};
pub use stats::{IoStats, RelayStats, WorkerLoad};
pub use udp::{Offload, kernel_shortcomings};
