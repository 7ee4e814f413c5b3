//! What is remembered of a client, for the process that goes on with it.

use super::super::super::memory;
use super::super::packet::{Reason, Version};
use super::super::reader::Stream;
use super::delivery::Outbound;
use super::rooms::{RoomTopics, Rooms};
use super::{ENDS_WITHIN, Limits, MAX_IN_FLIGHT, MAX_PACKET, Mqtt, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A packet that is not whole yet, and what came behind one that waits for the hub.
const MAX_UNREAD: usize = 4 * MAX_PACKET as usize;

/// Codes of a SUBSCRIBE: those that need no answer of the hub.
type Codes = Vec<Option<Result<u8, Reason>>>;

#[derive(Serialize, Deserialize)]
struct Memory<S, L, O, R> {
    /// Bytes of an unfinished packet, or of packets that wait for the hub.
    unread: Vec<u8>,
    state: S,
    version: Version,
    /// Milliseconds, and how many of them are left.
    keep_alive: Option<u64>,
    left: Option<u64>,
    limits: L,
    out: O,
    unreleased: BTreeSet<u16>,
    subscribing: BTreeMap<u16, Codes>,
    wants_ice: bool,
    unsubscribing: BTreeMap<u16, usize>,
    status: Option<u16>,
    rooms: R,
}

impl Mqtt {
    pub(super) fn to_memory(&self, now: Instant) -> Option<String> {
        let ms = |time: Duration| time.as_millis().try_into().unwrap_or(u64::MAX);
        let due = self.last_received.zip(self.keep_alive);
        memory::write(&Memory {
            unread: self.stream.unread().to_vec(),
            state: &self.state,
            version: self.version,
            keep_alive: self.keep_alive.map(ms),
            left: due.map(|(last, keep_alive)| memory::left(last + keep_alive, now)),
            limits: self.limits,
            out: &self.out,
            unreleased: self.unreleased.clone(),
            subscribing: self.subscribing.clone(),
            wants_ice: self.wants_ice,
            unsubscribing: self.unsubscribing.clone(),
            status: self.status,
            rooms: &self.rooms,
        })
    }

    /// The translator of an earlier process; `topics` are the rooms that there are now.
    ///
    /// # Errors
    /// The memory is not one.
    pub(in crate::compat) fn remembered(
        text: &str,
        topics: Option<Arc<RoomTopics>>,
        now: Instant,
    ) -> Result<Self, String> {
        let held: Memory<State, Limits, Outbound, Rooms> = memory::read(text)?;
        let most = usize::from(MAX_IN_FLIGHT);
        let fits = held.out.is_sound(most)
            && held.unreleased.len() <= most
            && held.unread.len() <= MAX_UNREAD
            && held.rooms.is_sound();
        if !fits {
            return Err("its state contradicts itself".into());
        }
        let keep_alive = held.keep_alive.map(Duration::from_millis);
        let keep_alive = keep_alive.map(|time| time.min(memory::LONGEST));
        // What is left of the keep-alive says when the client last sent something.
        let last = |left| memory::at(left, now).checked_sub(keep_alive?);
        let mut rooms = held.rooms;
        rooms.topics = topics;
        Ok(Self {
            ends_by: Some(now + ENDS_WITHIN).filter(|_| !held.unread.is_empty()),
            stream: Stream::of(held.unread),
            state: held.state,
            version: held.version,
            keep_alive,
            last_received: held.left.map(|left| last(left).unwrap_or(now)),
            limits: Limits {
                in_flight: held.limits.in_flight.min(most),
                ..held.limits
            },
            out: held.out,
            unreleased: held.unreleased,
            subscribing: held.subscribing,
            wants_ice: held.wants_ice,
            unsubscribing: held.unsubscribing,
            status: held.status,
            rooms,
        })
    }
}
