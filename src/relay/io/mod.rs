//! What a worker waits for, receives with and sends through. Decides nothing about TURN.

pub(super) mod egress;
pub(super) mod listener;
pub(super) mod poller;
mod send_queue;
pub(super) mod stream;
pub(super) mod token;
pub(super) mod udp;
