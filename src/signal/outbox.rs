//! What waits to be written to one connection: bounded in bytes.
//!
//! Full: what waits is dropped and the connection is closed with 4003, so that one consumer that
//! does not read costs a fixed amount. Its session keeps the frames in its ring and may resume.

use crate::protocol::{Body, CloseCode};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

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
    pub(super) reason: String,
}

/// Written by the driver, emptied by the connection's task.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    overflowed: Notify,
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
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            overflowed: Notify::new(),
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
        if queue.bytes > self.capacity && !keeps_up {
            queue.frames = VecDeque::new();
            queue.closing = Some(Closing {
                code: CloseCode::SlowConsumer,
                reason: "too slow: more waited than signal.outbox allows".into(),
            });
            self.overflowed.notify_one();
            self.filled.notify_one();
            return Pushed::Overflowed;
        }
        queue.frames.push_back(frame);
        self.filled.notify_one();
        Pushed::Waits(queue.bytes.try_into().unwrap_or(i64::MAX))
    }

    /// Ends the connection behind the frames that wait; the first reason stands.
    pub(super) fn close(&self, closing: Closing) {
        self.lock().closing.get_or_insert(closing);
        self.filled.notify_one();
    }

    /// Waits until there is something to [`take`](Self::take). Cancel-safe.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until the consumer has fallen too far behind. Cancel-safe.
    pub(super) async fn overflowed(&self) {
        self.overflowed.notified().await;
    }

    /// Takes everything that waits; it counts against the capacity until [`written`](Self::written).
    pub(super) fn take(&self) -> (VecDeque<Outgoing>, Option<Closing>) {
        let mut queue = self.lock();
        (std::mem::take(&mut queue.frames), queue.closing.clone())
    }

    /// Gives back the room of frames that have left for the socket.
    pub(super) fn written(&self, bytes: usize) {
        self.lock().bytes -= bytes;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn frames_being_written_count_until_they_are_out() {
        let outbox = Outbox::new(100);
        outbox.push(frame(60));
        let (frames, closing) = outbox.take();
        assert_eq!((frames.len(), closing), (1, None));
        outbox.written(60);
        outbox.push(frame(60));
        let (frames, closing) = outbox.take();
        assert_eq!((frames.len(), closing), (1, None));
        outbox.push(frame(60));
        let (frames, closing) = outbox.take();
        assert!(frames.is_empty(), "what waited is not kept");
        assert_eq!(closing.unwrap().code, CloseCode::SlowConsumer);
    }

    #[test]
    fn one_large_frame_reaches_a_consumer_that_keeps_up() {
        let outbox = Outbox::new(100);
        outbox.push(frame(500));
        let (frames, closing) = outbox.take();
        assert_eq!((frames.len(), closing), (1, None));
        outbox.written(500);
        outbox.push(frame(20));
        assert_eq!(outbox.push(frame(500)), Pushed::Overflowed);
    }

    #[test]
    fn the_first_reason_to_close_stands_and_frames_before_it_go_out() {
        let outbox = Outbox::new(100);
        outbox.push(frame(10));
        outbox.close(Closing {
            code: CloseCode::Kicked,
            reason: "spam".into(),
        });
        outbox.close(Closing {
            code: CloseCode::Normal,
            reason: String::new(),
        });
        outbox.push(frame(10));
        let (frames, closing) = outbox.take();
        assert_eq!(frames.len(), 1);
        assert_eq!(closing.unwrap().code, CloseCode::Kicked);
    }
}
