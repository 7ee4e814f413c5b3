//! A WebSocket client that costs the generator little: no masking work (the mask is zero), no
//! checks of what the server owes. Knows frames, not what is in them.

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// One read.
const READ: usize = 16_384;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a server did.
pub(crate) enum Event<'a> {
    Upgraded,
    Text(&'a str),
    /// Closed, with the code if the server said one.
    Closed(Option<u16>),
}

/// Where a server listens, and how its TLS is verified if it speaks TLS there.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddrV4,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

pub(crate) struct WebSocket {
    stream: Stream,
    incoming: Vec<u8>,
    upgraded: bool,
    closed: bool,
}

impl WebSocket {
    /// Connects from `local` and asks for the upgrade; `Event::Upgraded` tells of the answer.
    /// `receive_buffer` caps what the kernel takes in for a consumer that does not read.
    pub(crate) fn open(
        door: &Door,
        local: Ipv4Addr,
        path: &str,
        receive_buffer: Option<usize>,
    ) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&SocketAddr::from((local, 0)).into())?;
        let server = door.address;
        socket
            .connect(&server.into())
            .with_context(|| format!("connecting to {server}"))?;
        let tcp = TcpStream::from(socket);
        tcp.set_nodelay(true)?;
        let mut stream = match &door.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::IpAddress(IpAddr::V4(*server.ip()).into());
                let session = ClientConnection::new(Arc::clone(config), name)?;
                Stream::Tls(Box::new(StreamOwned::new(session, tcp)))
            }
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let written = stream.write(request.as_bytes())?;
        anyhow::ensure!(
            written == request.len(),
            "a request is shorter than any buffer"
        );
        stream.tcp().set_nonblocking(true)?;
        Ok(Self {
            stream,
            incoming: vec![],
            upgraded: false,
            closed: false,
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.stream.tcp().as_raw_fd()
    }

    /// Sends a text frame; waits while the server takes nothing.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        self.send_frame(TEXT, text.as_bytes(), true).map(drop)
    }

    /// Sends a text frame if the kernel takes any of it; `false` if the server takes nothing.
    pub(crate) fn offer(&mut self, text: &str) -> Result<bool> {
        self.send_frame(TEXT, text.as_bytes(), false)
    }

    /// Says that it goes (RFC 6455 section 5.5.1, code 1000).
    pub(crate) fn close(&mut self) -> Result<()> {
        self.send_frame(CLOSE, &1000_u16.to_be_bytes(), true)
            .map(drop)
    }

    /// Reads once and hands over what is whole; pings are answered here.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Event<'_>)) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let mut read = self.read();
        // The poller knows of TCP only: TLS must be emptied, as it may hold more.
        while matches!(self.stream, Stream::Tls(_)) && matches!(read, Ok(1..)) {
            match self.read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                more => read = more,
            }
        }
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(1..) => {}
            Ok(0) | Err(_) => {
                self.end(None, &mut each);
                return Ok(());
            }
        }
        let mut start = 0;
        if !self.upgraded {
            let Some(end) = self
                .incoming
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            else {
                return Ok(());
            };
            if !self.incoming.starts_with(b"HTTP/1.1 101") {
                bail!(
                    "no upgrade: {}",
                    String::from_utf8_lossy(&self.incoming[..end])
                );
            }
            self.upgraded = true;
            each(Event::Upgraded);
            start = end + 4;
        }
        while let Some((opcode, payload)) = frame(&self.incoming[start..]) {
            let (from, to) = (start + payload.start, start + payload.end);
            start = to;
            match opcode {
                TEXT => each(Event::Text(std::str::from_utf8(&self.incoming[from..to])?)),
                PING => {
                    let echoed = self.incoming[from..to].to_vec();
                    self.send_frame(PONG, &echoed, true)?;
                }
                CLOSE => {
                    let code = self.incoming[from..to].first_chunk().copied();
                    self.end(code.map(u16::from_be_bytes), &mut each);
                    break;
                }
                _ => {}
            }
        }
        self.incoming.drain(..start);
        Ok(())
    }

    fn read(&mut self) -> io::Result<usize> {
        let start = self.incoming.len();
        self.incoming.resize(start + READ, 0);
        let read = self.stream.read(&mut self.incoming[start..]);
        let filled = start + *read.as_ref().unwrap_or(&0);
        self.incoming.truncate(filled);
        read
    }

    fn end(&mut self, code: Option<u16>, each: &mut impl FnMut(Event<'_>)) {
        self.closed = true;
        each(Event::Closed(code));
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8], wait: bool) -> Result<bool> {
        const MASKED: u8 = 0x80;
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(0x80 | opcode);
        match payload.len() {
            length @ 0..126 => frame.push(MASKED | length as u8),
            length @ 126..65_536 => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => bail!("a frame of {length} bytes is more than any workload sends"),
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        let mut sent = 0;
        while sent < frame.len() {
            match self.stream.write(&frame[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if sent == 0 && !wait {
                        return Ok(false);
                    }
                    std::thread::yield_now();
                }
                Err(error) => return Err(error).context("writing to the server"),
            }
        }
        Ok(true)
    }
}

/// Opcode and payload of the first whole frame of a server (never masked, never in fragments).
fn frame(buffered: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let &[first, second, ..] = buffered else {
        return None;
    };
    let (length, start) = match second {
        126 => (
            usize::from(u16::from_be_bytes(*buffered.get(2..)?.first_chunk()?)),
            4,
        ),
        127 => (
            usize::try_from(u64::from_be_bytes(*buffered.get(2..)?.first_chunk()?)).ok()?,
            10,
        ),
        length => (usize::from(length), 2),
    };
    (buffered.len() >= start + length).then_some((first & 0x0f, start..start + length))
}
