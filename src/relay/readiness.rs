//! What a worker waits for: its listeners by poll, everything else by epoll.
//!
//! A socket that epoll watches tells epoll of every datagram that it has sent, and of every one
//! that arrives, whether anybody waits or not. For the sockets of listeners, which carry half of
//! all traffic, that is one part in twenty of a relayed datagram. poll watches them only while the
//! worker sleeps.

use super::source::Source;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Events of one turn: enough to fill a receive batch several times over.
pub(super) const EVENTS: usize = 256;
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Where a worker's events come from.
pub(super) struct Readiness<'w> {
    epoll: &'w OwnedFd,
    /// That of epoll, then those of the listeners.
    polled: Vec<PollFd<'w>>,
    events: Vec<Event>,
    ready: Vec<(Source, EventFlags)>,
}

impl<'w> Readiness<'w> {
    pub(super) fn new(epoll: &'w OwnedFd, listeners: impl Iterator<Item = BorrowedFd<'w>>) -> Self {
        let polled = std::iter::once(epoll.as_fd())
            .chain(listeners)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        Self {
            epoll,
            polled,
            events: Vec::with_capacity(EVENTS),
            ready: Vec::with_capacity(EVENTS),
        }
    }

    /// Waits until something is ready or `timeout` is over; `None` waits without end.
    ///
    /// # Errors
    /// What the kernel says, a signal aside.
    pub(super) fn wait(&mut self, timeout: Option<&Timespec>) -> Result<&[(Source, EventFlags)]> {
        self.ready.clear();
        match poll(&mut self.polled, timeout) {
            Ok(0) | Err(Errno::INTR) => return Ok(&self.ready),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        let (epoll, listeners) = self.polled.split_first().expect("epoll is polled");
        let ready = listeners.iter().enumerate().filter(|(_, l)| is_ready(l));
        self.ready
            .extend(ready.map(|(index, _)| (Source::Listener(index as u32), EventFlags::IN)));
        if is_ready(epoll) {
            self.events.clear();
            match epoll::wait(self.epoll, spare_capacity(&mut self.events), Some(&AT_ONCE)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            let events = self.events.iter();
            self.ready
                .extend(events.map(|e| (Source::from_token(e.data.u64()), e.flags)));
        }
        Ok(&self.ready)
    }
}
