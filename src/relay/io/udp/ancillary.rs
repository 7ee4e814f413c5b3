//! What travels beside payloads: socket addresses, control messages, the error queue.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes for the control messages of one datagram, either way: packet info (40) and segment size
/// (24), or an extended error with the address of who sent it (48), with room to spare.
pub(super) const CONTROL: usize = 128;

/// Room for control messages, aligned as they need it.
pub(super) type Control = [u64; CONTROL / 8];

/// What the network said of a datagram that was sent to `peer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct IcmpError {
    pub(in crate::relay) peer: SocketAddr,
    pub(in crate::relay) kind: u8,
    pub(in crate::relay) code: u8,
    /// The next-hop MTU, where the error carries one.
    pub(in crate::relay) data: u32,
}

/// `Ok(None)` is an error of another kind than ICMP.
pub(super) fn next_error(socket: BorrowedFd<'_>) -> io::Result<Option<IcmpError>> {
    let mut payload = [0_u8; 1];
    let mut data = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: plain data, for which zeroes are valid.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (zeroed(), zeroed()) };
    let mut control: Control = [0; CONTROL / 8];
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
    header.msg_iov = &raw mut data;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: everything that the header points to lives on this stack frame.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(peer) = address(&name) else {
        return Ok(None);
    };
    let mut found = None;
    for_each_control(&header, |level, kind, data| {
        let is_error = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        if is_error && data.len() >= size_of::<libc::sock_extended_err>() {
            // SAFETY: long enough, as just checked; `read_unaligned` asks nothing else.
            let error = unsafe {
                data.as_ptr()
                    .cast::<libc::sock_extended_err>()
                    .read_unaligned()
            };
            if matches!(
                error.ee_origin,
                libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
            ) {
                found = Some(IcmpError {
                    peer,
                    kind: error.ee_type,
                    code: error.ee_code,
                    data: error.ee_info,
                });
            }
        }
    });
    Ok(found)
}

pub(super) fn read_control(header: &libc::msghdr) -> (Option<IpAddr>, Option<usize>) {
    let (mut local, mut segment) = (None, None);
    for_each_control(header, |level, kind, data| match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // `in_pktinfo`: interface, local address, destination of the header; 4 bytes each.
            local = data
                .get(8..12)
                .and_then(|ip| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?))));
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // `in6_pktinfo`: 16 bytes of address, then the interface.
            local = data
                .get(..16)
                .and_then(|ip| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?))));
        }
        (libc::SOL_UDP, libc::UDP_GRO) => {
            segment = data
                .get(..4)
                .and_then(|size| usize::try_from(i32::from_ne_bytes(size.try_into().ok()?)).ok());
        }
        _ => {}
    });
    (local, segment)
}

fn for_each_control(header: &libc::msghdr, mut f: impl FnMut(i32, i32, &[u8])) {
    // SAFETY: the kernel has filled the control buffer of `header` up to `msg_controllen`, and
    // the CMSG macros stay inside that.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = control.as_ref() {
            let length = head.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(control), length);
            f(head.cmsg_level, head.cmsg_type, data);
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Returns the bytes used.
pub(super) fn write_control(
    buffer: &mut Control,
    source: Option<IpAddr>,
    segment: Option<u16>,
) -> usize {
    let mut used = 0;
    let mut add = |level: i32, kind: i32, data: &[u8]| {
        // SAFETY: pure arithmetic.
        let (length, space) = unsafe {
            (
                libc::CMSG_LEN(data.len() as _) as usize,
                libc::CMSG_SPACE(data.len() as _) as usize,
            )
        };
        assert!(used + space <= CONTROL, "two control messages fit");
        // SAFETY: there is room for header and data, as just checked; `u64` aligns it, and
        // CMSG_SPACE keeps it aligned.
        unsafe {
            let head: *mut libc::cmsghdr = buffer.as_mut_ptr().cast::<u8>().add(used).cast();
            (*head).cmsg_len = length as _;
            (*head).cmsg_level = level;
            (*head).cmsg_type = kind;
            libc::CMSG_DATA(head).copy_from_nonoverlapping(data.as_ptr(), data.len());
        }
        used += space;
    };
    match source {
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if let Some(segment) = segment {
        add(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    used
}

pub(super) fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = &raw const *name;
    // SAFETY: `sockaddr_storage` is larger than, and aligned for, what its family names.
    unsafe {
        match i32::from((*name).ss_family) {
            libc::AF_INET => {
                let v4 = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// Returns the length of the address.
pub(super) fn write_address(
    name: &mut libc::sockaddr_storage,
    address: SocketAddr,
) -> libc::socklen_t {
    let name = &raw mut *name;
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is larger than, and aligned for, every address.
            unsafe { name.cast::<libc::sockaddr_in>().write(v4) };
            size_of::<libc::sockaddr_in>() as _
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { name.cast::<libc::sockaddr_in6>().write(v6) };
            size_of::<libc::sockaddr_in6>() as _
        }
    }
}
