//! What the fuzz targets run: here, so that `cargo test` replays what they have found.
//!
//! Compiled for tests and by `cargo fuzz` only.

use super::message::{self, Message};
use super::nonce;
use super::*;
use crate::credential::{Credential, TurnSecrets};
use crate::shared::RelayAddress;
use secrecy::SecretString;
use std::time::Duration;
use stun::attributes::*;
use stun::integrity::MessageIntegrity;
use stun::message::{Message as Encoder, MessageType, Method, Setter};

const UNIX: u64 = 1_700_000_000;
const CLIENTS: u8 = 3;

/// Methods and attributes that operations pick from.
const METHODS: [Method; 5] = [
    METHOD_ALLOCATE,
    METHOD_REFRESH,
    METHOD_CREATE_PERMISSION,
    METHOD_CHANNEL_BIND,
    METHOD_BINDING,
];
const ATTRIBUTES: [u16; 12] = [
    0x0019, 0x000d, 0x0012, 0x000c, 0x0017, 0x8000, 0x0018, 0x0022, 0x001a, 0x0013, 0x7abc, 0x8022,
];

/// Reads `bytes` as whatever a socket may bring.
pub fn parse(bytes: &[u8]) {
    if let Some(message) = Message::parse(bytes) {
        for (kind, value) in message.attributes() {
            assert!(message.get(kind).is_some());
            message.xor_address(value);
        }
        message.unknown_attributes().count();
        if let Some((covered, _)) = message.integrity().or(message.integrity_sha256()) {
            assert!(covered.rest.len() < bytes.len());
        }
    }
    message::channel_data(bytes);
}

/// Drives an engine through the operations that `bytes` spell, with credentials that are good.
///
/// # Panics
/// If the engine sends where the policy forbids it, or holds anything after everything expired.
pub fn operate(bytes: &[u8]) {
    let mut world = World::new();
    let mut input = Input(bytes);
    while let Some(op) = input.byte() {
        world.step(op, &mut input);
    }
    world.now.instant += Duration::from_secs(2 * 3_600);
    world.engine.handle_timeout(world.now, &mut world.sink);
    world.shared.expire_reservations(world.now.instant);
    assert_eq!(world.shared.allocations(), 0);
    assert_eq!(world.engine.next_timeout(), None);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn slice(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (slice, rest) = self.0.split_at(length);
        self.0 = rest;
        slice
    }
}

struct Nothing;

impl RelaySockets for Nothing {
    type Socket = ();

    fn open(&mut self, _: SocketAddr, _: RelayedKey) -> Result<(), OpenError> {
        Ok(())
    }
}

struct Sink(PeerPolicy);

impl<'a> Output<'a, ()> for Sink {
    fn reply(&mut self, _: &FiveTuple, message: &[u8]) {
        assert!(
            Message::parse(message).is_some(),
            "we send what we would not take"
        );
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize) {
        for payload in payloads.payloads() {
            let whole = [head, payload, &[0; 3][..padding]].concat();
            assert!(message::channel_data(&whole).is_some() || Message::parse(&whole).is_some());
            assert!(!to.transport.is_stream() || whole.len().is_multiple_of(4));
        }
    }

    fn to_peer(&mut self, (): &(), to: SocketAddr, _: PayloadRun<'a>, _: bool) {
        assert_eq!(self.0.judge(to.ip()), Verdict::Allow);
    }

    fn to_worker(&mut self, _: WorkerId, _: RelayedKey, _: SocketAddr, _: PayloadRun<'a>) {
        panic!("there is one worker");
    }

    fn event(&mut self, _: Event) {}
}

struct World {
    engine: Engine<Nothing>,
    shared: Arc<SharedState>,
    sink: Sink,
    now: Now,
    credential: Credential,
    transactions: u64,
}

impl World {
    fn new() -> Self {
        let instant = Instant::now();
        let now = Now {
            instant,
            unix: UNIX,
        };
        let relays: Vec<_> = ["192.0.2.10", "2001:db8::10"]
            .map(|ip| {
                let ip = ip.parse().expect("an address");
                RelayAddress {
                    bind: ip,
                    announced: ip,
                }
            })
            .into();
        let policy = PeerPolicy::new(vec![], vec![], relays.iter().map(|r| r.bind).collect());
        let shared = SharedState::new(relays, 50_000..=50_009, [1; 32], instant);
        let secrets = TurnSecrets::new(vec![SecretString::from("north")]).expect("one secret");
        let credential = secrets.mint("a", UNIX + 10_000_000);
        let settings = Arc::new(Settings {
            realm: "callbox".into(),
            secrets,
            policy: policy.clone(),
            quotas: Quotas {
                user: 5,
                ip: 5,
                total: 5,
            },
            max_session: Duration::from_secs(3_600),
            max_rate: Some(100_000),
            total_rate: None,
            alternates: vec![],
        });
        let sockets = Nothing;
        let engine = Engine::new(
            WorkerId(0),
            settings,
            Arc::clone(&shared),
            sockets,
            [2; 32],
            instant,
        );
        Self {
            engine,
            shared,
            sink: Sink(policy),
            now,
            credential,
            transactions: 0,
        }
    }

