//! What a worker waits for: everything by epoll, but busy listeners by poll.
//!
//! A socket that epoll watches tells epoll of every datagram that it has sent, and of every one
//! that arrives, whether anybody waits or not. For the sockets of listeners, which carry half of
//! all traffic, that is one part in twenty of a relayed datagram. poll watches them only while the
//! worker sleeps, but is one more system call a turn: it pays where many datagrams pass in a turn.

use super::listener::Listener;
use super::token::Token;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Events of one turn: enough to fill a receive batch several times over.
pub(in crate::relay) const EVENTS: usize = 256;
/// Not at all.
pub(in crate::relay) const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Where a worker's events come from.
pub(in crate::relay) struct Poller<'w> {
    epoll: &'w OwnedFd,
    listeners: &'w [Listener],
    /// That of epoll, then those of the listeners.
    polled: Vec<PollFd<'w>>,
    mode: PollMode,
    events: Vec<Event>,
    ready: Vec<(Token, EventFlags)>,
}

impl<'w> Poller<'w> {
    pub(in crate::relay) fn new(epoll: &'w OwnedFd, listeners: &'w [Listener]) -> Self {
        let polled = std::iter::once(epoll.as_fd())
            .chain(listeners.iter().map(Listener::as_fd))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let mut poller = Self {
            epoll,
            listeners,
            polled,
            mode: PollMode::default(),
            events: Vec::with_capacity(EVENTS),
            ready: Vec::with_capacity(EVENTS),
        };
        poller.watch_listeners();
        poller
    }

    /// Waits until something is ready or `timeout` is over; `None` waits without end. `listener_datagrams`
    /// counts what has passed through the listeners since the start.
    ///
    /// # Errors
    /// What the kernel says, a signal aside.
    pub(in crate::relay) fn wait(
        &mut self,
        listener_datagrams: u64,
        mut timeout: Option<&Timespec>,
    ) -> Result<&[(Token, EventFlags)]> {
        let by_poll = self.by_poll(listener_datagrams);
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
            .extend(events.map(|e| (Token::from_bits(e.data.u64()), e.flags)));
        Ok(&self.ready)
    }

    /// Whether the listeners are to be polled; moves them where that has changed.
    fn by_poll(&mut self, listener_datagrams: u64) -> bool {
        let before = self.mode.by_poll;
        match (before, self.mode.after_turn(listener_datagrams)) {
            (false, true) => self.forget_listeners(),
            (true, false) => self.watch_listeners(),
            _ => {}
        }
        self.mode.by_poll
    }

    /// Has epoll watch the listeners; where this user's epoll sets have no more room, poll needs
    /// none.
    fn watch_listeners(&mut self) {
        self.mode.by_poll = false;
        for (index, socket) in self.listeners.iter().enumerate() {
            let data = EventData::new_u64(listener(index).to_bits());
            if epoll::add(self.epoll, socket, data, EventFlags::IN).is_err() {
                self.forget_listeners();
                self.mode.by_poll = true;
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

fn listener(index: usize) -> Token {
    Token::Listener(index as u32)
}

/// Turns after which the way is chosen anew.
const WINDOW: u32 = 256;
/// Messages through the listeners in a turn from which on poll is cheaper, and below which it is
/// not any more.
const BUSY: u64 = 8;
const QUIET: u64 = 4;

/// How busy the listeners usually are. Pure.
#[derive(Debug, Default)]
struct PollMode {
    by_poll: bool,
    turns: u32,
    /// What had passed at the beginning of the window.
    since: u64,
}

impl PollMode {
    /// Notes a turn after which `listener_datagrams` messages have passed in all. Returns whether to poll.
    fn after_turn(&mut self, listener_datagrams: u64) -> bool {
        self.turns += 1;
        if self.turns == WINDOW {
            let enough = if self.by_poll { QUIET } else { BUSY };
            self.by_poll = listener_datagrams - self.since >= enough * u64::from(WINDOW);
            self.turns = 0;
            self.since = listener_datagrams;
        }
        self.by_poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::io::listener;
    use crate::relay::io::udp::Offload;
    use rustix::event::epoll::CreateFlags;
    use std::net::UdpSocket;

    /// The way after each of four windows with so many messages a turn.
    fn ways(mode: &mut PollMode, listener_datagrams: &mut u64, a_turn: u64) -> [bool; 4] {
        std::array::from_fn(|_| {
            for _ in 0..WINDOW {
                *listener_datagrams += a_turn;
                mode.after_turn(*listener_datagrams);
            }
            mode.by_poll
        })
    }

    #[test]
    fn busy_listeners_are_polled_and_do_not_waver() {
        let (mut mode, mut listener_datagrams) = (PollMode::default(), 0);
        let mut ways = |a_turn| ways(&mut mode, &mut listener_datagrams, a_turn);
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
        let mut poller = Poller::new(&epoll, &listeners);
        let mut ways = vec![];
        let mut listener_datagrams = 0;
        for a_turn in [0, BUSY, 0, BUSY] {
            for _ in 0..WINDOW {
                listener_datagrams += a_turn;
                let ready = poller.wait(listener_datagrams, Some(&AT_ONCE)).unwrap();
                assert_eq!(ready, [(Token::Listener(0), EventFlags::IN)]);
            }
            ways.push(poller.mode.by_poll);
        }
        assert_eq!(ways, [false, true, false, true]);
    }

    #[test]
    fn listeners_that_epoll_refuses_are_polled() {
        let listeners = told();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        // It takes no socket twice.
        epoll::add(&epoll, &listeners[0], EventData::new_u64(0), EventFlags::IN).unwrap();
        let mut poller = Poller::new(&epoll, &listeners);
        for _ in 0..2 * WINDOW {
            let ready = poller.wait(0, Some(&AT_ONCE)).unwrap();
            assert_eq!(ready, [(Token::Listener(0), EventFlags::IN)]);
        }
    }
}
