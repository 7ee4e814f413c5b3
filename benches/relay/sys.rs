//! Batched datagram I/O with and without offload, and the GRO switch of interfaces, from libc.
//! IPv4 only: the benchmarks run on loopback and on a veth pair.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, RawFd};

/// A GRO super-datagram fits in what one UDP datagram may carry.
const BUFFER: usize = 65_536;
/// Room for one UDP_GRO control message (a c_int), with its header.
const CONTROL: usize = 64;
/// `ETHTOOL_SGRO` of linux/ethtool.h: switches GRO of an interface.
const ETHTOOL_SET_GRO: u32 = 0x2c;
/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

pub(crate) fn enable_gro(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// A receive buffer past `rmem_max` where the caller is root, and up to it elsewhere.
pub(crate) fn grow_receive_buffer(socket: &impl AsRawFd, bytes: i32) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Sends `data` as datagrams of `segment` bytes (the last may be shorter) by one system call,
/// cut by the kernel (UDP_SEGMENT) if `offload`, each its own message otherwise.
pub(crate) fn send_burst(
    socket: &impl AsRawFd,
    to: Option<SocketAddrV4>,
    data: &[u8],
    segment: usize,
    offload: bool,
) -> io::Result<()> {
    if data.len() <= segment {
        send_message(socket.as_raw_fd(), to, data, None)
    } else if offload {
        send_message(socket.as_raw_fd(), to, data, Some(segment))
    } else {
        send_many(socket.as_raw_fd(), to, data, segment)
    }
}

/// Buffers of one `recvmmsg`, reused for every socket.
pub(crate) struct Receiver {
    buffers: Vec<u8>,
    controls: Vec<[u64; CONTROL / 8]>,
    names: Vec<libc::sockaddr_in>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// What one slot of a `Receiver` holds: one datagram, or several that GRO joined.
pub(crate) struct Received<'a> {
    pub(crate) from: SocketAddrV4,
    pub(crate) data: &'a [u8],
    pub(crate) segment: usize,
}

impl Received<'_> {
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks(self.segment.max(1))
    }
}

impl Receiver {
    pub(crate) fn new(slots: usize) -> Self {
        // SAFETY: sockaddr_in, iovec and mmsghdr are plain data, valid when all zero.
        let (name, vector, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            buffers: vec![0; slots * BUFFER],
            controls: vec![[0; CONTROL / 8]; slots],
            names: vec![name; slots],
            vectors: vec![vector; slots],
            headers: vec![header; slots],
        }
    }

    /// Receives what waits, up to the number of slots; 0 if nothing does.
    pub(crate) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        for (slot, header) in self.headers.iter_mut().enumerate() {
            self.vectors[slot] = libc::iovec {
                iov_base: self.buffers[slot * BUFFER..].as_mut_ptr().cast(),
                iov_len: BUFFER,
            };
            header.msg_hdr.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut self.vectors[slot];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[slot].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL as _;
        }
        // SAFETY: every header points into vectors of `self`, set above and not moved since.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if is_transient(&error) => Ok(0),
                error => Err(error),
            },
        }
    }

    /// The contents of a slot that the last `receive` filled.
    pub(crate) fn slot(&self, slot: usize) -> Received<'_> {
        let header = &self.headers[slot];
        let length = header.msg_len as usize;
        let name = &self.names[slot];
        Received {
            from: SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            ),
            data: &self.buffers[slot * BUFFER..slot * BUFFER + length],
            segment: gro_segment(&header.msg_hdr).unwrap_or(length),
        }
    }
}

/// Switches GRO of a network interface on.
pub(crate) fn enable_interface_gro(socket: &impl AsRawFd, interface: &str) -> io::Result<()> {
    let mut value: [u32; 2] = [ETHTOOL_SET_GRO, 1];
    // SAFETY: ifreq is plain data, valid when all zero.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(interface.bytes())
    {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request names a live ethtool_value of two u32.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) }).map(drop)
}

/// Errors that say "not at the moment", among them a reset by an earlier datagram of this socket.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused)
}

fn send_message(
    fd: RawFd,
    to: Option<SocketAddrV4>,
    data: &[u8],
    segment: Option<usize>,
) -> io::Result<()> {
    let mut name = to.map(socket_name);
    let mut vector = vector_of(data);
    let mut control = [0_u64; CONTROL / 8];
    let mut header = header_of(name.as_mut(), &mut vector);
    if let Some(segment) = segment {
        let size = size_of::<u16>() as libc::c_uint;
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control buffer is aligned and holds more than CMSG_SPACE(2).
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size) as _;
            let message = libc::CMSG_FIRSTHDR(&header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(message)
                .cast::<u16>()
                .write_unaligned(segment as u16);
        }
    }
    // SAFETY: name, vector and control outlive the call; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(fd, &header, 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn send_many(fd: RawFd, to: Option<SocketAddrV4>, data: &[u8], segment: usize) -> io::Result<()> {
    const MOST: usize = 64;
    let mut name = to.map(socket_name);
    // SAFETY: iovec and mmsghdr are plain data, valid when all zero.
    let (mut vectors, mut headers): ([libc::iovec; MOST], [libc::mmsghdr; MOST]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let count = data.len().div_ceil(segment).min(MOST);
    for (slot, datagram) in data.chunks(segment).take(MOST).enumerate() {
        vectors[slot] = vector_of(datagram);
        headers[slot].msg_hdr = header_of(name.as_mut(), &mut vectors[slot]);
    }
    let mut sent = 0;
    while sent < count {
        // SAFETY: the headers point at live vectors and names; the kernel writes msg_len only.
        let now = unsafe {
            libc::sendmmsg(
                fd,
                headers[sent..].as_mut_ptr(),
                (count - sent) as libc::c_uint,
                0,
            )
        };
        sent += check(now)? as usize;
    }
    Ok(())
}

fn gro_segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled msg_control up to msg_controllen; CMSG_* stay within it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_UDP && (*message).cmsg_type == libc::UDP_GRO {
                let size = libc::CMSG_DATA(message)
                    .cast::<libc::c_int>()
                    .read_unaligned();
                return usize::try_from(size).ok();
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

fn header_of(name: Option<&mut libc::sockaddr_in>, vector: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr is plain data, valid when all zero.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    if let Some(name) = name {
        header.msg_name = (&raw mut *name).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    }
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header
}

fn vector_of(data: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    }
}

fn socket_name(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, value: i32) -> io::Result<()> {
    // SAFETY: the value is a live c_int and its size is given.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
