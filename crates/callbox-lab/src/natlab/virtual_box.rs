//! The relay's engine as a host of a virtual network: the box's own code, with virtual sockets
//! around it.

use callbox::clock::unix_now;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use turn_engine::credential::TurnSecrets;
use turn_engine::framing::{Deframer, MAX_MESSAGE};
use turn_engine::shared::{RelayAddress, SharedState};
use turn_engine::{
    Engine, Event, FiveTuple, Now, OpenError, Output, PayloadRun, PeerPolicy, RelaySockets,
    RelayedKey, Settings, Transport, WorkerId,
};
use webrtc_util::vnet::net::Net;

/// The box's two addresses.
pub const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1)),
];
/// And the ports of STUN on each.
pub const PORTS: [u16; 2] = crate::stun_server::PORTS;
/// Datagrams and messages that wait; beyond that they are lost.
const QUEUE: usize = 2_048;
const STREAM_BUFFER: usize = 64 * 1024;
/// More than a datagram of a call is.
const DATAGRAM: usize = 4_096;

/// An engine that runs. It ends when it is dropped.
pub struct VirtualBox {
    inputs: mpsc::Sender<Input>,
    task: JoinHandle<()>,
}

impl Drop for VirtualBox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Input {
    FromClient(FiveTuple, Vec<u8>),
    FromPeer(RelayedKey, SocketAddr, Vec<u8>),
    /// A stream began; what is for its client goes there.
    Opened(FiveTuple, mpsc::Sender<Vec<u8>>),
    Closed(FiveTuple),
}

impl VirtualBox {
    /// Listens on both [`ADDRESSES`] of `net`; `secret` is what credentials are made with.
    ///
    /// # Errors
    /// A phrase: an address is not there, or the secret is empty.
    pub async fn start(net: Arc<Net>, secret: &str) -> Result<Self, String> {
        let secrets = TurnSecrets::new(vec![secret.into()]).ok_or("no secret")?;
        let (inputs, queue) = mpsc::channel(QUEUE);
        let mut listeners = HashMap::new();
        let mut servers = vec![];
        for ip in ADDRESSES {
            for port in PORTS {
                let server = SocketAddr::new(ip, port);
                let to = inputs.clone();
                let socket = Socket::open(Arc::clone(&net), server, move |client, bytes| {
                    let five_tuple = FiveTuple {
                        transport: Transport::Udp,
                        client,
                        server,
                    };
                    let _ = to.try_send(Input::FromClient(five_tuple, bytes));
                });
                listeners.insert(server, socket);
                servers.push(server);
            }
        }
        let mut settings = Settings::new("callbox", secrets);
        let lab = "198.18.0.0/15".parse().map_err(|_| "no network")?;
        settings.policy = PeerPolicy::new(vec![lab], vec![], ADDRESSES.to_vec());
        let relay = RelayAddress {
            bind: ADDRESSES[0],
            announced: ADDRESSES[0],
        };
        let started = Instant::now();
        let shared = SharedState::new(vec![relay], 50_000..=59_999, rand::random(), started);
        let sockets = Sockets {
            net,
            inputs: inputs.clone(),
        };
        let settings = Arc::new(settings);
        let seed = rand::random();
        let mut engine = Engine::new(WorkerId(0), settings, shared, sockets, seed, started);
        engine.set_stun_servers(servers);
        let wire = Wire {
            listeners,
            streams: HashMap::new(),
        };
        let task = tokio::spawn(serve(engine, wire, queue));
        Ok(Self { inputs, task })
    }

    /// A stream of `client` to the TCP or TLS port, as it is inside of TLS. `count` is called for each
    /// message, with whether it came from the client.
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector(self.inputs.clone())
    }
}

/// Opens streams to the box.
#[derive(Clone)]
pub struct Connector(mpsc::Sender<Input>);

impl Connector {
    /// A stream of the host at `client`. `count` is called for each message, with whether it came from
    /// the client.
    pub fn connect(
        &self,
        transport: Transport,
        client: IpAddr,
        server: SocketAddr,
        count: impl Fn(bool) + Send + Sync + 'static,
    ) -> DuplexStream {
        let (near, far) = duplex(STREAM_BUFFER);
        let five_tuple = FiveTuple {
            transport,
            client: SocketAddr::new(client, rand::random_range(1_024..=u16::MAX)),
            server,
        };
        tokio::spawn(stream(far, five_tuple, self.0.clone(), count));
        near
    }
}

