//! What a worker waits for: everything by epoll, but busy listeners by poll.
//!
//! A socket that epoll watches tells epoll of every datagram that it has sent, and of every one
//! that arrives, whether anybody waits or not. For the sockets of listeners, which carry half of
//! all traffic, that is one part in twenty of a relayed datagram. poll watches them only while the
//! worker sleeps, but is one more system call a turn: it pays where many datagrams pass in a turn.

use super::listener::Listener;
use super::source::Source;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Events of one turn: enough to fill a receive batch several times over.
pub(super) const EVENTS: usize = 256;
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Where a worker's events come from.
pub(super) struct Readiness<'w> {
    epoll: &'w OwnedFd,
    listeners: &'w [Listener],
    /// That of epoll, then those of the listeners.
    polled: Vec<PollFd<'w>>,
    habit: Habit,
    events: Vec<Event>,
    ready: Vec<(Source, EventFlags)>,
}

impl<'w> Readiness<'w> {
    pub(super) fn new(epoll: &'w OwnedFd, listeners: &'w [Listener]) -> Self {
        let polled = std::iter::once(epoll.as_fd())
            .chain(listeners.iter().map(Listener::as_fd))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let mut readiness = Self {
            epoll,
            listeners,
            polled,
            habit: Habit::default(),
            events: Vec::with_capacity(EVENTS),
            ready: Vec::with_capacity(EVENTS),
        };
        readiness.watch_listeners();
        readiness
    }

    /// Waits until something is ready or `timeout` is over; `None` waits without end. `passed`
    /// counts what has passed through the listeners since the start.
    ///
    /// # Errors
    /// What the kernel says, a signal aside.
    pub(super) fn wait(
        &mut self,
        passed: u64,
        mut timeout: Option<&Timespec>,
    ) -> Result<&[(Source, EventFlags)]> {
        let by_poll = self.by_poll(passed);
        self.ready.clear();
        if by_poll {
            match poll(&mut self.polled, timeout) {
                Ok(0) | Err(Errno::INTR) => return Ok(&self.ready),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
            let (epoll, listeners) = self.polled.split_first().expect("epoll is polled");
            let ready = listeners.iter().enumerate().filter(|(_, l)| is_ready(l));
            let ready = ready.map(|(index, _)| (listener(index), EventFlags::IN));
            self.ready.extend(ready);
            if !is_ready(epoll) {
                return Ok(&self.ready);
            }
            timeout = Some(&AT_ONCE);
        }
        self.events.clear();
        match epoll::wait(self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let events = self.events.iter();
        self.ready
            .extend(events.map(|e| (Source::from_token(e.data.u64()), e.flags)));
        Ok(&self.ready)
    }

    /// Whether the listeners are to be polled; moves them where that has changed.
    fn by_poll(&mut self, passed: u64) -> bool {
        let before = self.habit.by_poll;
        match (before, self.habit.after_turn(passed)) {
            (false, true) => self.forget_listeners(),
            (true, false) => self.watch_listeners(),
            _ => {}
        }
        self.habit.by_poll
    }

    /// Has epoll watch the listeners; where this user's epoll sets have no more room, poll needs
    /// none.
    fn watch_listeners(&mut self) {
        self.habit.by_poll = false;
        for (index, socket) in self.listeners.iter().enumerate() {
            let data = EventData::new_u64(listener(index).to_token());
            if epoll::add(self.epoll, socket, data, EventFlags::IN).is_err() {
                self.forget_listeners();
                self.habit.by_poll = true;
                return;
            }
        }
    }

    fn forget_listeners(&self) {
        for listener in self.listeners {
            // One that is not there is as good as gone.
            let _ = epoll::delete(self.epoll, listener);
        }
    }
}

fn listener(index: usize) -> Source {
    Source::Listener(index as u32)
}

/// Turns after which the way is chosen anew.
const WINDOW: u32 = 256;
/// Messages through the listeners in a turn from which on poll is cheaper, and below which it is
/// not any more.
const BUSY: u64 = 8;
const QUIET: u64 = 4;

/// How busy the listeners usually are. Pure.
#[derive(Debug, Default)]
struct Habit {
    by_poll: bool,
    turns: u32,
    /// What had passed at the beginning of the window.
    since: u64,
}

impl Habit {
    /// Notes a turn after which `passed` messages have passed in all. Returns whether to poll.
    fn after_turn(&mut self, passed: u64) -> bool {
        self.turns += 1;
        if self.turns == WINDOW {
            let enough = if self.by_poll { QUIET } else { BUSY };
            self.by_poll = passed - self.since >= enough * u64::from(WINDOW);
            self.turns = 0;
            self.since = passed;
        }
        self.by_poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::listener;
    use crate::relay::udp::Offload;
    use rustix::event::epoll::CreateFlags;
    use std::net::UdpSocket;

    /// The way after each of four windows with so many messages a turn.
    fn ways(habit: &mut Habit, passed: &mut u64, a_turn: u64) -> [bool; 4] {
        std::array::from_fn(|_| {
            for _ in 0..WINDOW {
                *passed += a_turn;
                habit.after_turn(*passed);
            }
            habit.by_poll
        })
    }

    #[test]
    fn busy_listeners_are_polled_and_do_not_waver() {
        let (mut habit, mut passed) = (Habit::default(), 0);
        let mut ways = |a_turn| ways(&mut habit, &mut passed, a_turn);
        assert_eq!(ways(BUSY - 1), [false; 4]);
        assert_eq!(ways(BUSY), [true; 4]);
        assert_eq!(ways(QUIET), [true; 4]);
        assert_eq!(ways(QUIET - 1), [false; 4]);
        assert_eq!(ways(BUSY - 1), [false; 4]);
    }

    /// The listeners of a worker, one of which has something to receive.
    fn told() -> Vec<Listener> {
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        let mut groups = listener::group(vec![bound], 1, Offload::probe()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", address).unwrap();
        let listeners = groups.pop().unwrap();
        let mut arriving = [PollFd::new(&listeners[0], PollFlags::IN)];
        poll(&mut arriving, None).unwrap();
        listeners
    }

    #[test]
    fn a_datagram_is_told_of_on_either_way_and_after_each_change() {
        let listeners = told();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let mut readiness = Readiness::new(&epoll, &listeners);
        let mut ways = vec![];
        let mut passed = 0;
        for a_turn in [0, BUSY, 0, BUSY] {
            for _ in 0..WINDOW {
                passed += a_turn;
                let ready = readiness.wait(passed, Some(&AT_ONCE)).unwrap();
                assert_eq!(ready, [(Source::Listener(0), EventFlags::IN)]);
            }
            ways.push(readiness.habit.by_poll);
        }
        assert_eq!(ways, [false, true, false, true]);
    }

    #[test]
    fn listeners_that_epoll_refuses_are_polled() {
        let listeners = told();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        // It takes no socket twice.
        epoll::add(&epoll, &listeners[0], EventData::new_u64(0), EventFlags::IN).unwrap();
        let mut readiness = Readiness::new(&epoll, &listeners);
        for _ in 0..2 * WINDOW {
            let ready = readiness.wait(0, Some(&AT_ONCE)).unwrap();
            assert_eq!(ready, [(Source::Listener(0), EventFlags::IN)]);
        }
    }
}
