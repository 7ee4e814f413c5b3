//! What waits to be written to one connection: bounded in bytes.
//!
//! Full: what waits is dropped and the connection is closed with 4003, so that one consumer that
//! does not read costs a fixed amount. Its session keeps the frames in its ring and may resume.

use super::dialect::{Closing, Outgoing};
use crate::protocol::CloseCode;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Bytes that may wait for all connections of one network (a wider IPv6 network has a multiple, up
/// to half of all), and for all of them. Beyond either, a connection for which more than its fair
/// share waits is closed as one that is too slow.
const MAX_OF_NETWORK: usize = 32 << 20;
const MAX_IN_ALL: usize = 256 << 20;
/// What may wait for any connection, whatever waits for others of its network.
const FAIR_SHARE: usize = 32 << 10;
/// What may wait for any connection where twice [`MAX_IN_ALL`] waits; in between it is more.
const LEAST_SHARE: usize = 2 << 10;

/// Empty queues that a thread keeps, and the room that each may have: as many as its connections use at once.
const MAX_KEPT: usize = 64;
const MAX_ROOM: usize = 16;

thread_local! {
    /// Empty queues with room for frames. A queue fills and empties with nearly every message, and a
    /// connection that waits has none.
    static KEPT: RefCell<Vec<VecDeque<Outgoing>>> = const { RefCell::new(vec![]) };
}

/// What waits for the connections of one network.
#[derive(Debug)]
pub(super) struct NetworkShare {
    bytes: AtomicUsize,
    limit: usize,
    /// That of the network around it.
    wider: Option<Arc<NetworkShare>>,
}

impl NetworkShare {
    /// Nothing waits yet; the network may hold `times` what the narrowest ones may.
    pub(super) fn new(times: u32, wider: Option<Arc<Self>>) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            limit: MAX_OF_NETWORK
                .saturating_mul(times as usize)
                .min(MAX_IN_ALL / 2),
            wider,
        }
    }

    /// Itself and those around it.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |share| share.wider.as_deref())
    }
}

/// What waits for connections together.
#[derive(Debug)]
pub(super) struct Shares {
    /// Those of the same network.
    pub(super) network: Arc<NetworkShare>,
    /// All.
    pub(super) total: Arc<AtomicUsize>,
}

impl Shares {
    fn add(&self, bytes: usize) {
        for share in self.network.all() {
            share.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        for share in self.network.all() {
            share.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn are_full(&self) -> bool {
        let is_full = |share: &NetworkShare| share.bytes.load(Ordering::Relaxed) > share.limit;
        self.network.all().any(is_full) || self.total.load(Ordering::Relaxed) > MAX_IN_ALL
    }

    /// What may wait for a connection beyond the bounds.
    fn fair(&self) -> usize {
        let over = (self.total.load(Ordering::Relaxed)).saturating_sub(MAX_IN_ALL);
        let shrinks = (FAIR_SHARE - LEAST_SHARE) * over.min(MAX_IN_ALL) / MAX_IN_ALL;
        FAIR_SHARE - shrinks
    }
}

/// Written by the driver, emptied by the connection's task. In the order of the declaration: what
/// every message touches comes first and side by side, as among many connections each further cache
/// line has to be fetched.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Outbox {
    glance: Glance,
    queue: Mutex<Queue>,
    shares: Shares,
    capacity: usize,
    opened: Instant,
    entered: AtomicBool,
}

/// What the connection's task asks in every poll, for a look without the lock. Written under it.
#[derive(Debug, Default)]
struct Glance {
    /// [`Queue::bytes`].
    bytes: AtomicUsize,
    /// Whether [`Queue::held`] is set.
    is_held: AtomicBool,
    /// Whether the connection is asked to stop, for a successor.
    parks: AtomicBool,
    /// The task that waits for more, by its waker's data, while nothing waits for it. Who brings
    /// something clears it and wakes the task after that: a task that still finds itself here is
    /// woken later.
    idle: AtomicPtr<()>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, and this many bytes in all.
    Waits(usize),
    /// It was the one too many.
    Overflowed,
    /// The connection is ending: dropped.
    Closed,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    /// Bytes in `frames` and in those being written.
    bytes: usize,
    /// Which input of the hub the last frames are from, and the bytes that waited before them.
    input: u64,
    before: usize,
    spare: Spare,
    /// Until when the client is not to be read.
    held: Option<Instant>,
    closing: Option<Closing>,
    /// The connection's task, where it waits for more.
    reader: Option<Waker>,
}

/// Room beyond the capacity for what one input leads to, whatever its size: `joined` lists a whole
/// room, and a resume replays a whole ring. One at a time, for consumers that keep up.
#[derive(Debug, Default)]
struct Spare {
    input: u64,
    bytes: usize,
    /// What has to be written before all of it is.
    left: usize,
}

impl Queue {
    /// Makes room for `bytes` in all; returns whether there is.
    fn has_room(&mut self, bytes: usize, capacity: usize) -> bool {
        if bytes <= capacity + self.spare.bytes {
            return true;
        }
        let is_free = self.spare.bytes == 0 || self.spare.input == self.input;
        if !is_free || self.before > capacity / 2 {
            return false;
        }
        self.spare = Spare {
            input: self.input,
            bytes: bytes - self.before,
            left: bytes,
        };
        true
    }

    fn register(&mut self, cx: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => self.reader = Some(cx.waker().clone()),
        }
    }
}

impl Outbox {
    pub(super) fn new(capacity: usize, shares: Shares) -> Self {
        Self {
            glance: Glance::default(),
            queue: Mutex::default(),
            shares,
            capacity,
            opened: Instant::now(),
            entered: AtomicBool::new(false),
        }
    }

