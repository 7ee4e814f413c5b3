//! STUN messages to and from one server over UDP, TCP or TLS.

use super::dial::{self, BoxedStream};
use super::fault::Fault;
use super::url::Transport;
use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use stun::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// The largest UDP datagram.
const MAX_DATAGRAM: usize = 65_535;
/// RFC 8489 section 5.
const STUN_HEADER: usize = 20;

/// A connection to a STUN or TURN server.
pub(super) enum Wire {
    Datagram(UdpSocket),
    Stream(BoxedStream, BytesMut),
}

impl Wire {
    /// Reaches `server`; `host` is what a certificate has to name.
    pub(super) async fn open(
        server: SocketAddr,
        host: &str,
        transport: Transport,
        trust: &Arc<ClientConfig>,
    ) -> Result<Self, Fault> {
        let tls = match transport {
            Transport::Udp => {
                let socket = socket_for(server).await?;
                // Connected, so that an ICMP "port unreachable" reaches us.
                socket.connect(server).await?;
                return Ok(Self::Datagram(socket));
            }
            Transport::Tcp => None,
            Transport::Tls => Some((trust, host)),
        };
        let stream = dial::connect(server, tls).await?;
        Ok(Self::Stream(stream, BytesMut::with_capacity(2048)))
    }

    /// Whether requests may be lost, so that they have to be sent again.
    pub(super) fn is_lossy(&self) -> bool {
        matches!(self, Self::Datagram(_))
    }

    pub(super) async fn send(&mut self, message: &Message) -> Result<(), Fault> {
        match self {
            Self::Datagram(socket) => {
                socket.send(&message.raw).await?;
            }
            Self::Stream(stream, _) => {
                stream.write_all(&message.raw).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }

    /// The next STUN message. Cancelled, it loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Message, Fault> {
        let raw = match self {
            Self::Datagram(socket) => {
                let mut buffer = vec![0; MAX_DATAGRAM];
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                buffer
            }
            Self::Stream(stream, buffer) => loop {
                if let Some(message) = split(buffer)? {
                    break message;
                }
                if stream.read_buf(buffer).await? == 0 {
                    return Err(Fault::Foreign);
                }
            },
        };
        let mut message = Message {
            raw,
            ..Message::default()
        };
        message.decode().map_err(|_| Fault::Foreign)?;
        Ok(message)
    }
}

/// A fresh UDP socket of the family of `peer`.
pub(super) async fn socket_for(peer: SocketAddr) -> Result<UdpSocket, Fault> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Ok(UdpSocket::bind((any, 0)).await?)
}

/// Takes one whole STUN message off a stream (RFC 8489 section 6.2.2). ChannelData never comes:
/// no channel is bound.
fn split(buffer: &mut BytesMut) -> Result<Option<Vec<u8>>, Fault> {
    if buffer.first().is_some_and(|first| *first > 3) {
        return Err(Fault::Foreign);
    }
    if buffer.len() < STUN_HEADER {
        return Ok(None);
    }
    let length = STUN_HEADER + usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
    if buffer.len() < length {
        return Ok(None);
    }
    let message = buffer[..length].to_vec();
    buffer.advance(length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stun::message::BINDING_REQUEST;

    #[test]
    fn a_stream_is_split_wherever_it_was_cut() {
        let mut message = Message::new();
        message.build(&[Box::new(BINDING_REQUEST)]).unwrap();
        let both = [message.raw.clone(), message.raw.clone()].concat();
        for cut in 0..both.len() {
            let mut buffer = BytesMut::from(&both[..cut]);
            let mut got = vec![];
            while let Some(one) = split(&mut buffer).unwrap() {
                got.push(one);
            }
            buffer.extend_from_slice(&both[cut..]);
            while let Some(one) = split(&mut buffer).unwrap() {
                got.push(one);
            }
            assert_eq!(got, [message.raw.clone(), message.raw.clone()], "{cut}");
        }
        let mut http = BytesMut::from("HTTP/1.1 400 Bad Request\r\n");
        assert_eq!(split(&mut http), Err(Fault::Foreign));
    }
}
