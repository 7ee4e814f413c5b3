//! Plain connections that outlive their process: what is written down of them, and how they go on.

use super::outbox::Outbox;
use super::{ALLOCATION_DEADLINE, NewStream, Place, StreamKey, Streams};
use crate::relay::engine::FiveTuple;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use turn_engine::text;

/// A connection as data; its socket goes beside it.
#[derive(Serialize, Deserialize)]
pub(in crate::relay) struct StreamSnapshot {
    five_tuple: FiveTuple,
    /// The front of a message whose rest is still to come.
    #[serde(with = "text")]
    partial: Vec<u8>,
    /// What was still to be written.
    #[serde(with = "text")]
    outbox: Vec<u8>,
    /// Nanoseconds that its client has left to make an allocation, if it has none.
    deadline: Option<u64>,
    hung_up: bool,
}

impl StreamSnapshot {
    /// Where the client is.
    pub(in crate::relay) fn client(&self) -> IpAddr {
        self.five_tuple.client.ip()
    }
}

impl Streams {
    /// The connections inside TLS.
    pub(in crate::relay) fn of_tls(&self) -> Vec<StreamKey> {
        let slots = self.slots.iter().zip(0..);
        let of_tls =
            slots.filter(|(slot, _)| slot.stream.as_ref().is_some_and(|s| s.tls.is_some()));
        of_tls
            .map(|(slot, index)| StreamKey {
                slot: index,
                generation: slot.generation,
            })
            .collect()
    }

    /// Takes every connection out, as data and sockets in the same order.
    pub(in crate::relay) fn take_all(
        &mut self,
        now: Instant,
    ) -> (Vec<StreamSnapshot>, Vec<OwnedFd>) {
        let streams = self.slots.iter_mut().filter_map(|slot| slot.stream.take());
        let taken = streams.map(|stream| {
            let left = |at: Instant| at.saturating_duration_since(now).as_nanos();
            let snapshot = StreamSnapshot {
                five_tuple: stream.five_tuple,
                partial: stream.partial,
                outbox: stream.outbox.unwritten().to_vec(),
                deadline: stream.deadline.map(|at| left(at) as u64),
                hung_up: stream.hung_up,
            };
            (snapshot, stream.socket.into())
        });
        taken.unzip()
    }

    /// Goes on with a connection of an earlier process that was written down at `taken`. Returns
    /// whether it could.
    pub(in crate::relay) fn adopt(
        &mut self,
        snapshot: StreamSnapshot,
        socket: OwnedFd,
        place: Option<Place>,
        taken: Instant,
    ) -> bool {
        if self.find(&snapshot.five_tuple).is_some() {
            return false;
        }
        let five_tuple = snapshot.five_tuple;
        let left = snapshot.deadline.map(Duration::from_nanos);
        let left = left.map(|left| left.min(ALLOCATION_DEADLINE));
        let new = NewStream {
            five_tuple,
            socket: TcpStream::from(socket),
            tls: None,
            place,
            prefix: snapshot.partial,
        };
        // It is given the whole deadline less what has passed of it.
        let spent = left.map_or(Duration::ZERO, |left| ALLOCATION_DEADLINE - left);
        let since = taken.checked_sub(spent).unwrap_or(taken);
        let Ok(key) = self.insert(new, since) else {
            return false;
        };
        if left.is_none() {
            self.set_allocation(&five_tuple, true, taken);
        }
        if let Some(stream) = &mut self.slots[key.slot as usize].stream {
            stream.hung_up = snapshot.hung_up;
            stream.outbox = Outbox::of(snapshot.outbox, &mut self.pool);
        }
        self.mark(key.slot);
        // What came between the two processes is not told of again.
        self.readable(key);
        true
    }
}
