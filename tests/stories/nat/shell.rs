//! The pure engine as a host of a virtual network: one thread that reads, asks the engine, sends.

use callbox::auth::credential::{Credential, TurnSecrets};
use callbox::relay::engine::{
    Engine, Event, FiveTuple, Now, OpenError, Output, PayloadRun, PeerPolicy, Quotas, RelaySockets,
    RelayedKey, Settings, Stats, Transport, WorkerId,
};
use callbox::relay::shared::{RelayAddress, SharedState};
use secrecy::SecretString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use webrtc_util::Conn;
use webrtc_util::vnet::net::Net;

const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4));
/// Where the box listens.
pub const SERVER: SocketAddr = SocketAddr::new(IP, 3478);

/// An engine on a thread of its own.
pub struct VirtualBox {
    secrets: TurnSecrets,
    inbox: mpsc::Sender<Input>,
}

enum Input {
    ToServer(SocketAddr, Vec<u8>),
    ToRelay(RelayedKey, SocketAddr, Vec<u8>),
    Stats(oneshot::Sender<Stats>),
    Stop,
}

impl VirtualBox {
    /// Listens on [`SERVER`], which is an address of `net`.
    pub async fn start(net: Arc<Net>) -> Self {
        let secrets = TurnSecrets::new(vec![SecretString::from("north")]).unwrap();
        let (inbox, inputs) = mpsc::channel();
        let to = inbox.clone();
        let listener = net.bind(SERVER).await.unwrap();
        let listener = Socket::new(Handle::current(), listener, move |from, bytes| {
            to.send(Input::ToServer(from, bytes)).is_ok()
        });
        let sockets = Sockets {
            net,
            inbox: inbox.clone(),
            runtime: Handle::current(),
        };
        let mut engine = engine(sockets, &secrets);
        std::thread::spawn(move || serve(&mut engine, &mut Wire(listener), &inputs));
        Self { secrets, inbox }
    }

    pub fn credential(&self) -> Credential {
        self.secrets.mint("peer", now().unix + 3_600)
    }

    /// The engine's counters after all that has come in so far.
    pub async fn stats(&self) -> Stats {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Input::Stats(answer)).unwrap();
        answered.await.unwrap()
    }
}

impl Drop for VirtualBox {
    fn drop(&mut self) {
        let _ = self.inbox.send(Input::Stop);
    }
}

fn engine(sockets: Sockets, secrets: &TurnSecrets) -> Engine<Sockets> {
    let settings = Settings {
        users: callbox::auth::TurnUsers::default(),
        realm: "callbox".into(),
        secrets: secrets.clone(),
        policy: PeerPolicy::new(vec![], vec![], vec![IP]),
        quotas: Quotas {
            user: 10,
            ip: 10,
            total: 10,
        },
        max_session: Duration::from_secs(3_600),
        max_rate: None,
        total_rate: None,
        alternates: vec![],
        reports_icmp: false,
    };
    let relay = RelayAddress {
        bind: IP,
        announced: IP,
    };
    let started = Instant::now();
    let shared = SharedState::new(vec![relay], 50_000..=50_099, [1; 32], started);
    let settings = Arc::new(settings);
    Engine::new(WorkerId(0), settings, shared, sockets, [2; 32], started)
}

/// Timers are left alone: the shortest of them is minutes longer than any story.
fn serve(engine: &mut Engine<Sockets>, out: &mut Wire, inputs: &mpsc::Receiver<Input>) {
    for input in inputs {
        match input {
            Input::ToServer(client, bytes) => {
                let five_tuple = FiveTuple {
                    transport: Transport::Udp,
                    client,
                    server: SERVER,
                };
                engine.from_client(now(), &five_tuple, bytes.as_slice().into(), out);
            }
            Input::ToRelay(relay, peer, bytes) => {
                engine.from_peer(now(), relay, peer, bytes.as_slice().into(), out);
            }
            Input::Stats(answer) => {
                let _ = answer.send(engine.stats().clone());
            }
            Input::Stop => return,
        }
    }
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    }
}

struct Sockets {
    net: Arc<Net>,
    inbox: mpsc::Sender<Input>,
    runtime: Handle,
}

impl RelaySockets for Sockets {
    type Socket = Socket;

    fn open(&mut self, address: SocketAddr, key: RelayedKey) -> Result<Socket, OpenError> {
        let bound = self.runtime.block_on(self.net.bind(address));
        let connection = bound.map_err(|error| OpenError::Other(io::Error::other(error)))?;
        let to = self.inbox.clone();
        Ok(Socket::new(
            self.runtime.clone(),
            connection,
            move |from, bytes| to.send(Input::ToRelay(key, from, bytes)).is_ok(),
        ))
    }
}

/// A virtual socket that is read until it is dropped.
struct Socket {
    runtime: Handle,
    connection: Arc<dyn Conn + Send + Sync>,
    reader: JoinHandle<()>,
}

impl Socket {
    fn new(
        runtime: Handle,
        connection: Arc<dyn Conn + Send + Sync>,
        deliver: impl Fn(SocketAddr, Vec<u8>) -> bool + Send + 'static,
    ) -> Self {
        let from = Arc::clone(&connection);
        let reader = runtime.spawn(async move {
            let mut buffer = vec![0; 2_000];
            while let Ok((length, peer)) = from.recv_from(&mut buffer).await {
                if !deliver(peer, buffer[..length].to_vec()) {
                    return;
                }
            }
        });
        Self {
            runtime,
            connection,
            reader,
        }
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let sent = self.runtime.block_on(self.connection.send_to(bytes, to));
        assert_eq!(sent.unwrap(), bytes.len());
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
        let _ = self.runtime.block_on(self.connection.close());
    }
}

/// Sends what the engine wants sent, at once.
struct Wire(Socket);

impl<'a> Output<'a, Socket> for Wire {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        self.0.send(to.client, message);
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize) {
        let padding = &[0; 3][..padding];
        for payload in payloads.payloads() {
            self.0.send(to.client, &[head, payload, padding].concat());
        }
    }

    fn to_peer(&mut self, from: &Socket, to: SocketAddr, payloads: PayloadRun<'a>, _: bool) {
        payloads
            .payloads()
            .for_each(|payload| from.send(to, payload));
    }

    fn to_worker(&mut self, _: WorkerId, _: RelayedKey, _: SocketAddr, _: PayloadRun<'a>) {
        panic!("there is one worker");
    }

    fn event(&mut self, _: Event) {}
}