    /// How long the connection has been open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// How long the connection took to enter a session, the first time that it does.
    pub(super) fn first_entry(&self) -> Option<Duration> {
        (!self.entered.swap(true, Ordering::Relaxed)).then(|| self.opened.elapsed())
    }

    /// Queues a frame behind those before it; `input` numbers what led to it.
    pub(super) fn push(&self, input: u64, frame: Outgoing) -> Pushed {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return Pushed::Closed;
        }
        if queue.input != input {
            (queue.input, queue.before) = (input, queue.bytes);
        }
        let cost = frame.event.cost();
        let bytes = queue.bytes + cost;
        let has_room = queue.has_room(bytes, self.capacity)
            && (bytes <= LEAST_SHARE || bytes <= self.shares.fair() || !self.shares.are_full());
        queue.bytes = bytes;
        self.glance.bytes.store(bytes, Ordering::Relaxed);
        self.shares.add(cost);
        let pushed = if !has_room {
            queue.frames = VecDeque::new();
            queue.closing = Some(Closing {
                code: CloseCode::SlowConsumer,
                reason: "too slow: more waited than signal.outbox allows",
            });
            Pushed::Overflowed
        } else {
            if queue.frames.capacity() == 0 {
                queue.frames = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
            }
            queue.frames.push_back(frame);
            Pushed::Waits(bytes)
        };
        self.wake(queue);
        pushed
    }

    /// Has the client not read until then.
    pub(super) fn hold(&self, until: Instant) {
        let mut queue = self.lock();
        queue.held = Some(until);
        self.glance.is_held.store(true, Ordering::Relaxed);
    }

    /// Has the client read again.
    pub(super) fn release(&self) {
        let mut queue = self.lock();
        queue.held = None;
        self.glance.is_held.store(false, Ordering::Relaxed);
        self.wake(queue);
    }

    /// Has the connection's task look whether it may read.
    pub(super) fn wake_reader(&self) {
        self.wake(self.lock());
    }

    /// Until when the client is not read.
    pub(super) fn held_until(&self) -> Option<Instant> {
        match self.glance.is_held.load(Ordering::Relaxed) {
            true => self.lock().held,
            false => None,
        }
    }

    /// Asks the connection to stop, for a successor.
    pub(super) fn park(&self) {
        self.glance.parks.store(true, Ordering::Relaxed);
        self.wake(self.lock());
    }

    /// Whether the connection was asked to stop, and has not been asked about it before.
    pub(super) fn is_asked_to_park(&self) -> bool {
        self.glance.parks.load(Ordering::Relaxed)
            && self.glance.parks.swap(false, Ordering::Relaxed)
    }

    /// Has the task woken where it waits. Whether the connection is to stop is looked at under the lock,
    /// so that no question comes in between.
    fn register(&self, queue: &mut Queue, cx: &Context<'_>) {
        queue.register(cx);
        let waits_for_more = queue.frames.is_empty() && queue.closing.is_none();
        let task = match waits_for_more {
            true => cx.waker().data().cast_mut(),
            false => ptr::null_mut(),
        };
        self.glance.idle.store(task, Ordering::Release);
        if self.glance.parks.load(Ordering::Relaxed) {
            cx.waker().wake_by_ref();
        }
    }

