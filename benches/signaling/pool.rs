//! Many clients of one server: connects them, keeps them answered, and hands over what arrives.

use super::dialect::{self, Dialect, Standing};
use super::socket::{Door, Event, WebSocket};
use crate::common::epoll::Epoll;
use anyhow::{Context, Result, bail, ensure};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Longest wait for what a server owes.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Local addresses in turn, since each has 28,000 ports and closed ones rest for a minute.
const LOCAL_ADDRESSES: usize = 200;

pub(crate) struct Member {
    pub(crate) socket: WebSocket,
    pub(crate) standing: Standing,
    opened: Instant,
    /// From connecting to having joined.
    pub(crate) joining: Option<Duration>,
    pub(crate) closed: Option<Option<u16>>,
}

/// A measured message that has arrived.
pub(crate) struct Arrival {
    pub(crate) member: usize,
    pub(crate) took: Duration,
}

pub(crate) struct Pool {
    pub(crate) dialect: Dialect,
    door: Door,
    pub(crate) members: Vec<Member>,
    epoll: Epoll,
    /// Index, as the protocol knows it, of the first member: no two pools share names.
    first: usize,
    clock: Instant,
}

impl Pool {
    pub(crate) fn new(door: &Door, dialect: Dialect, first: usize) -> Result<Self> {
        let epoll = Epoll::new(256)?;
        Ok(Self {
            dialect,
            door: door.clone(),
            members: vec![],
            epoll,
            first,
            clock: Instant::now(),
        })
    }

    /// Other clients of the same rooms, at another server, by the same clock.
    pub(crate) fn beside(&self, door: &Door) -> Result<Self> {
        Ok(Self {
            clock: self.clock,
            ..Self::new(door, self.dialect, self.first)?
        })
    }

    /// Opens `count` sockets in rooms of `room_size` and waits until all have joined, at most
    /// `group` at a time.
    pub(crate) fn join(&mut self, count: usize, room_size: usize, group: usize) -> Result<()> {
        for start in (0..count).step_by(group) {
            for position in start..count.min(start + group) {
                self.open(position / room_size, None)?;
            }
            self.wait(|pool| pool.members.iter().skip(start).all(|m| m.standing.joined))
                .with_context(|| format!("joining clients {start} and up"))?;
        }
        Ok(())
    }

    /// Opens one socket that will join `room`.
    pub(crate) fn open(&mut self, room: usize, receive_buffer: Option<usize>) -> Result<()> {
        let position = self.members.len();
        let index = self.first + position;
        let local = Ipv4Addr::new(127, 0, 1, (index % LOCAL_ADDRESSES) as u8 + 1);
        let path = self.dialect.path(self.first + room, index);
        let opened = Instant::now();
        let socket = WebSocket::open(&self.door, local, &path, receive_buffer)?;
        self.epoll.add(socket.fd(), position << 32 | room)?;
        let standing = self.dialect.standing(self.first + room, index);
        self.members.push(Member {
            socket,
            standing,
            opened,
            joining: None,
            closed: None,
        });
        Ok(())
    }

    /// Takes in what is there within `timeout`; measured messages go to `each`.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(Arrival),
    ) -> Result<usize> {
        let ready = self.epoll.wait(Some(timeout))?;
        for index in 0..ready {
            let token = self.epoll.token(index);
            let (member, room) = (token >> 32, token & 0xffff_ffff);
            self.receive(member, room, &mut each)?;
        }
        Ok(ready)
    }

    /// Takes in until `done`.
    ///
    /// # Errors
    /// It is not done after `TIMEOUT`, or a server broke its protocol.
    pub(crate) fn wait(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        let started = Instant::now();
        while !done(self) {
            self.turn(Duration::ZERO, |_| {})?;
            ensure!(started.elapsed() < TIMEOUT, "the server does not answer");
        }
        Ok(())
    }

    /// Sends one measured message of `size` bytes.
    pub(crate) fn send(&mut self, member: usize, size: usize) -> Result<()> {
        let now = self.clock.elapsed().as_nanos() as u64;
        let Member {
            socket, standing, ..
        } = &mut self.members[member];
        socket.send(&self.dialect.message(standing, size, now))
    }

    fn receive(
        &mut self,
        position: usize,
        room: usize,
        each: &mut impl FnMut(Arrival),
    ) -> Result<()> {
        let (dialect, first, clock) = (self.dialect, self.first, self.clock);
        let Member {
            socket,
            standing,
            opened,
            joining,
            closed,
        } = &mut self.members[position];
        let mut replies = vec![];
        let mut broken = None;
        socket.receive(|event| match event {
            Event::Upgraded => replies.extend(dialect.join(first + room, first + position)),
            Event::Closed(code) => *closed = Some(code),
            Event::Text(text) => match dialect::sent_at(text) {
                Some(sent) => {
                    let took = clock.elapsed().saturating_sub(Duration::from_nanos(sent));
                    each(Arrival {
                        member: position,
                        took,
                    });
                }
                None => match dialect.learn(standing, text) {
                    Ok(reply) => {
                        replies.extend(reply);
                        if standing.joined {
                            joining.get_or_insert_with(|| opened.elapsed());
                        }
                    }
                    Err(error) => broken = Some(error.context(text.to_owned())),
                },
            },
        })?;
        if let Some(error) = broken {
            bail!(error);
        }
        for reply in replies {
            socket.send(&reply)?;
        }
        Ok(())
    }
}
