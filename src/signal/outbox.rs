//! What waits to be written to one connection: bounded in bytes.
//!
//! Full: what waits is dropped and the connection is closed with 4003, so that one consumer that
//! does not read costs a fixed amount. Its session keeps the frames in its ring and may resume.

use super::dialect::{Closing, Outgoing};
use crate::protocol::CloseCode;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Bytes that may wait for all connections of one network, and for all of them. Beyond either, a
/// connection for which more than its fair share waits is closed as one that is too slow.
const MAX_OF_NETWORK: usize = 32 << 20;
const MAX_IN_ALL: usize = 256 << 20;
/// What may wait for any connection, whatever waits for others.
const FAIR_SHARE: usize = 32 << 10;

/// What waits for connections together.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Those of the same network.
    pub(super) network: Arc<AtomicUsize>,
    /// All.
    pub(super) total: Arc<AtomicUsize>,
}

impl Shares {
    fn add(&self, bytes: usize) {
        self.network.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.network.fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn are_full(&self) -> bool {
        self.network.load(Ordering::Relaxed) > MAX_OF_NETWORK
            || self.total.load(Ordering::Relaxed) > MAX_IN_ALL
    }
}

/// Written by the driver, emptied by the connection's task.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    capacity: usize,
    shares: Shares,
    opened: Instant,
    entered: AtomicBool,
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
    /// Makes room for `bytes` in all; tells whether there is.
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
            queue: Mutex::default(),
            capacity,
            shares,
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
            && (bytes <= FAIR_SHARE || !self.shares.are_full());
        queue.bytes = bytes;
        self.shares.add(cost);
        let pushed = if !has_room {
            queue.frames = VecDeque::new();
            queue.closing = Some(Closing {
                code: CloseCode::SlowConsumer,
                reason: "too slow: more waited than signal.outbox allows",
            });
            Pushed::Overflowed
        } else {
            queue.frames.push_back(frame);
            Pushed::Waits(bytes)
        };
        wake(queue);
        pushed
    }

    /// Has the client not read until then.
    pub(super) fn hold(&self, until: Instant) {
        self.lock().held = Some(until);
    }

    /// Until when the client is not read.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.lock().held
    }

    /// Ends the connection behind the frames that wait; the first reason stands.
    pub(super) fn close(&self, closing: Closing) {
        let mut queue = self.lock();
        queue.closing.get_or_insert(closing);
        wake(queue);
    }

    /// Hands frames to `each` until they are `limit` bytes or none is left, and returns how many
    /// bytes they have; they count against the capacity until [`written`](Self::written).
    ///
    /// # Errors
    /// Nothing waits, and the connection is to end.
    pub(super) fn poll_take(
        &self,
        cx: &Context<'_>,
        limit: usize,
        mut each: impl FnMut(Outgoing),
    ) -> Poll<Result<usize, Closing>> {
        let mut queue = self.lock();
        if queue.frames.is_empty() {
            if let Some(closing) = &queue.closing {
                return Poll::Ready(Err(closing.clone()));
            }
            queue.register(cx);
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
            // Most connections wait most of the time.
            queue.frames = VecDeque::new();
        }
        Poll::Ready(Ok(bytes))
    }

    /// Whether so little waits that its consumer may ask for more, and it has not said too much.
    pub(super) fn is_light(&self, now: impl FnOnce() -> Instant) -> bool {
        let mut queue = self.lock();
        if queue.held.is_some_and(|until| until <= now()) {
            queue.held = None;
        }
        queue.held.is_none() && queue.bytes <= self.capacity / 2
    }

    /// Drops what waits: nothing of it will be sent.
    pub(super) fn abandon(&self) {
        let mut queue = self.lock();
        queue.frames = VecDeque::new();
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
                queue.register(cx);
                Poll::Pending
            }
        }
    }

    /// Gives back the room of frames that have left for the socket.
    pub(super) fn written(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes -= bytes;
        self.shares.give_back(bytes);
        queue.spare.left = queue.spare.left.saturating_sub(bytes);
        if queue.spare.left == 0 {
            queue.spare = Spare::default();
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

/// Wakes the connection's task, which will ask for the lock at once.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Body, FrameType, PeerId};
    use crate::signal::hub::Event;

    fn frame(bytes: usize) -> Outgoing {
        let body = Body::from_object(
            FrameType::Message,
            format!("{{\"x\":\"{}\"}}", "a".repeat(bytes - 8)),
        );
        assert_eq!(body.len(), bytes);
        let peer = PeerId::from_bits(1);
        Outgoing {
            peer,
            seq: None,
            event: Event::Native(body),
        }
    }

    /// How many frames wait, or why there will be no more.
    fn take(outbox: &Outbox) -> Poll<Result<usize, CloseCode>> {
        let mut frames = 0;
        let cx = Context::from_waker(Waker::noop());
        let taken = outbox.poll_take(&cx, usize::MAX, |_| frames += 1);
        taken.map(|taken| taken.map(|_| frames).map_err(|closing| closing.code))
    }

    #[test]
    fn frames_being_written_count_until_they_are_out() {
        let outbox = Outbox::new(100, Shares::default());
        outbox.push(1, frame(60));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        outbox.written(60);
        outbox.push(2, frame(60));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        let cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll_overflowed(&cx).is_pending());
        assert_eq!(outbox.push(3, frame(60)), Pushed::Overflowed);
        assert!(outbox.poll_overflowed(&cx).is_ready());
        let end = Poll::Ready(Err(CloseCode::SlowConsumer));
        assert_eq!(take(&outbox), end, "what waited is not kept");
    }

    #[test]
    fn what_one_input_leads_to_reaches_a_consumer_that_keeps_up() {
        let outbox = Outbox::new(100, Shares::default());
        outbox.push(1, frame(50));
        for size in [500, 30, 400] {
            assert!(matches!(outbox.push(2, frame(size)), Pushed::Waits(_)));
        }
        assert_eq!(
            outbox.push(3, frame(50)),
            Pushed::Waits(1030),
            "as if it were not there"
        );
        assert!(!outbox.is_light(Instant::now));
        assert_eq!(take(&outbox), Poll::Ready(Ok(5)));
        outbox.written(980);
        assert_eq!(
            outbox.push(4, frame(150)),
            Pushed::Waits(200),
            "the room is free again"
        );
        assert_eq!(
            outbox.push(5, frame(500)),
            Pushed::Overflowed,
            "one at a time"
        );
    }

    #[test]
    fn who_is_behind_gets_no_spare_room() {
        let outbox = Outbox::new(100, Shares::default());
        outbox.push(1, frame(51));
        assert_eq!(outbox.push(2, frame(500)), Pushed::Overflowed);
    }

    #[test]
    fn a_batch_ends_behind_the_frame_that_reaches_its_limit() {
        let outbox = Outbox::new(100, Shares::default());
        for input in 0..4 {
            outbox.push(input, frame(20));
        }
        let cx = Context::from_waker(Waker::noop());
        let batch = outbox.poll_take(&cx, 30, drop);
        assert_eq!(batch, Poll::Ready(Ok(40)));
        assert_eq!(take(&outbox), Poll::Ready(Ok(2)));
        assert_eq!(take(&outbox), Poll::Pending);
    }

    #[test]
    fn the_first_reason_to_close_stands_and_frames_before_it_go_out() {
        let outbox = Outbox::new(100, Shares::default());
        outbox.push(1, frame(10));
        for code in [CloseCode::Kicked, CloseCode::Normal] {
            outbox.close(Closing { code, reason: "" });
        }
        outbox.push(2, frame(10));
        assert_eq!(outbox.closing().map(|c| c.code), Some(CloseCode::Kicked));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        assert_eq!(take(&outbox), Poll::Ready(Err(CloseCode::Kicked)));
    }

    #[test]
    fn a_held_client_is_read_again_later() {
        let outbox = Outbox::new(100, Shares::default());
        let now = Instant::now();
        outbox.hold(now + Duration::from_secs(1));
        assert!(!outbox.is_light(|| now));
        assert!(outbox.is_light(|| now + Duration::from_secs(1)));
        assert_eq!(outbox.held_until(), None);
    }

    #[test]
    fn one_network_holds_no_more_than_its_share_and_others_go_on() {
        let (total, network) = (Arc::default(), Arc::<AtomicUsize>::default());
        let outbox = |network: &Arc<AtomicUsize>| {
            let shares = Shares {
                network: Arc::clone(network),
                total: Arc::clone(&total),
            };
            Outbox::new(256 << 10, shares)
        };
        let mut held = vec![];
        loop {
            let slow = outbox(&network);
            let last = (0..4).map(|_| slow.push(1, frame(60 << 10))).last();
            held.push(slow);
            if last != Some(Pushed::Waits(240 << 10)) {
                break;
            }
        }
        assert!(
            held.len() <= (MAX_OF_NETWORK >> 10) / 240 + 2,
            "{}",
            held.len()
        );
        // A light consumer of that network, and any of another one, are as before.
        assert!(matches!(
            outbox(&network).push(1, frame(30 << 10)),
            Pushed::Waits(_)
        ));
        let elsewhere = outbox(&Arc::default());
        for _ in 0..4 {
            assert!(matches!(
                elsewhere.push(1, frame(60 << 10)),
                Pushed::Waits(_)
            ));
        }
        drop((held, elsewhere));
        assert_eq!(
            (
                network.load(Ordering::Relaxed),
                total.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }
}