    fn five_tuple(client: u8) -> FiveTuple {
        let transport = [Transport::Udp, Transport::Tcp, Transport::Tls][usize::from(client)];
        let client = SocketAddr::from(([198, 51, 100, client], 5_000));
        FiveTuple {
            transport,
            client,
            server: ([192, 0, 2, 10], 3_478).into(),
        }
    }

    fn step(&mut self, op: u8, input: &mut Input<'_>) {
        let five_tuple = Self::five_tuple((op >> 4) % CLIENTS);
        let (engine, sink) = (&mut self.engine, &mut self.sink);
        match op & 0xf {
            0..=6 => {
                let bytes = self.request(op & 0xf, five_tuple.client, input);
                self.engine.from_client(
                    self.now,
                    &five_tuple,
                    bytes.as_slice().into(),
                    &mut self.sink,
                );
            }
            7..=8 => engine.from_client(self.now, &five_tuple, input.slice().into(), sink),
            9 => {
                let bytes = input.slice();
                // As long as the first ChannelData message.
                let segment = 4 + usize::from(bytes.get(3).copied().unwrap_or(0));
                engine.from_client(self.now, &five_tuple, GroBatch::new(bytes, segment), sink);
            }
            10 => engine.client_closed(self.now, &five_tuple, sink),
            11 => {
                let seconds = u64::from(input.byte().unwrap_or(0));
                self.now.instant += Duration::from_secs(seconds);
                self.now.unix += seconds;
            }
            12 => engine.handle_timeout(self.now, sink),
            13 => engine.revoke("a", self.now, sink),
            _ => {
                let port = 50_000 + u16::from(input.byte().unwrap_or(0)) % 10;
                let relay = SocketAddr::from(([192, 0, 2, 10], port));
                let peer = SocketAddr::from(([8, 8, 8, input.byte().unwrap_or(0) % 4], port));
                let Some((_, key)) = self.shared.find(relay) else {
                    return;
                };
                if op & 0xf == 14 {
                    engine.from_peer(self.now, key, peer, input.slice().into(), sink);
                } else {
                    let icmp = (input.byte().unwrap_or(3), input.byte().unwrap_or(3));
                    engine.peer_unreachable(self.now, key, peer, icmp, 1_400, sink);
                }
            }
        }
    }

    /// A signed request, or a Send indication, with attributes from `input`.
    fn request(&mut self, which: u8, client: SocketAddr, input: &mut Input<'_>) -> Vec<u8> {
        self.transactions += 1;
        let mut encoder = Encoder::new();
        encoder.typ = match METHODS.get(usize::from(which)) {
            Some(&method) => MessageType::new(method, CLASS_REQUEST),
            None => MessageType::new(METHOD_SEND, CLASS_INDICATION),
        };
        encoder.transaction_id.0[4..].copy_from_slice(&self.transactions.to_be_bytes());
        encoder.write_header();
        for _ in 0..input.byte().unwrap_or(0) % 6 {
            let kind = ATTRIBUTES[usize::from(input.byte().unwrap_or(0)) % ATTRIBUTES.len()];
            encoder.add(AttrType(kind), input.slice());
        }
        let Credential { username, password } = &self.credential;
        let nonce = nonce::mint(
            self.shared.nonce_key(),
            client,
            self.now.unix,
            nonce::Features::Announced,
        );
        encoder.add(ATTR_USERNAME, username.as_bytes());
        encoder.add(ATTR_REALM, b"callbox");
        encoder.add(ATTR_NONCE, nonce.as_bytes());
        let key = turn::auth::generate_auth_key(username, "callbox", password);
        MessageIntegrity(key)
            .add_to(&mut encoder)
            .expect("no FINGERPRINT yet");
        encoder.raw
    }
}

/// Runs `target` over everything that was ever found for it.
#[cfg(test)]
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/regressions")
        .join(name);
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn regressions_stay_fixed() {
        replay("message", parse);
        replay("engine", operate);
    }

    #[test]
    fn the_operations_reach_an_allocation_and_a_peer() {
        let mut world = World::new();
        let mut step = |bytes: &[u8]| world.step(bytes[0], &mut Input(&bytes[1..]));
        step(&[0, 1, 0, 4, 17, 0, 0, 0]);
        step(&[2, 1, 2, 8, 0, 1, 0x21, 0x12, 0x29, 0x1a, 0xac, 0x4a]);
        step(&[
            5, 2, 2, 8, 0, 1, 0x21, 0x13, 0x29, 0x1a, 0xac, 0x4a, 9, 1, 7,
        ]);
        assert_eq!(
            world.engine.stats().to_peers,
            Flow {
                packets: 1,
                bytes: 1
            }
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_will_do(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            parse(&bytes);
            operate(&bytes);
        }
    }
}
