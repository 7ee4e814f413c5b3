//! The floor: a UDP forwarder without any TURN. It has the socket layout of a relay (one shared
//! client socket, one socket a client towards peers), a table, and nothing else, so what it costs
//! is what the design costs. Plain is `recvfrom` and `sendto`; batched is `recvmmsg` with GRO and
//! sends with GSO.

use super::sys::{self, Receiver};
use super::wire;
use crate::common::epoll::Epoll;
use anyhow::Result;
use foldhash::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

/// Bytes of a registration, which no measured packet is as short as.
const REGISTRATION: usize = 6;
/// Reads of the shared socket before the others have their turn.
const READS: usize = 16;
/// What a server asks for; the kernel caps it at `rmem_max`.
const RECEIVE_BUFFER: i32 = 1 << 20;
const SHARED: usize = usize::MAX >> 1;

struct Route {
    client: SocketAddrV4,
    peer: SocketAddrV4,
    relay: UdpSocket,
}

struct Forwarder {
    shared: UdpSocket,
    routes: Vec<Route>,
    by_client: HashMap<SocketAddrV4, usize>,
    epoll: Epoll,
    batched: bool,
}

/// Forwards until the process is ended.
pub(crate) fn serve(listen: SocketAddrV4, batched: bool) -> Result<()> {
    let shared = socket(listen, batched)?;
    let epoll = Epoll::new(256)?;
    epoll.add(shared.as_raw_fd(), SHARED)?;
    let mut forwarder = Forwarder {
        shared,
        routes: vec![],
        by_client: HashMap::default(),
        epoll,
        batched,
    };
    if batched {
        forwarder.run_batched()
    } else {
        forwarder.run_plain()
    }
}

impl Forwarder {
    fn run_plain(&mut self) -> Result<()> {
        let mut buffer = [0; 2048];
        loop {
            for index in 0..self.epoll.wait(None)? {
                match self.epoll.token(index) {
                    SHARED => {
                        for _ in 0..READS {
                            let Some((length, from)) = receive(&self.shared, &mut buffer)? else {
                                break;
                            };
                            let data = &buffer[..length];
                            match self.by_client.get(&from) {
                                Some(&route) if length > REGISTRATION => {
                                    let route = &self.routes[route];
                                    send(&route.relay, data, route.peer)?;
                                }
                                _ => self.register(from, data)?,
                            }
                        }
                    }
                    route => {
                        let route = &self.routes[route];
                        if let Some((length, _)) = receive(&route.relay, &mut buffer)? {
                            send(&self.shared, &buffer[..length], route.client)?;
                        }
                    }
                }
            }
        }
    }

    fn run_batched(&mut self) -> Result<()> {
        let mut many = Receiver::new(READS);
        let mut one = Receiver::new(1);
        loop {
            for index in 0..self.epoll.wait(None)? {
                match self.epoll.token(index) {
                    SHARED => {
                        for slot in 0..many.receive(&self.shared)? {
                            let packet = many.slot(slot);
                            match self.by_client.get(&packet.from) {
                                Some(&route) if packet.data.len() > REGISTRATION => {
                                    let Route { relay, peer, .. } = &self.routes[route];
                                    let (data, segment) = (packet.data, packet.segment);
                                    sys::send_burst(relay, Some(*peer), data, segment, true)?;
                                }
                                _ => self.register(packet.from, packet.data)?,
                            }
                        }
                    }
                    route => {
                        let Route { relay, client, .. } = &self.routes[route];
                        if one.receive(relay)? == 1 {
                            let packet = one.slot(0);
                            let (data, segment) = (packet.data, packet.segment);
                            sys::send_burst(&self.shared, Some(*client), data, segment, true)?;
                        }
                    }
                }
            }
        }
    }

    /// Points a client at a peer and answers with its relayed address, made at the first time.
    fn register(&mut self, client: SocketAddrV4, registration: &[u8]) -> Result<()> {
        let Some(peer) = wire::read_address(registration) else {
            return Ok(());
        };
        let route = match self.by_client.get(&client) {
            Some(&route) => route,
            None => {
                let SocketAddr::V4(listen) = self.shared.local_addr()? else {
                    return Ok(());
                };
                let relay = socket(SocketAddrV4::new(*listen.ip(), 0), self.batched)?;
                let route = self.routes.len();
                self.epoll.add(relay.as_raw_fd(), route)?;
                self.routes.push(Route {
                    client,
                    peer,
                    relay,
                });
                self.by_client.insert(client, route);
                route
            }
        };
        self.routes[route].peer = peer;
        if let SocketAddr::V4(relayed) = self.routes[route].relay.local_addr()? {
            send(&self.shared, &wire::write_address(relayed), client)?;
        }
        Ok(())
    }
}

fn socket(address: SocketAddrV4, gro: bool) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    sys::grow_receive_buffer(&socket, RECEIVE_BUFFER)?;
    if gro {
        sys::enable_gro(&socket)?;
    }
    Ok(socket)
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<(usize, SocketAddrV4)>> {
    match socket.recv_from(buffer) {
        Ok((length, SocketAddr::V4(from))) => Ok(Some((length, from))),
        Ok((_, SocketAddr::V6(_))) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn send(socket: &UdpSocket, data: &[u8], to: SocketAddrV4) -> Result<()> {
    match socket.send_to(data, to) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(()),
    }
}
