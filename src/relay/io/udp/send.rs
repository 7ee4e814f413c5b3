//! Sending: messages of one or many datagrams, as few system calls as they fit in.

use super::ancillary::{CONTROL, Control, write_address, write_control};
use super::{BATCH, Offload};
use crate::relay::stats::IoStats;
use std::io::{self, IoSlice};
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{from_mut, null_mut};

/// One message to send: `datagrams` to one destination, all but the last of `segment` bytes. Each
/// lies in one slice, and a slice may hold several.
#[derive(Debug, Clone)]
pub(in crate::relay) struct Message {
    pub(in crate::relay) to: SocketAddr,
    /// The address to send from, on a socket bound to a wildcard.
    pub(in crate::relay) source: Option<IpAddr>,
    pub(in crate::relay) datagrams: usize,
    pub(in crate::relay) segment: u16,
    /// Where among the slices its own are.
    pub(in crate::relay) slices: Range<usize>,
}

/// Sends messages, with segmentation offload as long as the kernel plays along.
pub(in crate::relay) struct Sender {
    gso: bool,
    headers: Vec<libc::mmsghdr>,
    extras: Vec<Extra>,
}

struct Extra {
    name: libc::sockaddr_storage,
    control: Control,
}

impl Sender {
    pub(in crate::relay) fn new(offload: Offload) -> Self {
        Self {
            gso: offload.gso,
            // SAFETY: plain data, for which zeroes are valid.
            headers: (0..BATCH).map(|_| unsafe { zeroed() }).collect(),
            extras: (0..BATCH)
                .map(|_| Extra {
                    // SAFETY: as above.
                    name: unsafe { zeroed() },
                    control: [0; CONTROL / 8],
                })
                .collect(),
        }
    }

    /// Whether messages of several datagrams are sent at all.
    pub(in crate::relay) fn gso(&self) -> bool {
        self.gso
    }

    /// Sends all of `messages` in order. What the kernel refuses is counted and dropped.
    pub(in crate::relay) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &[Message],
        slices: &[IoSlice<'_>],
        stats: &mut IoStats,
    ) {
        for chunk in messages.chunks(BATCH) {
            self.send_chunk(socket, chunk, slices, stats);
        }
    }

    fn send_chunk(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &[Message],
        slices: &[IoSlice<'_>],
        stats: &mut IoStats,
    ) {
        for (index, message) in messages.iter().enumerate() {
            self.prepare(index, message, slices);
        }
        let mut at = 0;
        let mut again = false;
        while let Some(message) = messages.get(at) {
            match self.submit(socket, at..messages.len()) {
                Ok(sent) => {
                    for message in &messages[at..at + sent] {
                        stats.sent(message.datagrams);
                    }
                    at += sent;
                    again = false;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stats.send_blocked += count(&messages[at..]);
                    return;
                }
                // The error may be of an earlier datagram (ICMP): it is told once, instead of
                // sending this one.
                Err(_) if !again => {
                    again = true;
                    continue;
                }
                Err(error) if message.datagrams > 1 => {
                    self.send_singly(socket, message, slices, &error, stats);
                    // The headers were used for it.
                    for (index, message) in messages.iter().enumerate().skip(at + 1) {
                        self.prepare(index, message, slices);
                    }
                }
                Err(_) => stats.send_errors += 1,
            }
            at += 1;
            again = false;
        }
    }

    /// Sends the datagrams of a refused message one by one: a segment may exceed this path's MTU
    /// (EINVAL, EMSGSIZE), or the interface cannot checksum (EIO, and it never will).
    fn send_singly(
        &mut self,
        socket: BorrowedFd<'_>,
        message: &Message,
        slices: &[IoSlice<'_>],
        refusal: &io::Error,
        stats: &mut IoStats,
    ) {
        stats.gso_refused += 1;
        if refusal.raw_os_error() == Some(libc::EIO) {
            self.gso = false;
        }
        let cut: Vec<IoSlice<'_>> = slices[message.slices.clone()]
            .iter()
            .flat_map(|slice| slice.chunks(usize::from(message.segment)))
            .map(IoSlice::new)
            .collect();
        let singles: Vec<Message> = (0..cut.len())
            .map(|index| Message {
                datagrams: 1,
                slices: index..index + 1,
                ..*message
            })
            .collect();
        self.send(socket, &singles, &cut, stats);
    }

    fn prepare(&mut self, index: usize, message: &Message, slices: &[IoSlice<'_>]) {
        let slices = &slices[message.slices.clone()];
        assert!(index < BATCH, "as many extras as messages in a batch");
        // SAFETY: in bounds; through the raw pointer, so that those that other headers hold into
        // the same allocation stay valid.
        let extra = unsafe { &mut *self.extras.as_mut_ptr().add(index) };
        let header = &mut self.headers[index].msg_hdr;
        header.msg_namelen = write_address(&mut extra.name, message.to);
        header.msg_name = from_mut(&mut extra.name).cast();
        // `IoSlice` has the layout of `iovec`, and sendmsg does not write to it.
        header.msg_iov = slices.as_ptr().cast_mut().cast();
        header.msg_iovlen = slices.len() as _;
        let segment = (message.datagrams > 1).then_some(message.segment);
        header.msg_controllen = write_control(&mut extra.control, message.source, segment) as _;
        header.msg_control = match header.msg_controllen {
            0 => null_mut(),
            _ => extra.control.as_mut_ptr().cast(),
        };
    }

    /// Submits prepared headers; returns how many messages the kernel took.
    fn submit(&mut self, socket: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let fd = socket.as_raw_fd();
        let headers = &mut self.headers[range];
        // Past libc's own functions: those are points of cancellation, which takes two calls more.
        // SAFETY: `prepare` has just made each header point to its extra, which `self` owns and
        // which has not moved, and to slices that the caller still borrows.
        let sent = unsafe {
            match headers {
                [only] => match send_one(fd, &only.msg_hdr) {
                    ..0 => -1,
                    _ => 1,
                },
                _ => {
                    let flags = libc::MSG_DONTWAIT;
                    let (first, count) = (headers.as_mut_ptr(), headers.len());
                    libc::syscall(libc::SYS_sendmmsg, fd, first, count, flags)
                }
            }
        };
        match sent {
            ..0 => Err(io::Error::last_os_error()),
            sent => Ok(sent as usize),
        }
    }
}

/// # Safety
/// What `header` points to is there.
unsafe fn send_one(fd: RawFd, header: &libc::msghdr) -> libc::c_long {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: as the caller promises; a header with one slice has it, and what is named is read.
    unsafe {
        if header.msg_iovlen == 1 && header.msg_controllen == 0 {
            // Saves the kernel reading a header.
            let libc::iovec { iov_base, iov_len } = *header.msg_iov;
            let (name, length) = (header.msg_name, header.msg_namelen);
            libc::syscall(libc::SYS_sendto, fd, iov_base, iov_len, flags, name, length)
        } else {
            let header: *const libc::msghdr = header;
            libc::syscall(libc::SYS_sendmsg, fd, header, flags)
        }
    }
}

fn count(messages: &[Message]) -> u64 {
    messages.iter().map(|m| m.datagrams as u64).sum()
}
