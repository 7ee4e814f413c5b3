//! Datagram system calls in batches: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT, packet
//! info, the error queue.
//!
//! This module and its parts are the only ones with `unsafe`. They know nothing of TURN, and
//! decide nothing: who gets what, and in which grouping, is [`super::send_queue`]'s.

#![allow(unsafe_code)]

mod ancillary;
mod receive;
mod send;

pub(in crate::relay) use receive::{RecvBuffers, RecvRound};
pub(in crate::relay) use send::{Message, Sender};

use ancillary::IcmpError;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Messages of one system call, received or sent: the figure that architecture.md's measurements
/// were made with.
pub(in crate::relay) const BATCH: usize = 64;
/// Bytes of UDP payload that fit in an IPv4 packet.
pub(in crate::relay) const MAX_PAYLOAD: usize = 65_507;
/// Bytes that socket buffers of listeners are asked to hold: 30 ms of a 1 Gbit/s burst.
const LISTENER_BUFFER: usize = 4 << 20;
/// Bytes that socket buffers of relayed addresses are asked to hold: ten video key frames.
const RELAY_BUFFER: usize = 1 << 20;

/// What the kernel does for several equal datagrams at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// UDP_GRO, Linux 5.0: they are received as one.
    pub gro: bool,
    /// UDP_SEGMENT, Linux 4.18: they are sent as one.
    pub gso: bool,
}

impl Offload {
    /// Asks the kernel what it can do.
    pub(in crate::relay) fn probe() -> Self {
        let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) else {
            return Self {
                gro: false,
                gso: false,
            };
        };
        let can = |name| set_option(socket.as_fd(), libc::SOL_UDP, name, 0).is_ok();
        Self {
            gro: can(libc::UDP_GRO),
            gso: can(libc::UDP_SEGMENT),
        }
    }
}

/// What the kernel does not give the relay, in words that name the fix.
pub fn kernel_shortcomings() -> Vec<String> {
    let mut found = vec![];
    let offload = Offload::probe();
    if !offload.gro {
        found.push("the kernel has no UDP_GRO (Linux 5.0): bursts cost more CPU".into());
    }
    if !offload.gso {
        found.push("the kernel has no UDP_SEGMENT (Linux 4.18): bursts cost more CPU".into());
    }
    if let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) {
        size_buffers(&socket, LISTENER_BUFFER);
        for (granted, key) in [
            (socket.recv_buffer_size(), "net.core.rmem_max"),
            (socket.send_buffer_size(), "net.core.wmem_max"),
        ] {
            // The kernel doubles what it grants, for its own book-keeping.
            let granted = granted.unwrap_or(0) / 2;
            if granted < LISTENER_BUFFER {
                found.push(format!(
                    "{key} caps socket buffers at {granted} bytes, and bursts may be lost: \
                     `sysctl -w {key}={LISTENER_BUFFER}`"
                ));
            }
        }
    }
    found
}

/// Prepares a bound listener of clients. Bound to a wildcard, it tells with each datagram which
/// address was asked.
pub(in crate::relay) fn prepare_listener(socket: &Socket, offload: Offload) -> io::Result<()> {
    let fd = socket.as_fd();
    socket.set_nonblocking(true)?;
    size_buffers(socket, LISTENER_BUFFER);
    if offload.gro {
        set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    match socket.local_addr()?.as_socket() {
        Some(SocketAddr::V4(address)) if address.ip().is_unspecified() => {
            set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
        }
        Some(SocketAddr::V6(address)) if address.ip().is_unspecified() => {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
        }
        _ => Ok(()),
    }
}

/// The socket of a relayed address.
pub(in crate::relay) struct RelaySocket {
    socket: Socket,
    is_ipv4: bool,
    dont_fragment: Cell<bool>,
    last_turn: Cell<u32>,
}

impl RelaySocket {
    pub(in crate::relay) fn bind(address: SocketAddr, offload: Offload) -> io::Result<Self> {
        let kind = Type::DGRAM.nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        size_buffers(&socket, RELAY_BUFFER);
        let fd = socket.as_fd();
        if offload.gro {
            set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        }
        let (level, name) = match address {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        set_option(fd, level, name, 1)?;
        let relay = Self {
            socket,
            is_ipv4: address.is_ipv4(),
            dont_fragment: Cell::new(true),
            last_turn: Cell::new(0),
        };
        relay.set_dont_fragment(false);
        Ok(relay)
    }

    /// Takes over the socket that an earlier process bound; `None` if it is not bound to `port`.
    pub(in crate::relay) fn adopt(socket: OwnedFd, port: u16) -> Option<Self> {
        let socket = Socket::from(socket);
        let local = socket.local_addr().ok()?.as_socket()?;
        let relay = Self {
            socket,
            is_ipv4: local.is_ipv4(),
            dont_fragment: Cell::new(true),
            last_turn: Cell::new(0),
        };
        relay.set_dont_fragment(false);
        (local.port() == port).then_some(relay)
    }

    /// The socket itself.
    pub(in crate::relay) fn into_fd(self) -> OwnedFd {
        self.socket.into()
    }

    /// Decides about the DF bit of what is sent from here on. A switch costs a system call, for
    /// IPv4 has no control message for it; clients hardly ever mix.
    pub(in crate::relay) fn set_dont_fragment(&self, on: bool) {
        if self.dont_fragment.get() == on {
            return;
        }
        let (level, name, value) = match (self.is_ipv4, on) {
            (true, true) => (
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DO,
            ),
            (true, false) => (
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DONT,
            ),
            (false, true) => (
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DO,
            ),
            (false, false) => (
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DONT,
            ),
        };
        if set_option(self.as_fd(), level, name, value).is_ok() {
            self.dont_fragment.set(on);
        }
    }

    /// How many messages to ask for in the worker's turn `turn`: one, which is cheapest for
    /// isolated packets, but a batch if there was something in the turn before as well.
    pub(in crate::relay) fn recv_limit(&self, turn: u32) -> usize {
        let last = self.last_turn.replace(turn);
        if last.wrapping_add(1) == turn {
            BATCH
        } else {
            1
        }
    }

    /// Takes one ICMP error off the error queue; `None` once it is empty.
    pub(in crate::relay) fn take_icmp_error(&self) -> Option<IcmpError> {
        loop {
            match ancillary::next_error(self.as_fd()) {
                Ok(Some(error)) => return Some(error),
                Ok(None) => {}
                Err(_) => {
                    // An error that is only pending, not queued, would be reported for ever.
                    let _ = self.socket.take_error();
                    return None;
                }
            }
        }
    }
}

impl AsFd for RelaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The kernel caps what is asked for without an error.
fn size_buffers(socket: &Socket, bytes: usize) {
    let _ = socket.set_recv_buffer_size(bytes);
    let _ = socket.set_send_buffer_size(bytes);
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option value is the live `value`, of the size that is named.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as _,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
