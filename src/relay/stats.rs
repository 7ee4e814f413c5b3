//! Counters of the shells, beside those of the engine.
//!
//! One [`IoStats`] a worker, plain words; the handle sums them when somebody asks.

use super::engine::{Stats, WorkerId};
use super::io::udp::Offload;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;

/// What the shell of one worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoStats {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that went out.
    pub sent: u64,
    /// System calls' messages that carried several datagrams out.
    pub gso_sends: u64,
    /// Such messages that the kernel refused, so that their datagrams went one by one.
    pub gso_refused: u64,
    /// Receive calls that failed.
    pub receive_errors: u64,
    /// Datagrams that the kernel refused to send.
    pub send_errors: u64,
    /// Datagrams dropped because a socket's send buffer was full.
    pub send_blocked: u64,
    /// ICMP errors for datagrams to peers.
    pub icmp_errors: u64,
    /// Datagrams handed to another worker's relays.
    pub handed_over: u64,
    /// Datagrams dropped because the other worker's queue was full.
    pub hand_over_full: u64,
    /// Pauses made so that datagrams come together.
    pub pauses: u64,
    /// TCP and TLS connections taken over.
    pub streams_opened: u64,
    /// Connections gone.
    pub streams_closed: u64,
    /// Connections ended by the box: no STUN, no allocation in time, one too many.
    pub streams_refused: u64,
    /// Datagrams dropped because a stream's client reads too slowly.
    pub slow_reader: u64,
    /// CPU time of the worker's threads in earlier processes, nanoseconds.
    pub cpu_before: u64,
}

impl IoStats {
    pub(super) fn sent(&mut self, datagrams: usize) {
        self.sent += datagrams as u64;
        self.gso_sends += u64::from(datagrams > 1);
    }

    pub(super) fn not_received(&mut self, error: &io::Error) {
        self.receive_errors += u64::from(error.kind() != io::ErrorKind::WouldBlock);
    }
}

impl std::ops::AddAssign for IoStats {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.gso_sends += other.gso_sends;
        self.gso_refused += other.gso_refused;
        self.receive_errors += other.receive_errors;
        self.send_errors += other.send_errors;
        self.send_blocked += other.send_blocked;
        self.icmp_errors += other.icmp_errors;
        self.handed_over += other.handed_over;
        self.hand_over_full += other.hand_over_full;
        self.pauses += other.pauses;
        self.streams_opened += other.streams_opened;
        self.streams_closed += other.streams_closed;
        self.streams_refused += other.streams_refused;
        self.slow_reader += other.slow_reader;
        self.cpu_before += other.cpu_before;
    }
}

/// What the whole relay, or one worker of it, did since its start, and what it works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStats {
    /// Of the engines.
    pub engine: Stats,
    /// Of the shells.
    pub io: IoStats,
    /// Living TCP and TLS connections.
    pub streams: usize,
    /// What the kernel offers; `gso` is off as well once an interface has refused it.
    pub offload: Offload,
    /// Of each worker that answered, in their order.
    pub workers: Vec<WorkerLoad>,
}

/// What one worker has taken of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLoad {
    /// Which one.
    pub id: WorkerId,
    /// CPU time of its thread since the start; a worker that is full takes a second each second.
    pub cpu: Duration,
}

impl std::ops::AddAssign for RelayStats {
    fn add_assign(&mut self, other: Self) {
        self.engine += &other.engine;
        self.io += other.io;
        self.streams += other.streams;
        self.offload.gro &= other.offload.gro;
        self.offload.gso &= other.offload.gso;
        self.workers.extend(other.workers);
    }
}
