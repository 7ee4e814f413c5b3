//! Shared sockets of UDP clients: one for each listening address and worker, grouped by
//! SO_REUSEPORT, so that the kernel always hands a client to the same worker.

use super::udp::{self, Offload};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One worker's socket on one listening address.
pub(in crate::relay) struct Listener {
    socket: Socket,
    address: SocketAddr,
}

impl Listener {
    /// The socket that an earlier process bound to `address`, and its options.
    pub(in crate::relay) fn adopt(socket: OwnedFd, address: SocketAddr) -> Self {
        Self {
            socket: socket.into(),
            address,
        }
    }

    /// A descriptor of the same socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(in crate::relay) fn share(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// What it is bound to.
    pub(in crate::relay) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the server under which a datagram came in.
    pub(in crate::relay) fn asked(&self, local: Option<IpAddr>) -> SocketAddr {
        SocketAddr::new(local.unwrap_or(self.address.ip()), self.address.port())
    }

    /// Whether `server` is answered from here.
    pub(in crate::relay) fn serves(&self, server: SocketAddr) -> bool {
        self.address == server
            || self.address.ip().is_unspecified()
                && self.address.port() == server.port()
                && self.address.is_ipv4() == server.is_ipv4()
    }

    /// The source address to name when answering as `server`.
    pub(in crate::relay) fn source(&self, server: SocketAddr) -> Option<IpAddr> {
        self.address.ip().is_unspecified().then_some(server.ip())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes `workers` listeners of each bound socket.
///
/// The socket was bound alone, so nobody else held its port; only then it is opened to the group.
///
/// # Errors
/// The kernel refuses another socket.
pub(in crate::relay) fn group(
    bound: Vec<UdpSocket>,
    workers: usize,
    offload: Offload,
) -> io::Result<Vec<Vec<Listener>>> {
    let mut groups: Vec<Vec<Listener>> = (0..workers).map(|_| vec![]).collect();
    for socket in bound {
        let address = socket.local_addr()?;
        let first = Socket::from(socket);
        first.set_reuse_port(true)?;
        let mut first = Some(first);
        for listeners in &mut groups {
            let socket = match first.take() {
                Some(first) => first,
                None => join(address)?,
            };
            udp::prepare_listener(&socket, offload)?;
            listeners.push(Listener { socket, address });
        }
    }
    Ok(groups)
}

fn join(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    // The first one is bound, whether or not the address is there.
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_a_port_that_was_taken_alone() {
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        let groups = group(vec![bound], 3, Offload::probe()).unwrap();
        assert!(groups.iter().all(|g| g.len() == 1 && g[0].serves(address)));
        let second_box = UdpSocket::bind(address).unwrap_err();
        assert_eq!(second_box.kind(), io::ErrorKind::AddrInUse);
        drop(groups);
        assert!(UdpSocket::bind(address).is_ok());
    }

    #[test]
    fn a_wildcard_answers_as_the_address_that_was_asked() {
        let bound = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = bound.local_addr().unwrap().port();
        let groups = group(vec![bound], 1, Offload::probe()).unwrap();
        let listener = &groups[0][0];
        let asked = listener.asked(Some("127.0.0.7".parse().unwrap()));
        assert_eq!(asked, SocketAddr::from(([127, 0, 0, 7], port)));
        assert!(listener.serves(asked));
        assert_eq!(listener.source(asked), Some(asked.ip()));
        assert!(!listener.serves(SocketAddr::from(([127, 0, 0, 7], port ^ 1))));
    }
}
