//! Receiving: one arena a worker, filled from any of its sockets, handed out by reference.

use super::BATCH;
use super::ancillary::{CONTROL, Control, address, read_control};
use crate::relay::engine::GroBatch;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{NonNull, null_mut};

/// Bytes for one received message: a whole GRO super-datagram. A multiple of the cache line, but
/// not of the page, so that the fronts of all slots do not compete for the same cache sets.
const SLOT: usize = 65_536 + 18 * 64;

/// Receive buffers of one worker, filled again each [`RecvRound`].
pub(in crate::relay) struct RecvBuffers {
    data: NonNull<u8>,
    slots: NonNull<Slot>,
    headers: NonNull<libc::mmsghdr>,
    /// Headers that the kernel has shortened to what it filled.
    filled: usize,
}

struct Slot {
    name: libc::sockaddr_storage,
    control: Control,
    data: libc::iovec,
}

impl RecvBuffers {
    pub(in crate::relay) fn new() -> Self {
        // Zeroed pages cost nothing until the kernel writes to them.
        let data = leak(vec![0_u8; BATCH * SLOT]);
        let slots = leak(
            (0..BATCH)
                .map(|index| Slot {
                    // SAFETY: plain data, for which zeroes are valid.
                    name: unsafe { zeroed() },
                    control: [0; CONTROL / 8],
                    data: libc::iovec {
                        // SAFETY: `index * SLOT` lies inside the `BATCH * SLOT` bytes.
                        iov_base: unsafe { data.add(index * SLOT) }.as_ptr().cast(),
                        iov_len: SLOT,
                    },
                })
                .collect(),
        );
        let headers = leak(
            (0..BATCH)
                .map(|index| {
                    // SAFETY: `index` is below the number of slots, which live until `drop`.
                    let slot = unsafe { slots.add(index) }.as_ptr();
                    // SAFETY: plain data, for which zeroes are valid.
                    let mut header: libc::mmsghdr = unsafe { zeroed() };
                    // SAFETY: `slot` points to a live slot; no reference is made.
                    unsafe {
                        header.msg_hdr.msg_name = (&raw mut (*slot).name).cast();
                        header.msg_hdr.msg_control = (&raw mut (*slot).control).cast();
                        header.msg_hdr.msg_iov = &raw mut (*slot).data;
                    }
                    header.msg_hdr.msg_iovlen = 1;
                    header
                })
                .collect(),
        );
        Self {
            data,
            slots,
            headers,
            filled: BATCH,
        }
    }

    /// Begins anew with all slots free.
    pub(in crate::relay) fn round(&mut self) -> RecvRound<'_> {
        for index in 0..self.filled {
            // SAFETY: `filled <= BATCH`; nothing else points into the headers now.
            let header = unsafe { &mut self.headers.add(index).as_mut().msg_hdr };
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_controllen = CONTROL as _;
        }
        self.filled = 0;
        RecvRound {
            recv_buffers: self,
            used: 0,
        }
    }
}

impl Drop for RecvBuffers {
    fn drop(&mut self) {
        // SAFETY: each came out of `leak` with this length, and no `RecvRound` outlives the arena.
        unsafe {
            drop(unleak(self.headers, BATCH));
            drop(unleak(self.slots, BATCH));
            drop(unleak(self.data, BATCH * SLOT));
        }
    }
}

fn leak<T>(items: Vec<T>) -> NonNull<T> {
    NonNull::from(Box::leak(items.into_boxed_slice())).cast()
}

/// # Safety
/// `items` comes from [`leak`] of `length` items and is not used again.
unsafe fn unleak<T>(items: NonNull<T>, length: usize) -> Box<[T]> {
    let items = std::ptr::slice_from_raw_parts_mut(items.as_ptr(), length);
    // SAFETY: as the caller promises.
    unsafe { Box::from_raw(items) }
}

/// One filling of the arena: what was received stays put for `'a`.
pub(in crate::relay) struct RecvRound<'a> {
    recv_buffers: &'a mut RecvBuffers,
    used: usize,
}

impl<'a> RecvRound<'a> {
    /// Messages received so far.
    pub(in crate::relay) fn used(&self) -> u32 {
        self.used as u32
    }

    /// Messages that can still be received.
    pub(in crate::relay) fn room(&self) -> usize {
        BATCH - self.used
    }

    /// Receives up to `limit` messages, fewer where the room ends.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits, else what the kernel says.
    pub(in crate::relay) fn receive(
        &mut self,
        socket: &impl AsFd,
        limit: usize,
    ) -> io::Result<Batch<'_, 'a>> {
        let first = self.used;
        let fd = socket.as_fd().as_raw_fd();
        let limit = limit.min(self.room());
        if limit == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: `first < BATCH`.
        let headers = unsafe { self.recv_buffers.headers.add(first) }.as_ptr();
        // Past libc's own functions, as in `Sender::submit`.
        // SAFETY: the headers `first..first + limit` are valid and point to the arena's slots,
        // of which none with such an index has been handed out in this round.
        let count = unsafe {
            if limit == 1 {
                let header = &raw mut (*headers).msg_hdr;
                let length = libc::syscall(libc::SYS_recvmsg, fd, header, libc::MSG_DONTWAIT);
                (*headers).msg_len = length.max(0) as _;
                if length < 0 { -1 } else { 1 }
            } else {
                let timeout = null_mut::<libc::timespec>();
                let flags = libc::MSG_DONTWAIT;
                libc::syscall(libc::SYS_recvmmsg, fd, headers, limit, flags, timeout)
            }
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.used += count as usize;
        self.recv_buffers.filled = self.used;
        Ok(Batch {
            next: first,
            round: self,
        })
    }
}

/// What one [`RecvRound::receive`] brought.
pub(in crate::relay) struct Batch<'r, 'a> {
    round: &'r RecvRound<'a>,
    next: usize,
}

impl<'a> Iterator for Batch<'_, 'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        while self.next < self.round.used {
            let index = self.next;
            self.next += 1;
            let recv_buffers = &*self.round.recv_buffers;
            // SAFETY: `index < used`: the kernel has filled the header and its slot, and writes
            // to neither again before the next round, which cannot begin while `'a` lasts.
            let received = unsafe {
                let header = recv_buffers.headers.add(index).as_ref();
                let slot = recv_buffers.slots.add(index).as_ref();
                let data = recv_buffers.data.add(index * SLOT).as_ptr();
                let data = std::slice::from_raw_parts(data, (header.msg_len as usize).min(SLOT));
                address(&slot.name).map(|from| {
                    let (local, segment) = read_control(&header.msg_hdr);
                    Received {
                        from,
                        local,
                        datagrams: GroBatch::new(data, segment.unwrap_or(data.len())),
                    }
                })
            };
            if received.is_some() {
                return received;
            }
        }
        None
    }
}

impl ExactSizeIterator for Batch<'_, '_> {
    fn len(&self) -> usize {
        self.round.used - self.next
    }
}

/// One received message: a datagram, or several of one sender that GRO has joined.
pub(in crate::relay) struct Received<'a> {
    pub(in crate::relay) from: SocketAddr,
    /// The address that was asked, where the socket tells it.
    pub(in crate::relay) local: Option<IpAddr>,
    pub(in crate::relay) datagrams: GroBatch<'a>,
}
