//! What the fuzz targets run: here, so that `cargo test` replays what they have found.
//!
//! Compiled for tests and by `cargo fuzz` only.

use super::message::{self, Message};
use super::nonce;
use super::*;
use crate::credential::{Credential, TurnSecrets};
use crate::shared::{RelayAddress, SharedSnapshot};
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
    world.sink.compares = false;
    let mut input = Input(bytes);
    while let Some(op) = input.byte() {
        world.step(op, &mut input);
    }
    world.ends_empty();
}

/// Drives an engine through the operations that `bytes` spell, has another one go on from its
/// snapshot somewhere among them, and expects both to do the same from there on.
///
/// # Panics
/// If the two engines differ, or either holds anything after everything expired.
pub fn hand_over(bytes: &[u8]) {
    hand_over_by(bytes, |engine, shared| (engine, shared));
}

/// As [`hand_over`], with what happens to the snapshots on their way.
fn hand_over_by(
    bytes: &[u8],
    carry: impl Fn(EngineSnapshot, SharedSnapshot) -> (EngineSnapshot, SharedSnapshot),
) {
    let Some((&split, bytes)) = bytes.split_first() else {
        return;
    };
    let mut old = World::new();
    let mut input = Input(bytes);
    for _ in 0..split % 64 {
        let Some(op) = input.byte() else { break };
        old.step(op, &mut input);
    }
    let now = old.now.instant;
    let engine = old.engine.snapshot(now);
    let (engine, shared) = carry(engine, old.shared.snapshot(now));
    let mut new = World::restored(&old, engine, shared);
    assert_eq!(new.shared.release_unclaimed(now), 0);
    old.sink.seen.clear();
    let rest = input.0;
    for world in [&mut old, &mut new] {
        let mut input = Input(rest);
        while let Some(op) = input.byte() {
            world.step(op, &mut input);
            let (free, held) = (world.shared.free_ports(), world.shared.held_ports());
            // The next timeout may differ: a timer of before goes off for nothing where its time was put off.
            let allocations = world.shared.allocations();
            world.sink.seen.push(format!("{free} {held} {allocations}"));
        }
        world.ends_empty();
    }
    assert_eq!(old.sink.seen, new.sink.seen);
    assert_eq!(old.engine.stats(), new.engine.stats());
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

    fn adopt(&mut self, _: RelayedKey, _: SocketAddr) -> Option<()> {
        Some(())
    }

    fn open(&mut self, _: SocketAddr, _: RelayedKey) -> Result<(), OpenError> {
        Ok(())
    }
}

/// Checks what goes out, and keeps it in words for who compares.
struct Sink {
    policy: PeerPolicy,
    compares: bool,
    seen: Vec<String>,
}

impl Sink {
    fn keep(&mut self, words: impl FnOnce() -> String) {
        if self.compares {
            self.seen.push(words());
        }
    }
}

impl<'a> Output<'a, ()> for Sink {
    fn reply(&mut self, to: &FiveTuple, message: &[u8]) {
        self.keep(|| format!("{to:?} {message:x?}"));
        // RFC 3489 knows no cookie: its clients get a Binding response that no request of today resembles.
        let is_classic = message.starts_with(&[1, 1]) && message[4..8] != [0x21, 0x12, 0xa4, 0x42];
        assert!(
            is_classic || Message::parse(message).is_some(),
            "we send what we would not take: {message:x?}"
        );
    }

    fn to_client(&mut self, to: &FiveTuple, head: &[u8], payloads: PayloadRun<'a>, padding: usize) {
        for payload in payloads.payloads() {
            let whole = [head, payload, &[0; 3][..padding]].concat();
            self.keep(|| format!("{to:?} {whole:x?}"));
            assert!(message::channel_data(&whole).is_some() || Message::parse(&whole).is_some());
            assert!(!to.transport.is_stream() || whole.len().is_multiple_of(4));
        }
    }

    fn to_peer(&mut self, (): &(), to: SocketAddr, payloads: PayloadRun<'a>, df: bool) {
        let payloads: Vec<_> = payloads.payloads().collect();
        self.keep(|| format!("{to} {payloads:x?} {df}"));
        assert_eq!(self.policy.judge(to.ip()), Verdict::Allow);
    }

