//! A TURN server over plain sockets: one faces clients, one more is opened for each relayed address.
//!
//! `cargo run -p turn-engine --example two_sockets` serves on 127.0.0.1:3478, to clients that know the
//! secret `north`.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{cell::RefCell, io, rc::Rc};
use turn_engine::{credential::TurnSecrets, *};

/// The sockets of relayed addresses that were opened, by their keys.
type Opened = Rc<RefCell<Vec<(RelayedKey, Rc<UdpSocket>)>>>;

struct Sockets(Opened);

impl RelaySockets for Sockets {
    type Socket = Rc<UdpSocket>;

    fn open(&mut self, address: SocketAddr, key: RelayedKey) -> Result<Rc<UdpSocket>, OpenError> {
        let socket = UdpSocket::bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => OpenError::PortHeld,
            _ => OpenError::Other(error),
        })?;
        socket.set_nonblocking(true).map_err(OpenError::Other)?;
        let socket = Rc::new(socket);
        self.0.borrow_mut().push((key, Rc::clone(&socket)));
        Ok(socket)
    }
}

/// Sends at once what the engine wants sent. What a socket does not take is lost, as datagrams are.
struct Sender<'s>(&'s UdpSocket);

impl<'a> Output<'a, Rc<UdpSocket>> for Sender<'_> {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        let _ = self.0.send_to(message, to.client);
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, pad: usize) {
        for payload in payloads.payloads() {
            let _ = self
                .0
                .send_to(&[head, payload, &[0; 3][..pad]].concat(), to.client);
        }
    }

    fn to_peer(&mut self, from: &Rc<UdpSocket>, to: SocketAddr, payloads: PayloadRun<'a>, _: bool) {
        for payload in payloads.payloads() {
            let _ = from.send_to(payload, to);
        }
    }

    fn to_worker(&mut self, _: WorkerId, _: RelayedKey, _: SocketAddr, _: PayloadRun<'a>) {
        // There is one worker only.
    }

    fn event(&mut self, event: Event) {
        eprintln!("{event:?}");
    }
}

/// Serves clients of `server` while `go_on` says so.
pub(crate) fn serve(server: &UdpSocket, secret: &str, go_on: impl Fn() -> bool) -> io::Result<()> {
    let (local, started) = (server.local_addr()?, Instant::now());
    let relays = vec![shared::RelayAddress {
        bind: local.ip(),
        announced: local.ip(),
    }];
    let state = shared::SharedState::new(relays, 49_152..=65_535, rand::random(), started);
    let secrets = TurnSecrets::new(vec![secret.into()]).expect("there is one secret");
    let mut settings = Settings::new("example.org", secrets);
    // Peers on loopback are denied without this.
    settings.policy = PeerPolicy::new(
        vec!["127.0.0.0/8".parse().expect("a network")],
        vec![],
        vec![],
    );
    let opened = Opened::default();
    let sockets = Sockets(Rc::clone(&opened));
    let (id, seed) = (WorkerId(0), rand::random());
    let mut engine = Engine::new(id, settings.into(), state, sockets, seed, started);

    server.set_read_timeout(Some(Duration::from_millis(5)))?;
    let mut buffer = [0; 2_048];
    while go_on() {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = Now {
            instant: Instant::now(),
            unix: unix.as_secs(),
        };
        engine.handle_timeout(now, &mut Sender(server));
        if let Ok((length, client)) = server.recv_from(&mut buffer) {
            let five_tuple = FiveTuple {
                transport: Transport::Udp,
                client,
                server: local,
            };
            engine.from_client(
                now,
                &five_tuple,
                buffer[..length].into(),
                &mut Sender(server),
            );
        }
        opened
            .borrow_mut()
            .retain(|(key, _)| engine.socket(*key).is_some());
        let sockets = opened.borrow().clone();
        for (key, socket) in sockets {
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                engine.from_peer(now, key, peer, buffer[..length].into(), &mut Sender(server));
            }
        }
    }
    Ok(())
}

#[allow(dead_code, reason = "the test of the example serves by itself")]
fn main() -> io::Result<()> {
    serve(&UdpSocket::bind("127.0.0.1:3478")?, "north", || true)
}
