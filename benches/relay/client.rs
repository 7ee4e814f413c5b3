//! One TURN client of the generator, over UDP, TCP or TLS: moves messages, decides nothing.

use super::sys::{self, Receiver};
use super::tls;
use super::wire;
use anyhow::{Context, Result, bail};
use rustls::ClientConnection;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use stun::message::{CLASS_ERROR_RESPONSE, CLASS_SUCCESS_RESPONSE, Message};

/// RFC 8489 section 6.2.1: the first retransmission of a request over UDP.
const RETRANSMIT: Duration = Duration::from_millis(500);
/// Requests sent before a client gives up: 5 s, as long as a stream waits.
const TRIES: usize = 10;
/// One read of a stream.
const READ: usize = 65_536;
/// Room for a burst that arrives while the generator is off its core.
const RECEIVE_BUFFER: i32 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
}

pub(crate) struct Client {
    link: Link,
}

enum Link {
    Udp(UdpSocket),
    Stream(Box<Stream>),
}

struct Stream {
    socket: TcpStream,
    tls: Option<ClientConnection>,
    /// What has arrived, in front of room for one read that is not cleared again each time.
    incoming: Vec<u8>,
    filled: usize,
}

impl Client {
    /// Connects from a fresh port of `local`; with `gro` a UDP socket takes joined datagrams.
    pub(crate) fn connect(
        transport: Transport,
        local: Ipv4Addr,
        server: SocketAddrV4,
        gro: bool,
    ) -> Result<Self> {
        if transport == Transport::Udp {
            let socket = UdpSocket::bind((local, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(RETRANSMIT))?;
            sys::grow_receive_buffer(&socket, RECEIVE_BUFFER)?;
            if gro {
                sys::enable_gro(&socket)?;
            }
            return Ok(Self {
                link: Link::Udp(socket),
            });
        }
        let socket = TcpStream::connect(server)
            .with_context(|| format!("connecting to {server} over {transport:?}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(RETRANSMIT * TRIES as u32))?;
        let tls = match transport {
            Transport::Tls => Some(tls::handshake(&socket)?),
            _ => None,
        };
        Ok(Self {
            link: Link::Stream(Box::new(Stream {
                socket,
                tls,
                incoming: vec![],
                filled: 0,
            })),
        })
    }

    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.link, Link::Stream(_))
    }

    pub(crate) fn fd(&self) -> RawFd {
        match &self.link {
            Link::Udp(socket) => socket.as_raw_fd(),
            Link::Stream(stream) => stream.socket.as_raw_fd(),
        }
    }

    /// Sends framed payloads of `segment` bytes each; a stream takes them in one write.
    pub(crate) fn send(&mut self, frames: &[u8], segment: usize, offload: bool) -> Result<()> {
        match &mut self.link {
            Link::Udp(socket) => {
                // A refusal by ICMP belongs to an earlier datagram, and loss is counted anyway.
                match sys::send_burst(socket, None, frames, segment, offload) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                    result => result.context("sending"),
                }
            }
            Link::Stream(stream) => stream.write(frames),
        }
    }

    /// Hands what has arrived to `each`, a whole message at a time; does not wait on a socket that
    /// epoll has called readable.
    pub(crate) fn receive(
        &mut self,
        receiver: &mut Receiver,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        match &mut self.link {
            Link::Udp(socket) => {
                for slot in 0..receiver.receive(socket)? {
                    receiver.slot(slot).datagrams().for_each(&mut each);
                }
                Ok(())
            }
            Link::Stream(stream) => {
                stream.fill()?;
                stream.drain(each);
                Ok(())
            }
        }
    }

    /// Sends one request; `await_response` takes its answer.
    pub(crate) fn request(&mut self, message: &Message) -> Result<()> {
        self.send(&message.raw, message.raw.len(), false)
    }

    /// Waits for the answer to `request`, which is sent again over UDP when none comes.
    pub(crate) fn await_response(&mut self, request: &Message) -> Result<Message> {
        let mut buffer = [0; 2048];
        for _ in 0..TRIES {
            loop {
                let mut answer = None;
                match &mut self.link {
                    Link::Udp(socket) => match socket.recv(&mut buffer) {
                        Ok(length) => answer = read_answer(&buffer[..length], request),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    },
                    Link::Stream(stream) => {
                        stream.fill()?;
                        stream.drain(|message| answer = read_answer(message, request));
                    }
                }
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
            self.request(request)?;
        }
        bail!("no answer to {}", request.typ)
    }

    /// Tells the bare forwarder where this client's packets go; returns its relayed address.
    pub(crate) fn register(&mut self, peer: SocketAddrV4) -> Result<SocketAddrV4> {
        let Link::Udp(socket) = &self.link else {
            bail!("the forwarder serves UDP only")
        };
        let mut answer = [0; 16];
        for _ in 0..TRIES {
            socket.send(&wire::write_address(peer))?;
            match socket.recv(&mut answer) {
                Ok(length) => {
                    return wire::read_address(&answer[..length]).context("no registration");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no answer to a registration")
    }
}

impl Stream {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.write_all(data)?);
        };
        tls.writer().write_all(data)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// One read; an interrupted TLS record simply stays buffered.
    fn fill(&mut self) -> Result<()> {
        if self.incoming.len() < self.filled + READ {
            self.incoming.resize(self.filled + READ, 0);
        }
        let Some(tls) = &mut self.tls else {
            let read = self.socket.read(&mut self.incoming[self.filled..])?;
            self.filled += read;
            return if read > 0 { Ok(()) } else { closed() };
        };
        if tls.read_tls(&mut self.socket)? == 0 {
            return closed();
        }
        tls.process_new_packets()?;
        loop {
            match tls.reader().read(&mut self.incoming[self.filled..]) {
                Ok(0) => return Ok(()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let mut start = 0;
        while let Some(length) = wire::stream_message(&self.incoming[start..self.filled]) {
            each(&self.incoming[start..start + length]);
            start += length;
        }
        self.incoming.copy_within(start..self.filled, 0);
        self.filled -= start;
    }
}

fn closed<T>() -> Result<T> {
    bail!("the server closed a connection")
}

fn read_answer(message: &[u8], request: &Message) -> Option<Message> {
    let mut answer = Message::new();
    answer.unmarshal_binary(message).ok()?;
    let answers = matches!(
        answer.typ.class,
        CLASS_SUCCESS_RESPONSE | CLASS_ERROR_RESPONSE
    );
    (answers && answer.transaction_id == request.transaction_id).then_some(answer)
}
