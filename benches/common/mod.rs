//! What both load generators share: pinning and clocks of other processes, servers as child
//! processes, and the table at the end. Knows no protocol.

pub(crate) mod epoll;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod sched;
pub(crate) mod setup;