    fn to_worker(&mut self, _: WorkerId, _: RelayedKey, _: SocketAddr, _: PayloadRun<'a>) {
        panic!("there is one worker");
    }

    fn event(&mut self, event: Event) {
        self.keep(|| format!("{event:?}"));
    }
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
            users: crate::users::TurnUsers::default(),
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
            reports_icmp: true,
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
            sink: Sink {
                policy,
                compares: true,
                seen: vec![],
            },
            now,
            credential,
            transactions: 0,
        }
    }

    /// The world that goes on from snapshots of `old`.
    fn restored(old: &Self, engine: EngineSnapshot, shared: SharedSnapshot) -> Self {
        let fresh = Self::new();
        let (now, id) = (old.now, WorkerId(0));
        let shared = SharedState::restore(shared, now.instant, now.unix).expect("a good snapshot");
        let settings = Arc::clone(&old.engine.settings);
        let restored = Engine::restore(
            id,
            settings,
            Arc::clone(&shared),
            Nothing,
            engine,
            now.instant,
        );
        let (engine, lost) = restored.expect("a good snapshot");
        assert_eq!(lost, 0);
        Self {
            engine,
            shared,
            now,
            credential: old.credential.clone(),
            transactions: old.transactions,
            ..fresh
        }
    }

    fn ends_empty(&mut self) {
        self.now.instant += Duration::from_secs(2 * 3_600);
        self.engine.handle_timeout(self.now, &mut self.sink);
        self.shared.expire_reservations(self.now.instant);
        assert_eq!(self.shared.allocations(), 0);
        assert_eq!(self.engine.next_timeout(), None);
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
        replay("snapshot", hand_over);
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

    fn useful_operation() -> impl Strategy<Value = Vec<u8>> {
        let client = |op: u8| (0..CLIENTS).prop_map(move |client| client << 4 | op);
        let peer = [2, 8, 0, 1, 0x21, 0x12, 0x29, 0x1a, 0xac, 0x4a];
        let after = |op: u8, rest: Vec<u8>| {
            client(op).prop_map(move |first| [&[first][..], &rest].concat())
        };
        let channel = [&[3, 2, 3, 4, 0x40, 0, 0, 0][..], &peer].concat();
        prop_oneof![
            // Allocate; with IPv6 beside; with a pair of ports.
            after(0, vec![1, 0, 4, 17, 0, 0, 0]),
            after(0, vec![2, 0, 4, 17, 0, 0, 0, 5, 4, 2, 0, 0, 0]),
            after(0, vec![2, 0, 4, 17, 0, 0, 0, 6, 1, 0x80]),
            // Refresh, and its end.
            after(1, vec![0]),
            after(1, vec![1, 1, 4, 0, 0, 0, 0]),
            // CreatePermission, ChannelBind, Send.
            after(2, [&[1][..], &peer].concat()),
            after(3, channel[1..].to_vec()),
            after(5, [&[2][..], &peer, &[9, 1, 7]].concat()),
            // A datagram of a peer, ICMP, time, a revocation.
            (0_u8..10).prop_map(|port| vec![14, port, 1, 3, b'a', b'b', b'c']),
            (0_u8..10).prop_map(|port| vec![15, port, 1, 3, 4]),
            any::<u8>().prop_map(|seconds| vec![11, seconds]),
            Just(vec![12]),
            Just(vec![13]),
            after(10, vec![]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_will_do(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            parse(&bytes);
            operate(&bytes);
        }

        #[test]
        fn an_engine_goes_on_from_a_snapshot_as_if_nothing_had_happened(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            hand_over_by(&bytes, |engine, shared| {
                let engine = serde_json::to_vec(&engine).unwrap();
                let shared = serde_json::to_vec(&shared).unwrap();
                (
                    serde_json::from_slice(&engine).unwrap(),
                    serde_json::from_slice(&shared).unwrap(),
                )
            });
        }

        /// As above, of operations that make allocations more often than chance does.
        #[test]
        fn allocations_go_on_from_a_snapshot(
            split: u8,
            ops in proptest::collection::vec(useful_operation(), 0..40),
        ) {
            let bytes = [&[split][..], &ops.concat()].concat();
            hand_over(&bytes);
        }
    }
}