async fn stream(
    far: DuplexStream,
    five_tuple: FiveTuple,
    inputs: mpsc::Sender<Input>,
    count: impl Fn(bool),
) {
    let (sender, mut messages) = mpsc::channel::<Vec<u8>>(QUEUE);
    if inputs
        .send(Input::Opened(five_tuple, sender))
        .await
        .is_err()
    {
        return;
    }
    let (mut reader, mut writer) = split(far);
    let down = async {
        while let Some(message) = messages.recv().await {
            count(false);
            if writer.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    let up = async {
        let mut received = Vec::with_capacity(DATAGRAM);
        while reader.read_buf(&mut received).await.is_ok_and(|n| n > 0) {
            let mut deframer = Deframer::new(&received, MAX_MESSAGE);
            while let Ok(Some(message)) = deframer.next_message() {
                count(true);
                let input = Input::FromClient(five_tuple, message.to_vec());
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            received = deframer.rest().to_vec();
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    let _ = inputs.send(Input::Closed(five_tuple)).await;
}

async fn serve(mut engine: Engine<Sockets>, mut wire: Wire, mut queue: mpsc::Receiver<Input>) {
    loop {
        let due = engine.next_timeout();
        let timer = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            input = queue.recv() => match input {
                Some(input) => Some(input),
                None => return,
            },
            () = timer => None,
        };
        let now = Now {
            instant: Instant::now(),
            unix: unix_now(),
        };
        match input {
            None => engine.handle_timeout(now, &mut wire),
            Some(Input::FromClient(five_tuple, bytes)) => {
                engine.from_client(now, &five_tuple, bytes.as_slice().into(), &mut wire);
            }
            Some(Input::FromPeer(relay, peer, bytes)) => {
                engine.from_peer(now, relay, peer, bytes.as_slice().into(), &mut wire);
            }
            Some(Input::Opened(five_tuple, stream)) => {
                wire.streams.insert(five_tuple.client, stream);
            }
            Some(Input::Closed(five_tuple)) => {
                wire.streams.remove(&five_tuple.client);
                engine.client_closed(now, &five_tuple, &mut wire);
            }
        }
    }
}

/// A virtual socket with a task that binds, reads and writes it, until it is dropped.
struct Socket {
    datagrams: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    task: JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Socket {
    fn open(
        net: Arc<Net>,
        address: SocketAddr,
        deliver: impl Fn(SocketAddr, Vec<u8>) + Send + 'static,
    ) -> Self {
        let (datagrams, mut to_send) = mpsc::channel::<(SocketAddr, Vec<u8>)>(QUEUE);
        let task = tokio::spawn(async move {
            let Ok(socket) = net.bind(address).await else {
                return;
            };
            let _closing = Closing(Arc::clone(&socket));
            let mut buffer = vec![0; DATAGRAM];
            loop {
                tokio::select! {
                    datagram = to_send.recv() => {
                        let Some((to, bytes)) = datagram else { return };
                        let _ = socket.send_to(&bytes, to).await;
                    }
                    received = socket.recv_from(&mut buffer) => {
                        let Ok((length, from)) = received else { return };
                        deliver(from, buffer[..length].to_vec());
                    }
                }
            }
        });
        Self { datagrams, task }
    }

    fn send(&self, to: SocketAddr, bytes: Vec<u8>) {
        // A full queue drops, as a network card's does.
        let _ = self.datagrams.try_send((to, bytes));
    }
}

/// Gives a port of the virtual network back.
struct Closing(Arc<dyn webrtc_util::Conn + Send + Sync>);

impl Drop for Closing {
    fn drop(&mut self) {
        let socket = Arc::clone(&self.0);
        tokio::spawn(async move {
            let _ = socket.close().await;
        });
    }
}

struct Sockets {
    net: Arc<Net>,
    inputs: mpsc::Sender<Input>,
}

impl RelaySockets for Sockets {
    type Socket = Socket;

    fn open(&mut self, address: SocketAddr, key: RelayedKey) -> Result<Socket, OpenError> {
        let to = self.inputs.clone();
        let net = Arc::clone(&self.net);
        Ok(Socket::open(net, address, move |peer, bytes| {
            let _ = to.try_send(Input::FromPeer(key, peer, bytes));
        }))
    }
}

struct Wire {
    listeners: HashMap<SocketAddr, Socket>,
    streams: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
}

impl Wire {
    fn send(&self, to: &FiveTuple, bytes: Vec<u8>) {
        if to.transport.is_stream() {
            if let Some(stream) = self.streams.get(&to.client) {
                let _ = stream.try_send(bytes);
            }
        } else if let Some(socket) = self.listeners.get(&to.server) {
            socket.send(to.client, bytes);
        }
    }
}

impl<'a> Output<'a, Socket> for Wire {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        self.send(to, message.to_vec());
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize) {
        for payload in payloads.payloads() {
            self.send(to, [head, payload, &[0; 3][..padding]].concat());
        }
    }

    fn to_peer(&mut self, from: &Socket, to: SocketAddr, payloads: PayloadRun<'a>, _: bool) {
        for payload in payloads.payloads() {
            from.send(to, payload.to_vec());
        }
    }

    fn to_worker(&mut self, _: WorkerId, _: RelayedKey, _: SocketAddr, _: PayloadRun<'a>) {
        // There is one worker.
    }

    fn event(&mut self, _: Event) {}
}
