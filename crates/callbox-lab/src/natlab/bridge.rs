//! TURN over TCP and TLS for a client that speaks UDP alone: a UDP port on the host's own
//! loopback, from which each message goes on over a stream.
//!
//! The messages are the same on both sides (RFC 8656 section 12.5); only where each ends differs. Binding
//! requests are refused: what they find is the public endpoint of a TCP connection, and webrtc-rs would
//! take it for a candidate.

use super::relay::Relay;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use turn_engine::framing::{Deframer, MAX_MESSAGE};
use webrtc_util::Conn;
use webrtc_util::vnet::net::Net;

/// Messages that wait for a stream; beyond that they are lost, as datagrams are.
const QUEUE: usize = 256;
/// Clients of one bridge: a peer has one, and another one after each restart of ICE.
const MAX_CLIENTS: usize = 16;

/// The first bytes of a Binding request and of its refusal (RFC 8489 section 5).
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];
/// The head of a STUN message: type, length, cookie, transaction.
const HEAD: usize = 20;

type Datagrams = Arc<dyn Conn + Send + Sync>;

/// A bridge. It ends when it is dropped.
pub struct Bridge {
    /// Where its clients send to.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bridge {
    /// Listens on `net`'s loopback, and connects to `relay` for each client.
    ///
    /// # Errors
    /// A phrase: no port is free.
    pub async fn open(net: &Net, relay: Relay) -> Result<Self, String> {
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let socket = net.bind(any).await.map_err(|error| error.to_string())?;
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        let task = tokio::spawn(run(socket, relay));
        Ok(Self { address, task })
    }
}

async fn run(socket: Datagrams, relay: Relay) {
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut flows = JoinSet::new();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error of an earlier datagram.
            tokio::task::yield_now().await;
            continue;
        };
        if let Some(refusal) = refused_binding(&buffer[..length]) {
            let _ = socket.send_to(&refusal, client).await;
            continue;
        }
        clients.retain(|_, flow| !flow.is_closed());
        if !clients.contains_key(&client) {
            if clients.len() >= MAX_CLIENTS {
                continue;
            }
            let (sender, messages) = mpsc::channel(QUEUE);
            clients.insert(client, sender);
            let (socket, relay) = (Arc::clone(&socket), relay.clone());
            flows.spawn(async move {
                if let Ok(stream) = relay.stream().await {
                    carry(stream, messages, &socket, client).await;
                }
            });
        }
        if let Some(flow) = clients.get(&client) {
            let _ = flow.try_send(buffer[..length].to_vec());
        }
    }
}

/// The refusal of a Binding request: an error response without attributes.
fn refused_binding(message: &[u8]) -> Option<Vec<u8>> {
    let head = message.get(..HEAD)?;
    let mut refusal = head.to_vec();
    refusal.splice(..4, [BINDING_ERROR, [0, 0]].concat());
    head.starts_with(&BINDING_REQUEST).then_some(refusal)
}

/// Until either side ends.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    mut messages: mpsc::Receiver<Vec<u8>>,
    socket: &Datagrams,
    client: SocketAddr,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let up = async {
        while let Some(mut message) = messages.recv().await {
            message.resize(message.len().next_multiple_of(4), 0);
            if writer.write_all(&message).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut received = Vec::with_capacity(4_096);
        while reader.read_buf(&mut received).await.is_ok_and(|n| n > 0) {
            let mut deframer = Deframer::new(&received, MAX_MESSAGE);
            loop {
                match deframer.next_message() {
                    Ok(Some(message)) => {
                        let _ = socket.send_to(message, client).await;
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            received = deframer.rest().to_vec();
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_requests_are_refused_and_nothing_else() {
        let mut request = stun::message::Message::new();
        let wanted: [Box<dyn stun::message::Setter>; 2] = [
            Box::new(stun::agent::TransactionId::new()),
            Box::new(stun::message::BINDING_REQUEST),
        ];
        request.build(&wanted).unwrap();
        let mut refusal = stun::message::Message {
            raw: refused_binding(&request.raw).unwrap(),
            ..stun::message::Message::default()
        };
        refusal.decode().unwrap();
        assert_eq!(refusal.typ, stun::message::BINDING_ERROR);
        assert_eq!(refusal.transaction_id, request.transaction_id);
        request.typ = stun::message::MessageType::new(
            stun::message::METHOD_ALLOCATE,
            stun::message::CLASS_REQUEST,
        );
        request.write_header();
        assert_eq!(refused_binding(&request.raw), None);
        assert_eq!(refused_binding(b"\x00\x01"), None);
        assert_eq!(refused_binding(&[0x40; 24]), None);
    }

    #[tokio::test]
    async fn messages_keep_their_ends_in_both_directions() {
        let net = Net::new(None);
        let bind = async || net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (socket, client) = (bind().await, bind().await);
        let address = client.local_addr().unwrap();
        let (near, mut far) = tokio::io::duplex(64);
        let (sender, messages) = mpsc::channel(QUEUE);
        let carried = tokio::spawn(async move { carry(near, messages, &socket, address).await });
        // ChannelData of five bytes has three bytes of padding in a stream, and none in a datagram.
        let channel_data = b"\x40\x00\x00\x05hello";
        sender.send(channel_data.to_vec()).await.unwrap();
        let mut padded = [0; 12];
        far.read_exact(&mut padded).await.unwrap();
        assert_eq!(&padded, b"\x40\x00\x00\x05hello\0\0\0");
        for piece in [&padded[..3], &padded[3..], &padded[..]] {
            far.write_all(piece).await.unwrap();
        }
        let mut buffer = [0; 64];
        for _ in 0..2 {
            let length = client.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], channel_data);
        }
        drop(far);
        carried.await.unwrap();
    }
}
