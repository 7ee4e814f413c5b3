//! What waits to be written to one connection: bounded in bytes.
//!
//! Full: what waits is dropped and the connection is closed with 4003, so that one consumer that
//! does not read costs a fixed amount. Its session keeps the frames in its ring and may resume.

use crate::protocol::{Body, CloseCode};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A frame and its number in the session.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) seq: Option<u64>,
    pub(super) body: Body,
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) code: CloseCode,
    pub(super) reason: &'static str,
}

/// Written by the driver, emptied by the connection's task.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    capacity: usize,
    opened: Instant,
    entered: AtomicBool,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, and this many bytes in all.
    Waits(i64),
    /// It was the one too many.
    Overflowed,
    /// The connection is ending: dropped.
    Closed,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    /// Bytes in `frames` and in the batch being written.
    bytes: usize,
    closing: Option<Closing>,
    /// The connection's task, where it waits for more.
    reader: Option<Waker>,
}

impl Queue {
    fn register(&mut self, cx: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => self.reader = Some(cx.waker().clone()),
        }
    }
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::default(),
            capacity,
            opened: Instant::now(),
            entered: AtomicBool::new(false),
        }
    }

    /// How long the connection took to enter a session, the first time that it does.
    pub(super) fn first_entry(&self) -> Option<Duration> {
        (!self.entered.swap(true, Ordering::Relaxed)).then(|| self.opened.elapsed())
    }

    /// Queues a frame behind those before it.
    pub(super) fn push(&self, frame: Outgoing) -> Pushed {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return Pushed::Closed;
        }
        // One frame of any size goes to a consumer that keeps up: `joined` lists a whole room.
        let keeps_up = queue.bytes == 0;
        queue.bytes += frame.body.len();
        let pushed = if queue.bytes > self.capacity && !keeps_up {
            queue.frames = VecDeque::new();
            queue.closing = Some(Closing {
                code: CloseCode::SlowConsumer,
                reason: "too slow: more waited than signal.outbox allows",
            });
            Pushed::Overflowed
        } else {
            queue.frames.push_back(frame);
            Pushed::Waits(queue.bytes.try_into().unwrap_or(i64::MAX))
        };
        wake(queue);
        pushed
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
            bytes += frame.body.len();
            each(frame);
        }
        if queue.frames.is_empty() {
            // Most connections wait most of the time.
            queue.frames = VecDeque::new();
        }
        Poll::Ready(Ok(bytes))
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
        self.lock().bytes -= bytes;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn frame(bytes: usize) -> Outgoing {
        let body = Body::from_object(format!("{{\"x\":\"{}\"}}", "a".repeat(bytes - 8)));
        assert_eq!(body.len(), bytes);
        Outgoing { seq: None, body }
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
        let outbox = Outbox::new(100);
        outbox.push(frame(60));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        outbox.written(60);
        outbox.push(frame(60));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        let cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll_overflowed(&cx).is_pending());
        outbox.push(frame(60));
        assert!(outbox.poll_overflowed(&cx).is_ready());
        let end = Poll::Ready(Err(CloseCode::SlowConsumer));
        assert_eq!(take(&outbox), end, "what waited is not kept");
    }

    #[test]
    fn one_large_frame_reaches_a_consumer_that_keeps_up() {
        let outbox = Outbox::new(100);
        outbox.push(frame(500));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        outbox.written(500);
        outbox.push(frame(20));
        assert_eq!(outbox.push(frame(500)), Pushed::Overflowed);
    }

    #[test]
    fn a_batch_ends_behind_the_frame_that_reaches_its_limit() {
        let outbox = Outbox::new(100);
        for _ in 0..4 {
            outbox.push(frame(20));
        }
        let cx = Context::from_waker(Waker::noop());
        let batch = outbox.poll_take(&cx, 30, drop);
        assert_eq!(batch, Poll::Ready(Ok(40)));
        assert_eq!(take(&outbox), Poll::Ready(Ok(2)));
        assert_eq!(take(&outbox), Poll::Pending);
    }

    #[test]
    fn the_first_reason_to_close_stands_and_frames_before_it_go_out() {
        let outbox = Outbox::new(100);
        outbox.push(frame(10));
        for code in [CloseCode::Kicked, CloseCode::Normal] {
            outbox.close(Closing { code, reason: "" });
        }
        outbox.push(frame(10));
        assert_eq!(take(&outbox), Poll::Ready(Ok(1)));
        assert_eq!(take(&outbox), Poll::Ready(Err(CloseCode::Kicked)));
    }
}
