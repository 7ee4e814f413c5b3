//! How a worker leaves everything to a successor, and how a successor takes it over.

use super::give_up::{GiveUp, Given, WorkerState};
use super::sockets::{EpollRelaySockets, InheritedSockets};
use super::{Worker, read_clocks};
use crate::clock;
use crate::relay::engine::{Engine, EngineSnapshot, RestoreError};
use crate::relay::io::egress::Egress;
use crate::relay::io::listener::Listener;
use crate::relay::io::stream::{Place, StreamSnapshot};
use crate::relay::stats::IoStats;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// The form of the `data` of a [`WorkerState`].
#[derive(Serialize, Deserialize)]
struct Data {
    /// When it was written, by [`clock::monotonic`].
    taken: u64,
    engine: EngineSnapshot,
    io: IoStats,
    streams: Vec<StreamSnapshot>,
}

impl Worker {
    /// Writes everything down and ends.
    pub(super) fn hand_over(mut self, order: GiveUp) {
        self.egress.post();
        order.meets.wait();
        let now = read_clocks();
        self.empty_inbox(now);
        // TLS stays behind: its connections end politely.
        for key in self.egress.streams.of_tls() {
            self.end_stream(now, key);
        }
        while let Some(key) = self.egress.streams.flush(&mut self.egress.stats) {
            self.end_stream(now, key);
        }
        let taken = clock::monotonic();
        let engine = self.engine.snapshot(clock::instant_at(taken));
        let listeners: Result<Vec<_>, _> =
            self.egress.listeners.iter().map(Listener::share).collect();
        let (streams, stream_sockets) = self.egress.streams.take_all(now.instant);
        let cpu_before = self.cpu().as_nanos().try_into().unwrap_or(u64::MAX);
        let data = Data {
            taken,
            engine,
            io: IoStats {
                cpu_before,
                ..self.egress.stats
            },
            streams,
        };
        let remains = self.engine.dismantle();
        let state = listeners.map_err(|error| format!("listeners: {error}"));
        let state = state.and_then(|mut fds| {
            for (_, socket) in remains.sockets {
                let socket = Rc::into_inner(socket).ok_or("a relay socket is in use")?;
                fds.push(socket.into_fd());
            }
            fds.extend(stream_sockets);
            let data = serde_json::to_vec(&data).map_err(|error| error.to_string())?;
            Ok(WorkerState { data, fds })
        });
        // Who asked may have gone.
        let _ = order.answer.send(Given {
            worker: self.id.0.into(),
            state,
            leases: remains.leases,
        });
    }
}

/// Gives a connection its place in the counts again.
pub(in crate::relay) type Readmit = Arc<dyn Fn(IpAddr) -> Option<Place> + Send + Sync>;

/// What an earlier process left to one worker.
pub(in crate::relay) struct Inheritance {
    pub(in crate::relay) data: Vec<u8>,
    /// Sockets of relayed addresses, then of streams.
    pub(in crate::relay) fds: Vec<OwnedFd>,
    pub(in crate::relay) readmit: Readmit,
    /// Told once what there was is served again, or why it is not.
    pub(in crate::relay) restored: Sender<Result<Restored, String>>,
}

/// What was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Allocations.
    pub allocations: usize,
    /// Relayed addresses that did not come along.
    pub lost: usize,
    /// Connections of TCP clients.
    pub streams: usize,
}

impl std::ops::AddAssign for Restored {
    fn add_assign(&mut self, other: Self) {
        self.allocations += other.allocations;
        self.lost += other.lost;
        self.streams += other.streams;
    }
}

impl Inheritance {
    /// Restores an engine by `make`, and the streams of `egress`.
    pub(super) fn restore(
        self,
        make: impl FnOnce(
            InheritedSockets,
            EngineSnapshot,
            Instant,
        ) -> Result<(Engine<EpollRelaySockets>, usize), RestoreError>,
        egress: &mut Egress,
    ) -> Option<Engine<EpollRelaySockets>> {
        let restored = restore(&self.data, self.fds, &self.readmit, make, egress);
        match restored {
            Ok((engine, counts)) => {
                let _ = self.restored.send(Ok(counts));
                Some(engine)
            }
            Err(error) => {
                let _ = self.restored.send(Err(error));
                None
            }
        }
    }
}

fn restore(
    data: &[u8],
    fds: Vec<OwnedFd>,
    readmit: &Readmit,
    make: impl FnOnce(
        InheritedSockets,
        EngineSnapshot,
        Instant,
    ) -> Result<(Engine<EpollRelaySockets>, usize), RestoreError>,
    egress: &mut Egress,
) -> Result<(Engine<EpollRelaySockets>, Restored), String> {
    let data: Data = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let mut fds = fds.into_iter();
    let keys = data.engine.relays().map(|(key, _)| key);
    // The keys come first: where descriptors are missing, none is taken for nothing.
    let sockets = InheritedSockets::of(keys.zip(fds.by_ref()));
    let taken = clock::instant_at(data.taken);
    let (engine, lost) = make(sockets, data.engine, taken).map_err(|error| error.to_string())?;
    egress.stats = data.io;
    let mut counts = Restored {
        allocations: engine.allocations(taken).count(),
        lost,
        streams: 0,
    };
    for (stream, socket) in data.streams.into_iter().zip(fds) {
        let place = readmit(stream.client());
        counts.streams += usize::from(egress.streams.adopt(stream, socket, place, taken));
    }
    Ok((engine, counts))
}