    /// Hands everything that waits to `each`; how the connection is to end, where that is decided.
    pub(super) fn take_all(&self, mut each: impl FnMut(&Outgoing)) -> Option<Closing> {
        let mut queue = self.lock();
        for frame in std::mem::take(&mut queue.frames) {
            each(&frame);
        }
        queue.closing.clone()
    }

    /// Ends the connection behind the frames that wait; the first reason stands.
    pub(super) fn close(&self, closing: Closing) {
        let mut queue = self.lock();
        queue.closing.get_or_insert(closing);
        self.wake(queue);
    }

    /// Hands frames to `each` until they are `limit` bytes or none is left, and returns how many
    /// bytes they have; they count against the capacity until [`written`](Self::written). Gives back
    /// `written` bytes before that.
    ///
    /// # Errors
    /// Nothing waits, and the connection is to end.
    pub(super) fn poll_next(
        &self,
        cx: &Context<'_>,
        written: usize,
        limit: usize,
        mut each: impl FnMut(Outgoing),
    ) -> Poll<Result<usize, Closing>> {
        if written == 0 && self.is_idle(cx) {
            return Poll::Pending;
        }
        let mut queue = self.lock();
        if written > 0 {
            self.give_back(&mut queue, written);
        }
        if queue.frames.is_empty() {
            if let Some(closing) = &queue.closing {
                return Poll::Ready(Err(closing.clone()));
            }
            self.register(&mut queue, cx);
            return Poll::Pending;
        }
        let mut bytes = 0;
        while bytes < limit
            && let Some(frame) = queue.frames.pop_front()
        {
            bytes += frame.event.cost();
            each(frame);
        }
        if queue.frames.is_empty() {
            let empty = std::mem::take(&mut queue.frames);
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < MAX_KEPT && empty.capacity() <= MAX_ROOM {
                    kept.push(empty);
                }
            });
        }
        Poll::Ready(Ok(bytes))
    }

    /// Whether so little waits that its consumer may ask for more, and it has not said too much.
    pub(super) fn is_light(&self, now: impl FnOnce() -> Instant) -> bool {
        let is_held = self.glance.is_held.load(Ordering::Relaxed) && {
            let mut queue = self.lock();
            if queue.held.is_some_and(|until| until <= now()) {
                queue.held = None;
                self.glance.is_held.store(false, Ordering::Relaxed);
            }
            queue.held.is_some()
        };
        !is_held && self.glance.bytes.load(Ordering::Relaxed) <= self.capacity / 2
    }

    /// Drops what waits: nothing of it will be sent.
    pub(super) fn abandon(&self) {
        let mut queue = self.lock();
        queue.frames = VecDeque::new();
        self.glance.idle.store(ptr::null_mut(), Ordering::Relaxed);
        queue.closing.get_or_insert(Closing {
            code: CloseCode::Normal,
            reason: "",
        });
    }

    /// How the connection is to end, where that is decided.
    pub(super) fn closing(&self) -> Option<Closing> {
        self.lock().closing.clone()
    }

    /// Ready once the consumer has fallen too far behind.
    pub(super) fn poll_overflowed(&self, cx: &Context<'_>) -> Poll<Closing> {
        let mut queue = self.lock();
        match &queue.closing {
            Some(closing) if closing.code == CloseCode::SlowConsumer => {
                Poll::Ready(closing.clone())
            }
            _ => {
                self.register(&mut queue, cx);
                Poll::Pending
            }
        }
    }

    /// Gives back the room of frames that have left for the socket.
    pub(super) fn written(&self, bytes: usize) {
        self.give_back(&mut self.lock(), bytes);
    }

    fn give_back(&self, queue: &mut Queue, bytes: usize) {
        queue.bytes -= bytes;
        self.glance.bytes.store(queue.bytes, Ordering::Relaxed);
        self.shares.give_back(bytes);
        queue.spare.left = queue.spare.left.saturating_sub(bytes);
        if queue.spare.left == 0 {
            queue.spare = Spare::default();
        }
    }

    /// Whether the task at hand waits for more already, and nothing has come for it since.
    pub(super) fn is_idle(&self, cx: &Context<'_>) -> bool {
        let task = cx.waker().data().cast_mut();
        !task.is_null() && self.glance.idle.load(Ordering::Acquire) == task
    }

    /// Wakes the connection's task, which will ask for the lock at once.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let reader = queue.reader.take();
        self.glance.idle.store(ptr::null_mut(), Ordering::Release);
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shares.give_back(self.lock().bytes);
    }
}

#[cfg(test)]
mod tests;
