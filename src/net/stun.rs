//! Binding requests over UDP as a client sends them (RFC 8489, RFC 5780).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_CHANGE_REQUEST, ATTR_OTHER_ADDRESS};
use stun::message::{BINDING_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, Message, Setter};
use stun::xoraddr::XorMappedAddress;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// What datagrams are sent from: a UDP socket, or one of a virtual network.
pub trait Datagrams: Sync {
    /// Sends one.
    fn send_to(
        &self,
        bytes: &[u8],
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<usize>> + Send;

    /// The next one, and where it is from. Cancelled, it loses nothing.
    fn recv_from(
        &self,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;

    /// The address that it is bound to.
    ///
    /// # Errors
    /// The socket is broken.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Datagrams for UdpSocket {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_to(bytes, to).await
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

/// When a request is sent, and when silence is sure.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Counted from the first sending.
    pub sendings: &'static [Duration],
    /// When nothing has come by then, nothing will.
    pub silence: Duration,
}

/// What a server answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Where the answer came from.
    pub from: SocketAddr,
    /// The socket as the server sees it.
    pub mapped: SocketAddr,
    /// The server's other address.
    pub other: Option<SocketAddr>,
}

/// Sends one request until it is answered or silence is sure. `change` is CHANGE-REQUEST, 0 for none.
pub async fn ask(
    socket: &impl Datagrams,
    server: SocketAddr,
    change: u8,
    schedule: Schedule,
) -> Option<Answer> {
    let request = request(change)?;
    let started = Instant::now();
    let mut buffer = [0; 2_048];
    for n in 0..schedule.sendings.len() {
        let _ = socket.send_to(&request.raw, server).await;
        let next = schedule.sendings.get(n + 1);
        let until = started + next.copied().unwrap_or(schedule.silence);
        while let Ok(Ok((length, from))) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            if let Some(answer) = read(&buffer[..length], from, &request) {
                return Some(answer);
            }
        }
    }
    None
}

fn request(change: u8) -> Option<Message> {
    let mut request = Message::new();
    let setters: [Box<dyn Setter>; 2] = [Box::new(TransactionId::new()), Box::new(BINDING_REQUEST)];
    request.build(&setters).ok()?;
    if change != 0 {
        request.add(ATTR_CHANGE_REQUEST, &[0, 0, 0, change]);
    }
    Some(request)
}

fn read(bytes: &[u8], from: SocketAddr, request: &Message) -> Option<Answer> {
    let mut message = Message {
        raw: bytes.to_vec(),
        ..Message::default()
    };
    message.decode().ok()?;
    let fits = message.transaction_id == request.transaction_id
        && message.typ.class == CLASS_SUCCESS_RESPONSE;
    if !fits {
        return None;
    }
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&message).ok()?;
    let mut other = stun::addr::MappedAddress::default();
    let other = other
        .get_from_as(&message, ATTR_OTHER_ADDRESS)
        .ok()
        .map(|()| SocketAddr::new(other.ip, other.port));
    Some(Answer {
        from,
        mapped: SocketAddr::new(mapped.ip, mapped.port),
        other,
    })
}
